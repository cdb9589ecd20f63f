//! Records the loopback interface, and reads recordings with a dissector made by others (Wireshark's tshark).
//!
//! Needs the Debian package `tshark` and the right to record (root, or the group `wireshark`); without them a test
//! fails and says so. The ports of tests are free ones: tshark is told their protocol.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UdpSocket;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

/// The longest that any step of a recording may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The last datagram of a recording.
const END_MARK: &[u8] = b"the end of the recording";

/// A recording of the loopback interface into a file.
pub struct Recording {
    dumpcap: Child,
    messages: Lines<BufReader<ChildStderr>>,
    file: PathBuf,
    mark: UdpSocket,
}

impl Recording {
    /// Begins; when this returns, everything on these ports is recorded.
    pub async fn start(file: &Path, ports: &[u16]) -> Self {
        let mark = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let own_port = mark.local_addr().unwrap().port();
        let ports: Vec<String> = ports.iter().chain([&own_port]).map(|port| format!("port {port}")).collect();
        let mut dumpcap = Command::new("dumpcap")
            .args(["-i", "lo", "-P", "-B", "16", "-a", "duration:120", "-a", "filesize:20000"])
            .args(["-f", &ports.join(" or "), "-w"])
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("expected dumpcap of the Debian package tshark: {error}"));
        let mut messages = BufReader::new(dumpcap.stderr.take().unwrap()).lines();
        let mut said = String::new();
        // The name of the file is said once the interface is open and the filter set.
        while let Some(line) =
            timeout(PATIENCE, messages.next_line()).await.expect("dumpcap to start").unwrap()
        {
            if line.starts_with("File:") {
                return Self { dumpcap, messages, file: file.to_owned(), mark };
            }
            said += &line;
            said.push('\n');
        }
        panic!(
            "expected the right to record on the loopback interface (root, or group wireshark), dumpcap said:\n{said}"
        );
    }

    /// Ends once everything that was sent is in the file.
    pub async fn stop(mut self) {
        self.mark.send_to(END_MARK, self.mark.local_addr().unwrap()).await.unwrap();
        let recorded = async {
            while !std::fs::read(&self.file).unwrap().windows(END_MARK.len()).any(|part| part == END_MARK) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, recorded).await.expect("dumpcap to record the last datagram");
        let id = self.dumpcap.id().unwrap().to_string();
        // An interrupt, not a kill: dumpcap closes the file and says what it lost.
        assert!(Command::new("sh").args(["-c", "kill -INT \"$0\"", &id]).status().await.unwrap().success());
        let mut summary = String::new();
        while let Some(line) = self.messages.next_line().await.unwrap() {
            summary += &line;
        }
        assert!(self.dumpcap.wait().await.unwrap().success(), "{summary}");
        assert!(summary.contains("(pcap:0/dumpcap:0/flushed:0"), "packets were lost: {summary}");
    }
}

/// What tshark makes of a recording.
pub struct Dissection {
    file: PathBuf,
    /// How it is told what is spoken where.
    told: Vec<String>,
}

impl Dissection {
    /// DoIP at these ports, TCP and UDP.
    pub fn doip(file: &Path, ports: &[u16]) -> Self {
        let told = ports
            .iter()
            .flat_map(|port| ["tcp", "udp"].map(|below| format!("{below}.port=={port},doip")))
            .flat_map(|decode_as| ["-d".to_owned(), decode_as]);
        Self { file: file.to_owned(), told: told.collect() }
    }

    /// DoIP in TLS at this port too, with the keys of its sessions.
    pub fn and_tls(mut self, port: u16, key_log: &Path) -> Self {
        self.told.extend(["-d".to_owned(), format!("tcp.port=={port},tls")]);
        self.told.extend(["-d".to_owned(), format!("tls.port=={port},doip")]);
        self.told.extend(["-o".to_owned(), format!("tls.keylog_file:{}", key_log.display())]);
        self
    }

    /// UDS by ISO-TP with these CAN identifiers.
    pub fn can(file: &Path, ids: &[u32]) -> Self {
        let ids: Vec<String> = ids.iter().map(|id| format!("{id:#x}")).collect();
        let told = ["-o", &format!("iso15765.can.ids:{}", ids.join(",")), "-d", "iso15765.subdissector,uds"];
        Self { file: file.to_owned(), told: told.map(str::to_owned).to_vec() }
    }

    /// What tshark writes.
    pub async fn text(&self, arguments: &[&str]) -> String {
        let output = Command::new("tshark")
            .arg("-r")
            .arg(&self.file)
            .args(&self.told)
            .args(arguments)
            .output()
            .await
            .unwrap_or_else(|error| panic!("expected tshark of the Debian package tshark: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// All values of a field, in the order of the recording.
    pub async fn values(&self, filter: &str, field: &str) -> Vec<u64> {
        let arguments =
            ["-Y", filter, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,", "-e", field];
        let number = |value: &str| match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
            None => value.parse().unwrap(),
        };
        let text = self.text(&arguments).await;
        text.split(['\n', ',']).filter(|value| !value.is_empty()).map(number).collect()
    }

    /// Fails with all frames that are malformed, or that a diagnostic protocol warns of.
    pub async fn assert_well_formed(&self) {
        let filter = "_ws.malformed || ((doip || uds || iso15765) && _ws.expert.severity >= 0x600000)";
        let bad = self.text(&["-Y", filter, "-T", "text", "-V"]).await;
        assert_eq!(bad, "", "malformed frames, warnings or errors");
    }
}
