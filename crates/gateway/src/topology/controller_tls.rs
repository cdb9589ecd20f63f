//! TLS towards a controller (ISO 13400-2:2019, port 3496): 1.3 where it can, else 1.2, which that standard names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::EntityAddress;

/// `tls = { … }` of a controller.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    ca: PathBuf,
    #[serde(default)]
    server_name: Option<String>,
    #[serde(default)]
    certificate: Option<PathBuf>,
    #[serde(default)]
    private_key: Option<PathBuf>,
}

/// How a connection to one controller is encrypted, and who may answer.
#[derive(Debug, Clone)]
pub struct ControllerTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Why certificates for a controller cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControllerTlsError {
    /// A file that cannot be read, or holds something else.
    #[error("expected {expected} in PEM at {path}")]
    Pem {
        /// What it should hold.
        expected: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// One half of the tester's own certificate.
    #[error("expected both certificate and private_key, or neither")]
    HalfIdentity,
    /// An address that nobody knows beforehand, and no name.
    #[error("expected server_name, since a controller that is found by its eid has no address of its own")]
    NoName,
    /// A name that no certificate can have.
    #[error("expected a DNS name or an IP address as server_name, found {found:?}")]
    Name {
        /// The name.
        found: String,
        /// Why not.
        #[source]
        source: InvalidDnsNameError,
    },
    /// Certificates that rustls does not take.
    #[error("expected a root in {ca} and, where given, a certificate and its key")]
    Unusable {
        /// The root file.
        ca: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
}

impl Entry {
    /// Reads the files; without a name, the certificate has to be for the controller's IP address.
    pub(super) fn read(
        self,
        address: &EntityAddress,
        folder: &Path,
    ) -> Result<ControllerTls, ControllerTlsError> {
        let name = match (self.server_name, address) {
            (None, EntityAddress::Fixed(address)) => ServerName::from(address.ip()),
            (None, EntityAddress::OfEid { .. }) => return Err(ControllerTlsError::NoName),
            (Some(found), _) => ServerName::try_from(found.clone())
                .map_err(|source| ControllerTlsError::Name { found, source })?,
        };
        // `join` leaves an absolute path as it is.
        let ca = folder.join(self.ca);
        let identity = match (self.certificate, self.private_key) {
            (Some(certificate), Some(key)) => Some((
                certificates(&folder.join(certificate), "a certificate")?,
                private_key(&folder.join(key))?,
            )),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(ControllerTlsError::HalfIdentity),
        };
        let roots = certificates(&ca, "a root certificate")?;
        let config = client(roots, identity).map_err(|source| ControllerTlsError::Unusable { ca, source })?;
        Ok(ControllerTls { config: Arc::new(config), name })
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client(
    roots: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
) -> Result<ClientConfig, rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(store);
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key),
        None => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(
    path: &Path,
    expected: &'static str,
) -> Result<Vec<CertificateDer<'static>>, ControllerTlsError> {
    let unusable = |source| ControllerTlsError::Pem { expected, path: path.to_owned(), source };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(unusable)?.map(|found| found.map_err(unusable)).collect();
    let found = found?;
    if found.is_empty() { Err(unusable(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ControllerTlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| ControllerTlsError::Pem {
        expected: "a private key",
        path: path.to_owned(),
        source,
    })
}

impl ControllerTls {
    /// The handshake.
    pub(crate) async fn connect(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), stream).await
    }
}
