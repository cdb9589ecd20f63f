//! The pause between a failed attempt and the next one: the vehicle runs the earlier versions, and nothing is under way.

use super::*;
use crate::retry_policy::NextAttempt;

/// What is known while the pause lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPause {
    /// What should have been installed.
    pub plan: Plan,
    /// What led to the end of the attempt that failed.
    pub cause: VerifyCause,
    /// What follows.
    pub next: NextAttempt,
}

impl RetryPause {
    /// How the update has ended where no attempt follows.
    fn into_end(self) -> State {
        State::RolledBack { plan: self.plan, cause: self.cause }
    }
}

impl State {
    /// The pause before an attempt that follows the one that ended here.
    #[must_use]
    pub fn before_next_attempt(self, next: NextAttempt) -> Self {
        match self {
            Self::RolledBack { plan, cause } => {
                Self::Waiting { hold: Hold::BeforeNextAttempt(RetryPause { plan, cause, next }) }
            }
            other @ (Self::Waiting { .. }
            | Self::CollectingVci { .. }
            | Self::CheckingReadiness { .. }
            | Self::Deferred { .. }
            | Self::Downloading(_)
            | Self::Installing(_)
            | Self::Committing(_)
            | Self::Verifying { .. }
            | Self::RollingBack { .. }
            | Self::Cancelled { .. }
            | Self::UpToDate
            | Self::Ineligible { .. }
            | Self::Succeeded { .. }
            | Self::Inconsistent { .. }
            | Self::Unknown { .. }) => other,
        }
    }
}

/// Neither a WakeUp nor a look makes the pause shorter. What the vehicle turns out to run counts as it does after an end.
pub(super) fn pausing(pause: RetryPause, event: Event<'_>, context: &Context<'_>) -> Transition {
    let is_over = context.now >= pause.next.at;
    match event {
        Event::LookedAt | Event::WokenUp | Event::TimePassed if is_over => {
            before_download::waiting(Hold::VehicleAway, Event::LookedAt, context)
        }
        Event::CancelAsked { .. } => Transition::to(pause.into_end()),
        Event::RetryAsked => Transition::to(State::selected()),
        Event::OtherVciSeen(_) | Event::ToldLate(_) => {
            let end = pause.clone().into_end();
            let after = verification::ended(end.clone(), event, context);
            if after.state == end { stays(pause) } else { after }
        }
        Event::LookedAt
        | Event::WokenUp
        | Event::TimePassed
        | Event::VciReceived(_)
        | Event::Ready
        | Event::NotReady { .. }
        | Event::StepReported(_)
        | Event::ErrorReported { .. }
        | Event::RollbackAsked => stays(pause),
    }
}

fn stays(pause: RetryPause) -> Transition {
    Transition::to(State::Waiting { hold: Hold::BeforeNextAttempt(pause) })
}
