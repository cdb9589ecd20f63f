use farrier_campaign::{Image, Release, ReleaseRules, Rule, VersionScheme};
use farrier_protocol::{MessageType, ServerBody};

use super::*;
use crate::store::deltas;
use crate::store::releases::{self, StoredImage};
use crate::store::test_database::TestDatabase;
use crate::testbed::text;

/// An ECU: hardware, version, bootloader, supplier.
pub(super) type Ecu = (&'static str, &'static str, &'static str, &'static str);

/// Answers the RequestVCI that waits by these ECUs.
async fn answer_vci(world: &World, car: &Car, ecus: &[Ecu]) {
    let request = car.command(world, MessageType::RequestVci).await;
    let mut vci = car.vci(request.msg_id.as_str());
    let model = vci["ecu_inventory"][0].clone();
    let ecu = |(number, (hardware, version, bootloader, supplier)): (usize, &Ecu)| {
        let mut ecu = model.clone();
        ecu["ecu_id"] = json!(format!("e{number}"));
        ecu["hw_part_no"] = json!(hardware);
        ecu["sw_version"] = json!(version);
        ecu["bootloader_ver"] = json!(bootloader);
        ecu["supplier_code"] = json!(supplier);
        ecu["functional_group"]["index"] = json!(number + 1);
        ecu
    };
    vci["ecu_inventory"] = ecus.iter().enumerate().map(ecu).collect();
    let receipt = car.send(world, UpTopic::Vci, &vci).await;
    assert_eq!(receipt, crate::desk::Receipt::Accepted, "{:?}", car.refused(world).await);
}

/// A car that has told these ECUs.
pub(super) async fn known(world: &World, vehicle: &str, ecus: &[Ecu]) -> Car {
    let car = Car::new(vehicle);
    car.wake_up(world).await;
    answer_vci(world, &car, ecus).await;
    car
}

pub(super) fn image(hardware: &str, version: &str) -> Image {
    Image::new(text(hardware), text(version), Sha256::of(format!("{hardware} {version}").as_bytes()), 1_000)
}

/// A release as the API creates it, without the bytes of its images.
pub(super) async fn release(world: &World, name: &str, images: Vec<Image>, rules: ReleaseRules) {
    let (name, release) = (text(name), Release::with_rules(images, rules).unwrap());
    world
        .write(move |tx, rules, now| {
            for image in release.images() {
                let stored =
                    StoredImage { sha256: image.sha256, size_bytes: 1_000, signature: vec![0x30, 1] };
                releases::put_image(tx, &stored, now)?;
            }
            releases::create(tx, &name, &release, now)?;
            deltas::want_from_newest(tx, &release, rules.deltas.bases_per_image, now)
        })
        .await;
}

/// A release of `versions` for HW-0, HW-1, …, with more keys.
async fn made(operator: &Operator, name: &str, versions: &[&str], more: Value) -> (StatusCode, Value) {
    let sha256 = operator.upload(b"image").await;
    let image = |(number, version): (usize, &&str)| json!({"hw_part_no": format!("HW-{number}"), "version": version, "sha256": sha256});
    let images: Vec<_> = versions.iter().enumerate().map(image).collect();
    let mut body = json!({"name": name, "images": images});
    let (Value::Object(to), Value::Object(from)) = (&mut body, more) else { panic!("not an object") };
    to.extend(from);
    operator.post("/releases", body).await
}

fn all_rules() -> Value {
    json!([
        {"rule": "needs", "hw_part_no": "HW-0", "when_updating": ["HW-1"], "at_least": "2.0.0"},
        {"rule": "conflicts", "hw_part_no": "HW-9", "from": "1.0.0", "to": null},
        {"rule": "together", "hw_part_nos": ["HW-0", "HW-1"]},
        {"rule": "order", "first": "HW-0", "then": "HW-1"},
        {"rule": "minimum_bootloader", "hw_part_no": "HW-1", "version": "1.2.0"},
        {"rule": "earlier_versions", "hw_part_no": "HW-1", "versions": ["1.0.0"]},
    ])
}

