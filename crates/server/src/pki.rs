//! A small certificate authority in a folder: root, intermediate, certificates for servers and
//! vehicles, the list of revoked ones, and the release key.
//! For one machine and for tests; a fleet's operator brings certificates of its own authority, and
//! then only `tls` matters. Times come in as `now`; keys and serial numbers are random.

mod folder;
mod in_memory;
mod issued;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farrier_protocol::{Binding, Thumbprint, UnixMillis};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;

use folder::NewFile;
pub use in_memory::VehicleCertificate;
use issued::{Holder, IssuedCertificate};

const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
const INTERMEDIATE_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long a certificate of a server or a vehicle is valid unless told otherwise: two years.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);
/// How long a list of revoked certificates is valid unless told otherwise: 30 days.
pub const CRL_VALIDITY: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Certificates are valid from a little earlier, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// `ub-common-name` of X.520, in characters.
const LONGEST_COMMON_NAME: usize = 64;

const ROOT_CERTIFICATE: &str = "root.cert.pem";
const ROOT_KEY: &str = "root.key.pem";
const INTERMEDIATE_CERTIFICATE: &str = "intermediate.cert.pem";
const INTERMEDIATE_KEY: &str = "intermediate.key.pem";
const CRL: &str = "crl.pem";
const RELEASE_KEY: &str = "release.key.pem";
const RELEASE_PUBLIC_KEY: &str = "release.pub.pem";

/// Why the authority could not do what was asked. Then no certificate was given out.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file that would be overwritten.
    #[error(
        "{path} exists already: nothing was written; choose another place, or give --force to replace it"
    )]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// The folder lacks a file that `pki init` makes.
    #[error(
        "{missing} is missing: expected a folder made by `farrier pki init`; make one, or name the right folder"
    )]
    NotAPki {
        /// The file that is not there.
        missing: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {path}: check that it exists and that this user may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error(
        "cannot write {path}: check that its folder exists, has room, and that this user may write there"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of the folder does not hold what it should.
    #[error("{path} is damaged: expected {expected}, found {found}; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong with it.
        found: String,
    },
    /// Two bindings would share one client id, and so one identity.
    #[error(
        "client id {client_id} already belongs to vehicle {holder_vehicle} with gateway {holder_gateway}: \
         expected a client id of its own for each vehicle; choose another vehicle or gateway id"
    )]
    ClientIdTaken {
        /// `{vehicle_id}_{gateway_id}` of both.
        client_id: String,
        /// The vehicle that has it.
        holder_vehicle: String,
        /// That vehicle's gateway.
        holder_gateway: String,
    },
    /// The client id does not fit into a certificate's subject.
    #[error(
        "client id {client_id} has {length} characters: expected at most 64, which is what X.520 lets a common name \
         have; choose a shorter vehicle or gateway id"
    )]
    CommonNameTooLong {
        /// `{vehicle_id}_{gateway_id}`.
        client_id: String,
        /// Its length.
        length: usize,
    },
    /// There is nothing to revoke.
    #[error(
        "no certificate was issued to {binding} from {dir}: expected a vehicle of this folder; check the ids"
    )]
    NoneIssued {
        /// The vehicle and its gateway.
        binding: Binding,
        /// The folder.
        dir: PathBuf,
    },
    /// A server needs at least one name, each a DNS name or an IP address.
    #[error("expected a DNS name or an IP address for the server, found {found:?}")]
    InvalidServerName {
        /// The name, or nothing.
        found: String,
    },
    /// A name that could be taken for a vehicle's, or that no certificate can carry.
    #[error(
        "expected a name of 1 to 64 letters, digits, '-' and '.' for the server, found {found:?}: with a '_' it could be a vehicle's"
    )]
    InvalidNodeName {
        /// The name.
        found: String,
    },
    /// A certificate could not be signed.
    #[error("the certificate could not be made")]
    Sign(#[from] rcgen::Error),
    /// A time before 1950 or after 9999.
    #[error("expected a time that a certificate can carry, found {0} ms since 1970; check the clock")]
    Time(i64),
    /// The system gave no random numbers.
    #[error("the system gave no random numbers for a serial number")]
    Random,
}

