//! The endpoint over real TLS, asked by hyper's own client in both versions of HTTP.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use farrier_protocol::{PkgId, Sha256};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::desk::{DeskUnavailable, Download, FileAnswer};
use crate::tls::testbed::{Testbed, binding, connect};

/// More than fits into all buffers on the way; the file has holes only.
const LONG: u64 = 256 * 1024 * 1024;

/// Serves `fw` to the first vehicle only; other names stand for other answers.
struct FakeDesk {
    content: PathBuf,
    size_bytes: u64,
    hash: Sha256,
    told: Mutex<Vec<Vec<Download>>>,
    heard: Notify,
    is_cancelled: AtomicBool,
}

impl PackageDesk for FakeDesk {
    async fn package(
        &self,
        peer: &PeerIdentity,
        pkg_id: &PkgId,
        hash: &Sha256,
    ) -> Result<FileAnswer, DeskUnavailable> {
        if peer.common_name != "VEH_001_CCU_001" {
            return Ok(FileAnswer::Forbidden);
        }
        let serve = |path, size_bytes| Ok(FileAnswer::Serve { path, size_bytes, limit: None });
        match pkg_id.as_str() {
            "fw" if *hash == self.hash => serve(self.content.clone(), self.size_bytes),
            "empty" => serve(self.content.with_file_name("empty"), 0),
            "long" => serve(self.content.with_file_name("long"), LONG),
            "short" => serve(self.content.clone(), self.size_bytes + 1),
            "lost" => serve(self.content.with_file_name("lost"), 1),
            "gone" => Ok(FileAnswer::Gone),
            "broken" => Err(DeskUnavailable("/var/lib/secret.db is locked".into())),
            _ => Ok(FileAnswer::Unknown),
        }
    }

    async fn signature(
        &self,
        peer: &PeerIdentity,
        _: &PkgId,
        _: &Sha256,
    ) -> Result<FileAnswer, DeskUnavailable> {
        if peer.common_name != "VEH_001_CCU_001" {
            return Ok(FileAnswer::Forbidden);
        }
        Ok(FileAnswer::Signature(b"signature".to_vec()))
    }

    async fn downloading(&self, downloads: Vec<Download>) -> Result<Vec<bool>, DeskUnavailable> {
        let open = downloads.iter().map(|_| !self.is_cancelled.load(Ordering::Relaxed)).collect();
        self.told.lock().unwrap().push(downloads);
        self.heard.notify_one();
        Ok(open)
    }
}

