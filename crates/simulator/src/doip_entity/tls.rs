//! TLS of a DoIP entity (ISO 13400-2:2019): its certificate, and whom it lets in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
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
        let config = builder.with_single_cert(certificates(&self.certificate)?, key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EntityTlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| EntityTlsError::Pem { path: path.to_owned(), source })
}
