//! A real mosquitto as the broker of vehicles and servers, set up as docs/broker.md says.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use farrier_server::pki::{LEAF_VALIDITY, Pki};

use crate::PATIENCE;
use crate::testbed::now;

/// A broker that runs until it is dropped.
pub struct Mosquitto {
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one in a folder of its own, with a certificate of this authority and these access rules.
    pub fn start(folder: &Path, pki: &Pki, rules: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        pki.issue_server(&["localhost".to_owned()], &folder.join("tls"), LEAF_VALIDITY, false, now())
            .unwrap();
        fs::write(folder.join("acl"), rules).unwrap();
        let mut broker = Self { folder: folder.to_owned(), port: 0, child: None };
        // mosquitto cannot be asked for a free port: another program may take one between the question and the answer.
        while broker.child.is_none() {
            broker.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            broker.write_configuration(pki);
            broker.run();
        }
        broker
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        self.run();
        assert!(self.child.is_some(), "mosquitto did not start again\n{}", self.log());
    }

    /// What it has to say.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn write_configuration(&self, pki: &Pki) {
        let (tls, port) = (self.folder.join("tls"), self.port);
        // Which user it shall be, where tests run as root: it would become "mosquitto", who cannot read the key.
        let configuration = format!(
            "listener {port} 127.0.0.1\n\
             cafile {root}\ncertfile {certificate}\nkeyfile {key}\ncrlfile {crl}\ntls_version tlsv1.3\n\
             require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n\
             acl_file {acl}\npersistence true\npersistence_location {folder}/\nautosave_interval 1\n\
             max_queued_messages 0\nuser root\nlog_type all\n",
            root = pki.root_certificate().display(),
            certificate = tls.join("cert.pem").display(),
            key = tls.join("key.pem").display(),
            crl = pki.crl().display(),
            acl = self.folder.join("acl").display(),
            folder = self.folder.display(),
        );
        fs::write(self.folder.join("mosquitto.conf"), configuration).unwrap();
    }

    /// Starts the program and waits until it listens; it does not where its port is taken.
    fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut child = Command::new(program())
            .arg("-c")
            .arg(self.folder.join("mosquitto.conf"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        while TcpStream::connect(address).is_err() {
            if let Some(status) = child.try_wait().unwrap() {
                let log = self.log();
                assert!(log.contains("Address already in use"), "mosquitto did not start: {status}\n{log}");
                return;
            }
            assert!(Instant::now() < deadline, "mosquitto does not listen\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Debian puts it where only root looks.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file()).expect(
        "this test needs mosquitto (Debian package mosquitto), found none; ./scripts/test installs it",
    )
}
