//! Who is in a campaign, in which order, and who must agree.

use super::*;
use crate::store::test_database::TestDatabase;

/// The vehicles that a campaign has taken in, each with its wave.
async fn taken_in(world: &World, campaign: &str) -> Vec<(String, u32)> {
    let campaign = crate::testbed::text(campaign);
    let updates = world.read(move |tx| updates::page_of_campaign(tx, &campaign, "", 100)).await;
    updates.into_iter().map(|update| (update.vehicle_id.to_string(), update.wave)).collect()
}

fn in_waves(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(vehicle, wave)| ((*vehicle).to_owned(), *wave)).collect()
}

#[tokio::test]
async fn a_campaign_that_follows_a_query_takes_in_whoever_comes_to_match() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let operator = Operator::of(&world).await;
        operator.release("R2").await;
        let v1 = Car::known(&world, "V1").await;
        Car::known(&world, "V2").await;
        let query = "tag = \"pilot\" or ecu.sw_version = \"9\" or region = \"DE\"";
        operator.post("/groups", json!({"name": "pilots", "query": query})).await;
        let body = json!({"name": "C2", "release": "R2", "group": "pilots", "follows": true});
        let (status, draft) = operator.post("/campaigns", body).await;
        assert_eq!(
            (status, &draft["vehicles"], &draft["query"]),
            (StatusCode::CREATED, &json!(0), &json!(query))
        );
        // The campaign keeps the query that the group had.
        operator.call("PUT", "/api/v1/groups/pilots", json!({"query": "tag = \"none\""}).to_string()).await;
        operator.post("/campaigns/C2/start", json!({})).await;
        assert_eq!(taken_in(&world, "C2").await, []);

        let tag = |vehicle: &str, body: Value| {
            let path = format!("/api/v1/vehicles/{vehicle}");
            let (operator, body) = (&operator, body.to_string());
            async move { operator.call("PATCH", &path, body).await }
        };
        assert_eq!(tag("V2", json!({"add_tags": ["other"]})).await.0, StatusCode::OK);
        assert_eq!(taken_in(&world, "C2").await, []);
        tag("V2", json!({"add_tags": ["pilot"]})).await;
        assert_eq!(taken_in(&world, "C2").await, in_waves(&[("V2", 1)]));
        tag("V2", json!({"remove_tags": ["pilot"]})).await;
        assert_eq!(taken_in(&world, "C2").await.len(), 1, "once in, it stays in");

        // What it runs comes to match.
        let mut v1 = v1;
        v1.versions = vec!["9", "9"];
        let mut wake_up = v1.wake_up_message(100_000);
        wake_up["vci_digest"] = json!("0".repeat(64));
        assert_eq!(v1.send(&world, UpTopic::Wakeup, &wake_up).await, crate::desk::Receipt::Accepted);
        v1.answer_vci(&world).await;
        let lines = [
            json!({"vehicle_id": "V3", "gateway_id": "G", "region": "DE"}).to_string(),
            json!({"vehicle_id": "V4", "gateway_id": "G", "region": "FR"}).to_string(),
        ];
        operator.call("POST", "/api/v1/vehicles/import", lines.join("\n")).await;
        operator.post("/vehicles", json!({"vehicle_id": "V5", "gateway_id": "G", "tags": ["pilot"]})).await;
        let all = in_waves(&[("V1", 1), ("V2", 1), ("V3", 1), ("V5", 1)]);
        assert_eq!(taken_in(&world, "C2").await, all);
        let shown = operator.get("/campaigns/C2").await;
        assert_eq!((&shown["state"], &shown["follows"]), (&json!("running"), &json!(true)));

        // Another leaves these alone, those that come later too.
        let body = json!({"name": "C3", "release": "R2", "excludes": ["C2", "C2"]});
        let (_, draft) = operator.post("/campaigns", body).await;
        assert_eq!((&draft["excludes"], &draft["vehicles"]), (&json!(["C2"]), &json!(1)));
        operator.post("/campaigns/C3/start", json!({})).await;
        operator.post("/vehicles", json!({"vehicle_id": "V6", "gateway_id": "G", "tags": ["pilot"]})).await;
        operator.post("/vehicles", json!({"vehicle_id": "V7", "gateway_id": "G"})).await;
        Car::known(&world, "V8").await;
        let c3: Vec<_> = taken_in(&world, "C3").await.into_iter().map(|(vehicle, _)| vehicle).collect();
        assert!(!c3.contains(&"V1".to_owned()) && c3.contains(&"V4".to_owned()), "{c3:?}");
        assert!(c3.contains(&"V7".to_owned()) && c3.contains(&"V8".to_owned()), "{c3:?}");
        let wrong = world.read(|tx| campaigns_of(tx, "C2")).await;
        assert_eq!(wrong, Vec::<String>::new());
    }
}

