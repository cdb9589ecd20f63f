//! The files of the vehicles' listeners: named by the settings, or issued and kept fresh from the folder of
//! `farrier pki init` where server and authority share one machine. Takes up new lists of revoked certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farrier_protocol::UnixMillis;
use tokio_util::sync::CancellationToken;

use crate::config::ServerConfig;
use crate::desk::WallClock;
use crate::mqtt::Connections;
use crate::pki::{LEAF_VALIDITY, Pki, PkiError};
use crate::tls::{TlsFiles, VehicleTls};

/// A certificate that ends sooner than this is issued anew at start, in ms.
const RENEWED_BEFORE_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// How often the list of revoked certificates is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Where the files are, and the authority that makes them, if it is on this machine.
pub(crate) struct OwnCertificate {
    pub(crate) files: TlsFiles,
    pub(crate) pki: Option<Pki>,
}

/// Finds the files; issues a certificate for this machine where there is none, or a spent one.
pub(crate) fn prepare(config: &ServerConfig, now: UnixMillis) -> Result<OwnCertificate, PkiError> {
    let allow_classical_key_exchange = config.allow_classical_key_exchange;
    if let Some(paths) = &config.tls {
        let files = TlsFiles {
            certificate_chain: paths.certificate_chain.clone(),
            private_key: paths.private_key.clone(),
            client_roots: paths.client_roots.clone(),
            revoked: paths.revoked.clone(),
            allow_classical_key_exchange,
        };
        return Ok(OwnCertificate { files, pki: None });
    }
    let pki = Pki::open(config.pki.as_deref().unwrap_or(Path::new("")))?;
    pki.renew_crl_if_half_over(now)?;
    let dir = config.data.join("tls");
    let files = TlsFiles {
        certificate_chain: dir.join("cert.pem"),
        private_key: dir.join("key.pem"),
        client_roots: pki.root_certificate(),
        revoked: pki.crl(),
        allow_classical_key_exchange,
    };
    let is_usable = files.private_key.is_file()
        && same_content(&dir.join("ca.pem"), &files.client_roots)
        && lasts_beyond(&files.certificate_chain, now.0.saturating_add(RENEWED_BEFORE_MS));
    if !is_usable {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        pki.issue_server(&names, &dir, LEAF_VALIDITY, true, now)?;
        tracing::info!(dir = %dir.display(), "The server issued itself a certificate for this machine.");
    }
    Ok(OwnCertificate { files, pki: Some(pki) })
}

fn same_content(one: &Path, other: &Path) -> bool {
    matches!((std::fs::read(one), std::fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

fn lasts_beyond(certificate_chain: &Path, until_ms: i64) -> bool {
    let Ok(text) = std::fs::read(certificate_chain) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&text) else { return false };
    let Ok(certificate) = pem.parse_x509() else { return false };
    certificate.validity().not_after.timestamp().saturating_mul(1000) > until_ms
}

/// Watches the list of revoked certificates.
pub(crate) struct RevocationWatch {
    pub(crate) own: OwnCertificate,
    pub(crate) tls: Arc<VehicleTls>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) clock: WallClock,
}

impl RevocationWatch {
    /// Takes up each new list: for new connections at once, and by cutting those of revoked vehicles.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let watch = Arc::new(self);
        let mut seen = stamp(&watch.own.files.revoked);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let looking = Arc::clone(&watch);
            let looked = tokio::task::spawn_blocking(move || looking.look(seen)).await;
            seen = looked.unwrap_or(seen);
        }
    }

    /// Gives what the list looks like now.
    fn look(&self, seen: Stamp) -> Stamp {
        let now = (self.clock)();
        if let Some(Err(error)) = self.own.pki.as_ref().map(|pki| pki.renew_crl_if_half_over(now)) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "The list of revoked certificates cannot be renewed."
            );
        }
        let current = stamp(&self.own.files.revoked);
        if current == seen {
            return seen;
        }
        match self.tls.reload(&self.own.files, now) {
            Ok(()) => {
                tracing::info!("A new list of revoked certificates is in force.");
                self.cut_revoked();
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "The new list of revoked certificates is not taken up."
                );
            }
        }
        current
    }

    fn cut_revoked(&self) {
        match self.own.pki.as_ref().map(Pki::revoked) {
            Some(Ok(revoked)) => {
                revoked.iter().for_each(|thumbprint| self.connections.cut_certificate(thumbprint))
            }
            Some(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "Live connections of revoked vehicles are not cut."
                );
            }
            None => {}
        }
    }
}

/// When a file was written and how long it is; absent where it cannot be read.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &PathBuf) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
