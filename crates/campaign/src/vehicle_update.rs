//! One vehicle in one campaign: the state machine of protocol.md §8.
//! Events and `now` come in; the next state and the commands to send come out. Who sends, stores and waits is the server.
//!
//! | state | event | next state | sends |
//! |---|---|---|---|
//! | waiting | looked at or woken up, vehicle there, nothing in the way | collecting_vci | RequestVCI |
//! | waiting | looked at or woken up, something in the way | waiting (for that) | |
//! | waiting | its turn has come, vehicle set aside for the release | ineligible | |
//! | waiting (silent, clock) | looked at / its pause over | same / as looked at | – / RequestVCI |
//! | waiting (window, schedule, spread) | its time has come | as looked at | RequestVCI |
//! | collecting_vci | VCI: outdated / at the release / not possible | checking_readiness / up_to_date / ineligible | RequestDownloadReadiness / – / – |
//! | collecting_vci | VCI_INCOMPLETE, BUSY | collecting_vci (pause); ineligible after the last try | RequestVCI when the pause is over |
//! | collecting_vci | EXPIRED | collecting_vci; waiting after the last try | RequestVCI |
//! | collecting_vci | deadline | collecting_vci; waiting if away or after the last try | RequestVCI |
//! | checking_readiness | ready | downloading | StartDownload |
//! | checking_readiness | not ready, BUSY | deferred | |
//! | checking_readiness | DELTA_BASE_MISMATCH | checking_readiness (full images); ineligible if there was no delta | RequestDownloadReadiness |
//! | checking_readiness | EXPIRED | collecting_vci; waiting after the last try | RequestVCI |
//! | checking_readiness | deadline | checking_readiness; waiting if away or after the last try | RequestDownloadReadiness |
//! | deferred | retry time | checking_readiness; waiting if away | RequestDownloadReadiness |
//! | deferred | a VCI of another question, other versions: outdated / at the release / not possible | deferred (new plan) / up_to_date / ineligible | |
//! | collecting_vci, checking_readiness, deferred | would send, something in the way | waiting (for that) | |
//! | collecting_vci, checking_readiness, downloading | UNSUPPORTED | ineligible | |
//! | downloading | download | installing | |
//! | downloading, installing | install | committing | |
//! | downloading, installing, committing | commit, deadline, other ErrorResponse | verifying | RequestVCI |
//! | downloading | BUSY / EXPIRED / DELTA_BASE_MISMATCH | deferred / collecting_vci / checking_readiness | – / RequestVCI / RequestDownloadReadiness |
//! | downloading, installing | cancel | same (cancel asked) | CancelUpdate |
//! | downloading, installing | CANCELLED / any other answer to it | cancelled / same (cancel refused) | |
//! | committing | CANCELLED / any other answer to it | verifying / same (cancel refused) | RequestVCI / – |
//! | verifying | VCI: all new / all earlier / a mix | succeeded / rolled_back / inconsistent | |
//! | verifying | its deadline, which every BUSY puts off | unknown | |
//! | verifying | question unanswered, pause over, vehicle back | verifying | RequestVCI |
//! | unknown | woken up | verifying | RequestVCI |
//! | unknown | a VCI of another question | succeeded / rolled_back / inconsistent | |
//! | cancelled, rolled_back, inconsistent | a later VCI: all new | succeeded (late) | |
//! | succeeded, inconsistent | a later VCI: all earlier | rolled_back | |
//! | cancelled, rolled_back / succeeded | a later VCI: a mix with new / with earlier versions | inconsistent | |
//! | any of these, unknown | a late word of the vehicle that says otherwise | verifying | RequestVCI |
//! | succeeded | roll-back asked | rolling_back | StartRollback |
//! | rolling_back | rollback, deadline, any ErrorResponse | verifying | RequestVCI |
//! | waiting, collecting_vci, checking_readiness, deferred | cancel | cancelled | |
//! | cancelled, ineligible, rolled_back | retry asked | waiting | |
//! | rolled_back | the campaign's rules have another attempt | waiting (until it begins) | |
//! | waiting (for its next attempt) | looked at, woken up / its pause over | same / as looked at | – / RequestVCI |
//! | waiting (for its next attempt) | cancel / retry asked | rolled_back / waiting | |
//! | waiting (for its next attempt) | a later VCI, a late word | as rolled_back | |
//!
//! Everything else changes nothing. A later VCI, a late word and a roll-back count only for the update whose
//! StartDownload was the vehicle's last. Inconsistent, SERVICE_REQUIRED and a commit that the VCI contradicts
//! raise an alarm. A delta whose update failed or fell silent is not offered to the vehicle again.

