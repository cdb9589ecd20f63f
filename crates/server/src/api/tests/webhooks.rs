use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::store::changes;
use crate::store::webhooks as stored;
use crate::webhooks::{Deliverer, Sender};

/// What a receiver got.
#[derive(Debug)]
struct Received {
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Received {
    fn document(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Checks the signatures as docs/webhooks.md tells receivers to: how many of them are of this secret.
    fn signed_with(&self, secret: &str) -> usize {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signed =
            format!("{}.{}.{}", self.headers["webhook-id"], self.headers["webhook-timestamp"], self.body);
        let signatures =
            self.headers["webhook-signature"].split(' ').map(|one| one.strip_prefix("v1,").unwrap());
        let is_good = |one: &&str| {
            hmac::verify(&key, signed.as_bytes(), &BASE64.decode(one.as_bytes()).unwrap()).is_ok()
        };
        signatures.filter(is_good).count()
    }
}

/// A receiver that answers what it is told to, one answer after the other and then 204.
struct Receiver {
    port: u16,
    received: mpsc::UnboundedReceiver<Received>,
    answers: mpsc::UnboundedSender<&'static str>,
}

impl Receiver {
    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (got, received) = mpsc::unbounded_channel();
        let (answers, mut scripted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut headers = BTreeMap::new();
                loop {
                    line.clear();
                    stream.read_line(&mut line).await.unwrap();
                    let Some((name, value)) = line.trim_end().split_once(": ") else { break };
                    headers.insert(name.to_ascii_lowercase(), value.to_owned());
                }
                let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.unwrap();
                let body = String::from_utf8(body).unwrap();
                let answer = scripted.try_recv().unwrap_or("HTTP/1.1 204 No Content\r\n\r\n");
                if got.send(Received { path, headers, body }).is_err() {
                    break;
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { port, received, answers }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks/secret-path?a=b", self.port)
    }

    fn answers(&self, answer: &'static str) {
        self.answers.send(answer).unwrap();
    }

    async fn next(&mut self) -> Received {
        self.received.recv().await.unwrap()
    }
}

const SERVER_ERROR: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noh\x07!";

/// A server with webhooks, and time that the test moves.
struct Bed {
    world: World,
    operator: Operator,
    deliverer: Deliverer,
    now: Arc<AtomicI64>,
}

impl Bed {
    async fn new() -> Self {
        let world = World::new();
        let operator = Operator::of(&world).await;
        let now = Arc::new(AtomicI64::new(world.now.0));
        let deliverer = deliverer(&world.store, &now, &open_settings());
        Self { world, operator, deliverer, now }
    }

    async fn webhook(&self, name: &str, url: &str, types: &[&str]) -> String {
        let (status, body) =
            self.operator.post("/webhooks", json!({"name": name, "url": url, "types": types})).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["secret"].as_str().unwrap().to_owned()
    }

    /// Something changes; gives after how many deliveries it is told.
    async fn change(&self, number: u64) -> usize {
        let body = json!({"vehicle_id": format!("V{number}"), "gateway_id": "G"});
        assert!(self.operator.post("/vehicles", body).await.0.is_success());
        self.number().await
    }

    async fn number(&self) -> usize {
        let now = UnixMillis(self.now.load(Ordering::Relaxed));
        self.world
            .store
            .write::<_, StoreError>(move |tx| changes::number(tx, 1_000, 1_000, now))
            .await
            .unwrap()
            .deliveries
    }

    fn pass(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    async fn deliveries(&self, name: &str) -> Vec<Value> {
        let page = self.operator.get(&format!("/webhooks/{name}/deliveries")).await;
        page["items"].as_array().unwrap().clone()
    }
}

fn open_settings() -> WebhookSettings {
    WebhookSettings { allow_insecure_http: true, allow_private_targets: true, roots: None }
}

fn deliverer(store: &Store, now: &Arc<AtomicI64>, settings: &WebhookSettings) -> Deliverer {
    let now = Arc::clone(now);
    Deliverer {
        store: store.clone(),
        sender: Arc::new(Sender::new(settings).unwrap()),
        clock: Arc::new(move || UnixMillis(now.load(Ordering::Relaxed))),
        to_deliver: Arc::default(),
    }
}

#[tokio::test]
async fn a_change_arrives_signed_and_what_is_not_wanted_does_not() {
    let bed = Bed::new().await;
    let mut receiver = Receiver::start().await;
    let secret = bed.webhook("ops", &receiver.url(), &["vehicle.*"]).await;
    assert_eq!(bed.change(1).await, 1, "that the webhook was made is not wanted");
    assert_eq!(bed.deliverer.deliver_due().await, 1);
    let received = receiver.next().await;
    assert_eq!(received.path, "/hooks/secret-path?a=b");
    assert_eq!(received.headers["content-type"], "application/json");
    assert_eq!(received.headers["webhook-timestamp"], (START.0 / 1000).to_string());
    assert_eq!(
        (received.signed_with(&secret), received.headers["webhook-signature"].matches("v1,").count()),
        (1, 1)
    );
    let document = received.document();
    assert_eq!(document["id"], received.headers["webhook-id"]);
    assert_eq!((&document["type"], &document["vehicle_id"]), (&json!("vehicle.enrolled"), &json!("V1")));
    assert_eq!(document["sequence"], json!(2));
    let told = bed.operator.get("/events?after=1").await;
    assert_eq!(told["items"][0], document, "the stream tells the same");
    let delivery = &bed.deliveries("ops").await[0];
    assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("delivered"), &json!(1)));
    assert_eq!((&delivery["status"], &delivery["outcome"]), (&json!(204), &json!("answered 204")));
    assert_eq!(bed.deliverer.deliver_due().await, 0);
}

#[tokio::test]
async fn what_does_not_arrive_is_sent_again_under_the_same_id_until_it_does() {
    let bed = Bed::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    bed.webhook("ops", &format!("http://{address}/"), &["vehicle.*"]).await;
    bed.change(1).await;
    assert_eq!(bed.deliverer.deliver_due().await, 1);
    let delivery = bed.deliveries("ops").await[0].clone();
    assert_eq!((&delivery["state"], &delivery["status"]), (&json!("waiting"), &Value::Null));
    assert!(delivery["outcome"].as_str().unwrap().contains("refused"), "{delivery}");
    let mut receiver = Receiver::on(TcpListener::bind(address).await.unwrap());
    receiver.answers(SERVER_ERROR);
    receiver.answers("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n");
    receiver.answers("nonsense\r\n\r\n");
    assert_eq!(bed.deliverer.deliver_due().await, 0, "it is too early");
    let mut ids = Vec::new();
    // After 5, 20 and 80 s, and at most a quarter more.
    for (pause_s, outcome) in [(7, "answered 500"), (25, "redirects"), (100, "HTTP"), (400, "answered 204")] {
        bed.pass(pause_s * 1_000);
        assert_eq!(bed.deliverer.deliver_due().await, 1, "{outcome}");
        ids.push(receiver.next().await.headers["webhook-id"].clone());
        let delivery = bed.deliveries("ops").await[0].clone();
        assert!(delivery["outcome"].as_str().unwrap().contains(outcome), "{delivery}");
        if outcome == "answered 500" {
            assert_eq!(delivery["response"], "oh !");
        }
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
    let delivery = bed.deliveries("ops").await[0].clone();
    assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("delivered"), &json!(5)));
}

#[tokio::test]
async fn after_a_day_it_is_given_up_and_can_be_asked_for_again() {
    let bed = Bed::new().await;
    let mut receiver = Receiver::start().await;
    bed.webhook("ops", &receiver.url(), &["vehicle.*"]).await;
    bed.change(1).await;
    receiver.answers(SERVER_ERROR);
    bed.pass(24 * 3_600_000 - 1_000);
    bed.deliverer.deliver_due().await;
    let first = receiver.next().await;
    let delivery = bed.deliveries("ops").await[0].clone();
    assert_eq!((&delivery["state"], &delivery["next_at_ms"]), (&json!("failed"), &Value::Null));
    bed.pass(7 * 24 * 3_600_000);
    assert_eq!(bed.deliverer.deliver_due().await, 0);
    let path = format!("/webhooks/ops/deliveries/{}/redeliver", delivery["id"].as_str().unwrap());
    let (status, body) = bed.operator.post(&path, json!({})).await;
    assert_eq!((status, &body["state"], &body["attempts"]), (StatusCode::OK, &json!("waiting"), &json!(0)));
    bed.deliverer.deliver_due().await;
    let again = receiver.next().await;
    assert_eq!((&again.headers["webhook-id"], &again.body), (&first.headers["webhook-id"], &first.body));
    assert_eq!(bed.deliveries("ops").await[0]["state"], "delivered");
    let unknown = bed.operator.post("/webhooks/ops/deliveries/none/redeliver", json!({})).await;
    refused(unknown, StatusCode::NOT_FOUND, "NOT_FOUND", "delivery none");
}

#[tokio::test]
async fn a_receiver_that_is_gone_for_good_disables_its_webhook() {
    let bed = Bed::new().await;
    let mut receiver = Receiver::start().await;
    bed.webhook("ops", &receiver.url(), &["*"]).await;
    bed.change(1).await;
    receiver.answers("HTTP/1.1 410 Gone\r\n\r\n");
    let tried = bed.deliverer.deliver_due().await;
    receiver.next().await;
    assert!(tried >= 2);
    let shown = bed.operator.get("/webhooks/ops").await;
    assert_eq!(shown["enabled"], false);
    assert!(shown["disabled_because"].as_str().unwrap().contains("410"), "{shown}");
    assert_eq!(bed.change(2).await, 0, "nothing is queued for it any more");
    let answer = bed.operator.post("/webhooks/ops/test", json!({})).await;
    refused(answer, StatusCode::CONFLICT, "WEBHOOK_DISABLED", "enable");
    let audit = bed.operator.get("/audit?first=newest").await;
    let actions: Vec<_> = audit["items"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    assert!(actions.contains(&&json!("webhook.disabled")), "{actions:?}");
    let change = json!({"enabled": true}).to_string();
    let (status, body) = bed.operator.call("PATCH", "/api/v1/webhooks/ops", change).await;
    assert_eq!((status, &body["disabled_because"]), (StatusCode::OK, &Value::Null));
    assert!(bed.change(3).await > 0);
}

#[tokio::test]
async fn for_a_day_after_a_new_secret_both_sign() {
    let bed = Bed::new().await;
    let mut receiver = Receiver::start().await;
    let earlier = bed.webhook("ops", &receiver.url(), &["webhook.test"]).await;
    let (status, body) = bed.operator.post("/webhooks/ops/rotate-secret", json!({})).await;
    let secret = body["secret"].as_str().unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_ne!(secret, earlier);
    let test = async || {
        let (status, body) = bed.operator.post("/webhooks/ops/test", json!({})).await;
        assert_eq!((status, &body["type"]), (StatusCode::OK, &json!("webhook.test")), "{body}");
        assert_eq!(bed.deliverer.deliver_due().await, 1);
    };
    test().await;
    let received = receiver.next().await;
    assert_eq!((received.signed_with(secret), received.signed_with(&earlier)), (1, 1));
    assert_eq!(received.document()["data"], json!({"webhook": "ops"}));
    bed.pass(24 * 3_600_000);
    test().await;
    let received = receiver.next().await;
    assert_eq!((received.signed_with(secret), received.signed_with(&earlier)), (1, 0));
}

#[tokio::test]
async fn a_secret_is_shown_once_and_nowhere_else() {
    let bed = Bed::new().await;
    let receiver = Receiver::start().await;
    let secret = bed.webhook("ops", &receiver.url(), &["*"]).await;
    bed.change(1).await;
    bed.deliverer.deliver_due().await;
    let key = secret.strip_prefix("whsec_").unwrap();
    for path in ["/webhooks", "/webhooks/ops", "/webhooks/ops/deliveries", "/audit", "/events?after=0"] {
        let text = bed.operator.get(path).await.to_string();
        assert!(text.contains("ops") || text.contains("vehicle.enrolled"), "{text}");
        assert!(!text.contains(key), "{path}: {text}");
    }
    for path in ["/audit", "/events?after=0"] {
        let text = bed.operator.get(path).await.to_string();
        assert!(
            !text.contains("secret-path"),
            "whoever may only look does not learn the receiver's path: {text}"
        );
    }
    let webhook = bed.world.read(|tx| stored::by_name(tx, &"ops".parse().unwrap())).await.unwrap();
    assert!(!format!("{webhook:?}").contains(key));
}

#[tokio::test]
async fn a_webhook_cannot_make_the_server_reach_what_is_not_public() {
    let bed = Bed::new().await;
    let mut receiver = Receiver::start().await;
    // By a name too: what it leads to is looked at when it is connected to.
    let by_name = format!("http://localhost:{}/", receiver.port);
    bed.webhook("by-name", &by_name, &["vehicle.*"]).await;
    bed.webhook("by-number", &receiver.url(), &["vehicle.*"]).await;
    bed.change(1).await;
    let closed = WebhookSettings { allow_private_targets: false, ..open_settings() };
    assert_eq!(deliverer(&bed.world.store, &bed.now, &closed).deliver_due().await, 2);
    let without_http = WebhookSettings { allow_insecure_http: false, ..open_settings() };
    for name in ["by-name", "by-number"] {
        let delivery = bed.deliveries(name).await[0].clone();
        assert!(delivery["outcome"].as_str().unwrap().contains("no public address"), "{delivery}");
    }
    bed.pass(10_000);
    assert_eq!(deliverer(&bed.world.store, &bed.now, &without_http).deliver_due().await, 2);
    assert!(bed.deliveries("by-name").await[0]["outcome"].as_str().unwrap().contains("by http"));
    assert!(receiver.received.try_recv().is_err(), "nothing was sent");
}

#[tokio::test]
async fn by_tls_it_goes_only_to_a_receiver_with_the_right_certificate() {
    let bed = Bed::new().await;
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, certificate.pem()).unwrap();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut octets = [0; 4096];
                let _ = stream.read(&mut octets).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                let _ = stream.shutdown().await;
            }
        }
    });
    bed.webhook("ops", &format!("https://localhost:{port}/"), &["vehicle.*"]).await;
    bed.webhook("other-name", &format!("https://127.0.0.1:{port}/"), &["vehicle.*"]).await;
    bed.change(1).await;
    let untrusting = deliverer(&bed.world.store, &bed.now, &open_settings());
    untrusting.deliver_due().await;
    assert!(bed.deliveries("ops").await[0]["outcome"].as_str().unwrap().starts_with("TLS failed"));
    bed.pass(10_000);
    let settings = WebhookSettings { roots: Some(roots), ..open_settings() };
    deliverer(&bed.world.store, &bed.now, &settings).deliver_due().await;
    let delivery = bed.deliveries("ops").await[0].clone();
    assert_eq!(
        (&delivery["state"], &delivery["response"]),
        (&json!("delivered"), &json!("ok")),
        "{delivery}"
    );
    assert!(bed.deliveries("other-name").await[0]["outcome"].as_str().unwrap().starts_with("TLS failed"));
    let missing = WebhookSettings { roots: Some(dir.path().join("nowhere.pem")), ..open_settings() };
    let error = Sender::new(&missing).err().unwrap();
    assert!(error.to_string().contains("nowhere.pem"), "{error}");
}

