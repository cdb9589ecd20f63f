//! Answers of vehicles to commands of this server: the checks from the correlation on, and what follows.

use farrier_campaign::{Event, LateWord, State};
use farrier_protocol::{
    ErrorCode, ErrorResponse, MessageType, MsgId, Operation, ReadinessReport, ReceivedMessage, Refusal,
    RefusalCode, RetryOrigin, SendVci, ServerBody, ServerMessage, UnixMillis, VciReason, VehicleBody,
    VehicleMessage, vci_digest,
};

use super::advance::advance;
use super::{Rules, outgoing, take_into_following_campaigns};
use crate::evidence;
use crate::store::commands::{self, SentCommand};
use crate::store::updates::VehicleUpdate;
use crate::store::vehicles::Vehicle;
use crate::store::{StoreError, Tx, updates, vehicles};

/// Checks an answer and does what follows; gives what is worth recording with it.
pub(super) fn answered(
    tx: &Tx<'_>,
    rules: &Rules,
    vehicle: &Vehicle,
    received: &ReceivedMessage,
    now: UnixMillis,
) -> Result<Result<Option<String>, Refusal>, StoreError> {
    let message = &received.message;
    let Some(correlation_id) = message.correlation_id() else { return Ok(Ok(None)) };
    let Some(command) = commands::sent(tx, &vehicle.binding, correlation_id)? else {
        let expected = "the msg_id of a command that was sent to this vehicle";
        return Ok(Err(correlation(RefusalCode::UnknownCorrelation, expected, correlation_id.as_str())));
    };
    if let Err(refusal) = check(vehicle, received, &command, now) {
        if matches!(refusal.code, RefusalCode::CorrelationExpired | RefusalCode::CorrelationClosed) {
            told_late(tx, rules, &command, message, now)?;
        }
        return Ok(Err(refusal));
    }
    let answer = Answer { tx, rules, vehicle, command: &command, msg_id: &message.msg_id, now };
    match &message.body {
        VehicleBody::WakeUp(_) => Ok(Ok(None)),
        VehicleBody::SendVci(vci) => answer.inventory(vci).map(Ok),
        VehicleBody::ReadinessReport(report) => answer.readiness(report).map(Ok),
        VehicleBody::UpdateSuccessResult(result) => answer.step(result.operation).map(Ok),
        VehicleBody::ErrorResponse(error) => answer.error(error).map(Ok),
    }
}

fn correlation(code: RefusalCode, expected: &str, found: &str) -> Refusal {
    Refusal::new(code, "/correlation_id", expected, found)
}

/// Correlation and content, in the order of protocol.md §7.
fn check(
    vehicle: &Vehicle,
    received: &ReceivedMessage,
    command: &SentCommand,
    now: UnixMillis,
) -> Result<(), Refusal> {
    received.check_correlation(&command.message)?;
    let named = command.message.msg_id.as_str();
    if command.is_closed && !is_late_step(&received.message) {
        let expected = "a command that is not answered yet";
        return Err(correlation(
            RefusalCode::CorrelationClosed,
            expected,
            &format!("{named}, which is closed"),
        ));
    }
    if now >= command.expires_at {
        let expected = format!("an answer before {} ms since 1970", command.expires_at.0);
        return Err(correlation(RefusalCode::CorrelationExpired, &expected, &format!("{} ms", now.0)));
    }
    received.check_content(Some(&command.message))?;
    let is_report = matches!(received.message.body, VehicleBody::ReadinessReport(_));
    if is_report && vehicle.quarantined_at.is_some() {
        let expected = "a vehicle that is not quarantined";
        return Err(Refusal::new(RefusalCode::Quarantined, "", expected, "one quarantined for a boot loop"));
    }
    Ok(())
}

/// An earlier step that comes after a later one is recorded and changes nothing (protocol.md §4.6), although
/// `commit` has closed the command.
fn is_late_step(message: &VehicleMessage) -> bool {
    match &message.body {
        VehicleBody::UpdateSuccessResult(result) => {
            matches!(result.operation, Operation::Download | Operation::Install)
        }
        VehicleBody::WakeUp(_)
        | VehicleBody::SendVci(_)
        | VehicleBody::ReadinessReport(_)
        | VehicleBody::ErrorResponse(_) => false,
    }
}