use farrier_protocol::{
    EcuId, ErrorCode, ErrorResponse, MessageType, NotReadyReason, Operation, SendVci, Sha256, Text,
    UnixMillis, VciReason,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::delta::Deltas;
use crate::ineligible_reason::IneligibleReason;
use crate::plan::{Evaluation, FoundVersion, Plan, Verdict, evaluate, running, verdict};
use crate::release::Release;
use crate::settings::Settings;

mod before_download;
mod execution;
mod pursuit;
mod retry_pause;
mod standing;
mod verification;
mod waiting_on;

pub use pursuit::{PauseReason, PursuitStep, VciPursuit};
pub use retry_pause::RetryPause;
pub use standing::Standing;
pub use verification::{Alarm, LateWord};
pub use waiting_on::{Answer, WaitingOn};

/// Where a vehicle update stands (protocol.md §8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "data")]
pub enum State {
    /// Selected; something must happen first.
    Waiting {
        /// What must happen.
        hold: Hold,
    },
    /// RequestVCI is sent, or will be after a pause.
    CollectingVci {
        /// How far the question has come.
        pursuit: VciPursuit,
        /// How often in a row this was planned again.
        replans: u32,
    },
    /// RequestDownloadReadiness is sent.
    CheckingReadiness {
        /// What would be downloaded.
        plan: Plan,
        /// When the question expires.
        asked_until: UnixMillis,
        /// How often it went unanswered.
        unanswered: u32,
        /// How often in a row this was planned again.
        replans: u32,
    },
    /// The vehicle is not ready and said when to ask again.
    Deferred {
        /// What would be downloaded.
        plan: Plan,
        /// Why not now.
        why: DeferredBy,
        /// When it is asked again.
        retry_at: UnixMillis,
        /// How often in a row this was planned again.
        replans: u32,
    },
    /// StartDownload is sent.
    Downloading(Execution),
    /// Every package is in the vehicle.
    Installing(Execution),
    /// Boot flags are swapped, the new software is on trial.
    Committing(Execution),
    /// A fresh VCI is asked for: only what the vehicle runs counts.
    Verifying {
        /// What should have been installed.
        plan: Plan,
        /// What led here.
        cause: VerifyCause,
        /// How far the question has come.
        pursuit: VciPursuit,
        /// When the server gives up asking.
        deadline: UnixMillis,
    },
    /// StartRollback is sent for an update that had succeeded.
    RollingBack {
        /// What is undone.
        plan: Plan,
        /// When the command expires.
        deadline: UnixMillis,
    },
    /// Final: cancelled before any boot flag was swapped.
    Cancelled {
        /// The operator's words.
        reason: Text,
        /// What was planned, where it came so far.
        plan: Option<Plan>,
    },
    /// Final: nothing to do.
    UpToDate,
    /// Final: the vehicle cannot get the release; nothing was changed.
    Ineligible {
        /// Why.
        reasons: Vec<IneligibleReason>,
    },
    /// Final: all ECUs run the new version.
    Succeeded {
        /// What was installed.
        plan: Plan,
        /// Whether the server learned it only after the deadline.
        late: bool,
    },
    /// Final: all ECUs run their earlier versions.
    RolledBack {
        /// What should have been installed.
        plan: Plan,
        /// What led there.
        cause: VerifyCause,
    },
    /// Final: neither all new nor all earlier.
    Inconsistent {
        /// What should have been installed.
        plan: Plan,
        /// What led there.
        cause: VerifyCause,
        /// What the ECUs run.
        found: Vec<FoundVersion>,
    },
    /// Final for the attempt until the vehicle is heard again: nobody knows what it runs.
    Unknown {
        /// What should have been installed.
        plan: Plan,
        /// What led there.
        cause: VerifyCause,
    },
}

/// What stands before a vehicle update that has not begun, or has to begin again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "hold")]
pub enum Hold {
    /// The vehicle is not connected.
    VehicleAway,
    /// The vehicle is connected, but did not answer.
    VehicleSilent {
        /// When it is asked again, if it does not wake up before.
        #[serde(default = "long_ago")]
        ask_at: UnixMillis,
    },
    /// The vehicle called commands expired that were not: its clock may be wrong.
    VehicleClock {
        /// When it is asked again, if it does not wake up before.
        #[serde(default = "long_ago")]
        ask_at: UnixMillis,
    },
    /// An attempt failed, and the next one begins after a pause.
    BeforeNextAttempt(RetryPause),
    /// Something of the server's own.
    Blocked(Block),
}

/// What the server itself puts before a vehicle update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "block")]
pub enum Block {
    /// The vehicle is in another campaign's update.
    OtherUpdate {
        /// That campaign.
        campaign: Text,
    },
    /// The vehicle is quarantined for a boot loop.
    Quarantine,
    /// An update of a campaign that goes first waits for the vehicle too.
    GoesAfter {
        /// That campaign.
        campaign: Text,
        /// Its priority.
        priority: u16,
        /// The priority of this update's campaign.
        own_priority: u16,
    },
    /// An operator has paused the campaign.
    CampaignPaused,
    /// An operator has ended the campaign.
    CampaignAborted,
    /// The campaign has stopped by its rule.
    CampaignStopped,
    /// The vehicle's wave is not open.
    WaveNotOpen {
        /// The wave, from 1.
        wave: u32,
    },
    /// As many vehicles of the campaign are under way as may be at once.
    NoPlace {
        /// How many may.
        vehicles_at_once: u64,
    },
    /// As many updates of the campaign have begun as may in a minute.
    NoStart {
        /// How many may.
        starts_per_minute: u64,
        /// When others may.
        until: UnixMillis,
    },
    /// No maintenance window of the vehicle is open.
    WindowClosed {
        /// When the next one opens.
        opens_at: UnixMillis,
        /// When the vehicle's turn comes in it.
        until: UnixMillis,
    },
    /// The campaign's vehicles may not begin yet.
    ScheduleToBegin {
        /// When the first may.
        not_before: UnixMillis,
        /// When the vehicle's turn comes.
        until: UnixMillis,
    },
    /// The campaign's vehicles begin one after the other.
    Spread {
        /// When the vehicle's turn comes.
        until: UnixMillis,
    },
    /// The campaign's vehicles may begin no more, or will not be allowed to when the vehicle's next window opens.
    ScheduleOver {
        /// From when on.
        not_after: UnixMillis,
    },
}

impl Block {
    /// Whether it is a matter of the campaign, which keeps no operator from rolling a vehicle back.
    fn is_of_the_campaign(&self) -> bool {
        match self {
            Self::CampaignPaused
            | Self::CampaignAborted
            | Self::CampaignStopped
            | Self::WaveNotOpen { .. }
            | Self::NoPlace { .. }
            | Self::NoStart { .. }
            | Self::WindowClosed { .. }
            | Self::ScheduleToBegin { .. }
            | Self::Spread { .. }
            | Self::ScheduleOver { .. } => true,
            Self::OtherUpdate { .. } | Self::Quarantine | Self::GoesAfter { .. } => false,
        }
    }

    /// When it is over by itself, whatever others do.
    fn until(&self) -> Option<UnixMillis> {
        match self {
            Self::WindowClosed { until, .. }
            | Self::ScheduleToBegin { until, .. }
            | Self::Spread { until } => Some(*until),
            // The campaign's gate looks after its own.
            Self::WaveNotOpen { .. } | Self::NoPlace { .. } | Self::NoStart { .. } => None,
            Self::OtherUpdate { .. }
            | Self::Quarantine
            | Self::GoesAfter { .. }
            | Self::CampaignPaused
            | Self::CampaignAborted
            | Self::CampaignStopped
            | Self::ScheduleOver { .. } => None,
        }
    }

    /// Whether it is the campaign's gate, at which vehicles wait for each other.
    fn is_gate(&self) -> bool {
        match self {
            Self::WaveNotOpen { .. } | Self::NoPlace { .. } | Self::NoStart { .. } => true,
            Self::OtherUpdate { .. }
            | Self::Quarantine
            | Self::GoesAfter { .. }
            | Self::CampaignPaused
            | Self::CampaignAborted
            | Self::CampaignStopped
            | Self::WindowClosed { .. }
            | Self::ScheduleToBegin { .. }
            | Self::Spread { .. }
            | Self::ScheduleOver { .. } => false,
        }
    }
}

/// Why the readiness question is put off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "deferred_by")]
pub enum DeferredBy {
    /// The vehicle is not ready.
    NotReady {
        /// Its reasons.
        reasons: Vec<NotReadyReason>,
    },
    /// The gateway is busy.
    Busy,
}

/// A StartDownload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// What is being installed.
    pub plan: Plan,
    /// When the StartDownload expires.
    pub deadline: UnixMillis,
    /// Whether an operator wants it cancelled.
    pub cancel: Cancel,
    /// How often in a row this was planned again.
    pub replans: u32,
}

