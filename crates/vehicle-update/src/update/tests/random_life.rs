//! Random outcomes, orders, cancels, deadlines, power cuts of the gateway and of ECUs, and refused roll-backs,
//! against a model of ECUs with two banks. A record whose write was cut off is not in the journal. What holds:
//! - at rest all ECUs run the new software or all the earlier one; where service is required, all but those named;
//! - COMMIT is recorded only when every ECU runs the new software, success reported only when every one keeps it;
//! - between two power cuts of the gateway, every ECU is called a bounded number of times in each phase.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::*;
use crate::ecu_work::{Runs, Trial};

/// What happens at a flag swap that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pending {
    Nothing,
    NewAtNextBoot,
    EarlierAtNextBoot,
}

/// An ECU as real ones behave: calls are idempotent, a trial can run out.
#[derive(Debug, Clone)]
struct ModelEcu {
    banks: [Option<&'static str>; 2],
    active: usize,
    pending: Pending,
    trial: Trial,
    dead: bool,
    /// So many roll-backs are refused from now on.
    refuses_roll_back: u8,
}

impl ModelEcu {
    fn new() -> Self {
        Self {
            banks: [Some("1.0"), Some("0.9")],
            active: 0,
            pending: Pending::Nothing,
            trial: Trial::Confirmed,
            dead: false,
            refuses_roll_back: 0,
        }
    }

    fn version(&self) -> &'static str {
        self.banks[self.active].expect("only a bank that can be booted runs")
    }

    fn runs(&self) -> Runs {
        Runs {
            version: self.version().to_owned(),
            bank: u8::try_from(self.active).unwrap(),
            other_version: self.banks[1 - self.active].map(str::to_owned),
            trial: self.trial,
        }
    }

    /// Stands still where no restart or trial can change what runs.
    fn at_rest(&self, version: &str) -> bool {
        self.version() == version && self.pending == Pending::Nothing && self.trial != Trial::OnTrial
    }

    fn swap(&mut self, trial: Trial) {
        self.active = 1 - self.active;
        self.trial = trial;
        self.pending = Pending::Nothing;
    }

    fn trial_runs_out(&mut self) {
        if self.trial == Trial::OnTrial {
            self.swap(Trial::None);
        }
    }

    fn carry_out(&mut self, call: EcuCall) -> EcuOutcome {
        match call {
            EcuCall::Identify => {
                return EcuOutcome::Identified { hw_part_no: "HW-1".to_owned(), runs: self.runs() };
            }
            EcuCall::AskWhatRuns => return EcuOutcome::Runs(self.runs()),
            EcuCall::WriteInactiveBank => {
                assert_eq!(self.pending, Pending::Nothing, "a bank about to be booted is never written");
                assert_ne!(self.trial, Trial::OnTrial, "the bank to fall back to is never written");
                self.trial = Trial::None;
                self.banks[1 - self.active] = Some("2.0");
            }
            EcuCall::Activate => match self.trial {
                // It lost power in between and runs the new software already: activated is activated.
                Trial::OnTrial | Trial::Confirmed => {
                    assert_eq!(self.version(), "2.0", "only the new software is ever activated");
                }
                Trial::None => {
                    assert_eq!(self.banks[1 - self.active], Some("2.0"), "only a whole bank is activated");
                    self.pending = Pending::NewAtNextBoot;
                }
            },
            EcuCall::Reset => self.boot(),
            EcuCall::Confirm => {
                if self.trial == Trial::OnTrial {
                    self.trial = Trial::Confirmed;
                }
            }
            EcuCall::RollBack if self.refuses_roll_back > 0 => {
                self.refuses_roll_back -= 1;
                return EcuOutcome::Failed("general programming failure".to_owned());
            }
            EcuCall::RollBack => match (self.pending, self.trial) {
                (Pending::NewAtNextBoot, _) => self.pending = Pending::Nothing,
                (_, Trial::OnTrial | Trial::Confirmed) => self.pending = Pending::EarlierAtNextBoot,
                (_, Trial::None) => {}
            },
        }
        EcuOutcome::Done
    }

