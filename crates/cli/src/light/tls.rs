//! TLS as gateways speak it: 1.3, one cipher suite, a certificate on both sides.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use farrier_protocol::Thumbprint;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where a server listens, and what its certificate must call it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    addresses: Vec<SocketAddr>,
    name: ServerName<'static>,
}

impl Endpoint {
    /// A server on this machine, with a certificate for `localhost`.
    pub(crate) fn on_this_machine(address: SocketAddr) -> Self {
        let localhost = rustls::pki_types::DnsName::try_from("localhost").map(ServerName::DnsName);
        // The name is well formed; an address stands in for it all the same.
        let name = localhost.unwrap_or_else(|_| ServerName::IpAddress(address.ip().into()));
        Self { addresses: vec![address], name }
    }

    /// Looks a host up.
    pub(crate) async fn look_up(host: &str, port: u16) -> anyhow::Result<Self> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned());
        let name = name.with_context(|| format!("expected a host name or an address, found {host:?}"))?;
        let found = tokio::net::lookup_host((bare, port)).await;
        let addresses: Vec<_> = found.with_context(|| format!("cannot find {host}"))?.collect();
        ensure!(!addresses.is_empty(), "nobody knows the address of {host}");
        Ok(Self { addresses, name })
    }
}

/// Shakes hands over TLS.
pub(crate) async fn connect_tls(
    endpoint: &Endpoint,
    tls: &Arc<ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let addresses = endpoint.addresses.as_slice();
    let stream = TcpStream::connect(addresses).await;
    let stream = stream.with_context(|| format!("cannot connect to {addresses:?}"))?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::clone(tls));
    connector.connect(endpoint.name.clone(), stream).await.context("the TLS handshake failed")
}

/// What the clients of one authority share.
pub(crate) struct ClientTls {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
}

impl ClientTls {
    /// Trusts the root certificate in this file, and agrees on keys by these groups.
    pub(crate) fn new(ca: &Path, kx_groups: Vec<&'static dyn SupportedKxGroup>) -> anyhow::Result<Self> {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = kx_groups;
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        Ok(Self { provider: Arc::new(provider), roots: Arc::new(roots) })
    }

    /// The settings of the client with this certificate.
    pub(crate) fn config(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> anyhow::Result<ClientConfig> {
        Ok(ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(chain, key)?)
    }
}

/// The settings of the client whose certificate is in a folder, and its thumbprint.
pub(crate) fn client_config(
    certificates: &Path,
    kx_groups: Vec<&'static dyn SupportedKxGroup>,
) -> anyhow::Result<(Arc<ClientConfig>, Thumbprint)> {
    let tls = ClientTls::new(&certificates.join("ca.pem"), kx_groups)?;
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(certificates.join("cert.pem"))?.collect::<Result<_, _>>()?;
    let leaf = chain.first().context("no certificate was issued")?;
    let thumbprint = Thumbprint::of_certificate(leaf);
    let key = PrivateKeyDer::from_pem_file(certificates.join("key.pem"))?;
    Ok((Arc::new(tls.config(chain, key)?), thumbprint))
}
