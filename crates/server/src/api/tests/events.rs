use axum::body::BodyDataStream;
use futures_util::StreamExt;

use super::*;
use crate::change_feed::{Herald, MOST_STREAMS};
use crate::store::changes;

fn herald(world: &World, operator: &Operator) -> Herald {
    let now = world.now;
    Herald {
        store: world.store.clone(),
        clock: Arc::new(move || now),
        feed: Arc::clone(&operator.feed),
        told: Arc::default(),
        to_deliver: Arc::default(),
    }
}

/// A client of the stream, as a browser is one.
struct Stream {
    body: BodyDataStream,
    text: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: Option<u64>,
    name: String,
    data: Value,
}

impl Stream {
    async fn open(operator: &Operator, token: &str, query: &str, last: Option<u64>) -> (StatusCode, Self) {
        let mut request = Request::builder()
            .uri(format!("/api/v1/events{query}"))
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = operator.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        if status == StatusCode::OK {
            assert_eq!(response.headers()["content-type"], "text/event-stream");
        }
        (status, Self { body: response.into_body().into_data_stream(), text: String::new() })
    }

    async fn of(operator: &Operator, query: &str, last: Option<u64>) -> Self {
        let (status, stream) = Self::open(operator, "secret of viewer", query, last).await;
        assert_eq!(status, StatusCode::OK);
        stream
    }

    /// The next event; comments are passed over. None where the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let line = frame.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                    line.map(str::to_owned)
                };
                let Some(name) = field("event") else { continue };
                let data = serde_json::from_str(&field("data").unwrap()).unwrap();
                return Some(Event { id: field("id").map(|id| id.parse().unwrap()), name, data });
            }
            let piece = tokio::time::timeout(Duration::from_secs(60), self.body.next()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }

    /// The next one that is no count of a campaign.
    async fn next_change(&mut self) -> Event {
        loop {
            let event = self.next().await.unwrap();
            if event.name != "campaign.progress" {
                return event;
            }
        }
    }
}

async fn look_at_gate(world: &World) {
    world
        .write(|tx, rules, now| {
            for name in changes::not_finished(tx)? {
                crate::gatekeeper::look_at_gate(tx, rules, &name, now)?;
            }
            Ok(())
        })
        .await;
}

async fn enrol(operator: &Operator, number: u64) {
    let body = json!({"vehicle_id": format!("V{number}"), "gateway_id": "G"});
    assert!(operator.post("/vehicles", body).await.0.is_success());
}

#[tokio::test]
async fn a_stream_tells_what_changes_from_now_on_and_only_what_is_asked_for() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let herald = herald(&world, &operator);
    enrol(&operator, 1).await;
    herald.number_all().await.unwrap();
    let mut all = Stream::of(&operator, "", None).await;
    let mut of_v2 = Stream::of(&operator, "?vehicle=V2", None).await;
    let mut steps = Stream::of(&operator, "?types=vehicle_update.*,campaign.finished", None).await;
    for stream in [&mut all, &mut of_v2, &mut steps] {
        assert_eq!(
            stream.next().await.unwrap(),
            Event { id: Some(1), name: "ready".to_owned(), data: json!({"after": 1}) }
        );
    }
    operator.release("R2").await;
    let mut car = Car::known(&world, "V2").await;
    operator.post("/campaigns", json!({"name": "C", "release": "R2", "vehicles": ["V2"]})).await;
    operator.post("/campaigns/C/start", json!({})).await;
    let (command, _) = car.to_start_download(&world).await;
    car.report(&world, &command, "commit").await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    look_at_gate(&world).await;
    look_at_gate(&world).await;
    herald.number_all().await.unwrap();
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "campaign.finished") {
        let event = all.next_change().await;
        assert_eq!(event.data["type"], event.name);
        assert_eq!(event.data["sequence"], event.id.unwrap());
        names.push(event.name);
    }
    for name in ["release.created", "vehicle.enrolled", "campaign.created", "campaign.started"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("vehicle_update.")), "{names:?}");
    assert_eq!(of_v2.next().await.unwrap().name, "vehicle.enrolled");
    let mut told = Vec::new();
    loop {
        let event = steps.next_change().await;
        if event.name == "campaign.finished" {
            assert_eq!(event.data["data"], json!({"vehicles": 1, "by_state": {"succeeded": 1}}));
            break;
        }
        assert_eq!(event.data["campaign"], "C");
        assert_eq!(event.data["vehicle_id"], "V2");
        told.push(event.data["data"]["to"].as_str().unwrap().to_owned());
    }
    let kept = world
        .read(|tx| tx.rows("SELECT to_state FROM vehicle_update_step ORDER BY id", &[], |row| row.text(0)))
        .await;
    assert_eq!(told, kept, "every step, in order");
    let first = of_v2.next().await.unwrap();
    assert_eq!(
        (first.name.as_str(), &first.data["data"]["to"]),
        ("vehicle_update.collecting_vci", &json!("collecting_vci"))
    );
}

