//! TLS of a DoIP entity (ISO 13400-2:2019): its certificate, and whom it lets in.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{KeyLog, RootCertStore, ServerConfig};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

/// TLS of an entity as a configuration file describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntityTls {
    /// Where it listens for TLS, 3496 in a vehicle; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its certificate and those between it and the root, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub private_key: PathBuf,
    /// Root of the testers it lets in, PEM; without it every tester may come.
    #[serde(default)]
    pub tester_ca: Option<PathBuf>,
    /// Where the keys of all its sessions are written for a dissector. No configuration file can ask for it.
    #[serde(skip)]
    pub key_log: Option<PathBuf>,
}

/// Why the certificates of an entity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EntityTlsError {
    /// A file that cannot be read, or holds something else.
    #[error("expected certificates or a key in PEM at {path}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificates that rustls does not take.
    #[error("expected a certificate that belongs to its key")]
    Unusable(#[from] rustls::Error),
    /// A root that cannot verify testers.
    #[error("expected a root certificate for testers")]
    TesterRoot(#[from] VerifierBuilderError),
    /// A file for the keys that cannot be written.
    #[error("expected to write the keys of sessions to {path}")]
    KeyLog {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes keys in the format that dissectors read (`SSLKEYLOGFILE`).
#[derive(Debug)]
struct KeyLogFile(Mutex<File>);

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "The keys of a session could not be written.");
        }
    }
}

impl EntityTls {
    /// Reads the files.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, EntityTlsError> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match &self.tester_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(path)? {
                    roots.add(root)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let path = &self.private_key;
        let key = PrivateKeyDer::from_pem_file(path)
            .map_err(|source| EntityTlsError::Pem { path: path.clone(), source })?;
        let mut config = builder.with_single_cert(certificates(&self.certificate)?, key)?;
        if let Some(path) = &self.key_log {
            let file =
                File::create(path).map_err(|source| EntityTlsError::KeyLog { path: path.clone(), source })?;
            config.key_log = Arc::new(KeyLogFile(Mutex::new(file)));
        }
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EntityTlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| EntityTlsError::Pem { path: path.to_owned(), source })
}
