//! An update of four ECUs behind two zonal gateways, by the real agent with its real journal, struck at every
//! instant: each durable write, each change of a package or image on the disk and each request to an ECU,
//! before, in the middle and after. Whatever happens, all ECUs end with the new software or all with the earlier
//! one, the journal says the same, and success is reported only where all run the new one.

mod doip_way;
mod instants;
#[path = "../tests/interruption/vehicle.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod vehicle;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use farrier_protocol::{
    ErrorCode, MsgId, Operation, ServerBody, Sha256, StartDownload, StartRollback, VehicleBody,
};
use farrier_simulator::ecu::{EcuTiming, Faults};
use farrier_vehicle_update::{Ending, Phase, Record};
use tokio::runtime::{Builder, Runtime};

use self::instants::{AtRequest, AtWrite, EcuFailure, Instants, Point};
use self::vehicle::{AtRest, ECUS, Vehicle, ecu_id, logical_address};
use crate::disk::Change;
use crate::journal::Journal;
use crate::scripted_server::{ScriptedServer, later};
use crate::watch::watch;
use crate::{Gateway, GatewayConfig, RunningGateway, StartError};

/// How long an update may take in all: far longer than any of them needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a point that the first run met may not be met once an update has ended.
const AFTER_THE_END: Duration = Duration::from_millis(300);
/// The version after the one that other scenarios update to.
const NEWEST: &str = "3.0";
/// Cases at the same time: most of each is waiting.
const SIDE_BY_SIDE: usize = 8;

/// A gateway in a runtime of its own, which can be torn down under it.
struct Life {
    runtime: Runtime,
    /// Why it did not start, where it was struck meanwhile.
    gateway: Result<RunningGateway, StartError>,
}

impl Life {
    fn begin(config: &GatewayConfig) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let gateway = runtime.block_on(Gateway::start(config.clone()));
        Self { runtime, gateway }
    }

    /// As a power cut: nothing of the gateway gets to say goodbye.
    fn end_at_once(self) {
        std::mem::forget(self.gateway);
        self.runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// Why it stops, or does not even start.
    fn stops_because(&mut self) -> Result<(), String> {
        let stopped = match &mut self.gateway {
            Err(error) => return Err(format!("{error:?}")),
            Ok(gateway) => {
                self.runtime.block_on(async { tokio::time::timeout(PATIENCE, gateway.stopped()).await })
            }
        };
        stopped.map_err(|_| "it does not stop".to_owned())?.map_err(|failure| format!("{failure:?}"))
    }

    fn end(self) {
        self.runtime.block_on(self.gateway.unwrap().stop()).unwrap();
    }
}

/// What the vehicle goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// An update in which nothing else fails.
    Update,
    /// One that is rolled back, because an ECU starts its earlier software again.
    FailingUpdate,
    /// An update is committed; then, with its instants, undone by a StartRollback.
    Undo,
    /// An update is committed; then, with its instants, another one by deltas from what it left.
    Deltas,
}

impl Scenario {
    /// Whether an update is committed before anything is struck.
    fn comes_after_an_update(self) -> bool {
        match self {
            Self::Update | Self::FailingUpdate => false,
            Self::Undo | Self::Deltas => true,
        }
    }

    /// What the ECUs run before the update whose instants count, and after it.
    fn versions(self) -> (&'static str, &'static str) {
        match self {
            Self::Update | Self::FailingUpdate | Self::Undo => (vehicle::EARLIER, vehicle::NEW),
            Self::Deltas => (vehicle::NEW, NEWEST),
        }
    }
}

/// What came of a case.
struct Outcome {
    at_rest: Option<AtRest>,
    ending: Ending,
    writes: u32,
    changes: BTreeMap<Change, u32>,
    requests: BTreeMap<u16, u32>,
    met: bool,
}

/// One update, struck at one point.
struct Case {
    scenario: Scenario,
    point: Point,
    world: Runtime,
    folder: tempfile::TempDir,
    server: ScriptedServer,
    instants: Arc<Instants>,
    config: GatewayConfig,
    start: StartDownload,
    /// The command whose last word is waited for.
    command: MsgId,
    _vehicle: Vehicle,
}