struct Running {
    bed: Testbed,
    port: u16,
    content: Vec<u8>,
    desk: Arc<FakeDesk>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
enum Http {
    One,
    Two,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Running {
    async fn start() -> Self {
        Self::start_with(HttpsLimits::default()).await
    }

    async fn start_with(limits: HttpsLimits) -> Self {
        let bed = Testbed::new();
        // More than two blocks, and no multiple of them.
        let content: Vec<u8> = (0..1_200_007_u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(bed.path("content"), &content).unwrap();
        std::fs::write(bed.path("empty"), b"").unwrap();
        std::fs::File::create(bed.path("long")).unwrap().set_len(LONG).unwrap();
        let desk = Arc::new(FakeDesk {
            content: bed.path("content"),
            size_bytes: content.len() as u64,
            hash: Sha256::of(&content),
            told: Mutex::default(),
            heard: Notify::new(),
            is_cancelled: AtomicBool::new(false),
        });
        for vehicle in ["VEH_001", "VEH_002"] {
            bed.vehicle(&binding(vehicle, "CCU_001"));
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        let tls = bed.tls();
        let server = tokio::spawn(serve(listener, tls, Arc::clone(&desk), limits, shutdown.clone()));
        Self { bed, port, content, desk, shutdown, server }
    }

    fn url(&self, pkg_id: &str) -> String {
        format!("/v1/packages/{pkg_id}/{}", self.desk.hash)
    }

    async fn ask(&self, http: Http, vehicle: &str, request: axum::http::request::Builder) -> Answer {
        let mut config = self.bed.usual_client(&self.bed.path(&format!("{vehicle}_CCU_001")));
        let request = request.body(Body::empty()).unwrap();
        let response = match http {
            Http::One => {
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let stream = TokioIo::new(connect(config, self.port).await.unwrap());
                let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            }
            Http::Two => {
                config.alpn_protocols = vec![b"h2".to_vec()];
                let stream = TokioIo::new(connect(config, self.port).await.unwrap());
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            }
        };
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.unwrap();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask_one("GET", url, headers).await
    }

    async fn ask_one(&self, method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(Http::One, "VEH_001", request).await
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.desk.hash)
    }

    fn assert_names_the_content(&self, answer: &Answer) {
        assert_eq!(answer.header("etag"), self.etag());
        assert_eq!(answer.header("accept-ranges"), "bytes");
        let digest = answer.header("repr-digest");
        let digest = digest.strip_prefix("sha-256=:").unwrap().strip_suffix(':').unwrap();
        let digest = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, digest).unwrap();
        assert_eq!(digest, self.desk.hash.as_bytes());
    }
}

fn assert_problem(answer: &Answer, status: StatusCode) {
    assert_eq!(answer.status, status);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["status"], status.as_u16());
    assert!(document["title"].as_str().is_some_and(|title| !title.is_empty()));
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
}

#[tokio::test]
async fn a_package_is_served_whole_over_both_versions_of_http() {
    let running = Running::start().await;
    for http in [Http::One, Http::Two] {
        let request = Request::builder().uri(format!("https://localhost{}", running.url("fw")));
        let answer = running.ask(http, "VEH_001", request).await;
        assert_eq!(answer.status, StatusCode::OK, "{http:?}");
        assert_eq!(answer.header("content-length"), running.content.len().to_string());
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        running.assert_names_the_content(&answer);
        assert!(answer.body == running.content, "{http:?}");
    }
}

#[tokio::test]
async fn limited_downloads_side_by_side_come_to_their_end_byte_for_byte() {
    let limits = HttpsLimits { bytes_per_second: Some(12_000_000), ..HttpsLimits::default() };
    let running = Running::start_with(limits).await;
    let downloads = [Http::One, Http::Two, Http::One].map(|http| {
        let request = Request::builder().uri(format!("https://localhost{}", running.url("fw")));
        running.ask(http, "VEH_001", request)
    });
    for answer in futures_util::future::join_all(downloads).await {
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body == running.content);
    }
}

#[tokio::test]
async fn a_range_is_served_as_a_part() {
    let running = Running::start().await;
    let size = running.content.len();
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=1000-600000", 1000, 600_000),
        ("bytes=1200000-", 1_200_000, size - 1),
        ("bytes=-7", size - 7, size - 1),
        ("bytes=1200000-9999999999", 1_200_000, size - 1),
    ] {
        let answer = running.get(&running.url("fw"), &[("range", range)]).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/{size}"));
        assert_eq!(answer.header("content-length"), (last - first + 1).to_string());
        running.assert_names_the_content(&answer);
        assert!(answer.body == running.content[first..=last], "{range}");
    }
}

