use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::evidence::{EvidencePublicKey, verify};
use crate::store::vehicles as stored_vehicles;

const HOSTILE: &str = "<script>alert('x')</script> & \"more\"";

async fn octets(operator: &Operator, path: &str) -> Vec<u8> {
    let request = Request::builder().uri(format!("/api/v1{path}"));
    let request = request.header("authorization", "Bearer secret of viewer").body(Body::empty()).unwrap();
    let response = operator.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/x-tar");
    axum::body::to_bytes(response.into_body(), 10_000_000).await.unwrap().to_vec()
}

async fn key(operator: &Operator) -> EvidencePublicKey {
    let answer = operator.get("/evidence/key").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), answer["public_key_pem"].as_str().unwrap()).unwrap();
    let key = EvidencePublicKey::load(file.path()).unwrap();
    assert_eq!(answer["sha256"], json!(key.sha256()));
    key
}

/// The files of an archive by their names.
fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut rest) = (BTreeMap::new(), archive);
    while rest[0] != 0 {
        let name = rest[..100].split(|octet| *octet == 0).next().unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[124..135]).unwrap(), 8).unwrap();
        files.insert(String::from_utf8(name.to_vec()).unwrap(), rest[512..512 + size].to_vec());
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    files
}

fn parsed(content: &[u8]) -> Value {
    serde_json::from_slice(content).unwrap()
}

fn records(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Value> {
    let pages = files.iter().filter(|(name, _)| name.starts_with("vehicles/") && name.ends_with(".jsonl"));
    let lines =
        pages.flat_map(|(_, content)| content.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()));
    lines
        .map(parsed)
        .map(|record| (record["vehicle"]["vehicle_id"].as_str().unwrap().to_owned(), record))
        .collect()
}

