//! What people see of the commands: answers, errors that say what to do, exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn farrier() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    for variable in ["FARRIER_SERVER", "FARRIER_TOKEN", "FARRIER_CA", "FARRIER_LOG"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    farrier().args(arguments).output().unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(arguments: &[&str], says: &[&str]) {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(says.iter().all(|part| stderr.contains(part)), "{arguments:?}: expected {says:?} in {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A server process; killed if the test ends before it is terminated.
struct ServerProcess {
    child: Child,
    listening: Value,
}

impl ServerProcess {
    fn start(data: &Path, pki: &Path) -> Self {
        Self::start_with(data, pki, &[])
    }

    fn start_with(data: &Path, pki: &Path, more: &[&str]) -> Self {
        let free = "127.0.0.1:0";
        let mut child = farrier()
            .args(["server", "--data", text(data), "--pki", text(pki)])
            .args(["--mqtt", free, "--https", free, "--operator", free, "--enroll", "auto"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.contains("Ctrl-C"));
        assert!(ready.is_some(), "the server did not start");
        let listening = std::fs::read(data.join("listening.json")).unwrap();
        Self { child, listening: serde_json::from_slice(&listening).unwrap() }
    }

    fn operator(&self) -> &str {
        self.listening["operator"].as_str().unwrap()
    }

    /// SIGTERM, and the exit code that follows.
    fn terminate(mut self) -> Option<i32> {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn certificates_are_made_and_never_overwritten_unasked() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    let out = folder.path().join("vehicle");
    succeeds(&["pki", "init", text(&pki)]);
    fails(&["pki", "init", text(&pki)], &["exists already", "--force"]);
    let issue = [
        "pki",
        "issue-vehicle",
        text(&pki),
        "--vehicle",
        "VEH_001",
        "--gateway",
        "CCU_001",
        "--out",
        text(&out),
    ];
    succeeds(&issue);
    fails(&issue, &["exists already", "--force"]);
    let mode = std::fs::metadata(out.join("key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let server = folder.path().join("server");
    succeeds(&[
        "pki",
        "issue-server",
        text(&pki),
        "--name",
        "localhost",
        "--name",
        "127.0.0.1",
        "--out",
        text(&server),
    ]);
    assert!(
        succeeds(&["pki", "revoke", text(&pki), "--vehicle", "VEH_001", "--gateway", "CCU_001"])
            .contains("Revoked 1")
    );
    fails(&["pki", "revoke", text(&pki), "--vehicle", "VEH_009", "--gateway", "CCU_009"], &["VEH_009"]);
    fails(
        &["pki", "issue-vehicle", text(&pki), "--vehicle", "a b", "--gateway", "C", "--out", "x"],
        &["a b", "identifier"],
    );
    fails(
        &["pki", "issue-server", "/nowhere", "--name", "localhost", "--out", "x"],
        &["/nowhere", "pki init"],
    );
}

#[test]
fn what_the_authority_did_is_told_to_programs_too() {
    let folder = tempfile::tempdir().unwrap();
    let (pki, out) = (folder.path().join("pki"), folder.path().join("vehicle"));
    let told = |arguments: &[&str]| -> Value {
        let answer = succeeds(&[&["pki"], arguments, &["--json"]].concat());
        assert_eq!(answer.lines().count(), 1, "{answer}");
        serde_json::from_str(&answer).unwrap()
    };
    let made = told(&["init", text(&pki)]);
    assert!(Path::new(made["root_certificate"].as_str().unwrap()).is_file(), "{made}");
    let whose = ["--vehicle", "VEH_001", "--gateway", "CCU_001"];
    let issued = told(&[&["issue-vehicle", text(&pki), "--out", text(&out)], &whose[..]].concat());
    assert_eq!((&issued["vehicle_id"], &issued["gateway_id"]), (&"VEH_001".into(), &"CCU_001".into()));
    let serial = issued["serial"].as_str().unwrap();
    let record = std::fs::read(pki.join("issued").join(format!("{serial}.json"))).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(
        (&issued["thumbprint"], &issued["ends_at_ms"]),
        (&record["thumbprint"], &record["expires_at_ms"])
    );
    assert!(out.join("cert.pem").is_file() && issued["certificate"] == text(&out.join("cert.pem")));
    let server =
        told(&["issue-server", text(&pki), "--name", "localhost", "--out", text(&folder.path().join("s"))]);
    assert_eq!(server["names"][0], "localhost");
    let node =
        told(&["issue-node", text(&pki), "--name", "farrier-a", "--out", text(&folder.path().join("n"))]);
    assert_eq!(node["name"], "farrier-a");
    let revoked = told(&[&["revoke", text(&pki)], &whose[..]].concat());
    assert_eq!(revoked["revoked"][0], issued["thumbprint"]);
}

#[test]
fn a_server_is_run_used_and_stopped_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let (pki, data) = (folder.path().join("pki"), folder.path().join("data"));
    succeeds(&["pki", "init", text(&pki)]);
    let server = ServerProcess::start(&data, &pki);
    let token = data.join("operator.token");
    let with = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--server", server.operator(), "--token-file", text(&token)]);
        succeeds(&all)
    };

    assert!(with(&["vehicle", "list"]).contains("No vehicles yet"));
    assert!(with(&["release", "list"]).contains("No releases yet"));
    assert!(with(&["campaign", "list"]).contains("No campaigns yet"));
    let image = folder.path().join("image.bin");
    std::fs::write(&image, vec![7; 1_234_567]).unwrap();
    let image = format!("hw=HW-1,version=2.0.0,file={}", text(&image));
    let key = pki.join("release.key.pem");
    let created = with(&["release", "create", "r1", "--image", &image, "--release-key", text(&key)]);
    assert!(created.contains("1,234,567"), "{created}");
    assert!(with(&["release", "show", "r1"]).contains("HW-1"));
    let rules = folder.path().join("rules.json");
    std::fs::write(&rules, r#"[{"rule": "minimum_bootloader", "hw_part_no": "HW-1", "version": "1.2"}]"#)
        .unwrap();
    let of_supplier = format!("{image},supplier=S,rxswin=R1,rxswin=R2");
    let mut create = vec!["release", "create", "ruled", "--image", &of_supplier, "--release-key", text(&key)];
    create.extend(["--version-scheme", "dotted", "--allow-downgrade", "--release-counter", "7"]);
    create.extend(["--notes", "For winter.", "--rules", text(&rules)]);
    with(&create);
    let shown = with(&["release", "show", "ruled"]);
    for part in [
        "R1 R2",
        "written as dotted",
        "number 7",
        "For winter.",
        "Rule: an update of HW-1 needs its bootloader at 1.2 or later.",
    ] {
        assert!(shown.contains(part), "expected {part} in {shown}");
    }
    assert!(with(&["release", "delete", "ruled"]).contains("Deleted release ruled"));
    with(&["campaign", "create", "c1", "--release", "r1"]);
    assert!(with(&["campaign", "show", "c1"]).contains("draft"));
    with(&["campaign", "start", "c1"]);
    let shown: Value = serde_json::from_str(&with(&["campaign", "show", "c1", "--json"])).unwrap();
    assert!(shown["states"].is_object(), "{shown}");
    with(&["vehicle", "enroll", "VEH_001", "--gateway", "CCU_001"]);
    let dry_run = with(&["campaign", "dry-run", "--release", "r1", "--list", "inventory_unknown"]);
    for part in ["1 vehicle(s)", "inventory unknown  1", "0 ECU(s)", "VEH_001"] {
        assert!(dry_run.contains(part), "expected {part} in {dry_run}");
    }
    let dry_run = with(&["campaign", "dry-run", "--release", "r1", "--vehicle", "VEH_001", "--json"]);
    let dry_run: Value = serde_json::from_str(&dry_run).unwrap();
    assert_eq!(dry_run["outcome"]["inventory_unknown"], 1);
    assert!(with(&["vehicle", "list"]).contains("VEH_001"));
    assert!(with(&["vehicle", "show", "VEH_001"]).contains("CCU_001"));
    assert!(with(&["vehicle", "why", "VEH_001"]).trim().ends_with('.'));

    let made = with(&["token", "create", "guest", "--scope", "viewer", "--expires-in", "1d", "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    let guest = made["token"].as_str().unwrap();
    let operator = server.operator().to_owned();
    let ca = data.join("operator.ca.pem");
    let as_guest = ["--server", &operator, "--token", guest, "--ca", text(&ca)];
    succeeds(&[&["vehicle", "list"][..], &as_guest].concat());
    fails(&[&["campaign", "start", "c1"][..], &as_guest].concat(), &["scope operator or admin", "guest"]);
    assert!(with(&["token", "list"]).contains("guest"));
    with(&["token", "revoke", "guest"]);
    fails(&[&["vehicle", "list"][..], &as_guest].concat(), &["guest was revoked"]);
    fails(&["token", "create", "x", "--scope", "viewer", "--expires-in", "soon"], &["90d"]);

    let audit = with(&["audit", "list"]);
    for part in ["campaign.started", "campaign/c1", "token:first", "127.0.0.1", "token.revoked"] {
        assert!(audit.contains(part), "expected {part} in {audit}");
    }
    assert!(with(&["security-events"]).contains("No security events"));
    let export = folder.path().join("audit.jsonl");
    with(&["audit", "export", text(&export)]);
    let verified: Value = serde_json::from_str(&with(&["audit", "verify", "--json"])).unwrap();
    let head = verified["head"].as_str().unwrap().to_owned();
    let holds = "none changed, removed or put elsewhere";
    assert!(succeeds(&["audit", "verify", "--export", text(&export), "--head", &head]).contains(holds));
    assert!(succeeds(&["audit", "verify", "--data", text(&data), "--head", &head]).contains(holds));
    let exported = std::fs::read_to_string(&export).unwrap();
    std::fs::write(&export, exported.replace("campaign/c1", "campaign/c2")).unwrap();
    fails(&["audit", "verify", "--export", text(&export)], &["cannot be believed", "was changed"]);
    let lines: Vec<&str> = exported.lines().collect();
    std::fs::write(&export, lines[..lines.len() - 1].join("\n")).unwrap();
    fails(&["audit", "verify", "--export", text(&export), "--head", &head], &["its end was cut off"]);

    fails(
        &["vehicle", "list", "--server", &operator, "--token", "wrong", "--ca", text(&ca)],
        &["token", "operator.token"],
    );
    fails(&["vehicle", "list", "--server", &operator, "--token", "x"], &["not trusted", "operator.ca.pem"]);
    fails(
        &["vehicle", "list", "--server", &operator, "--token", "x", "--ca", "/nowhere.pem"],
        &["/nowhere.pem", "--ca"],
    );
    fails(&["vehicle", "list", "--server", &operator], &["FARRIER_TOKEN"]);
    fails(&["release", "show", "r9", "--server", &operator, "--token-file", text(&token)], &["r9"]);
    let missing = "hw=HW-1,version=2.0.0,file=/nowhere/image.bin";
    fails(
        &["release", "create", "r2", "--image", missing, "--server", &operator, "--token-file", text(&token)],
        &["/nowhere/image.bin"],
    );
    assert_eq!(server.terminate(), Some(0));
    fails(
        &["vehicle", "list", "--server", &operator, "--token-file", text(&token)],
        &[&operator, "farrier server"],
    );
}

#[test]
fn a_server_that_cannot_start_names_what_is_in_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let (pki, data) = (folder.path().join("pki"), folder.path().join("data"));
    succeeds(&["pki", "init", text(&pki)]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    fails(
        &[
            "server",
            "--data",
            text(&data),
            "--pki",
            text(&pki),
            "--mqtt",
            &taken,
            "--https",
            free,
            "--operator",
            free,
        ],
        &[&taken],
    );
    assert!(!data.join("listening.json").exists(), "nothing half-written");
    let config = folder.path().join("server.toml");
    std::fs::write(&config, "pik = 'x'\n").unwrap();
    fails(&["server", "--config", text(&config)], &["pik"]);
    fails(&["server", "--config", "/nowhere/server.toml"], &["/nowhere/server.toml"]);
    fails(&["server", "--data", text(&data), "--pki", "/nowhere"], &["/nowhere"]);
    fails(&["simulate", "vehicle", "--config", "/nowhere/vehicle.toml"], &["/nowhere/vehicle.toml"]);
}

#[test]
fn a_demo_that_cannot_be_played_says_so_at_once() {
    fails(&["demo", "--fail", "VEH_009:ecu_001"], &["VEH_001 to VEH_003", "--fail"]);
    fails(&["demo", "--image", "/nowhere/image.bin"], &["/nowhere/image.bin"]);
    fails(&["demo", "--ecus", "0"], &["--ecus"]);
}

/// Answers every request with 204, on a thread that ends with the test.
fn receiver() -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut octets = [0; 4096];
            let _ = stream.read(&mut octets);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    address
}

#[test]
fn webhooks_are_made_tested_changed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (pki, data, config) =
        (folder.path().join("pki"), folder.path().join("data"), folder.path().join("server.toml"));
    succeeds(&["pki", "init", text(&pki)]);
    std::fs::write(&config, "[webhooks]\nallow_insecure_http = true\nallow_private_targets = true\n")
        .unwrap();
    let server = ServerProcess::start_with(&data, &pki, &["--config", text(&config)]);
    let token = data.join("operator.token");
    let with = |arguments: &[&str]| {
        let common = ["--server", server.operator(), "--token-file", text(&token)];
        [&["webhook"][..], arguments, &common[..]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let does = |arguments: &[&str]| succeeds(&with(arguments).iter().map(String::as_str).collect::<Vec<_>>());
    let url = format!("http://{}/", receiver());
    let made = does(&["create", "ops", &url, "--type", "campaign.*", "--type", "vehicle.enrolled"]);
    assert!(made.starts_with("whsec_") && made.contains("campaign.*, vehicle.enrolled"), "{made}");
    assert!(does(&["list"]).contains(&url));
    let tested = does(&["test", "ops"]);
    assert!(tested.contains("webhook.test") && tested.contains("answered 204"), "{tested}");
    let deliveries: Value = serde_json::from_str(&does(&["deliveries", "ops", "--json"])).unwrap();
    let id = deliveries["items"][0]["id"].as_str().unwrap();
    assert!(does(&["redeliver", "ops", id]).contains(id));
    assert!(does(&["rotate-secret", "ops"]).contains("earlier secret signs too until"));
    assert!(does(&["change", "ops", "--disable"]).contains("disabled"));
    let again = with(&["test", "ops"]);
    fails(&again.iter().map(String::as_str).collect::<Vec<_>>(), &["disabled", "enable"]);
    assert!(!does(&["show", "ops"]).contains("whsec_"));
    assert!(does(&["delete", "ops"]).contains("Deleted webhook ops"));
    assert_eq!(server.terminate(), Some(0));
}
