//! What the vehicle runs decides how an update ended; also what can still happen to an ended one.

use super::pursuit::Due;
use super::*;

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
    deadline: UnixMillis,
    event: Event<'_>,
    context: &Context<'_>,
) -> Transition {
    match event {
        Event::VciReceived(vci) => Transition::to(judged(plan, cause, vci)),
        Event::TimePassed if context.now >= deadline => Transition::to(State::Unknown { plan, cause }),
        Event::TimePassed => match pursuit.due(context) {
            Due::Nothing => Transition::to(State::Verifying { plan, cause, pursuit, deadline }),
            Due::Ask => ask(plan, cause, pursuit, deadline, context),
            Due::GiveUp => {
                let pursuit = VciPursuit { step: PursuitStep::AwaitingWakeUp, unanswered: 0, ..pursuit };
                Transition::to(State::Verifying { plan, cause, pursuit, deadline })
            }
        },
        Event::WokenUp if pursuit.step == PursuitStep::AwaitingWakeUp => {
            ask(plan, cause, pursuit, deadline, context)
        }
        Event::ErrorReported { command: MessageType::RequestVci, error } => {
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
        | Event::CancelAsked { .. }
        | Event::RollbackAsked => Transition::to(State::Verifying { plan, cause, pursuit, deadline }),
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
fn judged(plan: Plan, cause: VerifyCause, vci: &SendVci) -> State {
    match verdict(&plan, vci) {
        Verdict::AllNew => {
            let late = is_late(&cause);
            State::Succeeded { plan, late }
        }
        Verdict::AllEarlier => State::RolledBack { plan, cause },
        Verdict::Mixed(found) => State::Inconsistent { plan, cause, found },
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
        | VerifyCause::ErrorReported { .. } => true,
    }
}

pub(super) fn ended(ended: State, event: Event<'_>, context: &Context<'_>) -> Transition {
    match (ended, event) {
        (State::Unknown { plan, cause }, Event::WokenUp) => begin_verifying(plan, cause, context),
        (State::Unknown { plan, cause }, Event::OtherVciSeen(vci)) => {
            Transition::to(judged(plan, cause, vci))
        }
        (State::RolledBack { plan, .. } | State::Inconsistent { plan, .. }, Event::OtherVciSeen(vci))
            if verdict(&plan, vci) == Verdict::AllNew =>
        {
            Transition::to(State::Succeeded { plan, late: true })
        }
        (State::Succeeded { plan, .. }, Event::RollbackAsked) if context.block.is_none() => {
            let deadline = context.now.plus_seconds(context.settings.rollback_deadline_s);
            let command = Command::StartRollback { expires_at: deadline };
            Transition::sending(State::RollingBack { plan, deadline }, command)
        }
        (ended, _) => Transition::to(ended),
    }
}
