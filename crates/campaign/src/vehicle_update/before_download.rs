//! From selection to a vehicle that says it is ready: nothing is changed in the vehicle here.

use super::pursuit::{Due, busy_pause_s};
use super::*;

/// The data of `State::CheckingReadiness`.
pub(super) struct ReadinessQuestion {
    pub(super) plan: Plan,
    pub(super) asked_until: UnixMillis,
    pub(super) unanswered: u32,
    pub(super) replans: u32,
}

impl From<ReadinessQuestion> for State {
    fn from(question: ReadinessQuestion) -> Self {
        let ReadinessQuestion { plan, asked_until, unanswered, replans } = question;
        Self::CheckingReadiness { plan, asked_until, unanswered, replans }
    }
}

fn waits_for(hold: Hold) -> Transition {
    Transition::to(State::Waiting { hold })
}

fn cancelled(reason: Text, plan: Option<Plan>) -> Transition {
    Transition::to(State::Cancelled { reason, plan })
}

/// Why a question that cannot be asked any more is given up for now.
fn unheard(context: &Context<'_>) -> Hold {
    if context.vehicle_there {
        Hold::VehicleSilent { ask_at: after_silence(context) }
    } else {
        Hold::VehicleAway
    }
}

/// When a connected vehicle that answered nothing, or nothing of use, is tried again without a WakeUp.
fn after_silence(context: &Context<'_>) -> UnixMillis {
    context.now.plus_seconds(context.settings.silence_pause_s)
}

pub(super) fn waiting(hold: Hold, event: Event<'_>, context: &Context<'_>) -> Transition {
    if let Hold::BeforeNextAttempt(pause) = hold {
        return retry_pause::pausing(pause, event, context);
    }
    let is_early = hold.ask_at().is_some_and(|ask_at| context.now < ask_at);
    match event {
        Event::LookedAt | Event::TimePassed if is_early => waits_for(hold),
        Event::TimePassed if hold.due_at().is_none_or(|due| context.now < due) => waits_for(hold),
        Event::LookedAt | Event::WokenUp | Event::TimePassed => {
            match (&context.block, context.set_aside, context.vehicle_there) {
                (Some(block), _, _) => waits_for(Hold::Blocked(block.clone())),
                (None, Some(failures), _) => ineligible(IneligibleReason::SetAside { failures }),
                (None, None, true) => ask_for_vci(VciPursuit::awaiting_wake_up(), 0, context),
                (None, None, false) => waits_for(Hold::VehicleAway),
            }
        }
        Event::CancelAsked { reason } => cancelled(reason, None),
        Event::ToldLate(_)
        | Event::VciReceived(_)
        | Event::OtherVciSeen(_)
        | Event::Ready
        | Event::NotReady { .. }
        | Event::StepReported(_)
        | Event::ErrorReported { .. }
        | Event::RollbackAsked
        | Event::RetryAsked => waits_for(hold),
    }
}

/// Asks for the VCI, unless the server itself has put something in the way.
fn ask_for_vci(pursuit: VciPursuit, replans: u32, context: &Context<'_>) -> Transition {
    if let Some(block) = &context.block {
        return waits_for(Hold::Blocked(block.clone()));
    }
    let (pursuit, command) = pursuit.ask(VciReason::CampaignEvaluation, context);
    Transition::sending(State::CollectingVci { pursuit, replans }, command)
}

/// Plans again after a command that the vehicle called expired, but not for ever.
pub(super) fn plan_again(replans: u32, context: &Context<'_>) -> Transition {
    if replans < context.settings.replans {
        ask_for_vci(VciPursuit::awaiting_wake_up(), replans.saturating_add(1), context)
    } else {
        waits_for(Hold::VehicleClock { ask_at: after_silence(context) })
    }
}

