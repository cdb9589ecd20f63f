//! TLS for vehicles: 1.3 only, both sides with certificates, revocation by list, key exchange that a
//! quantum computer does not break (protocol.md §2). Everything that can be wrong with the files is
//! found when they are loaded, not when the first vehicle comes.

pub(crate) mod listener;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use farrier_protocol::{Thumbprint, UnixMillis};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::time::ASN1Time;

use crate::desk::PeerIdentity;

/// The files that the vehicles' listeners need, all PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, then its intermediates.
    pub certificate_chain: PathBuf,
    /// The server's private key.
    pub private_key: PathBuf,
    /// The roots that vehicles' certificates must lead to.
    pub client_roots: PathBuf,
    /// The lists of revoked certificates, one of each authority that issues to vehicles.
    pub revoked: PathBuf,
    /// Also X25519 and P-256 by themselves, for gateways without ML-KEM.
    pub allow_classical_key_exchange: bool,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or not PEM of the kind that is needed.
    #[error("cannot use {path}: expected {expected} in PEM; check the path and the file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file is PEM, but what is in it is not as it should be.
    #[error("cannot use {path}: expected {expected}, found {found}; replace the file")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is in it.
        found: String,
    },
    /// The certificate or the list is out of its time.
    #[error(
        "{path} is valid from {not_before} to {not_after}, and now is outside: renew it, or check the clock"
    )]
    OutOfTime {
        /// The file.
        path: PathBuf,
        /// The first moment of its time.
        not_before: String,
        /// The last moment of its time.
        not_after: String,
    },
    /// The key does not belong to the certificate.
    #[error(
        "{key} is not the key of {certificate}: expected a pair; name the files that were issued together"
    )]
    KeyMismatch {
        /// The private key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The TLS library refuses the combination.
    #[error("the certificates, keys and lists cannot be used together")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A peer's certificate that names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoIdentity {
    /// Not an X.509 certificate.
    #[error("expected an X.509 certificate, found something else")]
    Unparsable,
    /// None or several common names: nobody could say which is meant.
    #[error("expected exactly one common name in the certificate's subject, found {found}")]
    CommonNames {
        /// How many there are.
        found: usize,
    },
}

/// The TLS settings of the vehicles' listeners; new connections take whatever was loaded last.
#[derive(Debug)]
pub struct VehicleTls {
    current: RwLock<Loaded>,
}

#[derive(Debug, Clone)]
struct Loaded {
    mqtt: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
}

impl VehicleTls {
    /// Loads and checks the files.
    ///
    /// # Errors
    /// Names the file, what was expected of it, and what to do.
    pub fn load(files: &TlsFiles, now: UnixMillis) -> Result<Self, TlsError> {
        Ok(Self { current: RwLock::new(Loaded::from_files(files, now)?) })
    }

    /// Loads the files again; live connections keep what they have (and must be cut where their
    /// certificate was revoked).
    ///
    /// # Errors
    /// As [`VehicleTls::load`]; then everything stays as it is.
    pub fn reload(&self, files: &TlsFiles, now: UnixMillis) -> Result<(), TlsError> {
        let loaded = Loaded::from_files(files, now)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// For the MQTT listener.
    pub fn mqtt(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).mqtt)
    }

    /// For the HTTPS listener: HTTP/2 and HTTP/1.1 by ALPN.
    pub fn https(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).https)
    }
}

impl Loaded {
    fn from_files(files: &TlsFiles, now: UnixMillis) -> Result<Self, TlsError> {
        let mqtt = server_config(files, now)?;
        let mut https = mqtt.clone();
        https.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { mqtt: Arc::new(mqtt), https: Arc::new(https) })
    }
}

