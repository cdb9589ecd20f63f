//! The files of the listeners: named by the settings, or issued and kept fresh from the folder of `farrier pki init`
//! where server and authority share one machine. Takes up new files while the server runs, and raises the alarm
//! before one of them ends.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use farrier_protocol::UnixMillis;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::ServerConfig;
use crate::desk::{PeerIdentity, WallClock};
use crate::mqtt::Connections;
use crate::pki::{LEAF_VALIDITY, Pki, PkiError};
use crate::store::security_events::{self, NewEvent};
use crate::store::{Store, StoreError, Tx, told_expiry, vehicle_certificates};
use crate::tls::operator::{OperatorTls, OperatorTlsFiles};
use crate::tls::{Alarm, ExpiryAlarms, RefusedPeer, TlsError, TlsFiles, VehicleTls};

/// A certificate that ends sooner than this is issued anew, in ms.
const RENEWED_BEFORE_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often an alarm is logged again that is still on, in ms.
const REMINDED_MS: i64 = 60 * 60 * 1000;
/// The root that operators' programs trust, in the data folder.
const OPERATOR_CA: &str = "operator.ca.pem";

/// Where the files are, and the authority that makes them, if it is on this machine.
pub(crate) struct OwnCertificate {
    pub(crate) files: TlsFiles,
    /// Without them the operators' listener speaks plain HTTP.
    pub(crate) operator: Option<OperatorTlsFiles>,
    /// What operators' programs trust, if the certificate is of the own authority.
    pub(crate) operator_ca: Option<PathBuf>,
    pub(crate) pki: Option<Pki>,
}

/// A certificate that the server issues to itself.
struct SelfIssued {
    dir: PathBuf,
    names: Vec<String>,
}

/// Finds the files; issues certificates for this machine where there are none, or spent ones.
pub(crate) fn prepare(config: &ServerConfig, now: UnixMillis) -> Result<OwnCertificate, PkiError> {
    let allow_classical_key_exchange = config.allow_classical_key_exchange;
    let allow_expired_revocation_list = config.allow_expired_revocation_list;
    let operator = config.operator_tls.as_ref().map(|paths| OperatorTlsFiles {
        certificate_chain: paths.certificate_chain.clone(),
        private_key: paths.private_key.clone(),
    });
    if let Some(paths) = &config.tls {
        let files = TlsFiles {
            certificate_chain: paths.certificate_chain.clone(),
            private_key: paths.private_key.clone(),
            client_roots: paths.client_roots.clone(),
            revoked: paths.revoked.clone(),
            allow_classical_key_exchange,
            allow_expired_revocation_list,
        };
        return Ok(OwnCertificate { files, operator, operator_ca: None, pki: None });
    }
    let pki = Pki::open(config.pki.as_deref().unwrap_or(Path::new("")))?;
    pki.renew_crl_if_half_over(now)?;
    let vehicles = SelfIssued::for_vehicles(config);
    vehicles.renew_if_spent(&pki, now)?;
    let files = TlsFiles {
        certificate_chain: vehicles.certificate(),
        private_key: vehicles.key(),
        client_roots: pki.root_certificate(),
        revoked: pki.crl(),
        allow_classical_key_exchange,
        allow_expired_revocation_list,
    };
    let (operator, operator_ca) = if operator.is_some() || config.allow_plaintext_operator {
        (operator.filter(|_| !config.allow_plaintext_operator), None)
    } else {
        let own = SelfIssued::for_operators(config);
        own.renew_if_spent(&pki, now)?;
        let files = OperatorTlsFiles { certificate_chain: own.certificate(), private_key: own.key() };
        (Some(files), Some(own.dir.join("ca.pem")))
    };
    Ok(OwnCertificate { files, operator, operator_ca, pki: Some(pki) })
}

impl OwnCertificate {
    /// Puts the root that operators' programs trust where they look for it, beside the token; gives its path.
    pub(crate) fn publish_operator_ca(&self, data: &Path) -> std::io::Result<Option<PathBuf>> {
        let path = data.join(OPERATOR_CA);
        match &self.operator_ca {
            Some(ca) => {
                let beside = path.with_extension("new");
                std::fs::copy(ca, &beside)?;
                std::fs::rename(beside, &path)?;
                Ok(Some(path))
            }
            // One that an earlier start left would only mislead.
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(None),
            },
        }
    }
}

