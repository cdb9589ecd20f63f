//! The farrier-gateway program: what it says and how it ends.

#![allow(clippy::unwrap_used, reason = "tests: a panic is how they say what is wrong")]

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use farrier_protocol::{Binding, UnixMillis};
use farrier_server::pki::{LEAF_VALIDITY, Pki};

fn gateway(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier-gateway"));
    command.arg("--config").arg(config).stderr(Stdio::piped());
    command
}

fn fails(config: &Path) -> String {
    let Output { status, stderr, .. } = gateway(config).output().unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

/// A folder with all that a gateway needs, and its settings.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = UnixMillis(now.as_millis().try_into().unwrap());
    let pki = Pki::init(&path("pki"), false, now).unwrap();
    let binding = Binding { vehicle_id: "VEH_001".parse().unwrap(), gateway_id: "CCU_001".parse().unwrap() };
    pki.issue_vehicle(&binding, &path("own"), LEAF_VALIDITY, false, now).unwrap();
    std::fs::write(path("topology.toml"), include_str!("../../../docs/topology.example.toml")).unwrap();
    let config = r#"
        vehicle_id = "VEH_001"
        gateway_id = "CCU_001"
        fw_sw_version = "2.6.1"
        server = "localhost:1"
        certificate = "own/cert.pem"
        private_key = "own/key.pem"
        server_ca = "own/ca.pem"
        release_public_key = "pki/release.pub.pem"
        state_dir = "state"
        topology = "topology.toml"
        readiness_signals = "signals.toml"
    "#;
    std::fs::write(path("gateway.toml"), config).unwrap();
    folder
}

#[test]
fn whatever_is_missing_or_wrong_is_named_and_nothing_is_started() {
    let folder = folder();
    let config = folder.path().join("gateway.toml");
    assert!(fails(Path::new("no/such/gateway.toml")).contains("no/such/gateway.toml"));
    let good = std::fs::read_to_string(&config).unwrap();
    for (from, to, named) in [
        ("fw_sw_version", "fw_version", "fw_version"),
        ("own/cert.pem", "own/other.pem", "own/other.pem"),
        ("own/key.pem", "own/cert.pem", "a private key"),
        ("own/key.pem", "pki/root.key.pem", "belong together"),
        ("pki/release.pub.pem", "own/cert.pem", "P-256 public key"),
        ("\"topology.toml\"", "\"signals.toml\"", "signals.toml"),
        ("\"state\"", "\"gateway.toml\"", "state_dir"),
    ] {
        std::fs::write(&config, good.replacen(from, to, 1)).unwrap();
        let said = fails(&config);
        assert!(said.contains(named), "{from} -> {to}: {said}");
        assert!(!folder.path().join("state").exists(), "{from} -> {to}");
    }
}

fn asked(config: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        gateway(config).args(arguments).stdout(Stdio::piped()).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn check_says_of_each_thing_whether_it_is_right_and_what_to_do() {
    let folder = folder();
    let config = folder.path().join("gateway.toml");
    std::fs::write(folder.path().join("signals.toml"), "roaming = false").unwrap();
    // ECUs that are surely not there.
    let topology = std::fs::read_to_string(folder.path().join("topology.toml")).unwrap();
    let no_controllers: String = topology
        .lines()
        .map(|line| match line {
            "address = \"192.0.2.20:13400\"" => "eid = \"02:00:00:00:00:09\"\ndiscovery = \"127.0.0.1:1\"",
            line if line.starts_with("address") => "address = \"127.0.0.1:1\"",
            line => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    std::fs::write(folder.path().join("topology.toml"), no_controllers).unwrap();
    let (code, said) = asked(&config, &["check"]);
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "ok      settings",
        "ok      certificates: for VEH_001_CCU_001, valid for",
        "ok      release key",
        "ok      readiness signals",
        "ok      journal: none yet",
        "ok      topology",
        "failed  controller powertrain: expected the DoIP entity with EID 02:00:00:00:00:09",
        "failed  ECU ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!folder.path().join("state").exists(), "looking changes nothing");

    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("\"VEH_001\"", "\"VEH_002\"")).unwrap();
    let (_, said) = asked(&config, &["check"]);
    assert!(said.contains("failed  certificates: expected the common name VEH_002_CCU_001"), "{said}");
    std::fs::write(&config, "speed = 3").unwrap();
    let (code, said) = asked(&config, &["check"]);
    assert!(code == Some(1) && said.starts_with("failed  settings"), "{said}");
}

#[test]
fn without_settings_it_says_what_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_farrier-gateway")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--config"));
}

#[test]
fn systemd_hears_of_it_sigterm_ends_it_cleanly_and_a_second_one_on_the_same_state_is_refused() {
    let folder = folder();
    let config = folder.path().join("gateway.toml");
    let service_manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let told = || {
        let mut state = [0; 100];
        let length = service_manager.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    let mut first = gateway(&config)
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .env("WATCHDOG_USEC", "50000")
        .spawn()
        .unwrap();
    assert_eq!([told(), told(), told()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    let lines = BufReader::new(first.stderr.take().unwrap()).lines();
    // The server is not there: the gateway says so once it is at work.
    let mut connects_again = lines.map_while(Result::ok).filter(|line| line.contains("connects again"));
    assert!(connects_again.next().is_some());
    assert!(fails(&config).contains("for this gateway alone"));
    let (code, said) = asked(&config, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &status["connected"], &status["update_id"]),
        (Some(0), &false.into(), &serde_json::Value::Null)
    );
    assert!(asked(&config, &["status"]).1.contains("not connected"));
    assert!(asked(&config, &["check"]).1.contains("journal: in use by the gateway at work"));
    let pid = first.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    while told() != "STOPPING=1" {}
    while connects_again.next().is_some() {}
    assert_eq!(first.wait().unwrap().code(), Some(0));
    let (code, said) = asked(&config, &["status"]);
    assert!(code == Some(1) && said.contains("no gateway is at work"), "{said}");
}
