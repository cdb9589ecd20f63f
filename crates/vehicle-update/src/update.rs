//! The update of one vehicle: all ECUs or none.
//!
//! | phase | when | then |
//! |---|---|---|
//! | syncing | every ECU said what it runs | persist Synced → transferring |
//! | | an ECU failed, cancelled, or past the deadline | persist Ended → cleaning up |
//! | transferring | every package is here and verified | persist Transferred, report `download` → waiting |
//! | | failed, cancelled, or past the deadline | persist Ended → cleaning up |
//! | waiting | the vehicle is ready and the driver agrees | persist Consented → waiting (consented) |
//! | waiting (consented) | the vehicle is ready still, or again | persist Process → processing |
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
//! table of `record.rs`; what is told to the server, and when, is in `reports.rs`.

mod command;
mod event;
mod phase;
mod reports;
mod work;

use std::time::Duration;

use farrier_protocol::{EcuId, ErrorCode, MsgId, UnixMillis};

pub use self::command::{Command, InstallStep};
pub use self::event::Event;
pub use self::phase::Phase;
use self::reports::{cancel_answer, cancel_refused, error};
pub use self::work::Bounds;
use self::work::{EcuState, Work};
use crate::ecu_work::{EcuCall, EcuOutcome, Goal, Next};
use crate::plan::Plan;
use crate::record::{DamagedRecords, EarlierSoftware, Ending, Record, Why, read_back};

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
            | Record::Consented
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
                Record::Consented | Record::Process => Phase::Waiting,
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
            | Record::Consented
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
            (
                Record::Accepted(_) | Record::Synced(_) | Record::Transferred | Record::Consented,
                Some(why),
            ) => self.end_before_writing(why, now),
            (Record::Process | Record::Activate, Some(why)) => {
                self.persist(Record::RollBack { swapped: false, why }, now)
            }
            (Record::Accepted(_), None) => self.work(Goal::Sync, None, now),
            (Record::Synced(_), None) => {
                self.state = State::Downloading { interrupted: false };
                vec![Command::Download]
            }
            (Record::Transferred, None) => self.wait(InstallStep::Consent),
            (Record::Consented, None) => self.wait(InstallStep::Processing),
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
            (InstallStep::Consent, None, Waited::Ready) => self.persist(Record::Consented, now),
            (InstallStep::Processing, None, Waited::Ready) => self.persist(Record::Process, now),
            (InstallStep::Activating, None, Waited::Ready) => self.persist(Record::Activate, now),
            (InstallStep::Consent, None, Waited::Denied(detail)) => {
                self.persist(Record::Ended(Ending::ConsentDenied(why(detail))), now)
            }
            (InstallStep::Consent | InstallStep::Processing, given_up, _) => {
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
            | Record::Consented
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
            | Record::Consented
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
}

#[cfg(test)]
mod tests;
