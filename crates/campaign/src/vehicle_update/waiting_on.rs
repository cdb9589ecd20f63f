//! Why nothing happens, as data and in one sentence for people (design rule: why nothing happens is data).

use farrier_protocol::{MessageType, Operation, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Block, Cancel, DeferredBy, Execution, Hold, PauseReason, PursuitStep, State, VciPursuit, VerifyCause,
};
use crate::ineligible_reason::IneligibleReason;
use crate::plan::{FoundVersion, listed};

/// What a vehicle update waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum WaitingOn {
    /// The next WakeUp: the vehicle is not connected.
    VehicleToConnect,
    /// The end of a pause, or the next WakeUp: the vehicle is connected, but does not answer.
    SilentVehicle {
        /// When it is asked again.
        until: UnixMillis,
    },
    /// The end of a pause, or the next WakeUp: the vehicle calls commands expired that are not.
    VehicleClock {
        /// When it is asked again.
        until: UnixMillis,
    },
    /// The end of another campaign's update of the same vehicle.
    OtherUpdate {
        /// That campaign.
        campaign: String,
    },
    /// An update of a campaign that goes first, and waits for the vehicle.
    GoesAfter {
        /// That campaign.
        campaign: String,
        /// Its priority.
        priority: u16,
        /// The priority of this update's campaign.
        own_priority: u16,
    },
    /// The end of the quarantine.
    Quarantine,
    /// An operator to resume the campaign.
    CampaignPaused,
    /// The server, which is about to end this update with its campaign.
    CampaignAborted,
    /// An operator to look at a campaign that has stopped by its rule, and to resume it.
    CampaignStopped,
    /// The opening of the vehicle's wave.
    WaveToOpen {
        /// The wave, from 1.
        wave: u32,
    },
    /// Another vehicle of the campaign to end.
    Place {
        /// How many may be under way at once.
        vehicles_at_once: u64,
    },
    /// The next minute.
    StartsPerMinute {
        /// How many updates may begin in one.
        starts_per_minute: u64,
        /// When it begins.
        until: UnixMillis,
    },
    /// The vehicle's maintenance window.
    Window {
        /// When it opens.
        opens_at: UnixMillis,
        /// When the vehicle's turn comes in it.
        until: UnixMillis,
    },
    /// The time from which on vehicles of the campaign may begin.
    ScheduleToBegin {
        /// That time.
        not_before: UnixMillis,
        /// When the vehicle's turn comes.
        until: UnixMillis,
    },
    /// The vehicle's turn among those that begin one after the other.
    Turn {
        /// When it comes.
        until: UnixMillis,
    },
    /// An operator to abort the campaign, or to cancel the update: the campaign's schedule lets no vehicle begin any more, or
    /// not in this vehicle's next window.
    ScheduleOver {
        /// From when on none may begin.
        not_after: UnixMillis,
    },
    /// The end of the pause between a failed attempt and the next one.
    NextAttempt {
        /// Which attempt, from 2.
        attempt: u32,
        /// Of so many at most.
        of: u32,
        /// When it begins.
        until: UnixMillis,
        /// What led to the end of the one before.
        because: VerifyCause,
    },
    /// An answer that the vehicle owes.
    Answer(Answer),
    /// The time at which the VCI is asked for again.
    VciPause {
        /// When.
        until: UnixMillis,
        /// Why not now.
        why: PauseReason,
    },
    /// The time at which the vehicle is asked again whether it is ready.
    ReadinessRetry {
        /// When.
        until: UnixMillis,
        /// Why not now.
        why: DeferredBy,
    },
    /// The vehicle to report a step.
    Step {
        /// The step.
        step: Operation,
        /// When the attempt ends.
        until: UnixMillis,
        /// Whether an operator asked to cancel, and no answer has come.
        cancel_asked: bool,
    },
    /// The vehicle to connect, so that it can say what it runs.
    VehicleToVerify {
        /// When the server gives up.
        until: UnixMillis,
    },
    /// The next WakeUp: the server has given up asking what the vehicle runs, and asks anew when it hears it.
    VehicleToTell {
        /// What led to asking.
        because: VerifyCause,
    },
}

/// An answer that a vehicle owes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The command.
    pub to: MessageType,
    /// When it expires.
    pub until: UnixMillis,
}

