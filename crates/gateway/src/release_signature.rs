//! The one place that decides whether a package was released: a detached ECDSA P-256 signature with
//! SHA-256 (ASN.1 DER) over the package's bytes, by the release key. A later trust scheme replaces it.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

/// The longest signature of this kind in DER, in bytes.
pub(crate) const MAX_SIGNATURE_BYTES: usize = 72;

/// The public half of the release key.
#[derive(Debug, Clone)]
pub(crate) struct ReleaseKey {
    key: UnparsedPublicKey<Vec<u8>>,
}

/// The release key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseKeyError {
    /// The file cannot be read.
    #[error("cannot read the release key {path}; name the release.pub.pem of the PKI as release_public_key")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no such key.
    #[error("expected a P-256 public key in PEM (SubjectPublicKeyInfo) at {path}, found none")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

/// The signature is not one of the release key over this content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a signature by the release key, found one that does not verify")]
pub(crate) struct NotReleased;

impl ReleaseKey {
    /// Reads a public key in PEM.
    pub(crate) fn read(path: &Path) -> Result<Self, ReleaseKeyError> {
        let pem = std::fs::read(path)
            .map_err(|source| ReleaseKeyError::Unreadable { path: path.to_owned(), source })?;
        Self::from_pem(&pem).ok_or_else(|| ReleaseKeyError::NoKey { path: path.to_owned() })
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, der.as_ref().to_vec());
        key.parse().ok()?;
        Some(Self { key })
    }

    /// Checks a signature over the content with this SHA-256 digest, so that large content can be hashed
    /// while it arrives.
    pub(crate) fn verify(&self, content: &Digest, signature: &[u8]) -> Result<(), NotReleased> {
        self.key.verify_digest(content, signature).map_err(|_| NotReleased)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    /// A release key with its private half.
    pub(crate) struct Signer {
        pair: EcdsaKeyPair,
    }

    impl Signer {
        pub(crate) fn new() -> Self {
            Self { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap() }
        }

        pub(crate) fn key(&self) -> ReleaseKey {
            let der = AsDer::as_der(self.pair.public_key()).unwrap();
            ReleaseKey { key: UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, der.as_ref().to_vec()) }
        }

        pub(crate) fn sign(&self, content: &[u8]) -> Vec<u8> {
            self.pair.sign(&SystemRandom::new(), content).unwrap().as_ref().to_vec()
        }
    }

    /// Made by `openssl ecparam -genkey -name prime256v1`, `openssl dgst -sha256 -sign`.
    const OPENSSL_KEY: &str = include_str!("../tests/release_signature/release.pub.pem");
    const OPENSSL_SIGNATURE: &[u8] = include_bytes!("../tests/release_signature/content.sig");
    const OPENSSL_CONTENT: &[u8] = include_bytes!("../tests/release_signature/content.txt");

    #[test]
    fn a_signature_made_by_openssl_verifies_and_only_over_its_own_content() {
        let key = ReleaseKey::from_pem(OPENSSL_KEY.as_bytes()).unwrap();
        assert_eq!(key.verify(&digest(&SHA256, OPENSSL_CONTENT), OPENSSL_SIGNATURE), Ok(()));
        assert_eq!(key.verify(&digest(&SHA256, b"other"), OPENSSL_SIGNATURE), Err(NotReleased));
        assert_eq!(key.verify(&digest(&SHA256, OPENSSL_CONTENT), b""), Err(NotReleased));
    }

    #[test]
    fn a_signature_of_another_key_does_not_verify() {
        let (signer, other) = (Signer::new(), Signer::new());
        let content = digest(&SHA256, b"content");
        assert_eq!(signer.key().verify(&content, &signer.sign(b"content")), Ok(()));
        assert_eq!(other.key().verify(&content, &signer.sign(b"content")), Err(NotReleased));
        assert!(signer.sign(b"content").len() <= MAX_SIGNATURE_BYTES);
    }

    #[test]
    fn a_file_without_such_a_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        assert!(matches!(ReleaseKey::read(&path), Err(ReleaseKeyError::Unreadable { .. })));
        let garbled = OPENSSL_KEY.replace("MFkw", "MFkx");
        for pem in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &garbled] {
            std::fs::write(&path, pem).unwrap();
            assert!(matches!(ReleaseKey::read(&path), Err(ReleaseKeyError::NoKey { .. })), "{pem}");
        }
    }
}
