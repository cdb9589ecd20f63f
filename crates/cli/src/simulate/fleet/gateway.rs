//! What the gateway of a light vehicle knows and says: no sockets, no clock. Its ECUs are the versions that they run.

use std::collections::VecDeque;
use std::time::Duration;

use farrier_protocol::{
    Binding, CancelUpdate, ConditionValues, ErrorCode, ErrorResponse, LongText, MsgId, NotReadyReason,
    Operation, ProtoVer, ReadinessReport, RequestDownloadReadiness, ServerBody, ServerMessage, Sha256,
    StartDownload, StartRollback, Text, Thumbprint, UnixMillis, UpdateSuccessResult, VehicleBody,
    VehicleMessage, WakeUp, vci_digest,
};

use super::begun::Begun;
use super::inventory::{Model, inventory};
use super::nature::{Nature, Outcome, Step};
use super::scoreboard::{Runs, Truth};

/// Ids of commands that are remembered, so that one that comes twice is taken once.
const REMEMBERED: usize = 16;
/// When a vehicle that is not ready wants to be asked again: the least that counts.
const RETRY_AFTER_S: u64 = 60;
/// When to ask again while ECUs are being written.
const BUSY_S: u64 = 2;
/// What a vehicle's clock said when it was switched on, before this program ran.
const UPTIME_MS: u64 = 3_600_000;

/// The gateway of one vehicle.
pub(super) struct Gateway {
    pub(super) binding: Binding,
    pub(super) nature: Nature,
    thumbprint: Thumbprint,
    /// What each ECU runs, in the order of the model.
    running: Vec<Text>,
    /// The update that was begun last.
    last: Option<Begun>,
    work: Option<Work>,
    taken: VecDeque<MsgId>,
    sent: u64,
    boots: u64,
    digest: Option<Sha256>,
    was_not_ready: bool,
    has_cancelled: bool,
    /// What its nature wants next.
    pause: Option<Pause>,
}

/// What is under way.
enum Work {
    Downloading(StartDownload),
    Writing,
    Trying,
    RollingBack { command: MsgId },
}

/// Why a vehicle leaves its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// For so long; then it comes back, perhaps after a reboot.
    Away { lasts: Duration, reboots: bool },
    /// For good; the connection may stand.
    Silent { stays_connected: bool },
    /// Until then; then it tells what it has done.
    SilentUntil(UnixMillis),
}

impl Gateway {
    /// The gateway of a vehicle whose ECUs all run this version.
    pub(super) fn new(binding: Binding, thumbprint: Thumbprint, nature: Nature, running: Vec<Text>) -> Self {
        Self {
            binding,
            nature,
            thumbprint,
            running,
            last: None,
            work: None,
            taken: VecDeque::new(),
            sent: 0,
            boots: 1,
            digest: None,
            was_not_ready: false,
            has_cancelled: false,
            pause: None,
        }
    }

    /// Says that it is there.
    pub(super) fn wake_up(&mut self, now: UnixMillis) -> VehicleMessage {
        let body = VehicleBody::WakeUp(WakeUp {
            boot_id: text(&format!("boot-{}", self.boots)),
            boot_seq: self.boots,
            uptime_ms: UPTIME_MS,
            client_cert_thumbprint: self.thumbprint.clone(),
            vci_digest: self.digest,
        });
        self.message(body, now)
    }

    /// It was switched off and on.
    pub(super) fn reboot(&mut self) {
        self.boots = self.boots.saturating_add(1);
    }

