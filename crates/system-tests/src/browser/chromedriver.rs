//! Debian's chromedriver as a process of one test. Its Chromium hangs on it by a pipe, so both end when the test does, also by
//! a panic.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::PATIENCE;

/// How long Chromium may take to be gone when its pipe is closed.
const LAST_BREATH: Duration = Duration::from_secs(10);

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en",
    // Ends with chromedriver, whatever becomes of that.
    "--remote-debugging-pipe",
    // No name is looked up: nothing goes out, whatever a page or Chromium itself asks for.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];

pub(super) struct Chromedriver {
    process: Child,
    address: String,
    browser: Option<PathBuf>,
    profile: TempDir,
    /// Read no further, but open: it may go on to write.
    _said: Lines<BufReader<ChildStdout>>,
}

impl Chromedriver {
    /// On a free port of its own choice.
    pub(super) async fn start() -> Self {
        let mut process = Command::new("chromedriver")
            .args(["--port=0", "--allowed-ips=127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("this test needs chromedriver and Chromium, which ./scripts/test installs: {error}")
            });
        let mut said = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let port = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = said.next_line().await.unwrap() {
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return port.trim_end_matches('.').parse::<u16>().expect("a port");
                }
            }
            panic!("chromedriver ended and did not listen");
        });
        let port = port.await.expect("chromedriver listens in time");
        Self {
            process,
            address: format!("http://127.0.0.1:{port}/"),
            browser: None,
            profile: tempfile::tempdir().unwrap(),
            _said: said,
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Of the session that is to be made.
    pub(super) fn capabilities(&self) -> Value {
        let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("--user-data-dir={}", self.profile.path().display()));
        json!({
            "acceptInsecureCerts": true,
            "timeouts": { "pageLoad": PATIENCE.as_millis(), "script": PATIENCE.as_millis() },
            "goog:chromeOptions": {
                "args": flags,
                "prefs": { "intl.accept_languages": "en" },
                "perfLoggingPrefs": { "enableNetwork": true, "enablePage": false },
            },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        })
    }

    /// Notes which process its browser is.
    pub(super) fn knows_browser(&mut self, process: Option<u64>) {
        self.browser = process.map(|id| format!("/proc/{id}").into());
    }

    pub(super) fn browser(&self) -> Option<&Path> {
        self.browser.as_deref()
    }

    /// Ends it, and waits until its browser is gone: till then that writes into its folder.
    pub(super) fn kill(&mut self) {
        let _ = self.process.start_kill();
        let began = Instant::now();
        while self.browser.as_ref().is_some_and(|browser| browser.exists()) && began.elapsed() < LAST_BREATH {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