/// How a cancellation by an operator stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cancel")]
pub enum Cancel {
    /// Nobody asked.
    NotAsked,
    /// CancelUpdate is sent.
    Asked {
        /// The operator's words.
        reason: Text,
    },
    /// The vehicle goes on.
    Refused,
}

/// What led to asking what the vehicle runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum VerifyCause {
    /// The vehicle reported commit.
    CommitReported,
    /// The StartDownload's deadline passed.
    DeadlinePassed,
    /// The vehicle reported that an ECU failed and that all are restored.
    UpdateFailed {
        /// The ECUs.
        failed_ecus: Vec<EcuId>,
    },
    /// The vehicle could not bring its ECUs to one state.
    ServiceRequired {
        /// The ECUs.
        failed_ecus: Vec<EcuId>,
    },
    /// The driver said no.
    ConsentDenied,
    /// The vehicle ended the update with an error that this stage does not know.
    ErrorReported {
        /// The error.
        code: ErrorCode,
    },
    /// The vehicle reported the roll-back that an operator asked for.
    RollbackReported,
    /// The StartRollback's deadline passed.
    RollbackDeadlinePassed,
    /// The vehicle did not roll back.
    RollbackRefused {
        /// Its error.
        code: ErrorCode,
    },
    /// After its end the vehicle was found to run other software, or said so.
    FoundLater,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The campaign runs, or what stood in the way is gone: look whether it can go on.
    LookedAt,
    /// The vehicle sent a WakeUp.
    WokenUp,
    /// The vehicle answered this update's RequestVCI.
    VciReceived(&'a SendVci),
    /// The vehicle sent its VCI for another purpose.
    OtherVciSeen(&'a SendVci),
    /// The vehicle is ready.
    Ready,
    /// The vehicle is not ready.
    NotReady {
        /// Its reasons.
        reasons: &'a [NotReadyReason],
        /// When to ask again, in seconds, as it counts (clamped or chosen).
        retry_after_s: u64,
    },
    /// A step succeeded.
    StepReported(Operation),
    /// The vehicle answered a command of this update with an error, which closes the command.
    ErrorReported {
        /// The command.
        command: MessageType,
        /// The answer.
        error: &'a ErrorResponse,
    },
    /// The vehicle answered a StartDownload or StartRollback of this update too late for the answer to be taken.
    ToldLate(LateWord),
    /// Time has passed, perhaps beyond `State::due_at`.
    TimePassed,
    /// An operator cancels.
    CancelAsked {
        /// The operator's words.
        reason: Text,
    },
    /// An operator wants a succeeded update undone.
    RollbackAsked,
    /// An operator wants an update that ended without a change tried again; follow it with `Event::LookedAt`.
    RetryAsked,
}

/// What a decision is made by, besides the event.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// Wall time of the server.
    pub now: UnixMillis,
    /// Deadlines, pauses, tries.
    pub settings: &'a Settings,
    /// The release of the campaign.
    pub release: &'a Release,
    /// The deltas to its images.
    pub deltas: Deltas<'a>,
    /// Whether the vehicle is connected.
    pub vehicle_there: bool,
    /// What the server itself puts before this update.
    pub block: Option<Block>,
    /// How often the vehicle failed the release, where it is set aside for that.
    pub set_aside: Option<u32>,
    /// Whether no other update has sent the vehicle a StartDownload since this one did: only then what the
    /// vehicle runs says anything about this one.
    pub is_latest: bool,
}

