//! `farrier-gateway check`: whether everything that a gateway needs is there and right, each with what to do.

use std::path::Path;
use std::time::Duration;

use farrier_diagnostics::IdentificationField;
use farrier_vehicle_update::VehicleUpdate;
use futures_util::future::join_all;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock;
use crate::config::GatewayConfig;
use crate::ecu_link::EcuLinks;
use crate::error_text::with_causes;
use crate::journal::{Journal, JournalError, fault_text};
use crate::readiness::{ReadinessSource, SignalsFile};
use crate::release_signature::ReleaseKey;
use crate::tls::{self, Tls};
use crate::topology::Topology;

/// How long one ECU may take to answer.
const ECU_PATIENCE: Duration = Duration::from_secs(15);
/// A certificate that ends sooner than this counts as failed, in days.
const CERTIFICATE_DAYS: i64 = 14;
const DAY_S: i64 = 86_400;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What was found, or what is wrong and what to do.
    pub result: Result<String, String>,
}

impl Finding {
    fn new(what: impl Into<String>, result: Result<String, String>) -> Self {
        Self { what: what.into(), result }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, detail) = match &self.result {
            Ok(detail) => ("ok    ", detail),
            Err(detail) => ("failed", detail),
        };
        write!(f, "{word}  {}: {detail}", self.what)
    }
}

/// Looks at everything, whatever else has failed. Writes nothing but what opening the journal writes.
pub async fn check(config_file: &Path) -> Vec<Finding> {
    let config = match GatewayConfig::read(config_file) {
        Ok(config) => config,
        Err(error) => return vec![Finding::new("settings", Err(with_causes(&error)))],
    };
    let mut findings = vec![
        Finding::new("settings", Ok(config_file.display().to_string())),
        Finding::new("certificates", certificates(&config)),
        Finding::new("release key", release_key(&config)),
        Finding::new("readiness signals", signals(&config)),
        Finding::new("journal", journal(&config).await),
    ];
    match Topology::load(&config.topology) {
        Err(error) => findings.push(Finding::new("topology", Err(with_causes(&error)))),
        Ok(topology) => {
            let found = format!("{} ECUs, {} controllers", topology.ecus.len(), topology.controllers.len());
            findings.push(Finding::new("topology", Ok(found)));
            let links = EcuLinks::new(topology);
            findings.extend(links.find_controllers().await.into_iter().map(|(name, found)| {
                let found = found.map(|address| format!("answers, at {address}"));
                Finding::new(format!("controller {name}"), found.map_err(|error| with_causes(&error)))
            }));
            findings.extend(ecus(&links).await);
        }
    }
    findings
}

fn certificates(config: &GatewayConfig) -> Result<String, String> {
    Tls::read(config).map_err(|error| with_causes(&error))?;
    let own = tls::certificates(&config.certificate, "a certificate").map_err(|error| with_causes(&error))?;
    let roots =
        tls::certificates(&config.server_ca, "a root certificate").map_err(|error| with_causes(&error))?;
    let client_id = config.binding().client_id();
    let names = own.first().map(|leaf| common_name(leaf)).unwrap_or_default();
    if names != client_id {
        return Err(format!(
            "expected the common name {client_id} in {}, found {names:?}; issue a certificate for this vehicle",
            config.certificate.display()
        ));
    }
    let mut soonest = i64::MAX;
    for (path, certificates) in [(&config.certificate, own), (&config.server_ca, roots)] {
        for certificate in certificates {
            let days = days_left(&certificate).map_err(|found| format!("{}: {found}", path.display()))?;
            if days < CERTIFICATE_DAYS {
                return Err(format!(
                    "expected the certificates in {} to be valid for {CERTIFICATE_DAYS} days, found {days}; renew them",
                    path.display()
                ));
            }
            soonest = soonest.min(days);
        }
    }
    Ok(format!("for {client_id}, valid for {soonest} days"))
}

fn common_name(der: &[u8]) -> String {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return String::new() };
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.unwrap_or_default().to_owned()
}

/// Whole days until it expires; negative afterwards.
fn days_left(der: &[u8]) -> Result<i64, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let (validity, now_s) = (certificate.validity(), clock::now().0.div_euclid(1_000));
    if validity.not_before.timestamp() > now_s {
        return Err(format!("not valid before {}; check the clock of the gateway", validity.not_before));
    }
    Ok((validity.not_after.timestamp() - now_s).div_euclid(DAY_S))
}

fn release_key(config: &GatewayConfig) -> Result<String, String> {
    let read = ReleaseKey::read(&config.release_public_key);
    read.map(|_| "a P-256 key".to_owned()).map_err(|error| with_causes(&error))
}

fn signals(config: &GatewayConfig) -> Result<String, String> {
    let measured = SignalsFile::new(&config.readiness_signals).measure();
    let measured = measured.map_err(|error| with_causes(&error))?.conditions.measured().len();
    Ok(format!("{measured} conditions can be measured"))
}

async fn journal(config: &GatewayConfig) -> Result<String, String> {
    let folder = &config.state_dir;
    if Journal::was_never_in(folder).map_err(|error| with_causes(&error))? {
        return Ok("none yet; the gateway makes it when it starts first".to_owned());
    }
    let journal = match Journal::open(&config.state_dir) {
        Ok(journal) => journal,
        Err(JournalError::InUse { .. }) => {
            return match Journal::fault_in(folder).map_err(|error| with_causes(&error))? {
                Some(fault) => Err(fault_text(&fault)),
                None => Ok("in use by the gateway at work, which found it sound".to_owned()),
            };
        }
        Err(error) => return Err(with_causes(&error)),
    };
    let sound = judge_records(&journal, config).await;
    journal.close().await;
    sound
}

async fn judge_records(journal: &Journal, config: &GatewayConfig) -> Result<String, String> {
    if let Some(fault) = journal.fault() {
        return Err(fault_text(fault));
    }
    let records = journal.records().await.map_err(|error| with_causes(&error))?;
    if records.is_empty() {
        return Ok("sound, no update yet".to_owned());
    }
    let resumed = VehicleUpdate::resume(records, config.update_bounds.clone(), clock::now());
    let (update, _) = resumed.map_err(|error| with_causes(&error))?;
    Ok(format!("sound, update {} is {}", update.plan().update_id(), update.phase()))
}

async fn ecus(links: &EcuLinks) -> Vec<Finding> {
    let asked = links.topology().ecus.iter().map(|place| async move {
        let ecu_id = &place.ecu_id;
        let answered = async {
            let hardware = links.read_identification(ecu_id, &[IdentificationField::HwPartNo]).await?;
            Ok((hardware, links.running(ecu_id).await?))
        };
        let answered: Result<Result<_, crate::ecu_link::EcuError>, _> =
            tokio::time::timeout(ECU_PATIENCE, answered).await;
        let result = match answered {
            Err(_) => Err(format!("no answer within {} s; check its controller", ECU_PATIENCE.as_secs())),
            Ok(Err(error)) => Err(with_causes(&error)),
            Ok(Ok((hardware, running))) => {
                let hw_part_no = hardware.get(IdentificationField::HwPartNo).unwrap_or_default();
                Ok(format!("{hw_part_no} runs {} from bank {}", running.version, running.active_bank))
            }
        };
        Finding::new(format!("ECU {ecu_id}"), result)
    });
    join_all(asked).await
}
