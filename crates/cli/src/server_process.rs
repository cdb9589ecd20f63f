//! The server of a bench or a simulation: a process of its own, in a folder of its own, gone when this is dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use farrier_server::pki::Pki;
use serde::Deserialize;
use tempfile::TempDir;

use crate::folder;
use crate::operator::{Operator, OperatorArgs};
use crate::output::now;

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of a bench: what is measured is the server, not what it lets one vehicle send: a hundred stand for a fleet.
const BENCH_SETTINGS: &str = "[mqtt.limits]\n\
    messages_per_second = 1000000\nmessage_burst = 1000000\nkib_per_second = 1000000\nkib_burst = 1000000\n";

pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) pki: Pki,
    pub(crate) mqtt: SocketAddr,
    pub(crate) https: SocketAddr,
    operator: String,
    folder: TempDir,
}

/// How a server is started.
pub(crate) struct ServerSetup<'a> {
    pub(crate) settings_toml: &'a str,
    /// What it logs.
    pub(crate) log: &'a str,
    /// Where its folder is made.
    pub(crate) dir: Option<&'a Path>,
    /// Its store, where that is not a file in its folder.
    pub(crate) store: Option<&'a str>,
}

/// What the server writes to listening.json.
#[derive(Deserialize)]
struct Listening {
    mqtt: SocketAddr,
    https: SocketAddr,
    operator: String,
}

impl ServerProcess {
    /// Starts a server that is measured; its data go below `dir`, where the disk is that shall be measured.
    pub(crate) fn start(dir: Option<&Path>, store: Option<&str>) -> anyhow::Result<Self> {
        Self::start_with(&ServerSetup { settings_toml: BENCH_SETTINGS, log: "error", dir, store })
    }

    /// Starts this program as a server.
    pub(crate) fn start_with(setup: &ServerSetup<'_>) -> anyhow::Result<Self> {
        let ServerSetup { settings_toml, log, dir, store } = *setup;
        let folder = folder::temporary("farrier-", dir)?;
        Pki::init(&folder.path().join("pki"), false, now())?;
        Self::start_at(folder, settings_toml, log, store)
    }

    /// The same over what is in this folder: certificates, and data that no server works with.
    pub(crate) fn start_in(folder: TempDir, settings_toml: &str, log: &str) -> anyhow::Result<Self> {
        Self::start_at(folder, settings_toml, log, None)
    }

    fn start_at(
        folder: TempDir,
        settings_toml: &str,
        log: &str,
        store: Option<&str>,
    ) -> anyhow::Result<Self> {
        let pki = Pki::open(&folder.path().join("pki"))?;
        let data = folder.path().join("data");
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let settings = folder.path().join("server.toml");
        std::fs::write(&settings, settings_toml).context("cannot write the server's settings")?;
        let mut command = Command::new(program);
        command.args(["--log", log, "server", "--enroll", "auto"]).arg("--config").arg(&settings);
        command.arg("--data").arg(&data).arg("--pki").arg(folder.path().join("pki"));
        for listener in ["--mqtt", "--https", "--operator"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        match store {
            // Not as an argument: there, others see the password.
            Some(store) => command.env("FARRIER_STORE", store),
            None => command.env_remove("FARRIER_STORE"),
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut child = child.context("cannot start the server")?;
        match listening(&mut child, &data.join("listening.json")) {
            Ok(Listening { mqtt, https, operator }) => Ok(Self { child, pki, mqtt, https, operator, folder }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where everything is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the images, each under its digest.
    pub(crate) fn images(&self) -> PathBuf {
        self.folder().join("data").join("images")
    }

    pub(crate) fn operator(&self) -> anyhow::Result<Operator> {
        Ok(Operator::new(&OperatorArgs {
            server: self.operator.clone(),
            token: None,
            token_file: Some(self.operator_token()),
            ca: Some(self.pki.root_certificate()),
            json: true,
        })?)
    }

    /// Where operators find it.
    pub(crate) fn operator_url(&self) -> &str {
        &self.operator
    }

    /// The file with the first operator's token.
    pub(crate) fn operator_token(&self) -> PathBuf {
        self.folder().join("data").join("operator.token")
    }

    /// The store, where it is a file.
    pub(crate) fn store_file(&self) -> PathBuf {
        self.folder().join("data").join("farrier.db")
    }
}

fn listening(child: &mut Child, path: &Path) -> anyhow::Result<Listening> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // It may be there in part.
        let written = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(listening) = written {
            return Ok(listening);
        }
        if let Some(status) = child.try_wait()? {
            bail!("the server ended at once ({status}); what it said stands above");
        }
        if Instant::now() > deadline {
            bail!("the server did not listen within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end(child: &mut Child) {
    // Its data are thrown away, so that it need not stop in good order.
    let _ = child.kill().and_then(|()| child.wait());
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
