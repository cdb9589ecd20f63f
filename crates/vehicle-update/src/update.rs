//! The update of one vehicle: all ECUs or none.
//!
//! | phase | when | then |
//! |---|---|---|
//! | syncing | every ECU said what it runs | persist Synced → transferring |
//! | | an ECU failed, cancelled, or past the deadline | persist Ended → cleaning up |
//! | transferring | every package is here and verified | persist Transferred, report `download` → waiting |
//! | | failed, cancelled, or past the deadline | persist Ended → cleaning up |
//! | waiting | the vehicle is ready and the driver agrees | persist Process → processing |
//! | | the driver does not agree | persist Ended, report CONSENT_DENIED → cleaning up |
//! | | cancelled, or past the deadline | persist Ended → cleaning up |
//! | processing | every ECU of an install order is written | the next order |
//! | | every ECU is written | waiting |
//! | waiting (all written) | the vehicle is ready | persist Activate (the barrier) → activating |
//! | | cancelled, or past the deadline | persist RollBack → rolling back |
//! | | an ECU failed, cancelled, or past the deadline | stop the others, persist RollBack → rolling back |
//! | barrier | cancelled before Activate was durable | persist RollBack → rolling back |
//! | activating | every flag is swapped | persist Activated, report `install` → vehicle checking |
//! | | an ECU failed | persist RollBack → rolling back |
//! | vehicle checking | every ECU runs the new software | persist Commit → finishing |
//! | | an ECU failed | persist RollBack → rolling back |
//! | finishing | every ECU acknowledged | persist Ended, report `commit` → cleaning up |
//! | | an ECU failed | persist Ended, report SERVICE_REQUIRED → cleaning up |
//! | rolling back | every ECU runs its earlier software | persist Ended, report UPDATE_FAILED if asked for (`rollback` if a StartRollback asked) → cleaning up |
//! | | an ECU failed | persist Ended, report SERVICE_REQUIRED → cleaning up |
//! | syncing (StartRollback) | every other bank holds the earlier software | persist Undo → rolling back |
//! | | else | report ROLLBACK_UNAVAILABLE, ended as before |
//! | cleaning up | packages deleted | ended |
//!
//! What is done with each ECU in a phase is the table of `ecu_work.rs`; what a restart leads to is the
//! table of `record.rs`. A report is stored together with its record, so each is sent exactly once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use farrier_protocol::{
    EcuId, ErrorCode, ErrorResponse, LongText, MsgId, Operation, UnixMillis, UpdateSuccessResult, VehicleBody,
};
use serde::Deserialize;

use crate::ecu_work::{EcuCall, EcuOutcome, Goal, Next};
use crate::plan::Plan;
use crate::record::{DamagedRecords, EarlierSoftware, Ending, Record, Why, read_back};

/// What the gateway does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Store the record and the reports durably, in one transaction; then say `Persisted`.
    Persist {
        /// The record.
        record: Record,
        /// The reports to send.
        reports: Vec<VehicleBody>,
    },
    /// Store this report to be sent. Nothing waits for it.
    Report(VehicleBody),
    /// Fetch and verify every package that is not here yet.
    Download,
    /// Call an ECU.
    CallEcu {
        /// The ECU.
        ecu_id: EcuId,
        /// What to do.
        call: EcuCall,
        /// How long to wait before.
        wait: Duration,
    },
    /// Wait until the vehicle is ready for this; before processing, ask the driver too.
    AwaitReady {
        /// What comes after.
        before: InstallStep,
    },
    /// Give up the download, the waits and the calls that are under way: each answers with its failure.
    Interrupt,
    /// Delete the packages of this update.
    DeletePackages,
}

/// What an update waits with until the vehicle is ready: both need it parked, powered and cool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallStep {
    /// Writing the inactive banks.
    Processing,
    /// Swapping the boot flags and restarting the ECUs.
    Activating,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The record is durable.
    Persisted,
    /// Every package is here and verified.
    Downloaded,
    /// A package cannot be had; for people.
    DownloadFailed(String),
    /// The vehicle is ready, and the driver agrees where that was asked.
    Ready,
    /// The driver does not agree; for people.
    ConsentDenied(String),
    /// The wait for the vehicle was given up.
    WaitGivenUp,
    /// An ECU call ended.
    EcuAnswered {
        /// The ECU.
        ecu_id: EcuId,
        /// The call.
        call: EcuCall,
        /// What came of it.
        outcome: EcuOutcome,
    },
    /// A CancelUpdate for this update came in.
    CancelRequested {
        /// Its `msg_id`.
        command: MsgId,
    },
    /// The deadline of the StartDownload has passed.
    DeadlinePassed,
    /// The packages are deleted.
    PackagesDeleted,
}

