use super::*;
use crate::desk::Receipt;

async fn patched(operator: &Operator, vehicle: &str, body: Value) -> (StatusCode, Value) {
    operator.call("PATCH", &format!("/api/v1/vehicles/{vehicle}"), body.to_string()).await
}

async fn imported(operator: &Operator, query: &str, lines: &[Value]) -> (StatusCode, Value) {
    let body: Vec<_> = lines.iter().map(Value::to_string).collect();
    operator.call("POST", &format!("/api/v1/vehicles/import{query}"), body.join("\n")).await
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|one| one["vehicle_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_enrolment_that_is_repeated_without_a_certificate_leaves_the_one_that_is_bound() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let car = Car::known(&world, "V1").await;
    let again = json!({"vehicle_id": "V1", "gateway_id": "CCU", "tags": ["new"]});
    let (status, body) = operator.post("/vehicles", again).await;
    assert_eq!((status, &body["thumbprint"]), (StatusCode::OK, &json!(car.peer.thumbprint)));
    assert_eq!(body["tags"], json!(["new"]));
    let mut other = Car::new("V1");
    other.peer.thumbprint = farrier_protocol::Thumbprint::of_certificate(b"another");
    let message = other.wake_up_message(1);
    assert_ne!(other.send(&world, UpTopic::Wakeup, &message).await, Receipt::Accepted);
}

#[tokio::test]
async fn what_is_said_of_a_vehicle_is_changed_and_forgotten() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    Car::known(&world, "V1").await;
    Car::known(&world, "V2").await;
    let said = json!({"vin": "KMHXX00XXXX000001", "time_zone": "Asia/Seoul", "tags": ["b", "a", "a"]});
    let (status, body) = patched(&operator, "V1", said).await;
    assert_eq!((status, &body["tags"], &body["region"]), (StatusCode::OK, &json!(["a", "b"]), &json!("KR")));
    let (_, body) =
        patched(&operator, "V1", json!({"region": "EU", "add_tags": ["c"], "remove_tags": ["a"]})).await;
    assert_eq!((&body["tags"], &body["region"]), (&json!(["b", "c"]), &json!("EU")));
    assert_eq!((&body["reported_region"], &body["vin"]), (&json!("KR"), &json!("KMHXX00XXXX000001")));
    let taken = patched(&operator, "V2", json!({"vin": "KMHXX00XXXX000001"})).await;
    refused(taken, StatusCode::CONFLICT, "VIN_TAKEN", "V1");
    let (_, body) = patched(&operator, "V1", json!({"region": null, "vin": null})).await;
    assert_eq!((&body["region"], &body["vin"]), (&json!("KR"), &Value::Null));
    assert_eq!(patched(&operator, "V2", json!({"vin": "KMHXX00XXXX000001"})).await.0, StatusCode::OK);
    for wrong in [
        json!({"vin": "x"}),
        json!({"time_zone": "+9"}),
        json!({"tags": ["a b"]}),
        json!({"x": 1}),
        json!([null]),
    ] {
        let answer = patched(&operator, "V1", wrong).await;
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "");
    }
    for field in ["tags", "add_tags", "remove_tags"] {
        let many = patched(&operator, "V1", json!({field: vec!["x"; 65]})).await;
        refused(many, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", field);
    }
    let both = patched(&operator, "V1", json!({"tags": [], "add_tags": ["x"]})).await;
    refused(both, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "both");
}

