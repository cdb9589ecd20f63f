//! An image on its way to the server: the program that brings it is killed, the server is killed, and nothing is brought twice that
//! was acknowledged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farrier_protocol::{Sha256, UnixMillis};
use farrier_server::pki::Pki;
use farrier_system_tests::api::Api;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);
/// Twelve parts.
const SIZE: usize = 96 << 20;

struct Server {
    folder: tempfile::TempDir,
    child: Option<Child>,
    ports: BTreeMap<&'static str, u16>,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = UnixMillis(i64::try_from(now.as_millis()).unwrap());
        Pki::init(&folder.path().join("pki"), false, now).unwrap();
        Self { folder, child: None, ports: BTreeMap::new() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Later starts take the ports of the first.
    fn start(&mut self) {
        let listening = self.data().join("listening.json");
        let _ = std::fs::remove_file(&listening);
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
        command.args(["--log", "warn", "server", "--data"]).arg(self.data());
        command.arg("--pki").arg(self.folder.path().join("pki")).env_remove("FARRIER_STORE");
        for name in ["mqtt", "https", "operator"] {
            let port = self.ports.get(name).copied().unwrap_or(0);
            command.arg(format!("--{name}")).arg(format!("127.0.0.1:{port}"));
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let addresses: BTreeMap<String, String> = loop {
            let read = std::fs::read(&listening).ok();
            if let Some(addresses) = read.and_then(|read| serde_json::from_slice(&read).ok()) {
                break addresses;
            }
            assert!(
                child.try_wait().unwrap().is_none() && Instant::now() < deadline,
                "the server does not listen"
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        for name in ["mqtt", "https", "operator"] {
            self.ports.insert(name, addresses[name].rsplit_once(':').unwrap().1.parse().unwrap());
        }
        self.child = Some(child);
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn api(&self) -> Api {
        Api::new(([127, 0, 0, 1], self.ports["operator"]).into(), &self.data().join("operator.token"))
    }

    fn create_release(&self, file: &Path) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
        for variable in ["FARRIER_SERVER", "FARRIER_TOKEN", "FARRIER_CA"] {
            command.env_remove(variable);
        }
        command.args([
            "release",
            "create",
            "R2",
            "--server",
            &format!("127.0.0.1:{}", self.ports["operator"]),
        ]);
        command.arg("--token-file").arg(self.data().join("operator.token"));
        command.arg("--image").arg(format!("hw=HW-1,version=2,file={}", file.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until the server has more than so many octets; gives how many.
async fn has_more_than(api: &Api, sha256: &Sha256, octets: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let uploads = api.list("uploads").await;
        let found = uploads.iter().find(|upload| upload["sha256"] == sha256.to_string());
        let offset = found.and_then(|upload| upload["offset_bytes"].as_u64()).unwrap_or(0);
        if offset > octets {
            return offset;
        }
        assert!(Instant::now() < deadline, "no more than {octets} octets came");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_after_its_program_and_the_server_were_killed() {
    let mut server = Server::new();
    server.start();
    let image: Vec<u8> = (0..SIZE).map(|number| (number / 7 % 253) as u8).collect();
    let sha256 = Sha256::of(&image);
    let file = server.folder.path().join("image.bin");
    std::fs::write(&file, &image).unwrap();

    let mut first = server.create_release(&file);
    let brought = has_more_than(&server.api(), &sha256, 0).await;
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(brought < SIZE as u64, "killed too late to show anything");
    let kept = has_more_than(&server.api(), &sha256, brought - 1).await;

    let second = server.create_release(&file);
    let acknowledged = has_more_than(&server.api(), &sha256, kept).await;
    let group = json!({"name": "korea", "query": "region = \"KR\""});
    let (_, made) = server.api().post_once("groups", "once", &group).await;
    server.kill();
    assert!(
        !server.data().join("images").join(sha256.to_string()).exists(),
        "killed too late to show anything"
    );
    server.start();
    // Nothing that was acknowledged is lost, and the program goes on by itself.
    let api = server.api();
    let (_, after) = api.ask(reqwest::Method::GET, &format!("uploads/{sha256}"), None).await;
    assert!(after["offset_bytes"].as_u64().is_none_or(|offset| offset >= acknowledged), "{after}");
    // Whoever did not hear that it was done asks again, and it is not done again.
    assert_eq!(api.post_once("groups", "once", &group).await, (true, made));
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let release = api.get("releases/R2").await;
    assert_eq!(release["images"][0]["sha256"], Value::from(sha256.to_string()));
    assert!(std::fs::read(server.data().join("images").join(sha256.to_string())).unwrap() == image);
    assert_eq!(api.list("uploads").await, Vec::<Value>::new());
}
