use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use farrier_protocol::{Sha256, UpTopic};
use serde_json::json;
use tower::ServiceExt;

use super::*;
use crate::access::Scope;
use crate::evidence::EvidenceKey;
use crate::pki::Pki;
use crate::store::tokens::{self, Token};
use crate::store::updates;
use crate::testbed::{Car, START, World};
use crate::tls::testbed::Testbed;
use crate::tls::{ExpiryAlarms, VehicleTls};

mod audited;
mod besides;
mod docs;
mod dry_run;
mod events;
mod evidence;
mod fleet;
mod intake;
mod observed;
mod openapi;
mod pages;
mod releases;
mod retries;
mod schedule;
mod timeline;
mod tokens_and_scopes;
mod uploads;
mod users;
mod webhooks;

fn add(tx: &Tx<'_>, scope: Scope, now: UnixMillis) -> Result<(), StoreError> {
    let token = Token {
        name: scope.name().to_owned(),
        scope,
        created_at: now,
        created_by: None,
        expires_at: None,
        revoked_at: None,
    };
    tokens::add(tx, &Sha256::of(format!("secret of {}", scope.name()).as_bytes()), &token)
}

/// The API over a world.
struct Operator {
    router: Router,
    feed: Arc<Feed>,
    dir: Arc<tempfile::TempDir>,
}

/// Certificates of two years, and a list of revoked ones that ends after 100,000 s.
fn trust() -> Trust {
    let bed = Testbed::made_at(START);
    bed.pki.clone().with_crl_validity(Duration::from_secs(100_000)).renew_crl(START).unwrap();
    let vehicles = Arc::new(VehicleTls::load(&bed.files(), START).unwrap());
    Trust { vehicles, operators: None, alarms: ExpiryAlarms::default() }
}

/// The API over a world, with its files in a folder.
pub(crate) fn api_over(world: &World, dir: &Path, has_release_key: bool, clock: WallClock) -> Api {
    let node = crate::store::new_id();
    let pki = Pki::init(&dir.join("pki").join(&node), false, START).unwrap();
    let key = has_release_key.then(|| pki.release_key());
    let stopping = tokio_util::sync::CancellationToken::new();
    // Receivers of tests are on this machine.
    let webhooks = WebhookSettings { allow_insecure_http: true, allow_private_targets: true, roots: None };
    Api {
        feed: Feed::new(stopping.clone()),
        webhooks: Arc::new(webhooks),
        store: world.store.clone(),
        rules: Arc::clone(&world.rules),
        artifacts: Artifacts::open(&dir.join("images"), &node).unwrap(),
        evidence: EvidenceDesk::new(EvidenceKey::load_or_make(dir).unwrap()),
        signature: Arc::new(ReleaseSignature::load(key.as_deref(), &pki.release_public_key()).unwrap()),
        clock,
        vitals: Vitals::new(Arc::default(), trust(), None, stopping, false),
    }
}

impl Operator {
    async fn of(world: &World) -> Self {
        Self::with(world, true).await
    }