#[tokio::test]
async fn groups_are_saved_queries_that_have_vehicles_and_a_meaning() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    for vehicle in ["V1", "V2", "V3"] {
        Car::known(&world, vehicle).await;
    }
    patched(&operator, "V2", json!({"tags": ["prototype"]})).await;
    let new = json!({"name": "series", "query": "NOT tag=\"prototype\" and ecu.sw_version<\"2\""});
    let (status, made) = operator.post("/groups", new.clone()).await;
    assert_eq!((status, &made["count"]), (StatusCode::CREATED, &json!(2)), "{made}");
    assert_eq!(made["query"], r#"not tag = "prototype" and ecu.sw_version < "2""#);
    refused(operator.post("/groups", new).await, StatusCode::CONFLICT, "GROUP_EXISTS", "series");
    let page = operator.get("/groups/series/vehicles?limit=1").await;
    assert_eq!((ids(&page), &page["count"]), (vec!["V1"], &json!(2)));
    let next = page["next"].as_str().unwrap();
    let page = operator.get(&format!("/groups/series/vehicles?limit=1&after={next}")).await;
    assert_eq!((ids(&page), page.get("next")), (vec!["V3"], None));
    assert_eq!(ids(&operator.get("/vehicles?group=series&where=vehicle%3D%22V3%22").await), ["V3"]);
    assert_eq!(ids(&operator.get("/vehicles?where=tag+is+known").await), ["V2"]);
    let (_, explained) = operator.post("/selections/explain", json!({"query": "tag is known"})).await;
    assert_eq!((&explained["canonical"], &explained["count"]), (&json!("tag is known"), &json!(1)));
    assert!(!explained["plan"].as_array().unwrap().is_empty());
    let (status, wrong) = operator.post("/selections/explain", json!({"query": "regoin = \"KR\""})).await;
    assert_eq!(wrong["place"], json!({"position": 0, "line": 1, "column": 1}));
    refused((status, wrong), StatusCode::UNPROCESSABLE_ENTITY, "QUERY_INVALID", "region");
    let unknown = operator.call("GET", "/api/v1/vehicles?group=none", "").await;
    refused(unknown, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "none");
    operator.call("DELETE", "/api/v1/groups/series", "").await;
    assert_eq!(operator.get("/groups").await["items"], json!([]));
}

#[tokio::test]
async fn a_vehicle_with_another_gateway_is_refused_by_the_earlier_one_and_its_update_goes_on() {
    let mut world = World::new();
    world.campaign_for_all().await;
    let operator = Operator::of(&world).await;
    let mut old = Car::known(&world, "V1").await;
    old.reboot(&world, 100_000).await;
    let body = json!({"gateway_id": "CCU2", "reason": "gateway replaced"});
    let (status, body) = operator.post("/vehicles/V1/rebind", body).await;
    assert_eq!(
        (status, &body["gateway_id"], &body["thumbprint"]),
        (StatusCode::OK, &json!("CCU2"), &Value::Null)
    );
    assert_eq!(body["vci_digest"], Value::Null);
    assert!(old.commands(&world).await.is_empty(), "nothing waits for the earlier gateway");
    let message = old.wake_up_message(1);
    assert_ne!(old.send(&world, UpTopic::Wakeup, &message).await, Receipt::Accepted);

    let mut new = Car::new("V1");
    new.binding.gateway_id = "CCU2".parse().unwrap();
    new.peer.common_name = new.binding.client_id();
    new.peer.thumbprint = farrier_protocol::Thumbprint::of_certificate(b"the new one");
    let ends_at = farrier_protocol::UnixMillis(4_000_000_000_000);
    new.peer.certificate = Some(crate::desk::Certificate { serial: "7f01".to_owned(), ends_at });
    new.wake_up(&world).await;
    let shown = operator.get("/vehicles/V1").await;
    assert_eq!(shown["thumbprint"], json!(new.peer.thumbprint));
    assert_eq!(
        (&shown["certificate_ends_at_ms"], &shown["certificate_serial"]),
        (&json!(4_000_000_000_000_i64), &json!("7f01"))
    );
    new.answer_vci(&world).await;
    // The readiness question to the earlier gateway is closed; its deadline asks anew.
    let mut asked = Vec::new();
    for _ in 0..60 {
        asked = new.command_types(&world).await;
        if asked.contains(&farrier_protocol::MessageType::RequestDownloadReadiness) {
            break;
        }
        world.pass(60).await;
    }
    assert!(asked.contains(&farrier_protocol::MessageType::RequestDownloadReadiness), "{asked:?}");
    let configurations = operator.get("/vehicles/V1/configurations").await;
    assert_eq!(configurations["items"].as_array().unwrap().len(), 1, "it runs what it ran");
    assert_eq!(configurations["items"][0]["current"], true);
}

