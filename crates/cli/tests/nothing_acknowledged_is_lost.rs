//! The real server under load, killed with SIGKILL again and again, and with a disk whose syncs fail: what it has
//! acknowledged it still knows, and nothing has its effect twice. FARRIER_KILLS says how often it is killed per database
//! (100 if it does not), FARRIER_SEED repeats a run's instants.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests: a panic is how they say what is wrong"
)]

#[path = "acknowledged/server.rs"]
mod server;
#[path = "acknowledged/vehicle.rs"]
mod vehicle;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use farrier_system_tests::failing_sync::FailingSync;
use server::{Database, Server, binding};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vehicle::{Memory, Vehicle};

const VEHICLES: usize = 8;
/// A campaign starts every so many lives of the server.
const LIVES_PER_CAMPAIGN: u64 = 10;

/// SplitMix64: instants need to be spread, and to come again from the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn from_environment(name: &str, otherwise: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).ok().map_or_else(otherwise, |value| value.parse().unwrap())
}

/// Vehicles that live until they are asked to rest.
struct Fleet {
    rest: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    memories: BTreeMap<String, Arc<Mutex<Memory>>>,
}

impl Fleet {
    fn begin(server: &Server, seed: u64) -> Self {
        let rest = CancellationToken::new();
        let (mut tasks, mut memories) = (Vec::new(), BTreeMap::new());
        for number in 1..=VEHICLES {
            let binding = binding(number);
            let certificates = server.certificates(&binding);
            let vehicle = Vehicle::new(binding.clone(), certificates, server.mqtt(), seed + number as u64);
            memories.insert(binding.vehicle_id.to_string(), vehicle.memory());
            tasks.push(tokio::spawn(vehicle.live(rest.clone())));
        }
        Self { rest, tasks, memories }
    }

    /// Lets every vehicle bring out what it has to say.
    async fn rest(self) -> BTreeMap<String, Memory> {
        self.rest.cancel();
        for task in self.tasks {
            tokio::time::timeout(Duration::from_secs(90), task)
                .await
                .expect("a vehicle comes to rest")
                .unwrap();
        }
        self.memories.into_iter().map(|(id, memory)| (id, memory.lock().unwrap().clone())).collect()
    }
}

async fn start_campaign(server: &Server, number: u64) {
    let version = (number + 2).to_string();
    let image = format!("image of version {version}").into_bytes();
    server.api().start_campaign(&format!("C{version}"), &version, &[("HW-1".to_owned(), image)]).await;
}

async fn kill_loop(what: &str, database: Database) {
    let started = Instant::now();
    let kills = from_environment("FARRIER_KILLS", || 100);
    let seed = from_environment("FARRIER_SEED", || RandomState::new().build_hasher().finish() >> 16);
    println!("{what}: {kills} kills with FARRIER_SEED={seed}");
    let mut random = Random(seed);
    let mut server = Server::new(database, Vec::new());
    server.start();
    let fleet = Fleet::begin(&server, seed);
    for life in 0..kills {
        if life > 0 {
            server.start();
        }
        if life % LIVES_PER_CAMPAIGN == 0 {
            start_campaign(&server, life / LIVES_PER_CAMPAIGN).await;
        }
        tokio::time::sleep(Duration::from_millis(50 + random.below(350))).await;
        server.kill();
    }
    server.start();
    let memories = fleet.rest().await;
    server.stop();
    let comparison = server.compare(&memories);
    comparison.print(what, started.elapsed());
    assert!(comparison.missing.is_empty(), "{:#?}", comparison.missing);
    assert!(comparison.twice.is_empty(), "{:#?}", comparison.twice);
    assert!(comparison.succeeded > 0 && comparison.acknowledged as u64 > kills, "{comparison:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_keeps_what_it_has_acknowledged_in_sqlite() {
    kill_loop("SQLite", Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_keeps_what_it_has_acknowledged_in_postgresql() {
    kill_loop("PostgreSQL", Database::new_on_postgres("kill_loop")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_syncs_fail_acknowledges_nothing_more_and_ends() {
    let started = Instant::now();
    let mut random =
        Random(from_environment("FARRIER_SEED", || RandomState::new().build_hasher().finish() >> 16));
    let shim = FailingSync::new();
    shim.count("farrier.db");
    let mut server = Server::new(Database::Sqlite, shim.environment().to_vec());
    server.start();
    let fleet = Fleet::begin(&server, 1);
    for life in 0..5 {
        if life > 0 {
            server.start();
        }
        start_campaign(&server, life).await;
        tokio::time::sleep(Duration::from_millis(100 + random.below(200))).await;
        shim.take_syncs();
        shim.fail(1..=u32::MAX, "farrier.db");
        let status = server.ends();
        assert_eq!(status.code(), Some(1), "{}", server.log());
        assert!(server.log().contains("disk or file failed"), "{}", server.log());
        let synced_afterwards = shim.take_syncs().iter().skip_while(|sync| !sync.failed).count();
        assert!(synced_afterwards >= 1, "a sync failed");
        shim.count("farrier.db");
    }
    server.start();
    let memories = fleet.rest().await;
    server.stop();
    let comparison = server.compare(&memories);
    comparison.print("SQLite with failed syncs", started.elapsed());
    assert!(comparison.missing.is_empty(), "{:#?}", comparison.missing);
    assert!(comparison.twice.is_empty(), "{:#?}", comparison.twice);
}
