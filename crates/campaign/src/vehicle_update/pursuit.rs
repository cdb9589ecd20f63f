//! Getting one VCI from a vehicle: asked, asked again after silence, put off by VCI_INCOMPLETE and BUSY.

use farrier_protocol::{EcuId, UnixMillis, VciReason};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Command, Context};

/// How far the question for a VCI has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VciPursuit {
    /// What is next.
    pub step: PursuitStep,
    /// How often in a row the question went unanswered.
    pub unanswered: u32,
    /// How often the answer was VCI_INCOMPLETE.
    pub incomplete: usize,
}

/// What is next in getting a VCI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum PursuitStep {
    /// RequestVCI is sent.
    Asked {
        /// When it expires.
        until: UnixMillis,
    },
    /// RequestVCI is sent again after a pause.
    Pausing {
        /// When.
        until: UnixMillis,
        /// Why there is a pause.
        why: PauseReason,
    },
    /// RequestVCI is sent again at the next WakeUp.
    AwaitingWakeUp,
}

/// Why the question for a VCI pauses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum PauseReason {
    /// Not every ECU answered the gateway.
    Incomplete {
        /// Those that did not.
        failed_ecus: Vec<EcuId>,
    },
    /// The gateway is busy.
    Busy,
    /// The gateway is connected, but did not answer.
    Silent,
}

/// What is due in a pursuit at a time.
pub(super) enum Due {
    /// Not yet anything.
    Nothing,
    /// The question is to be sent (again).
    Ask,
    /// The vehicle was asked often enough, or is away.
    GiveUp,
}

impl VciPursuit {
    /// A question that nobody has asked yet, for a vehicle that is away.
    pub(super) fn awaiting_wake_up() -> Self {
        Self { step: PursuitStep::AwaitingWakeUp, unanswered: 0, incomplete: 0 }
    }

    /// Asks now.
    pub(super) fn ask(mut self, reason: VciReason, context: &Context<'_>) -> (Self, Command) {
        let expires_at = context.now.plus_seconds(context.settings.vci_deadline_s);
        self.step = PursuitStep::Asked { until: expires_at };
        (self, Command::RequestVci { reason, expires_at })
    }

    /// Whether the vehicle does not answer, so that its WakeUp is news.
    pub(super) fn is_unheard(&self) -> bool {
        match &self.step {
            PursuitStep::AwaitingWakeUp | PursuitStep::Pausing { why: PauseReason::Silent, .. } => true,
            PursuitStep::Asked { .. }
            | PursuitStep::Pausing { why: PauseReason::Busy | PauseReason::Incomplete { .. }, .. } => false,
        }
    }

    /// When something is due.
    pub(super) fn due_at(&self) -> Option<UnixMillis> {
        match &self.step {
            PursuitStep::Asked { until } | PursuitStep::Pausing { until, .. } => Some(*until),
            PursuitStep::AwaitingWakeUp => None,
        }
    }

    /// What is due now; counts a question that went unanswered.
    pub(super) fn due(&mut self, context: &Context<'_>) -> Due {
        if self.due_at().is_none_or(|due| context.now < due) {
            return Due::Nothing;
        }
        if matches!(self.step, PursuitStep::Asked { .. }) {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        if context.vehicle_there && self.unanswered < context.settings.question_tries {
            Due::Ask
        } else {
            Due::GiveUp
        }
    }

    /// Pauses after VCI_INCOMPLETE; `None` where all tries are used up.
    pub(super) fn pause_incomplete(mut self, failed_ecus: Vec<EcuId>, context: &Context<'_>) -> Option<Self> {
        let pause_s = *context.settings.vci_incomplete_pauses_s.get(self.incomplete)?;
        self.incomplete = self.incomplete.saturating_add(1);
        self.unanswered = 0;
        let until = context.now.plus_seconds(pause_s);
        self.step = PursuitStep::Pausing { until, why: PauseReason::Incomplete { failed_ecus } };
        Some(self)
    }

    /// Pauses after silence: until the next WakeUp, or for a while where the vehicle is connected already.
    pub(super) fn pause_silent(mut self, context: &Context<'_>) -> Self {
        self.unanswered = 0;
        self.step = if context.vehicle_there {
            let until = context.now.plus_seconds(context.settings.busy_pause_s);
            PursuitStep::Pausing { until, why: PauseReason::Silent }
        } else {
            PursuitStep::AwaitingWakeUp
        };
        self
    }

    /// Pauses after BUSY.
    pub(super) fn pause_busy(mut self, retry_after_s: Option<u64>, context: &Context<'_>) -> Self {
        self.unanswered = 0;
        let until = context.now.plus_seconds(busy_pause_s(retry_after_s, context));
        self.step = PursuitStep::Pausing { until, why: PauseReason::Busy };
        self
    }
}

/// Seconds until a busy vehicle is asked again: its own wish, within 1 second and 2 hours.
pub(super) fn busy_pause_s(retry_after_s: Option<u64>, context: &Context<'_>) -> u64 {
    retry_after_s.unwrap_or(context.settings.busy_pause_s).clamp(1, 7_200)
}