/// A campaign whose vehicles end in every way that counts.
async fn finished_campaign(world: &World) -> (Operator, Car) {
    let operator = Operator::of(world).await;
    let ids = ["OK", "FAILED", "FOREIGN", "MIXED", "REFUSED", "SILENT"];
    let mut cars = Vec::new();
    for id in ids {
        cars.push(Car::known(world, id).await);
    }
    let sha256 = operator.upload(b"image").await;
    let images =
        json!([{"hw_part_no": "HW-1", "version": "2", "sha256": sha256, "rxswins": ["R79 <b>1</b>"]}]);
    let (status, body) = operator.post("/releases", json!({"name": "R2", "images": images})).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    operator
        .call(
            "PATCH",
            "/api/v1/vehicles/OK",
            json!({"vehicle_type": "T1", "vin": "KMHXX00XXXX000001"}).to_string(),
        )
        .await;
    register(&operator, "1", Sha256::of(b"old")).await;
    let statement = json!({
        "purpose": HOSTILE, "functions_affected": "steering", "type_approved_systems": "R79",
        "effect_on_requirements": "none", "effect_on_parameters": "none", "approval": "E13*79R04/00*0001*02",
        "execution_conditions": "parked, 12 V above 12.2", "safety": "all or none", "verification": "report 17",
        "user_information": "Takes 20 minutes.",
    });
    let campaign = json!({"name": "C2", "release": "R2", "vehicles": ids, "statement": statement,
        "update_deadline_s": 3_600, "rollout": {"stop": {"inconsistent": false}}});
    let (status, body) = operator.post("/campaigns", campaign).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(body["statement"], statement);
    let (status, body) = operator.post("/campaigns/C2/start", json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let mut cars = cars.into_iter();
    let mut next = || cars.next().unwrap();

    let mut ok = next();
    let (command, _) = ok.to_start_download(world).await;
    for step in ["download", "install", "commit"] {
        ok.report(world, &command, step).await;
    }
    ok.versions = vec!["2", "2"];
    ok.answer_vci(world).await;

    let failed = next();
    let (command, _) = failed.to_start_download(world).await;
    failed.fail(world, &command, "UPDATE_FAILED", json!({"failed_ecus": ["e1"]})).await;
    failed.answer_vci(world).await;

    let foreign = next();
    let request = foreign.command(world, farrier_protocol::MessageType::RequestVci).await;
    let mut vci = foreign.vci(request.msg_id.as_str());
    for ecu in vci["ecu_inventory"].as_array_mut().unwrap() {
        ecu["hw_part_no"] = json!("HW-9");
    }
    foreign.send(world, UpTopic::Vci, &vci).await;

    let mut mixed = next();
    let (command, _) = mixed.to_start_download(world).await;
    mixed.report(world, &command, "commit").await;
    mixed.versions = vec!["2", "1"];
    mixed.answer_vci(world).await;

    let refused = next();
    let (command, _) = refused.to_start_download(world).await;
    refused.fail(world, &command, "CONSENT_DENIED", json!({})).await;
    refused.answer_vci(world).await;

    register(&operator, "2", sha256).await;
    (operator, ok)
}

async fn register(operator: &Operator, version: &str, sha256: Sha256) {
    let software = json!([{"hw_part_no": "HW-1", "version": version, "sha256": sha256}]);
    let body = json!({"vehicle_type": "T1", "rxswin": "R79 <b>1</b>", "software": software});
    let (status, body) = operator.post("/evidence/rxswins", body).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
}

#[tokio::test]
async fn an_archive_says_all_that_the_regulation_asks_for() {
    let world = World::new();
    let (operator, _) = finished_campaign(&world).await;
    let archive = octets(&operator, "/evidence/campaigns/C2").await;
    let verified = verify(archive.as_slice(), &key(&operator).await, &[]).unwrap();
    assert_eq!((verified.subject.as_str(), verified.updates), ("campaign C2", 6));

    let files = files(&archive);
    let campaign = parsed(&files["campaigns/C2.json"]);
    // UN R156, 7.1.2.5 a to i, 7.1.1.2, 7.1.1.11, 7.1.2.3, and who decided.
    for pointer in [
        "/statement/purpose",
        "/statement/functions_affected",
        "/statement/type_approved_systems",
        "/statement/effect_on_requirements",
        "/statement/effect_on_parameters",
        "/statement/approval",
        "/statement/execution_conditions",
        "/statement/safety",
        "/statement/verification",
        "/statement/user_information",
        "/images/0/version",
        "/images/0/sha256",
        "/images/0/rxswins/0",
        "/rxswins/0/vehicle_types/0/software_before/0/sha256",
        "/rxswins/0/vehicle_types/0/software_after/0/sha256",
        "/audit/0/sha256",
        "/audit/1/actor",
    ] {
        assert!(campaign.pointer(pointer).is_some_and(Value::is_string), "{pointer}: {campaign:#}");
    }
    let of_type = &campaign["rxswins"][0]["vehicle_types"][0];
    assert_eq!(
        (&of_type["software_before"][0]["version"], &of_type["not_registered"]),
        (&json!("2"), &json!([])),
        "the clock stands, so both revisions are of the time of the start"
    );
    assert_eq!(of_type["revision_after"], 2);
    assert_eq!(parsed(&files["register/000001.json"])["software"][0]["version"], "1");
    assert_eq!(parsed(&files["register/000002.json"])["revision"], 2);

    let records = records(&files);
    let states: Vec<_> =
        records.iter().map(|(id, record)| (id.as_str(), record["state"].as_str().unwrap())).collect();
    assert_eq!(
        states,
        [
            ("FAILED", "rolled_back"),
            ("FOREIGN", "ineligible"),
            ("MIXED", "inconsistent"),
            ("OK", "succeeded"),
            ("REFUSED", "rolled_back"),
            ("SILENT", "collecting_vci"),
        ]
    );
    for id in ["OK", "FAILED", "MIXED", "REFUSED"] {
        let record = &records[id];
        for pointer in [
            "/gos/0/conditions_asked/0",
            "/gos/0/report_msg_id",
            "/gos/0/packages/0/image_sha256",
            "/ends/0/outcome",
            "/ends/0/sentence",
            "/ends/0/cause/cause",
            "/ends/0/shown_by/vci_digest",
            "/ends/0/shown_by/msg_id",
            "/ends/0/exchanged/0/msg_id",
            "/changes/0/hw_part_no",
            "/changes/0/before",
            "/changes/0/after",
            "/changes/0/image_sha256",
            "/configurations/0/inventory/ecu_inventory/0/hw_part_no",
            "/configurations/0/vci_digest",
        ] {
            let is_said = record.pointer(pointer).is_some_and(Value::is_string);
            // A success has no cause beside the report, which the messages have.
            assert!(is_said || (id == "OK" && pointer.ends_with("cause")), "{id} {pointer}: {record:#}");
        }
        assert_eq!(record["gos"][0]["measured"]["power.battery_12v_v"], 12.4);
        assert_eq!(record["compatibility"], "confirmed");
    }
    let ok = &records["OK"];
    assert_eq!((&ok["changes"][0]["before"], &ok["changes"][0]["after"]), (&json!("1"), &json!("2")));
    assert_eq!(ok["configurations"].as_array().unwrap().len(), 2);
    assert_eq!((&ok["vehicle"]["vehicle_type"], &ok["user_consent"]), (&json!("T1"), &json!("not_refused")));
    let said: Vec<_> = ok["ends"][0]["exchanged"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|message| message["content"]["operation"].as_str())
        .collect();
    assert_eq!(said, ["download", "install", "commit"]);
    assert_eq!(records["FAILED"]["ends"][0]["cause"]["failed_ecus"], json!(["e1"]));
    assert_eq!(records["MIXED"]["ends"][0]["found"].as_array().unwrap().len(), 2);
    assert_eq!(records["REFUSED"]["user_consent"], "refused");
    let foreign = &records["FOREIGN"];
    assert_eq!((&foreign["compatibility"], &foreign["gos"]), (&json!("refused"), &json!([])));
    assert!(!foreign["ends"][0]["reasons"].as_array().unwrap().is_empty());
    assert_eq!((&records["SILENT"]["is_over"], &records["SILENT"]["ends"]), (&json!(false), &json!([])));
}

#[tokio::test]
async fn the_record_stays_when_messages_are_forgotten_and_configurations_follow() {
    let world = World::new();
    let (operator, car) = finished_campaign(&world).await;
    let before = octets(&operator, "/evidence/vehicles/OK").await;
    assert_eq!(
        octets(&operator, "/evidence/vehicles/OK").await,
        before,
        "the same state gives the same archive"
    );
    let vehicle_id = car.binding.vehicle_id.clone();
    world
        .write(move |tx, _, now| {
            tx.exec("DELETE FROM inbound_message", &[])?;
            tx.exec("DELETE FROM command", &[])?;
            let mut vci = stored_vehicles::vci(tx, &vehicle_id)?.unwrap();
            for number in 0..120 {
                vci.fw_sw_version = format!("{number}").parse().unwrap();
                let vehicle = stored_vehicles::by_id(tx, &vehicle_id)?.unwrap();
                stored_vehicles::set_vci(tx, &vehicle, &vci, farrier_protocol::vci_digest(&vci), now)?;
            }
            Ok(())
        })
        .await;
    assert_eq!(octets(&operator, "/evidence/vehicles/OK").await, before);
    let listed = operator.get("/vehicles/OK/configurations?limit=1000").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 52, "the newest 50, and two that the record names");
}

