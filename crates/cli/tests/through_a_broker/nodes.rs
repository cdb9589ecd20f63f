//! Servers of one store as processes of their own, and their broker.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use farrier_protocol::Binding;
use farrier_server::pki::{LEAF_VALIDITY, Pki};
use farrier_system_tests::api::Api;
use farrier_system_tests::mosquitto::Mosquitto;
use farrier_system_tests::testbed::{binding, now};
use farrier_system_tests::{PATIENCE, until};
use postgres::{Client, NoTls};

/// The one that serves the files and that the operators of these tests speak to.
const FILES: usize = 1;

pub(crate) struct Nodes {
    folder: tempfile::TempDir,
    pki: Pki,
    broker: Mosquitto,
    database: Database,
    running: [Option<Child>; 2],
    /// Of HTTPS and of the API, once they are known.
    ports: [Option<(u16, u16)>; 2],
}

impl Nodes {
    /// The broker runs, no server does.
    pub(crate) fn new(name: &str, vehicles: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::init(&folder.path().join("pki"), false, now()).unwrap();
        for node in 0..2 {
            let out = folder.path().join(format!("node{node}"));
            pki.issue_node(&format!("farrier-{node}"), &out, LEAF_VALIDITY, false, now()).unwrap();
        }
        let broker = Mosquitto::start(&folder.path().join("broker"), &pki, &rules(vehicles));
        let database = Database::new(name);
        Self { folder, pki, broker, database, running: [None, None], ports: [None, None] }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn broker_port(&self) -> u16 {
        self.broker.port()
    }

    pub(crate) fn broker_log_has(&self, text: &str) -> bool {
        self.broker.log().contains(text)
    }

    pub(crate) fn kill_broker(&mut self) {
        self.broker.kill();
    }

    pub(crate) fn restart_broker(&mut self) {
        self.broker.kill();
        self.broker.restart();
    }

    /// Waits until the server says that it is at the broker, or not.
    pub(crate) async fn says_of_the_broker(&self, expected: &str) {
        until("what the server says of its broker", async || {
            (self.api().readiness().await["checks"]["broker"] == expected).then_some(())
        })
        .await;
    }

    pub(crate) fn certificates(&self, binding: &Binding) -> PathBuf {
        let out = self.folder.path().join("certificates").join(binding.client_id());
        self.pki.issue_vehicle(binding, &out, LEAF_VALIDITY, false, now()).unwrap();
        out
    }

    pub(crate) fn release_public_key(&self) -> PathBuf {
        self.pki.release_public_key()
    }

    pub(crate) fn api(&self) -> Api {
        let port = self.ports[FILES].unwrap().1;
        Api::new(([127, 0, 0, 1], port).into(), &self.data(FILES).join("operator.token"))
    }

    fn data(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("data{node}"))
    }

    /// Starts one and waits until it listens; later starts take the ports of the first.
    pub(crate) fn start(&mut self, node: usize) {
        let (https, operator) = self.ports[node].unwrap_or((0, 0));
        let own = self.folder.path().join(format!("node{node}"));
        // Both send vehicles to the same place for files, as they do behind a load balancer. Until that place has a
        // port, nobody is sent there.
        let base_url = self.ports[FILES]
            .map_or(String::new(), |(https, _)| format!("base_url = 'https://localhost:{https}'\n"));
        let settings = format!(
            "enroll = 'auto'\nfailure_report = true\nnode = 'n{node}'\nimages = '{images}'\npki = '{pki}'\n{base_url}\
             https = '127.0.0.1:{https}'\noperator = '127.0.0.1:{operator}'\n\
             [mqtt]\nmode = 'broker'\n[mqtt.broker]\nurl = 'mqtts://localhost:{broker}'\nca = '{ca}'\n\
             certificate_chain = '{certificate}'\nprivate_key = '{key}'\nallow_classical_key_exchange = true\n\
             session_expiry_s = 2\n\
             [deadlines]\nvci_deadline_s = 5\nreadiness_deadline_s = 5\nsilence_pause_s = 5\nupdate_deadline_s = 30\n\
             verify_deadline_s = 60\n",
            images = self.folder.path().join("images").display(),
            pki = self.folder.path().join("pki").display(),
            broker = self.broker.port(),
            ca = own.join("ca.pem").display(),
            certificate = own.join("cert.pem").display(),
            key = own.join("key.pem").display(),
        );
        let file = self.folder.path().join(format!("node{node}.toml"));
        fs::write(&file, settings).unwrap();
        let log = File::options().create(true).append(true).open(self.log_file(node)).unwrap();
        let listening = self.data(node).join("listening.json");
        // What a killed server left behind.
        let _ = fs::remove_file(&listening);
        let mut child = Command::new(env!("CARGO_BIN_EXE_farrier"))
            .args(["--log", "info", "server", "--config"])
            .arg(file)
            .arg("--data")
            .arg(self.data(node))
            .env("FARRIER_STORE", &self.database.url)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let addresses = loop {
            if let Ok(addresses) = fs::read(&listening) {
                break serde_json::from_slice::<BTreeMap<String, Option<String>>>(&addresses).unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server did not start: {status}\n{}", self.log(node));
            }
            assert!(Instant::now() < deadline, "the server does not listen\n{}", self.log(node));
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(addresses["mqtt"].is_none(), "vehicles connect to the broker only");
        let port =
            |name: &str| addresses[name].as_ref().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
        self.ports[node] = Some((port("https"), port("operator")));
        self.running[node] = Some(child);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut child = self.running[node].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; waits until it has ended.
    pub(crate) fn stop(&mut self, node: usize) {
        let mut child = self.running[node].take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the server does not stop\n{}", self.log(node));
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}\n{}", self.log(node));
    }

    fn log_file(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("log{node}"))
    }

