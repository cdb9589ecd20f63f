//! `farrier bench`: what this machine's server takes in and gives out, measured beside a baseline of the same run.
//! Each but `campaign`, which needs no sockets, starts a server of its own on loopback, with certificates of its own, and clears
//! it away.

mod campaign;
mod console;
mod download;
mod downloader;
mod idle;
mod ingest;
mod message;
mod nginx;
mod processor_time;
mod sqlite_limit;
mod vehicle;
mod viewers;
mod visitor;

use anyhow::bail;
use clap::Subcommand;
use serde::Serialize;

use crate::output::print;
use crate::stop_signal::StopSignal;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Messages over MQTT and mutual TLS, acknowledged after their commit, beside what SQLite can commit here.
    Ingest(ingest::Ingest),
    /// Campaigns over a small fleet and a large one: starting, opening a wave, the gate, and the processor time of messages.
    Campaign(campaign::Campaign),
    /// The pages of the console over a large fleet with campaigns and a history, each asked for many times; then many viewers of a
    /// campaign that changes.
    Console(console::Console),
    /// The server's memory for vehicles that are connected and say nothing.
    Idle(idle::Idle),
    /// Package files over HTTPS and mutual TLS, beside nginx with the same certificate where it is installed.
    Download(download::Download),
}

impl Bench {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Ingest(ingest) => ingest.run().await,
            Self::Campaign(campaign) => campaign.run().await,
            Self::Console(console) => console.run().await,
            Self::Idle(idle) => idle.run().await,
            Self::Download(download) => download.run().await,
        }
    }
}

/// Shows what was measured, to programs or to people, unless somebody stops it before.
async fn shown<R: Serialize>(
    json: bool,
    text: fn(&R) -> String,
    measure: impl Future<Output = anyhow::Result<R>>,
) -> anyhow::Result<()> {
    let mut stop = StopSignal::new()?;
    let report = tokio::select! {
        measured = measure => measured?,
        () = stop.received() => bail!("stopped before the figures were there; everything is cleaned up"),
    };
    if json { print(&serde_json::to_string(&report)?) } else { print(&text(&report)) }
}
