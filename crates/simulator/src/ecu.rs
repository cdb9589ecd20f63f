//! One simulated ECU: two banks in a folder, UDS services over them, faults on request.
//!
//! What follows no standard but the project's convention (`docs/vehicle.md`): an image carries no version, so
//! the fingerprint (`2E F184`) that is written before a download is the version of what follows, and
//! `22 F189` reports it once that bank runs. Security access is no protection here: key = seed XOR 0xA5.

mod banks;
mod services;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use farrier_diagnostics::Identifiers;
use farrier_diagnostics::uds::{
    self, DiagnosticSessionType, NegativeResponse, NegativeResponseCode, Response,
};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

pub use self::banks::{Bank, Banks, Phase, StateError};
use self::services::Download;

/// P2 as the ECU tells it, in milliseconds: work that takes longer says "response pending" first.
const P2_MS: u16 = 50;

/// How many requests wait for an ECU at most; a tester has one outstanding, others send "tester present".
const REQUEST_QUEUE: usize = 16;

/// A simulated ECU as a configuration file describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EcuConfig {
    /// Its name: the folder of its state, and what logs say.
    pub ecu_id: String,
    /// Its address behind the DoIP entity.
    pub logical_address: u16,
    /// `22 F18A`.
    pub supplier_code: String,
    /// `22 F191`.
    pub hw_part_no: String,
    /// `22 F188`.
    pub sw_part_no: String,
    /// `22 F189` as it leaves the factory; afterwards the state folder decides.
    pub sw_version: String,
    /// `22 F180`, without the number of modules.
    pub bootloader_ver: String,
    /// `22 F182`, without the number of modules.
    pub calibration_id: String,
    /// How fast it is.
    #[serde(default)]
    pub timing: EcuTiming,
    /// What it does wrong.
    #[serde(default)]
    pub faults: Faults,
}

/// How fast an ECU is, and how long it waits.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EcuTiming {
    /// Time of an erase, in milliseconds.
    pub erase_ms: u64,
    /// Time of each block, in milliseconds.
    pub block_ms: u64,
    /// How long it is silent when it restarts, in milliseconds.
    pub reboot_ms: u64,
    /// S3: how long a session stays open without a request, in milliseconds.
    pub session_ms: u64,
    /// Wait after too many wrong keys, in milliseconds.
    pub security_delay_ms: u64,
    /// How long software stays on trial without being confirmed, in seconds: longer than the worst
    /// recovery of the gateway.
    pub trial_s: u64,
    /// How often software boots on trial before the ECU goes back.
    pub trial_boots: u32,
    /// maxNumberOfBlockLength: service byte and block counter included, in bytes.
    pub max_block_length: u16,
}

impl Default for EcuTiming {
    fn default() -> Self {
        Self {
            erase_ms: 50,
            block_ms: 0,
            reboot_ms: 100,
            session_ms: 5_000,
            security_delay_ms: 10_000,
            trial_s: 3_600,
            trial_boots: 10,
            max_block_length: 0xFFFF,
        }
    }
}

/// What an ECU does wrong.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The block that reaches beyond this byte of the image is refused with "general programming failure".
    pub fails_write_at_byte: Option<u64>,
    /// Takes every request and answers none.
    pub silent: bool,
    /// Finds another SHA-256 in its memory than the one that was written.
    pub wrong_checksum: bool,
    /// Does not boot the bank that was activated.
    pub boots_into_old_bank: bool,
}

/// A request that a DoIP entity hands to an ECU.
#[derive(Debug)]
pub(crate) struct EcuRequest {
    pub(crate) data: Vec<u8>,
    pub(crate) tester: u16,
    pub(crate) answers: mpsc::Sender<EcuAnswer>,
}

/// An answer of an ECU on its way to the tester that asked.
#[derive(Debug)]
pub(crate) struct EcuAnswer {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) data: BytesMut,
}

/// Security access of the running session.
#[derive(Debug, Default)]
struct Security {
    unlocked: bool,
    seed: Option<[u8; 4]>,
    wrong_keys: u8,
    locked_until: Option<Instant>,
}

/// The ECU's running state; what survives a restart is in `banks`.
#[derive(Debug)]
pub(crate) struct Ecu {
    config: EcuConfig,
    identifiers: Identifiers,
    folder: PathBuf,
    banks: Banks,
    session: DiagnosticSessionType,
    session_ends: Instant,
    security: Security,
    fingerprint: Option<String>,
    download: Option<Download>,
    silent_until: Instant,
    trial_ends: Instant,
    reboot_wanted: bool,
}

