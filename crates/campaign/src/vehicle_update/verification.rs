//! What the vehicle runs decides how an update ended; also what can still happen to an ended one.

use super::pursuit::Due;
use super::*;

/// What a vehicle says about an update after the command that it answers was closed or had expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateWord {
    /// A step succeeded.
    Success(Operation),
    /// Something went wrong.
    Error(ErrorCode),
}

/// What people must look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// The vehicle says that it could not bring its ECUs to one state.
    ServiceRequired {
        /// The ECUs.
        failed_ecus: Vec<EcuId>,
    },
    /// The inventory shows neither all new nor all earlier versions.
    MixedSoftware {
        /// What the ECUs of the plan run.
        found: Vec<FoundVersion>,
    },
    /// The vehicle reported success, but its inventory shows the earlier versions.
    SuccessNotFound,
}

/// Asks for a fresh VCI at once, or at the next WakeUp where the vehicle is away.
pub(super) fn begin_verifying(plan: Plan, cause: VerifyCause, context: &Context<'_>) -> Transition {
    let deadline = context.now.plus_seconds(context.settings.verify_deadline_s);
    let pursuit = VciPursuit::awaiting_wake_up();
    if context.vehicle_there {
        ask(plan, cause, pursuit, deadline, context)
    } else {
        Transition::to(State::Verifying { plan, cause, pursuit, deadline })
    }
}

fn ask(
    plan: Plan,
    cause: VerifyCause,
    pursuit: VciPursuit,
    deadline: UnixMillis,
    context: &Context<'_>,
) -> Transition {
    let (pursuit, command) = pursuit.ask(VciReason::VerifyUpdate, context);
    Transition::sending(State::Verifying { plan, cause, pursuit, deadline }, command)
}

pub(super) fn verifying(
    plan: Plan,
    cause: VerifyCause,
    mut pursuit: VciPursuit,
    mut deadline: UnixMillis,
    event: Event<'_>,
    context: &Context<'_>,
) -> Transition {
    match event {
        Event::VciReceived(vci) => judged(plan, cause, vci),
        Event::TimePassed if context.now >= deadline => Transition::to(State::Unknown { plan, cause }),
        Event::TimePassed => match pursuit.due(context) {
            Due::Nothing => Transition::to(State::Verifying { plan, cause, pursuit, deadline }),
            Due::Ask => ask(plan, cause, pursuit, deadline, context),
            Due::GiveUp => {
                let pursuit = pursuit.pause_silent(context);
                Transition::to(State::Verifying { plan, cause, pursuit, deadline })
            }
        },
        Event::WokenUp if pursuit.is_unheard() => ask(plan, cause, pursuit, deadline, context),
        Event::ErrorReported { command: MessageType::RequestVci, error } => {
            if error.code == ErrorCode::Busy {
                // It speaks, and is still at work: that is not silence.
                deadline = deadline.max(context.now.plus_seconds(context.settings.verify_deadline_s));
            }
            let pursuit = vci_refused(pursuit, error, context);
            Transition::to(State::Verifying { plan, cause, pursuit, deadline })
        }
        Event::LookedAt
        | Event::WokenUp
        | Event::OtherVciSeen(_)
        | Event::Ready
        | Event::NotReady { .. }
        | Event::StepReported(_)
        | Event::ErrorReported { .. }
        | Event::ToldLate(_)
        | Event::CancelAsked { .. }
        | Event::RollbackAsked
        | Event::RetryAsked => Transition::to(State::Verifying { plan, cause, pursuit, deadline }),
    }
}

