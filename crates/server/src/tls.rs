//! TLS for vehicles: 1.3 only, both sides with certificates, revocation by list, key exchange that a
//! quantum computer does not break (protocol.md §2). Everything that can be wrong with the files is
//! found when they are loaded, not when the first vehicle comes.

mod expiry;
pub(crate) mod listener;
pub(crate) mod operator;
pub(crate) mod outgoing;
mod refused;
mod revocation;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use farrier_protocol::{Thumbprint, UnixMillis};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use expiry::Validity;
pub use expiry::{Alarm, ExpiryAlarms, Perishable};
pub use outgoing::OutgoingTlsError;
pub(crate) use refused::RefusedPeer;
use refused::{NotingVerifier, RefusedPeers};
use revocation::{CertificateKey, LivePeers};

use crate::desk::{Certificate, PeerIdentity};

/// Octets of a serial number (RFC 5280 §4.1.2.2).
const LONGEST_SERIAL: usize = 20;

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
    /// Go by the last list of revoked certificates although its time is over.
    pub allow_expired_revocation_list: bool,
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

/// The TLS settings of the vehicles' listeners; new connections take whatever was loaded last, and those whose
/// certificate a new list names are ended.
#[derive(Debug)]
pub struct VehicleTls {
    current: RwLock<Loaded>,
    live: Arc<LivePeers>,
    refused: RefusedPeers,
}

#[derive(Debug, Clone)]
struct Loaded {
    mqtt: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
    validities: Vec<Validity>,
    allows_expired_list: bool,
}

impl VehicleTls {
    /// Loads and checks the files.
    ///
    /// # Errors
    /// Names the file, what was expected of it, and what to do.
    pub fn load(files: &TlsFiles, now: UnixMillis) -> Result<Self, TlsError> {
        let (loaded, revoked) = Loaded::from_files(files, now)?;
        let live = Arc::new(LivePeers::default());
        live.revoke(revoked);
        Ok(Self { current: RwLock::new(loaded), live, refused: RefusedPeers::default() })
    }

    /// Loads the files again, and ends the live connections of certificates that are revoked now. Other
    /// connections keep what they have. Says whose connections end.
    ///
    /// # Errors
    /// As [`VehicleTls::load`]; then everything stays as it is.
    pub fn reload(&self, files: &TlsFiles, now: UnixMillis) -> Result<Vec<PeerIdentity>, TlsError> {
        let (loaded, revoked) = Loaded::from_files(files, now)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(self.live.revoke(revoked))
    }

    /// Whose handshakes were refused for a revoked certificate and is to be told at `now`.
    pub(crate) fn take_refused(&self, now: Instant) -> Vec<RefusedPeer> {
        self.refused.take(now)
    }

    /// For the MQTT listener.
    pub fn mqtt(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).mqtt)
    }

    /// For the HTTPS listener: HTTP/2 and HTTP/1.1 by ALPN.
    pub fn https(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).https)
    }

    /// What of it ends soon, or has ended.
    pub fn alarms(&self, now: UnixMillis, alarms: &ExpiryAlarms) -> Vec<Alarm> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.validities.iter().filter_map(|validity| validity.alarm(now, alarms)).collect()
    }

    /// When each kind of it ends, the first of several.
    pub(crate) fn ends(&self) -> BTreeMap<Perishable, UnixMillis> {
        first_ends(&self.current.read().unwrap_or_else(PoisonError::into_inner).validities)
    }

    /// Whether vehicles can connect: nothing that their connections need has ended.
    pub(crate) fn lets_vehicles_in(&self, now: UnixMillis) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let of = |kind| current.validities.iter().filter(move |validity| validity.of == kind);
        of(Perishable::ServerCertificate).all(|validity| validity.contains(now))
            && of(Perishable::ClientRoot).any(|validity| validity.contains(now))
            && (current.allows_expired_list
                || of(Perishable::RevocationList).all(|validity| validity.contains(now)))
    }
}

fn first_ends(validities: &[Validity]) -> BTreeMap<Perishable, UnixMillis> {
    let mut ends = BTreeMap::new();
    for validity in validities {
        let end = ends.entry(validity.of).or_insert(validity.until);
        *end = validity.until.min(*end);
    }
    ends
}

