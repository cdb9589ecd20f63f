//! A certificate authority, a server's TLS and vehicles' TLS clients for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farrier_protocol::{Binding, UnixMillis};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{TlsFiles, VehicleTls};
use crate::pki::{LEAF_VALIDITY, Pki};

pub(crate) struct Testbed {
    folder: tempfile::TempDir,
    pub(crate) pki: Pki,
}

pub(crate) fn binding(vehicle: &str, gateway: &str) -> Binding {
    Binding { vehicle_id: vehicle.parse().unwrap(), gateway_id: gateway.parse().unwrap() }
}

/// The TLS library judges certificates by the system's clock, so these tests live in the present.
pub(crate) fn now() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixMillis(since.as_millis().try_into().unwrap())
}

impl Testbed {
    pub(crate) fn new() -> Self {
        Self::made_at(now())
    }

    /// An authority, a list of revoked certificates and a server's certificate of that time.
    pub(crate) fn made_at(then: UnixMillis) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::init(&folder.path().join("pki"), false, then).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        pki.issue_server(&names, &folder.path().join("server"), LEAF_VALIDITY, false, then).unwrap();
        Self { folder, pki }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder with the certificate of this vehicle.
    pub(crate) fn vehicle(&self, binding: &Binding) -> PathBuf {
        let out = self.path(&binding.client_id());
        self.pki.issue_vehicle(binding, &out, LEAF_VALIDITY, false, now()).unwrap();
        out
    }

    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate_chain: self.path("server/cert.pem"),
            private_key: self.path("server/key.pem"),
            client_roots: self.pki.root_certificate(),
            revoked: self.pki.crl(),
            allow_classical_key_exchange: false,
            allow_expired_revocation_list: false,
        }
    }

    pub(crate) fn tls(&self) -> Arc<VehicleTls> {
        Arc::new(VehicleTls::load(&self.files(), now()).unwrap())
    }

    /// A vehicle's TLS settings; without a folder it has no certificate.
    pub(crate) fn client(
        &self,
        vehicle: Option<&Path>,
        groups: &[&'static dyn SupportedKxGroup],
    ) -> ClientConfig {
        let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.pki.root_certificate()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let Some(folder) = vehicle else { return builder.with_no_client_auth() };
        let chain = CertificateDer::pem_file_iter(folder.join("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
        builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
    }

    /// As a vehicle that follows the protocol.
    pub(crate) fn usual_client(&self, vehicle: &Path) -> ClientConfig {
        self.client(Some(vehicle), &[kx_group::X25519MLKEM768])
    }
}

pub(crate) async fn connect(config: ClientConfig, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
}