/// Where an update stands, in the words of AUTOSAR's update and configuration management.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Asks every ECU what it runs.
    Syncing,
    /// Fetches the packages.
    Transferring,
    /// Waits until the vehicle is ready and the driver agrees.
    Waiting,
    /// Writes the inactive banks.
    Processing,
    /// Every ECU is ready; the ACTIVATE record is being written.
    Barrier,
    /// Swaps the boot flags.
    Activating,
    /// Restarts the ECUs and reads back what they run.
    VehicleChecking,
    /// Every ECU proved the new software; the COMMIT record is being written.
    Committing,
    /// Has every ECU confirm.
    Finishing,
    /// Brings every ECU back.
    RollingBack,
    /// Deletes what is no longer needed.
    CleaningUp,
    /// Nothing is left to do.
    Ended,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syncing => "syncing",
            Self::Transferring => "transferring",
            Self::Waiting => "waiting",
            Self::Processing => "processing",
            Self::Barrier => "barrier",
            Self::Activating => "activating",
            Self::VehicleChecking => "vehicle checking",
            Self::Committing => "committing",
            Self::Finishing => "finishing",
            Self::RollingBack => "rolling back",
            Self::CleaningUp => "cleaning up",
            Self::Ended => "ended",
        })
    }
}

/// How often one ECU is tried in one phase. The longest way must stay below the ECUs' trial time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Attempts while the update can still be given up.
    pub attempts: u32,
    /// Attempts to bring an ECU to the state of the others, after which service is required.
    pub attempts_to_end: u32,
    /// Wait before a second try in milliseconds; grows by itself with each further one, up to 30 s.
    pub retry_wait_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { attempts: 5, attempts_to_end: 20, retry_wait_ms: 1_000 }
    }
}

impl Bounds {
    const LONGEST_WAIT: Duration = Duration::from_secs(30);

    fn attempts_for(&self, goal: Goal) -> u32 {
        match goal {
            Goal::Sync | Goal::Write | Goal::Activate | Goal::Prove | Goal::OfferEarlier => self.attempts,
            Goal::Keep | Goal::StayEarlier | Goal::RestoreEarlier => self.attempts_to_end,
        }
    }

    /// The first attempt after the first call comes at once.
    fn wait(&self, attempts_used: u32) -> Duration {
        Duration::from_millis(self.retry_wait_ms).saturating_mul(attempts_used).min(Self::LONGEST_WAIT)
    }
}

/// An update under way, or one that has ended.
#[derive(Debug, Clone)]
pub struct VehicleUpdate {
    plan: Box<Plan>,
    earlier: Vec<EarlierSoftware>,
    bounds: Bounds,
    /// The last durable record.
    last: Record,
    state: State,
    /// CancelUpdates that are answered when the update ends.
    cancels: Vec<MsgId>,
    deadline_passed: bool,
}

#[derive(Debug, Clone)]
enum State {
    AwaitingPersisted(Record),
    Downloading { interrupted: bool },
    Waiting { before: InstallStep, interrupted: bool },
    Working(Work),
    CleaningUp,
    Ended,
}

/// What came of waiting for the vehicle and the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Waited {
    Ready,
    Denied(String),
    GivenUp,
}

