//! nginx as the baseline for downloads: the same certificate, the same file, mutual TLS 1.3, and as many workers as
//! there are processors; all else as Debian sets it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::server_process::ServerProcess;

/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Nginx {
    child: Child,
    pub(super) address: SocketAddr,
    pub(super) version: String,
}

impl Nginx {
    /// Starts it on the server's images; nothing where it is not installed.
    pub(super) fn start(server: &ServerProcess) -> anyhow::Result<Option<Self>> {
        let Some(version) = version() else { return Ok(None) };
        let folder = server.folder().join("nginx");
        std::fs::create_dir_all(&folder)?;
        // Freed again for nginx, which cannot take port 0.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = folder.join("nginx.conf");
        std::fs::write(&config, settings(server, &folder, address))?;
        let mut child = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&config)
            .arg("-e")
            .arg(folder.join("error.log"))
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start nginx")?;
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(address).is_err() {
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                let _ = child.kill().and_then(|()| child.wait());
                let log = std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
                bail!("nginx does not listen: {}", log.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(Self { child, address, version }))
    }

    /// The master and its workers.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids = children(self.child.id());
        pids.push(self.child.id());
        pids
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master takes its workers with it.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        if asked.is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.trim().rsplit_once('/').map(|(_, version)| version.to_owned())
}

fn settings(server: &ServerProcess, folder: &Path, address: SocketAddr) -> String {
    let tls = server.folder().join("data/tls");
    let (tls, images, folder) = (tls.display(), server.images().display().to_string(), folder.display());
    // Debian's workers run as www-data, which cannot read the server's folder.
    let user =
        if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
            "user root;"
        } else {
            ""
        };
    format!(
        "daemon off; {user} worker_processes auto; pid {folder}/pid;
events {{ worker_connections 768; }}
http {{
    sendfile on; tcp_nopush on; types_hash_max_size 2048; access_log off; keepalive_requests 1000000;
    default_type application/octet-stream;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen {address} ssl; root {images};
        ssl_protocols TLSv1.3; ssl_certificate {tls}/cert.pem; ssl_certificate_key {tls}/key.pem;
        ssl_client_certificate {tls}/ca.pem; ssl_verify_client on; ssl_verify_depth 2;
    }}
}}
"
    )
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