    /// Its tokens are called as their scopes, and are `secret of SCOPE`.
    async fn with(world: &World, has_release_key: bool) -> Self {
        Self::on(world, has_release_key, Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// Another server on the same store and the same folder of images.
    async fn beside(&self, world: &World) -> Self {
        Self::on(world, true, Arc::clone(&self.dir)).await
    }

    async fn on(world: &World, has_release_key: bool, dir: Arc<tempfile::TempDir>) -> Self {
        let now = world.now;
        let api = api_over(world, dir.path(), has_release_key, Arc::new(move || now));
        let known = world.read(|tx| tokens::by_name(tx, "admin")).await;
        if known.is_none() {
            world.write(|tx, _, now| Scope::ALL.into_iter().try_for_each(|scope| add(tx, scope, now))).await;
        }
        let feed = Arc::clone(&api.feed);
        Self { router: router(api), feed, dir }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1_000_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request =
            Request::builder().method(method).uri(path).header("authorization", "Bearer secret of admin");
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", &format!("/api/v1{path}"), "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call("POST", &format!("/api/v1{path}"), body.to_string()).await
    }

    /// As another person.
    async fn post_as(&self, token: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder().method("POST").uri(format!("/api/v1{path}"));
        let request = request.header("authorization", format!("Bearer secret of {token}"));
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn upload(&self, image: &'static [u8]) -> Sha256 {
        let sha256 = Sha256::of(image);
        let path = format!("/api/v1/images/{sha256}?size_bytes={}", image.len());
        let (status, body) = self.call("PUT", &path, image).await;
        assert!(status.is_success(), "{body}");
        sha256
    }

    async fn release(&self, name: &str) {
        let sha256 = self.upload(b"image").await;
        let images = json!([{"hw_part_no": "HW-1", "version": "2", "sha256": sha256}]);
        let (status, body) = self.post("/releases", json!({"name": name, "images": images})).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
}

#[track_caller]
fn refused((status, body): (StatusCode, Value), expected: StatusCode, code: &str, says: &str) {
    assert_eq!((status, body["code"].as_str()), (expected, Some(code)), "{body}");
    assert_eq!(body["status"], expected.as_u16());
    assert!(body["detail"].as_str().unwrap().contains(says), "{body}");
}

#[tokio::test]
async fn without_a_valid_token_nothing_is_told() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    for header in [None, Some("Bearer wrong"), Some("Basic secret of admin"), Some("secret of admin")] {
        for path in ["/api/v1/vehicles", "/api/v1/nothing"] {
            let mut request = Request::builder().uri(path);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let answer = operator.send(request.body(Body::empty()).unwrap()).await;
            refused(answer, StatusCode::UNAUTHORIZED, "UNAUTHORISED", "operator.token");
        }
    }
    let health = Request::builder().uri("/healthz").body(Body::empty()).unwrap();
    assert_eq!(operator.send(health).await, (StatusCode::OK, json!({"status": "ok"})));
}

#[tokio::test]
async fn addresses_methods_and_bodies_that_do_not_exist_are_refused_clearly() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    refused(
        operator.call("GET", "/api/v1/nothing", "").await,
        StatusCode::NOT_FOUND,
        "NO_SUCH_ROUTE",
        "address",
    );
    refused(operator.call("GET", "/nothing", "").await, StatusCode::NOT_FOUND, "NO_SUCH_ROUTE", "address");
    let answer = operator.call("DELETE", "/api/v1/vehicles", "").await;
    refused(answer, StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "method");
    for body in ["", "[]", "{\"vehicle_id\":\"V\"}", "{\"vehicle_id\":\"V\",\"gateway_id\":\"G\",\"x\":1}"] {
        let answer = operator.call("POST", "/api/v1/vehicles", body).await;
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "body cannot be used");
    }
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(MOST_JSON_OCTETS));
    let answer = operator.call("POST", "/api/v1/campaigns", large).await;
    refused(answer, StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", "1 MiB");
}

#[tokio::test]
async fn operators_enrol_vehicles() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let vehicle = |vehicle: &str, gateway: &str| json!({"vehicle_id": vehicle, "gateway_id": gateway});
    let (status, body) = operator.post("/vehicles", vehicle("V1", "CCU")).await;
    assert_eq!((status, &body["enrolled_by"]), (StatusCode::CREATED, &json!("operator")));
    assert_eq!(operator.post("/vehicles", vehicle("V1", "CCU")).await.0, StatusCode::OK);
    let other_gateway = operator.post("/vehicles", vehicle("V1", "CCU2")).await;
    refused(other_gateway, StatusCode::CONFLICT, "VEHICLE_EXISTS", "V1/CCU");
    operator.post("/vehicles", vehicle("A_B", "C")).await;
    let same_client_id = operator.post("/vehicles", vehicle("A", "B_C")).await;
    refused(same_client_id, StatusCode::CONFLICT, "VEHICLE_EXISTS", "A_B/C");
    let listed = operator.get("/vehicles").await;
    let ids: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|v| v["vehicle_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["A_B", "V1"]);
    let why = operator.get("/vehicles/V1/why").await;
    assert_eq!(why["state"], "no_update");
    let unknown = operator.call("GET", "/api/v1/vehicles/V9", "").await;
    refused(unknown, StatusCode::NOT_FOUND, "NOT_FOUND", "V9");
}

#[tokio::test]
async fn a_new_certificate_is_taken_after_an_operator_allowed_it() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let mut car = Car::known(&world, "V1").await;
    car.peer.thumbprint = "7".repeat(64).parse().unwrap();
    let wake_up = car.wake_up_message(1);
    assert_eq!(car.send(&world, UpTopic::Wakeup, &wake_up).await, crate::desk::Receipt::RefusedIdentity);
    let allowed = json!({"vehicle_id": "V1", "gateway_id": "CCU", "thumbprint": car.peer.thumbprint});
    operator.post("/vehicles", allowed).await;
    assert_eq!(car.send(&world, UpTopic::Wakeup, &wake_up).await, crate::desk::Receipt::Accepted);
    assert_eq!(car.vehicle(&world).await.unwrap().thumbprint, Some(car.peer.thumbprint.clone()));
}

