//! `farrier bench idle`: how much memory of the server a vehicle takes that is connected and says nothing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;

use super::shown;
use super::vehicle::Vehicle;
use crate::output::{now, thousands};
use crate::server_process::ServerProcess;

/// Vehicles before anything is measured: what the server makes once is there then.
const FIRST: u16 = 100;
/// Vehicles that connect at a time.
const CONNECTING: usize = 32;
/// Until the server has done what came after the last message.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct Idle {
    /// Vehicles that are measured, each with a certificate and a connection of its own.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(100..=20_000))]
    connections: u16,

    /// Where the temporary folder is made.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    connections: u16,
    /// Anonymous memory of the server with its first vehicles.
    before_kib: u64,
    /// With all of them.
    connected_kib: u64,
    /// After each has said once that it is alive.
    alive_kib: u64,
    kib_per_connection: f64,
}

impl Idle {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        shown(self.json, Report::text, self.measure()).await
    }

    async fn measure(&self) -> anyhow::Result<Report> {
        let server = ServerProcess::start(self.dir.as_deref(), None)?;
        let mut vehicles = connect(&server, 0..FIRST).await?;
        let before_kib = settled_memory_kib(server.pid()).await?;
        let all = FIRST.saturating_add(self.connections);
        vehicles.extend(connect(&server, FIRST..all).await?);
        let connected_kib = settled_memory_kib(server.pid()).await?;
        for vehicle in &mut vehicles {
            vehicle.says_that_it_is_alive().await?;
        }
        let alive_kib = settled_memory_kib(server.pid()).await?;
        let kib_per_connection = alive_kib.saturating_sub(before_kib) as f64 / f64::from(self.connections);
        let connections = self.connections;
        Ok(Report { connections, before_kib, connected_kib, alive_kib, kib_per_connection })
    }
}

impl Report {
    fn text(&self) -> String {
        format!(
            "{:.1} KiB of the server's memory for each idle vehicle: {} KiB with {FIRST} vehicles, {} KiB with {} more, {} KiB \
             after each has said once that it is alive.\nAnonymous memory of the process, MQTT 5 over mutual TLS 1.3; the system's own \
             memory for sockets is not in it.",
            self.kib_per_connection,
            thousands(self.before_kib),
            thousands(self.connected_kib),
            thousands(u64::from(self.connections)),
            thousands(self.alive_kib),
        )
    }
}

/// Vehicles of these numbers, which wait for commands. What they say would be counted where the store keeps it in memory.
async fn connect(server: &ServerProcess, numbers: std::ops::Range<u16>) -> anyhow::Result<Vec<Vehicle>> {
    let run = now().0;
    let ids: Vec<_> = numbers.map(|number| format!("BENCH-{run:x}-{number:05}")).collect();
    let mut vehicles = Vec::new();
    for ids in ids.chunks(CONNECTING) {
        let connecting = ids.iter().map(|id| Vehicle::connect_silently(server, id, 1));
        let connected = try_join_all(connecting).await;
        vehicles.extend(
            connected.context("a vehicle could not connect; does `ulimit -n` allow so many sockets?")?,
        );
    }
    Ok(vehicles)
}

async fn settled_memory_kib(pid: u32) -> anyhow::Result<u64> {
    tokio::time::sleep(SETTLE).await;
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    anonymous_kib(&rollup).with_context(|| format!("{path} is not as proc(5) says"))
}

/// The memory of a process that is backed by no file.
fn anonymous_kib(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_read_from_what_the_system_tells() {
        let rollup = "7f00-7fff ---p 00000000 00:00 0 [rollup]\nRss:  10 kB\nAnonymous:       3524 kB\n";
        assert_eq!(anonymous_kib(rollup), Some(3_524));
        assert_eq!(anonymous_kib("Rss: 1 kB"), None);
    }
}