impl WaitingOn {
    /// What is waited for, in one sentence; times are told from `now`.
    pub fn sentence(&self, now: UnixMillis) -> String {
        match self {
            Self::VehicleToConnect => {
                "The vehicle is not connected; it goes on at its next WakeUp.".to_owned()
            }
            Self::SilentVehicle { until } => format!(
                "The vehicle is connected but did not answer; it is asked again at its next WakeUp, or {}.",
                told(*until, now)
            ),
            Self::VehicleClock { until } => format!(
                "The vehicle calls commands expired that are not, so its clock may be wrong; \
                 it is asked again at its next WakeUp, or {}.",
                told(*until, now)
            ),
            Self::OtherUpdate { campaign } => {
                format!("The vehicle is in an update of campaign {campaign}, which must end first.")
            }
            Self::GoesAfter { campaign, priority, own_priority } if priority > own_priority => {
                format!(
                    "Campaign {campaign} goes first: it has priority {priority}, this one {own_priority}."
                )
            }
            Self::GoesAfter { campaign, priority, .. } => format!(
                "Campaign {campaign} goes first: it has the same priority, {priority}, and started earlier."
            ),
            Self::Quarantine => "The vehicle is quarantined for a boot loop; it goes on when it stays up, \
                 or when an operator releases it."
                .to_owned(),
            Self::CampaignPaused => {
                "The campaign is paused; the update goes on when an operator resumes it.".to_owned()
            }
            Self::CampaignAborted => "The campaign was aborted; the update ends in a moment.".to_owned(),
            Self::CampaignStopped => {
                "The campaign has stopped by its rule; the update goes on when an operator has looked \
                 at it and resumes it."
                    .to_owned()
            }
            Self::WaveToOpen { wave } => {
                format!("The vehicle is in wave {wave}, which is not open yet.")
            }
            Self::Place { vehicles_at_once } => format!(
                "As many vehicles are being updated as the campaign lets at once ({vehicles_at_once}); it goes on when \
                 one of them ends."
            ),
            Self::StartsPerMinute { starts_per_minute, until } => format!(
                "As many updates have begun as the campaign lets in a minute ({starts_per_minute}); it goes on {}.",
                told(*until, now)
            ),
            Self::Window { opens_at, until } => format!(
                "The vehicle's maintenance window is closed and opens {}; the vehicle's turn in it comes {}.",
                told(*opens_at, now),
                told(*until, now)
            ),
            Self::ScheduleToBegin { until, .. } => format!(
                "The campaign's schedule has not begun; the vehicle's turn in it comes {}.",
                told(*until, now)
            ),
            Self::Turn { until } => format!(
                "The campaign's vehicles begin one after the other; this one's turn comes {}.",
                told(*until, now)
            ),
            Self::ScheduleOver { not_after } if *not_after <= now => {
                "The campaign's schedule is over, so that the update cannot begin any more; it ends when an operator \
                 cancels it or aborts the campaign."
                    .to_owned()
            }
            Self::ScheduleOver { not_after } => format!(
                "The campaign's schedule is over {}, before the vehicle's next window; the update ends when an operator \
                 cancels it or aborts the campaign.",
                told(*not_after, now)
            ),
            Self::NextAttempt { attempt, of, until, because } => format!(
                "Attempt {attempt} of {of} begins {}; the last one failed with {}: {}.",
                told(*until, now),
                because.code(),
                uncapitalised(&caused(because))
            ),
            Self::Answer(answer) => format!(
                "{} was sent; the answer is waited for until its deadline {}.",
                answer.to.name(),
                told(answer.until, now)
            ),
            Self::VciPause { until, why: PauseReason::Busy } => {
                format!("The gateway is busy; its inventory is asked for again {}.", told(*until, now))
            }
            Self::VciPause { until, why: PauseReason::Silent } => format!(
                "The vehicle is connected but did not answer; its inventory is asked for again {}.",
                told(*until, now)
            ),
            Self::VciPause { until, why: PauseReason::Incomplete { failed_ecus } } => format!(
                "The gateway could not collect the whole inventory{}; it is asked again {}.",
                parenthesised(&listed(failed_ecus)),
                told(*until, now)
            ),
            Self::ReadinessRetry { until, why: DeferredBy::Busy } => {
                format!("The gateway is busy; it is asked again {}.", told(*until, now))
            }
            Self::ReadinessRetry { until, why: DeferredBy::NotReady { reasons } } => {
                let reasons: Vec<_> = reasons.iter().map(|reason| reason.name()).collect();
                format!(
                    "The vehicle is not ready ({}); it is asked again {}.",
                    reasons.join(", "),
                    told(*until, now)
                )
            }
            Self::Step { step, until, cancel_asked } => {
                let cancel = if *cancel_asked { "; a cancellation is under way" } else { "" };
                format!(
                    "The vehicle has to report its {}; the attempt ends {}{cancel}.",
                    step,
                    told(*until, now)
                )
            }
            Self::VehicleToVerify { until } => format!(
                "What the vehicle runs must be verified; it has to connect, the server gives up {}.",
                told(*until, now)
            ),
            Self::VehicleToTell { because } => format!(
                "{}; the vehicle did not say in time what it runs, it is asked again at its next WakeUp.",
                caused(because)
            ),
        }
    }
}