/// Whatever the vehicle says instead of a VCI: it is asked again later, until the deadline of the verification.
fn vci_refused(pursuit: VciPursuit, error: &ErrorResponse, context: &Context<'_>) -> VciPursuit {
    match error.code {
        ErrorCode::VciIncomplete => {
            let failed_ecus = error.failed_ecus.clone().unwrap_or_default();
            pursuit.pause_incomplete(failed_ecus, context).unwrap_or_else(VciPursuit::awaiting_wake_up)
        }
        ErrorCode::Busy => pursuit.pause_busy(error.retry_after_s, context),
        ErrorCode::Expired
        | ErrorCode::Unsupported
        | ErrorCode::DeltaBaseMismatch
        | ErrorCode::ConsentDenied
        | ErrorCode::UpdateFailed
        | ErrorCode::ServiceRequired
        | ErrorCode::Cancelled
        | ErrorCode::CancelRefused
        | ErrorCode::RollbackUnavailable => pursuit,
    }
}

/// Success is what the vehicle runs, not what was sent.
fn judged(plan: Plan, cause: VerifyCause, vci: &SendVci) -> Transition {
    match verdict(&plan, vci) {
        Verdict::AllNew => {
            let late = is_late(&cause);
            Transition::to(State::Succeeded { plan, late })
        }
        Verdict::AllEarlier => {
            let mut commands = Vec::new();
            if cause == VerifyCause::CommitReported {
                commands.push(Command::RaiseAlarm(Alarm::SuccessNotFound));
            }
            let deltas = plan.deltas();
            if puts_deltas_in_doubt(&cause) && !deltas.is_empty() {
                commands.push(Command::AvoidDeltas { deltas });
            }
            Transition { state: State::RolledBack { plan, cause }, commands }
        }
        Verdict::Mixed(found) => mixed(plan, cause, found),
    }
}

fn mixed(plan: Plan, cause: VerifyCause, found: Vec<FoundVersion>) -> Transition {
    let alarm = Command::RaiseAlarm(Alarm::MixedSoftware { found: found.clone() });
    Transition::sending(State::Inconsistent { plan, cause, found }, alarm)
}

/// Whether the update may have failed because the gateway cannot do with deltas, or not with these.
fn puts_deltas_in_doubt(cause: &VerifyCause) -> bool {
    match cause {
        VerifyCause::DeadlinePassed
        | VerifyCause::UpdateFailed { .. }
        | VerifyCause::ErrorReported { .. } => true,
        VerifyCause::CommitReported
        | VerifyCause::ServiceRequired { .. }
        | VerifyCause::ConsentDenied
        | VerifyCause::RollbackReported
        | VerifyCause::RollbackDeadlinePassed
        | VerifyCause::RollbackRefused { .. }
        | VerifyCause::FoundLater => false,
    }
}

/// Late is a success that was not reported before the deadline. One that a roll-back did not undo was reported.
fn is_late(cause: &VerifyCause) -> bool {
    match cause {
        VerifyCause::CommitReported
        | VerifyCause::RollbackReported
        | VerifyCause::RollbackDeadlinePassed
        | VerifyCause::RollbackRefused { .. } => false,
        VerifyCause::DeadlinePassed
        | VerifyCause::UpdateFailed { .. }
        | VerifyCause::ServiceRequired { .. }
        | VerifyCause::ConsentDenied
        | VerifyCause::ErrorReported { .. }
        | VerifyCause::FoundLater => true,
    }
}

/// What can still happen to an update that has ended.
pub(super) fn ended(ended: State, event: Event<'_>, context: &Context<'_>) -> Transition {
    match (ended, event) {
        (State::Unknown { plan, cause }, Event::WokenUp) => begin_verifying(plan, cause, context),
        (State::Unknown { plan, cause }, Event::OtherVciSeen(vci)) => judged(plan, cause, vci),
        (ended, Event::OtherVciSeen(vci)) if context.is_latest => corrected(ended, vci),
        (ended, Event::ToldLate(word)) if context.is_latest && contradicts(word, &ended) => {
            verified_again(ended, context)
        }
        (State::Succeeded { plan, .. }, Event::RollbackAsked)
            if context.block.as_ref().is_none_or(Block::is_of_the_campaign) && context.is_latest =>
        {
            let deadline = context.now.plus_seconds(context.settings.rollback_deadline_s);
            let command = Command::StartRollback { expires_at: deadline };
            Transition::sending(State::RollingBack { plan, deadline }, command)
        }
        (
            State::Cancelled { .. } | State::Ineligible { .. } | State::RolledBack { .. },
            Event::RetryAsked,
        ) => Transition::to(State::selected()),
        (ended, _) => Transition::to(ended),
    }
}