impl Case {
    fn new(scenario: Scenario, point: Point) -> Self {
        let world = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let instants = Arc::new(Instants::new(point, folder.path(), scenario.versions().1));
        let (server, vehicle, settings) = world.block_on(async {
            let server = ScriptedServer::start().await;
            let timing = EcuTiming { erase_ms: 2, reboot_ms: 5, ..EcuTiming::default() };
            let vehicle = Vehicle::power_up(folder.path(), timing).await;
            if scenario == Scenario::FailingUpdate {
                let unlucky = vehicle.entities.iter().find_map(|entity| entity.ecu(&ecu_id(3))).unwrap();
                unlucky.set_faults(Faults { boots_into_old_bank: true, ..Faults::default() });
            }
            let mut addresses = Vec::new();
            for entity in &vehicle.entities {
                let ecus: HashMap<_, _> = (1..=ECUS)
                    .filter_map(|number| Some((logical_address(number), entity.ecu(&ecu_id(number))?)))
                    .collect();
                addresses.push(doip_way::open(entity.tcp_address(), ecus, instants.clone()).await);
            }
            let settings = vehicle.write_gateway(&server, addresses.try_into().unwrap());
            (server, vehicle, settings)
        });
        let config = GatewayConfig::read(&settings).unwrap();
        watch(&config.state_dir, instants.clone());
        let start = server.offer(ECUS, vehicle::NEW);
        let command = server.send(ServerBody::StartDownload(start.clone()));
        if !scenario.comes_after_an_update() {
            instants.arm();
        }
        Self { scenario, point, start, world, folder, server, instants, config, command, _vehicle: vehicle }
    }

    /// Runs the update to its end, through the point.
    fn run(mut self) -> Result<Outcome, String> {
        let mut life = Life::begin(&self.config);
        if self.scenario.comes_after_an_update() {
            self.world.block_on(self.ended(&life))?;
            self.instants.arm();
            self.command = self.server.send(self.second_command());
        }
        let mut struck = self.instants.struck();
        let ended = self.ended(&life);
        let met = self.world.block_on(async {
            tokio::select! {
                biased;
                _ = struck.wait_for(|struck| *struck) => return Ok(true),
                ended = ended => ended?,
            }
            let met = tokio::time::timeout(AFTER_THE_END, struck.wait_for(|struck| *struck)).await;
            Ok::<_, String>(met.is_ok())
        });
        let met = met.map_err(|what| format!("{what}: {:?}", life.stops_because()))?;
        life = match self.point {
            Point::Write { how: AtWrite::Fails, .. } if met => {
                let stopped = life.stops_because();
                let is_told = |why: &String| why.contains("StorageFull") || why.contains("no storage space");
                if !stopped.as_ref().is_err_and(is_told) {
                    return Err(format!("a failed write does not stop the gateway: {stopped:?}"));
                }
                life.end_at_once();
                Life::begin(&self.config)
            }
            Point::Write { .. } | Point::Request { .. } | Point::File { .. } if met && !self.goes_on() => {
                life.end_at_once();
                self.instants.revive();
                self.config.state_dir = self.instants.copy().to_owned();
                Life::begin(&self.config)
            }
            Point::None
            | Point::Ecu { .. }
            | Point::Write { .. }
            | Point::File { .. }
            | Point::Request { .. } => life,
        };
        let ended = self.world.block_on(self.ended(&life));
        ended.map_err(|what| format!("{what}: {:?}", life.stops_because()))?;
        life.end();
        self.check(met)
    }

    /// What follows on the update that comes before.
    fn second_command(&self) -> ServerBody {
        if self.scenario == Scenario::Deltas {
            return ServerBody::StartDownload(self.server.offer_deltas(&self.start, vehicle::NEW, NEWEST));
        }
        ServerBody::StartRollback(StartRollback {
            correlation_id: None,
            update_id: self.start.update_id.clone(),
            expires_at_ms: later(),
            deadline_s: None,
        })
    }

