//! The real program, killed with SIGKILL at random instants of updates, again and again. FARRIER_KILLS says how
//! often (200 if it does not), FARRIER_SEED repeats a run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests: a panic is how they say what is wrong"
)]

#[path = "conversation/scripted_server.rs"]
#[allow(dead_code, reason = "the tests of conversations use more of it")]
mod scripted_server;
#[path = "interruption/vehicle.rs"]
mod vehicle;

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use farrier_protocol::{Operation, ServerBody, VehicleBody};
use farrier_simulator::ecu::EcuTiming;
use scripted_server::ScriptedServer;
use tokio::runtime::Builder;
use vehicle::{AtRest, ECUS, Vehicle};

const PATIENCE: Duration = Duration::from_secs(60);
const SIDE_BY_SIDE: usize = 4;

/// SplitMix64: instants need to be spread, and to come again from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What came of one update.
struct Outcome {
    at_rest: AtRest,
    kills: u64,
    recoveries: usize,
    last_life: Duration,
}

fn spawn(settings: &Path, log: &File) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier-gateway"));
    command.arg("--config").arg(settings).env("RUST_LOG", "info");
    command.stderr(log.try_clone().unwrap()).spawn().unwrap()
}

/// One update; the program is killed after each of these times since its start, then left alone.
fn update(delays: &[Duration]) -> Result<Outcome, String> {
    let world = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (server, _vehicle, settings) = world.block_on(async {
        let server = ScriptedServer::start().await;
        let timing = EcuTiming {
            erase_ms: 5,
            block_ms: 5,
            reboot_ms: 10,
            max_block_length: 20_000,
            ..EcuTiming::default()
        };
        let vehicle = Vehicle::power_up(folder.path(), timing).await;
        let addresses: Vec<_> = vehicle.entities.iter().map(|entity| entity.tcp_address()).collect();
        let settings = vehicle.write_gateway(&server, addresses.try_into().unwrap());
        (server, vehicle, settings)
    });
    let command = server.send(ServerBody::StartDownload(server.offer(ECUS, vehicle::NEW)));
    let log_path = folder.path().join("gateway.log");
    let log = File::create(&log_path).unwrap();
    for delay in delays {
        let mut gateway = spawn(&settings, &log);
        std::thread::sleep(*delay);
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }
    let began = Instant::now();
    let mut gateway = spawn(&settings, &log);
    let told = world.block_on(async { tokio::time::timeout(PATIENCE, server.last_word(&command)).await });
    let last_life = began.elapsed();
    // What was told is durable: the program may go as it went before.
    let stopped = gateway.try_wait().unwrap();
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    let said = std::fs::read_to_string(&log_path).unwrap();
    if told.is_err() || stopped.is_some() {
        return Err(format!("told the server: {}, stopped by itself: {stopped:?}\n{said}", told.is_ok()));
    }
    let at_rest = Vehicle::at_rest(folder.path(), 1..=ECUS).map_err(|mix| format!("{mix}\n{said}"))?;
    let is_commit = |body: &VehicleBody| matches!(body, VehicleBody::UpdateSuccessResult(result) if result.operation == Operation::Commit);
    let commits = server.bodies().iter().filter(|body| is_commit(body)).count();
    let ending = ending(&folder.path().join("state"));
    let expected = match at_rest {
        AtRest::AllNew => (1, "\"Committed\""),
        AtRest::AllEarlier => (0, "{\"RolledBack\""),
    };
    if commits != expected.0 || !ending.contains(expected.1) {
        return Err(format!("{at_rest:?}, {commits} commits reported, the journal says {ending}\n{said}"));
    }
    let recoveries = said.matches("The journal holds an update").count();
    Ok(Outcome { at_rest, kills: delays.len() as u64, recoveries, last_life })
}

/// The last record of the journal.
fn ending(state_dir: &Path) -> String {
    let journal = rusqlite::Connection::open(state_dir.join("journal.sqlite3")).unwrap();
    let last = "SELECT content FROM record ORDER BY sequence DESC LIMIT 1";
    journal.query_row(last, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_gateway_that_is_killed_at_random_leaves_all_ecus_new_or_all_as_they_were() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let wanted = number("FARRIER_KILLS").unwrap_or(200);
    let seed = number("FARRIER_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("FARRIER_KILLS={wanted} FARRIER_SEED={seed}");
    let undisturbed = update(&[]).unwrap();
    assert_eq!((undisturbed.at_rest, undisturbed.recoveries), (AtRest::AllNew, 0));

    // Machines differ: an instant is drawn from the time that an update takes on this one, several at a time.
    let longest_us = u64::try_from(undisturbed.last_life.as_micros()).unwrap() * 3 / 2;
    let random = Mutex::new((Random(seed), 0));
    let next_update = || {
        let (random, planned) = &mut *random.lock().unwrap();
        let kills = (1 + random.below(3)).min(wanted - *planned);
        *planned += kills;
        let delay = |_| Duration::from_micros(random.below(longest_us));
        (0..kills).map(delay).collect::<Vec<_>>()
    };
    let outcomes: Mutex<Vec<Result<Outcome, String>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let delays = next_update();
                    if delays.is_empty() {
                        return;
                    }
                    let outcome =
                        update(&delays).map_err(|failure| format!("killed at {delays:?}: {failure}"));
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let (mut kills, mut recoveries, mut endings, mut failures) = (0, 0, BTreeMap::new(), Vec::new());
    for outcome in outcomes.into_inner().unwrap() {
        match outcome {
            Ok(outcome) => {
                kills += outcome.kills;
                recoveries += outcome.recoveries;
                *endings.entry(outcome.at_rest).or_insert(0) += 1;
            }
            Err(failure) => failures.push(failure),
        }
    }
    println!(
        "{kills} kills, {recoveries} recoveries from the journal, vehicles {endings:?}, {} failed",
        failures.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert_eq!(kills, wanted);
}