#[tokio::test]
async fn where_nobody_wants_steps_of_vehicles_none_is_written() {
    let world = World::new();
    let _operator = Operator::of(&world).await;
    let car = Car::known(&world, "V1").await;
    world.release("R2", "2").await;
    world.campaign("C", "R2", None).await;
    car.to_start_download(&world).await;
    let sql = "SELECT kind FROM change WHERE kind LIKE 'vehicle_update.%'";
    let written = world.read(move |tx| tx.rows(sql, &[], |row| row.text(0))).await;
    assert_eq!(written, Vec::<String>::new());
}

/// A client whose connection breaks at any time goes on after the last event that it has seen; what it has heard in all is
/// what happened, once each.
#[tokio::test]
async fn a_stream_that_is_cut_again_and_again_loses_nothing_and_doubles_nothing() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let herald = herald(&world, &operator);
    let (mut stream, mut last) = (Stream::of(&operator, "?types=vehicle.*", None).await, None);
    let (mut heard, mut random, mut cuts) = (Vec::new(), 20_261_126_u64, 0);
    for number in 0..300 {
        enrol(&operator, number).await;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let dice = random >> 33;
        if dice.is_multiple_of(3) {
            herald.number_all().await.unwrap();
        }
        if dice.is_multiple_of(7) {
            herald.number_all().await.unwrap();
            // Some of what there is, and then the connection breaks.
            for _ in 0..=(dice / 7) % 6 {
                if heard.len() as u64 > number {
                    break;
                }
                let event = stream.next().await.unwrap();
                last = event.id.or(last);
                if event.name != "ready" {
                    heard.push(event.data["vehicle_id"].as_str().unwrap().to_owned());
                }
            }
            stream = Stream::of(&operator, "?types=vehicle.*", last).await;
            cuts += 1;
        }
    }
    herald.number_all().await.unwrap();
    while heard.len() < 300 {
        let event = stream.next().await.unwrap();
        heard.push(event.data["vehicle_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(heard, (0..300).map(|number| format!("V{number}")).collect::<Vec<_>>());
    assert!(cuts > 20, "{cuts}");
}

#[tokio::test]
async fn whoever_comes_back_too_late_is_told_to_read_everything_anew() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    for number in 0..10 {
        enrol(&operator, number).await;
    }
    world.write(|tx, _, now| changes::number(tx, 100, 4, now)).await;
    let page = operator.get("/events?after=2").await;
    assert_eq!((&page["reset"], &page["next"], &page["items"]), (&json!(true), &json!(10), &json!([])));
    let page = operator.get("/events?after=6").await;
    assert_eq!((&page["reset"], page["items"].as_array().unwrap().len()), (&json!(false), 4));
    for last in [2, 11] {
        let mut stream = Stream::of(&operator, "", Some(last)).await;
        let event = stream.next().await.unwrap();
        assert_eq!((event.name.as_str(), event.id), ("reset", Some(10)));
        enrol(&operator, 100 + last).await;
    }
    let mut stream = Stream::of(&operator, "", Some(6)).await;
    assert_eq!(stream.next().await.unwrap().id, Some(7));
    // Steps of vehicles were not written before somebody wanted them.
    let mut stream = Stream::of(&operator, "?types=vehicle_update.*", Some(8)).await;
    assert_eq!(stream.next().await.unwrap().name, "reset");
}

/// The server keeps no more for a slow reader than a few pieces, and goes on for others.
#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_catches_up_from_the_store() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let herald = herald(&world, &operator);
    let mut slow = Stream::of(&operator, "", None).await;
    for number in 0..500 {
        enrol(&operator, number).await;
    }
    herald.number_all().await.unwrap();
    let mut quick = Stream::of(&operator, "", Some(0)).await;
    for seq in 1..=500 {
        assert_eq!(quick.next_change().await.id, Some(seq));
    }
    assert_eq!(slow.next().await.unwrap().name, "ready");
    for seq in 1..=500 {
        assert_eq!(slow.next_change().await.id, Some(seq));
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked_and_when_the_server_stops() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let (mut viewer, mut other) = (
        Stream::of(&operator, "", None).await,
        Stream::open(&operator, "secret of operator", "", None).await.1,
    );
    assert_eq!(viewer.next().await.unwrap().name, "ready");
    assert_eq!(other.next().await.unwrap().name, "ready");
    let (status, _) = operator.post("/tokens/viewer/revoke", json!({})).await;
    assert_eq!(status, StatusCode::OK);
    while viewer.next().await.is_some() {}
    operator.feed.stopping.cancel();
    while other.next().await.is_some() {}
}

#[tokio::test]
async fn the_number_of_streams_is_bounded_and_a_closed_one_makes_room() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let mut streams = Vec::new();
    for _ in 0..MOST_STREAMS {
        streams.push(Stream::of(&operator, "", None).await);
    }
    let (status, _) = Stream::open(&operator, "secret of viewer", "", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    streams.pop();
    while Stream::open(&operator, "secret of viewer", "", None).await.0 != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn campaigns_are_counted_for_those_who_watch() {
    let mut world = World::new();
    let operator = Operator::of(&world).await;
    let herald = herald(&world, &operator);
    let _car = Car::known(&world, "V1").await;
    world.release("R2", "2").await;
    world.campaign("C", "R2", None).await;
    let mut stream = Stream::of(&operator, "?types=campaign.progress&campaign=C", None).await;
    let mut elsewhere = Stream::of(&operator, "?campaign=D", None).await;
    herald.count_once().await.unwrap();
    assert_eq!(stream.next().await.unwrap().name, "ready");
    let event = stream.next().await.unwrap();
    assert_eq!((event.id, event.name.as_str()), (None, "campaign.progress"));
    assert_eq!(event.data["campaign"], "C");
    assert_eq!((&event.data["vehicles"], &event.data["ended"]), (&json!(1), &json!(0)));
    let (status, body) = operator.post("/campaigns/C/abort", json!({"reason": "no need"})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    world.pass(1).await;
    herald.count_once().await.unwrap();
    let event = stream.next().await.unwrap();
    assert_eq!((&event.data["ended"], &event.data["by_state"]), (&json!(1), &json!({"cancelled": 1})));
    operator.feed.stopping.cancel();
    assert_eq!(elsewhere.next().await.unwrap().name, "ready");
    assert_eq!(elsewhere.next().await, None);
}

#[tokio::test]
async fn what_another_server_has_numbered_is_told_here_too() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    if !world.store.is_shared() {
        return;
    }
    let other = world.another_store();
    let mut stream = Stream::of(&operator, "", None).await;
    assert_eq!(stream.next().await.unwrap().name, "ready");
    enrol(&operator, 1).await;
    other.write::<_, StoreError>(|tx| changes::number(tx, 100, 100, START)).await.unwrap();
    assert_eq!(stream.next_change().await.name, "vehicle.enrolled");
    // Two that number at once give each change one number.
    for number in 2..50 {
        enrol(&operator, number).await;
    }
    let number = |store: &Store| {
        let store = store.clone();
        async move {
            store.write::<_, StoreError>(|tx| changes::number(tx, 100, 100, START)).await.unwrap().changes
        }
    };
    let (here, there) = tokio::join!(number(&world.store), number(&other));
    assert_eq!(here + there, 48);
    for seq in 2..=49 {
        assert_eq!(stream.next_change().await.id, Some(seq));
    }
}

#[tokio::test]
async fn questions_about_events_that_cannot_be_understood_are_refused() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    for (query, says) in [
        ("?types=A", "campaign.*"),
        ("?types=", "campaign.*"),
        ("?after=9007199254740992", "at most"),
        ("?after=-1", "query"),
        ("?campaign=%20", "campaign name"),
        ("?vehicle=%20", "vehicle_id"),
        ("?x=1", "x"),
    ] {
        let answer = operator.call("GET", &format!("/api/v1/events{query}"), "").await;
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", says);
    }
    let request = Request::builder().uri("/api/v1/events").header("authorization", "Bearer secret of viewer");
    let request = request.header("last-event-id", "yesterday").body(Body::empty()).unwrap();
    refused(
        operator.send(request).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "INVALID_REQUEST",
        "last-event-id",
    );
}
