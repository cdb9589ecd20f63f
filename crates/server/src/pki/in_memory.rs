//! Certificates for many vehicles at once that are kept in memory, as a simulated fleet needs them.

use std::collections::HashMap;
use std::time::Duration;

use farrier_protocol::{Binding, UnixMillis};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::folder;
use super::issued::{self, Holder};
use super::{INTERMEDIATE_CERTIFICATE, LONGEST_COMMON_NAME, Pki, PkiError, Purpose, Signed};
use super::{certificate_time, signed};

/// A vehicle's certificate and its key.
#[derive(Debug)]
pub struct VehicleCertificate {
    /// Whose.
    pub binding: Binding,
    /// The vehicle's certificate, then the intermediate's.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
}

impl Pki {
    /// Issues a certificate to each of these vehicles' gateways. They are recorded, so that they can be revoked, and
    /// written to no other file. The record is read once, not for each of them.
    ///
    /// # Errors
    /// [`PkiError::ClientIdTaken`], [`PkiError::CommonNameTooLong`], files that cannot be read or written.
    pub fn issue_vehicles_in_memory(
        &self,
        bindings: Vec<Binding>,
        validity: Duration,
        now: UnixMillis,
    ) -> Result<Vec<VehicleCertificate>, PkiError> {
        let _lock = folder::lock(&self.dir)?;
        let mut holders = HashMap::new();
        for certificate in issued::read_all(&self.dir)? {
            if let Holder::Vehicle { vehicle_id, gateway_id } = certificate.holder {
                let holder = Binding { vehicle_id, gateway_id };
                holders.insert(holder.client_id(), holder);
            }
        }
        let (intermediate_pem, issuer) = self.intermediate()?;
        let intermediate = CertificateDer::from_pem_slice(intermediate_pem.as_bytes()).map_err(|error| {
            let path = self.dir.join(INTERMEDIATE_CERTIFICATE);
            PkiError::Damaged { path, expected: "a certificate in PEM", found: error.to_string() }
        })?;
        let ends = certificate_time(now, Some(validity))?.min(self.intermediate_ends()?);
        let issue = |binding: Binding| {
            let client_id = binding.client_id();
            if client_id.len() > LONGEST_COMMON_NAME {
                return Err(PkiError::CommonNameTooLong { length: client_id.len(), client_id });
            }
            let holder = holders.entry(client_id.clone()).or_insert_with(|| binding.clone());
            if *holder != binding {
                return Err(PkiError::ClientIdTaken {
                    client_id,
                    holder_vehicle: holder.vehicle_id.clone().into(),
                    holder_gateway: holder.gateway_id.clone().into(),
                });
            }
            let holder = Holder::of_vehicle(&binding);
            let Signed { certificate, key, record } =
                signed(&client_id, Purpose::Client, holder, &issuer, now, ends)?;
            let chain = vec![certificate.der().clone(), intermediate.clone()];
            let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            Ok((record, VehicleCertificate { binding, chain, key }))
        };
        let issued = bindings.into_iter().map(issue).collect::<Result<Vec<_>, PkiError>>()?;
        let (records, certificates): (Vec<_>, Vec<_>) = issued.into_iter().unzip();
        // The record first, as for each single one.
        issued::write_all(&self.dir, &records, false)?;
        Ok(certificates)
    }
}