    fn log(&self, node: usize) -> String {
        fs::read_to_string(self.log_file(node)).unwrap_or_default()
    }

    /// Each update went its way without a leap, each step once, and was told to start once; each command is answered
    /// by one message.
    pub(crate) fn assert_nothing_twice(&self) {
        let mut ways: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for row in self.database.rows(
            "SELECT vehicle_update_id, from_state, to_state FROM vehicle_update_step ORDER BY vehicle_update_id, id",
            3,
        ) {
            ways.entry(row[0].clone()).or_default().push((row[1].clone(), row[2].clone()));
        }
        assert!(!ways.is_empty());
        for (update, way) in &ways {
            assert!(way.windows(2).all(|pair| pair[0].1 == pair[1].0), "{update}: {way:?}");
            for state in ["downloading", "succeeded"] {
                let times = way.iter().filter(|(_, to)| to == state).count();
                assert_eq!(times, 1, "{update} was {state} {times} times: {way:?}");
            }
        }
        let starts = self.database.rows(
            "SELECT vehicle_update_id, CAST(COUNT(*) AS TEXT) FROM command WHERE message_type = 'StartDownload' \
             GROUP BY vehicle_update_id",
            2,
        );
        assert!(starts.iter().all(|row| row[1] == "1"), "{starts:?}");
        println!("{} updates went their way once", ways.len());
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for node in 0..2 {
                println!("== node {node}\n{}", self.log(node));
            }
            println!("== broker\n{}", self.broker.log());
        }
    }
}

/// As `farrier broker-rules` writes them.
fn rules(vehicles: u8) -> String {
    let mut rules = String::new();
    for node in 0..2 {
        rules += &format!("user farrier-{node}\ntopic read ota/+/+/up/#\ntopic write ota/+/+/down\n\n");
    }
    for number in 1..=vehicles {
        let binding = binding(number);
        rules += &format!(
            "user {}\ntopic write ota/{binding}/up/#\ntopic read ota/{binding}/down\n\n",
            binding.client_id()
        );
    }
    rules
}

/// A database of a test's own.
struct Database {
    url: String,
    server: String,
    name: String,
}

impl Database {
    fn new(name: &str) -> Self {
        let server = std::env::var("FARRIER_TEST_POSTGRES").expect(
            "this test needs FARRIER_TEST_POSTGRES: the URL of a PostgreSQL server that tests may use; ./scripts/test starts one",
        );
        let name = format!("farrier_broker_{name}_{}", std::process::id());
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        on_postgres(&server, |client| {
            client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).unwrap();
            client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        });
        Self { url, server, name }
    }

    fn rows(&self, sql: &str, columns: usize) -> Vec<Vec<String>> {
        on_postgres(&self.url, |client| {
            let rows = client.query(sql, &[]).unwrap();
            rows.iter().map(|row| (0..columns).map(|column| row.get(column)).collect()).collect()
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = &self.name;
        on_postgres(&self.server, |client| {
            client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).unwrap();
        });
    }
}

/// On a thread of its own: the client brings its own runtime, and tests are in another.
fn on_postgres<T: Send>(url: &str, work: impl FnOnce(&mut Client) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| work(&mut Client::connect(url, NoTls).unwrap()));
        working.join().unwrap()
    })
}