impl SelfIssued {
    fn for_vehicles(config: &ServerConfig) -> Self {
        Self { dir: config.data.join("tls"), names: local_names() }
    }

    /// Also for the address that operators come to, where it is one.
    fn for_operators(config: &ServerConfig) -> Self {
        let mut names = local_names();
        let address = config.operator.ip();
        if !address.is_loopback() && !address.is_unspecified() {
            names.push(address.to_string());
        }
        Self { dir: config.data.join("operator-tls"), names }
    }

    fn certificate(&self) -> PathBuf {
        self.dir.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.dir.join("key.pem")
    }

    fn renew_if_spent(&self, pki: &Pki, now: UnixMillis) -> Result<(), PkiError> {
        let is_usable = self.key().is_file()
            && same_content(&self.dir.join("ca.pem"), &pki.root_certificate())
            && lasts_beyond(&self.certificate(), now.0.saturating_add(RENEWED_BEFORE_MS));
        if !is_usable {
            pki.issue_server(&self.names, &self.dir, LEAF_VALIDITY, true, now)?;
            tracing::info!(dir = %self.dir.display(), "The server issued itself a certificate for this machine.");
        }
        Ok(())
    }
}

fn local_names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
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

/// Watches over the files of the listeners.
pub(crate) struct CertificateWatch {
    pub(crate) config: ServerConfig,
    pub(crate) own: OwnCertificate,
    pub(crate) tls: Arc<VehicleTls>,
    pub(crate) operator_tls: Option<Arc<OperatorTls>>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) store: Store,
    pub(crate) clock: WallClock,
    /// Somebody asks to load the files now, changed or not.
    pub(crate) reload: Arc<Notify>,
}

/// What was seen at the last look.
struct Seen {
    vehicles: Vec<Stamp>,
    operators: Vec<Stamp>,
    alarms: Vec<Alarm>,
    reminded_at: UnixMillis,
}

/// What operators shall find among the security events.
enum News {
    Ends(Alarm),
    /// A live connection was cut.
    Cut(PeerIdentity),
    /// A handshake was refused.
    Refused(RefusedPeer),
}

impl News {
    fn remember(&self, tx: &Tx<'_>, now: UnixMillis) -> Result<(), StoreError> {
        let (kind, subject, detail, times) = match self {
            Self::Ends(alarm) => {
                if !told_expiry::tell(tx, alarm, now)? {
                    return Ok(());
                }
                ("EXPIRY", alarm.of.name(), alarm.to_string(), 1)
            }
            Self::Cut(peer) => {
                let detail =
                    format!("A live connection was cut: certificate {} was revoked.", peer.thumbprint);
                ("REVOKED", peer.common_name.as_str(), detail, 1)
            }
            Self::Refused(RefusedPeer { peer, address, times }) => {
                // The certificate is judged before its holder has to prove that it has the key.
                let detail = format!(
                    "Whoever came from {address} with certificate {}, which is revoked, was refused in the handshake.",
                    peer.thumbprint
                );
                ("REVOKED_HANDSHAKE", peer.common_name.as_str(), detail, *times)
            }
        };
        let vehicle_id = match self {
            Self::Ends(_) => None,
            Self::Cut(_) | Self::Refused(_) => vehicle_certificates::holder(tx, subject)?,
        };
        let event = NewEvent { kind, subject, vehicle_id: vehicle_id.as_ref(), detail: &detail, times };
        security_events::count(tx, &event, now)
    }
}

