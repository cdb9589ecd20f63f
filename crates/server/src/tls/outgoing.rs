//! TLS towards others: receivers of webhooks, the provider that people sign in with. 1.3 only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

/// Why others cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingTlsError {
    /// The file of roots.
    #[error("{setting}: expected root certificates (PEM) in {path}; check the path and what is in it")]
    Roots {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The TLS library.
    #[error("TLS towards others could not be set up")]
    Setup(#[source] rustls::Error),
}

/// Believes certificates that lead to these roots, by default to those that this machine trusts. `setting` is what names the roots.
pub(crate) fn trusting(
    roots: Option<&Path>,
    setting: &'static str,
) -> Result<ClientConfig, OutgoingTlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(OutgoingTlsError::Setup)?;
    let builder = match roots {
        Some(path) => builder.with_root_certificates(read(path, setting)?),
        None => match builder.clone().with_platform_verifier() {
            Ok(platform) => platform,
            // A machine that trusts nobody has a server all the same; connections then say what is wrong.
            Err(_) => builder.with_root_certificates(RootCertStore::empty()),
        },
    };
    Ok(builder.with_no_client_auth())
}

fn read(path: &Path, setting: &'static str) -> Result<RootCertStore, OutgoingTlsError> {
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| OutgoingTlsError::Roots {
        setting,
        path: path.to_owned(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refused(Box::new(error)))? {
        let certificate = certificate.map_err(|error| refused(Box::new(error)))?;
        roots.add(certificate).map_err(|error| refused(Box::new(error)))?;
    }
    if roots.is_empty() {
        return Err(refused("no certificate found".into()));
    }
    Ok(roots)
}