    /// Takes a command; gives what it answers at once.
    pub(super) fn take(
        &mut self,
        model: &Model,
        command: ServerMessage,
        now: UnixMillis,
    ) -> Vec<VehicleMessage> {
        if self.taken.contains(&command.msg_id) {
            return Vec::new();
        }
        self.taken.push_back(command.msg_id.clone());
        if self.taken.len() > REMEMBERED {
            self.taken.pop_front();
        }
        let has_expired = command.expires_at(now).is_some_and(|expires_at| now >= expires_at);
        let id = command.msg_id;
        let answer = match command.body {
            _ if has_expired => Some(error(id, ErrorCode::Expired, "it had expired when it came")),
            ServerBody::RequestVci(request) => Some(match self.work {
                Some(Work::Writing | Work::Trying | Work::RollingBack { .. }) => {
                    busy(id, "ECUs are being written")
                }
                Some(Work::Downloading(_)) | None => {
                    let vci = inventory(model, id, &request.fields, &self.claimed(), model.gateway_version());
                    self.digest = Some(vci_digest(&vci));
                    VehicleBody::SendVci(vci)
                }
            }),
            ServerBody::RequestDownloadReadiness(request) => Some(self.readiness(id, &request)),
            ServerBody::StartDownload(start) => self.begin(model, id, start),
            ServerBody::StartRollback(rollback) => self.begin_rollback(id, &rollback),
            ServerBody::CancelUpdate(cancel) => Some(self.cancel(id, &cancel)),
            // The connection counts them.
            ServerBody::MessageRejected(_) => None,
        };
        answer.map(|body| self.message(body, now)).into_iter().collect()
    }

    fn readiness(&mut self, command: MsgId, request: &RequestDownloadReadiness) -> VehicleBody {
        if self.work.is_some() {
            return busy(command, "an update is under way");
        }
        let deltas = request.packages.iter().filter(|package| package.delta_from.is_some());
        let deltas: Vec<_> = deltas.map(|package| package.pkg_id.clone()).collect();
        if !deltas.is_empty() {
            let answer = error_response(command, ErrorCode::DeltaBaseMismatch, "it cannot apply deltas");
            return VehicleBody::ErrorResponse(ErrorResponse { pkg_ids: Some(deltas), ..answer });
        }
        let is_ready = !self.nature.is_not_ready || self.was_not_ready;
        self.was_not_ready = true;
        if is_ready {
            self.pause_after(Step::Ready);
        }
        let battery_12v_v = Some(if is_ready { 12.6 } else { 11.2 });
        let measured = ConditionValues { battery_12v_v, ..ConditionValues::default() };
        VehicleBody::ReadinessReport(ReadinessReport {
            correlation_id: command,
            ready: is_ready,
            requested_fields: measured.only(&request.readiness_requirements),
            not_ready_reasons: (!is_ready).then(|| vec![NotReadyReason::PowerLow]),
            retry_after_s: (!is_ready).then_some(RETRY_AFTER_S),
        })
    }

    fn begin(&mut self, model: &Model, command: MsgId, start: StartDownload) -> Option<VehicleBody> {
        if self.work.is_some() {
            return Some(busy(command, "another update is under way"));
        }
        let Some(begun) = Begun::new(model, command.clone(), &start, &self.running) else {
            return Some(error(command, ErrorCode::Unsupported, "a package is for no ECU of this vehicle"));
        };
        self.last = Some(begun);
        self.has_cancelled = false;
        if let Outcome::SilentForGood { stays_connected } = self.nature.outcome {
            self.pause = Some(Pause::Silent { stays_connected });
            return None;
        }
        self.work = Some(Work::Downloading(start));
        None
    }

    /// What it has to fetch now.
    pub(super) fn to_download(&self) -> Option<&StartDownload> {
        match &self.work {
            Some(Work::Downloading(start)) => Some(start),
            Some(Work::Writing | Work::Trying | Work::RollingBack { .. }) | None => None,
        }
    }

    /// How long what is under way takes; none where nothing is.
    pub(super) fn work_takes(&self) -> Option<Duration> {
        match &self.work {
            Some(Work::Downloading(_)) => Some(Duration::ZERO),
            Some(Work::Writing | Work::Trying | Work::RollingBack { .. }) => Some(self.nature.work),
            None => None,
        }
    }

    /// The deadline of the update is over before it had all packages: nothing was changed.
    pub(super) fn give_up(&mut self, now: UnixMillis) -> bool {
        let is_over = self.last.as_ref().is_none_or(|begun| now >= begun.expires_at);
        if is_over {
            self.work = None;
        }
        is_over
    }

