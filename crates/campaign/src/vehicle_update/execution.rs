//! From StartDownload to the vehicle's last word on it, and the same for StartRollback.

use super::before_download::{busy, plan_again, unsupported, without_deltas};
use super::verification::begin_verifying;
use super::*;

/// How far the vehicle has reported to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Downloading,
    Installing,
    Committing,
}

fn at(stage: Stage, execution: Execution) -> State {
    match stage {
        Stage::Downloading => State::Downloading(execution),
        Stage::Installing => State::Installing(execution),
        Stage::Committing => State::Committing(execution),
    }
}

pub(super) fn executing(
    stage: Stage,
    mut execution: Execution,
    event: Event<'_>,
    context: &Context<'_>,
) -> Transition {
    match event {
        Event::StepReported(operation) => step_reported(stage, execution, operation, context),
        Event::ErrorReported { command: MessageType::StartDownload, error } => {
            ended_by_error(stage, execution, error, context)
        }
        Event::ErrorReported { command: MessageType::CancelUpdate, error } => {
            cancel_answered(stage, execution, error, context)
        }
        Event::TimePassed if context.now >= execution.deadline => {
            begin_verifying(execution.plan, VerifyCause::DeadlinePassed, context)
        }
        Event::CancelAsked { reason } if can_cancel(stage, &execution) => {
            // It is worth sending as long as there is something to cancel.
            let expires_at = execution.deadline;
            execution.cancel = Cancel::Asked { reason: reason.clone() };
            Transition::sending(at(stage, execution), Command::CancelUpdate { reason, expires_at })
        }
        Event::LookedAt
        | Event::WokenUp
        | Event::VciReceived(_)
        | Event::OtherVciSeen(_)
        | Event::Ready
        | Event::NotReady { .. }
        | Event::ErrorReported { .. }
        | Event::ToldLate(_)
        | Event::TimePassed
        | Event::CancelAsked { .. }
        | Event::RollbackAsked
        | Event::RetryAsked => Transition::to(at(stage, execution)),
    }
}

/// After the boot flags are swapped the vehicle would refuse; one open CancelUpdate is enough.
fn can_cancel(stage: Stage, execution: &Execution) -> bool {
    stage != Stage::Committing && !matches!(execution.cancel, Cancel::Asked { .. })
}

/// A later step implies the earlier ones; an earlier one that comes late changes nothing.
fn step_reported(
    stage: Stage,
    execution: Execution,
    operation: Operation,
    context: &Context<'_>,
) -> Transition {
    match (operation, stage) {
        (Operation::Download, Stage::Downloading) => Transition::to(State::Installing(execution)),
        (Operation::Install, Stage::Downloading | Stage::Installing) => {
            Transition::to(State::Committing(execution))
        }
        (Operation::Commit, _) => begin_verifying(execution.plan, VerifyCause::CommitReported, context),
        (Operation::Download | Operation::Install, _) | (Operation::Rollback, _) => {
            Transition::to(at(stage, execution))
        }
    }
}

/// An error closes the StartDownload: either nothing was begun, or a VCI must tell what the vehicle runs.
fn ended_by_error(
    stage: Stage,
    execution: Execution,
    error: &ErrorResponse,
    context: &Context<'_>,
) -> Transition {
    let Execution { plan, replans, .. } = execution;
    let failed_ecus = error.failed_ecus.clone().unwrap_or_default();
    match (error.code, stage) {
        (ErrorCode::Expired, Stage::Downloading) => plan_again(replans, context),
        (ErrorCode::Unsupported, Stage::Downloading) => unsupported(MessageType::StartDownload),
        (ErrorCode::Busy, Stage::Downloading) => busy(plan, replans, error, context),
        (ErrorCode::DeltaBaseMismatch, Stage::Downloading) => without_deltas(plan, replans, error, context),
        (ErrorCode::ConsentDenied, _) => begin_verifying(plan, VerifyCause::ConsentDenied, context),
        (ErrorCode::UpdateFailed, _) => {
            begin_verifying(plan, VerifyCause::UpdateFailed { failed_ecus }, context)
        }
        (ErrorCode::ServiceRequired, _) => service_required(plan, failed_ecus, context),
        (
            code @ (ErrorCode::Expired
            | ErrorCode::Unsupported
            | ErrorCode::Busy
            | ErrorCode::DeltaBaseMismatch
            | ErrorCode::VciIncomplete
            | ErrorCode::Cancelled
            | ErrorCode::CancelRefused
            | ErrorCode::RollbackUnavailable),
            _,
        ) => begin_verifying(plan, VerifyCause::ErrorReported { code }, context),
    }
}

fn service_required(plan: Plan, failed_ecus: Vec<EcuId>, context: &Context<'_>) -> Transition {
    let cause = VerifyCause::ServiceRequired { failed_ecus: failed_ecus.clone() };
    let mut transition = begin_verifying(plan, cause, context);
    transition.commands.push(Command::RaiseAlarm(Alarm::ServiceRequired { failed_ecus }));
    transition
}

fn cancel_answered(
    stage: Stage,
    mut execution: Execution,
    error: &ErrorResponse,
    context: &Context<'_>,
) -> Transition {
    match (error.code, execution.cancel) {
        // It said before that it had swapped the boot flags: which of both is true, the VCI tells.
        (code @ ErrorCode::Cancelled, Cancel::Asked { .. }) if stage == Stage::Committing => {
            begin_verifying(execution.plan, VerifyCause::ErrorReported { code }, context)
        }
        (ErrorCode::Cancelled, Cancel::Asked { reason }) => {
            Transition::to(State::Cancelled { reason, plan: Some(execution.plan) })
        }
        (_, cancel @ (Cancel::NotAsked | Cancel::Refused)) => {
            execution.cancel = cancel;
            Transition::to(at(stage, execution))
        }
        (_, Cancel::Asked { .. }) => {
            execution.cancel = Cancel::Refused;
            Transition::to(at(stage, execution))
        }
    }
}

pub(super) fn rolling_back(
    plan: Plan,
    deadline: UnixMillis,
    event: Event<'_>,
    context: &Context<'_>,
) -> Transition {
    match event {
        Event::StepReported(Operation::Rollback) => {
            begin_verifying(plan, VerifyCause::RollbackReported, context)
        }
        Event::TimePassed if context.now >= deadline => {
            begin_verifying(plan, VerifyCause::RollbackDeadlinePassed, context)
        }
        Event::ErrorReported { command: MessageType::StartRollback, error } => {
            let failed_ecus = error.failed_ecus.clone().unwrap_or_default();
            if error.code == ErrorCode::ServiceRequired {
                service_required(plan, failed_ecus, context)
            } else {
                begin_verifying(plan, VerifyCause::RollbackRefused { code: error.code }, context)
            }
        }
        Event::LookedAt
        | Event::WokenUp
        | Event::VciReceived(_)
        | Event::OtherVciSeen(_)
        | Event::Ready
        | Event::NotReady { .. }
        | Event::StepReported(_)
        | Event::ErrorReported { .. }
        | Event::ToldLate(_)
        | Event::TimePassed
        | Event::CancelAsked { .. }
        | Event::RollbackAsked
        | Event::RetryAsked => Transition::to(State::RollingBack { plan, deadline }),
    }
}