    /// Resolves when the update has ended and the server has its last word.
    fn ended(&self, life: &Life) -> impl Future<Output = Result<(), String>> + use<> {
        let status = life.gateway.as_ref().map(RunningGateway::status).map_err(ToString::to_string);
        let patience = Instant::now() + PATIENCE;
        let last_word = self.server.last_word(&self.command);
        async move {
            let ended = async {
                let mut status = status?;
                tokio::select! {
                    () = last_word => {}
                    _ = status.wait_for(|_| false) => return Err("the gateway stopped by itself".to_owned()),
                }
                let ended = status.wait_for(|status| status.phase == Some(Phase::Ended)).await;
                ended.map_err(|_| "the gateway stopped by itself".to_owned())?;
                Ok(())
            };
            match tokio::time::timeout_at(patience.into(), ended).await {
                Ok(result) => result,
                Err(_) => Err("the update does not end".to_owned()),
            }
        }
    }

    fn check(&self, met: bool) -> Result<Outcome, String> {
        let violations = self.instants.violations();
        if !violations.is_empty() {
            return Err(violations.join(", "));
        }
        let Some(Record::Ended(ending)) = self.last_record() else {
            return Err("the journal does not say how the update ended".to_owned());
        };
        let folder = self.folder.path();
        let broken = self.broken_for_good().filter(|_| met);
        let others = (1..=ECUS).filter(|number| Some(*number) != broken);
        let (earlier, new) = self.scenario.versions();
        let at_rest = |ecus: Vec<usize>| Vehicle::at_rest_with(folder, ecus, earlier, new);
        let all = at_rest((1..=ECUS).collect());
        let others = at_rest(others.collect())?;
        self.check_images()?;
        let succeeded = |operation| {
            self.reports(|body| matches!(body, VehicleBody::UpdateSuccessResult(result) if result.operation == operation))
        };
        let before = usize::from(self.scenario.comes_after_an_update());
        let (commits, rollbacks) = (succeeded(Operation::Commit) - before, succeeded(Operation::Rollback));
        let said = |code| {
            self.reports(|body| matches!(body, VehicleBody::ErrorResponse(error) if error.code == code))
        };
        let fits = match &ending {
            Ending::Committed => {
                matches!(self.scenario, Scenario::Update | Scenario::Deltas)
                    && all == Ok(AtRest::AllNew)
                    && commits == 1
            }
            Ending::Undone => {
                self.scenario == Scenario::Undo && all == Ok(AtRest::AllEarlier) && rollbacks == 1
            }
            Ending::RolledBack(_) => {
                all == Ok(AtRest::AllEarlier) && commits == 0 && said(ErrorCode::UpdateFailed) == 1
            }
            Ending::ServiceRequired(why) => {
                let named = broken.map(|number| ecu_id(number).parse().unwrap());
                named.is_some()
                    && why.failed_ecus.iter().eq(named.iter())
                    && commits == 0
                    && said(ErrorCode::ServiceRequired) == 1
            }
            Ending::Cancelled | Ending::ConsentDenied(_) => false,
        };
        if !fits {
            return Err(format!(
                "{ending:?}, {commits} commits and {rollbacks} rollbacks reported, and the ECUs: {all:?}, {others:?}"
            ));
        }
        Ok(Outcome {
            at_rest: all.ok(),
            ending,
            writes: self.instants.writes(),
            changes: self.instants.changes(),
            requests: self.instants.requests(),
            met,
        })
    }

    /// Whether the gateway lives on after the point: packages and images are no journal.
    fn goes_on(&self) -> bool {
        matches!(self.point, Point::File { how: AtWrite::Fails, .. })
    }

    /// Every installed image is what its name says, and no package is left over.
    fn check_images(&self) -> Result<(), String> {
        let files = |folder: &str| std::fs::read_dir(self.config.state_dir.join(folder)).unwrap();
        for path in files("images").map(|entry| entry.unwrap().path()) {
            let is_image = path.extension().is_some_and(|extension| extension == "image");
            let named = Sha256::of(&std::fs::read(&path).unwrap()).to_string();
            if is_image && path.file_stem().unwrap().to_str() != Some(&named) {
                return Err(format!("{} is not what its name says", path.display()));
            }
        }
        let left = files("packages").count();
        if left > 0 && !self.goes_on() {
            return Err(format!("{left} packages are left"));
        }
        Ok(())
    }