impl CertificateWatch {
    /// Takes up new files: for new connections at once, and by cutting those of revoked vehicles.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let watch = Arc::new(self);
        let mut seen = watch.nothing_told();
        loop {
            let looking = Arc::clone(&watch);
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                () = watch.reload.notified() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            match tokio::task::spawn_blocking(move || looking.look(seen, asked)).await {
                Ok((now_seen, news)) => {
                    seen = now_seen;
                    watch.remember(news).await;
                }
                Err(error) => {
                    tracing::error!(%error, "The certificates are not watched any more.");
                    return;
                }
            }
        }
    }

    /// As it is when a server starts.
    fn nothing_told(&self) -> Seen {
        Seen {
            vehicles: self.vehicle_stamps(),
            operators: self.operator_stamps(),
            alarms: Vec::new(),
            reminded_at: UnixMillis(0),
        }
    }

    fn look(&self, mut seen: Seen, asked: bool) -> (Seen, Vec<News>) {
        let now = (self.clock)();
        let mut news = Vec::new();
        self.renew(now);
        // Taken before the files are read: what changes in between is seen at the next look.
        let vehicles = self.vehicle_stamps();
        if asked || vehicles != seen.vehicles {
            news.extend(self.reload_vehicles(now));
            seen.vehicles = vehicles;
        }
        let operators = self.operator_stamps();
        if asked || operators != seen.operators {
            self.reload_operators(now);
            seen.operators = operators;
        }
        let alarms = self.alarms(now);
        if alarms != seen.alarms || now.0 >= seen.reminded_at.0.saturating_add(REMINDED_MS) {
            alarms.iter().for_each(|alarm| tracing::warn!(alarm = alarm.of.name(), "{alarm}"));
            news.extend(alarms.iter().filter(|alarm| !seen.alarms.contains(alarm)).cloned().map(News::Ends));
            seen.alarms = alarms;
            seen.reminded_at = now;
        }
        news.extend(self.tls.take_refused(Instant::now()).into_iter().map(News::Refused));
        (seen, news)
    }

    /// Operators find it among the security events.
    async fn remember(&self, news: Vec<News>) {
        let now = (self.clock)();
        for one in news {
            let remembered = self.store.write::<_, StoreError>(move |tx| one.remember(tx, now));
            if let Err(error) = remembered.await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "A security event is in the log only."
                );
            }
        }
    }

    /// Renews what the own authority gives, in time.
    fn renew(&self, now: UnixMillis) {
        let Some(pki) = &self.own.pki else { return };
        let mut renewed = vec![
            pki.renew_crl_if_half_over(now).map(|_| ()),
            SelfIssued::for_vehicles(&self.config).renew_if_spent(pki, now),
        ];
        if self.own.operator_ca.is_some() {
            renewed.push(SelfIssued::for_operators(&self.config).renew_if_spent(pki, now));
        }
        for error in renewed.into_iter().filter_map(Result::err) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "A certificate or the list of revoked ones cannot be renewed.");
        }
    }

    fn reload_vehicles(&self, now: UnixMillis) -> Vec<News> {
        match self.tls.reload(&self.own.files, now) {
            Ok(revoked) => {
                tracing::info!(
                    "The certificates of the vehicles' listeners and the list of revoked ones are loaded anew."
                );
                // MQTT connections say why they end; whoever does not end is cut all the same.
                revoked.iter().for_each(|peer| self.connections.cut_certificate(&peer.thumbprint));
                revoked.into_iter().map(News::Cut).collect()
            }
            Err(error) => {
                refused("the vehicles' listeners", &error);
                Vec::new()
            }
        }
    }

    fn reload_operators(&self, now: UnixMillis) {
        let (Some(tls), Some(files)) = (&self.operator_tls, &self.own.operator) else { return };
        match tls.reload(files, now) {
            Ok(()) => tracing::info!("The certificate of the operators' listener is loaded anew."),
            Err(error) => refused("the operators' listener", &error),
        }
    }

    fn alarms(&self, now: UnixMillis) -> Vec<Alarm> {
        let settings: &ExpiryAlarms = &self.config.expiry_alarms;
        let mut alarms = self.tls.alarms(now, settings);
        alarms.extend(self.operator_tls.iter().flat_map(|tls| tls.alarms(now, settings)));
        alarms
    }

    fn vehicle_stamps(&self) -> Vec<Stamp> {
        let TlsFiles {
            certificate_chain,
            private_key,
            client_roots,
            revoked,
            allow_classical_key_exchange: _,
            allow_expired_revocation_list: _,
        } = &self.own.files;
        [certificate_chain, private_key, client_roots, revoked].map(|path| stamp(path)).to_vec()
    }

    fn operator_stamps(&self) -> Vec<Stamp> {
        let files = self.own.operator.iter();
        files.flat_map(|files| [stamp(&files.certificate_chain), stamp(&files.private_key)]).collect()
    }
}

fn refused(whose: &str, error: &TlsError) {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "New files of {whose} are not taken up; the earlier ones stay in force.");
}

/// When a file was written, how long it is, and which it is; absent where it cannot be read.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests;
