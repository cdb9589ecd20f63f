//! TLS towards the server: 1.3 only, mutual, post-quantum key exchange first (protocol.md §2).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farrier_protocol::Thumbprint;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::GatewayConfig;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or holds something else.
    #[error("expected {expected} in PEM at {path}; name the file that `farrier pki issue-vehicle` wrote")]
    Pem {
        /// What it should hold.
        expected: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate file without any.
    #[error("expected {expected} in PEM at {path}, found none")]
    Empty {
        /// What it should hold.
        expected: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key that cannot be used together.
    #[error(
        "expected certificate {certificate} and key {private_key} to belong together and {server_ca} to hold a root"
    )]
    Unusable {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        private_key: PathBuf,
        /// The root file.
        server_ca: PathBuf,
        /// What rustls says.
        #[source]
        source: Box<rustls::Error>,
    },
}

/// TLS as it is used for messages and files.
pub(crate) struct Tls {
    /// For MQTT.
    pub mqtt: Arc<ClientConfig>,
    /// For HTTPS: the same, with the protocols to choose from.
    pub https: ClientConfig,
    /// SHA-256 of this gateway's certificate.
    pub thumbprint: Thumbprint,
}

impl Tls {
    /// Reads certificate, key and root.
    pub(crate) fn read(config: &GatewayConfig) -> Result<Self, TlsError> {
        let chain = certificates(&config.certificate, "a certificate")?;
        let leaf = chain.first().ok_or_else(|| empty(&config.certificate, "a certificate"))?;
        let thumbprint = Thumbprint::of_certificate(leaf);
        let key = PrivateKeyDer::from_pem_file(&config.private_key).map_err(|source| TlsError::Pem {
            expected: "a private key",
            path: config.private_key.clone(),
            source,
        })?;
        let roots = certificates(&config.server_ca, "a root certificate")?;
        let client = client(config, chain, key, roots).map_err(|source| TlsError::Unusable {
            certificate: config.certificate.clone(),
            private_key: config.private_key.clone(),
            server_ca: config.server_ca.clone(),
            source: Box::new(source),
        })?;
        let mut https = client.clone();
        https.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { mqtt: Arc::new(client), https, thumbprint })
    }
}

fn client(
    config: &GatewayConfig,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
) -> Result<ClientConfig, rustls::Error> {
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::MLKEM768];
    if config.allow_classical_key_exchange {
        provider.kx_groups.extend([kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]);
    }
    provider.cipher_suites =
        vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384];
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root)?;
    }
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(store)
        .with_client_auth_cert(chain, key)
}

/// The certificates of a file, at least one.
pub(crate) fn certificates(
    path: &Path,
    expected: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |source| TlsError::Pem { expected, path: path.to_owned(), source };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(unusable)?.map(|found| found.map_err(unusable)).collect();
    let certificates = certificates?;
    if certificates.is_empty() { Err(empty(path, expected)) } else { Ok(certificates) }
}

fn empty(path: &Path, expected: &'static str) -> TlsError {
    TlsError::Empty { expected, path: path.to_owned() }
}