/// The folder of a certificate authority.
#[derive(Debug, Clone)]
pub struct Pki {
    dir: PathBuf,
    crl_validity: Duration,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its serial number in hex.
    pub serial: String,
    /// Its SHA-256.
    pub thumbprint: Thumbprint,
    /// Its last moment.
    pub ends_at: UnixMillis,
}

/// What a leaf certificate is for.
enum Purpose {
    Server(Vec<SanType>),
    /// To be a client: a vehicle's gateway, or a server at its broker.
    Client,
}

impl Pki {
    /// Makes the folder: root and intermediate, an empty list of revoked certificates, a release key.
    ///
    /// # Errors
    /// [`PkiError::AlreadyExists`] where one of its files is there and `force` is not given;
    /// whatever keeps it from being written.
    pub fn init(dir: &Path, force: bool, now: UnixMillis) -> Result<Self, PkiError> {
        folder::create(dir)?;
        let _lock = folder::lock(dir)?;
        let tag = hex(&random::<4>()?);
        let root_key = KeyPair::generate()?;
        let root_params = authority(&format!("Farrier root {tag}"), 1, ROOT_VALIDITY, now)?;
        let root = root_params.self_signed(&root_key)?;
        let root_key_pem = root_key.serialize_pem();
        let root_issuer = Issuer::new(root_params, root_key);

        let key = KeyPair::generate()?;
        let params = authority(&format!("Farrier intermediate {tag}"), 0, INTERMEDIATE_VALIDITY, now)?;
        let intermediate = params.signed_by(&key, &root_issuer)?;
        let key_pem = key.serialize_pem();
        let crl = revocation_list(&[], CRL_VALIDITY, now)?.signed_by(&Issuer::new(params, key))?;

        let release_key = KeyPair::generate()?;
        folder::write(
            &[
                NewFile::private(dir.join(ROOT_KEY), root_key_pem),
                NewFile::public(dir.join(ROOT_CERTIFICATE), root.pem()),
                NewFile::private(dir.join(INTERMEDIATE_KEY), key_pem),
                NewFile::public(dir.join(INTERMEDIATE_CERTIFICATE), intermediate.pem()),
                NewFile::public(dir.join(CRL), crl.pem()?),
                NewFile::private(dir.join(RELEASE_KEY), release_key.serialize_pem()),
                NewFile::public(dir.join(RELEASE_PUBLIC_KEY), release_key.public_key_pem()),
            ],
            force,
        )?;
        // Under --force: what an earlier authority issued is not this one's to revoke.
        issued::forget_all(dir)?;
        Self::open(dir)
    }