pub(super) fn collecting_vci(
    mut pursuit: VciPursuit,
    replans: u32,
    event: Event<'_>,
    context: &Context<'_>,
) -> Transition {
    match event {
        Event::VciReceived(vci) => match evaluate(vci, context.release, context.deltas) {
            Evaluation::Eligible(plan) => ask_readiness(plan, 0, replans, context),
            Evaluation::UpToDate => Transition::to(State::UpToDate),
            Evaluation::Ineligible(reasons) => Transition::to(State::Ineligible { reasons }),
        },
        Event::ErrorReported { command: MessageType::RequestVci, error } => {
            vci_refused(pursuit, replans, error, context)
        }
        Event::TimePassed => match pursuit.due(context) {
            Due::Nothing => Transition::to(State::CollectingVci { pursuit, replans }),
            Due::Ask => ask_for_vci(pursuit, replans, context),
            Due::GiveUp => waits_for(unheard(context)),
        },
        Event::CancelAsked { reason } => cancelled(reason, None),
        Event::LookedAt
        | Event::WokenUp
        | Event::OtherVciSeen(_)
        | Event::Ready
        | Event::NotReady { .. }
        | Event::StepReported(_)
        | Event::ErrorReported { .. }
        | Event::ToldLate(_)
        | Event::RollbackAsked
        | Event::RetryAsked => Transition::to(State::CollectingVci { pursuit, replans }),
    }
}

fn vci_refused(
    pursuit: VciPursuit,
    replans: u32,
    error: &ErrorResponse,
    context: &Context<'_>,
) -> Transition {
    match error.code {
        ErrorCode::VciIncomplete => {
            let failed_ecus = error.failed_ecus.clone().unwrap_or_default();
            match pursuit.pause_incomplete(failed_ecus.clone(), context) {
                Some(pursuit) => Transition::to(State::CollectingVci { pursuit, replans }),
                None => ineligible(IneligibleReason::InventoryIncomplete { failed_ecus }),
            }
        }
        ErrorCode::Busy => {
            let pursuit = pursuit.pause_busy(error.retry_after_s, context);
            Transition::to(State::CollectingVci { pursuit, replans })
        }
        ErrorCode::Expired => plan_again(replans, context),
        ErrorCode::Unsupported => unsupported(MessageType::RequestVci),
        // These do not answer this question: it is asked again when its time has passed.
        ErrorCode::DeltaBaseMismatch
        | ErrorCode::ConsentDenied
        | ErrorCode::UpdateFailed
        | ErrorCode::ServiceRequired
        | ErrorCode::Cancelled
        | ErrorCode::CancelRefused
        | ErrorCode::RollbackUnavailable => Transition::to(State::CollectingVci { pursuit, replans }),
    }
}

fn ineligible(reason: IneligibleReason) -> Transition {
    Transition::to(State::Ineligible { reasons: vec![reason] })
}

pub(super) fn unsupported(command: MessageType) -> Transition {
    ineligible(IneligibleReason::CommandUnsupported { command })
}

/// Asks whether the vehicle is ready for a plan, unless the server itself has put something in the way.
fn ask_readiness(plan: Plan, unanswered: u32, replans: u32, context: &Context<'_>) -> Transition {
    if let Some(block) = &context.block {
        return waits_for(Hold::Blocked(block.clone()));
    }
    let asked_until = context.now.plus_seconds(context.settings.readiness_deadline_s);
    Transition::sending(
        State::CheckingReadiness { plan, asked_until, unanswered, replans },
        Command::RequestReadiness { expires_at: asked_until },
    )
}

/// Plans full images where the vehicle does not have the base of a delta.
pub(super) fn without_deltas(
    mut plan: Plan,
    replans: u32,
    error: &ErrorResponse,
    context: &Context<'_>,
) -> Transition {
    if plan.replace_deltas(error.pkg_ids.as_deref()) {
        ask_readiness(plan, 0, replans, context)
    } else {
        ineligible(IneligibleReason::PlanRejected)
    }
}

pub(super) fn put_off(
    plan: Plan,
    why: DeferredBy,
    pause_s: u64,
    replans: u32,
    context: &Context<'_>,
) -> Transition {
    let retry_at = context.now.plus_seconds(pause_s);
    Transition::to(State::Deferred { plan, why, retry_at, replans })
}

pub(super) fn busy(plan: Plan, replans: u32, error: &ErrorResponse, context: &Context<'_>) -> Transition {
    put_off(plan, DeferredBy::Busy, busy_pause_s(error.retry_after_s, context), replans, context)
}