/// Reads who a certificate was issued to.
///
/// # Errors
/// [`NoIdentity`] where the subject has not exactly one common name.
pub fn peer_identity(certificate_der: &[u8]) -> Result<PeerIdentity, NoIdentity> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(certificate_der).map_err(|_| NoIdentity::Unparsable)?;
    let names: Vec<_> = certificate.subject().iter_common_name().collect();
    let [name] = names.as_slice() else { return Err(NoIdentity::CommonNames { found: names.len() }) };
    Ok(PeerIdentity {
        common_name: name.as_str().map_err(|_| NoIdentity::Unparsable)?.to_owned(),
        thumbprint: Thumbprint::of_certificate(certificate_der),
    })
}

/// The cipher suites and key exchange groups of protocol.md §2, in its order.
fn provider(allow_classical_key_exchange: bool) -> CryptoProvider {
    let mut kx_groups = vec![kx_group::X25519MLKEM768, kx_group::MLKEM768];
    if allow_classical_key_exchange {
        kx_groups.extend([kx_group::X25519, kx_group::SECP256R1]);
    }
    CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups,
        ..aws_lc_rs::default_provider()
    }
}

fn server_config(files: &TlsFiles, now: UnixMillis) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider(files.allow_classical_key_exchange));
    let chain = own_chain(&files.certificate_chain, now)?;
    let key = PrivateKeyDer::from_pem_file(&files.private_key).map_err(|source| TlsError::Unreadable {
        path: files.private_key.clone(),
        expected: "a private key",
        source,
    })?;
    let clients =
        WebPkiClientVerifier::builder_with_provider(roots(&files.client_roots)?, Arc::clone(&provider))
            .with_crls(revocation_lists(&files.revoked, now)?)
            // The list is the issuing authority's, which says nothing of that authority itself.
            .only_check_end_entity_revocation()
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| TlsError::Refused(Box::new(error)))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Refused(Box::new(error)))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|error| refused_pair(files, error))?;
    config.ignore_client_order = true;
    // A resumed session would not look at the list of revoked certificates again, and each
    // connection would hold memory for tickets that vehicles seldom use.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn refused_pair(files: &TlsFiles, error: rustls::Error) -> TlsError {
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        return TlsError::KeyMismatch {
            key: files.private_key.clone(),
            certificate: files.certificate_chain.clone(),
        };
    }
    TlsError::Refused(Box::new(error))
}

fn own_chain(path: &Path, now: UnixMillis) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = certificates(path)?;
    for der in &chain {
        let (_, certificate) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| invalid(path, "X.509 certificates", error.to_string()))?;
        let validity = certificate.validity();
        check_time(path, validity.not_before, validity.not_after, now)?;
    }
    Ok(chain)
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for der in certificates(path)? {
        roots.add(der).map_err(|error| invalid(path, "X.509 certificates", error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let expected = "one or more certificates";
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), expected, source };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if found.is_empty() { Err(invalid(path, expected, "none".to_owned())) } else { Ok(found) }
}

fn revocation_lists(
    path: &Path,
    now: UnixMillis,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let expected = "one or more lists of revoked certificates";
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), expected, source };
    let lists: Vec<_> = CertificateRevocationListDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    for der in &lists {
        let (_, list) =
            x509_parser::parse_x509_crl(der).map_err(|error| invalid(path, expected, error.to_string()))?;
        let next_update =
            list.next_update().ok_or_else(|| invalid(path, expected, "one without an end".to_owned()))?;
        check_time(path, list.last_update(), next_update, now)?;
    }
    if lists.is_empty() { Err(invalid(path, expected, "none".to_owned())) } else { Ok(lists) }
}

fn check_time(
    path: &Path,
    not_before: ASN1Time,
    not_after: ASN1Time,
    now: UnixMillis,
) -> Result<(), TlsError> {
    if (not_before.timestamp()..=not_after.timestamp()).contains(&now.0.div_euclid(1000)) {
        return Ok(());
    }
    Err(TlsError::OutOfTime {
        path: path.to_owned(),
        not_before: not_before.to_string(),
        not_after: not_after.to_string(),
    })
}

fn invalid(path: &Path, expected: &'static str, found: String) -> TlsError {
    TlsError::Invalid { path: path.to_owned(), expected, found }
}

#[cfg(test)]
pub(crate) mod testbed;
#[cfg(test)]
mod tests;