#[tokio::test]
async fn an_import_takes_all_lines_or_none_and_changes_nothing_the_second_time() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let line = |number: usize| {
        json!({"vehicle_id": format!("V{number}"), "gateway_id": "G", "vin": format!("KMHXX00XXXX{number:06}"),
               "tags": ["a"], "time_zone": "Asia/Seoul"})
    };
    let lines: Vec<_> = (1..=20).rev().map(line).collect();
    let (status, tried) = imported(&operator, "?dry_run=true", &lines).await;
    assert_eq!((status, &tried["enrolled"]), (StatusCode::OK, &json!(20)), "{tried}");
    assert!(ids(&operator.get("/vehicles").await).is_empty());
    assert_eq!(imported(&operator, "", &lines).await.1["enrolled"], 20);
    let (_, again) = imported(&operator, "", &lines).await;
    assert_eq!((&again["unchanged"], &again["changed"]), (&json!(20), &json!(0)));

    let wrong = [
        line(30),
        json!({"vehicle_id": "V31", "gateway_id": "G", "vin": "x", "tags": ["a b"]}),
        json!({"gateway_id": "G", "colour": "red"}),
        line(30),
    ];
    let answer = imported(&operator, "", &wrong).await;
    let faults: Vec<_> =
        answer.1["lines"].as_array().unwrap().iter().map(|f| (&f["line"], &f["field"])).collect();
    let expected = [(2, "vin"), (2, "tags"), (3, "vehicle_id"), (3, "colour"), (4, "vehicle_id")];
    assert_eq!(faults.len(), expected.len(), "{faults:?}");
    for ((line, field), (expected_line, expected_field)) in faults.into_iter().zip(expected) {
        assert_eq!((line, field), (&json!(expected_line), &json!(expected_field)));
    }
    refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "IMPORT_REFUSED", "Line 2: vin");
    let taken = json!({"vehicle_id": "V40", "gateway_id": "G", "vin": "KMHXX00XXXX000001"});
    let answer = imported(&operator, "", &[line(41), taken]).await;
    refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "IMPORT_REFUSED", "Line 2: vin");
    assert_eq!(operator.get("/vehicles").await["items"].as_array().unwrap().len(), 20);
    let none = operator.call("POST", "/api/v1/vehicles/import", "\n").await;
    refused(none, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "found 0");
}

#[tokio::test]
async fn a_campaign_takes_in_what_a_query_or_a_group_selects() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    for vehicle in ["V1", "V2", "V3"] {
        Car::known(&world, vehicle).await;
    }
    world.release("R2", "2").await;
    assert_eq!(patched(&operator, "V2", json!({"tags": ["early"]})).await.0, StatusCode::OK);
    let group = json!({"name": "early", "query": "tag = \"early\""});
    assert_eq!(operator.post("/groups", group).await.0, StatusCode::CREATED);
    for (name, key, value) in
        [("C1", "where", "not tag = \"early\" and ecu.hw_part_no = \"HW-1\""), ("C2", "group", "early")]
    {
        let (status, body) =
            operator.post("/campaigns", json!({"name": name, "release": "R2", key: value})).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        operator.post(&format!("/campaigns/{name}/start"), json!({})).await;
    }
    assert_eq!(ids(&operator.get("/campaigns/C1/vehicles").await), ["V1", "V3"]);
    assert_eq!(ids(&operator.get("/campaigns/C2/vehicles").await), ["V2"]);
    let nobody = json!({"name": "C3", "release": "R2", "where": "tag = \"nobody\""});
    refused(
        operator.post("/campaigns", nobody).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "INVALID_REQUEST",
        "none",
    );
    let wrong = json!({"name": "C3", "release": "R2", "where": "tga = \"x\""});
    refused(
        operator.post("/campaigns", wrong).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "QUERY_INVALID",
        "tag",
    );
    let both = json!({"name": "C3", "release": "R2", "where": "all", "group": "early"});
    refused(
        operator.post("/campaigns", both).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "INVALID_REQUEST",
        "one of",
    );
}
