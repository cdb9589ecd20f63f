//! `farrier bench`: what this machine's server takes in, measured beside a baseline of the same run.
//! Each starts a server process of its own on loopback, with certificates of its own, and clears it away.

mod ingest;
mod message;
mod mqtt;
mod processor_time;
mod server_process;
mod sqlite_limit;
mod vehicle;

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Messages over MQTT and mutual TLS, acknowledged after their commit, beside what SQLite can commit here.
    Ingest(ingest::Ingest),
}

impl Bench {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Ingest(ingest) => ingest.run().await,
        }
    }
}