fn campaigns_of(tx: &Tx<'_>, name: &str) -> Result<Vec<String>, StoreError> {
    crate::store::campaigns::wrong_counters(tx, &crate::testbed::text(name))
}

#[tokio::test]
async fn a_wave_has_the_vehicles_of_a_fleet_group() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let operator = Operator::of(&world).await;
        operator.release("R2").await;
        for number in 1..=5 {
            let tags = if number > 3 { json!(["pilot"]) } else { json!([]) };
            let body = json!({"vehicle_id": format!("V{number}"), "gateway_id": "G", "tags": tags});
            operator.post("/vehicles", body).await;
        }
        let body = |group: &str| {
            let waves = json!([
                {"size": {"group": group}}, {"size": {"vehicles": 1}, "opens": "by_hand"},
                {"size": "rest", "opens": "by_approval"},
            ]);
            json!({"name": "C2", "release": "R2", "rollout": {"waves": waves}})
        };
        let (status, problem) = operator.post("/campaigns", body("pilots")).await;
        assert_eq!(
            (status, &problem["pointer"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!("/rollout/waves/0/size/group"))
        );
        operator.post("/groups", json!({"name": "pilots", "query": "tag = \"pilot\""})).await;
        let (status, made) = operator.post("/campaigns", body("pilots")).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        assert_eq!(made["rollout"]["waves"][0]["size"], json!({"where": "tag = \"pilot\""}));
        operator.post("/campaigns/C2/start", json!({})).await;
        operator.post("/vehicles", json!({"vehicle_id": "V6", "gateway_id": "G", "tags": ["pilot"]})).await;
        operator.post("/vehicles", json!({"vehicle_id": "V7", "gateway_id": "G"})).await;
        let mut waves: std::collections::BTreeMap<u32, Vec<String>> = std::collections::BTreeMap::new();
        for (vehicle, wave) in taken_in(&world, "C2").await {
            waves.entry(wave).or_default().push(vehicle);
        }
        assert_eq!(waves[&1], ["V4", "V5", "V6"]);
        assert_eq!((waves[&2].len(), waves[&3].len()), (1, 3));
        assert!(waves[&3].contains(&"V7".to_owned()));
    }
}