#[tokio::test]
async fn images_are_taken_whole_and_signed_only() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let sha256 = operator.upload(b"image").await;
    operator.upload(b"image").await;
    let put = |query: &str| {
        let path = format!("/api/v1/images/{sha256}{query}");
        operator.call("PUT", Box::leak(path.into_boxed_str()), "image")
    };
    let invalid = (StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST");
    refused(put("").await, invalid.0, invalid.1, "size_bytes");
    refused(put("?size_bytes=4").await, invalid.0, invalid.1, "expected 4 octets");
    refused(put("?size_bytes=6").await, invalid.0, invalid.1, "expected 6 octets, found 5");
    let other =
        operator.call("PUT", &format!("/api/v1/images/{}?size_bytes=5", Sha256::of(b"x")), "image").await;
    refused(other, invalid.0, invalid.1, "SHA-256");
    let signed = |signature: &str| {
        let request = Request::builder()
            .method("PUT")
            .uri(format!("/api/v1/images/{sha256}?size_bytes=5"))
            .header("authorization", "Bearer secret of admin")
            .header("farrier-signature", signature);
        operator.send(request.body(Body::from("image")).unwrap())
    };
    refused(signed("not base64!").await, invalid.0, invalid.1, "base64");
    refused(signed("MAA=").await, StatusCode::CONFLICT, "SIGNATURE_REQUIRED", "release key");
    let stored = world.read(move |tx| crate::store::releases::image(tx, &sha256)).await.unwrap();
    assert_eq!(stored.size_bytes, 5);
    assert!(stored.signature.len() > 60);
}

#[tokio::test]
async fn a_release_names_images_that_are_there_and_never_changes() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    operator.release("R2").await;
    let sha256 = Sha256::of(b"image");
    let release = |version: &str, sha256: &Sha256| json!({"name": "R2", "images": [{"hw_part_no": "HW-1", "version": version, "sha256": sha256}]});
    assert_eq!(operator.post("/releases", release("2", &sha256)).await.0, StatusCode::OK);
    let other = operator.post("/releases", release("3", &sha256)).await;
    refused(other, StatusCode::CONFLICT, "RELEASE_EXISTS", "another name");
    let missing = operator.post("/releases", release("3", &Sha256::of(b"none"))).await;
    refused(missing, StatusCode::CONFLICT, "IMAGE_MISSING", "upload it first");
    let empty = operator.post("/releases", json!({"name": "R3", "images": []})).await;
    refused(empty, StatusCode::UNPROCESSABLE_ENTITY, "RELEASE_INVALID", "at least one image");
    let bad_name = operator.post("/releases", json!({"name": "../R", "images": []})).await;
    refused(bad_name, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "release name");
    assert_eq!(operator.get("/releases/R2").await["images"][0]["version"], "2");
    assert_eq!(operator.get("/releases").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_campaign_is_planned_started_and_watched() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let mut car = Car::known(&world, "V1").await;
    operator.release("R2").await;
    let campaign = json!({"name": "C2", "release": "R2", "vehicles": ["V1"], "update_deadline_s": 100});
    let (status, draft) = operator.post("/campaigns", campaign.clone()).await;
    assert_eq!(
        (status, &draft["state"], &draft["vehicles"]),
        (StatusCode::CREATED, &json!("draft"), &json!(1))
    );
    assert!(car.commands(&world).await.is_empty());
    let again = operator.post("/campaigns", campaign).await;
    refused(again, StatusCode::CONFLICT, "CAMPAIGN_EXISTS", "another name");
    let nobody =
        operator.post("/campaigns", json!({"name": "C3", "release": "R2", "vehicles": ["V9"]})).await;
    refused(nobody, StatusCode::NOT_FOUND, "NOT_FOUND", "V9");
    let nothing = operator.post("/campaigns", json!({"name": "C3", "release": "R9"})).await;
    refused(nothing, StatusCode::NOT_FOUND, "NOT_FOUND", "R9");

    for _ in 0..2 {
        let (_, running) = operator.post("/campaigns/C2/start", json!({})).await;
        assert_eq!(
            (&running["state"], &running["states"]),
            (&json!("running"), &json!({"collecting_vci": 1}))
        );
    }
    let (command, start) = car.to_start_download(&world).await;
    assert_eq!(start.expires_at_ms, START.plus_seconds(100));
    let vehicles = operator.get("/campaigns/C2/vehicles").await;
    assert_eq!(
        (&vehicles["items"][0]["bytes_total"], &vehicles["items"][0]["ecu_count"]),
        (&json!(10), &json!(2))
    );
    let why = operator.get("/vehicles/V1/why").await;
    assert_eq!(why["waiting_on"]["kind"], "step");
    assert!(why["sentence"].as_str().unwrap().contains("download"), "{why}");

    car.report(&world, &command, "commit").await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    let finished = operator.get("/campaigns/C2").await;
    assert_eq!((&finished["state"], &finished["states"]), (&json!("finished"), &json!({"succeeded": 1})));
    let shown = operator.get("/vehicles/V1").await;
    assert_eq!(shown["inventory"]["ecus"][0]["sw_version"], "2");
    let steps: Vec<_> =
        shown["updates"][0]["steps"].as_array().unwrap().iter().map(|s| &s["state"]).collect();
    assert_eq!(steps, ["collecting_vci", "checking_readiness", "downloading", "verifying", "succeeded"]);
}