    /// Opens a folder that [`Pki::init`] made.
    ///
    /// # Errors
    /// [`PkiError::NotAPki`] names the file that is missing.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        for name in [ROOT_CERTIFICATE, INTERMEDIATE_CERTIFICATE, INTERMEDIATE_KEY, CRL] {
            let path = dir.join(name);
            if !path.is_file() {
                return Err(PkiError::NotAPki { missing: path });
            }
        }
        Ok(Self { dir: dir.to_owned(), crl_validity: CRL_VALIDITY })
    }

    /// The same folder, with lists of revoked certificates that are valid for so long.
    #[must_use]
    pub fn with_crl_validity(self, crl_validity: Duration) -> Self {
        Self { crl_validity, ..self }
    }

    /// The root certificate: what vehicles and servers trust.
    pub fn root_certificate(&self) -> PathBuf {
        self.dir.join(ROOT_CERTIFICATE)
    }

    /// The list of revoked certificates, signed by the intermediate.
    pub fn crl(&self) -> PathBuf {
        self.dir.join(CRL)
    }

    /// The private key that signs releases, PKCS#8.
    pub fn release_key(&self) -> PathBuf {
        self.dir.join(RELEASE_KEY)
    }

    /// The public key by which gateways verify releases, SubjectPublicKeyInfo.
    pub fn release_public_key(&self) -> PathBuf {
        self.dir.join(RELEASE_PUBLIC_KEY)
    }

    /// Issues a certificate to a server of these DNS names and IP addresses, into the folder `out`:
    /// `cert.pem` (leaf and intermediate), `key.pem` (mode 0600), `ca.pem` (root).
    ///
    /// # Errors
    /// [`PkiError::InvalidServerName`], [`PkiError::AlreadyExists`], files that cannot be read or written.
    pub fn issue_server(
        &self,
        names: &[String],
        out: &Path,
        validity: Duration,
        force: bool,
        now: UnixMillis,
    ) -> Result<Issued, PkiError> {
        let first = names.first().ok_or(PkiError::InvalidServerName { found: String::new() })?;
        let alternative_names = names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
        let holder = Holder::Server { names: names.to_vec() };
        let _lock = folder::lock(&self.dir)?;
        // Clients go by the alternative names; a DNS name may be longer than a common name.
        let common_name = if first.len() > LONGEST_COMMON_NAME { "Farrier server" } else { first };
        self.issue(common_name, Purpose::Server(alternative_names), holder, out, validity, force, now)
    }

    /// Issues a certificate to a vehicle's gateway, into the folder `out`: files as for a server.
    /// Its common name is the client id.
    ///
    /// # Errors
    /// [`PkiError::ClientIdTaken`], [`PkiError::CommonNameTooLong`], [`PkiError::AlreadyExists`], files that cannot be read or written.
    pub fn issue_vehicle(
        &self,
        binding: &Binding,
        out: &Path,
        validity: Duration,
        force: bool,
        now: UnixMillis,
    ) -> Result<Issued, PkiError> {
        let client_id = binding.client_id();
        if client_id.len() > LONGEST_COMMON_NAME {
            return Err(PkiError::CommonNameTooLong { length: client_id.len(), client_id });
        }
        let _lock = folder::lock(&self.dir)?;
        self.check_client_id_is_free(binding)?;
        let holder = Holder::of_vehicle(binding);
        self.issue(&client_id, Purpose::Client, holder, out, validity, force, now)
    }

    /// Issues a certificate to a server for its connection to a broker, into the folder `out`: files as for a server.
    /// Its common name is what the broker calls it.
    ///
    /// # Errors
    /// [`PkiError::InvalidNodeName`], [`PkiError::AlreadyExists`], files that cannot be read or written.
    pub fn issue_node(
        &self,
        name: &str,
        out: &Path,
        validity: Duration,
        force: bool,
        now: UnixMillis,
    ) -> Result<Issued, PkiError> {
        let is_name = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'.';
        if name.is_empty() || name.len() > LONGEST_COMMON_NAME || !name.bytes().all(is_name) {
            return Err(PkiError::InvalidNodeName { found: name.to_owned() });
        }
        let _lock = folder::lock(&self.dir)?;
        let holder = Holder::Node { name: name.to_owned() };
        self.issue(name, Purpose::Client, holder, out, validity, force, now)
    }

    /// Revokes all certificates of a vehicle's gateway, and signs the list anew.
    /// Gives the thumbprints back, so that live connections can be cut. Revoking twice is no error.
    ///
    /// # Errors
    /// [`PkiError::NoneIssued`], files that cannot be read or written.
    pub fn revoke(&self, binding: &Binding, now: UnixMillis) -> Result<Vec<Thumbprint>, PkiError> {
        let _lock = folder::lock(&self.dir)?;
        let holder = Holder::of_vehicle(binding);
        let mut revoked = Vec::new();
        for mut certificate in issued::read_all(&self.dir)? {
            if certificate.holder == holder {
                certificate.revoked_at_ms.get_or_insert(now.0);
                // The record first: the list is made from the records, so that a crash in between
                // is mended by the next signing.
                issued::write(&self.dir, &certificate, true)?;
                revoked.push(certificate.thumbprint);
            }
        }
        if revoked.is_empty() {
            return Err(PkiError::NoneIssued { binding: binding.clone(), dir: self.dir.clone() });
        }
        self.sign_crl(now)?;
        Ok(revoked)
    }

    /// Signs the list of revoked certificates anew, so that it is valid for longer.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn renew_crl(&self, now: UnixMillis) -> Result<(), PkiError> {
        let _lock = folder::lock(&self.dir)?;
        self.sign_crl(now)
    }

    /// Signs the list anew if more than half of its time is over; tells whether it did.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn renew_crl_if_half_over(&self, now: UnixMillis) -> Result<bool, PkiError> {
        let path = self.crl();
        let pem = folder::read(&path)?;
        let damaged = |found: String| PkiError::Damaged {
            path: path.clone(),
            expected: "a list of revoked certificates in PEM",
            found,
        };
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| damaged(e.to_string()))?;
        let (_, crl) = x509_parser::parse_x509_crl(&pem.contents).map_err(|e| damaged(e.to_string()))?;
        let next = crl.next_update().ok_or_else(|| damaged("none that says when it ends".to_owned()))?;
        let half_over = crl.last_update().timestamp().midpoint(next.timestamp());
        if now.0 / 1000 < half_over {
            return Ok(false);
        }
        self.renew_crl(now)?;
        Ok(true)
    }

    fn check_client_id_is_free(&self, binding: &Binding) -> Result<(), PkiError> {
        let client_id = binding.client_id();
        for certificate in issued::read_all(&self.dir)? {
            let Holder::Vehicle { vehicle_id, gateway_id } = certificate.holder else { continue };
            let holder = Binding { vehicle_id, gateway_id };
            if holder != *binding && holder.client_id() == client_id {
                return Err(PkiError::ClientIdTaken {
                    client_id,
                    holder_vehicle: holder.vehicle_id.into(),
                    holder_gateway: holder.gateway_id.into(),
                });
            }
        }
        Ok(())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one private function behind the public ones, each argument is a different thing"
    )]
    fn issue(
        &self,
        common_name: &str,
        purpose: Purpose,
        holder: Holder,
        out: &Path,
        validity: Duration,
        force: bool,
        now: UnixMillis,
    ) -> Result<Issued, PkiError> {
        let (intermediate_pem, issuer) = self.intermediate()?;
        let ends = certificate_time(now, Some(validity))?.min(self.intermediate_ends()?);
        let Signed { certificate, key, record } = signed(common_name, purpose, holder, &issuer, now, ends)?;
        let files = [
            NewFile::private(out.join("key.pem"), key.serialize_pem()),
            NewFile::public(out.join("cert.pem"), certificate.pem() + &intermediate_pem),
            NewFile::public(out.join("ca.pem"), folder::read(&self.root_certificate())?),
        ];
        folder::create(out)?;
        folder::check_free(&files, force)?;
        // The record first: a certificate that nobody knows of could not be revoked.
        issued::write(&self.dir, &record, false)?;
        folder::write(&files, force)?;
        let IssuedCertificate { serial, thumbprint, expires_at_ms, .. } = record;
        Ok(Issued { serial, thumbprint, ends_at: UnixMillis(expires_at_ms) })
    }

    fn sign_crl(&self, now: UnixMillis) -> Result<(), PkiError> {
        let (_, issuer) = self.intermediate()?;
        let certificates = issued::read_all(&self.dir)?;
        let crl = revocation_list(&certificates, self.crl_validity, now)?.signed_by(&issuer)?;
        folder::write(&[NewFile::public(self.crl(), crl.pem()?)], true)
    }

    fn intermediate(&self) -> Result<(String, Issuer<'static, KeyPair>), PkiError> {
        let key_path = self.dir.join(INTERMEDIATE_KEY);
        let key = KeyPair::from_pem(&folder::read(&key_path)?).map_err(|error| PkiError::Damaged {
            path: key_path,
            expected: "a private key in PEM (PKCS#8)",
            found: error.to_string(),
        })?;
        let path = self.dir.join(INTERMEDIATE_CERTIFICATE);
        let pem = folder::read(&path)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| PkiError::Damaged {
            path,
            expected: "a certificate in PEM",
            found: error.to_string(),
        })?;
        Ok((pem, issuer))
    }

    fn intermediate_ends(&self) -> Result<OffsetDateTime, PkiError> {
        let path = self.dir.join(INTERMEDIATE_CERTIFICATE);
        let text = folder::read(&path)?;
        let damaged = |found: String| PkiError::Damaged { path, expected: "a certificate in PEM", found };
        let (_, pem) = match x509_parser::pem::parse_x509_pem(text.as_bytes()) {
            Ok(parsed) => parsed,
            Err(error) => return Err(damaged(error.to_string())),
        };
        let certificate = pem.parse_x509().map_err(|error| damaged(error.to_string()))?;
        Ok(certificate.validity().not_after.to_datetime())
    }
}

