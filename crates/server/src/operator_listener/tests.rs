//! The listener over real sockets, asked by hyper's own client.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::routing::get;
use rustls::crypto::aws_lc_rs::kx_group;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::tls::operator::OperatorTlsFiles;
use crate::tls::testbed::{Testbed, connect, now};

struct Running {
    bed: Testbed,
    port: u16,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl Running {
    async fn start(is_tls: bool) -> Self {
        let bed = Testbed::new();
        let files = OperatorTlsFiles {
            certificate_chain: bed.path("server/cert.pem"),
            private_key: bed.path("server/key.pem"),
        };
        let tls = is_tls.then(|| Arc::new(OperatorTls::load(&files, now()).unwrap()));
        let app = Router::new()
            .route(
                "/from",
                get(|ConnectInfo(address): ConnectInfo<SocketAddr>| async move { address.ip().to_string() }),
            )
            .route(
                "/page",
                get(|| async { ([(header::CONTENT_SECURITY_POLICY, "default-src 'self'")], "page") }),
            )
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("as a test wants it")
                    }
                }),
            );
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, tls, app, shutdown.clone()));
        Self { bed, port, shutdown, server }
    }

    async fn get(&self, protocol: &'static [u8], path: &str) -> Response<Body> {
        let mut config = self.bed.client(None, &[kx_group::X25519]);
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TokioIo::new(connect(config, self.port).await.unwrap());
        let uri = format!("https://localhost{path}");
        let request = axum::http::Request::builder().uri(uri).header("host", "localhost").body(Body::empty());
        if protocol == b"h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            return sender.send_request(request.unwrap()).await.unwrap().map(Body::new);
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request.unwrap()).await.unwrap().map(Body::new)
    }
}

#[tokio::test]
async fn operators_come_by_tls_with_usual_groups_in_both_versions_of_http() {
    let running = Running::start(true).await;
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let answer = running.get(protocol, "/from").await;
        assert_eq!(answer.status(), StatusCode::OK);
        for (name, value) in ANSWER_HEADERS.into_iter().chain([STRICT_TRANSPORT]) {
            assert_eq!(answer.headers().get(&name), Some(&value), "{name}");
        }
        let body = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
        assert_eq!(body, "127.0.0.1");
    }
}

#[tokio::test]
async fn an_answer_may_say_otherwise_and_a_panic_is_one_too() {
    let running = Running::start(true).await;
    let answer = running.get(b"http/1.1", "/page").await;
    assert_eq!(answer.headers()[header::CONTENT_SECURITY_POLICY], "default-src 'self'");
    let answer = running.get(b"http/1.1", "/panic").await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
}

#[tokio::test]
async fn an_answer_arrives_although_the_request_was_not_read_to_its_end() {
    let running = Running::start(true).await;
    for _ in 0..5 {
        let mut config = running.bed.client(None, &[kx_group::X25519]);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut stream = connect(config, running.port).await.unwrap();
        let length = 8 * 1024 * 1024;
        let head = format!("POST /from HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // As those do who write all before they read.
        stream.write_all(&vec![b'x'; length]).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 405"), "{:?}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn a_stop_ends_idle_connections() {
    let running = Running::start(true).await;
    let config = running.bed.client(None, &[kx_group::X25519MLKEM768]);
    let mut idle = connect(config, running.port).await.unwrap();
    running.get(b"http/1.1", "/from").await;
    running.shutdown.cancel();
    running.server.await.unwrap();
    assert!(matches!(idle.read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test(start_paused = true)]
async fn whoever_says_nothing_is_given_up() {
    let running = Running::start(false).await;
    let mut silent = TcpStream::connect(("127.0.0.1", running.port)).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert!(matches!(silent.read(&mut [0]).await, Ok(0) | Err(_)));
    assert!(begun.elapsed() <= STALL + HEADER, "{:?}", begun.elapsed());
}
