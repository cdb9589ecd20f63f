//! `farrier bench`: its figures agree with each other, and nothing is left behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

fn bench_ingest(dir: &Path, seconds: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    command.env_remove("FARRIER_LOG").env_remove("FARRIER_BENCH_STORE").stdin(Stdio::null());
    command.args(["bench", "ingest", "--connections", "3", "--seconds", seconds, "--dir"]).arg(dir);
    command
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn ingest_stores_all_that_it_counts_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench_ingest(dir.path(), "1").arg("--json").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let loads = report["loads"].as_array().unwrap();
    assert_eq!(loads.len(), 2, "{report}");
    // Each vehicle enrols itself and sends its inventory before.
    let mut counted = 3.0 * 2.0;
    for (load, messages_each) in loads.iter().zip([1.0, 2.0]) {
        let exchanges = number(&load["exchanges"]);
        assert!(exchanges > 0.0, "{load}");
        assert!((number(&load["exchanges_per_second"]) - exchanges).abs() < 0.5, "{load}");
        assert!(number(&load["p50_ms"]) <= number(&load["p99_ms"]), "{load}");
        let ratio = number(&load["exchanges_per_second"]) / number(&load["sqlite_limit_per_second"]);
        assert!((number(&load["of_sqlite_limit"]) - ratio).abs() < 1e-6, "{load}");
        counted += exchanges * messages_each;
    }
    assert_eq!(report["acknowledged"], report["stored"]);
    // Besides what was measured, there are the messages of the warm-up.
    assert!(number(&report["acknowledged"]) >= counted, "{report}");
    assert!(is_empty(dir.path()), "something is left in the folder");
}

#[test]
fn ctrl_c_ends_the_server_too_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench =
        bench_ingest(dir.path(), "600").stderr(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut first_line = String::new();
    // Kept open: a bench whose reader goes away ends as if all was well.
    let mut stdout = BufReader::new(bench.stdout.take().unwrap());
    stdout.read_line(&mut first_line).unwrap();
    assert!(first_line.contains("3 vehicles are connected"), "{first_line}");
    let folder = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let listening = std::fs::read(folder.join("data/listening.json")).unwrap();
    let listening: Value = serde_json::from_slice(&listening).unwrap();
    let mqtt = listening["mqtt"].as_str().unwrap();
    let interrupt = Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert!(!bench.wait().unwrap().success());
    assert!(is_empty(dir.path()), "something is left in the folder");
    assert!(TcpStream::connect(mqtt).is_err(), "the server still listens on {mqtt}");
}

#[test]
fn downloads_are_measured_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    command.env_remove("FARRIER_LOG").stdin(Stdio::null());
    command.args([
        "bench",
        "download",
        "--clients",
        "2",
        "--size-mib",
        "4",
        "--seconds",
        "1",
        "--rounds",
        "1",
    ]);
    let output = command.args(["--json", "--dir"]).arg(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = report["figures"].as_array().unwrap();
    // Whole and in ranges.
    assert_eq!(figures.len(), 2, "{report}");
    assert!(figures.iter().all(|figure| figure["farrier_mb_per_second"].as_f64().unwrap() > 0.0), "{report}");
    assert!(is_empty(dir.path()), "something is left in the folder");
}

#[test]
fn campaigns_are_measured_in_two_fleets_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    command
        .env_remove("FARRIER_LOG")
        .env_remove("FARRIER_BENCH_STORE")
        .env_remove("FARRIER_BENCH_SMALL_STORE")
        .stdin(Stdio::null());
    command.args(["bench", "campaign", "--vehicles", "900", "--small", "300", "--wave", "60"]);
    command.args(["--updates", "5", "--rounds", "3", "--json", "--dir"]).arg(dir.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (fleet, vehicles, wave) in [("small", 300, 20), ("large", 900, 60)] {
        let figures = &report[fleet];
        assert_eq!((&figures["vehicles"], &figures["wave"]), (&vehicles.into(), &wave.into()), "{report}");
        // WakeUp, VCI, readiness, three results, VCI.
        assert_eq!(figures["messages"], 3 * 5 * 7, "{report}");
        assert!(figures["start"]["answered_s"].as_f64() <= figures["start"]["done_s"].as_f64(), "{report}");
        assert!(figures["start"]["messages"]["number"].as_u64() > Some(0), "{report}");
        assert_eq!(figures["look_at_gate"]["number"], 2_000, "{report}");
    }
    let cpu = |fleet: &str| report[fleet]["cpu_us_per_message"].as_f64().unwrap();
    assert!((report["cpu_ratio"].as_f64().unwrap() - cpu("large") / cpu("small")).abs() < 1e-9, "{report}");
    assert!(is_empty(dir.path()), "something is left in the folder");
}

#[test]
fn the_consoles_pages_are_measured_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    command.env_remove("FARRIER_LOG").stdin(Stdio::null());
    command
        .args(["bench", "console", "--vehicles", "400", "--times", "3", "--viewers", "12", "--seconds", "5"])
        .args(["--rounds", "1"])
        .args(["--json", "--dir"])
        .arg(dir.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["vehicles"], &report["times"]), (&400.into(), &3.into()));
    let pages = report["pages"].as_array().unwrap();
    assert!(pages.len() >= 15, "{report}");
    for page in pages {
        let ms = |name: &str| page[name].as_f64().unwrap();
        assert!(ms("p50_ms") > 0.0 && ms("p50_ms") <= ms("p99_ms"), "{page}");
        assert!(page["bytes"].as_u64() > Some(1_000), "{page}");
    }
    let rounds = report["live"]["rounds"].as_array().unwrap();
    let viewers: Vec<_> = rounds.iter().map(|round| round["viewers"].as_u64().unwrap()).collect();
    assert_eq!(viewers, [0, 1, 12], "{report}");
    let number = |round: &Value, name: &str| round[name].as_f64().unwrap();
    for round in rounds {
        let (viewers, seconds) = (number(round, "viewers"), number(round, "seconds"));
        assert!(number(round, "changes") > 0.0, "{round}");
        // Nothing is rendered for nobody; else no oftener than once a second, whoever looks, with what was about to come or go.
        let renders = number(round, "renders_per_second");
        let most = if viewers == 0.0 { 0.0 } else { 1.0 + 2.0 / seconds };
        assert!(renders <= most, "{round}");
        assert!(number(round, "most_updates_per_second") <= most, "{round}");
        if viewers > 0.0 {
            assert!(renders > 0.0 && number(round, "bytes_per_update") > 1_000.0, "{round}");
            // The page changes all the while, and each viewer sees it.
            assert!(number(round, "updates") >= viewers * seconds * 0.4, "{round}");
        }
    }
    assert!(is_empty(dir.path()), "something is left in the folder");
}
