//! The detached signature of an image: ECDSA P-256 with SHA-256 over its bytes, ASN.1 DER.
//! The one place of the server that knows how releases are signed; Uptane will take its place.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// The release keys of this server.
pub(crate) struct ReleaseSignature {
    signing: Option<EcdsaKeyPair>,
    /// SubjectPublicKeyInfo, DER.
    verifying: Vec<u8>,
}

/// Why a release key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseKeyError {
    /// The file is not there or is no such key.
    #[error(
        "cannot use {path}: expected {expected} in PEM, as `farrier pki init` makes it; check the path and the file"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// The two keys are no pair.
    #[error("{private} is not the key of {public}: expected a pair; name the files that were made together")]
    Mismatch {
        /// The private key's file.
        private: PathBuf,
        /// The public key's file.
        public: PathBuf,
    },
}

/// Why an image has no valid signature.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SignatureError {
    #[error(
        "expected a signature by the release key over this image, found another one; sign the image with the \
         private key that belongs to the server's release.pub.pem"
    )]
    Invalid,
    #[error(
        "expected a signature with the image (header Farrier-Signature), since this server has no release key; \
         sign the image, or start the server with a release_key"
    )]
    Missing,
    #[error("the release key could not sign the image")]
    NotSigned,
}

impl ReleaseSignature {
    /// Loads the keys; without a private one, images must come signed.
    pub(crate) fn load(private: Option<&Path>, public: &Path) -> Result<Self, ReleaseKeyError> {
        let unusable = |path: &Path, expected| ReleaseKeyError::Unusable { path: path.to_owned(), expected };
        let verifying = SubjectPublicKeyInfoDer::from_pem_file(public)
            .map_err(|_| unusable(public, "a P-256 public key (SPKI)"))?;
        let signing = private
            .map(|path| {
                let refused = || unusable(path, "a P-256 private key (PKCS#8)");
                let der = PrivatePkcs8KeyDer::from_pem_file(path).map_err(|_| refused())?;
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_pkcs8_der())
                    .map_err(|_| refused())
            })
            .transpose()?;
        if let (Some(key), Some(private)) = (&signing, private)
            && !verifying.ends_with(key.public_key().as_ref())
        {
            return Err(ReleaseKeyError::Mismatch { private: private.to_owned(), public: public.to_owned() });
        }
        Ok(Self { signing, verifying: verifying.to_vec() })
    }

    /// Whether there is a private key, so that what this server makes can be released.
    pub(crate) fn can_sign(&self) -> bool {
        self.signing.is_some()
    }

    /// The signature under which an image is released: the one that came with it, if it is valid, else our own.
    pub(crate) fn settle(&self, digest: &Digest, given: Option<Vec<u8>>) -> Result<Vec<u8>, SignatureError> {
        if let Some(given) = given {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.verifying);
            return match key.verify_digest(digest, &given) {
                Ok(()) => Ok(given),
                Err(_) => Err(SignatureError::Invalid),
            };
        }
        let key = self.signing.as_ref().ok_or(SignatureError::Missing)?;
        let signature = key.sign_digest(digest).map_err(|_| SignatureError::NotSigned)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use farrier_protocol::UnixMillis;

    use super::*;
    use crate::pki::Pki;

    fn pki() -> (tempfile::TempDir, Pki) {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::init(&dir.path().join("pki"), false, UnixMillis(1_800_000_000_000)).unwrap();
        (dir, pki)
    }

    #[test]
    fn the_release_key_signs_what_comes_unsigned_and_checks_what_comes_signed() {
        let (_dir, pki) = pki();
        let both = ReleaseSignature::load(Some(&pki.release_key()), &pki.release_public_key()).unwrap();
        let public_only = ReleaseSignature::load(None, &pki.release_public_key()).unwrap();
        let (image, other) = (digest(&SHA256, b"image"), digest(&SHA256, b"other"));

        let signature = both.settle(&image, None).unwrap();
        assert_eq!(public_only.settle(&image, Some(signature.clone())), Ok(signature.clone()));
        assert_eq!(public_only.settle(&other, Some(signature)), Err(SignatureError::Invalid));
        assert_eq!(public_only.settle(&image, None), Err(SignatureError::Missing));
    }

    #[test]
    fn keys_that_are_missing_or_no_pair_are_named() {
        let ((_dir, pki), (_other_dir, other)) = (pki(), pki());
        let error = |private: &Path, public: &Path| {
            ReleaseSignature::load(Some(private), public).err().unwrap().to_string()
        };
        assert!(error(&pki.release_key(), Path::new("/nowhere.pem")).contains("/nowhere.pem"));
        assert!(error(&pki.release_public_key(), &pki.release_public_key()).contains("private key"));
        assert!(error(&pki.release_key(), &other.release_public_key()).contains("not the key of"));
    }
}
