//! One simulated ECU: two banks in a folder, UDS services over them, faults on request.
//!
//! What follows no standard but the project's convention (`docs/vehicle.md`): an image carries no version, so
//! the fingerprint (`2E F184`) that is written before a download is the version of what follows, and
//! `22 F189` reports it once that bank runs. Security access is no protection here: key = seed XOR 0xA5.

mod banks;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handle;
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
pub use self::handle::EcuHandle;
use self::handle::{SharedFaults, Supply};
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
    /// Works so much longer on each request, in milliseconds; says "response pending" meanwhile.
    pub slow_ms: u64,
    /// So many requests from now on are answered "busy, repeat request".
    pub busy_answers: u32,
    /// So many roll-backs from now on are refused with "general programming failure".
    pub refuses_roll_back: u32,
    /// Once, the block of this number (from 1) is written and its answer lost.
    pub loses_answer_to_block: Option<u32>,
    /// Once, the power fails in the middle of the block of this number (from 1), and comes back at once.
    pub loses_power_at_block: Option<u32>,
    /// Once, the power fails when the request of this number (from 1, counted from now on) has been carried out
    /// and not been answered, and comes back at once. "Tester present" does not count.
    pub loses_power_instead_of_answer: Option<u32>,
}

impl Faults {
    /// Whether a fault that happens a number of times happens now; counts it.
    fn take_one(times: &mut u32) -> bool {
        let happens = *times > 0;
        *times = times.saturating_sub(1);
        happens
    }

    /// Whether a fault that happens once, at this number, happens now.
    fn take_at(at: &mut Option<u32>, number: u32) -> bool {
        at.take_if(|at| *at == number).is_some()
    }

    /// Whether a fault that happens once, after a number of events, happens at this one; counts it.
    fn take_last(left: &mut Option<u32>) -> bool {
        if let Some(left) = left {
            *left = left.saturating_sub(1);
        }
        left.take_if(|left| *left == 0).is_some()
    }
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
    faults: SharedFaults,
    then: Then,
}

/// What follows once a request has been served.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Then {
    #[default]
    Nothing,
    /// The reset that was asked for.
    Restart,
    /// The power fails before the answer goes out, and comes back.
    LosePower,
}

impl Ecu {
    /// Powers the ECU up: state is read from `folder`, which is made if it is not there.
    pub(crate) fn power_up(config: EcuConfig, folder: &Path) -> Result<Self, StateError> {
        let banks = Banks::load_or_new(folder, &config.sw_version)?;
        let now = Instant::now();
        let mut ecu = Self {
            faults: SharedFaults::new(config.faults.clone()),
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
            trial_ends: now,
            then: Then::Nothing,
        };
        ecu.boot()?;
        Ok(ecu)
    }

    /// The queue of its requests, the handle of its faults and power, and the task that works on the requests
    /// until all senders are gone.
    pub(crate) fn run(mut self) -> (mpsc::Sender<EcuRequest>, EcuHandle, impl Future<Output = ()> + Send) {
        let (sender, mut requests) = mpsc::channel::<EcuRequest>(REQUEST_QUEUE);
        let (handle, mut supply) = EcuHandle::new(self.faults.clone());
        let task = async move {
            loop {
                tokio::select! {
                    biased;
                    () = supply.cut() => {
                        self.lose_power().await;
                        supply.report(false);
                        if !without_power(&mut supply, &mut requests).await {
                            return;
                        }
                        self.start_again();
                        supply.report(true);
                    }
                    more = self.work(&mut requests) => if !more {
                        return;
                    },
                }
            }
        };
        (sender, handle, task)
    }

    /// One request, or one thing that time brings; false once nobody can ask any more. Dropped when the power goes.
    async fn work(&mut self, requests: &mut mpsc::Receiver<EcuRequest>) -> bool {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => self.serve(request).await,
                None => return false,
            },
            () = sleep_until(self.session_ends), if self.in_session() => self.leave_session(),
            () = sleep_until(self.trial_ends), if self.banks.is_on_trial() => self.end_trial(),
        }
        true
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
        self.restart();
    }

    /// What the bootloader does: it chooses the bank, and saves its choice before it jumps there.
    fn boot(&mut self) -> Result<(), StateError> {
        let refuses_new_bank = self.faults.lock().boots_into_old_bank;
        self.banks.boot(self.config.timing.trial_boots, refuses_new_bank);
        self.trial_ends = self.silent_until + Duration::from_secs(self.config.timing.trial_s);
        self.banks.save(&self.folder)
    }

    /// Restarts from the bank that is marked; silent for a while.
    fn restart(&mut self) {
        self.leave_session();
        self.silent_until = Instant::now() + Duration::from_millis(self.config.timing.reboot_ms);
        if let Err(error) = self.boot() {
            tracing::error!(ecu = self.config.ecu_id, %error, "The ECU could not save which bank it runs.");
        }
    }

    /// The power is gone, and with it all that is not in the folder.
    async fn lose_power(&mut self) {
        if let Some(mut download) = self.download.take() {
            // A write that is under way ends here, not in the bank's next content.
            download.settle().await;
        }
        self.security = Security::default();
        self.then = Then::Nothing;
        self.leave_session();
    }

    /// The power is back: the banks are what the folder says they are.
    fn start_again(&mut self) {
        match Banks::load_or_new(&self.folder, &self.config.sw_version) {
            Ok(banks) => self.banks = banks,
            Err(error) => {
                tracing::error!(ecu = self.config.ecu_id, %error, "The ECU could not read its banks.");
            }
        }
        self.restart();
    }

    async fn serve(&mut self, request: EcuRequest) {
        if self.faults.lock().silent || Instant::now() < self.silent_until {
            return;
        }
        let port = AnswerPort {
            ecu: self.config.logical_address,
            tester: request.tester,
            answers: &request.answers,
        };
        let Some(service) = request.data.first().copied() else { return };
        let answer = self.answer(service, &request.data, &port).await;
        self.session_ends = Instant::now() + Duration::from_millis(self.config.timing.session_ms);
        let then = std::mem::take(&mut self.then);
        if then == Then::LosePower {
            self.lose_power().await;
            return self.start_again();
        }
        match answer {
            Ok(Some(answer)) => port.send(answer),
            Ok(None) => {}
            Err(code) => port.refuse(service, code),
        }
        if then == Then::Restart {
            self.restart();
        }
    }

    /// The answer to one request, and the faults that concern every request.
    async fn answer(
        &mut self,
        service: u8,
        request: &[u8],
        port: &AnswerPort<'_>,
    ) -> Result<Option<BytesMut>, NegativeResponseCode> {
        if service == uds::UdsServiceType::TesterPresent.to_request_sid() {
            return self.handle(request, port).await;
        }
        let slow = {
            let mut faults = self.faults.lock();
            if Faults::take_one(&mut faults.busy_answers) {
                return Err(NegativeResponseCode::BusyRepeatRequest);
            }
            Duration::from_millis(faults.slow_ms)
        };
        port.work(service, slow).await;
        let answer = self.handle(request, port).await;
        if Faults::take_last(&mut self.faults.lock().loses_power_instead_of_answer) {
            self.then = Then::LosePower;
        }
        answer
    }
}

/// Waits for the power; requests are lost meanwhile. False once nobody can ask any more.
async fn without_power(supply: &mut Supply, requests: &mut mpsc::Receiver<EcuRequest>) -> bool {
    loop {
        tokio::select! {
            biased;
            () = supply.restored() => return true,
            request = requests.recv() => if request.is_none() {
                return false;
            },
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
        // Even a sleep of nothing lasts a millisecond.
        if time.is_zero() {
            return;
        }
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