impl Ecu {
    /// Powers the ECU up: state is read from `folder`, which is made if it is not there.
    pub(crate) fn power_up(config: EcuConfig, folder: &Path) -> Result<Self, StateError> {
        let mut banks = Banks::load_or_new(folder, &config.sw_version)?;
        banks.boot(config.timing.trial_boots, config.faults.boots_into_old_bank);
        banks.save(folder)?;
        let now = Instant::now();
        Ok(Self {
            trial_ends: now + Duration::from_secs(config.timing.trial_s),
            config,
            identifiers: Identifiers::default(),
            folder: folder.to_owned(),
            banks,
            session: DiagnosticSessionType::DefaultSession,
            session_ends: now,
            security: Security::default(),
            fingerprint: None,
            download: None,
            silent_until: now,
            reboot_wanted: false,
        })
    }

    /// The queue of its requests, and the task that works on them until all senders are gone.
    pub(crate) fn run(mut self) -> (mpsc::Sender<EcuRequest>, impl Future<Output = ()> + Send) {
        let (sender, mut requests) = mpsc::channel::<EcuRequest>(REQUEST_QUEUE);
        let task = async move {
            loop {
                tokio::select! {
                    request = requests.recv() => match request {
                        Some(request) => self.serve(request).await,
                        None => return,
                    },
                    () = sleep_until(self.session_ends), if self.in_session() => self.leave_session(),
                    () = sleep_until(self.trial_ends), if self.banks.is_on_trial() => self.end_trial(),
                }
            }
        };
        (sender, task)
    }

    fn in_session(&self) -> bool {
        self.session != DiagnosticSessionType::DefaultSession
    }

    /// Back to the default session: locked, and a download that was under way is lost.
    fn leave_session(&mut self) {
        self.enter_session(DiagnosticSessionType::DefaultSession);
    }

    fn enter_session(&mut self, session: DiagnosticSessionType) {
        self.session = session;
        self.security.unlocked = false;
        self.security.seed = None;
        self.fingerprint = None;
        self.download = None;
    }

    fn end_trial(&mut self) {
        tracing::info!(ecu = self.config.ecu_id, "Nobody confirmed in time: back to the earlier software.");
        self.banks.revert();
        self.reboot();
    }

    /// Restarts from the bank that is marked; silent for a while.
    fn reboot(&mut self) {
        self.banks.boot(self.config.timing.trial_boots, self.config.faults.boots_into_old_bank);
        if let Err(error) = self.banks.save(&self.folder) {
            tracing::error!(ecu = self.config.ecu_id, %error, "The ECU could not save which bank it runs.");
        }
        self.leave_session();
        self.silent_until = Instant::now() + Duration::from_millis(self.config.timing.reboot_ms);
        self.trial_ends = self.silent_until + Duration::from_secs(self.config.timing.trial_s);
    }

    async fn serve(&mut self, request: EcuRequest) {
        if self.config.faults.silent || Instant::now() < self.silent_until {
            return;
        }
        let port = AnswerPort {
            ecu: self.config.logical_address,
            tester: request.tester,
            answers: &request.answers,
        };
        let Some(service) = request.data.first().copied() else { return };
        match self.handle(&request.data, &port).await {
            Ok(Some(answer)) => port.send(answer),
            Ok(None) => {}
            Err(code) => port.refuse(service, code),
        }
        self.session_ends = Instant::now() + Duration::from_millis(self.config.timing.session_ms);
        if std::mem::take(&mut self.reboot_wanted) {
            self.reboot();
        }
    }
}

/// Where the answers to one request go.
struct AnswerPort<'a> {
    ecu: u16,
    tester: u16,
    answers: &'a mpsc::Sender<EcuAnswer>,
}

impl AnswerPort<'_> {
    /// A tester that does not read its answers loses them; the ECU does not wait for it.
    fn send(&self, data: BytesMut) {
        let _ = self.answers.try_send(EcuAnswer { from: self.ecu, to: self.tester, data });
    }

    fn refuse(&self, service: u8, code: NegativeResponseCode) {
        let mut data = BytesMut::new();
        let refusal = Response::NegativeResponse(NegativeResponse::new_with_sid(service, code));
        if uds::append(&mut data, &refusal).is_ok() {
            self.send(data);
        }
    }

    fn pending(&self, service: u8) {
        self.refuse(service, NegativeResponseCode::RequestCorrectlyReceivedResponsePending);
    }

    /// Works for so long; says "response pending" if that is longer than P2, and again before P2* ends.
    async fn work(&self, service: u8, time: Duration) {
        const PENDING_EVERY: Duration = Duration::from_secs(2);
        let end = Instant::now() + time;
        if time < Duration::from_millis(P2_MS.into()) {
            return sleep_until(end).await;
        }
        loop {
            self.pending(service);
            let next = (Instant::now() + PENDING_EVERY).min(end);
            sleep_until(next).await;
            if next == end {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
