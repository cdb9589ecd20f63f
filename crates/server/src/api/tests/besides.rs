//! What is asked beside an operation: only if it is as it was seen, only if it is new, only once.

use axum::http::HeaderMap;

use super::*;
use crate::store::idempotency;

/// What came back, with its headers.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
    octets: Vec<u8>,
}

impl Answer {
    fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }

    fn is_replayed(&self) -> bool {
        self.headers.contains_key("idempotency-replayed")
    }

    #[track_caller]
    fn is(self, status: StatusCode, code: &str) {
        refused((self.status, self.body), status, code, "");
    }
}

impl Operator {
    async fn ask(
        &self,
        scope: &str,
        method: &str,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("authorization", format!("Bearer secret of {scope}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let octets = axum::body::to_bytes(body, 1_000_000).await.unwrap().to_vec();
        let body = serde_json::from_slice(&octets).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body, octets }
    }

    async fn as_admin(&self, method: &str, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        self.ask("admin", method, path, body, headers).await
    }

    async fn tag_of(&self, path: &str) -> String {
        self.as_admin("GET", path, Value::Null, &[]).await.etag()
    }
}

async fn with_things() -> (World, Operator) {
    let world = World::new();
    let operator = Operator::of(&world).await;
    Car::known(&world, "V1").await;
    operator.release("R2").await;
    operator.post("/campaigns", json!({"name": "C2", "release": "R2"})).await;
    operator.post("/groups", json!({"name": "korea", "query": "region = \"KR\""})).await;
    (world, operator)
}

const SHOWN: [&str; 5] = ["/vehicles/V1", "/campaigns/C2", "/groups/korea", "/releases/R2", "/tokens/viewer"];

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let (_world, operator) = with_things().await;
    for path in SHOWN {
        let first = operator.as_admin("GET", path, Value::Null, &[]).await;
        let tag = first.etag();
        for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = operator.as_admin("GET", path, Value::Null, &[("if-none-match", &known)]).await;
            assert_eq!((again.status, again.octets.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
            assert_eq!(again.etag(), tag, "{path}");
        }
        for other in ["\"x\"", "no tag"] {
            let answer = operator.as_admin("GET", path, Value::Null, &[("if-none-match", other)]).await;
            assert_eq!((answer.status, answer.body == first.body), (StatusCode::OK, true), "{path}");
        }
    }
    let missing = operator.as_admin("GET", "/groups/none", Value::Null, &[("if-none-match", "*")]).await;
    missing.is(StatusCode::NOT_FOUND, "NOT_FOUND");
}

/// A campaign goes on by itself: that is new to whoever asks, and keeps nobody from pausing it.
#[tokio::test]
async fn a_campaigns_progress_changes_what_is_shown_and_refuses_no_change() {
    let (world, operator) = with_things().await;
    let car = Car::known(&world, "V4").await;
    operator.post("/campaigns/C2/start", json!({})).await;
    let before = operator.tag_of("/campaigns/C2").await;
    car.to_start_download(&world).await;
    let shown = operator.as_admin("GET", "/campaigns/C2", Value::Null, &[("if-none-match", &before)]).await;
    assert_eq!(shown.status, StatusCode::OK);
    assert_ne!(shown.etag(), before);
    let paused =
        operator.as_admin("POST", "/campaigns/C2/pause", Value::Null, &[("if-match", &before)]).await;
    assert_eq!(paused.status, StatusCode::OK, "{}", paused.body);
    // The tag that came with the answer is that of the state after it.
    let resume =
        operator.as_admin("POST", "/campaigns/C2/resume", Value::Null, &[("if-match", &before)]).await;
    assert_eq!(resume.etag(), paused.etag());
    resume.is(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED");
    let tag = paused.etag();
    let resumed = operator.as_admin("POST", "/campaigns/C2/resume", Value::Null, &[("if-match", &tag)]).await;
    assert_eq!(resumed.status, StatusCode::OK, "{}", resumed.body);
}

#[tokio::test]
async fn a_change_of_what_was_changed_meanwhile_is_refused_and_does_nothing() {
    let (_world, operator) = with_things().await;
    let changes: [(&str, &str, &str, Value); 7] = [
        ("PATCH", "/vehicles/V1", "/vehicles/V1", json!({"region": "EU"})),
        ("PATCH", "/vehicles/V1", "/vehicles/V1", json!({"tags": ["new"]})),
        ("POST", "/vehicles/V1/rebind", "/vehicles/V1", json!({"gateway_id": "G2", "reason": "repair"})),
        ("PUT", "/groups/korea", "/groups/korea", json!({"query": "region = \"EU\""})),
        ("POST", "/campaigns/C2/start", "/campaigns/C2", json!({})),
        ("POST", "/campaigns/C2/abort", "/campaigns/C2", json!({"reason": "bad"})),
        ("POST", "/tokens/viewer/revoke", "/tokens/viewer", json!({})),
    ];
    for (method, path, shown, body) in changes {
        let before = operator.tag_of(shown).await;
        let audited = operator.get("/audit").await["head"]["seq"].clone();
        for stale in ["\"x\"", &format!("W/{before}"), "\"\", W/\"y\""] {
            let answer = operator.as_admin(method, path, body.clone(), &[("if-match", stale)]).await;
            assert_eq!(answer.status, StatusCode::PRECONDITION_FAILED, "{path} {stale}: {}", answer.body);
            assert!(before.starts_with(answer.etag().trim_end_matches('"')), "{path}");
        }
        assert_eq!(operator.tag_of(shown).await, before, "{path}");
        assert_eq!(operator.get("/audit").await["head"]["seq"], audited, "{path}");
        for wrong in ["x", "\"a", ""] {
            let answer = operator.as_admin(method, path, body.clone(), &[("if-match", wrong)]).await;
            answer.is(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST");
        }
        let done = operator.as_admin(method, path, body.clone(), &[("if-match", &before)]).await;
        assert!(done.status.is_success(), "{path}: {}", done.body);
        let again = operator.as_admin(method, path, body, &[("if-match", &before)]).await;
        again.is(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED");
    }
    let any = operator.as_admin("DELETE", "/groups/korea", Value::Null, &[("if-match", "*")]).await;
    assert_eq!((any.status, any.headers.contains_key("etag")), (StatusCode::OK, false));
    let gone = operator.as_admin("DELETE", "/groups/korea", Value::Null, &[("if-match", "*")]).await;
    gone.is(StatusCode::NOT_FOUND, "NOT_FOUND");
}

/// Two that have seen the same: whichever comes second is refused, on one server or two.
#[tokio::test]
async fn of_two_changes_at_once_one_is_refused() {
    let (world, operator) = with_things().await;
    let other = Operator::of(&world).await;
    for round in 0..8 {
        let tag = operator.tag_of("/groups/korea").await;
        let change = |name: &str| json!({"query": format!("tag = \"{name}{round}\"")});
        let seen = [("if-match", tag.as_str())];
        let (one, two) = tokio::join!(
            operator.as_admin("PUT", "/groups/korea", change("a"), &seen),
            other.as_admin("PUT", "/groups/korea", change("b"), &seen),
        );
        let mut statuses = [one.status, two.status];
        statuses.sort();
        assert_eq!(statuses, [StatusCode::OK, StatusCode::PRECONDITION_FAILED]);
    }
}

/// Every operation that takes a key, with a request that it can carry out and that would be refused or do more if it were
/// done twice.
#[tokio::test]
async fn what_is_sent_again_under_its_key_is_done_once_and_answered_the_same() {
    let (world, operator) = with_things().await;
    let size = b"large".len();
    let upload = json!({"sha256": Sha256::of(b"large"), "size_bytes": size});
    let images = json!([{"hw_part_no": "HW-1", "version": "2", "sha256": Sha256::of(b"image")}]);
    let requests = [
        ("/vehicles", json!({"vehicle_id": "V2", "gateway_id": "G"})),
        ("/groups", json!({"name": "eu", "query": "region = \"EU\""})),
        ("/uploads", upload),
        ("/releases", json!({"name": "R3", "images": images})),
        ("/campaigns", json!({"name": "C3", "release": "R2", "vehicles": ["V2"]})),
        ("/vehicles/V2/rebind", json!({"gateway_id": "G3", "reason": "repair"})),
        ("/campaigns/C3/start", json!({})),
        ("/campaigns/C3/pause", json!({})),
        ("/campaigns/C3/resume", json!({})),
        ("/campaigns/C3/open-wave", json!({})),
        ("/campaigns/C3/vehicles/V2/cancel", json!({"reason": "no"})),
        ("/campaigns/C3/retry", json!({"codes": ["CANCELLED"]})),
        ("/campaigns/C3/abort", json!({"reason": "bad"})),
        ("/tokens/viewer/revoke", json!({})),
    ];
    for (number, (path, body)) in requests.into_iter().enumerate() {
        let key = format!("key-{number}");
        let keyed = [("idempotency-key", key.as_str())];
        let first = operator.as_admin("POST", path, body.clone(), &keyed).await;
        assert!(first.status.is_success() && !first.is_replayed(), "{path}: {} {}", first.status, first.body);
        let audited = operator.get("/audit").await["head"]["seq"].clone();
        // As after a restart: another server, or the same again, on the same store.
        let other = Operator::of(&world).await;
        for server in [&operator, &other] {
            let again = server.as_admin("POST", path, body.clone(), &keyed).await;
            assert_eq!((again.status, &again.octets), (first.status, &first.octets), "{path}");
            assert!(again.is_replayed(), "{path}");
            assert_eq!(again.headers["content-type"], "application/json");
        }
        assert_eq!(operator.get("/audit").await["head"]["seq"], audited, "{path}");
        let reused = operator.as_admin("POST", path, json!({"other": number}), &keyed).await;
        reused.is(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED");
    }
    // Also of another address, but not of another token.
    let keyed = [("idempotency-key", "key-0")];
    let vehicle = json!({"vehicle_id": "V2", "gateway_id": "G"});
    let elsewhere = operator.as_admin("POST", "/groups", vehicle.clone(), &keyed).await;
    elsewhere.is(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED");
    let vehicle = json!({"vehicle_id": "V9", "gateway_id": "G"});
    let others = operator.ask("operator", "POST", "/vehicles", vehicle, &keyed).await;
    assert_eq!((others.status, others.is_replayed()), (StatusCode::CREATED, false));
}

#[tokio::test]
async fn what_was_refused_is_not_kept_and_keys_are_read_strictly() {
    let (_world, operator) = with_things().await;
    let keyed = [("idempotency-key", "k")];
    let campaign = json!({"name": "C3", "release": "R9"});
    operator.as_admin("POST", "/campaigns", campaign, &keyed).await.is(StatusCode::NOT_FOUND, "NOT_FOUND");
    let campaign = json!({"name": "C3", "release": "R2"});
    let made = operator.as_admin("POST", "/campaigns", campaign, &keyed).await;
    assert_eq!(made.status, StatusCode::CREATED);
    for wrong in ["", "a b", "\u{e4}", &"k".repeat(256)] {
        let group = json!({"name": "g", "query": "region = \"EU\""});
        let answer = operator.as_admin("POST", "/groups", group, &[("idempotency-key", wrong)]).await;
        answer.is(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    let group = json!({"name": "g", "query": "region = \"EU\""});
    let answer = operator.as_admin("POST", "/groups", group.clone(), &twice).await;
    answer.is(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST");
    let long = "~".repeat(255);
    let made = operator.as_admin("POST", "/groups", group, &[("idempotency-key", &long)]).await;
    assert_eq!(made.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_secret_is_neither_kept_nor_shown_again() {
    let (world, operator) = with_things().await;
    let (keyed, token) = ([("idempotency-key", "k")], json!({"name": "ci", "scope": "viewer"}));
    let made = operator.as_admin("POST", "/tokens", token.clone(), &keyed).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let secret = made.body["token"].as_str().unwrap().to_owned();
    let again = operator.as_admin("POST", "/tokens", token, &keyed).await;
    assert!(!String::from_utf8(again.octets.clone()).unwrap().contains(&secret));
    again.is(StatusCode::CONFLICT, "IDEMPOTENCY_SECRET");
    let kept =
        world.read(|tx| tx.rows("SELECT answer FROM idempotency_key", &[], |row| row.optional_text(0)));
    assert_eq!(kept.await, [None]);
}

/// Many with one key, on two servers at once: one does it, the others get its answer or are told to wait.
#[tokio::test]
async fn of_many_at_once_with_one_key_one_is_done() {
    let (world, operator) = with_things().await;
    let other = Operator::of(&world).await;
    let vehicle = json!({"vehicle_id": "V7", "gateway_id": "G"});
    let keyed = [("idempotency-key", "k")];
    let asked = (0..16).map(|number| {
        let server = if number % 2 == 0 { &operator } else { &other };
        server.as_admin("POST", "/vehicles", vehicle.clone(), &keyed)
    });
    let answers = futures_util::future::join_all(asked).await;
    let done = answers.iter().filter(|answer| answer.status == StatusCode::CREATED && !answer.is_replayed());
    assert_eq!(done.count(), 1);
    for answer in &answers {
        let in_progress = answer.body["code"] == "IDEMPOTENCY_IN_PROGRESS";
        assert!(answer.status == StatusCode::CREATED || in_progress, "{}", answer.body);
    }
    let enrolled = operator.get("/audit?limit=1000").await;
    let entries = enrolled["items"].as_array().unwrap().iter();
    assert_eq!(entries.filter(|entry| entry["object"] == "vehicle/V7").count(), 1);
}

#[tokio::test]
async fn keys_are_forgotten_after_a_day_and_bounded() {
    let mut world = World::new();
    let operator = Operator::of(&world).await;
    let keyed = [("idempotency-key", "k")];
    let vehicle = |id: &str| json!({"vehicle_id": id, "gateway_id": "G"});
    operator.as_admin("POST", "/vehicles", vehicle("V1"), &keyed).await;
    world.now = START.plus_seconds(86_399);
    let soon = Operator::of(&world).await;
    let reused = soon.as_admin("POST", "/vehicles", vehicle("V2"), &keyed).await;
    reused.is(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED");
    world.now = START.plus_seconds(86_400);
    let later = Operator::of(&world).await;
    let made = later.as_admin("POST", "/vehicles", vehicle("V2"), &keyed).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let kept = world.read(|tx| tx.rows("SELECT 1 FROM idempotency_key", &[], |row| row.integer(0))).await;
    assert_eq!(kept.len(), 1);
    world
        .write(|tx, _, now| {
            for number in 0..9_999 {
                let key = idempotency::Key {
                    token: "admin".to_owned(),
                    given: format!("other-{number}"),
                    fingerprint: Sha256::of(b""),
                };
                assert_eq!(idempotency::take(tx, &key, now)?, idempotency::Taken::Now);
            }
            Ok::<_, StoreError>(())
        })
        .await;
    let keyed = [("idempotency-key", "one-more")];
    let refused = later.as_admin("POST", "/vehicles", vehicle("V3"), &keyed).await;
    refused.is(StatusCode::CONFLICT, "IDEMPOTENCY_TOO_MANY");
    assert_eq!(later.call("GET", "/api/v1/vehicles/V3", "").await.0, StatusCode::NOT_FOUND);
    let now = world.now.plus_seconds(86_400);
    let forgotten = world.write(move |tx, _, _| idempotency::forget(tx, now)).await;
    assert_eq!(forgotten, 1_000);
}

#[tokio::test]
async fn both_at_once_are_right() {
    let (_world, operator) = with_things().await;
    let tag = operator.tag_of("/campaigns/C2").await;
    let both = [("idempotency-key", "k"), ("if-match", tag.as_str())];
    let first = operator.as_admin("POST", "/campaigns/C2/start", Value::Null, &both).await;
    assert_eq!(first.status, StatusCode::OK);
    // It is not refused for having been done.
    let again = operator.as_admin("POST", "/campaigns/C2/start", Value::Null, &both).await;
    assert_eq!((again.status, again.is_replayed()), (StatusCode::OK, true));
    let stale = [("idempotency-key", "k2"), ("if-match", tag.as_str())];
    let refused = operator.as_admin("POST", "/campaigns/C2/pause", Value::Null, &stale).await;
    refused.is(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED");
    let tag = operator.tag_of("/campaigns/C2").await;
    let fresh = [("idempotency-key", "k2"), ("if-match", tag.as_str())];
    assert_eq!(
        operator.as_admin("POST", "/campaigns/C2/pause", Value::Null, &fresh).await.status,
        StatusCode::OK
    );
}

/// Nothing that is added can be without: what changes by POST takes a key, what changes one resource takes If-Match.
#[test]
fn every_operation_that_could_take_a_key_says_so() {
    let document = operation::openapi(&routes::operations());
    for operation in routes::operations() {
        let (method, path, needs) = operation.key();
        let entry = &document["paths"][format!("/api/v1{path}")][method.as_str().to_ascii_lowercase()];
        let empty = Vec::new();
        let named = |name: &str| {
            let parameters = entry["parameters"].as_array().unwrap_or(&empty);
            parameters.iter().any(|parameter| parameter["name"] == name)
        };
        let is_keyed = method == "POST" && needs != crate::access::Permission::View;
        assert_eq!(named("Idempotency-Key"), is_keyed, "{method} {path}");
        assert_eq!(named("If-Match"), entry["responses"]["412"].is_object(), "{method} {path}");
        assert_eq!(named("If-None-Match"), entry["responses"]["304"].is_object(), "{method} {path}");
    }
}