/// A certificate that is signed, and neither recorded nor given out yet.
struct Signed {
    certificate: Certificate,
    key: KeyPair,
    record: IssuedCertificate,
}

fn signed(
    common_name: &str,
    purpose: Purpose,
    holder: Holder,
    issuer: &Issuer<'_, KeyPair>,
    now: UnixMillis,
    ends: OffsetDateTime,
) -> Result<Signed, PkiError> {
    let serial = random_serial()?;
    let mut params = leaf(common_name, purpose);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = certificate_time(now, None)?;
    params.not_after = ends;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let record = IssuedCertificate {
        serial: hex(&serial),
        holder,
        thumbprint: Thumbprint::of_certificate(certificate.der()),
        issued_at_ms: now.0,
        expires_at_ms: ends.unix_timestamp().saturating_mul(1000),
        revoked_at_ms: None,
    };
    Ok(Signed { certificate, key, record })
}

fn authority(
    common_name: &str,
    authorities_below: u8,
    validity: Duration,
    now: UnixMillis,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(authorities_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    params.not_before = certificate_time(now, None)?;
    params.not_after = certificate_time(now, Some(validity))?;
    Ok(params)
}

fn leaf(common_name: &str, purpose: Purpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    match purpose {
        Purpose::Server(alternative_names) => {
            params.subject_alt_names = alternative_names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        Purpose::Client => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn alternative_name(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let invalid = || PkiError::InvalidServerName { found: name.to_owned() };
    // Whatever a TLS client could not ask for would only fail later, and less clearly.
    rustls::pki_types::DnsName::try_from(name).map_err(|_| invalid())?;
    Ok(SanType::DnsName(name.to_owned().try_into().map_err(|_| invalid())?))
}

fn revocation_list(
    certificates: &[IssuedCertificate],
    validity: Duration,
    now: UnixMillis,
) -> Result<CertificateRevocationListParams, PkiError> {
    let mut revoked_certs = Vec::new();
    for certificate in certificates {
        let Some(revoked_at_ms) = certificate.revoked_at_ms else { continue };
        revoked_certs.push(RevokedCertParams {
            serial_number: SerialNumber::from_slice(&certificate.serial_octets()),
            revocation_time: offset_time(revoked_at_ms)?,
            reason_code: Some(RevocationReason::CessationOfOperation),
            invalidity_date: None,
        });
    }
    Ok(CertificateRevocationListParams {
        this_update: offset_time(now.0)?,
        next_update: certificate_time(now, Some(validity))?,
        crl_number: SerialNumber::from(now.0.unsigned_abs()),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    })
}

/// Without a duration: when a certificate that is made now begins; with one: when it ends.
fn certificate_time(now: UnixMillis, ahead: Option<Duration>) -> Result<OffsetDateTime, PkiError> {
    let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    offset_time(match ahead {
        Some(ahead) => now.0.saturating_add(milliseconds(ahead)),
        None => now.0.saturating_sub(milliseconds(BACKDATED)),
    })
}

fn offset_time(unix_ms: i64) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000)).map_err(|_| PkiError::Time(unix_ms))
}

/// 127 random bits: positive, so that its DER has at most 16 octets, and never zero in practice.
fn random_serial() -> Result<[u8; 16], PkiError> {
    let mut serial = random::<16>()?;
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(serial)
}

fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut octets = [0; N];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| PkiError::Random)?;
    Ok(octets)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests;