impl State {
    /// What this state waits for; `None` where nothing more is to happen.
    pub fn waiting_on(&self) -> Option<WaitingOn> {
        match self {
            Self::Waiting { hold } => Some(match hold {
                Hold::VehicleAway => WaitingOn::VehicleToConnect,
                Hold::VehicleSilent { ask_at } => WaitingOn::SilentVehicle { until: *ask_at },
                Hold::VehicleClock { ask_at } => WaitingOn::VehicleClock { until: *ask_at },
                Hold::BeforeNextAttempt(pause) => WaitingOn::NextAttempt {
                    attempt: pause.next.attempt,
                    of: pause.next.of,
                    until: pause.next.at,
                    because: pause.cause.clone(),
                },
                Hold::Blocked(Block::OtherUpdate { campaign }) => {
                    WaitingOn::OtherUpdate { campaign: campaign.to_string() }
                }
                Hold::Blocked(Block::GoesAfter { campaign, priority, own_priority }) => {
                    WaitingOn::GoesAfter {
                        campaign: campaign.to_string(),
                        priority: *priority,
                        own_priority: *own_priority,
                    }
                }
                Hold::Blocked(Block::Quarantine) => WaitingOn::Quarantine,
                Hold::Blocked(Block::CampaignPaused) => WaitingOn::CampaignPaused,
                Hold::Blocked(Block::CampaignAborted) => WaitingOn::CampaignAborted,
                Hold::Blocked(Block::CampaignStopped) => WaitingOn::CampaignStopped,
                Hold::Blocked(Block::WaveNotOpen { wave }) => WaitingOn::WaveToOpen { wave: *wave },
                Hold::Blocked(Block::NoPlace { vehicles_at_once }) => {
                    WaitingOn::Place { vehicles_at_once: *vehicles_at_once }
                }
                Hold::Blocked(Block::NoStart { starts_per_minute, until }) => {
                    WaitingOn::StartsPerMinute { starts_per_minute: *starts_per_minute, until: *until }
                }
                Hold::Blocked(Block::WindowClosed { opens_at, until }) => {
                    WaitingOn::Window { opens_at: *opens_at, until: *until }
                }
                Hold::Blocked(Block::ScheduleToBegin { not_before, until }) => {
                    WaitingOn::ScheduleToBegin { not_before: *not_before, until: *until }
                }
                Hold::Blocked(Block::Spread { until }) => WaitingOn::Turn { until: *until },
                Hold::Blocked(Block::ScheduleOver { not_after }) => {
                    WaitingOn::ScheduleOver { not_after: *not_after }
                }
            }),
            Self::CollectingVci { pursuit, .. } => Some(pursued(pursuit, None)),
            Self::CheckingReadiness { asked_until, .. } => Some(WaitingOn::Answer(Answer {
                to: MessageType::RequestDownloadReadiness,
                until: *asked_until,
            })),
            Self::Deferred { why, retry_at, .. } => {
                Some(WaitingOn::ReadinessRetry { until: *retry_at, why: why.clone() })
            }
            Self::Downloading(execution) => Some(step(execution, Operation::Download)),
            Self::Installing(execution) => Some(step(execution, Operation::Install)),
            Self::Committing(execution) => Some(step(execution, Operation::Commit)),
            Self::Verifying { pursuit, deadline, .. } => Some(pursued(pursuit, Some(*deadline))),
            Self::RollingBack { deadline, .. } => {
                Some(WaitingOn::Step { step: Operation::Rollback, until: *deadline, cancel_asked: false })
            }
            Self::Unknown { cause, .. } => Some(WaitingOn::VehicleToTell { because: cause.clone() }),
            Self::Cancelled { .. }
            | Self::UpToDate
            | Self::Ineligible { .. }
            | Self::Succeeded { .. }
            | Self::RolledBack { .. }
            | Self::Inconsistent { .. } => None,
        }
    }