#[tokio::test]
async fn a_release_keeps_its_rules_and_for_whom_its_images_are() {
    for world in TestDatabase::both().map(World::on) {
        let operator = Operator::of(&world).await;
        let (one, other) = (operator.upload(b"one").await, operator.upload(b"other").await);
        let new = json!({
            "name": "R2",
            "images": [
                {"hw_part_no": "HW-0", "version": "2.0.0", "sha256": one},
                {"hw_part_no": "HW-1", "version": "2.0.0", "sha256": one, "rxswins": ["RXSWIN-1", "RXSWIN-2"]},
                {"hw_part_no": "HW-1", "supplier": "S", "region": "KR", "version": "2.0.1", "sha256": other},
            ],
            "version_scheme": "semver", "allow_downgrade": true, "release_counter": 7, "notes": "For winter.",
            "rules": all_rules(),
        });
        let (status, created) = operator.post("/releases", new.clone()).await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
        let shown = operator.get("/releases/R2").await;
        for key in ["version_scheme", "allow_downgrade", "release_counter", "notes", "rules"] {
            assert_eq!((&shown[key], &created[key]), (&new[key], &new[key]), "{key}");
        }
        let words = shown["rules_in_words"].as_array().unwrap();
        assert_eq!(words.len(), 6);
        assert_eq!(words[3], "HW-0 is installed before HW-1");
        for (image, (supplier, region, rxswins)) in shown["images"].as_array().unwrap().iter().zip([
            (Value::Null, Value::Null, json!([])),
            (Value::Null, Value::Null, json!(["RXSWIN-1", "RXSWIN-2"])),
            (json!("S"), json!("KR"), json!([])),
        ]) {
            assert_eq!((&image["supplier"], &image["region"]), (&supplier, &region));
            assert_eq!(image["rxswins"], rxswins);
        }

        assert_eq!(operator.post("/releases", new.clone()).await.0, StatusCode::OK);
        for (key, value) in [("rules", json!([])), ("allow_downgrade", json!(false)), ("notes", Value::Null)]
        {
            let mut other = new.clone();
            other[key] = value;
            let answer = operator.post("/releases", other).await;
            refused(answer, StatusCode::CONFLICT, "RELEASE_EXISTS", "other images or rules");
        }
    }
}

#[tokio::test]
async fn what_makes_no_release_is_refused_with_its_place() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let needs = json!({"rule": "needs", "hw_part_no": "HW-0", "at_least": "2"});
    let order = |first: &str, then: &str| json!({"rule": "order", "first": first, "then": then});
    for (versions, more, pointer, says) in [
        (&[][..], json!({}), "/images", "at least one image"),
        (&["2", "x"], json!({"version_scheme": "dotted"}), "/images/1/version", "found x"),
        (&["2"], json!({"rules": [needs]}), "/version_scheme", "a version scheme"),
        (
            &["2"],
            json!({"rules": [{"rule": "together", "hw_part_nos": ["HW-0", "HW-5"]}]}),
            "/rules/0",
            "an image for HW-5",
        ),
        (
            &["2020-01-02"],
            json!({"version_scheme": "date", "rules": [{"rule": "conflicts", "hw_part_no": "A"}, needs]}),
            "/rules/1",
            "a date",
        ),
        (
            &["2"],
            json!({"rules": [{"rule": "earlier_versions", "hw_part_no": "HW-0", "versions": []}]}),
            "/rules/0",
            "at least one version",
        ),
        (&["2", "2"], json!({"rules": [order("HW-0", "HW-1"), order("HW-1", "HW-0")]}), "/rules", "circle"),
    ] {
        let (status, body) = made(&operator, "R2", versions, more).await;
        assert_eq!(body["pointer"], pointer, "{body}");
        refused((status, body), StatusCode::UNPROCESSABLE_ENTITY, "RELEASE_INVALID", says);
    }
    let (status, body) = made(&operator, "R2", &["2"], json!({"images": [], "rule": []})).await;
    assert!(body.get("pointer").is_none(), "{body}");
    refused((status, body), StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "rule");
    let twice = json!([
        {"hw_part_no": "HW-0", "version": "1", "sha256": Sha256::of(b"image")},
        {"hw_part_no": "HW-0", "version": "2", "sha256": Sha256::of(b"image")},
    ]);
    let (status, body) = made(&operator, "R2", &[], json!({"images": twice})).await;
    assert_eq!(body["pointer"], "/images/1");
    refused((status, body), StatusCode::UNPROCESSABLE_ENTITY, "RELEASE_INVALID", "two for HW-0");
}

