//! What vehicles run, in rows that selections can search, and what they ran before.

use std::borrow::Cow;

use farrier_campaign::{EcuFacts, version_key};
use farrier_protocol::{EcuEntry, SendVci, Sha256, UnixMillis, VehicleId};
use serde::Serialize;

use super::tx::stored_json;
use super::vehicles::Vehicle;
use super::{StoreError, Tx};

/// A row of `vehicle_ecu`; the statements read it by these names.
#[derive(Serialize)]
struct EcuRow<'e> {
    ecu_id: &'e str,
    supplier_code: Option<&'e str>,
    hw_part_no: Option<&'e str>,
    sw_part_no: Option<&'e str>,
    sw_version: Option<&'e str>,
    sw_version_key: Option<String>,
    bootloader_ver: Option<&'e str>,
    bootloader_ver_key: Option<String>,
    calibration_id: Option<&'e str>,
    mac_address: Option<&'e str>,
    ip_address: Option<&'e str>,
    can_id: Option<&'e str>,
    domain: Option<&'e str>,
    zone: Option<Cow<'e, str>>,
}

impl<'e> From<&'e EcuEntry> for EcuRow<'e> {
    fn from(ecu: &'e EcuEntry) -> Self {
        let facts = EcuFacts::from(ecu);
        Self {
            ecu_id: facts.ecu_id,
            supplier_code: facts.supplier_code,
            hw_part_no: facts.hw_part_no,
            sw_part_no: facts.sw_part_no,
            sw_version: facts.sw_version,
            sw_version_key: facts.sw_version.and_then(version_key),
            bootloader_ver: facts.bootloader_ver,
            bootloader_ver_key: facts.bootloader_ver.and_then(version_key),
            calibration_id: facts.calibration_id,
            mac_address: facts.mac_address,
            ip_address: facts.ip_address,
            can_id: facts.can_id,
            domain: facts.domain,
            zone: facts.zone,
        }
    }
}

macro_rules! insert_ecus {
    ($from:literal) => {
        concat!(
            "INSERT INTO vehicle_ecu (vehicle_id, ecu_id, supplier_code, hw_part_no, sw_part_no, sw_version, \
             sw_version_key, bootloader_ver, bootloader_ver_key, calibration_id, mac_address, ip_address, can_id, \
             domain, zone) ",
            $from
        )
    };
}

/// Puts the ECUs of a VCI in the place of those that were known: two statements, however many there are.
pub(super) fn index(tx: &Tx<'_>, vehicle_id: &VehicleId, vci: &SendVci) -> Result<(), StoreError> {
    tx.exec("DELETE FROM vehicle_ecu WHERE vehicle_id = $1", &[vehicle_id.as_str().into()])?;
    let sql = tx.one_of(
        insert_ecus!(
            "SELECT $1, value ->> 'ecu_id', value ->> 'supplier_code', value ->> 'hw_part_no', \
             value ->> 'sw_part_no', value ->> 'sw_version', value ->> 'sw_version_key', \
             value ->> 'bootloader_ver', value ->> 'bootloader_ver_key', value ->> 'calibration_id', \
             value ->> 'mac_address', value ->> 'ip_address', value ->> 'can_id', value ->> 'domain', \
             value ->> 'zone' FROM json_each($2)"
        ),
        insert_ecus!(
            "SELECT CAST($1 AS TEXT), e.* FROM json_to_recordset(CAST(CAST($2 AS TEXT) AS JSON)) AS e \
             (ecu_id TEXT, supplier_code TEXT, hw_part_no TEXT, sw_part_no TEXT, sw_version TEXT, \
             sw_version_key TEXT, bootloader_ver TEXT, bootloader_ver_key TEXT, calibration_id TEXT, \
             mac_address TEXT, ip_address TEXT, can_id TEXT, domain TEXT, zone TEXT)"
        ),
    );
    let rows: Vec<EcuRow<'_>> = vci.ecu_inventory.iter().map(EcuRow::from).collect();
    tx.exec(sql, &[vehicle_id.as_str().into(), (&stored_json(&rows)?).into()])?;
    Ok(())
}

