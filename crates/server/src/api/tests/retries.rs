//! Rules for retries, vehicles that are set aside, and what vehicles were bound to.

use super::*;

async fn fails(world: &World, car: &Car) {
    let (start, _) = car.to_start_download(world).await;
    car.fail(world, &start, "UPDATE_FAILED", json!({"failed_ecus": ["e0"]})).await;
    car.answer_vci(world).await;
}

#[tokio::test]
async fn a_campaign_says_after_which_failures_vehicles_are_tried_again() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    world.release("R2", "2").await;
    let car = Car::known(&world, "V1").await;
    let campaign = |retries: Value| json!({"name": "C2", "release": "R2", "rollout": {"retries": retries}});
    let refused_at = [
        (json!([{"code": "*", "attempts": 11}]), "/rollout/retries/0/attempts"),
        (json!([{"code": "*", "attempts": 2, "pause_s": 0}]), "/rollout/retries/0/pause_s"),
        (json!([{"code": "*", "attempts": 2}, {"code": "*", "attempts": 3}]), "/rollout/retries/1/code"),
        (json!([{"code": "CONSENT_DENIED", "attempts": 2}]), "UPDATE_FAILED"),
    ];
    for (retries, names) in refused_at {
        let answer = operator.post("/campaigns", campaign(retries)).await;
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", names);
    }
    let rules = json!([{"code": "UPDATE_FAILED", "attempts": 3, "pause_s": 90}]);
    let (status, made) = operator.post("/campaigns", campaign(rules)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let rule = &made["rollout"]["retries"][0];
    assert_eq!((&rule["factor"], &rule["longest_pause_s"]), (&json!(2), &json!(86_400)));
    operator.post("/campaigns/C2/start", json!({})).await;
    fails(&world, &car).await;
    let shown = operator.get("/campaigns/C2/vehicles").await["items"][0].clone();
    assert_eq!((&shown["state"], &shown["failed_attempts"]), (&json!("waiting"), &json!(1)));
    let waiting_on = &shown["waiting_on"];
    assert_eq!(
        (&waiting_on["kind"], &waiting_on["attempt"], &waiting_on["of"], &waiting_on["until"]),
        (&json!("next_attempt"), &json!(2), &json!(3), &json!(START.plus_seconds(90).0))
    );
    let campaign = operator.get("/campaigns/C2").await;
    assert_eq!((&campaign["state"], &campaign["waves"][0]["failed"]), (&json!("running"), &json!(1)));
    // An operator does not wait for the pause, and the vehicle has all its attempts again.
    let (_, retried) = operator.post("/campaigns/C2/retry", json!({"codes": ["UPDATE_FAILED"]})).await;
    assert_eq!(retried, json!({"retried": 1, "set_aside": 0}));
    let shown = operator.get("/campaigns/C2/vehicles").await["items"][0].clone();
    assert_eq!((&shown["state"], &shown["failed_attempts"]), (&json!("collecting_vci"), &json!(0)));
}

#[tokio::test]
async fn vehicles_that_are_set_aside_are_listed_and_taken_back() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    world.release("R2", "2").await;
    for vehicle in ["V1", "V2", "V3"] {
        let car = Car::known(&world, vehicle).await;
        for number in 0..3 {
            let campaign = format!("C{number}-{vehicle}");
            world.campaign(&campaign, "R2", Some(&[&car])).await;
            fails(&world, &car).await;
        }
    }
    let mut found = Vec::new();
    let mut path = "/set-aside?limit=2".to_owned();
    loop {
        let page = operator.get(&path).await;
        found.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/set-aside?limit=2&after={next}");
    }
    let ids: Vec<_> = found.iter().map(|one| one["vehicle_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["V1", "V2", "V3"]);
    assert_eq!(found[0]["failures"], 3);
    assert_eq!((&found[0]["code"], &found[0]["campaign"]), (&json!("UPDATE_FAILED"), &json!("C2-V1")));
    assert_eq!(operator.get("/set-aside?release=R2&limit=2").await["items"].as_array().unwrap().len(), 2);
    assert_eq!(operator.get("/set-aside?release=R3").await["items"], json!([]));
    let answer = operator.call("GET", "/api/v1/set-aside?release=%20", "").await;
    refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "release");

    let (_, retried) = operator.post("/campaigns/C2-V1/retry", json!({"codes": ["UPDATE_FAILED"]})).await;
    assert_eq!(retried, json!({"retried": 0, "set_aside": 1}));
    let ask = || operator.post("/campaigns/dry-run", json!({"release": "R2", "vehicles": ["V1"]}));
    let verdict = |(_, answer): (StatusCode, Value)| answer["items"][0]["verdict"].clone();
    assert_eq!(verdict(ask().await), "ineligible");
    let taken = operator.call("DELETE", "/api/v1/vehicles/V1/set-aside/R2", "").await;
    assert_eq!((taken.0, &taken.1["failures"]), (StatusCode::OK, &json!(3)));
    assert_eq!(verdict(ask().await), "would_update");
    let again = operator.call("DELETE", "/api/v1/vehicles/V1/set-aside/R2", "").await;
    refused(again, StatusCode::NOT_FOUND, "NOT_FOUND", "V1");
    let (_, retried) = operator.post("/campaigns/C2-V1/retry", json!({"codes": ["UPDATE_FAILED"]})).await;
    assert_eq!(retried, json!({"retried": 1, "set_aside": 0}));
}

#[tokio::test]
async fn what_a_vehicle_was_bound_to_is_listed_newest_first() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let car = Car::known(&world, "V1").await;
    for gateway in ["G2", "G3"] {
        let body = json!({"gateway_id": gateway, "reason": format!("for {gateway}")});
        assert_eq!(operator.post("/vehicles/V1/rebind", body).await.0, StatusCode::OK);
    }
    let page = operator.get("/vehicles/V1/bindings?limit=2").await;
    let rest = operator
        .get(&format!("/vehicles/V1/bindings?limit=2&after={}", page["next"].as_str().unwrap()))
        .await;
    let all: Vec<_> =
        [&page, &rest].into_iter().flat_map(|page| page["items"].as_array().unwrap().clone()).collect();
    let told: Vec<_> = all
        .iter()
        .map(|one| {
            (one["number"].as_i64().unwrap(), one["gateway_id"].as_str().unwrap(), one["reason"].as_str())
        })
        .collect();
    assert_eq!(told, [(3, "G3", None), (2, "G2", Some("for G3")), (1, "CCU", Some("for G2"))]);
    assert_eq!(all[2]["thumbprint"], json!(car.peer.thumbprint));
    assert!(all[0]["until_ms"].is_null() && all[1]["until_ms"].is_i64());
    assert!(rest.get("next").is_none());
}
