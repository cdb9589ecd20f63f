//! The real `farrier server` as another process, and what its store holds when it has stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use farrier_protocol::{Binding, UnixMillis};
use farrier_server::pki::{LEAF_VALIDITY, Pki};
use farrier_system_tests::api::Api;
use postgres::{Client, NoTls};

use crate::vehicle::Memory;

const PATIENCE: Duration = Duration::from_secs(60);

/// Which database the store is in.
pub(crate) enum Database {
    Sqlite,
    /// The URL of a database of this test's own, and of the server that it is made on.
    Postgres {
        url: String,
        server: String,
        name: String,
    },
}

impl Database {
    pub(crate) fn new_on_postgres(name: &str) -> Self {
        let server = std::env::var("FARRIER_TEST_POSTGRES").expect(
            "this test needs FARRIER_TEST_POSTGRES: the URL of a PostgreSQL server that tests may use; ./scripts/test starts one",
        );
        let name = format!("farrier_{name}_{}", std::process::id());
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        on_postgres(&server, |client| {
            client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).unwrap();
            client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        });
        Self::Postgres { url, server, name }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Postgres { server, name, .. } = self {
            on_postgres(server, |client| {
                client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).unwrap();
            });
        }
    }
}

/// On a thread of its own: the client brings its own runtime, and tests are in another.
fn on_postgres<T: Send>(url: &str, work: impl FnOnce(&mut Client) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| work(&mut Client::connect(url, NoTls).unwrap()));
        working.join().unwrap()
    })
}