#[tokio::test]
async fn several_ranges_and_those_that_are_none_get_the_whole() {
    let running = Running::start().await;
    for range in ["bytes=0-1,5-6", "bytes=9-3", "lines=1-2", "bytes=x"] {
        let answer = running.get(&running.url("fw"), &[("range", range)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{range}");
        assert_eq!(answer.body.len(), running.content.len());
    }
}

#[tokio::test]
async fn a_range_behind_the_end_is_not_satisfiable() {
    let running = Running::start().await;
    let size = running.content.len();
    for range in [format!("bytes={size}-"), "bytes=-0".to_owned()] {
        let answer = running.get(&running.url("fw"), &[("range", &range)]).await;
        assert_problem(&answer, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(answer.header("content-range"), format!("bytes */{size}"));
    }
}

#[tokio::test]
async fn a_range_counts_only_for_the_content_that_the_vehicle_knows() {
    let running = Running::start().await;
    let etag = running.etag();
    let weak = format!("W/{etag}");
    for (if_range, expected) in [
        (etag.as_str(), StatusCode::PARTIAL_CONTENT),
        ("\"other\"", StatusCode::OK),
        (&weak, StatusCode::OK),
        ("Sat, 21 Nov 2026 00:00:00 GMT", StatusCode::OK),
    ] {
        let headers = [("range", "bytes=5-9"), ("if-range", if_range)];
        assert_eq!(running.get(&running.url("fw"), &headers).await.status, expected, "{if_range}");
    }
}

#[tokio::test]
async fn what_the_vehicle_has_already_is_not_sent_again() {
    let running = Running::start().await;
    let etag = running.etag();
    let (weak, listed) = (format!("W/{etag}"), format!("\"a\", {etag}"));
    for (none_match, expected) in [
        (etag.as_str(), StatusCode::NOT_MODIFIED),
        (&weak, StatusCode::NOT_MODIFIED),
        (&listed, StatusCode::NOT_MODIFIED),
        ("*", StatusCode::NOT_MODIFIED),
        ("\"other\"", StatusCode::OK),
    ] {
        let answer = running.get(&running.url("fw"), &[("if-none-match", none_match)]).await;
        assert_eq!(answer.status, expected, "{none_match}");
        running.assert_names_the_content(&answer);
        assert_eq!(answer.body.is_empty(), expected == StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test]
async fn what_the_vehicle_does_not_expect_is_not_sent() {
    let running = Running::start().await;
    let etag = running.etag();
    let (weak, listed) = (format!("W/{etag}"), format!("\"a\", {etag}"));
    for (matching, expected) in [
        (etag.as_str(), StatusCode::OK),
        (&listed, StatusCode::OK),
        ("*", StatusCode::OK),
        (&weak, StatusCode::PRECONDITION_FAILED),
        ("\"other\"", StatusCode::PRECONDITION_FAILED),
    ] {
        let answer = running.get(&running.url("fw"), &[("if-match", matching)]).await;
        assert_eq!((answer.status, answer.header("etag")), (expected, etag.as_str()), "{matching}");
    }
    assert_problem(
        &running.get(&running.url("fw"), &[("if-match", "\"other\""), ("range", "bytes=0-1")]).await,
        StatusCode::PRECONDITION_FAILED,
    );
}

#[tokio::test]
async fn head_answers_as_get_does_without_content() {
    let running = Running::start().await;
    let answer = running.ask_one("HEAD", &running.url("fw"), &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-length"), running.content.len().to_string());
    running.assert_names_the_content(&answer);
    let part = running.ask_one("HEAD", &running.url("fw"), &[("range", "bytes=0-9")]).await;
    assert_eq!((part.status, part.header("content-length")), (StatusCode::PARTIAL_CONTENT, "10"));
    assert!(answer.body.is_empty() && part.body.is_empty());
    running.shutdown.cancel();
    running.server.await.unwrap();
    assert!(running.desk.told.lock().unwrap().is_empty(), "nothing was served");
}

#[tokio::test]
async fn an_empty_package_is_served() {
    let running = Running::start().await;
    let answer = running.get(&running.url("empty"), &[]).await;
    assert_eq!((answer.status, answer.header("content-length")), (StatusCode::OK, "0"));
    let answer = running.get(&running.url("empty"), &[("range", "bytes=0-")]).await;
    assert_problem(&answer, StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn the_signature_stands_beside_the_package() {
    let running = Running::start().await;
    let url = running.url("fw") + ".sig";
    let answer = running.get(&url, &[]).await;
    assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, &b"signature"[..]));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(running.ask_one("HEAD", &url, &[]).await.header("content-length"), "9");
    let answer = running.ask(Http::One, "VEH_002", Request::builder().uri(&url)).await;
    assert_problem(&answer, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_not_served_is_a_problem_without_internals() {
    let running = Running::start().await;
    let hash = running.desk.hash;
    let answer = running.ask(Http::Two, "VEH_002", {
        Request::builder().uri(format!("https://localhost{}", running.url("fw")))
    });
    assert_problem(&answer.await, StatusCode::FORBIDDEN);
    for (url, status) in [
        (running.url("gone"), StatusCode::GONE),
        (running.url("unknown"), StatusCode::NOT_FOUND),
        (running.url("broken"), StatusCode::SERVICE_UNAVAILABLE),
        (running.url("short"), StatusCode::INTERNAL_SERVER_ERROR),
        (running.url("lost"), StatusCode::INTERNAL_SERVER_ERROR),
        (format!("/v1/packages/fw/{hash}x"), StatusCode::NOT_FOUND),
        (format!("/v1/packages/fw/{hash}.sig.sig"), StatusCode::NOT_FOUND),
        (format!("/v1/packages/..%2f..%2fetc/{hash}"), StatusCode::NOT_FOUND),
        (format!("/v1/packages/%ff/{hash}"), StatusCode::NOT_FOUND),
        (format!("/v1/packages/f%20w/{hash}"), StatusCode::NOT_FOUND),
        ("/v1/packages/fw/short".to_owned(), StatusCode::NOT_FOUND),
        ("/v1/packages/fw".to_owned(), StatusCode::NOT_FOUND),
        ("/".to_owned(), StatusCode::NOT_FOUND),
    ] {
        println!("{url}");
        assert_problem(&running.get(&url, &[]).await, status);
    }
    assert_eq!(running.get(&running.url("broken"), &[]).await.header("retry-after"), "5");
    for method in ["POST", "PUT", "DELETE"] {
        let answer = running.ask_one(method, &running.url("fw"), &[]).await;
        assert_problem(&answer, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers.get(header::ALLOW).unwrap(), "GET,HEAD");
    }
}

#[tokio::test]
async fn the_desk_hears_once_for_all_requests_how_far_a_vehicle_got() {
    let started = std::time::Instant::now();
    let running = Running::start().await;
    for _ in 0..20 {
        running.get(&running.url("fw"), &[("range", "bytes=100-199")]).await;
    }
    running.get(&running.url("fw"), &[]).await;
    let (desk, size) = (Arc::clone(&running.desk), running.content.len() as u64);
    running.shutdown.cancel();
    running.server.await.unwrap();
    let told = desk.told.lock().unwrap();
    // At most once a second, and once at the end.
    assert!(told.len() as u64 <= 2 + started.elapsed().as_secs(), "{}", told.len());
    assert!(told.iter().all(|downloads| downloads.len() == 1), "one vehicle fetched one package");
    let last = told.last().unwrap().first().unwrap();
    assert_eq!((last.pkg_id.as_str(), last.up_to_byte), ("fw", size));
    assert_eq!((last.hash, last.peer.common_name.as_str()), (desk.hash, "VEH_001_CCU_001"));
}

#[tokio::test]
async fn a_download_that_is_cancelled_ends_in_the_middle() {
    let running = Running::start().await;
    let mut config = running.bed.usual_client(&running.bed.path("VEH_001_CCU_001"));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut stream = connect(config, running.port).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", running.url("long"));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![0; 4096];
    stream.read_exact(&mut head).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"));
    running.desk.is_cancelled.store(true, Ordering::Relaxed);
    // Twice, so that the second was asked after the cancellation.
    for _ in 0..2 {
        running.desk.heard.notified().await;
    }
    let mut octets = vec![0; 64 * 1024];
    let mut got = head.len() as u64;
    loop {
        match stream.read(&mut octets).await {
            Ok(0) | Err(_) => break,
            Ok(read) => got += read as u64,
        }
    }
    assert!(got < LONG, "the body went on to its end");
}

#[tokio::test]
async fn a_stop_ends_idle_connections() {
    let running = Running::start().await;
    let mut config = running.bed.usual_client(&running.bed.path("VEH_001_CCU_001"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TokioIo::new(connect(config, running.port).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().uri("https://localhost/").body(Body::empty()).unwrap();
    sender.send_request(request).await.unwrap();
    running.shutdown.cancel();
    running.server.await.unwrap();
    connection.await.unwrap().unwrap();
}