    /// What a restart does, and a power cut too.
    fn boot(&mut self) {
        match self.pending {
            Pending::Nothing => {}
            Pending::NewAtNextBoot => self.swap(Trial::OnTrial),
            Pending::EarlierAtNextBoot => self.swap(Trial::None),
        }
    }

    /// Loses power in the middle of a write, for the other calls before or after their effect.
    fn cut_off(&mut self, call: EcuCall, has_effect: bool) {
        if call == EcuCall::WriteInactiveBank && !has_effect {
            self.trial = Trial::None;
            self.banks[1 - self.active] = None;
        } else if has_effect {
            self.carry_out(call);
        }
    }
}

struct Life {
    entropy: std::vec::IntoIter<u8>,
    ecus: BTreeMap<EcuId, ModelEcu>,
    update: VehicleUpdate,
    open: Vec<Command>,
    records: Vec<Record>,
    reports: Vec<VehicleBody>,
    now: UnixMillis,
    cancels: u32,
    undone: bool,
    /// Calls since the gateway started, in the phase that it is in.
    calls: HashMap<(EcuId, Phase), u32>,
}

const BOUNDS: Bounds = Bounds { attempts: 3, attempts_to_end: 6, retry_wait_ms: 1_000 };

/// The longest way: every attempt to end rolls back, restarts and asks, each once more than it is counted.
const MOST_CALLS: u32 = 3 * (BOUNDS.attempts_to_end + 1);

impl Life {
    fn new(entropy: Vec<u8>) -> Self {
        let (update, open) = VehicleUpdate::begin(plan(&[1, 1, 2, 3]), BOUNDS);
        let ecus = update.plan().ecus().map(|ecu_id| (ecu_id.clone(), ModelEcu::new())).collect();
        Self {
            entropy: entropy.into_iter(),
            ecus,
            update,
            open,
            records: Vec::new(),
            reports: Vec::new(),
            now: UnixMillis(0),
            cancels: 0,
            undone: false,
            calls: HashMap::new(),
        }
    }

    /// 0 once the entropy is used up: from then on nothing goes wrong, so every life ends.
    fn draw(&mut self) -> u8 {
        self.entropy.next().unwrap_or(0)
    }

    fn handle(&mut self, event: Event) {
        let commands = self.update.handle(event, self.now);
        self.open.extend(commands);
    }

    fn step(&mut self) {
        self.now.0 += i64::from(self.draw()) * 40;
        match self.draw() {
            250.. => return self.restart(),
            246..=249 => {
                self.cancels += 1;
                let number = self.cancels;
                return self.handle(cancel(number));
            }
            244..=245 => {
                self.now = self.now.max(LATE);
                return self.handle(Event::DeadlinePassed);
            }
            241..=243 => {
                let unlucky = usize::from(self.draw()) % self.ecus.len();
                // A dead one does nothing any more, not even start.
                self.ecus
                    .values_mut()
                    .nth(unlucky)
                    .filter(|ecu| !ecu.dead)
                    .into_iter()
                    .for_each(ModelEcu::boot);
                return;
            }
            _ => {}
        }
        if self.open.is_empty() {
            return;
        }
        let position = usize::from(self.draw()) % self.open.len();
        let command = self.open.remove(position);
        self.complete(command);
    }

