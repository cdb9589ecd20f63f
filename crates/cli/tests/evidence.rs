//! From a real update to its record in the hands of somebody who has no server: real gateways, the command line, and the
//! tools that every machine has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::path::Path;
use std::process::{Command, Output};

use farrier_simulator::vehicle::SimulatedVehicle;
use farrier_system_tests::testbed::{Testbed, images};
use serde_json::{Value, json};

const ECUS: u8 = 2;

fn farrier(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    for variable in ["FARRIER_SERVER", "FARRIER_TOKEN", "FARRIER_CA", "FARRIER_LOG", "FARRIER_STORE"] {
        command.env_remove(variable);
    }
    command.args(arguments).output().unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = farrier(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fails(arguments: &[&str], says: &str) {
    let output = farrier(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains(says), "{arguments:?}: expected {says} in {stderr}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_update_is_proved_without_a_server() {
    let testbed = Testbed::start().await;
    let data = testbed.folder().join("data");
    let api = testbed.api();
    let server = api.base().trim_end_matches("/api/v1").to_owned();
    let token = data.join("operator.token");
    let with = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--server", &server, "--token-file", text(&token)]);
        tokio::task::block_in_place(|| succeeds(&all))
    };
    let mut failing = testbed.vehicle(2, ECUS);
    failing.ecu_mut(&"ecu_002".parse().unwrap()).unwrap().faults.fails_write_at_byte = Some(50_000);
    let vehicles = [
        SimulatedVehicle::start(testbed.vehicle(1, ECUS)).await.unwrap(),
        SimulatedVehicle::start(failing).await.unwrap(),
    ];
    api.knows_vehicles(2).await;
    with(&["vehicle", "set", "VEH_001", "--type", "T1"]);
    let images = images(1, ECUS, 100_000);
    let mut entries = Vec::new();
    for (hw_part_no, image) in &images {
        let sha256 = api.put_image(image).await;
        entries.push(
            json!({"hw_part_no": hw_part_no, "version": "2.0.0", "sha256": sha256, "rxswins": ["R79-1"]}),
        );
        let software = format!("{hw_part_no}=2.0.0@{sha256}");
        with(&["evidence", "rxswin", "set", "R79-1", "--type", "T1", "--software", &software]);
    }
    assert!(with(&["evidence", "rxswin", "list"]).contains("HW-0002"));
    let shown = with(&["evidence", "rxswin", "show", "R79-1", "--type", "T1"]);
    assert!(shown.contains("HW-0001") && shown.contains("HW-0002"), "{shown}");
    api.post("releases", json!({"name": "winter", "images": entries})).await;
    let mut create = vec!["campaign", "create", "winter", "--release", "winter"];
    create.extend(["--vehicle", "VEH_001", "--vehicle", "VEH_002", "--purpose", "Steering in snow."]);
    with(&create);
    with(&["campaign", "start", "winter"]);
    api.reaches("winter", "VEH_001", "succeeded").await;
    api.reaches("winter", "VEH_002", "rolled_back").await;

    let folder = tempfile::tempdir().unwrap();
    let (of_campaign, of_vehicle) = (folder.path().join("winter.tar"), folder.path().join("vehicle.tar"));
    with(&["evidence", "export", "--campaign", "winter", "--out", text(&of_campaign)]);
    with(&["evidence", "export", "--vehicle", "VEH_001", "--out", text(&of_vehicle)]);
    let key = folder.path().join("evidence.pub.pem");
    std::fs::write(&key, with(&["evidence", "key"])).unwrap();
    assert_eq!(std::fs::read(&key).unwrap(), std::fs::read(data.join("evidence.pub.pem")).unwrap());
    let head = with(&["audit", "verify", "--json"]);
    let head: Value = serde_json::from_str(&head).unwrap();
    let backup = testbed.folder().join("backup");
    let backed_up = succeeds(&["backup", "--data", text(&data), text(&backup)]);
    assert!(backup.join("evidence.key.pem").is_file(), "{backed_up}");
    let looked_at = succeeds(&["store", "verify", "--data", text(&backup)]);
    assert!(looked_at.contains("evidence"), "{looked_at}");
    for vehicle in vehicles {
        vehicle.stop().await.unwrap();
    }
    testbed.stop().await;

    // No server from here on.
    let head = head["head"].as_str().unwrap();
    let proved =
        succeeds(&["evidence", "verify", text(&of_campaign), "--key", text(&key), "--head", head, "--json"]);
    let proved: Value = serde_json::from_str(&proved).unwrap();
    assert_eq!((&proved["subject"], &proved["updates"]), (&json!("campaign winter"), &json!(2)));
    assert!(
        succeeds(&["evidence", "verify", text(&of_vehicle), "--key", text(&key)]).contains("vehicle VEH_001")
    );
    by_other_tools(&of_campaign, &key, folder.path());

    let untouched = std::fs::read(&of_campaign).unwrap();
    let mut changed = untouched.clone();
    let at = changed.windows(9).position(|part| part == b"succeeded").unwrap();
    changed[at] = b'S';
    std::fs::write(&of_campaign, &changed).unwrap();
    let verify = ["evidence", "verify", text(&of_campaign), "--key", text(&key)];
    fails(&verify, "was changed");
    std::fs::write(&of_campaign, &untouched[..untouched.len() - 700]).unwrap();
    fails(&verify, "cut off");
    fails(&["evidence", "verify", "/nowhere.tar", "--key", text(&key)], "/nowhere.tar");
    fails(&["evidence", "verify", text(&of_vehicle), "--key", "/nowhere.pem"], "/nowhere.pem");
}

/// As docs/evidence.md says.
fn by_other_tools(archive: &Path, key: &Path, folder: &Path) {
    let out = folder.join("unpacked");
    std::fs::create_dir(&out).unwrap();
    let script = "tar -xf \"$1\" && openssl pkeyutl -verify -pubin -inkey \"$2\" -rawin -in manifest.json -sigfile manifest.sig \
                  && sed -n 's/^{\"sha256\":\"\\([0-9a-f]*\\)\",.*\"path\":\"\\(.*\\)\"},*$/\\1  \\2/p' manifest.json | sha256sum -c --quiet \
                  && test \"$(find . -type f | wc -l)\" = \"$(($(grep -c '^{\"sha256\"' manifest.json) + 2))\"";
    let output = Command::new("sh")
        .args(["-c", script, "sh", text(archive), text(key)])
        .current_dir(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let record = std::fs::read_to_string(out.join("vehicles/000001.jsonl")).unwrap();
    let record: Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
    assert_eq!(record["changes"].as_array().unwrap().len(), usize::from(ECUS));
    assert_eq!(
        (&record["changes"][0]["before"], &record["changes"][0]["after"]),
        (&json!("1.0.0"), &json!("2.0.0"))
    );
    // What was removed from the folder is missed, what was changed is named.
    std::fs::write(out.join("index.html"), "other").unwrap();
    let output = Command::new("sh")
        .args(["-c", &script.replace("tar -xf \"$1\" && ", ""), "sh", "", text(key)])
        .current_dir(&out)
        .output()
        .unwrap();
    assert!(!output.status.success());
}
