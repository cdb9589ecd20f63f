//! `farrier server`: runs the server until it is asked to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use farrier_server::{Enroll, Server as FarrierServer, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::print;
use crate::stop_signal::StopSignal;

/// Options given here count before the configuration file.
#[derive(Args)]
pub(crate) struct Server {
    /// Where the store, the images and the operator's first token are kept.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// A PostgreSQL database, postgres://USER@HOST/DATABASE, which several servers may share, in place of the SQLite
    /// file in the data folder. A password is better given by the variable: others see a command line.
    #[arg(long, value_name = "URL", env = "FARRIER_STORE", hide_env_values = true)]
    store: Option<String>,

    /// Where the images are kept [default: images in the data folder]; servers that share a store share it.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,

    /// What this server is called among those that share its store [default: a name that it makes for itself].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// A folder made by `farrier pki init`, for one machine; a configuration file names certificate files instead.
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,

    /// Settings, TOML; see docs/operations.md.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where vehicles speak MQTT [default: 127.0.0.1:8883]; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    mqtt: Option<SocketAddr>,

    /// Where vehicles fetch files [default: 127.0.0.1:8443].
    #[arg(long, value_name = "ADDRESS")]
    https: Option<SocketAddr>,

    /// Where operators speak to the API [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    operator: Option<SocketAddr>,

    /// Who lets vehicles take part [default: operator]; auto: every vehicle with a certificate of ours.
    #[arg(long, value_enum)]
    enroll: Option<EnrollArg>,

    /// What the paths of packages stand below, as vehicles reach it [default: https://localhost and the HTTPS port].
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,

    /// Ask vehicles to report an update that failed, instead of waiting for its deadline.
    #[arg(long)]
    failure_report: bool,

    /// Also take key exchanges that a quantum computer could break, for gateways without ML-KEM.
    #[arg(long)]
    allow_classical_key_exchange: bool,

    /// Go by the last list of revoked certificates although its time is over, instead of letting no vehicle in.
    #[arg(long)]
    allow_expired_revocation_list: bool,

    /// Speak plain HTTP to operators, also to those on other machines: their tokens can be read on the way.
    #[arg(long)]
    allow_plaintext_operator: bool,

    /// Speak to a PostgreSQL server on another machine although the connection is not encrypted.
    #[arg(long)]
    allow_plaintext_store: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum EnrollArg {
    Auto,
    Operator,
}

impl Server {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut stop = StopSignal::new()?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let server = FarrierServer::start(self.settings()?).await?;
        let mqtt = match server.mqtt {
            Some(address) => address.to_string(),
            None => "through the broker".to_owned(),
        };
        let trust = server.operator_ca.as_ref().map(|ca| format!(", --ca {}", ca.display()));
        let console = match &server.console_link {
            Some(link) => format!("{link} (good once, within an hour: makes the first admin)"),
            None => server.operator_url.clone(),
        };
        print(&format!(
            "Vehicles: MQTT {mqtt}, HTTPS {}\nOperators: {}, --token-file {}{}\nConsole: {console}\nCtrl-C stops the server.",
            server.https,
            server.operator_url,
            server.operator_token.display(),
            trust.unwrap_or_default()
        ))?;
        let failure = loop {
            tokio::select! {
                () = stop.received() => break None,
                failure = server.failed() => break Some(failure),
                // As daemons do: certificates and the list of revoked ones are loaded anew.
                _ = hang_up.recv() => server.reload(),
            }
        };
        tracing::info!("Stopping: connections are closed, what was acknowledged is stored.");
        server.stop().await;
        failure.map_or(Ok(()), |failure| Err(anyhow::anyhow!(failure)))
    }

    fn settings(self) -> anyhow::Result<ServerConfig> {
        let mut settings = ServerConfig::load(self.config.as_deref())?;
        replace(&mut settings.data, self.data);
        replace(&mut settings.mqtt.listen, self.mqtt);
        replace(&mut settings.https, self.https);
        replace(&mut settings.operator, self.operator);
        replace(
            &mut settings.enroll,
            self.enroll.map(|enroll| match enroll {
                EnrollArg::Auto => Enroll::Auto,
                EnrollArg::Operator => Enroll::Operator,
            }),
        );
        if let Some(store) = &self.store {
            // Read here and not by the parser of arguments, whose errors repeat what was given, password and all.
            settings.store = Some(store.parse().context("--store or FARRIER_STORE cannot be used")?);
        }
        if self.images.is_some() {
            settings.images = self.images;
        }
        if self.node.is_some() {
            settings.node = self.node;
        }
        if self.pki.is_some() {
            settings.pki = self.pki;
        }
        if self.base_url.is_some() {
            settings.base_url = self.base_url;
        }
        settings.failure_report |= self.failure_report;
        settings.allow_classical_key_exchange |= self.allow_classical_key_exchange;
        settings.allow_plaintext_store |= self.allow_plaintext_store;
        settings.allow_expired_revocation_list |= self.allow_expired_revocation_list;
        settings.allow_plaintext_operator |= self.allow_plaintext_operator;
        Ok(settings)
    }
}

fn replace<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}