/// One goal for every ECU.
#[derive(Debug, Clone)]
struct Work {
    goal: Goal,
    ecus: BTreeMap<EcuId, EcuState>,
    /// Whether no further call is made, because the update cannot go on.
    stopped: bool,
    /// The StartRollback that is being looked at.
    undo: Option<(MsgId, UnixMillis)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum EcuState {
    Waiting,
    Calling { call: EcuCall, attempts_used: u32 },
    Reached(Option<EarlierSoftware>),
    Failed(String),
}

impl VehicleUpdate {
    /// Takes on an update.
    pub fn begin(plan: Plan, bounds: Bounds) -> (Self, Vec<Command>) {
        let plan = Box::new(plan);
        let record = Record::Accepted(plan.clone());
        let update = Self {
            plan,
            earlier: Vec::new(),
            bounds,
            last: record.clone(),
            state: State::AwaitingPersisted(record.clone()),
            cancels: Vec::new(),
            deadline_passed: false,
        };
        (update, vec![Command::Persist { record, reports: Vec::new() }])
    }

    /// Goes on after a restart, by the table of `record.rs`.
    ///
    /// # Errors
    /// Records that no update writes: the journal is damaged.
    pub fn resume(
        records: Vec<Record>,
        bounds: Bounds,
        now: UnixMillis,
    ) -> Result<(Self, Vec<Command>), DamagedRecords> {
        let (plan, earlier, last) = read_back(records)?;
        let mut update = Self {
            plan,
            earlier,
            bounds,
            last,
            state: State::Ended,
            cancels: Vec::new(),
            deadline_passed: false,
        };
        let restarted = || Why {
            detail: "the gateway restarted before every ECU had proved the new software".to_owned(),
            failed_ecus: Vec::new(),
            cancelled: false,
        };
        let commands = match &update.last {
            Record::Process => update.persist(Record::RollBack { swapped: false, why: restarted() }, now),
            Record::Activate | Record::Activated => {
                update.persist(Record::RollBack { swapped: true, why: restarted() }, now)
            }
            Record::Accepted(_)
            | Record::Synced(_)
            | Record::Transferred
            | Record::Commit
            | Record::RollBack { .. }
            | Record::Undo { .. }
            | Record::Ended(_) => update.enter(now),
        };
        Ok((update, commands))
    }

    /// Undoes an update that has ended committed; nothing if it has not.
    pub fn undo(&mut self, command: MsgId, now: UnixMillis) -> Option<Vec<Command>> {
        let committed = matches!(self.last, Record::Ended(Ending::Committed));
        if !committed || !matches!(self.state, State::CleaningUp | State::Ended) {
            return None;
        }
        Some(self.work(Goal::OfferEarlier, Some((command, now)), now))
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::AwaitingPersisted(record) => match record {
                Record::Accepted(_) | Record::Synced(_) => Phase::Syncing,
                Record::Transferred => Phase::Transferring,
                Record::Process => Phase::Waiting,
                Record::Activate => Phase::Barrier,
                Record::Activated => Phase::Activating,
                Record::Commit => Phase::Committing,
                Record::RollBack { .. } | Record::Undo { .. } => Phase::RollingBack,
                Record::Ended(_) => Phase::CleaningUp,
            },
            State::Downloading { .. } => Phase::Transferring,
            State::Waiting { .. } => Phase::Waiting,
            State::Working(work) => match work.goal {
                Goal::Sync | Goal::OfferEarlier => Phase::Syncing,
                Goal::Write => Phase::Processing,
                Goal::Activate => Phase::Activating,
                Goal::Prove => Phase::VehicleChecking,
                Goal::Keep => Phase::Finishing,
                Goal::StayEarlier | Goal::RestoreEarlier => Phase::RollingBack,
            },
            State::CleaningUp => Phase::CleaningUp,
            State::Ended => Phase::Ended,
        }
    }

    /// How it ended, once that is durable.
    pub fn ending(&self) -> Option<&Ending> {
        match &self.last {
            Record::Ended(ending) => Some(ending),
            Record::Accepted(_)
            | Record::Synced(_)
            | Record::Transferred
            | Record::Process
            | Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::RollBack { .. }
            | Record::Undo { .. } => None,
        }
    }

    /// What each ECU has proved to run where the update ends like this; nothing where they were left as they were.
    pub fn proven_versions(&self, ending: &Ending) -> Vec<(EcuId, String)> {
        match ending {
            Ending::Committed => {
                let packages = self.plan.start.packages.iter();
                packages
                    .map(|package| (package.target_component.clone(), package.target_version.to_string()))
                    .collect()
            }
            Ending::Undone => {
                let earlier = self.earlier.iter();
                earlier.map(|software| (software.ecu_id.clone(), software.version.clone())).collect()
            }
            Ending::RolledBack(_)
            | Ending::Cancelled
            | Ending::ConsentDenied(_)
            | Ending::ServiceRequired(_) => Vec::new(),
        }
    }