/// What is to be sent to the vehicle, or told to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Message 2.
    RequestVci {
        /// Why.
        reason: VciReason,
        /// When the server stops taking an answer.
        expires_at: UnixMillis,
    },
    /// Message 4, for the packages of the new state's plan.
    RequestReadiness {
        /// When the server stops taking an answer.
        expires_at: UnixMillis,
    },
    /// Message 7, for the packages of the new state's plan.
    StartDownload {
        /// The attempt's deadline.
        expires_at: UnixMillis,
    },
    /// Message 8.
    StartRollback {
        /// When it expires.
        expires_at: UnixMillis,
    },
    /// Message 9.
    CancelUpdate {
        /// The operator's words.
        reason: Text,
        /// When it expires.
        expires_at: UnixMillis,
    },
    /// People must look.
    RaiseAlarm(Alarm),
    /// Do not offer these deltas to this vehicle again: what was tried with them failed or fell silent.
    AvoidDeltas {
        /// SHA-256 of each delta.
        deltas: Vec<Sha256>,
    },
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Where the update stands now; the same as before where the event means nothing to it.
    pub state: State,
    /// What is to be sent, in order.
    pub commands: Vec<Command>,
}

/// Holds that an earlier version stored have no time: they are looked at at once.
fn long_ago() -> UnixMillis {
    UnixMillis(0)
}

