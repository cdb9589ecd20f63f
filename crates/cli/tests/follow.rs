//! A campaign is followed to its end: by `--wait`, whose exit codes tell how it went, and by `campaign watch` in a terminal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A server, and one simulated vehicle that is connected to it; both end with it. VEH_009 is enrolled and away.
struct Site {
    folder: tempfile::TempDir,
    operator: String,
    children: Vec<Child>,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut site = Self { folder, operator: String::new(), children: Vec::new() };
        let (pki, data, vehicle) = (site.path("pki"), site.path("data"), site.path("vehicle"));
        site.done(&["pki", "init", text(&pki)]);
        let certificates = vehicle.join("certificates");
        let of = ["--vehicle", "VEH_001", "--gateway", "CCU_001", "--out", text(&certificates)];
        site.done(&[&["pki", "issue-vehicle", text(&pki)], &of[..]].concat());
        let free = "127.0.0.1:0";
        let mut server = site.farrier();
        server.args(["server", "--data", text(&data), "--pki", text(&pki), "--enroll", "auto"]);
        server.args(["--mqtt", free, "--https", free, "--operator", free]);
        site.started(server, "Ctrl-C");
        let listening = std::fs::read(data.join("listening.json")).unwrap();
        let listening: Value = serde_json::from_slice(&listening).unwrap();
        site.operator = listening["operator"].as_str().unwrap().to_owned();
        let config = vehicle.join("vehicle.toml");
        let settings = format!(
            "vehicle_id = \"VEH_001\"\ngateway_id = \"CCU_001\"\nserver = {}\ncertificates = \"certificates\"\n\
             release_public_key = \"../pki/release.pub.pem\"\nstate_dir = \"state\"\n\
             [[controller]]\nname = \"powertrain\"\ndomain = \"powertrain\"\n\
             [[controller.ecu]]\necu_id = \"ecu_001\"\nhw_part_no = \"HW-1\"\n",
            listening["mqtt"]
        );
        std::fs::write(&config, settings).unwrap();
        let mut simulated = site.farrier();
        simulated.args(["simulate", "vehicle", "--config", text(&config)]);
        site.started(simulated, "looks for its server");
        let image = site.path("image.bin");
        std::fs::write(&image, vec![7; 100_000]).unwrap();
        let image = format!("hw=HW-1,version=2.0.0,file={}", text(&image));
        let key = pki.join("release.key.pem");
        site.done(&["release", "create", "r1", "--image", &image, "--release-key", text(&key)]);
        site.done(&["vehicle", "enroll", "VEH_009", "--gateway", "CCU_009"]);
        while !site.done(&["vehicle", "list", "--where", "ecu.id is known"]).contains("VEH_001") {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn farrier(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
        self.at_home(&mut command);
        command
    }

    /// What speaks to this server, and to no other.
    fn at_home(&self, command: &mut Command) {
        for variable in ["FARRIER_LOG", "FARRIER_STORE", "NO_COLOR"] {
            command.env_remove(variable);
        }
        command.env("FARRIER_SERVER", &self.operator).env("FARRIER_CA", self.path("data/operator.ca.pem"));
        match std::fs::read_to_string(self.path("data/operator.token")) {
            Ok(token) => command.env("FARRIER_TOKEN", token.trim()),
            Err(_) => command.env_remove("FARRIER_TOKEN"),
        };
        command.stdin(Stdio::null());
    }

    /// Starts a program and waits until it says this.
    fn started(&mut self, mut command: Command, says: &str) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        self.children.push(child);
        assert!(lines.any(|line| line.contains(says)), "it did not start");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.farrier().args(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        self.ends_with(0, arguments)
    }

    /// What it prints.
    fn ends_with(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
        format!("{out}{err}")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn waiting_ends_with_how_the_campaign_went_and_never_with_the_campaign() {
    let site = Site::start();
    // A vehicle that is away keeps its campaign from ending.
    site.done(&["campaign", "create", "away", "--release", "r1", "--vehicle", "VEH_009"]);
    let said = site.ends_with(8, &["campaign", "start", "away", "--wait", "--timeout", "1s"]);
    assert!(said.contains("0 of 1 vehicle(s) done: 1 waiting") && said.contains("it goes on"), "{said}");

    let mut waits = site.farrier();
    waits.args(["campaign", "resume", "away", "--wait", "--json"]).stdout(Stdio::piped());
    let mut waits = waits.spawn().unwrap();
    let mut lines = BufReader::new(waits.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The answer to the command, then the first look.
    for _ in 0..2 {
        let line: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert_eq!((&line["name"], &line["state"]), (&"away".into(), &"running".into()));
    }
    Command::new("kill").args(["-INT", &waits.id().to_string()]).status().unwrap();
    let last: Value = serde_json::from_str(&lines.last().unwrap()).unwrap();
    assert_eq!((&last["ended"], &last["exit_code"]), (&"interrupted".into(), &130.into()));
    assert_eq!(waits.wait().unwrap().code(), Some(130));
    assert!(site.done(&["campaign", "show", "away"]).contains("running"), "Ctrl-C stopped the campaign");

    // One that is aborted meanwhile ends the waiting of others as something that was not wished for.
    let mut other = site.farrier();
    other.args(["campaign", "watch", "away"]).stdout(Stdio::piped());
    let mut other = other.spawn().unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().unwrap().contains("running"));
    let said = site.done(&["campaign", "abort", "away", "--reason", "enough", "--wait", "--timeout", "1m"]);
    assert!(said.contains("Campaign away is over: 1 cancelled."), "{said}");
    assert_eq!(lines.last().unwrap(), "Campaign away was aborted: 1 cancelled. Reason: enough");
    assert_eq!(other.wait().unwrap().code(), Some(7));

    site.done(&["campaign", "create", "here", "--release", "r1", "--vehicle", "VEH_001"]);
    let lines = site.done(&["campaign", "start", "here", "--wait", "--timeout", "2m", "--json"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["ended"], &last["exit_code"]), (&"done".into(), &0.into()), "{lines:?}");

    // Refusals keep their own codes.
    let said = site.ends_with(3, &["campaign", "resume", "away", "--wait"]);
    assert!(said.contains("was aborted, which is for good"), "{said}");
    site.ends_with(4, &["campaign", "start", "nowhere", "--wait"]);
    site.ends_with(4, &["campaign", "watch", "nowhere"]);
    site.ends_with(3, &["campaign", "create", "here", "--release", "r1"]);
    site.ends_with(5, &["vehicle", "list", "--token", "wrong"]);
}

#[test]
fn a_campaign_is_watched_in_a_terminal_which_is_as_before_afterwards() {
    let site = Site::start();
    site.done(&["campaign", "create", "watched", "--release", "r1", "--vehicle", "VEH_001"]);
    let python = std::env::var("FARRIER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../system-tests/peers/watch_in_a_terminal.py");
    let mut command = Command::new(&python);
    site.at_home(&mut command);
    command.args([script, env!("CARGO_BIN_EXE_farrier"), "watched"]);
    let output = command.output().unwrap_or_else(|error| panic!("expected to run {python}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