/// Brings inventories, 200 at a time, into rows that a version wrote that did not know these; gives their number, 0 at the end.
pub(super) fn index_missing(tx: &Tx<'_>) -> Result<usize, StoreError> {
    // Of several servers that start at once, one does it.
    tx.lock("inventories")?;
    let sql = tx.one_of(
        "SELECT v.vehicle_id, v.vci_digest, i.vci FROM vehicle v \
         LEFT JOIN vehicle_inventory i ON i.vehicle_id = v.vehicle_id \
         WHERE v.vci_digest IS NOT NULL AND (v.indexed_digest IS NULL OR v.indexed_digest <> v.vci_digest) \
         ORDER BY v.vehicle_id LIMIT 200",
        "SELECT v.vehicle_id, v.vci_digest, i.vci FROM vehicle v \
         LEFT JOIN vehicle_inventory i ON i.vehicle_id = v.vehicle_id \
         WHERE v.vci_digest IS NOT NULL AND (v.indexed_digest IS NULL OR v.indexed_digest <> v.vci_digest) \
         ORDER BY v.vehicle_id LIMIT 200 FOR NO KEY UPDATE OF v",
    );
    let read = |row: &super::Row<'_>| {
        Ok((row.parsed::<VehicleId>(0, "a vehicle id")?, row.text(1)?, row.optional_text(2)?))
    };
    let missing = tx.rows(sql, &[], read)?;
    for (vehicle_id, digest, vci) in &missing {
        let vci = vci.as_deref().and_then(|vci| serde_json::from_str::<SendVci>(vci).ok());
        match &vci {
            Some(vci) => index(tx, vehicle_id, vci)?,
            // One inventory must not keep the server from starting; `farrier store verify` tells of it too.
            None => tracing::error!(vehicle = %vehicle_id, "A stored inventory cannot be read."),
        }
        let region = vci.as_ref().and_then(|vci| vci.region.as_ref());
        tx.exec(
            "UPDATE vehicle SET indexed_digest = $2, reported_region = $3 WHERE vehicle_id = $1",
            &[vehicle_id.as_str().into(), digest.into(), region.map(farrier_protocol::Text::as_str).into()],
        )?;
    }
    Ok(missing.len())
}

/// What a vehicle ran at one time.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    pub(crate) number: u64,
    pub(crate) vci_digest: Sha256,
    pub(crate) first_seen_at: UnixMillis,
    /// `None` for what it runs now.
    pub(crate) last_seen_at: Option<UnixMillis>,
    pub(crate) vci: SendVci,
}

/// Begins another configuration; of each vehicle the newest 50 are kept, and those that the record of an update names.
pub(super) fn append(
    tx: &Tx<'_>,
    vehicle: &Vehicle,
    digest: Sha256,
    vci: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let vehicle_id = vehicle.binding.vehicle_id.as_str();
    tx.exec(
        "UPDATE vehicle_configuration SET last_seen_at = $2 WHERE vehicle_id = $1 AND last_seen_at IS NULL",
        &[vehicle_id.into(), vehicle.vci_received_at.unwrap_or(now).into()],
    )?;
    let number = tx.row(
        "SELECT COALESCE(MAX(number), 0) + 1 FROM vehicle_configuration WHERE vehicle_id = $1",
        &[vehicle_id.into()],
        |row| row.integer(0),
    )?;
    let number = number.unwrap_or(1);
    tx.exec(
        "INSERT INTO vehicle_configuration (vehicle_id, number, vci_digest, first_seen_at, vci) \
         VALUES ($1, $2, $3, $4, $5)",
        &[vehicle_id.into(), number.into(), (&digest.to_string()).into(), now.into(), vci.into()],
    )?;
    tx.exec(
        "DELETE FROM vehicle_configuration WHERE vehicle_id = $1 AND number <= $2 AND is_evidence IS NULL",
        &[vehicle_id.into(), number.saturating_sub(50).into()],
    )?;
    Ok(())
}

/// Keeps what a vehicle is last known to run for ever; gives its number among the vehicle's configurations.
pub(crate) fn keep_current(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Option<u64>, StoreError> {
    let found = tx.row(
        "SELECT number, is_evidence FROM vehicle_configuration WHERE vehicle_id = $1 AND last_seen_at IS NULL \
         ORDER BY number DESC LIMIT 1",
        &[vehicle_id.as_str().into()],
        |row| Ok((row.count(0)?, row.optional_integer(1)?.is_some())),
    )?;
    let Some((number, is_kept)) = found else { return Ok(None) };
    if !is_kept {
        tx.exec(
            "UPDATE vehicle_configuration SET is_evidence = 1 WHERE vehicle_id = $1 AND number = $2",
            &[vehicle_id.as_str().into(), i64::try_from(number).unwrap_or(i64::MAX).into()],
        )?;
    }
    Ok(Some(number))
}

/// The configuration of a vehicle with this number.
pub(crate) fn configuration(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    number: u64,
) -> Result<Option<Configuration>, StoreError> {
    let before = i64::try_from(number.saturating_add(1)).unwrap_or(i64::MAX);
    let found = configurations(tx, vehicle_id, before, 1)?.into_iter().next();
    Ok(found.filter(|found| found.number == number))
}

/// The configurations of a vehicle before a number, newest first.
pub(crate) fn configurations(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    before: i64,
    limit: u32,
) -> Result<Vec<Configuration>, StoreError> {
    tx.rows(
        "SELECT number, vci_digest, first_seen_at, last_seen_at, vci FROM vehicle_configuration \
         WHERE vehicle_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        &[vehicle_id.as_str().into(), before.into(), i64::from(limit).into()],
        |row| {
            Ok(Configuration {
                number: row.count(0)?,
                vci_digest: row.parsed(1, "a VCI digest")?,
                first_seen_at: row.time(2)?,
                last_seen_at: row.optional_time(3)?,
                vci: row.json(4, "a VCI")?,
            })
        },
    )
}