pub(super) fn checking_readiness(
    question: ReadinessQuestion,
    event: Event<'_>,
    context: &Context<'_>,
) -> Transition {
    match event {
        Event::Ready => match &context.block {
            Some(block) => waits_for(Hold::Blocked(block.clone())),
            None => start_download(question.plan, question.replans, context),
        },
        Event::NotReady { reasons, retry_after_s } => {
            let why = DeferredBy::NotReady { reasons: reasons.to_vec() };
            put_off(question.plan, why, retry_after_s, question.replans, context)
        }
        Event::ErrorReported { command: MessageType::RequestDownloadReadiness, error } => {
            readiness_refused(question, error, context)
        }
        Event::TimePassed if context.now >= question.asked_until => {
            let unanswered = question.unanswered.saturating_add(1);
            if context.vehicle_there && unanswered < context.settings.question_tries {
                ask_readiness(question.plan, unanswered, question.replans, context)
            } else {
                waits_for(unheard(context))
            }
        }
        Event::CancelAsked { reason } => cancelled(reason, Some(question.plan)),
        Event::LookedAt
        | Event::WokenUp
        | Event::VciReceived(_)
        | Event::OtherVciSeen(_)
        | Event::StepReported(_)
        | Event::ErrorReported { .. }
        | Event::ToldLate(_)
        | Event::TimePassed
        | Event::RollbackAsked
        | Event::RetryAsked => Transition::to(question.into()),
    }
}

fn start_download(plan: Plan, replans: u32, context: &Context<'_>) -> Transition {
    let deadline = context.now.plus_seconds(context.settings.update_deadline_s);
    Transition::sending(
        State::Downloading(Execution { plan, deadline, cancel: Cancel::NotAsked, replans }),
        Command::StartDownload { expires_at: deadline },
    )
}

fn readiness_refused(
    question: ReadinessQuestion,
    error: &ErrorResponse,
    context: &Context<'_>,
) -> Transition {
    match error.code {
        ErrorCode::Busy => busy(question.plan, question.replans, error, context),
        ErrorCode::DeltaBaseMismatch => without_deltas(question.plan, question.replans, error, context),
        ErrorCode::Expired => plan_again(question.replans, context),
        ErrorCode::Unsupported => unsupported(MessageType::RequestDownloadReadiness),
        // These do not answer this question: it is asked again when its time has passed.
        ErrorCode::VciIncomplete
        | ErrorCode::ConsentDenied
        | ErrorCode::UpdateFailed
        | ErrorCode::ServiceRequired
        | ErrorCode::Cancelled
        | ErrorCode::CancelRefused
        | ErrorCode::RollbackUnavailable => Transition::to(question.into()),
    }
}

pub(super) fn deferred(
    plan: Plan,
    why: DeferredBy,
    retry_at: UnixMillis,
    replans: u32,
    event: Event<'_>,
    context: &Context<'_>,
) -> Transition {
    match event {
        Event::TimePassed if context.now >= retry_at => {
            if context.vehicle_there {
                ask_readiness(plan, 0, replans, context)
            } else {
                waits_for(Hold::VehicleAway)
            }
        }
        Event::OtherVciSeen(vci) if !plan.starts_from(vci) => {
            match evaluate(vci, context.release, context.deltas) {
                Evaluation::Eligible(plan) => {
                    Transition::to(State::Deferred { plan, why, retry_at, replans })
                }
                Evaluation::UpToDate => Transition::to(State::UpToDate),
                Evaluation::Ineligible(reasons) => Transition::to(State::Ineligible { reasons }),
            }
        }
        Event::CancelAsked { reason } => cancelled(reason, Some(plan)),
        Event::LookedAt
        | Event::WokenUp
        | Event::VciReceived(_)
        | Event::OtherVciSeen(_)
        | Event::ToldLate(_)
        | Event::Ready
        | Event::NotReady { .. }
        | Event::StepReported(_)
        | Event::ErrorReported { .. }
        | Event::TimePassed
        | Event::RollbackAsked
        | Event::RetryAsked => Transition::to(State::Deferred { plan, why, retry_at, replans }),
    }
}