    /// Why the update is where it is, in one sentence; times are told from `now`.
    pub fn sentence(&self, now: UnixMillis) -> String {
        if let Some(waiting_on) = self.waiting_on() {
            return waiting_on.sentence(now);
        }
        match self {
            Self::Cancelled { reason, .. } => {
                format!("An operator cancelled the update before any ECU was switched: {reason}.")
            }
            Self::UpToDate => "Every ECU of the release's hardware runs the release already.".to_owned(),
            Self::Ineligible { reasons } => {
                let reasons: Vec<_> = reasons.iter().map(IneligibleReason::phrase).collect();
                format!("The vehicle cannot get the release: {}.", reasons.join("; "))
            }
            Self::Succeeded { late: false, .. } => {
                "The vehicle reported success, and its inventory shows the new versions on all ECUs.".to_owned()
            }
            Self::Succeeded { late: true, .. } => {
                "The vehicle's inventory shows the new versions on all ECUs, though no success was reported in time."
                    .to_owned()
            }
            Self::RolledBack { cause, .. } => {
                format!("{}; its inventory shows the earlier versions on all ECUs.", caused(cause))
            }
            Self::Inconsistent { cause, found, .. } => {
                let found: Vec<_> = found.iter().map(FoundVersion::phrase).collect();
                format!(
                    "{}; its inventory shows neither all new nor all earlier versions ({}).",
                    caused(cause),
                    found.join(", ")
                )
            }
            // The states that wait have answered above.
            Self::Waiting { .. }
            | Self::CollectingVci { .. }
            | Self::CheckingReadiness { .. }
            | Self::Deferred { .. }
            | Self::Downloading(_)
            | Self::Installing(_)
            | Self::Committing(_)
            | Self::Verifying { .. }
            | Self::RollingBack { .. }
            | Self::Unknown { .. } => String::new(),
        }
    }
}

fn pursued(pursuit: &VciPursuit, verifying_until: Option<UnixMillis>) -> WaitingOn {
    match (&pursuit.step, verifying_until) {
        (PursuitStep::Asked { until }, _) => {
            WaitingOn::Answer(Answer { to: MessageType::RequestVci, until: *until })
        }
        (PursuitStep::Pausing { until, why }, _) => WaitingOn::VciPause { until: *until, why: why.clone() },
        (PursuitStep::AwaitingWakeUp, Some(until)) => WaitingOn::VehicleToVerify { until },
        (PursuitStep::AwaitingWakeUp, None) => WaitingOn::VehicleToConnect,
    }
}

fn step(execution: &Execution, step: Operation) -> WaitingOn {
    let cancel_asked = matches!(execution.cancel, Cancel::Asked { .. });
    WaitingOn::Step { step, until: execution.deadline, cancel_asked }
}

fn caused(cause: &VerifyCause) -> String {
    match cause {
        VerifyCause::CommitReported => "The vehicle reported success".to_owned(),
        VerifyCause::DeadlinePassed => "The vehicle did not report success by the deadline".to_owned(),
        VerifyCause::UpdateFailed { failed_ecus } => {
            format!("The vehicle reported that the update failed{}", parenthesised(&listed(failed_ecus)))
        }
        VerifyCause::ServiceRequired { failed_ecus } => {
            format!("The vehicle reported that it needs service{}", parenthesised(&listed(failed_ecus)))
        }
        VerifyCause::ConsentDenied => "The driver did not consent".to_owned(),
        VerifyCause::ErrorReported { code } => {
            format!("The vehicle ended the update with {}", code)
        }
        VerifyCause::RollbackReported => {
            "The vehicle reported the roll-back that an operator asked for".to_owned()
        }
        VerifyCause::RollbackDeadlinePassed => {
            "The vehicle did not report the roll-back by its deadline".to_owned()
        }
        VerifyCause::RollbackRefused { code } => {
            format!("The vehicle answered the roll-back with {}", code)
        }
        VerifyCause::FoundLater => {
            "After the update had ended, the vehicle turned out to run other software".to_owned()
        }
    }
}

/// For the middle of a sentence.
fn uncapitalised(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

fn parenthesised(names: &str) -> String {
    if names.is_empty() { String::new() } else { format!(" ({names})") }
}

/// `in 4 min 10 s`, or `now` for a time that has come.
fn told(until: UnixMillis, now: UnixMillis) -> String {
    let ms = until.0.saturating_sub(now.0);
    if ms <= 0 {
        return "now".to_owned();
    }
    let seconds = ms.saturating_add(999) / 1000;
    let (hours, minutes, rest) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("in {rest} s"),
        (0, _) => format!("in {minutes} min {rest} s"),
        (_, _) => format!("in {hours} h {minutes} min"),
    }
}