pub(crate) struct Server {
    folder: tempfile::TempDir,
    database: Database,
    environment: Vec<(&'static str, PathBuf)>,
    pki: Pki,
    running: Option<Child>,
    ports: Option<(u16, u16, u16)>,
}

impl Server {
    pub(crate) fn new(database: Database, environment: Vec<(&'static str, PathBuf)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::init(&folder.path().join("pki"), false, now()).unwrap();
        Self { folder, database, environment, pki, running: None, ports: None }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the program and waits until it listens; later starts take the ports of the first.
    pub(crate) fn start(&mut self) {
        let (mqtt, https, operator) = self.ports.unwrap_or((0, 0, 0));
        let settings = self.folder.path().join("server.toml");
        // Reboots are counted, and nobody is quarantined for them.
        std::fs::write(&settings, "[deadlines.boot_loop]\nreboots = 1000000\n").unwrap();
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let listening = self.data().join("listening.json");
        // What a killed server left behind.
        let _ = std::fs::remove_file(&listening);
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
        command.args(["--log", "warn", "server", "--enroll", "auto"]);
        command.arg("--config").arg(settings).arg("--data").arg(self.data());
        command.arg("--pki").arg(self.folder.path().join("pki"));
        for (option, port) in [("--mqtt", mqtt), ("--https", https), ("--operator", operator)] {
            command.arg(option).arg(format!("127.0.0.1:{port}"));
        }
        command.env_remove("FARRIER_STORE").envs(self.environment.iter().cloned());
        if let Database::Postgres { url, .. } = &self.database {
            command.env("FARRIER_STORE", url);
        }
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let addresses = loop {
            if let Ok(addresses) = std::fs::read(&listening) {
                break serde_json::from_slice::<BTreeMap<String, String>>(&addresses).unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server did not start: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the server does not listen\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        };
        let port = |name: &str| addresses[name].rsplit_once(':').unwrap().1.parse().unwrap();
        self.ports = Some((port("mqtt"), port("https"), port("operator")));
        self.running = Some(child);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.running.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; waits until it has ended.
    pub(crate) fn stop(&mut self) {
        let child = self.running.as_ref().unwrap();
        let stopped = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(stopped.success());
        let status = self.ends();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Waits until it ends by itself.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let mut child = self.running.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the server did not end\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn mqtt(&self) -> u16 {
        self.ports.unwrap().0
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(([127, 0, 0, 1], self.ports.unwrap().2).into(), &self.data().join("operator.token"))
    }

    pub(crate) fn certificates(&self, binding: &Binding) -> PathBuf {
        let out = self.folder.path().join("certificates").join(binding.client_id());
        self.pki.issue_vehicle(binding, &out, LEAF_VALIDITY, false, now()).unwrap();
        out
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The rows of a query, every column a text.
    fn rows(&self, sql: &str, columns: usize) -> Vec<Vec<String>> {
        match &self.database {
            Database::Sqlite => {
                let file = rusqlite::Connection::open(self.data().join("farrier.db")).unwrap();
                let mut statement = file.prepare(sql).unwrap();
                let rows =
                    statement.query_map((), |row| (0..columns).map(|column| row.get(column)).collect());
                rows.unwrap().map(Result::unwrap).collect()
            }
            Database::Postgres { url, .. } => on_postgres(url, |client| {
                let rows = client.query(sql, &[]).unwrap();
                rows.iter().map(|row| (0..columns).map(|column| row.get(column)).collect()).collect()
            }),
        }
    }

    /// Holds the store of a server that has stopped against what the vehicles know.
    pub(crate) fn compare(&self, memories: &BTreeMap<String, Memory>) -> Comparison {
        let pairs = |sql: &str| -> BTreeSet<(String, String)> {
            self.rows(sql, 2).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
        };
        let accepted = pairs("SELECT vehicle_id, msg_id FROM inbound_message");
        let refused = pairs("SELECT vehicle_id, msg_id FROM refused_message WHERE msg_id IS NOT NULL");
        let mut comparison = Comparison {
            acknowledged: memories.values().map(|memory| memory.acknowledged.len()).sum(),
            repeated: memories.values().map(|memory| memory.repeated).sum(),
            refused: refused.len(),
            ..Comparison::default()
        };
        for (vehicle, memory) in memories {
            for id in &memory.acknowledged {
                let key = (vehicle.clone(), id.clone());
                if !accepted.contains(&key) && !refused.contains(&key) {
                    comparison.missing.push(format!("{vehicle} {id}"));
                }
            }
        }
        // A repetition that was taken for something new fits no open command any more.
        comparison
            .twice
            .extend(accepted.intersection(&refused).map(|(vehicle, id)| format!("{vehicle} {id}")));
        for row in self.rows("SELECT vehicle_id, recent_reboots FROM vehicle", 2) {
            let reboots: Vec<serde_json::Value> = serde_json::from_str(&row[1]).unwrap();
            let boots = memories[&row[0]].boots;
            comparison.boots += boots;
            if reboots.len() as u64 != boots - 1 {
                comparison.twice.push(format!(
                    "{}: {} reboots counted, {} made",
                    row[0],
                    reboots.len(),
                    boots - 1
                ));
            }
        }
        self.compare_updates(&mut comparison);
        comparison
    }

    /// Each update went its way without a leap, each step once, and was told to start once.
    fn compare_updates(&self, comparison: &mut Comparison) {
        let steps = self.rows(
            "SELECT vehicle_update_id, from_state, to_state FROM vehicle_update_step ORDER BY vehicle_update_id, id",
            3,
        );
        let mut ways: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for row in steps {
            ways.entry(row[0].clone()).or_default().push((row[1].clone(), row[2].clone()));
        }
        let starts = self.rows(
            "SELECT vehicle_update_id, CAST(COUNT(*) AS TEXT) FROM command WHERE message_type = 'StartDownload' \
             GROUP BY vehicle_update_id",
            2,
        );
        let starts: BTreeMap<_, _> = starts.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        for (update, way) in &ways {
            comparison.steps += way.len();
            let is_continuous = way.windows(2).all(|pair| pair[0].1 == pair[1].0);
            let times = |state: &str| way.iter().filter(|(_, to)| to == state).count();
            let is_once = ["downloading", "installing", "committing", "succeeded"]
                .iter()
                .all(|state| times(state) <= 1);
            let is_started_once = starts.get(update).is_none_or(|starts| starts == "1");
            if !is_continuous || !is_once || !is_started_once {
                comparison.twice.push(format!("{update}: {way:?}, started {:?}", starts.get(update)));
            }
            comparison.succeeded += times("succeeded");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What came of a comparison.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) acknowledged: usize,
    pub(crate) repeated: usize,
    pub(crate) refused: usize,
    pub(crate) boots: u64,
    pub(crate) steps: usize,
    pub(crate) succeeded: usize,
    /// Acknowledged messages that the store does not know.
    pub(crate) missing: Vec<String>,
    /// Effects that were had more than once.
    pub(crate) twice: Vec<String>,
}

impl Comparison {
    pub(crate) fn print(&self, what: &str, took: Duration) {
        println!(
            "{what}: {} messages acknowledged, {} of them sent again on purpose, {} refused; {} boots, {} steps of vehicle \
             updates, {} updates succeeded; missing afterwards {}, effects had twice {}; {:.0} s",
            self.acknowledged,
            self.repeated,
            self.refused,
            self.boots,
            self.steps,
            self.succeeded,
            self.missing.len(),
            self.twice.len(),
            took.as_secs_f64()
        );
    }
}

pub(crate) fn binding(number: usize) -> Binding {
    Binding {
        vehicle_id: format!("VEH_{number:03}").parse().unwrap(),
        gateway_id: format!("CCU_{number:03}").parse().unwrap(),
    }
}

fn now() -> UnixMillis {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixMillis(since_1970.as_millis().try_into().unwrap())
}
