use farrier_campaign::{Image, ReleaseRules, Rule, VersionScheme};

use super::releases::{image, known, release};
use super::*;
use crate::store::deltas::{self, MadeDelta};
use crate::store::test_database::TestDatabase;
use crate::testbed::text;

/// R1, R2 with rules and a delta from R1 to it, and cars of every kind.
async fn fleet(world: &World) {
    let of_another = Image { supplier: Some(text("T")), ..image("HW-2", "1.0.0") };
    release(world, "R1", vec![image("HW-1", "1.0.0"), of_another], ReleaseRules::default()).await;
    let rules = ReleaseRules {
        scheme: Some(VersionScheme::Semver),
        rules: vec![
            Rule::MinimumBootloader { hw_part_no: text("HW-1"), version: text("1.0.0") },
            Rule::Needs {
                hw_part_no: text("HW-3"),
                when_updating: Some(vec![text("HW-2")]),
                at_least: text("1.0.0"),
            },
        ],
        ..ReleaseRules::default()
    };
    let of_one_supplier = Image { supplier: Some(text("S")), ..image("HW-2", "2.0.0") };
    release(world, "R2", vec![image("HW-1", "2.0.0"), of_one_supplier], rules).await;
    world
        .write(|tx, _, now| {
            let wanted = deltas::claim_next_wanted(tx, "n", now)?.unwrap();
            let made = MadeDelta::Ready {
                sha256: Sha256::of(b"delta"),
                size_bytes: 100,
                signature: vec![0x30, 1],
                compressed_image_bytes: 900,
            };
            deltas::made(tx, &wanted, &made, now)?;
            assert!(
                deltas::claim_next_wanted(tx, "n", now)?.is_none(),
                "no delta leads from one supplier's image to another's"
            );
            Ok(())
        })
        .await;

    let old = ("HW-1", "1.0.0", "1.2.0", "S");
    known(world, "V01", &[old, old, ("HW-9", "1", "B", "S")]).await;
    let avoids = known(world, "V02", &[old]).await;
    world
        .write(move |tx, _, now| deltas::avoid(tx, &avoids.binding.vehicle_id, &[Sha256::of(b"delta")], now))
        .await;
    known(world, "V03", &[("HW-2", "1.0.0", "B", "S"), ("HW-3", "1.1.0", "B", "S")]).await;
    known(world, "V04", &[("HW-1", "2.0.0", "B", "S")]).await;
    known(world, "V05", &[("HW-9", "1", "B", "S")]).await;
    let later = ("HW-1", "3.0.0", "1.2.0", "S");
    known(world, "V06", &[later, later]).await;
    known(world, "V07", &[later]).await;
    known(world, "V08", &[("HW-1", "1.0.0", "0.9.0", "S")]).await;
    known(world, "V09", &[("HW-2", "1.0.0", "B", "T")]).await;
    known(world, "V10", &[("HW-2", "1.0.0", "B", "S"), ("HW-1", "1.0.0", "0.9.0", "S")]).await;
    Car::new("V11").wake_up(world).await;
    let mut restless = known(world, "V12", &[old]).await;
    for _ in 0..5 {
        restless.reboot(world, 1_000).await;
    }
    let mut busy = Car::new("V13");
    busy.versions = vec!["0.9.0"];
    busy.wake_up(world).await;
    busy.answer_vci(world).await;
    world.campaign("C1", "R1", Some(&[&busy])).await;
    busy.to_start_download(world).await;
}

/// How many rows tell of something that was sent or written.
async fn rows(world: &World) -> Vec<u64> {
    world
        .read(|tx| {
            let counts = [
                "SELECT COUNT(*) FROM command",
                "SELECT COUNT(*) FROM vehicle_update",
                "SELECT COUNT(*) FROM campaign",
                "SELECT COUNT(*) FROM audit_entry",
                "SELECT COUNT(*) FROM delta",
            ];
            counts.into_iter().map(|sql| Ok(tx.row(sql, &[], |row| row.count(0))?.unwrap())).collect()
        })
        .await
}

#[tokio::test]
async fn a_dry_run_counts_every_kind_of_vehicle_and_sends_nothing() {
    for world in TestDatabase::both().map(World::on) {
        fleet(&world).await;
        let operator = Operator::of(&world).await;
        let before = rows(&world).await;
        let (status, run) = operator.post("/campaigns/dry-run", json!({"release": "R2"})).await;
        assert_eq!(status, StatusCode::OK, "{run}");
        let mut outcome = run["outcome"].clone();
        let reasons = outcome["reasons"].take();
        assert_eq!(
            outcome,
            json!({
                "vehicles": 13, "would_update": 3, "up_to_date": 1, "ineligible": 6, "inventory_unknown": 1,
                "quarantined": 1, "in_another_update": 1, "reasons": null,
                // V01 two deltas; V02 avoids them; V03 has none.
                "ecus": 4, "bytes": 2_200, "bytes_without_deltas": 4_000,
            })
        );
        let counted: Vec<_> = reasons.as_array().unwrap().iter().collect();
        let counted: Vec<_> =
            counted.iter().map(|reason| (&reason["code"], &reason["vehicles"], &reason["example"])).collect();
        assert_eq!(
            counted,
            [
                (&json!("BOOTLOADER_TOO_OLD"), &json!(2), &json!("V08")),
                (&json!("DOWNGRADE"), &json!(2), &json!("V06")),
                (&json!("NEED_NOT_MET"), &json!(1), &json!("V10")),
                (&json!("NO_FITTING_IMAGE"), &json!(1), &json!("V09")),
                (&json!("NO_MATCHING_HARDWARE"), &json!(1), &json!("V05")),
            ]
        );
        assert_eq!(
            reasons[2]["sentence"],
            "the release needs HW-3 at 1.0.0 or later, and no ECU has this hardware"
        );
        assert_eq!(run["items"].as_array().unwrap().len(), 13);
        assert_eq!(run["items"][9]["reasons"], json!(["BOOTLOADER_TOO_OLD", "NEED_NOT_MET"]));
        assert_eq!(rows(&world).await, before);
    }
}