    fn last_record(&self) -> Option<Record> {
        let journal = Journal::open(&self.config.state_dir).unwrap();
        assert_eq!(journal.fault(), None);
        self.world.block_on(journal.records()).unwrap().pop()
    }

    fn broken_for_good(&self) -> Option<usize> {
        match self.point {
            Point::Ecu { ecu, how: EcuFailure::RefusesForEver | EcuFailure::FallsSilent, .. } => {
                (1..=ECUS).find(|number| logical_address(*number) == ecu)
            }
            Point::None
            | Point::Write { .. }
            | Point::File { .. }
            | Point::Request { .. }
            | Point::Ecu { .. } => None,
        }
    }

    /// How many messages of the vehicle fit, each counted once however often it was sent.
    fn reports(&self, fits: impl Fn(&VehicleBody) -> bool) -> usize {
        self.server.bodies().iter().filter(|body| fits(body)).count()
    }
}

/// What a scenario is made of when nothing else happens.
fn undisturbed(scenario: Scenario) -> Outcome {
    let outcome = Case::new(scenario, Point::None).run().unwrap();
    let expected = match scenario {
        Scenario::Update | Scenario::Deltas => AtRest::AllNew,
        Scenario::FailingUpdate | Scenario::Undo => AtRest::AllEarlier,
    };
    assert_eq!(outcome.at_rest, Some(expected));
    outcome
}

