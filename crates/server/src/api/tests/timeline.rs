use super::*;

async fn kinds(operator: &Operator, query: &str) -> Vec<(String, String)> {
    let page = operator.get(&format!("/vehicles/V1/messages{query}")).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(&entry["kind"]), text(&entry["message"])))
        .collect()
}

#[tokio::test]
async fn a_vehicles_conversation_is_told_in_order_with_what_answers_what() {
    let mut world = World::new();
    world.campaign_for_all().await;
    let car = Car::new("V1");
    for step in 0..4 {
        world.pass(1).await;
        match step {
            0 => car.wake_up(&world).await,
            1 => car.answer_vci(&world).await,
            2 => car.answer_ready(&world).await,
            _ => assert_eq!(
                car.send_octets(&world, UpTopic::Result, "{".into()).await,
                crate::desk::Receipt::RefusedUnparsable
            ),
        }
    }
    world.pass(1).await;
    let operator = Operator::of(&world).await;
    let told = kinds(&operator, "?first=oldest").await;
    let told: Vec<_> = told.iter().map(|(kind, message)| (kind.as_str(), message.as_str())).collect();
    assert_eq!(
        told,
        [
            ("received", "WakeUp"),
            ("command", "RequestVCI"),
            ("step", ""),
            ("received", "SendVCI"),
            ("command", "RequestDownloadReadiness"),
            ("acknowledged", "RequestVCI"),
            ("step", ""),
            ("received", "ReadinessReportForDownload"),
            ("command", "StartDownload"),
            ("acknowledged", "RequestDownloadReadiness"),
            ("step", ""),
            ("refused", "result"),
            ("command", "MessageRejected"),
        ]
    );
    let page = operator.get("/vehicles/V1/messages?first=oldest&raw=true").await;
    let items = page["items"].as_array().unwrap();
    assert_eq!(items[3]["correlation_id"], items[1]["msg_id"], "the inventory answers the question");
    assert_eq!(items[8]["correlation_id"], items[7]["msg_id"], "the report led to the command");
    let sentence = items[1]["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("RequestVCI(campaign_evaluation) was put into the outbox"), "{sentence}");
    assert!(items[3]["payload"].as_str().unwrap().contains("ecu_inventory"));
    assert!(items[3]["size_bytes"].as_u64().unwrap() > 500);
    assert_eq!(items[3]["clock_skew_ms"], 2_000);
    assert_eq!((&items[11]["code"], &items[11]["payload"]), (&json!("MALFORMED_JSON"), &json!("{")));
    assert!(items[11]["sentence"].as_str().unwrap().contains("was refused: MALFORMED_JSON"));
    assert!(items[10]["sentence"].as_str().unwrap().contains("from checking_readiness to downloading"));
    let without = operator.get("/vehicles/V1/messages").await;
    assert!(without["items"][0].get("payload").is_none(), "raw only for whoever asks");
    assert_eq!(without["items"][0]["message"], "MessageRejected", "the newest first");
}

#[tokio::test]
async fn the_time_line_is_paged_from_both_ends_and_misses_nothing() {
    let world = World::new();
    world.campaign_for_all().await;
    let car = Car::known(&world, "V1").await;
    // All at one moment.
    for number in 0..9 {
        car.send_octets(&world, UpTopic::Result, format!("{{{number}").into()).await;
    }
    let operator = Operator::of(&world).await;
    let whole = operator.get("/vehicles/V1/messages?first=oldest&limit=1000").await;
    let whole: Vec<_> = whole["items"].as_array().unwrap().clone();
    for first in ["oldest", "newest"] {
        let mut read = Vec::new();
        let mut path = format!("/vehicles/V1/messages?first={first}&limit=4");
        loop {
            let page = operator.get(&path).await;
            read.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/vehicles/V1/messages?first={first}&limit=4&after={next}");
        }
        if first == "newest" {
            read.reverse();
        }
        assert_eq!(read, whole, "{first}");
    }
    let unknown = operator.call("GET", "/api/v1/vehicles/V9/messages", "").await;
    refused(unknown, StatusCode::NOT_FOUND, "NOT_FOUND", "V9");
    let wait = operator.call("GET", "/api/v1/vehicles/V1/messages?wait_s=5", "").await;
    refused(wait, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "first=oldest");
}

#[tokio::test]
async fn whoever_follows_gets_what_comes_after_what_they_have() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    world.pass(10).await;
    let newest = Operator::of(&world).await.get("/vehicles/V1/messages").await["newest"].clone();
    let follow = format!("/vehicles/V1/messages?first=oldest&wait_s=0&after={}", newest.as_str().unwrap());
    let nothing = Operator::of(&world).await.get(&follow).await;
    assert_eq!((&nothing["items"], &nothing["newest"]), (&json!([]), &newest));
    car.wake_up(&world).await;
    // What has just come can still be overtaken by what is being committed.
    assert_eq!(Operator::of(&world).await.get(&follow).await["items"], json!([]));
    world.pass(2).await;
    let more = Operator::of(&world).await.get(&follow).await;
    let messages: Vec<_> = more["items"].as_array().unwrap().iter().map(|entry| &entry["message"]).collect();
    assert_eq!(messages, ["WakeUp", "RequestVCI"]);
}

#[tokio::test]
async fn a_large_message_is_kept_in_part() {
    let world = World::new();
    let mut car = Car::new("V1");
    car.versions = vec!["1"; 100];
    car.wake_up(&world).await;
    car.answer_vci(&world).await;
    let operator = Operator::of(&world).await;
    let page = operator.get("/vehicles/V1/messages?first=oldest&raw=true").await;
    let vci = page["items"].as_array().unwrap().iter().find(|entry| entry["message"] == "SendVCI").unwrap();
    assert!(vci["size_bytes"].as_u64().unwrap() > 20_000, "{}", vci["size_bytes"]);
    assert_eq!(vci["payload"].as_str().unwrap().len(), 4_096);
}

#[tokio::test]
async fn when_a_vehicle_connected_and_why_it_went_stands_between_what_was_said() {
    let mut world = World::new();
    let car = Car::new("V1");
    let session = |end: Option<crate::desk::SessionEnd>| crate::desk::ClientSession {
        client_id: car.binding.client_id(),
        id: "s1".to_owned(),
        came_at: crate::testbed::START,
        end,
    };
    let begun = session(None);
    world.write(move |tx, _, _| crate::store::sessions::write(tx, "node", &begun)).await;
    // In the same millisecond.
    car.wake_up(&world).await;
    world.pass(1).await;
    let why = crate::desk::WhyGone::KeepAlive;
    let ended = session(Some(crate::desk::SessionEnd { at: world.now, why, detail: None }));
    world.write(move |tx, _, _| crate::store::sessions::write(tx, "node", &ended)).await;
    let operator = Operator::of(&world).await;
    let told = kinds(&operator, "?first=oldest").await;
    let told: Vec<_> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!((told[0], told[1], told[told.len() - 1]), ("connected", "received", "disconnected"));
    let page = operator.get("/vehicles/V1/messages?limit=1").await;
    let last = &page["items"][0];
    assert_eq!((&last["code"], &last["at_ms"]), (&json!("KEEP_ALIVE"), &json!(world.now.0)));
    assert_eq!(last["sentence"], "The vehicle is gone: its keep alive ran out.");
}