#[tokio::test]
async fn one_vehicle_is_cancelled_or_rolled_back_where_that_is_possible() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let car = Car::known(&world, "V1").await;
    operator.release("R2").await;
    operator.post("/campaigns", json!({"name": "C2", "release": "R2"})).await;
    let cancel = || operator.post("/campaigns/C2/vehicles/V1/cancel", json!({"reason": "wrong image"}));
    refused(cancel().await, StatusCode::NOT_FOUND, "NOT_FOUND", "V1");
    operator.post("/campaigns/C2/start", json!({})).await;
    let rollback = operator.post("/campaigns/C2/vehicles/V1/rollback", json!({})).await;
    refused(rollback, StatusCode::CONFLICT, "ORDER_REFUSED", "succeeded");
    let (status, body) = cancel().await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("cancelled")), "{body}");
    refused(cancel().await, StatusCode::CONFLICT, "ORDER_REFUSED", "cannot be cancelled");
    assert!(car.commands(&world).await.is_empty(), "the question is withdrawn");
    let released = operator.post("/vehicles/V1/release", json!({})).await;
    refused(released, StatusCode::CONFLICT, "NOT_QUARANTINED", "V1");
}

#[tokio::test]
async fn refused_messages_are_shown_with_their_reason() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let car = Car::known(&world, "V1").await;
    car.send_octets(&world, UpTopic::Result, "{".into()).await;
    let refused = &operator.get("/refused-messages").await["items"];
    assert_eq!((&refused[0]["code"], &refused[0]["payload"]), (&json!("MALFORMED_JSON"), &json!("{")));
    assert_eq!(operator.get("/vehicles/V1").await["refused_messages"][0]["topic"], "result");
}

#[tokio::test]
async fn a_release_shows_its_deltas_and_why_there_are_none() {
    let world = World::new();
    world.release("R1", "1").await;
    world.release("R2", "2").await;
    let digest = |version: &str| Sha256::of(version.as_bytes());
    let images = json!([{"hw_part_no": "HW-1", "version": "3", "sha256": digest("2")}]);
    let operator = Operator::of(&world).await;
    assert_eq!(
        operator.post("/releases", json!({"name": "R3", "images": images})).await.0,
        StatusCode::CREATED
    );

    let shown = operator.get("/releases/R3").await;
    assert_eq!(shown["deltas"][0]["from"], json!({"version": "1", "sha256": digest("1")}));
    assert_eq!(shown["deltas"][0]["to"], json!({"version": "3", "sha256": digest("2")}));
    assert_eq!(
        (&shown["deltas"][0]["state"], &shown["deltas"][0]["detail"]),
        (&json!("pending"), &Value::Null)
    );
    let without_key = Operator::with(&world, false).await.get("/releases/R3").await;
    let detail = without_key["deltas"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("no release key"), "{detail}");

    world
        .write(|tx, _, now| {
            let wanted = crate::store::deltas::claim_next_wanted(tx, "n", START)?.unwrap();
            let made = crate::store::deltas::MadeDelta::Ready {
                sha256: Sha256::of(b"delta"),
                size_bytes: 100,
                signature: vec![0x30],
                compressed_image_bytes: 400,
            };
            crate::store::deltas::made(tx, &wanted, &made, now)
        })
        .await;
    let ready = &operator.get("/releases/R3").await["deltas"][0];
    assert_eq!(
        (&ready["state"], &ready["size_bytes"], &ready["ratio"]),
        (&json!("ready"), &json!(100), &json!(0.25))
    );
    assert_eq!(operator.get("/releases/R1").await["deltas"], json!([]));
}