impl Loaded {
    /// With the certificates that are revoked.
    fn from_files(files: &TlsFiles, now: UnixMillis) -> Result<(Self, HashSet<CertificateKey>), TlsError> {
        let (chain, mut validities) =
            own_chain(&files.certificate_chain, Perishable::ServerCertificate, now)?;
        let roots = roots(&files.client_roots, &mut validities)?;
        let lists = RevocationLists::read(files, now)?;
        validities.extend(lists.validities);
        let mqtt = server_config(files, chain, roots, lists.ders)?;
        let mut https = mqtt.clone();
        https.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let allows_expired_list = files.allow_expired_revocation_list;
        let loaded = Self { mqtt: Arc::new(mqtt), https: Arc::new(https), validities, allows_expired_list };
        Ok((loaded, lists.revoked))
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
    let number = certificate.raw_serial();
    // Leading zeros are the encoding's, not the number's.
    let first = number.iter().position(|octet| *octet != 0).unwrap_or(number.len());
    let serial = number.iter().skip(first).take(LONGEST_SERIAL).map(|octet| format!("{octet:02x}")).collect();
    let ends_at = UnixMillis(certificate.validity().not_after.timestamp().saturating_mul(1000));
    Ok(PeerIdentity {
        common_name: name.as_str().map_err(|_| NoIdentity::Unparsable)?.to_owned(),
        thumbprint: Thumbprint::of_certificate(certificate_der),
        certificate: Some(Certificate { serial, ends_at }),
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

fn server_config(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider(files.allow_classical_key_exchange));
    let key = private_key(&files.private_key)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .with_crls(lists)
        // The list is the issuing authority's, which says nothing of that authority itself.
        .only_check_end_entity_revocation();
    let clients =
        if files.allow_expired_revocation_list { clients } else { clients.enforce_revocation_expiration() };
    let clients = clients.build().map_err(|error| TlsError::Refused(Box::new(error)))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Refused(Box::new(error)))?
        .with_client_cert_verifier(Arc::new(NotingVerifier(clients)))
        .with_single_cert(chain, key)
        .map_err(|error| refused_pair(&files.private_key, &files.certificate_chain, error))?;
    config.ignore_client_order = true;
    // A resumed session would not look at the list of revoked certificates again, and each
    // connection would hold memory for tickets that vehicles seldom use.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        expected: "a private key",
        source,
    })
}

fn refused_pair(key: &Path, certificate: &Path, error: rustls::Error) -> TlsError {
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        return TlsError::KeyMismatch { key: key.to_owned(), certificate: certificate.to_owned() };
    }
    TlsError::Refused(Box::new(error))
}

/// A chain of certificates that are all in their time, and when they end.
fn own_chain(
    path: &Path,
    of: Perishable,
    now: UnixMillis,
) -> Result<(Vec<CertificateDer<'static>>, Vec<Validity>), TlsError> {
    let chain = certificates(path)?;
    let mut validities = Vec::new();
    for der in &chain {
        let validity = validity_of(der, of, path)?;
        check_time(&validity, now)?;
        validities.push(validity);
    }
    Ok((chain, validities))
}

fn validity_of(der: &[u8], of: Perishable, path: &Path) -> Result<Validity, TlsError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| invalid(path, "X.509 certificates", error.to_string()))?;
    let validity = certificate.validity();
    Ok(Validity::new(of, path, validity.not_before, validity.not_after))
}

/// Roots that are out of their time are of no use, but do no harm either: they only raise an alarm.
fn roots(path: &Path, validities: &mut Vec<Validity>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for der in certificates(path)? {
        validities.push(validity_of(&der, Perishable::ClientRoot, path)?);
        roots.add(der).map_err(|error| invalid(path, "X.509 certificates", error.to_string()))?;
    }
    Ok(roots)
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

/// The lists of revoked certificates, and what they say.
struct RevocationLists {
    ders: Vec<CertificateRevocationListDer<'static>>,
    revoked: HashSet<CertificateKey>,
    validities: Vec<Validity>,
}

impl RevocationLists {
    fn read(files: &TlsFiles, now: UnixMillis) -> Result<Self, TlsError> {
        let path = files.revoked.as_path();
        let expected = "one or more lists of revoked certificates";
        let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), expected, source };
        let ders: Vec<_> = CertificateRevocationListDer::pem_file_iter(path)
            .map_err(unreadable)?
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        let (mut revoked, mut validities) = (HashSet::new(), Vec::new());
        for der in &ders {
            let (_, list) = x509_parser::parse_x509_crl(der)
                .map_err(|error| invalid(path, expected, error.to_string()))?;
            let next_update =
                list.next_update().ok_or_else(|| invalid(path, expected, "one without an end".to_owned()))?;
            let validity = Validity::new(Perishable::RevocationList, path, list.last_update(), next_update);
            if !files.allow_expired_revocation_list || now < validity.from {
                check_time(&validity, now)?;
            }
            validities.push(validity);
            revoked.extend(CertificateKey::of_list(&list));
        }
        if ders.is_empty() {
            return Err(invalid(path, expected, "none".to_owned()));
        }
        Ok(Self { ders, revoked, validities })
    }
}

fn check_time(validity: &Validity, now: UnixMillis) -> Result<(), TlsError> {
    if validity.contains(now) {
        return Ok(());
    }
    Err(TlsError::OutOfTime {
        path: validity.path.clone(),
        not_before: expiry::moment(validity.from),
        not_after: expiry::moment(validity.until),
    })
}

fn invalid(path: &Path, expected: &'static str, found: String) -> TlsError {
    TlsError::Invalid { path: path.to_owned(), expected, found }
}

#[cfg(test)]
pub(crate) mod testbed;
#[cfg(test)]
mod tests;