    /// Takes an event and says what to do. One that does not fit the present state changes nothing.
    pub fn handle(&mut self, event: Event, now: UnixMillis) -> Vec<Command> {
        match event {
            Event::Persisted => self.persisted(now),
            Event::Downloaded => self.downloaded(None, now),
            Event::DownloadFailed(detail) => self.downloaded(Some(detail), now),
            Event::Ready => self.waited(Waited::Ready, now),
            Event::ConsentDenied(detail) => self.waited(Waited::Denied(detail), now),
            Event::WaitGivenUp => self.waited(Waited::GivenUp, now),
            Event::EcuAnswered { ecu_id, call, outcome } => self.ecu_answered(&ecu_id, call, outcome, now),
            Event::CancelRequested { command } => self.cancel_requested(command),
            Event::DeadlinePassed => self.deadline_passed(),
            Event::PackagesDeleted => {
                if matches!(self.state, State::CleaningUp) {
                    self.state = State::Ended;
                }
                Vec::new()
            }
        }
    }

    fn persist(&mut self, record: Record, now: UnixMillis) -> Vec<Command> {
        let reports = self.reports(&record, now);
        self.state = State::AwaitingPersisted(record.clone());
        vec![Command::Persist { record, reports }]
    }

    fn persisted(&mut self, now: UnixMillis) -> Vec<Command> {
        let State::AwaitingPersisted(record) = &self.state else { return Vec::new() };
        self.last = record.clone();
        if let Record::Synced(earlier) = record {
            self.earlier.clone_from(earlier);
        }
        self.enter(now)
    }

    /// Begins what follows the last durable record.
    fn enter(&mut self, now: UnixMillis) -> Vec<Command> {
        let given_up = self.given_up(now);
        match (&self.last, given_up) {
            (Record::Accepted(_) | Record::Synced(_) | Record::Transferred, Some(why)) => {
                self.end_before_writing(why, now)
            }
            (Record::Process | Record::Activate, Some(why)) => {
                self.persist(Record::RollBack { swapped: false, why }, now)
            }
            (Record::Accepted(_), None) => self.work(Goal::Sync, None, now),
            (Record::Synced(_), None) => {
                self.state = State::Downloading { interrupted: false };
                vec![Command::Download]
            }
            (Record::Transferred, None) => self.wait(InstallStep::Processing),
            (Record::Process, None) => self.work(Goal::Write, None, now),
            (Record::Activate, None) => self.work(Goal::Activate, None, now),
            (Record::Activated, _) => self.work(Goal::Prove, None, now),
            (Record::Commit, _) => self.work(Goal::Keep, None, now),
            (Record::RollBack { swapped: false, .. }, _) => self.work(Goal::StayEarlier, None, now),
            (Record::RollBack { swapped: true, .. } | Record::Undo { .. }, _) => {
                self.work(Goal::RestoreEarlier, None, now)
            }
            (Record::Ended(_), _) => {
                self.state = State::CleaningUp;
                vec![Command::DeletePackages]
            }
        }
    }

    /// Why the update does not go on although nothing failed.
    fn given_up(&self, now: UnixMillis) -> Option<Why> {
        let why =
            |detail: &str, cancelled| Why { detail: detail.to_owned(), failed_ecus: Vec::new(), cancelled };
        if !self.cancels.is_empty() {
            return Some(why("the server cancelled the update", true));
        }
        let late = self.deadline_passed || now >= self.plan.start.expires_at_ms;
        late.then(|| why("the deadline of the StartDownload passed before every ECU was written", false))
    }

    /// Nothing was written to any ECU, so there is nothing to restore or to verify.
    fn end_before_writing(&mut self, why: Why, now: UnixMillis) -> Vec<Command> {
        let ending = if why.cancelled { Ending::Cancelled } else { Ending::RolledBack(why) };
        self.persist(Record::Ended(ending), now)
    }