#[tokio::test]
async fn every_change_of_a_real_archive_is_found() {
    let world = World::new();
    let (operator, _) = finished_campaign(&world).await;
    let (archive, key) = (octets(&operator, "/evidence/campaigns/C2").await, key(&operator).await);
    verify(archive.as_slice(), &key, &[]).unwrap();
    let mut runner = proptest::test_runner::TestRunner::default();
    let changes = (0..archive.len(), 1_u8..=255);
    runner
        .run(&changes, |(position, bits)| {
            let mut changed = archive.clone();
            changed[position] ^= bits;
            prop_assert!(verify(changed.as_slice(), &key, &[]).is_err(), "octet {}", position);
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn pages_for_people_are_well_formed_and_escape_what_comes_from_elsewhere() {
    let world = World::new();
    let (operator, _) = finished_campaign(&world).await;
    let files = files(&octets(&operator, "/evidence/campaigns/C2").await);
    let mut pages = 0;
    for (name, content) in files.iter().filter(|(name, _)| name.ends_with(".html")) {
        let page = std::str::from_utf8(content).unwrap();
        assert_eq!(unbalanced(page), None, "{name}");
        for forbidden in ["<script", "<b>1", "src=", "http://", "https://fonts", "javascript:"] {
            assert!(!page.contains(forbidden), "{name}: {forbidden}");
        }
        pages += 1;
    }
    assert_eq!(pages, 2);
    let index = std::str::from_utf8(&files["index.html"]).unwrap();
    assert!(index.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;"));
    assert!(index.contains("R79 &lt;b&gt;1&lt;/b&gt;"));
    if let Ok(folder) = std::env::var("FARRIER_KEEP_EVIDENCE") {
        for (name, content) in &files {
            let path = std::path::Path::new(&folder).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }
}

/// The first tag that does not close what is open.
fn unbalanced(page: &str) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.split([' ', '\n']).next().unwrap();
        match name.strip_prefix('/') {
            Some(name) if open.pop() != Some(name) => return Some(tag.to_owned()),
            Some(_) => {}
            None if matches!(name, "!DOCTYPE" | "meta") => {}
            None => open.push(name),
        }
    }
    open.pop().map(str::to_owned)
}

#[tokio::test]
async fn many_vehicles_go_into_files_of_fifty() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    operator.release("R2").await;
    let ids: Vec<_> = (0..120).map(|number| format!("V{number:03}")).collect();
    for id in &ids {
        operator.post("/vehicles", json!({"vehicle_id": id, "gateway_id": "CCU"})).await;
    }
    operator.post("/campaigns", json!({"name": "C2", "release": "R2", "vehicles": ids})).await;
    operator.post("/campaigns/C2/start", json!({})).await;
    let files = files(&octets(&operator, "/evidence/campaigns/C2").await);
    let pages: Vec<_> =
        files.keys().filter(|name| name.ends_with(".jsonl") && name.starts_with("vehicles")).collect();
    assert_eq!(pages, ["vehicles/000001.jsonl", "vehicles/000002.jsonl", "vehicles/000003.jsonl"]);
    assert_eq!(records(&files).len(), 120);
    let unknown = operator.call("GET", "/api/v1/evidence/campaigns/C9", "").await;
    refused(unknown, StatusCode::NOT_FOUND, "NOT_FOUND", "C9");
}

#[tokio::test]
async fn the_register_keeps_every_revision_and_refuses_what_contradicts_itself() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    for version in ["1", "2", "3"] {
        register(&operator, version, Sha256::of(version.as_bytes())).await;
    }
    let listed = operator.get("/evidence/rxswins?limit=2").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    let next = listed["next"].as_str().unwrap();
    let rest = operator.get(&format!("/evidence/rxswins?limit=2&after={next}")).await;
    assert_eq!((&rest["items"][0]["revision"], rest["items"].as_array().unwrap().len()), (&json!(3), 1));
    let software = |version: &str| json!({"hw_part_no": "HW-1", "version": version, "sha256": Sha256::ZERO});
    let set = |software: Value| json!({"vehicle_type": "T1", "rxswin": "R", "software": software});
    let twice = operator.post("/evidence/rxswins", set(json!([software("1"), software("2")]))).await;
    refused(twice, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "HW-1");
    let none = operator.post("/evidence/rxswins", set(json!([]))).await;
    refused(none, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "1 to 512");
    let many = vec![software("1"); 513];
    let many = operator.post("/evidence/rxswins", set(json!(many))).await;
    refused(many, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "513");
}