impl Hold {
    /// When the vehicle is asked again by itself.
    fn ask_at(&self) -> Option<UnixMillis> {
        match self {
            Self::VehicleSilent { ask_at } | Self::VehicleClock { ask_at } => Some(*ask_at),
            Self::BeforeNextAttempt(pause) => Some(pause.next.at),
            Self::VehicleAway | Self::Blocked(_) => None,
        }
    }

    /// When it is over by itself.
    fn due_at(&self) -> Option<UnixMillis> {
        match self {
            Self::Blocked(block) => block.until(),
            Self::VehicleSilent { .. }
            | Self::VehicleClock { .. }
            | Self::BeforeNextAttempt(_)
            | Self::VehicleAway => self.ask_at(),
        }
    }
}

impl Transition {
    fn to(state: State) -> Self {
        Self { state, commands: Vec::new() }
    }

    fn sending(state: State, command: Command) -> Self {
        Self { state, commands: vec![command] }
    }
}

impl State {
    /// The state of an update whose campaign has just begun; follow it with `Event::LookedAt`.
    pub fn selected() -> Self {
        Self::Waiting { hold: Hold::VehicleAway }
    }

    /// The name in protocol.md §8.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::CollectingVci { .. } => "collecting_vci",
            Self::CheckingReadiness { .. } => "checking_readiness",
            Self::Deferred { .. } => "deferred",
            Self::Downloading(_) => "downloading",
            Self::Installing(_) => "installing",
            Self::Committing(_) => "committing",
            Self::Verifying { .. } => "verifying",
            Self::RollingBack { .. } => "rolling_back",
            Self::Cancelled { .. } => "cancelled",
            Self::UpToDate => "up_to_date",
            Self::Ineligible { .. } => "ineligible",
            Self::Succeeded { .. } => "succeeded",
            Self::RolledBack { .. } => "rolled_back",
            Self::Inconsistent { .. } => "inconsistent",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Whether the attempt is over.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Waiting { .. }
            | Self::CollectingVci { .. }
            | Self::CheckingReadiness { .. }
            | Self::Deferred { .. }
            | Self::Downloading(_)
            | Self::Installing(_)
            | Self::Committing(_)
            | Self::Verifying { .. }
            | Self::RollingBack { .. } => false,
            Self::Cancelled { .. }
            | Self::UpToDate
            | Self::Ineligible { .. }
            | Self::Succeeded { .. }
            | Self::RolledBack { .. }
            | Self::Inconsistent { .. }
            | Self::Unknown { .. } => true,
        }
    }

    /// Whether the update has begun and is not over: a vehicle is in one such update at most.
    pub fn is_active(&self) -> bool {
        !self.is_final() && !matches!(self, Self::Waiting { .. })
    }

    /// Whether the vehicle waits at its campaign's gate.
    pub fn waits_at_gate(&self) -> bool {
        matches!(self, Self::Waiting { hold: Hold::Blocked(block) } if block.is_gate())
    }

    /// Whether it could begin as soon as the vehicle is there and free, so that updates of campaigns that come later wait for it.
    /// One that waits for its own campaign, or for an answer that did not come, lets others go before it.
    pub fn goes_before_others(&self) -> bool {
        match self {
            Self::Waiting { hold: Hold::Blocked(block) } => !block.is_of_the_campaign(),
            Self::Waiting { hold: Hold::VehicleAway } => true,
            Self::Waiting {
                hold: Hold::VehicleSilent { .. } | Hold::VehicleClock { .. } | Hold::BeforeNextAttempt(_),
            }
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
            | Self::RolledBack { .. }
            | Self::Inconsistent { .. }
            | Self::Unknown { .. } => false,
        }
    }

    /// Whether the update pauses between a failed attempt and the next one.
    pub fn is_between_attempts(&self) -> bool {
        matches!(self, Self::Waiting { hold: Hold::BeforeNextAttempt(_) })
    }

    /// Whether the vehicle may fetch the plan's packages.
    pub fn may_download(&self) -> bool {
        matches!(self, Self::Downloading(_) | Self::Installing(_) | Self::Committing(_))
    }

    /// What is planned or was installed.
    pub fn plan(&self) -> Option<&Plan> {
        match self {
            Self::CheckingReadiness { plan, .. }
            | Self::Deferred { plan, .. }
            | Self::Verifying { plan, .. }
            | Self::RollingBack { plan, .. }
            | Self::Succeeded { plan, .. }
            | Self::RolledBack { plan, .. }
            | Self::Inconsistent { plan, .. }
            | Self::Unknown { plan, .. } => Some(plan),
            Self::Downloading(execution) | Self::Installing(execution) | Self::Committing(execution) => {
                Some(&execution.plan)
            }
            Self::Cancelled { plan, .. } => plan.as_ref(),
            Self::Waiting { hold: Hold::BeforeNextAttempt(pause) } => Some(&pause.plan),
            Self::Waiting { .. } | Self::CollectingVci { .. } | Self::UpToDate | Self::Ineligible { .. } => {
                None
            }
        }
    }

    /// The commands whose answers still mean something here; open ones of other kinds are to be closed.
    pub fn open_commands(&self) -> &'static [MessageType] {
        match self {
            Self::CollectingVci { .. } | Self::Verifying { .. } => &[MessageType::RequestVci],
            Self::CheckingReadiness { .. } => &[MessageType::RequestDownloadReadiness],
            Self::Downloading(_) | Self::Installing(_) | Self::Committing(_) => {
                &[MessageType::StartDownload, MessageType::CancelUpdate]
            }
            Self::RollingBack { .. } => &[MessageType::StartRollback],
            Self::Waiting { .. }
            | Self::Deferred { .. }
            | Self::Cancelled { .. }
            | Self::UpToDate
            | Self::Ineligible { .. }
            | Self::Succeeded { .. }
            | Self::RolledBack { .. }
            | Self::Inconsistent { .. }
            | Self::Unknown { .. } => &[],
        }
    }

    /// When `Event::TimePassed` is due.
    pub fn due_at(&self) -> Option<UnixMillis> {
        match self {
            Self::CollectingVci { pursuit, .. } => pursuit.due_at(),
            Self::CheckingReadiness { asked_until, .. } => Some(*asked_until),
            Self::Deferred { retry_at, .. } => Some(*retry_at),
            Self::Downloading(execution) | Self::Installing(execution) | Self::Committing(execution) => {
                Some(execution.deadline)
            }
            Self::Verifying { pursuit, deadline, .. } => {
                Some(pursuit.due_at().map_or(*deadline, |due| due.min(*deadline)))
            }
            Self::RollingBack { deadline, .. } => Some(*deadline),
            Self::Waiting { hold } => hold.due_at(),
            Self::Cancelled { .. }
            | Self::UpToDate
            | Self::Ineligible { .. }
            | Self::Succeeded { .. }
            | Self::RolledBack { .. }
            | Self::Inconsistent { .. }
            | Self::Unknown { .. } => None,
        }
    }

    /// Decides what follows from an event.
    pub fn handle(self, event: Event<'_>, context: &Context<'_>) -> Transition {
        match self {
            Self::Waiting { hold } => before_download::waiting(hold, event, context),
            Self::CollectingVci { pursuit, replans } => {
                before_download::collecting_vci(pursuit, replans, event, context)
            }
            Self::CheckingReadiness { plan, asked_until, unanswered, replans } => {
                let question = before_download::ReadinessQuestion { plan, asked_until, unanswered, replans };
                before_download::checking_readiness(question, event, context)
            }
            Self::Deferred { plan, why, retry_at, replans } => {
                before_download::deferred(plan, why, retry_at, replans, event, context)
            }
            Self::Downloading(execution) => {
                execution::executing(execution::Stage::Downloading, execution, event, context)
            }
            Self::Installing(execution) => {
                execution::executing(execution::Stage::Installing, execution, event, context)
            }
            Self::Committing(execution) => {
                execution::executing(execution::Stage::Committing, execution, event, context)
            }
            Self::RollingBack { plan, deadline } => execution::rolling_back(plan, deadline, event, context),
            Self::Verifying { plan, cause, pursuit, deadline } => {
                verification::verifying(plan, cause, pursuit, deadline, event, context)
            }
            ended @ (Self::Cancelled { .. }
            | Self::UpToDate
            | Self::Ineligible { .. }
            | Self::Succeeded { .. }
            | Self::RolledBack { .. }
            | Self::Inconsistent { .. }
            | Self::Unknown { .. }) => verification::ended(ended, event, context),
        }
    }
}

#[cfg(test)]
mod tests;