    fn downloaded(&mut self, failure: Option<String>, now: UnixMillis) -> Vec<Command> {
        if !matches!(self.state, State::Downloading { .. }) {
            return Vec::new();
        }
        if let Some(why) = self.given_up(now) {
            return self.end_before_writing(why, now);
        }
        match failure {
            Some(detail) => {
                self.end_before_writing(Why { detail, failed_ecus: Vec::new(), cancelled: false }, now)
            }
            None => self.persist(Record::Transferred, now),
        }
    }

    fn wait(&mut self, before: InstallStep) -> Vec<Command> {
        self.state = State::Waiting { before, interrupted: false };
        vec![Command::AwaitReady { before }]
    }

    fn waited(&mut self, waited: Waited, now: UnixMillis) -> Vec<Command> {
        let State::Waiting { before, .. } = self.state else { return Vec::new() };
        let why = |detail| Why { detail, failed_ecus: Vec::new(), cancelled: false };
        let gives_up = || why("the wait for the vehicle was given up".to_owned());
        match (before, self.given_up(now), waited) {
            (InstallStep::Processing, None, Waited::Ready) => self.persist(Record::Process, now),
            (InstallStep::Activating, None, Waited::Ready) => self.persist(Record::Activate, now),
            (InstallStep::Processing, None, Waited::Denied(detail)) => {
                self.persist(Record::Ended(Ending::ConsentDenied(why(detail))), now)
            }
            (InstallStep::Processing, given_up, _) => {
                self.end_before_writing(given_up.unwrap_or_else(gives_up), now)
            }
            (InstallStep::Activating, given_up, _) => {
                let why = given_up.unwrap_or_else(gives_up);
                self.persist(Record::RollBack { swapped: false, why }, now)
            }
        }
    }

    fn work(&mut self, goal: Goal, undo: Option<(MsgId, UnixMillis)>, now: UnixMillis) -> Vec<Command> {
        let ecus = self.plan.ecus().map(|ecu_id| (ecu_id.clone(), EcuState::Waiting)).collect();
        self.state = State::Working(Work { goal, ecus, stopped: false, undo });
        self.go_on_working(now)
    }

    /// Starts the ECUs whose turn it is; leaves the goal once no ECU is being called any more.
    fn go_on_working(&mut self, now: UnixMillis) -> Vec<Command> {
        let State::Working(work) = &mut self.state else { return Vec::new() };
        let mut commands = Vec::new();
        if !work.stopped && !work.is_calling() {
            for ecu_id in work.next_ecus(&self.plan) {
                let call = work.goal.first_call();
                work.ecus.insert(ecu_id.clone(), EcuState::Calling { call, attempts_used: 0 });
                commands.push(Command::CallEcu { ecu_id, call, wait: Duration::ZERO });
            }
        }
        if !work.is_calling() {
            commands.extend(self.worked(now));
        }
        commands
    }

    fn ecu_answered(
        &mut self,
        ecu_id: &EcuId,
        call: EcuCall,
        outcome: EcuOutcome,
        now: UnixMillis,
    ) -> Vec<Command> {
        let State::Working(work) = &mut self.state else { return Vec::new() };
        let Some(EcuState::Calling { call: expected, attempts_used }) = work.ecus.get(ecu_id).cloned() else {
            return Vec::new();
        };
        let Some(package) = self.plan.package(ecu_id) else { return Vec::new() };
        if call != expected {
            return Vec::new();
        }
        let earlier = self.earlier.iter().find(|software| &software.ecu_id == ecu_id);
        let next = work.goal.next(call, outcome, package, earlier);
        let mut commands = Vec::new();
        let state = match next {
            Next::Reached(software) => EcuState::Reached(software),
            // Why the work was stopped is known already: an ECU that was interrupted is not to blame.
            Next::Failed(_) | Next::Call(_) | Next::Attempt(_, _) if work.stopped => EcuState::Waiting,
            Next::Failed(detail) => EcuState::Failed(detail),
            Next::Call(call) => {
                commands.push(Command::CallEcu { ecu_id: ecu_id.clone(), call, wait: Duration::ZERO });
                EcuState::Calling { call, attempts_used }
            }
            Next::Attempt(_, detail) if attempts_used + 1 >= self.bounds.attempts_for(work.goal) => {
                EcuState::Failed(detail)
            }
            Next::Attempt(call, _) => {
                let wait = self.bounds.wait(attempts_used);
                commands.push(Command::CallEcu { ecu_id: ecu_id.clone(), call, wait });
                EcuState::Calling { call, attempts_used: attempts_used + 1 }
            }
        };
        let failed = matches!(state, EcuState::Failed(_));
        work.ecus.insert(ecu_id.clone(), state);
        if failed && work.can_be_stopped() {
            commands.extend(self.stop_working());
        }
        commands.extend(self.go_on_working(now));
        commands
    }