#[tokio::test]
async fn a_release_is_deleted_as_long_as_no_campaign_uses_it() {
    for world in TestDatabase::both().map(World::on) {
        let operator = Operator::of(&world).await;
        assert_eq!(made(&operator, "R2", &["2"], json!({})).await.0, StatusCode::CREATED);
        let delete = || operator.call("DELETE", "/api/v1/releases/R2", "");
        let (status, deleted) = delete().await;
        assert_eq!((status, &deleted["name"]), (StatusCode::OK, &json!("R2")));
        refused(delete().await, StatusCode::NOT_FOUND, "NOT_FOUND", "R2");
        assert_eq!(made(&operator, "R2", &["3"], json!({})).await.0, StatusCode::CREATED, "the name is free");
        operator.post("/campaigns", json!({"name": "C2", "release": "R2"})).await;
        refused(delete().await, StatusCode::CONFLICT, "RELEASE_IN_USE", "campaign C2");
        assert_eq!(operator.get("/releases/R2").await["images"][0]["version"], "3");
    }
}

#[tokio::test]
async fn a_vehicle_without_what_the_release_needs_is_ineligible_and_told_why() {
    let world = World::new();
    let rules = ReleaseRules {
        scheme: Some(VersionScheme::Dotted),
        rules: vec![Rule::Needs { hw_part_no: text("HW-2"), when_updating: None, at_least: text("5") }],
        ..ReleaseRules::default()
    };
    release(&world, "R2", vec![image("HW-1", "2")], rules).await;
    let ecus = [("HW-1", "1", "B", "S"), ("HW-2", "4.9", "B", "S")];
    let car = known(&world, "V1", &ecus).await;
    world.campaign("C2", "R2", None).await;
    answer_vci(&world, &car, &ecus).await;
    assert!(car.commands(&world).await.is_empty());
    let why = Operator::of(&world).await.get("/vehicles/V1/why").await;
    assert_eq!((&why["state"], &why["reasons"]), (&json!("ineligible"), &json!(["NEED_NOT_MET"])));
    let says = "the release needs HW-2 at 5 or later, and it would be e1 4.9";
    assert!(why["sentence"].as_str().unwrap().contains(says), "{why}");
}

#[tokio::test]
async fn the_order_of_a_release_is_the_install_order_of_its_packages() {
    let world = World::new();
    let order = |first: &str, then: &str| Rule::Order { first: text(first), then: text(then) };
    let rules =
        ReleaseRules { rules: vec![order("HW-2", "HW-1"), order("HW-3", "HW-2")], ..Default::default() };
    let images = vec![image("HW-1", "2"), image("HW-2", "2"), image("HW-3", "2")];
    release(&world, "R2", images, rules).await;
    let ecus = [("HW-1", "1", "B", "S"), ("HW-2", "1", "B", "S"), ("HW-3", "1", "B", "S")];
    let car = known(&world, "V1", &ecus).await;
    world.campaign("C2", "R2", None).await;
    answer_vci(&world, &car, &ecus).await;
    car.answer_ready(&world).await;
    let command = car.command(&world, MessageType::StartDownload).await;
    let ServerBody::StartDownload(start) = command.body else { panic!("another command") };
    let mut packages = start.packages;
    packages.sort_by_key(|package| package.install_order);
    let hardware: Vec<_> = packages.iter().map(|package| package.target_component.as_str()).collect();
    assert_eq!(hardware, ["e2", "e1", "e0"]);
}