    fn complete(&mut self, command: Command) {
        match command {
            Command::Persist { record, reports } => {
                self.store(record, reports);
                self.handle(Event::Persisted);
            }
            Command::Report(report) => self.reports.push(report),
            Command::Download => {
                let failed = self.draw() > 240;
                let failure = Event::DownloadFailed("broken".to_owned());
                self.handle(if failed { failure } else { Event::Downloaded });
            }
            Command::AwaitReady { before } => {
                let denied = before == InstallStep::Consent && self.draw() > 245;
                let denial = Event::ConsentDenied("not now".to_owned());
                self.handle(if denied { denial } else { Event::Ready });
            }
            Command::CallEcu { ecu_id, call, wait } => {
                self.now.0 += i64::try_from(wait.as_millis()).unwrap();
                assert!(wait <= Bounds::LONGEST_WAIT);
                let calls = self.calls.entry((ecu_id.clone(), self.update.phase())).or_default();
                *calls += 1;
                assert!(
                    *calls <= MOST_CALLS,
                    "{ecu_id} is called {calls} times while {}",
                    self.update.phase()
                );
                let outcome = self.call(&ecu_id, call);
                self.handle(Event::EcuAnswered { ecu_id, call, outcome });
            }
            Command::Interrupt => {
                for command in std::mem::take(&mut self.open) {
                    match command {
                        Command::Download => self.handle(Event::DownloadFailed("interrupted".to_owned())),
                        Command::AwaitReady { .. } => self.handle(Event::WaitGivenUp),
                        Command::CallEcu { ecu_id, call, .. } => {
                            let has_effect = self.draw().is_multiple_of(2);
                            self.ecus.get_mut(&ecu_id).unwrap().cut_off(call, has_effect);
                            let outcome = EcuOutcome::Failed("interrupted".to_owned());
                            self.handle(Event::EcuAnswered { ecu_id, call, outcome });
                        }
                        Command::Persist { .. }
                        | Command::Report(_)
                        | Command::Interrupt
                        | Command::DeletePackages => self.open.push(command),
                    }
                }
            }
            Command::DeletePackages => self.handle(Event::PackagesDeleted),
        }
    }

    fn store(&mut self, record: Record, reports: Vec<VehicleBody>) {
        assert!(record.may_follow(self.records.last()), "{record:?} after {:?}", self.records.last());
        if matches!(record, Record::Commit) {
            for (ecu_id, ecu) in &self.ecus {
                assert_eq!(ecu.version(), "2.0", "{ecu_id} has not proved the new software at COMMIT");
            }
        }
        let is_commit = |report: &VehicleBody| matches!(report, VehicleBody::UpdateSuccessResult(result) if result.operation == Operation::Commit);
        if reports.iter().any(is_commit) {
            assert!(self.ecus.values().all(|ecu| ecu.at_rest("2.0")), "success, and {:?}", self.ecus);
        }
        self.records.push(record);
        self.reports.extend(reports);
    }

    fn call(&mut self, ecu_id: &EcuId, call: EcuCall) -> EcuOutcome {
        let luck = self.draw();
        let has_effect = self.draw().is_multiple_of(2);
        let ecu = self.ecus.get_mut(ecu_id).unwrap();
        let failed = EcuOutcome::Failed("no answer".to_owned());
        match luck {
            _ if ecu.dead => failed,
            254.. => {
                ecu.dead = true;
                failed
            }
            225..=253 => {
                ecu.cut_off(call, has_effect);
                failed
            }
            215..=219 if call == EcuCall::RollBack => {
                ecu.refuses_roll_back = luck - 214;
                ecu.carry_out(call)
            }
            220..=224 if call == EcuCall::Reset && ecu.pending == Pending::NewAtNextBoot => {
                ecu.pending = Pending::Nothing;
                EcuOutcome::Done
            }
            _ => ecu.carry_out(call),
        }
    }

    /// The gateway loses power: what is open happens or not, then the journal is all it knows.
    fn restart(&mut self) {
        for command in std::mem::take(&mut self.open) {
            let happened = self.draw().is_multiple_of(2);
            match command {
                Command::Persist { record, reports } if happened => self.store(record, reports),
                Command::CallEcu { ecu_id, call, .. } => {
                    let ecu = self.ecus.get_mut(&ecu_id).unwrap();
                    if !ecu.dead {
                        ecu.cut_off(call, happened);
                    }
                }
                Command::Persist { .. }
                | Command::Report(_)
                | Command::Download
                | Command::AwaitReady { .. }
                | Command::Interrupt
                | Command::DeletePackages => {}
            }
        }
        if self.draw() > 200 {
            self.ecus.values_mut().filter(|ecu| !ecu.dead).for_each(ModelEcu::trial_runs_out);
        }
        self.calls.clear();
        (self.update, self.open) = if self.records.is_empty() {
            VehicleUpdate::begin(plan(&[1, 1, 2, 3]), BOUNDS)
        } else {
            VehicleUpdate::resume(self.records.clone(), BOUNDS, self.now).unwrap()
        };
    }