    /// No further call; those under way are interrupted.
    fn stop_working(&mut self) -> Vec<Command> {
        let State::Working(work) = &mut self.state else { return Vec::new() };
        if std::mem::replace(&mut work.stopped, true) || !work.is_calling() {
            return Vec::new();
        }
        vec![Command::Interrupt]
    }

    /// Every ECU has reached the goal, or has failed, or was stopped.
    fn worked(&mut self, now: UnixMillis) -> Vec<Command> {
        let State::Working(work) = &self.state else { return Vec::new() };
        let goal = work.goal;
        let undo = work.undo.clone();
        let failure = work.failure().or_else(|| {
            // Writing and syncing can be given up; after them only failures count.
            if work.stopped { self.given_up(now) } else { None }
        });
        match (goal, failure) {
            (Goal::Sync, None) => {
                let earlier = work.earlier_software();
                self.persist(Record::Synced(earlier), now)
            }
            (Goal::Sync, Some(why)) => self.end_before_writing(why, now),
            (Goal::Write, None) => self.wait(InstallStep::Activating),
            (Goal::Write, Some(why)) => self.persist(Record::RollBack { swapped: false, why }, now),
            (Goal::Activate, None) => self.persist(Record::Activated, now),
            (Goal::Prove, None) => self.persist(Record::Commit, now),
            (Goal::Activate | Goal::Prove, Some(why)) => {
                self.persist(Record::RollBack { swapped: true, why }, now)
            }
            (Goal::Keep, None) => self.persist(Record::Ended(Ending::Committed), now),
            (Goal::StayEarlier | Goal::RestoreEarlier, None) => {
                let ending = self.ending_of_roll_back();
                self.persist(Record::Ended(ending), now)
            }
            (Goal::Keep | Goal::StayEarlier | Goal::RestoreEarlier, Some(why)) => {
                self.persist(Record::Ended(Ending::ServiceRequired(why)), now)
            }
            (Goal::OfferEarlier, failure) => self.offered(undo, failure, now),
        }
    }

    fn offered(
        &mut self,
        undo: Option<(MsgId, UnixMillis)>,
        failure: Option<Why>,
        now: UnixMillis,
    ) -> Vec<Command> {
        let Some((command, accepted_at)) = undo else { return Vec::new() };
        match failure {
            None => self.persist(Record::Undo { command, accepted_at }, now),
            Some(why) => {
                self.state = State::Ended;
                vec![Command::Report(error(&command, ErrorCode::RollbackUnavailable, &why))]
            }
        }
    }

    fn ending_of_roll_back(&self) -> Ending {
        match &self.last {
            Record::Undo { .. } => Ending::Undone,
            // A cancel that came while a failed update was already on its way back is honoured too.
            Record::RollBack { why, .. } if !why.cancelled && self.cancels.is_empty() => {
                Ending::RolledBack(why.clone())
            }
            Record::RollBack { .. }
            | Record::Accepted(_)
            | Record::Synced(_)
            | Record::Transferred
            | Record::Process
            | Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::Ended(_) => Ending::Cancelled,
        }
    }

    fn cancel_requested(&mut self, command: MsgId) -> Vec<Command> {
        let ended = match &self.state {
            State::AwaitingPersisted(Record::Ended(ending)) => Some(ending),
            State::CleaningUp | State::Ended => self.ending(),
            State::AwaitingPersisted(_)
            | State::Downloading { .. }
            | State::Waiting { .. }
            | State::Working(_) => None,
        };
        if let Some(ending) = ended {
            return vec![Command::Report(cancel_answer(&command, ending))];
        }
        if self.flags_may_be_swapped() {
            let why = "boot flags are being swapped or were, so the update goes on to its end";
            return vec![Command::Report(cancel_refused(&command, why))];
        }
        if self.cancels.contains(&command) {
            return Vec::new();
        }
        self.cancels.push(command);
        self.interrupt()
    }