/// The record follows what the vehicle turns out to run. A mix is one only where ECUs run what they should not by
/// this record: a third version was brought by somebody else.
fn corrected(ended: State, vci: &SendVci) -> Transition {
    let runs_any_new =
        |plan: &Plan| plan.packages.iter().any(|package| running(package, vci) == Some(&package.version));
    let runs_any_earlier = |plan: &Plan| {
        plan.packages.iter().any(|package| running(package, vci) == Some(&package.earlier_version))
    };
    let verdict = ended.plan().map(|plan| verdict(plan, vci));
    match (verdict, ended) {
        (
            Some(Verdict::AllNew),
            State::Cancelled { plan: Some(plan), .. }
            | State::RolledBack { plan, .. }
            | State::Inconsistent { plan, .. },
        ) => Transition::to(State::Succeeded { plan, late: true }),
        (Some(Verdict::AllEarlier), State::Succeeded { plan, .. }) => {
            Transition::to(State::RolledBack { plan, cause: VerifyCause::FoundLater })
        }
        (Some(Verdict::AllEarlier), State::Inconsistent { plan, cause, .. }) => {
            Transition::to(State::RolledBack { plan, cause })
        }
        (
            Some(Verdict::Mixed(found)),
            State::Cancelled { plan: Some(plan), .. } | State::RolledBack { plan, .. },
        ) if runs_any_new(&plan) => mixed(plan, VerifyCause::FoundLater, found),
        (Some(Verdict::Mixed(found)), State::Succeeded { plan, .. }) if runs_any_earlier(&plan) => {
            mixed(plan, VerifyCause::FoundLater, found)
        }
        (_, ended) => Transition::to(ended),
    }
}

/// Whether a late word says that the vehicle runs something else than the record has it.
fn contradicts(word: LateWord, ended: &State) -> bool {
    let says_new =
        matches!(word, LateWord::Success(Operation::Download | Operation::Install | Operation::Commit));
    let says_earlier =
        matches!(word, LateWord::Success(Operation::Rollback) | LateWord::Error(ErrorCode::UpdateFailed));
    let says_mixed = word == LateWord::Error(ErrorCode::ServiceRequired);
    match ended {
        State::Succeeded { .. } => says_earlier || says_mixed,
        State::Cancelled { plan: Some(_), .. } | State::RolledBack { .. } => says_new || says_mixed,
        State::Inconsistent { .. } => says_new || says_earlier,
        State::Unknown { .. } => says_new || says_earlier || says_mixed,
        State::Cancelled { plan: None, .. }
        | State::UpToDate
        | State::Ineligible { .. }
        | State::Waiting { .. }
        | State::CollectingVci { .. }
        | State::CheckingReadiness { .. }
        | State::Deferred { .. }
        | State::Downloading(_)
        | State::Installing(_)
        | State::Committing(_)
        | State::Verifying { .. }
        | State::RollingBack { .. } => false,
    }
}

fn verified_again(ended: State, context: &Context<'_>) -> Transition {
    match ended {
        State::RolledBack { plan, cause }
        | State::Inconsistent { plan, cause, .. }
        | State::Unknown { plan, cause } => begin_verifying(plan, cause, context),
        State::Succeeded { plan, .. } | State::Cancelled { plan: Some(plan), .. } => {
            begin_verifying(plan, VerifyCause::FoundLater, context)
        }
        other @ (State::Cancelled { plan: None, .. }
        | State::UpToDate
        | State::Ineligible { .. }
        | State::Waiting { .. }
        | State::CollectingVci { .. }
        | State::CheckingReadiness { .. }
        | State::Deferred { .. }
        | State::Downloading(_)
        | State::Installing(_)
        | State::Committing(_)
        | State::Verifying { .. }
        | State::RollingBack { .. }) => Transition::to(other),
    }
}
