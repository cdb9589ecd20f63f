//! The release key on the operator's side: signs images before they leave this machine.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

/// The private half: ECDSA P-256.
pub(crate) struct ReleaseKey(EcdsaKeyPair);

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseKeyError {
    #[error("{path} is no release key: expected the release.key.pem of a folder made by `farrier pki init`")]
    Unusable { path: PathBuf },
    #[error("the release key could not sign the image")]
    NotSigned,
}

impl ReleaseKey {
    /// Reads a private key, PKCS#8 in PEM.
    pub(crate) fn load(path: &Path) -> Result<Self, ReleaseKeyError> {
        let unusable = || ReleaseKeyError::Unusable { path: path.to_owned() };
        let der = PrivatePkcs8KeyDer::from_pem_file(path).map_err(|_| unusable())?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_pkcs8_der());
        Ok(Self(key.map_err(|_| unusable())?))
    }

    /// The detached signature over the bytes with this SHA-256, ASN.1 DER.
    pub(crate) fn sign(&self, digest: &Digest) -> Result<Vec<u8>, ReleaseKeyError> {
        let signature = self.0.sign_digest(digest).map_err(|_| ReleaseKeyError::NotSigned)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a key").unwrap();
        for path in [file.path(), Path::new("/nowhere/release.key.pem")] {
            let error = ReleaseKey::load(path).err().unwrap().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
