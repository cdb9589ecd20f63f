//! `farrier simulate fleet`: each vehicle is what the server has recorded, and one that is not is found out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

fn fleet(dir: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    for variable in ["FARRIER_LOG", "FARRIER_STORE", "FARRIER_TOKEN", "FARRIER_CA"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).args(["simulate", "fleet", "--connect-per-second", "50"]);
    command.args(options).arg("--dir").arg(dir);
    command
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn whatever_the_vehicles_do_each_is_what_the_server_has_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let shares = ["--failing", "0.2", "--silent", "0.15", "--not-ready", "0.1", "--away", "0.3"];
    // With this seed there is at least one vehicle of each kind.
    let mut options = vec!["--vehicles", "60", "--deadline", "10", "--seed", "11"];
    options.extend(shares);
    let output = fleet(dir.path(), &options).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("60 vehicles: "), "{last}");
    assert!(last.ends_with("; each is what the server has recorded"), "{last}");
    let states = last.trim_start_matches("60 vehicles: ").split(';').next().unwrap();
    let counts: Vec<(u32, &str)> = states
        .split(", ")
        .map(|state| state.split_once(' ').unwrap())
        .map(|(count, state)| (count.parse().unwrap(), state))
        .collect();
    assert_eq!(counts.iter().map(|(count, _)| count).sum::<u32>(), 60, "{last}");
    for state in ["succeeded", "rolled_back", "inconsistent", "unknown"] {
        assert!(counts.iter().any(|(_, found)| *found == state), "no vehicle is {state}: {last}");
    }
    assert!(is_empty(dir.path()), "something is left in the folder");
}

#[test]
fn a_vehicle_that_says_what_it_does_not_run_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let shares = ["--failing", "0", "--silent", "0", "--not-ready", "0", "--away", "0"];
    let mut options = vec!["--vehicles", "5", "--json", "--lying", "3"];
    options.extend(shares);
    let output = fleet(dir.path(), &options).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["states"]["succeeded"], 5, "{summary}");
    let [difference] = summary["differences"].as_array().unwrap().as_slice() else { panic!("{summary}") };
    assert_eq!(difference["vehicle_id"], "FLEET-00003", "{summary}");
    assert!(difference["expected"].as_str().unwrap().starts_with("rolled_back"), "{summary}");
    assert!(difference["found"].as_str().unwrap().starts_with("succeeded"), "{summary}");
}

#[test]
fn a_server_that_runs_already_is_joined_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (pki, data) = (dir.path().join("pki"), dir.path().join("data"));
    let farrier = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
        command.env_remove("FARRIER_LOG").env_remove("FARRIER_STORE").stdin(Stdio::null());
        command
    };
    assert!(farrier().args(["pki", "init"]).arg(&pki).stdout(Stdio::null()).status().unwrap().success());
    let mut server = farrier();
    server
        .args(["--log", "error", "server", "--failure-report"])
        .arg("--data")
        .arg(&data)
        .arg("--pki")
        .arg(&pki);
    for listener in ["--mqtt", "--https", "--operator"] {
        server.args([listener, "127.0.0.1:0"]);
    }
    let mut server = server.stdout(Stdio::null()).spawn().unwrap();
    let listening = listening(&data.join("listening.json"));
    let (mqtt, operator) = (listening["mqtt"].as_str().unwrap(), listening["operator"].as_str().unwrap());
    let shares = ["--failing", "0.3", "--silent", "0", "--not-ready", "0", "--away", "0.3"];
    let options = ["--vehicles", "6", "--ecus", "2", "--json", "--mqtt", mqtt, "--server", operator];
    for _ in 0..2 {
        let mut joining = fleet(dir.path(), &options);
        joining.args(shares).arg("--pki").arg(&pki).arg("--token-file").arg(data.join("operator.token"));
        let output = joining.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(summary["vehicles"], 6, "{summary}");
    }
    // Vehicles that no campaign of theirs moves: they stay till they are told to go.
    let mut staying = fleet(dir.path(), &["--vehicles", "3", "--no-campaign", "--tag", "ION"]);
    staying.args(["--mqtt", mqtt, "--server", operator]).arg("--pki").arg(&pki);
    staying.arg("--token-file").arg(data.join("operator.token"));
    let mut staying = staying.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(staying.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().starts_with("They stay until Ctrl-C")), "they did not come");
    let interrupt = Command::new("kill").args(["-INT", &staying.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert!(staying.wait().unwrap().success());
    assert!(server.try_wait().unwrap().is_none(), "the server is gone");
    server.kill().unwrap();
    server.wait().unwrap();
}

fn listening(path: &PathBuf) -> Value {
    for _ in 0..600 {
        if let Some(found) = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return found;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the server did not listen within 30 s");
}

#[test]
fn ctrl_c_ends_the_fleet_and_its_server_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = fleet(dir.path(), &["--vehicles", "20", "--not-ready", "1"]);
    let mut fleet = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(fleet.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("has started") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "it ended by itself");
    }
    let inside = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let own = inside(dir.path().to_owned()).next().unwrap();
    let server = inside(own).find(|path| path.join("data").is_dir()).unwrap();
    let mqtt = listening(&server.join("data/listening.json"))["mqtt"].as_str().unwrap().to_owned();
    assert!(TcpStream::connect(&mqtt).is_ok());
    let interrupt = Command::new("kill").args(["-INT", &fleet.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert_eq!(fleet.wait().unwrap().code(), Some(1));
    assert!(is_empty(dir.path()), "something is left in the folder");
    assert!(TcpStream::connect(&mqtt).is_err(), "the server still listens on {mqtt}");
}