#[tokio::test]
async fn what_cannot_be_planned_is_refused_where_it_stands() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    operator.release("R2").await;
    for (more, says) in [
        (json!({"follows": true}), "/follows"),
        (json!({"priority": 1001}), "/priority"),
        (json!({"excludes": vec!["C1"; 17]}), "/excludes"),
        (json!({"excludes": ["C2"]}), "/excludes"),
        (json!({"rollout": {"waves": [{"size": "rest", "opens": "by_approval"}]}}), "/rollout/waves/0/opens"),
        (json!({"rollout": {"waves": [{"size": {"where": "tag = \"x\""}}]}}), "/rollout/waves/0/size"),
        (json!({"rollout": {"waves": [{"size": {"where": "tag ="}}]}}), "body cannot be used"),
    ] {
        let mut body = json!({"name": "C2", "release": "R2"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused(
            operator.post("/campaigns", body).await,
            StatusCode::UNPROCESSABLE_ENTITY,
            "INVALID_REQUEST",
            says,
        );
    }
    let missing =
        operator.post("/campaigns", json!({"name": "C2", "release": "R2", "excludes": ["C1"]})).await;
    refused(missing, StatusCode::NOT_FOUND, "NOT_FOUND", "C1");
}

#[tokio::test]
async fn a_second_person_has_to_agree_to_the_start_and_to_a_wave() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let operator = Operator::of(&world).await;
        operator.release("R2").await;
        for vehicle in ["V1", "V2"] {
            operator.post("/vehicles", json!({"vehicle_id": vehicle, "gateway_id": "G"})).await;
        }
        let waves = json!([{"size": {"vehicles": 1}}, {"size": "rest", "opens": "by_approval"}]);
        let body =
            json!({"name": "C2", "release": "R2", "rollout": {"waves": waves}, "needs_approval": true});
        let (_, draft) = operator.post("/campaigns", body).await;
        assert_eq!(
            (&draft["approval"]["state"], &draft["made_by"]),
            (&json!("waiting"), &json!("token:admin"))
        );
        let conflict = StatusCode::CONFLICT;
        let start = || operator.post("/campaigns/C2/start", json!({}));
        let say = |who: &'static str, what: &'static str, body: Value| {
            let path = format!("/campaigns/C2/{what}");
            let operator = &operator;
            async move { operator.post_as(who, &path, body).await }
        };
        let start_word = || json!({"remark": "looked at it"});
        let wave = |wave: u32| json!({"remark": "looked at it", "wave": wave});
        refused(start().await, conflict, "NOT_APPROVED", "campaign approve C2");
        refused(say("admin", "approve", start_word()).await, conflict, "SAME_PERSON", "token:admin");
        refused(say("operator", "approve", wave(2)).await, conflict, "CAMPAIGN_NOT_STARTED", "approve it");
        let none = say("operator", "approve", wave(0)).await;
        refused(none, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "/wave");
        let (status, approved) = say("operator", "approve", start_word()).await;
        assert_eq!(
            (status, &approved["approval"]["state"]),
            (StatusCode::OK, &json!("approved")),
            "{approved}"
        );
        let (_, rejected) = say("admin", "reject", start_word()).await;
        assert_eq!(rejected["approval"]["state"], "rejected");
        refused(start().await, conflict, "NOT_APPROVED", "rejected");
        say("operator", "approve", start_word()).await;

        // A plan that is another one than the one that was approved is not approved.
        world
            .write(|tx, _, _| {
                let sql = "UPDATE campaign SET priority = 501 WHERE name = 'C2'";
                tx.exec(sql, &[]).map(drop)
            })
            .await;
        refused(start().await, conflict, "NOT_APPROVED", "no word about it");
        say("operator", "approve", start_word()).await;
        let (status, running) = start().await;
        assert_eq!((status, &running["started_by"]), (StatusCode::OK, &json!("token:admin")), "{running}");
        refused(say("operator", "approve", start_word()).await, conflict, "CAMPAIGN_STARTED", "wave");

        let by_hand = operator.post("/campaigns/C2/open-wave", json!({})).await;
        refused(by_hand, conflict, "NOT_APPROVED", "--wave 2");
        refused(say("admin", "approve", wave(2)).await, conflict, "SAME_PERSON", "started");
        refused(say("operator", "approve", wave(1)).await, conflict, "WAVE_NOT_TO_APPROVE", "Wave 1");
        refused(say("operator", "approve", wave(3)).await, conflict, "WAVE_NOT_TO_APPROVE", "Wave 3");
        world.look_at_gates().await;
        assert_eq!(operator.get("/campaigns/C2").await["waves"][1]["is_open"], false);
        let (status, _) = say("operator", "approve", wave(2)).await;
        assert_eq!(status, StatusCode::OK);
        world.look_at_gates().await;
        let shown = operator.get("/campaigns/C2").await;
        assert_eq!(shown["waves"][1]["is_open"], true);
        let words = shown["approval"]["words"].as_array().unwrap();
        let last = words.last().unwrap();
        assert_eq!(
            (words.len(), &last["by"], &last["wave"], &last["remark"]),
            (5, &json!("token:operator"), &json!(2), &json!("looked at it"))
        );
    }
}

#[tokio::test]
async fn the_server_can_ask_for_a_second_person_of_every_campaign() {
    let mut world = World::new();
    Arc::get_mut(&mut world.rules).unwrap().approval = farrier_campaign::ApprovalRule::SecondPerson;
    let operator = Operator::of(&world).await;
    operator.release("R2").await;
    let (_, draft) = operator.post("/campaigns", json!({"name": "C2", "release": "R2"})).await;
    assert_eq!(draft["approval"]["state"], "waiting");
    let start = operator.post("/campaigns/C2/start", json!({})).await;
    refused(start, StatusCode::CONFLICT, "NOT_APPROVED", "another person");
}

#[tokio::test]
async fn a_campaign_that_needs_no_approval_takes_none() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    operator.release("R2").await;
    let (_, draft) = operator.post("/campaigns", json!({"name": "C2", "release": "R2"})).await;
    assert_eq!((&draft["approval"]["state"], &draft["priority"]), (&json!("not_needed"), &json!(500)));
    let word = operator.post_as("operator", "/campaigns/C2/approve", json!({"remark": "yes"})).await;
    refused(word, StatusCode::CONFLICT, "NO_APPROVAL_NEEDED", "farrier campaign start");
}
