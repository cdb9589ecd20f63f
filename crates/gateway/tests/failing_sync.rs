//! The real program on a disk that fails to sync: each fsync and fdatasync of an update fails, one at a time,
//! below SQLite. One of the journal's stops the program; after a restart the update ends as after a power cut.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests: a panic is how they say what is wrong"
)]

#[path = "../../system-tests/src/failing_sync.rs"]
#[allow(unreachable_pub, reason = "it is public where it comes from")]
mod failing_sync;
#[path = "conversation/scripted_server.rs"]
#[allow(dead_code, reason = "the tests of conversations use more of it")]
mod scripted_server;
#[path = "interruption/vehicle.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod vehicle;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::time::Duration;

use failing_sync::FailingSync;
use farrier_gateway::StatusReport;
use farrier_protocol::{MsgId, Operation, ServerBody, VehicleBody};
use farrier_simulator::ecu::EcuTiming;
use scripted_server::ScriptedServer;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use vehicle::{AtRest, ECUS, Vehicle};

const PATIENCE: Duration = Duration::from_secs(60);
const SIDE_BY_SIDE: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often a sync is tried again that another run did not come to.
const TRIES: usize = 3;

/// Where a sync was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Journal,
    /// The names of the journal's files. The program syncs them when it opens the journal and stops if it
    /// cannot; SQLite does so once more, and does not look at the result.
    Names,
    Packages,
    Images,
}

impl Part {
    fn of(path: &Path) -> Self {
        let is_below = |folder| path.components().any(|part| part.as_os_str() == folder);
        match (is_below("packages"), is_below("images")) {
            (true, _) => Self::Packages,
            (false, true) => Self::Images,
            (false, false) if path.ends_with("state") => Self::Names,
            (false, false) => Self::Journal,
        }
    }
}

/// A vehicle, a server that has sent an update, and the program's files.
struct Case {
    world: Runtime,
    folder: TempDir,
    server: ScriptedServer,
    _vehicle: Vehicle,
    settings: PathBuf,
    command: MsgId,
}

impl Case {
    fn new() -> Self {
        let world = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (server, vehicle, settings) = world.block_on(async {
            let server = ScriptedServer::start().await;
            let timing = EcuTiming { erase_ms: 2, reboot_ms: 5, ..EcuTiming::default() };
            let vehicle = Vehicle::power_up(folder.path(), timing).await;
            let addresses: Vec<_> = vehicle.entities.iter().map(|entity| entity.tcp_address()).collect();
            let settings = vehicle.write_gateway(&server, addresses.try_into().unwrap());
            (server, vehicle, settings)
        });
        let command = server.send(ServerBody::StartDownload(server.offer(ECUS, vehicle::NEW)));
        Self { world, folder, server, _vehicle: vehicle, settings, command }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("gateway.log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// One life of the program: until it stops by itself, or has ended the update and told so.
    fn live(&self, disk: &FailingSync) -> Result<Option<ExitStatus>, String> {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier-gateway"));
        command.arg("--config").arg(&self.settings).env("RUST_LOG", "info").envs(disk.environment());
        let mut gateway = command.stderr(log).spawn().unwrap();
        let lived = self.world.block_on(async {
            let ended = async {
                while !is_ended(&self.state_dir()).await {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                self.server.last_word(&self.command).await;
            };
            let stopped = async {
                loop {
                    if let Some(status) = gateway.try_wait().unwrap() {
                        return status;
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            tokio::select! {
                status = stopped => Ok(Some(status)),
                () = ended => Ok(None),
                () = tokio::time::sleep(PATIENCE) => Err("the update does not end"),
            }
        });
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        lived.map_err(|what| format!("{what}\n{}", self.said()))
    }

    /// What the ECUs run now that all has ended, if journal and reports say the same.
    fn at_rest(&self) -> Result<AtRest, String> {
        let at_rest = Vehicle::at_rest(self.folder.path(), 1..=ECUS)?;
        let is_commit = |body: &VehicleBody| matches!(body, VehicleBody::UpdateSuccessResult(result) if result.operation == Operation::Commit);
        let commits = self.server.bodies().iter().filter(|body| is_commit(body)).count();
        let expected = match at_rest {
            AtRest::AllNew => 1,
            AtRest::AllEarlier => 0,
        };
        if commits == expected {
            Ok(at_rest)
        } else {
            Err(format!("{at_rest:?}, {commits} commits reported"))
        }
    }
}

async fn is_ended(state_dir: &Path) -> bool {
    StatusReport::ask(state_dir).await.is_ok_and(|status| status.phase.as_deref() == Some("ended"))
}

/// One update in which this sync fails; what came of it, nothing if the update did not come to that sync.
fn strike(disk: &FailingSync, number: u32) -> Result<Option<(Part, AtRest)>, String> {
    let case = Case::new();
    let disk = disk.for_others();
    disk.fail(number..=number, "/state");
    let stopped = case.live(&disk)?;
    let Some(failed) = disk.take_syncs().into_iter().find(|sync| sync.failed) else { return Ok(None) };
    let part = Part::of(&failed.path);
    let told = |what| Err(format!("{what}: {} ({part:?})\n{}", failed.path.display(), case.said()));
    match (part, stopped) {
        (Part::Journal, None) => return told("the journal failed to sync, and the program goes on"),
        (Part::Journal | Part::Names, Some(status)) if status.code() != Some(1) => {
            return told("it does not say why it stops");
        }
        (Part::Packages | Part::Images, Some(_)) => return told("it stops although its journal is sound"),
        (Part::Journal | Part::Names, Some(_)) => {
            disk.count("/state");
            if case.live(&disk)?.is_some() {
                return told("it does not start again");
            }
        }
        (Part::Names | Part::Packages | Part::Images, None) => {}
    }
    case.at_rest().map(|at_rest| Some((part, at_rest)))
}

fn strike_until_met(disk: &FailingSync, number: u32) -> Result<(Part, AtRest), String> {
    for _ in 0..TRIES {
        if let Some(outcome) = strike(disk, number)? {
            return Ok(outcome);
        }
    }
    Err("no update came to this sync".to_owned())
}

#[test]
fn a_sync_that_fails_in_the_journal_stops_the_program_and_no_failed_sync_leaves_a_mix() {
    let disk = FailingSync::new();
    let undisturbed = Case::new();
    disk.count("/state");
    assert_eq!(undisturbed.live(&disk).unwrap(), None);
    assert_eq!(undisturbed.at_rest(), Ok(AtRest::AllNew));
    let enumerated = u32::try_from(disk.take_syncs().len()).unwrap();
    let numbers = Mutex::new(1..=enumerated);
    let outcomes: Mutex<BTreeMap<(Part, AtRest), usize>> = Mutex::default();
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let Some(number) = numbers.lock().unwrap().next() else { return };
                    match strike_until_met(&disk, number) {
                        Ok(outcome) => *outcomes.lock().unwrap().entry(outcome).or_default() += 1,
                        Err(failure) => failures.lock().unwrap().push(format!("sync {number}: {failure}")),
                    }
                }
            });
        }
    });
    let (outcomes, failures) = (outcomes.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("syncs enumerated {enumerated}, passed {}; {outcomes:?}", outcomes.values().sum::<usize>());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let parts: BTreeSet<Part> = outcomes.keys().map(|(part, _)| *part).collect();
    assert_eq!(
        parts,
        BTreeSet::from([Part::Journal, Part::Names, Part::Packages, Part::Images]),
        "all were struck"
    );
}
