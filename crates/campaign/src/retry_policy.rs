//! Which failed attempts of a vehicle update are followed by another one without an operator, and after what pause.
//! A vehicle is tried again only where its inventory shows the earlier versions on all ECUs. Never tried again by itself is
//! one whose driver said no, one that cannot get the release, one that an operator wanted to cancel or rolled back, and one
//! whose ECUs ran a mix.

use farrier_protocol::{ErrorCode, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rollout::{InvalidRollout, Rollout};
use crate::vehicle_update::{Cancel, Execution, Hold, State, VerifyCause};

/// Rules of one campaign at most.
pub const RETRY_RULES_AT_MOST: usize = 16;
/// Attempts of one vehicle at most, the first one counted.
pub const ATTEMPTS_AT_MOST: u32 = 10;
/// A first pause at most: a week, in seconds.
const FIRST_PAUSE_AT_MOST_S: u64 = 604_800;
/// Any pause at most: 30 days, in seconds.
const PAUSE_AT_MOST_S: u64 = 2_592_000;
/// A pause is so many times the one before at most.
const FACTOR_AT_MOST: u32 = 10;

/// How often vehicles are tried whose last attempt failed in one way, and how long they pause before the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRule {
    /// How the attempt failed.
    pub code: RetryCode,
    /// Attempts of a vehicle in all, the first one counted; 1 = it is not tried again.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u32,
    /// Seconds from the first failure to the next attempt.
    #[serde(default = "first_pause_s")]
    #[schemars(range(min = 1, max = 604_800))]
    pub pause_s: u64,
    /// Each further pause is so many times the one before.
    #[serde(default = "factor")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: u32,
    /// No pause is longer, in seconds.
    #[serde(default = "longest_pause_s")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub longest_pause_s: u64,
}

fn first_pause_s() -> u64 {
    3_600
}

fn factor() -> u32 {
    2
}

fn longest_pause_s() -> u64 {
    86_400
}

/// How an attempt failed, as far as another one can follow by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RetryCode {
    /// In any way that has no rule of its own, but SERVICE_REQUIRED: there people must look first.
    #[serde(rename = "*")]
    Any,
    /// The vehicle reported that an ECU failed and that all are restored.
    UpdateFailed,
    /// The vehicle did not report success by the deadline.
    DeadlinePassed,
    /// The vehicle reported success and runs the earlier versions.
    CommitNotFound,
    /// The vehicle reported that it could not bring its ECUs to one state, and yet runs the earlier versions.
    ServiceRequired,
    /// In the middle of the update the vehicle called its command expired.
    Expired,
    /// In the middle of the update the vehicle did not know its command.
    Unsupported,
    /// In the middle of the update the vehicle was busy.
    Busy,
    /// In the middle of the update the base of a delta was another.
    DeltaBaseMismatch,
    /// In the middle of the update the vehicle could not collect its inventory.
    VciIncomplete,
    /// The vehicle refused a cancellation that nobody asked for.
    CancelRefused,
    /// The vehicle had nothing to roll back to.
    RollbackUnavailable,
}

impl RetryCode {
    /// How an attempt failed that ended for this cause; nothing where it is no failure of the attempt, or the end of what
    /// somebody wanted.
    pub fn of(cause: &VerifyCause) -> Option<Self> {
        match cause {
            VerifyCause::CommitReported => Some(Self::CommitNotFound),
            VerifyCause::DeadlinePassed => Some(Self::DeadlinePassed),
            VerifyCause::UpdateFailed { .. } => Some(Self::UpdateFailed),
            VerifyCause::ServiceRequired { .. } => Some(Self::ServiceRequired),
            VerifyCause::ErrorReported { code } => match code {
                ErrorCode::UpdateFailed => Some(Self::UpdateFailed),
                ErrorCode::ServiceRequired => Some(Self::ServiceRequired),
                ErrorCode::Expired => Some(Self::Expired),
                ErrorCode::Unsupported => Some(Self::Unsupported),
                ErrorCode::Busy => Some(Self::Busy),
                ErrorCode::DeltaBaseMismatch => Some(Self::DeltaBaseMismatch),
                ErrorCode::VciIncomplete => Some(Self::VciIncomplete),
                ErrorCode::CancelRefused => Some(Self::CancelRefused),
                ErrorCode::RollbackUnavailable => Some(Self::RollbackUnavailable),
                ErrorCode::Cancelled | ErrorCode::ConsentDenied => None,
            },
            VerifyCause::ConsentDenied
            | VerifyCause::RollbackReported
            | VerifyCause::RollbackDeadlinePassed
            | VerifyCause::RollbackRefused { .. }
            | VerifyCause::FoundLater => None,
        }
    }
}

impl RetryRule {
    /// Seconds after so many failed attempts.
    fn pause_after(&self, failed: u32) -> u64 {
        let times = u64::from(self.factor).saturating_pow(failed.saturating_sub(1));
        self.pause_s.saturating_mul(times).min(self.longest_pause_s)
    }
}

/// What became of the attempts of a vehicle update so far, as far as another one depends on it. A retry by an operator
/// begins it anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempts {
    /// Those that failed.
    pub failed: u32,
    /// There is no further one without an operator: one wanted to cancel, or ECUs ran a mix.
    pub barred: bool,
}