    /// What is under way is done; gives what it says about that.
    pub(super) fn advance(&mut self, now: UnixMillis) -> Vec<VehicleMessage> {
        let (Some(work), Some(begun)) = (self.work.take(), &self.last) else { return Vec::new() };
        let (command, expires_at) = (begun.command.clone(), begun.expires_at);
        let outcome = self.nature.outcome;
        let said = match (work, outcome) {
            (Work::Downloading(_), Outcome::SilentUntilLate { late_by, .. }) => {
                let late_s = late_by.as_secs();
                self.pause = Some(Pause::SilentUntil(expires_at.plus_seconds(late_s)));
                return Vec::new();
            }
            (Work::Downloading(_), _) => {
                self.work = Some(Work::Writing);
                self.pause_after(Step::Downloaded);
                self.success(command, Operation::Download)
            }
            (Work::Writing, Outcome::FailsWhileWriting) => self.failed(command),
            (Work::Writing, _) => {
                self.work = Some(Work::Trying);
                self.pause_after(Step::Installed);
                self.success(command, Operation::Install)
            }
            (Work::Trying, Outcome::FailsInTrial) => self.failed(command),
            (Work::Trying, Outcome::FailsBetweenBanks) => {
                self.activate(|number| number.is_multiple_of(2));
                // An update of one ECU cannot be mixed.
                match self.truth().runs {
                    Runs::Mixed => Some(self.service_required(command)),
                    Runs::New => self.success(command, Operation::Commit),
                    Runs::Earlier | Runs::Untouched => self.failed(command),
                }
            }
            (Work::Trying, _) => {
                if !self.nature.lies {
                    self.activate(|_| true);
                }
                self.pause_after(Step::Committed);
                self.success(command, Operation::Commit)
            }
            (Work::RollingBack { command }, _) => {
                if let Some(begun) = &self.last {
                    begun.undo(&mut self.running);
                }
                self.success(command, Operation::Rollback)
            }
        };
        said.map(|body| self.message(body, now)).into_iter().collect()
    }

    /// It comes back long after the deadline; gives what it has to tell besides its WakeUp.
    pub(super) fn come_back_late(&mut self, now: UnixMillis) -> Vec<VehicleMessage> {
        self.reboot();
        let Outcome::SilentUntilLate { updates: true, .. } = self.nature.outcome else { return Vec::new() };
        let Some(command) = self.last.as_ref().map(|begun| begun.command.clone()) else { return Vec::new() };
        self.activate(|_| true);
        let said = self.success(command, Operation::Commit);
        said.map(|body| self.message(body, now)).into_iter().collect()
    }

    /// What its nature wants of it now, once.
    pub(super) fn take_pause(&mut self) -> Option<Pause> {
        self.pause.take()
    }

    /// What it truly is, whatever it has said.
    pub(super) fn truth(&self) -> Truth {
        let is_silent = matches!(self.nature.outcome, Outcome::SilentForGood { .. });
        Truth {
            vehicle_id: self.binding.vehicle_id.to_string(),
            runs: self.last.as_ref().map_or(Runs::Untouched, |begun| begun.runs(&self.running)),
            is_silent: is_silent && self.last.is_some(),
            has_cancelled: self.has_cancelled,
            ecus: self.last.as_ref().map_or(0, Begun::ecu_count),
        }
    }

    fn begin_rollback(&mut self, command: MsgId, rollback: &StartRollback) -> Option<VehicleBody> {
        let is_there = self.work.is_none()
            && self.truth().runs == Runs::New
            && self.last.as_ref().is_some_and(|begun| begun.update_id == rollback.update_id);
        if !is_there {
            return Some(error(command, ErrorCode::RollbackUnavailable, "the earlier software is not there"));
        }
        self.work = Some(Work::RollingBack { command });
        None
    }

    fn cancel(&mut self, command: MsgId, cancel: &CancelUpdate) -> VehicleBody {
        let is_last = self.last.as_ref().is_some_and(|begun| begun.update_id == cancel.update_id);
        match &self.work {
            Some(Work::Trying | Work::RollingBack { .. }) if is_last => {
                return error(command, ErrorCode::CancelRefused, "the boot flags are swapped");
            }
            Some(Work::Downloading(_) | Work::Writing) if is_last => {
                self.work = None;
                self.has_cancelled = true;
            }
            Some(_) => {}
            None if is_last && self.truth().runs != Runs::Earlier => {
                return error(command, ErrorCode::CancelRefused, "it is over");
            }
            None => self.has_cancelled = true,
        }
        error(command, ErrorCode::Cancelled, "nothing was changed")
    }