#[tokio::test]
async fn the_vehicles_of_a_dry_run_come_in_pages_by_verdict() {
    let world = World::new();
    fleet(&world).await;
    let operator = Operator::of(&world).await;
    for (verdict, expected) in [
        (Value::Null, (1..=13).collect::<Vec<_>>()),
        (json!("would_update"), vec![1, 2, 3]),
        (json!("ineligible"), (5..=10).collect()),
        (json!("inventory_unknown"), vec![11]),
        (json!("quarantined"), vec![12]),
        (json!("in_another_update"), vec![13]),
    ] {
        let mut ids = Vec::new();
        let mut after = Value::Null;
        loop {
            let asked = json!({"release": "R2", "verdict": verdict, "limit": 2, "after": after});
            let (_, run) = operator.post("/campaigns/dry-run", asked).await;
            assert_eq!(run["outcome"].is_null(), !after.is_null(), "the whole is counted once");
            let items = run["items"].as_array().unwrap();
            ids.extend(items.iter().map(|vehicle| vehicle["vehicle_id"].as_str().unwrap().to_owned()));
            let Some(next) = run.get("next") else { break };
            after = next.clone();
        }
        let expected: Vec<_> = expected.into_iter().map(|number| format!("V{number:02}")).collect();
        assert_eq!(ids, expected, "{verdict}");
    }
    let named = json!({"release": "R2", "vehicles": ["V04", "V01", "V04"]});
    let (_, run) = operator.post("/campaigns/dry-run", named).await;
    assert_eq!((&run["outcome"]["vehicles"], &run["outcome"]["bytes"]), (&json!(2), &json!(200)));
}

#[tokio::test]
async fn a_dry_run_of_what_is_not_there_is_refused() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    operator.release("R2").await;
    let nothing = operator.post("/campaigns/dry-run", json!({"release": "R9"})).await;
    refused(nothing, StatusCode::NOT_FOUND, "NOT_FOUND", "R9");
    let nobody = operator.post("/campaigns/dry-run", json!({"release": "R2", "vehicles": ["V9"]})).await;
    refused(nobody, StatusCode::NOT_FOUND, "NOT_FOUND", "V9");
    for wrong in
        [json!({"vehicles": []}), json!({"limit": 0}), json!({"after": "!"}), json!({"verdict": "x"})]
    {
        let mut asked = wrong.clone();
        asked["release"] = json!("R2");
        let answer = operator.post("/campaigns/dry-run", asked).await;
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "");
    }
    // Its address is the dry run's.
    let taken = operator.post("/campaigns", json!({"name": "dry-run", "release": "R2"})).await;
    refused(taken, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "dry-run");
}

#[tokio::test]
async fn a_dry_run_looks_at_those_that_a_query_or_a_group_selects() {
    for world in TestDatabase::both().map(World::on) {
        fleet(&world).await;
        let operator = Operator::of(&world).await;
        let all = operator.post("/campaigns/dry-run", json!({"release": "R2"})).await.1;
        let query = r#"vehicle = "V01" or vehicle = "V04" or vehicle = "V08""#;
        operator.post("/groups", json!({"name": "three", "query": query})).await;
        let named = json!({"release": "R2", "vehicles": ["V01", "V04", "V08"]});
        let (status, expected) = operator.post("/campaigns/dry-run", named).await;
        assert_eq!((status, &expected["outcome"]["vehicles"]), (StatusCode::OK, &json!(3)));
        assert_ne!(expected, all);
        for whom in [json!({"where": query}), json!({"group": "three"})] {
            let mut asked = whom;
            asked["release"] = json!("R2");
            assert_eq!(operator.post("/campaigns/dry-run", asked).await, (StatusCode::OK, expected.clone()));
        }
        let none = json!({"release": "R2", "where": "vehicle = \"V99\""});
        let (_, none) = operator.post("/campaigns/dry-run", none).await;
        assert_eq!((&none["outcome"]["vehicles"], &none["items"]), (&json!(0), &json!([])));
        let both = json!({"release": "R2", "where": query, "group": "three"});
        let refusal = operator.post("/campaigns/dry-run", both).await;
        refused(refusal, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "found several");
        let unknown = operator.post("/campaigns/dry-run", json!({"release": "R2", "group": "none"})).await;
        refused(unknown, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "none");
    }
}