    fn live(&mut self) {
        for _ in 0..20_000 {
            if !self.open.is_empty() || self.update.phase() != Phase::Ended {
                self.step();
                continue;
            }
            self.check_rest();
            let wants_undo = !self.undone && self.draw() > 100;
            match wants_undo.then(|| self.update.undo("SRV_R".parse().unwrap(), self.now)).flatten() {
                Some(commands) => {
                    self.undone = true;
                    self.calls.clear();
                    self.open = commands;
                }
                None => return,
            }
        }
        panic!("the update does not end: {:?} {:?}", self.update.phase(), self.open);
    }

    fn check_rest(&self) {
        let ending = self.update.ending().expect("an update that rests has ended");
        let all_at_rest = |version: &str| {
            for (ecu_id, ecu) in &self.ecus {
                assert!(ecu.at_rest(version), "{ecu_id} is not at rest with {version}: {ecu:?} {ending:?}");
            }
        };
        match ending {
            Ending::Committed => all_at_rest("2.0"),
            Ending::RolledBack(_) | Ending::Cancelled | Ending::ConsentDenied(_) | Ending::Undone => {
                all_at_rest("1.0");
            }
            Ending::ServiceRequired(why) => {
                assert!(!why.failed_ecus.is_empty());
                let others = || self.ecus.iter().filter(|(ecu_id, _)| !why.failed_ecus.contains(ecu_id));
                let all = |version| others().all(|(_, ecu)| ecu.at_rest(version));
                assert!(all("2.0") || all("1.0"), "mixed although not named: {:?} {ending:?}", self.ecus);
            }
        }
        let count = |operation| {
            let is_it = |report: &&VehicleBody| matches!(report, VehicleBody::UpdateSuccessResult(result) if result.operation == operation);
            self.reports.iter().filter(is_it).count()
        };
        let recorded = |name| self.records.iter().filter(|record| record.name() == name).count();
        let committed = self.records.iter().any(|record| matches!(record, Record::Ended(Ending::Committed)));
        assert_eq!(count(Operation::Download), recorded("transferred"));
        assert_eq!(count(Operation::Install), recorded("activated"));
        assert_eq!(count(Operation::Commit), usize::from(committed));
        assert_eq!(count(Operation::Rollback), usize::from(*ending == Ending::Undone));
    }
}

/// Lives many lives from a seed, which PROPTEST_RNG_SEED can set and which is printed.
fn live_many<S: Strategy<Value = Vec<u8>>>(cases: u32, entropy: &S) {
    let mut config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().build_hasher().finish(),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    println!("{cases} lives, PROPTEST_RNG_SEED={seed}");
    let lived = TestRunner::new(config).run(entropy, |entropy| {
        Life::new(entropy).live();
        Ok(())
    });
    lived.unwrap();
}

#[test]
fn no_life_ends_with_mixed_software_unless_service_is_required() {
    live_many(8_000, &prop::collection::vec(any::<u8>(), 0..600));
}

#[test]
fn rare_faults_late_in_a_life_end_no_worse() {
    let late = (0_usize..120, prop::collection::vec(any::<u8>(), 0..80));
    live_many(8_000, &late.prop_map(|(quiet, entropy)| [vec![0; quiet], entropy].concat()));
}

#[test]
fn a_life_without_faults_commits() {
    let mut life = Life::new(Vec::new());
    life.live();
    assert_eq!(life.update.ending(), Some(&Ending::Committed));
}