/// Runs every point, several side by side; prints how many there were, how many passed, and how they ended.
fn exhaust(what: &str, scenario: Scenario, points: Vec<Point>) {
    let began = Instant::now();
    let enumerated = points.len();
    let last: Vec<Point> = points.iter().copied().filter(|point| is_last(*point, &points)).collect();
    let queue = Mutex::new(points.into_iter());
    let endings: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let Some(point) = queue.lock().unwrap().next() else { return };
                    match run_until_met(scenario, point) {
                        Ok(outcome) if !outcome.met && !last.contains(&point) => {
                            failures.lock().unwrap().push((point, "the point was not met".to_owned()));
                        }
                        Ok(outcome) => {
                            let needs_service = matches!(outcome.ending, Ending::ServiceRequired(_));
                            let name = match outcome.at_rest {
                                Some(at_rest) if !needs_service => format!("{at_rest:?}"),
                                Some(_) | None => "service required, the ECU named".to_owned(),
                            };
                            *endings.lock().unwrap().entry(name).or_default() += 1;
                        }
                        Err(failure) => failures.lock().unwrap().push((point, failure)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    println!(
        "{what}: points enumerated {enumerated}, passed {}, in {} s; {:?}",
        enumerated - failures.len(),
        began.elapsed().as_secs(),
        endings.into_inner().unwrap()
    );
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A busy machine can make an ECU be asked, or the journal be written, once less or once more: a point that was not met is tried
/// again. What is given has ended as it must, met or not.
fn run_until_met(scenario: Scenario, point: Point) -> Result<Outcome, String> {
    let mut outcome = Case::new(scenario, point).run()?;
    for _ in 0..2 {
        if outcome.met {
            break;
        }
        outcome = Case::new(scenario, point).run()?;
    }
    Ok(outcome)
}

/// Whether a point is at the last write, or the last request to its ECU, of the run that they were counted in: others may have
/// one less.
fn is_last(point: Point, points: &[Point]) -> bool {
    points.iter().all(|other| match (point, *other) {
        (Point::Write { number, .. }, Point::Write { number: other, .. }) => other <= number,
        (Point::Request { ecu, number, .. }, Point::Request { ecu: other_ecu, number: other, .. }) => {
            ecu != other_ecu || other <= number
        }
        (Point::Ecu { ecu, number, .. }, Point::Ecu { ecu: other_ecu, number: other, .. }) => {
            ecu != other_ecu || other <= number
        }
        (Point::File { .. } | Point::None, _) => false,
        (Point::Write { .. } | Point::Request { .. } | Point::Ecu { .. }, _) => true,
    })
}

fn each_request(outcome: &Outcome) -> impl Iterator<Item = (u16, u32)> {
    outcome.requests.iter().flat_map(|(ecu, count)| (1..=*count).map(|number| (*ecu, number)))
}

fn each_write(outcome: &Outcome) -> Vec<Point> {
    let ways = [AtWrite::Before, AtWrite::Torn, AtWrite::After, AtWrite::Fails];
    (1..=outcome.writes).flat_map(|number| ways.map(|how| Point::Write { number, how })).collect()
}

/// Only what is added to a file can be torn.
fn each_change(outcome: &Outcome) -> Vec<Point> {
    let whole = [AtWrite::Before, AtWrite::After, AtWrite::Fails];
    let mut points = Vec::new();
    for (&change, &count) in &outcome.changes {
        let torn = (change == Change::Append).then_some(AtWrite::Torn);
        for number in 1..=count {
            points.extend(whole.into_iter().chain(torn).map(|how| Point::File { change, number, how }));
        }
    }
    points
}

fn each_request_struck(outcome: &Outcome) -> Vec<Point> {
    let ways = [AtRequest::Before, AtRequest::Unanswered, AtRequest::After];
    each_request(outcome)
        .flat_map(|(ecu, number)| ways.map(|how| Point::Request { ecu, number, how }))
        .collect()
}

fn each_request_failing(outcome: &Outcome, ways: &[EcuFailure]) -> Vec<Point> {
    each_request(outcome)
        .flat_map(|(ecu, number)| ways.iter().map(move |how| Point::Ecu { ecu, number, how: *how }))
        .collect()
}

#[test]
fn an_update_struck_at_any_durable_write_ends_all_new_or_all_earlier() {
    let points = each_write(&undisturbed(Scenario::Update));
    exhaust("update, durable writes (before, torn, after, failing)", Scenario::Update, points);
}

#[test]
fn an_update_struck_in_its_download_or_in_the_image_store_ends_all_new_or_all_earlier() {
    let points = each_change(&undisturbed(Scenario::Update));
    exhaust("update, packages and images on disk (before, torn, after, failing)", Scenario::Update, points);
}

#[test]
fn an_update_by_deltas_struck_in_its_download_or_while_images_are_rebuilt_ends_all_new_or_all_earlier() {
    let points = each_change(&undisturbed(Scenario::Deltas));
    exhaust("update by deltas, packages and images on disk", Scenario::Deltas, points);
}

#[test]
fn an_update_struck_at_any_request_to_an_ecu_ends_all_new_or_all_earlier() {
    let points = each_request_struck(&undisturbed(Scenario::Update));
    exhaust("update, requests to ECUs (before, unanswered, after)", Scenario::Update, points);
}

#[test]
fn a_roll_back_struck_at_any_instant_still_brings_every_ecu_back() {
    let outcome = undisturbed(Scenario::FailingUpdate);
    let points = [each_write(&outcome), each_request_struck(&outcome)].concat();
    exhaust("update that is rolled back, every instant", Scenario::FailingUpdate, points);
}

#[test]
fn an_undo_struck_at_any_instant_still_brings_every_ecu_back() {
    let outcome = undisturbed(Scenario::Undo);
    let points = [each_write(&outcome), each_request_struck(&outcome)].concat();
    exhaust("StartRollback, every instant", Scenario::Undo, points);
}

#[test]
fn an_ecu_that_fails_once_or_loses_power_at_any_request_leaves_no_mix() {
    let ways = [EcuFailure::Refuses, EcuFailure::LosesPowerBefore, EcuFailure::LosesPowerAfter];
    let points = each_request_failing(&undisturbed(Scenario::Update), &ways);
    exhaust("update, ECU refuses once, or loses power before or after", Scenario::Update, points);
}

#[test]
fn an_ecu_that_fails_for_good_at_any_request_leaves_no_mix_among_the_others_and_is_named() {
    let ways = [EcuFailure::RefusesForEver, EcuFailure::FallsSilent];
    let broken = logical_address(2);
    let mut points = each_request_failing(&undisturbed(Scenario::Update), &ways);
    points.retain(|point| matches!(point, Point::Ecu { ecu, .. } if *ecu == broken));
    exhaust("update, ECU refuses or is silent from a request on", Scenario::Update, points);
}