    fn deadline_passed(&mut self) -> Vec<Command> {
        self.deadline_passed = true;
        self.interrupt()
    }

    /// Gives up what can be given up: the download, the questions at the beginning and the writing.
    fn interrupt(&mut self) -> Vec<Command> {
        match &mut self.state {
            State::Downloading { interrupted } | State::Waiting { interrupted, .. } => {
                if std::mem::replace(interrupted, true) {
                    return Vec::new();
                }
                vec![Command::Interrupt]
            }
            State::Working(work) if work.can_be_stopped() => self.stop_working(),
            State::Working(_) | State::AwaitingPersisted(_) | State::CleaningUp | State::Ended => Vec::new(),
        }
    }

    fn flags_may_be_swapped(&self) -> bool {
        let durable = match &self.last {
            Record::Accepted(_)
            | Record::Synced(_)
            | Record::Transferred
            | Record::Process
            | Record::RollBack { swapped: false, .. } => false,
            Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::RollBack { swapped: true, .. }
            | Record::Undo { .. }
            | Record::Ended(_) => true,
        };
        // A roll-back recorded before any flag was swapped follows Activate when a cancel came in between.
        let never_swapped =
            matches!(&self.state, State::AwaitingPersisted(Record::RollBack { swapped: false, .. }));
        durable && !never_swapped
    }

    /// What is sent once this record is durable.
    fn reports(&self, record: &Record, now: UnixMillis) -> Vec<VehicleBody> {
        match record {
            Record::Transferred => vec![self.success(Operation::Download, false, now)],
            Record::Activated => vec![self.success(Operation::Install, false, now)],
            Record::Ended(ending) => self.ending_reports(ending, now),
            Record::Accepted(_)
            | Record::Synced(_)
            | Record::Process
            | Record::Activate
            | Record::Commit
            | Record::RollBack { .. }
            | Record::Undo { .. } => Vec::new(),
        }
    }

    fn ending_reports(&self, ending: &Ending, now: UnixMillis) -> Vec<VehicleBody> {
        let mut reports = match ending {
            Ending::Committed => vec![self.success(Operation::Commit, true, now)],
            Ending::Undone => vec![self.success(Operation::Rollback, true, now)],
            Ending::RolledBack(why) if self.plan.start.failure_report => {
                vec![error(self.answered_command(), ErrorCode::UpdateFailed, why)]
            }
            Ending::RolledBack(_) | Ending::Cancelled => Vec::new(),
            Ending::ConsentDenied(why) => {
                vec![error(self.answered_command(), ErrorCode::ConsentDenied, why)]
            }
            Ending::ServiceRequired(why) => {
                vec![error(self.answered_command(), ErrorCode::ServiceRequired, why)]
            }
        };
        reports.extend(self.cancels.iter().map(|command| cancel_answer(command, ending)));
        reports
    }

    fn success(&self, operation: Operation, rebooted: bool, now: UnixMillis) -> VehicleBody {
        let began_at = match &self.last {
            Record::Undo { accepted_at, .. } => *accepted_at,
            Record::Accepted(_)
            | Record::Synced(_)
            | Record::Transferred
            | Record::Process
            | Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::RollBack { .. }
            | Record::Ended(_) => self.plan.accepted_at,
        };
        let elapsed_ms = now.0.saturating_sub(began_at.0);
        VehicleBody::UpdateSuccessResult(UpdateSuccessResult {
            correlation_id: self.answered_command().clone(),
            operation,
            // A clock that was set back in between leaves no duration to report.
            duration_s: u64::try_from(elapsed_ms).ok().map(|elapsed_ms| elapsed_ms / 1000),
            rebooted: Some(rebooted),
            ecu_count: self.plan.ecu_count(),
            // No package leaves the transferring phase before its hash and signature were verified.
            verified_integrity: true,
        })
    }

