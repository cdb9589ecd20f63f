//! A server that sends spans to a collector.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: a panic is how they say what is wrong")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A stand-in for a collector: says yes to whatever is posted to it, and hands it on.
fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, posted) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
            });
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
            if sender.send((head, body)).is_err() {
                return;
            }
        }
    });
    (address, posted)
}

#[test]
fn a_demo_tells_a_collector_of_messages_commands_requests_and_due_work() {
    let (address, posted) = collector();
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(image.path(), vec![7; 50_000]).unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_farrier"))
        .args(["--otel", &address, "demo", "--vehicles", "1", "--ecus", "2", "--json", "--image"])
        .arg(image.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut wanted =
        vec!["message taken", "command delivered", "operator request", "due work", "VEH_001", "accepted"];
    let deadline = Instant::now() + PATIENCE;
    while !wanted.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let (head, body) = posted.recv_timeout(left).unwrap_or_else(|_| panic!("no span has {wanted:?}"));
        assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
        let has = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        wanted.retain(|text| !has(text));
    }
    assert!(demo.wait().unwrap().success());
}
