//! TLS for operators: 1.3 with the library's usual groups, since browsers and curl come too; the server proves itself
//! by a certificate, operators themselves by a token.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use farrier_protocol::UnixMillis;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;

use super::expiry::{Alarm, ExpiryAlarms, Perishable, Validity};
use super::{TlsError, first_ends, own_chain, private_key, refused_pair};

/// The files of the operators' listener, PEM.
#[derive(Debug, Clone)]
pub(crate) struct OperatorTlsFiles {
    /// The certificate, then its intermediates.
    pub(crate) certificate_chain: PathBuf,
    /// Its private key.
    pub(crate) private_key: PathBuf,
}

/// The TLS settings of the operators' listener; new connections take whatever was loaded last.
#[derive(Debug)]
pub(crate) struct OperatorTls(RwLock<Loaded>);

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    validities: Vec<Validity>,
}

impl OperatorTls {
    pub(crate) fn load(files: &OperatorTlsFiles, now: UnixMillis) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Loaded::from_files(files, now)?)))
    }

    /// Loads the files again; where they cannot be used, everything stays as it is.
    pub(crate) fn reload(&self, files: &OperatorTlsFiles, now: UnixMillis) -> Result<(), TlsError> {
        let loaded = Loaded::from_files(files, now)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    pub(crate) fn alarms(&self, now: UnixMillis, alarms: &ExpiryAlarms) -> Vec<Alarm> {
        let loaded = self.0.read().unwrap_or_else(PoisonError::into_inner);
        loaded.validities.iter().filter_map(|validity| validity.alarm(now, alarms)).collect()
    }

    pub(crate) fn ends(&self) -> BTreeMap<Perishable, UnixMillis> {
        first_ends(&self.0.read().unwrap_or_else(PoisonError::into_inner).validities)
    }
}

impl Loaded {
    fn from_files(files: &OperatorTlsFiles, now: UnixMillis) -> Result<Self, TlsError> {
        let (chain, validities) = own_chain(&files.certificate_chain, Perishable::OperatorCertificate, now)?;
        let key = private_key(&files.private_key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Refused(Box::new(error)))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| refused_pair(&files.private_key, &files.certificate_chain, error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), validities })
    }
}