/// One receiver never answers. The other gets everything all the same, and the server lets go of the first after its time.
#[tokio::test]
async fn a_receiver_that_does_not_answer_holds_up_no_other() {
    let bed = Bed::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut receiver = Receiver::start().await;
    bed.webhook("silent", &format!("http://{}/", silent.local_addr().unwrap()), &["vehicle.*"]).await;
    bed.webhook("ops", &receiver.url(), &["vehicle.*"]).await;
    for number in 0..20 {
        bed.change(number).await;
    }
    let Bed { world, operator, mut deliverer, now } = bed;
    let sender = Sender::new(&open_settings()).unwrap().within(Duration::from_secs(2));
    deliverer.sender = Arc::new(sender);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(deliverer.run(shutdown.clone()));
    for _ in 0..20 {
        receiver.next().await;
    }
    let outcome = async || {
        let page = operator.get("/webhooks/silent/deliveries").await;
        page["items"].as_array().unwrap().iter().find_map(|item| item["outcome"].as_str().map(str::to_owned))
    };
    let said = loop {
        match outcome().await {
            Some(said) => break said,
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert_eq!(said, "the receiver did not answer within 2s");
    shutdown.cancel();
    running.await.unwrap();
    drop((world, now));
}

#[tokio::test]
async fn what_waits_for_a_dead_receiver_is_bounded_and_what_is_dropped_is_counted() {
    let bed = Bed::new().await;
    bed.webhook("dead", "http://127.0.0.1:9/", &["vehicle.*"]).await;
    bed.change(0).await;
    let oldest = bed.deliveries("dead").await[0]["id"].clone();
    let most = u64::try_from(stored::MOST_WAITING).unwrap();
    bed.world
        .write(move |tx, _, now| {
            for number in 0..most {
                let id = format!("00000000-{number:05}");
                tx.exec(
                    "INSERT INTO webhook_delivery (id, webhook_name, event_id, kind, body, state, created_at, give_up_at, next_at) \
                     VALUES ($1, 'dead', 'e', 'vehicle.changed', '{}', 'waiting', $2, $2, $2)",
                    &[(&id).into(), now.into()],
                )?;
            }
            Ok(())
        })
        .await;
    bed.change(1).await;
    assert_eq!(bed.operator.get("/webhooks/dead").await["dropped"], 2);
    assert_eq!(bed.world.read(stored::waiting).await, most);
    assert_eq!(bed.deliveries("dead").await[1]["id"], oldest, "those that came first went");
}

/// What was committed is delivered after a crash, whether or not it had its number; what two servers find, one sends.
#[tokio::test]
async fn nothing_is_lost_when_the_server_dies_and_nothing_is_sent_by_two() {
    let mut bed = Bed::new().await;
    let mut receiver = Receiver::start().await;
    bed.webhook("ops", &receiver.url(), &["vehicle.*"]).await;
    bed.change(1).await;
    let body = json!({"vehicle_id": "V2", "gateway_id": "G"});
    assert!(bed.operator.post("/vehicles", body).await.0.is_success());
    bed.world.restart().await;
    bed.operator = Operator::of(&bed.world).await;
    bed.deliverer = deliverer(&bed.world.store, &bed.now, &open_settings());
    assert_eq!(bed.number().await, 1);
    let name = "ops".parse().unwrap();
    let until = UnixMillis(bed.world.now.0 + 60_000);
    let claimed = bed.world.write(move |tx, _, now| stored::claim(tx, &name, 10, now, until)).await;
    assert_eq!(claimed.len(), 2);
    let other = bed.world.store.is_shared().then(|| bed.world.another_store());
    let other = deliverer(other.as_ref().unwrap_or(&bed.world.store), &bed.now, &open_settings());
    assert_eq!(other.deliver_due().await, 0, "the first has them");
    // The first dies before it has sent anything.
    bed.pass(60_001);
    assert_eq!(other.deliver_due().await, 2);
    let vehicles = [receiver.next().await.document(), receiver.next().await.document()];
    assert_eq!([&vehicles[0]["vehicle_id"], &vehicles[1]["vehicle_id"]], ["V1", "V2"]);
    assert_eq!(bed.deliverer.deliver_due().await, 0);
}

#[tokio::test]
async fn webhooks_that_cannot_be_are_refused_and_those_that_are_can_be_changed_and_deleted() {
    let bed = Bed::new().await;
    let create = |name: &str, url: &str, types: Value| {
        let body = json!({"name": name, "url": url, "types": types});
        async { bed.operator.post("/webhooks", body).await }
    };
    let url = "https://hooks.example/";
    for (name, url, types, says) in [
        ("a b", url, json!(["*"]), "webhook name"),
        ("ops", "ftp://hooks.example/", json!(["*"]), "url: expected https://"),
        ("ops", url, json!([]), "1 to 32"),
        ("ops", url, json!(vec!["campaign"; 33]), "1 to 32"),
        ("ops", url, json!(["campaign started"]), "campaign.*"),
    ] {
        refused(create(name, url, types).await, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", says);
    }
    assert_eq!(create("ops", url, json!(["campaign.*"])).await.0, StatusCode::CREATED);
    refused(create("ops", url, json!(["*"])).await, StatusCode::CONFLICT, "WEBHOOK_EXISTS", "ops");
    let change = json!({"types": ["vehicle.*"], "note": "for the night shift"}).to_string();
    let (status, body) = bed.operator.call("PATCH", "/api/v1/webhooks/ops", change).await;
    assert_eq!((status, &body["types"], &body["url"]), (StatusCode::OK, &json!(["vehicle.*"]), &json!(url)));
    assert_eq!(bed.operator.get("/webhooks").await["items"], json!([body]));
    for number in 1..64 {
        assert_eq!(create(&format!("w{number}"), url, json!(["*"])).await.0, StatusCode::CREATED);
    }
    refused(create("one-more", url, json!(["*"])).await, StatusCode::CONFLICT, "TOO_MANY_WEBHOOKS", "64");
    bed.change(1).await;
    let (status, _) = bed.operator.call("DELETE", "/api/v1/webhooks/ops", "").await;
    assert_eq!(status, StatusCode::OK);
    let gone = bed.operator.call("GET", "/api/v1/webhooks/ops/deliveries", "").await;
    refused(gone, StatusCode::NOT_FOUND, "NOT_FOUND", "webhook ops");
}
