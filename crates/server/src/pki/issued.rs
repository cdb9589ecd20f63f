//! The record of issued certificates: `issued/{serial}.json`, one file each.
//! The list of revoked certificates is made from it, so it is the truth about revocation.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use farrier_protocol::{Binding, GatewayId, Thumbprint, VehicleId};
use serde::{Deserialize, Serialize};

use super::PkiError;
use super::folder::{self, NewFile};

const ISSUED: &str = "issued";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuedCertificate {
    /// 32 lower-case hex characters.
    pub(super) serial: String,
    pub(super) holder: Holder,
    pub(super) thumbprint: Thumbprint,
    pub(super) issued_at_ms: i64,
    pub(super) expires_at_ms: i64,
    pub(super) revoked_at_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Holder {
    Server { names: Vec<String> },
    Node { name: String },
    Vehicle { vehicle_id: VehicleId, gateway_id: GatewayId },
}

impl Holder {
    pub(super) fn of_vehicle(binding: &Binding) -> Self {
        Self::Vehicle { vehicle_id: binding.vehicle_id.clone(), gateway_id: binding.gateway_id.clone() }
    }
}

impl IssuedCertificate {
    /// The serial number, most significant octet first.
    pub(super) fn serial_octets(&self) -> Vec<u8> {
        u128::from_str_radix(&self.serial, 16).unwrap_or_default().to_be_bytes().to_vec()
    }
}

pub(super) fn write(dir: &Path, certificate: &IssuedCertificate, replace: bool) -> Result<(), PkiError> {
    write_all(dir, std::slice::from_ref(certificate), replace)
}

/// Records all of them, or none.
pub(super) fn write_all(
    dir: &Path,
    certificates: &[IssuedCertificate],
    replace: bool,
) -> Result<(), PkiError> {
    let folder = dir.join(ISSUED);
    folder::create(&folder)?;
    let file = |certificate: &IssuedCertificate| {
        let path = folder.join(format!("{}.json", certificate.serial));
        match serde_json::to_string_pretty(certificate) {
            Ok(json) => Ok(NewFile::public(path, json + "\n")),
            Err(error) => Err(PkiError::Write { path, source: error.into() }),
        }
    };
    let files = certificates.iter().map(file).collect::<Result<Vec<_>, _>>()?;
    folder::write(&files, replace)
}

pub(super) fn read_all(dir: &Path) -> Result<Vec<IssuedCertificate>, PkiError> {
    let folder = dir.join(ISSUED);
    let failed = |source| PkiError::Read { path: folder.clone(), source };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(read_one).collect()
}

fn read_one(path: PathBuf) -> Result<IssuedCertificate, PkiError> {
    let damaged = |path, found| PkiError::Damaged { path, expected: "the record of a certificate", found };
    let certificate: IssuedCertificate = match serde_json::from_str(&folder::read(&path)?) {
        Ok(certificate) => certificate,
        Err(error) => return Err(damaged(path, error.to_string())),
    };
    if certificate.serial.len() != 32 || u128::from_str_radix(&certificate.serial, 16).is_err() {
        let found = format!("serial {:?}", certificate.serial);
        return Err(damaged(path, found));
    }
    Ok(certificate)
}

pub(super) fn forget_all(dir: &Path) -> Result<(), PkiError> {
    let path = dir.join(ISSUED);
    match fs::remove_dir_all(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(PkiError::Write { path, source }),
    }
}