/// What comes too late is refused; where it says otherwise than the server's record, the VCI tells what the vehicle
/// runs (protocol.md §8).
fn told_late(
    tx: &Tx<'_>,
    rules: &Rules,
    command: &SentCommand,
    message: &VehicleMessage,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let changes_ecus =
        matches!(command.message.body, ServerBody::StartDownload(_) | ServerBody::StartRollback(_));
    let word = match &message.body {
        VehicleBody::UpdateSuccessResult(result) => LateWord::Success(result.operation),
        VehicleBody::ErrorResponse(error) => LateWord::Error(error.code),
        VehicleBody::WakeUp(_) | VehicleBody::SendVci(_) | VehicleBody::ReadinessReport(_) => return Ok(()),
    };
    let Some(update_id) = command.update_id.as_ref().filter(|_| changes_ecus) else { return Ok(()) };
    match updates::by_id(tx, update_id)? {
        Some(update) => advance(tx, rules, update, Event::ToldLate(word), Some(&message.msg_id), now),
        None => Ok(()),
    }
}

/// An answer that passed all checks.
struct Answer<'a> {
    tx: &'a Tx<'a>,
    rules: &'a Rules,
    vehicle: &'a Vehicle,
    command: &'a SentCommand,
    msg_id: &'a MsgId,
    now: UnixMillis,
}