impl Attempts {
    /// What they are after a step of the update; `by_operator`: whether it was a retry that an operator asked for.
    #[must_use]
    pub fn after(self, from: &State, to: &State, by_operator: bool) -> Self {
        if by_operator || matches!(to, State::Succeeded { .. } | State::UpToDate) {
            return Self::default();
        }
        let was_given_up = matches!(from, State::Waiting { hold: Hold::BeforeNextAttempt(_) });
        let barred = self.barred
            || is_cancel_asked(to)
            || matches!(to, State::Inconsistent { .. })
            || (was_given_up && matches!(to, State::RolledBack { .. }));
        let failed = match (has_failed(from), has_failed(to)) {
            (false, true) => self.failed.saturating_add(1),
            // How the attempt ended is open again.
            (true, false) if matches!(to, State::Verifying { .. }) => self.failed.saturating_sub(1),
            (true | false, false) | (true, true) => self.failed,
        };
        Self { failed, barred }
    }

    /// Whether the vehicle counts as failed for its campaign although its state does not say so: from a failed attempt until
    /// a later one ends, so that a stop rule sees failures when they happen.
    pub fn count_as_failed(&self, state: &State) -> bool {
        let says_so = matches!(state, State::Verifying { cause: VerifyCause::DeadlinePassed, .. });
        self.failed > 0 && !state.is_final() && !says_so
    }
}

fn is_cancel_asked(state: &State) -> bool {
    match state {
        State::Downloading(Execution { cancel, .. })
        | State::Installing(Execution { cancel, .. })
        | State::Committing(Execution { cancel, .. }) => *cancel != Cancel::NotAsked,
        State::Waiting { .. }
        | State::CollectingVci { .. }
        | State::CheckingReadiness { .. }
        | State::Deferred { .. }
        | State::Verifying { .. }
        | State::RollingBack { .. }
        | State::Cancelled { .. }
        | State::UpToDate
        | State::Ineligible { .. }
        | State::Succeeded { .. }
        | State::RolledBack { .. }
        | State::Inconsistent { .. }
        | State::Unknown { .. } => false,
    }
}

/// Whether an attempt has failed here, with nothing after it.
fn has_failed(state: &State) -> bool {
    match state {
        State::RolledBack { cause, .. } => RetryCode::of(cause).is_some(),
        State::Inconsistent { .. } | State::Waiting { hold: Hold::BeforeNextAttempt(_) } => true,
        State::Waiting { .. }
        | State::CollectingVci { .. }
        | State::CheckingReadiness { .. }
        | State::Deferred { .. }
        | State::Downloading(_)
        | State::Installing(_)
        | State::Committing(_)
        | State::Verifying { .. }
        | State::RollingBack { .. }
        | State::Cancelled { .. }
        | State::UpToDate
        | State::Ineligible { .. }
        | State::Succeeded { .. }
        | State::Unknown { .. } => false,
    }
}

/// An attempt that follows a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextAttempt {
    /// Which one, from 2.
    pub attempt: u32,
    /// Of so many at most.
    pub of: u32,
    /// When it begins.
    pub at: UnixMillis,
}

impl Rollout {
    /// The attempt that follows by itself when an update has come from one state to another, if one does; `attempts` are
    /// what they are in the other one.
    pub fn next_attempt(
        &self,
        from: &State,
        to: &State,
        attempts: Attempts,
        now: UnixMillis,
    ) -> Option<NextAttempt> {
        let State::RolledBack { cause, .. } = to else { return None };
        if matches!(from, State::RolledBack { .. }) {
            return None;
        }
        let code = RetryCode::of(cause)?;
        let rule_for = |code| self.retries.iter().find(|rule| rule.code == code);
        let any = || (code != RetryCode::ServiceRequired).then(|| rule_for(RetryCode::Any)).flatten();
        let rule = rule_for(code).or_else(any)?;
        if attempts.barred || attempts.failed == 0 || attempts.failed >= rule.attempts {
            return None;
        }
        let at = now.plus_seconds(rule.pause_after(attempts.failed));
        Some(NextAttempt { attempt: attempts.failed.saturating_add(1), of: rule.attempts, at })
    }

    /// Whether the rules can be gone by.
    pub(crate) fn check_retries(&self) -> Result<(), InvalidRollout> {
        let refused = |pointer: String, expected, found: String| {
            Err(InvalidRollout { pointer: format!("/retries{pointer}"), expected, found })
        };
        if self.retries.len() > RETRY_RULES_AT_MOST {
            return refused(String::new(), "at most 16 rules", self.retries.len().to_string());
        }
        for (index, rule) in self.retries.iter().enumerate() {
            let within = |key: &str, value: u64, most: u64, expected| match (1..=most).contains(&value) {
                true => Ok(()),
                false => refused(format!("/{index}/{key}"), expected, value.to_string()),
            };
            within("attempts", rule.attempts.into(), ATTEMPTS_AT_MOST.into(), "1 to 10 attempts")?;
            within("pause_s", rule.pause_s, FIRST_PAUSE_AT_MOST_S, "1 to 604800 seconds")?;
            within("factor", rule.factor.into(), FACTOR_AT_MOST.into(), "1 to 10")?;
            within("longest_pause_s", rule.longest_pause_s, PAUSE_AT_MOST_S, "1 to 2592000 seconds")?;
            if self.retries.iter().take(index).any(|earlier| earlier.code == rule.code) {
                let found = "a second one".to_owned();
                return refused(format!("/{index}/code"), "one rule for each code", found);
            }
        }
        Ok(())
    }
}