    /// What it says that its ECUs run.
    fn claimed(&self) -> Vec<Text> {
        let mut claimed = self.running.clone();
        if let Some(begun) = self.last.as_ref().filter(|_| self.nature.lies) {
            begun.activate(&mut claimed, |_| true);
        }
        claimed
    }

    fn activate(&mut self, is_chosen: impl Fn(usize) -> bool) {
        if let Some(begun) = &self.last {
            begun.activate(&mut self.running, is_chosen);
        }
    }

    fn success(&self, command: MsgId, operation: Operation) -> Option<VehicleBody> {
        let ecu_count = u64::try_from(self.last.as_ref()?.ecu_count()).unwrap_or(u64::MAX);
        Some(VehicleBody::UpdateSuccessResult(UpdateSuccessResult {
            correlation_id: command,
            operation,
            duration_s: Some(self.nature.work.as_secs()),
            rebooted: None,
            ecu_count,
            verified_integrity: true,
        }))
    }

    /// All ECUs are as before; the server is told where it wants to be.
    fn failed(&self, command: MsgId) -> Option<VehicleBody> {
        let is_told = self.last.as_ref().is_some_and(|begun| begun.failure_report);
        is_told.then(|| self.with_failed_ecus(command, ErrorCode::UpdateFailed, |number| number == 0))
    }

    fn service_required(&self, command: MsgId) -> VehicleBody {
        self.with_failed_ecus(command, ErrorCode::ServiceRequired, |number| !number.is_multiple_of(2))
    }

    fn with_failed_ecus(
        &self,
        command: MsgId,
        code: ErrorCode,
        has_failed: impl Fn(usize) -> bool,
    ) -> VehicleBody {
        let failed_ecus = self.last.as_ref().map(|begun| begun.ecus(has_failed));
        let answer = error_response(command, code, "it is meant to fail in this simulation");
        VehicleBody::ErrorResponse(ErrorResponse { failed_ecus, ..answer })
    }

    fn pause_after(&mut self, step: Step) {
        if let Some(away) = self.nature.away.take_if(|away| away.after == step) {
            self.pause = Some(Pause::Away { lasts: away.lasts, reboots: away.reboots });
        }
    }

    fn message(&mut self, body: VehicleBody, now: UnixMillis) -> VehicleMessage {
        self.sent = self.sent.saturating_add(1);
        let Binding { vehicle_id, gateway_id } = self.binding.clone();
        let msg_id = msg_id(&format!("VMG-{:08}", self.sent));
        VehicleMessage { msg_id, proto_ver: ProtoVer::CURRENT, vehicle_id, gateway_id, ts: now, body }
    }
}

fn busy(command: MsgId, why: &str) -> VehicleBody {
    let answer = error_response(command, ErrorCode::Busy, why);
    VehicleBody::ErrorResponse(ErrorResponse { retry_after_s: Some(BUSY_S), ..answer })
}

fn error(command: MsgId, code: ErrorCode, why: &str) -> VehicleBody {
    VehicleBody::ErrorResponse(error_response(command, code, why))
}

fn error_response(command: MsgId, code: ErrorCode, why: &str) -> ErrorResponse {
    let detail = LongText::beginning_of(why);
    ErrorResponse {
        correlation_id: command,
        code,
        detail,
        failed_ecus: None,
        pkg_ids: None,
        retry_after_s: None,
    }
}

#[allow(clippy::expect_used, reason = "letters, digits and hyphens, fewer than 64")]
fn msg_id(text: &str) -> MsgId {
    text.parse().expect("an id of the protocol")
}

#[allow(clippy::expect_used, reason = "letters, digits and hyphens, fewer than 128")]
fn text(text: &str) -> Text {
    text.parse().expect("a text of the protocol")
}

#[cfg(test)]
mod tests;