impl Answer<'_> {
    fn command_message(&self) -> &ServerMessage {
        &self.command.message
    }

    fn close_command(&self) -> Result<(), StoreError> {
        commands::close(self.tx, &self.command_message().msg_id, self.now)
    }

    fn own_update(&self) -> Result<Option<VehicleUpdate>, StoreError> {
        match &self.command.update_id {
            Some(id) => updates::by_id(self.tx, id),
            None => Ok(None),
        }
    }

    fn advance_own(&self, event: Event<'_>) -> Result<(), StoreError> {
        match self.own_update()? {
            Some(update) => advance(self.tx, self.rules, update, event, Some(self.msg_id), self.now),
            None => Ok(()),
        }
    }

    fn inventory(&self, vci: &SendVci) -> Result<Option<String>, StoreError> {
        self.close_command()?;
        let digest = vci_digest(vci);
        vehicles::set_vci(self.tx, self.vehicle, vci, digest, self.now)?;
        for update in self.updates_that_learn()? {
            let event = Event::OtherVciSeen(vci);
            advance(self.tx, self.rules, update, event, Some(self.msg_id), self.now)?;
        }
        self.advance_own(Event::VciReceived(vci))?;
        if self.vehicle.indexed_digest != Some(digest) {
            let vehicle_id = &self.vehicle.binding.vehicle_id;
            take_into_following_campaigns(self.tx, self.rules, vehicle_id, self.now)?;
        }
        let absent: Vec<_> =
            [("region", vci.region.is_none()), ("bootloader_ver", vci.bootloader_ver.is_none())]
                .into_iter()
                .filter_map(|(name, is_absent)| is_absent.then_some(name))
                .collect();
        Ok((!absent.is_empty()).then(|| format!("without recommended fields: {}", absent.join(", "))))
    }

    /// The other updates to which a VCI tells something: the one whose StartDownload was the last, if it had ended
    /// before this VCI was asked for; those whose outcome nobody knows; those that have a plan and wait.
    fn updates_that_learn(&self) -> Result<Vec<VehicleUpdate>, StoreError> {
        let vehicle_id = &self.vehicle.binding.vehicle_id;
        let latest = updates::latest_started(self.tx, vehicle_id)?;
        let is_latest = |update: &VehicleUpdate| latest.as_ref().is_some_and(|latest| latest.id == update.id);
        let learns = |update: &VehicleUpdate| match &update.state {
            State::Unknown { .. } | State::Deferred { .. } => true,
            State::Cancelled { .. }
            | State::Succeeded { .. }
            | State::RolledBack { .. }
            | State::Inconsistent { .. } => {
                is_latest(update) && update.ended_at.is_some_and(|ended_at| ended_at <= self.command.send_at)
            }
            State::Waiting { .. } if update.state.is_between_attempts() => {
                is_latest(update) && update.updated_at <= self.command.send_at
            }
            State::Waiting { .. }
            | State::CollectingVci { .. }
            | State::CheckingReadiness { .. }
            | State::Downloading(_)
            | State::Installing(_)
            | State::Committing(_)
            | State::Verifying { .. }
            | State::RollingBack { .. }
            | State::UpToDate
            | State::Ineligible { .. } => false,
        };
        Ok(updates::of_vehicle(self.tx, vehicle_id)?.into_iter().filter(learns).collect())
    }

    fn readiness(&self, report: &ReadinessReport) -> Result<Option<String>, StoreError> {
        self.close_command()?;
        if report.ready {
            self.advance_own(Event::Ready)?;
            evidence::note_go(self.tx, self.command, self.msg_id, report, self.now)?;
            return Ok(self.unmeasured(report));
        }
        let retry_after = report.retry_after();
        let reasons = report.not_ready_reasons.as_deref().unwrap_or_default();
        self.advance_own(Event::NotReady { reasons, retry_after_s: retry_after.seconds })?;
        let retry = match retry_after.origin {
            RetryOrigin::Sent => None,
            RetryOrigin::Clamped { sent } => {
                Some(format!("retry_after_s {sent} counts as {}", retry_after.seconds))
            }
            RetryOrigin::Default => Some(format!("no retry_after_s, {} taken", retry_after.seconds)),
        };
        let notes: Vec<_> = [retry, self.unmeasured(report)].into_iter().flatten().collect();
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    /// Which of the requested conditions the vehicle could not measure.
    fn unmeasured(&self, report: &ReadinessReport) -> Option<String> {
        let ServerBody::RequestDownloadReadiness(request) = &self.command_message().body else {
            return None;
        };
        let measured = report.requested_fields.measured();
        let absent: Vec<_> = request
            .readiness_requirements
            .iter()
            .filter(|condition| !measured.contains(condition))
            .map(|condition| condition.name())
            .collect();
        (!absent.is_empty()).then(|| format!("not measured: {}", absent.join(", ")))
    }

    fn step(&self, operation: Operation) -> Result<Option<String>, StoreError> {
        if self.command.is_closed {
            self.advance_own(Event::ToldLate(LateWord::Success(operation)))?;
            return Ok(Some(format!("{operation} after a later step")));
        }
        match operation {
            Operation::Commit | Operation::Rollback => self.close_command()?,
            Operation::Download | Operation::Install => {}
        }
        self.advance_own(Event::StepReported(operation))?;
        Ok(None)
    }

    fn error(&self, error: &ErrorResponse) -> Result<Option<String>, StoreError> {
        self.close_command()?;
        let command = self.command_message().message_type();
        if self.command.update_id.is_some() {
            self.advance_own(Event::ErrorReported { command, error })?;
        } else if command == MessageType::RequestVci {
            self.ask_inventory_again(error)?;
        }
        Ok(Some(format!("{}: {}", error.code, error.detail)))
    }

    /// Outside a vehicle update too, an inventory that cannot be had now is asked for again.
    fn ask_inventory_again(&self, error: &ErrorResponse) -> Result<(), StoreError> {
        let settings = &self.rules.settings;
        let try_number = usize::try_from(self.command.try_number).unwrap_or(usize::MAX);
        let (pause_s, try_number) = match error.code {
            ErrorCode::VciIncomplete => match settings.vci_incomplete_pauses_s.get(try_number) {
                Some(pause_s) => (*pause_s, self.command.try_number.saturating_add(1)),
                None => return Ok(()),
            },
            ErrorCode::Busy => {
                let pause_s = error.retry_after_s.unwrap_or(settings.busy_pause_s).clamp(1, 7_200);
                (pause_s, self.command.try_number)
            }
            // The vehicle is asked again at its next WakeUp.
            ErrorCode::Expired
            | ErrorCode::Unsupported
            | ErrorCode::DeltaBaseMismatch
            | ErrorCode::ConsentDenied
            | ErrorCode::UpdateFailed
            | ErrorCode::ServiceRequired
            | ErrorCode::Cancelled
            | ErrorCode::CancelRefused
            | ErrorCode::RollbackUnavailable => return Ok(()),
        };
        let send_at = self.now.plus_seconds(pause_s);
        let question = outgoing::InventoryQuestion { reason: VciReason::Wakeup, try_number, send_at };
        outgoing::queue_inventory_question(self.tx, self.rules, &self.vehicle.binding, &question, self.now)
    }
}
