//! The key that evidence is signed with: Ed25519, made at a server's first start and kept in its data folder.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use data_encoding::BASE64;
use farrier_protocol::Sha256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::private_file::write_private;

/// The private half within a data folder, PKCS#8 in PEM.
const PRIVATE: &str = "evidence.key.pem";
/// The public half within a data folder, SubjectPublicKeyInfo in PEM.
const PUBLIC: &str = "evidence.pub.pem";
/// What stands before the 32 octets of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key for evidence cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceKeyError {
    /// The file is no such key.
    #[error("cannot use {path}: expected {expected} in PEM, found something else; restore it from a backup")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// A file could not be read or written.
    #[error("{path} could not be read or written; check that it is there and that this user may")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system gave no key.
    #[error("no key for evidence could be made; look at what the system logged")]
    NotMade,
}

/// Signs evidence.
pub(crate) struct EvidenceKey {
    pair: Ed25519KeyPair,
    public: EvidencePublicKey,
}

impl EvidenceKey {
    /// The key in a data folder; it is made where there is none.
    pub(crate) fn load_or_make(data: &Path) -> Result<Self, EvidenceKeyError> {
        let path = data.join(PRIVATE);
        let key = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let unusable = || EvidenceKeyError::Unusable {
                    path: path.clone(),
                    expected: "an Ed25519 private key (PKCS#8)",
                };
                let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| unusable())?;
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
                Self::of(pair.map_err(|_| unusable())?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair = Ed25519KeyPair::generate().map_err(|_| EvidenceKeyError::NotMade)?;
                let der = pair.to_pkcs8v1().map_err(|_| EvidenceKeyError::NotMade)?;
                write_private(&path, pem("PRIVATE KEY", der.as_ref()).trim_end())
                    .map_err(|source| EvidenceKeyError::Io { path, source })?;
                Self::of(pair)
            }
            Err(source) => return Err(EvidenceKeyError::Io { path, source }),
        };
        let path = data.join(PUBLIC);
        std::fs::write(&path, key.public.pem()).map_err(|source| EvidenceKeyError::Io { path, source })?;
        Ok(key)
    }

    fn of(pair: Ed25519KeyPair) -> Self {
        let mut raw = [0; 32];
        for (to, from) in raw.iter_mut().zip(pair.public_key().as_ref()) {
            *to = *from;
        }
        Self { pair, public: EvidencePublicKey(raw) }
    }

    pub(crate) fn public(&self) -> &EvidencePublicKey {
        &self.public
    }

    /// The signature over a manifest, 64 octets.
    pub(crate) fn sign(&self, manifest: &[u8]) -> Result<Vec<u8>, EvidenceKeyError> {
        let signature = self.pair.try_sign(manifest).map_err(|_| EvidenceKeyError::NotMade)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// Checks what was signed as evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidencePublicKey([u8; 32]);

impl EvidencePublicKey {
    /// Reads a public key, SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// The file cannot be read or is no Ed25519 public key.
    pub fn load(path: &Path) -> Result<Self, EvidenceKeyError> {
        let text =
            std::fs::read(path).map_err(|source| EvidenceKeyError::Io { path: path.to_owned(), source })?;
        let der = SubjectPublicKeyInfoDer::from_pem_slice(&text).ok();
        let raw = der.as_ref().and_then(|der| der.strip_prefix(&SPKI_PREFIX[..]));
        raw.and_then(|raw| raw.try_into().ok()).map(Self).ok_or_else(|| EvidenceKeyError::Unusable {
            path: path.to_owned(),
            expected: "an Ed25519 public key (SPKI)",
        })
    }

    fn spki(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), self.0.as_slice()].concat()
    }

    /// SubjectPublicKeyInfo in PEM.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }

    /// Of its SubjectPublicKeyInfo (DER): names the key.
    pub fn sha256(&self) -> Sha256 {
        Sha256::of(&self.spki())
    }

    /// Whether this key has signed a manifest.
    pub(super) fn has_signed(&self, manifest: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(manifest, signature).is_ok()
    }
}

/// One line is enough for keys as short as these.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}