    /// The command that the present reports answer.
    fn answered_command(&self) -> &MsgId {
        match &self.last {
            Record::Undo { command, .. } => command,
            Record::Accepted(_)
            | Record::Synced(_)
            | Record::Transferred
            | Record::Process
            | Record::Activate
            | Record::Activated
            | Record::Commit
            | Record::RollBack { .. }
            | Record::Ended(_) => &self.plan.command,
        }
    }
}

impl Work {
    fn is_calling(&self) -> bool {
        self.ecus.values().any(|state| matches!(state, EcuState::Calling { .. }))
    }

    /// Whether leaving an ECU in the middle of this does no harm.
    fn can_be_stopped(&self) -> bool {
        match self.goal {
            Goal::Sync | Goal::Write => true,
            Goal::Activate
            | Goal::Prove
            | Goal::Keep
            | Goal::StayEarlier
            | Goal::RestoreEarlier
            | Goal::OfferEarlier => false,
        }
    }

    /// The ECUs to start: when writing, those of the lowest install order that is left, else all.
    fn next_ecus(&self, plan: &Plan) -> Vec<EcuId> {
        let order = |ecu_id: &EcuId| match self.goal {
            Goal::Write => plan.package(ecu_id).map_or(0, |package| package.install_order),
            Goal::Sync
            | Goal::Activate
            | Goal::Prove
            | Goal::Keep
            | Goal::StayEarlier
            | Goal::RestoreEarlier
            | Goal::OfferEarlier => 0,
        };
        let waiting = || self.ecus.iter().filter(|(_, state)| **state == EcuState::Waiting).map(|(id, _)| id);
        let lowest = waiting().map(order).min();
        waiting().filter(|ecu_id| Some(order(ecu_id)) == lowest).cloned().collect()
    }

    fn failure(&self) -> Option<Why> {
        let failed: Vec<(&EcuId, &String)> = self
            .ecus
            .iter()
            .filter_map(|(ecu_id, state)| match state {
                EcuState::Failed(detail) => Some((ecu_id, detail)),
                EcuState::Waiting | EcuState::Calling { .. } | EcuState::Reached(_) => None,
            })
            .collect();
        if failed.is_empty() {
            return None;
        }
        let details: Vec<String> =
            failed.iter().map(|(ecu_id, detail)| format!("{ecu_id}: {detail}")).collect();
        Some(Why {
            detail: details.join("; "),
            failed_ecus: failed.into_iter().map(|(ecu_id, _)| ecu_id.clone()).collect(),
            cancelled: false,
        })
    }

    fn earlier_software(&self) -> Vec<EarlierSoftware> {
        self.ecus
            .values()
            .filter_map(|state| match state {
                EcuState::Reached(software) => software.clone(),
                EcuState::Waiting | EcuState::Calling { .. } | EcuState::Failed(_) => None,
            })
            .collect()
    }
}

fn cancel_answer(command: &MsgId, ending: &Ending) -> VehicleBody {
    match ending {
        Ending::RolledBack(_) | Ending::Cancelled | Ending::ConsentDenied(_) => {
            let why = Why {
                detail: "every ECU runs its earlier software".to_owned(),
                failed_ecus: Vec::new(),
                cancelled: true,
            };
            error(command, ErrorCode::Cancelled, &why)
        }
        Ending::Committed => cancel_refused(command, "the update is committed"),
        Ending::Undone => cancel_refused(command, "the update was committed and then undone"),
        Ending::ServiceRequired(why) => cancel_refused(command, &why.detail),
    }
}

fn cancel_refused(command: &MsgId, detail: &str) -> VehicleBody {
    let why = Why { detail: detail.to_owned(), failed_ecus: Vec::new(), cancelled: false };
    error(command, ErrorCode::CancelRefused, &why)
}

fn error(command: &MsgId, code: ErrorCode, why: &Why) -> VehicleBody {
    VehicleBody::ErrorResponse(ErrorResponse {
        correlation_id: command.clone(),
        code,
        detail: LongText::beginning_of(&why.detail),
        failed_ecus: (!why.failed_ecus.is_empty()).then(|| why.failed_ecus.clone()),
        pkg_ids: None,
        retry_after_s: None,
    })
}

#[cfg(test)]
mod tests;
