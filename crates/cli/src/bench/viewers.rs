//! What it costs that many look at one campaign's page while the campaign changes: a server of its own process, viewers each with a
//! connection of its own, and an operator who cancels one vehicle's update after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use reqwest::StatusCode;
use reqwest::header::COOKIE;
use serde::Serialize;
use tokio::time::timeout;

use super::processor_time::processor_time;
use super::visitor::Visitor;
use crate::server_process::ServerProcess;

/// Between two changes: the page looks different at each of its looks.
const CHANGE: Duration = Duration::from_millis(400);
/// Before anything is counted: the first update goes to all at once, and what the server makes once is there then.
const SETTLE: Duration = Duration::from_secs(3);
/// A viewer that has heard nothing for so long has lost its stream.
const PATIENCE: Duration = Duration::from_secs(20);
const PAGE: &str = "/campaigns/bench";
/// Vehicles of each hundred that the bench's fleet leaves waiting.
const WAITING: std::ops::Range<u32> = 80..100;

/// With so many viewers.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    viewers: u16,
    changes: u32,
    seconds: f64,
    /// Updates that all viewers got together.
    updates: u64,
    /// Of the viewer that got the most.
    most_updates_per_second: f64,
    bytes_per_update: u64,
    renders_per_second: f64,
    cpu_ms_per_second: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Viewers {
    rounds: Vec<Round>,
    updates_per_second_and_viewer: f64,
    /// Of the server for one viewer: looking at the campaign, rendering, and sending.
    cpu_ms_of_first_viewer_per_update: f64,
    /// Of the server for each further viewer.
    cpu_us_per_update_and_viewer: f64,
}

/// What one viewer got.
#[derive(Debug, Default, Clone, Copy)]
struct Got {
    updates: u64,
    bytes: u64,
}

/// How it is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Vehicles of the fleet.
    pub(super) vehicles: u32,
    pub(super) viewers: u16,
    pub(super) seconds: u16,
    pub(super) rounds: u8,
}

/// Nobody looks; then one and all do, in turns.
pub(super) async fn measure(
    server: &ServerProcess,
    visitor: &Visitor,
    plan: Plan,
) -> anyhow::Result<Viewers> {
    let mut vehicles = (0..plan.vehicles).filter(|number| WAITING.contains(&(number % 100)));
    let while_for = Duration::from_secs(plan.seconds.into());
    let mut rounds = Vec::new();
    let turns = (0..plan.rounds).flat_map(|_| [1, plan.viewers]);
    for viewers in std::iter::once(0).chain(turns) {
        rounds.push(round(server, visitor, &mut vehicles, viewers, while_for).await?);
    }
    Ok(Viewers::of(rounds, plan.viewers))
}

async fn round(
    server: &ServerProcess,
    visitor: &Visitor,
    vehicles: &mut impl Iterator<Item = u32>,
    viewers: u16,
    while_for: Duration,
) -> anyhow::Result<Round> {
    let begins = Instant::now() + SETTLE;
    let ends = begins + while_for;
    let looking = (0..viewers).map(|_| async { tokio::spawn(look(visitor.another()?, begins, ends)).await? });
    let changing = async {
        let mut changes = 0_u32;
        let mut from = None;
        while Instant::now() < ends {
            if Instant::now() >= begins && from.is_none() {
                from = Some((changes, processor_time(server.pid())?, renders(server, visitor).await?));
            }
            let number = vehicles.next().context(
                "expected a vehicle for each change, found no more that wait; choose more --vehicles or fewer --seconds",
            )?;
            change(visitor, number).await?;
            changes += 1;
            tokio::time::sleep(CHANGE).await;
        }
        let (before, cpu, rendered) =
            from.context("the changes took too long for anything to be measured")?;
        let cpu = processor_time(server.pid())?.saturating_sub(cpu);
        Ok::<_, anyhow::Error>((changes - before, cpu, renders(server, visitor).await? - rendered))
    };
    let (got, (changes, cpu, rendered)) = tokio::try_join!(try_join_all(looking), changing)?;
    let seconds = while_for.as_secs_f64();
    let (updates, bytes) = got.iter().fold((0, 0), |sum, got| (sum.0 + got.updates, sum.1 + got.bytes));
    let most = got.iter().map(|got| got.updates).max().unwrap_or_default();
    Ok(Round {
        viewers,
        changes,
        seconds,
        updates,
        most_updates_per_second: most as f64 / seconds,
        bytes_per_update: bytes.checked_div(updates).unwrap_or_default(),
        renders_per_second: rendered / seconds,
        cpu_ms_per_second: cpu.as_secs_f64() * 1e3 / seconds,
    })
}

/// Looks as a browser does, and counts what comes between two times.
async fn look(visitor: Visitor, begins: Instant, ends: Instant) -> anyhow::Result<Got> {
    let request = visitor.client.get(format!("{}{PAGE}/live", visitor.url)).header(COOKIE, &visitor.cookie);
    let mut answer = request.send().await?;
    ensure!(answer.status() == StatusCode::OK, "expected a stream, found {}", answer.status());
    let (mut got, mut left) = (Got::default(), Vec::new());
    while let Some(remains) = ends.checked_duration_since(Instant::now()) {
        let Ok(chunk) = timeout(remains.min(PATIENCE), answer.chunk()).await else {
            ensure!(Instant::now() >= ends, "expected a stream that says something, found silence");
            break;
        };
        let chunk = chunk?.context("expected a stream that goes on, found its end")?;
        left.extend_from_slice(&chunk);
        let came = Instant::now();
        while let Some(end) = left.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = left.drain(..end + 2).collect();
            // What only says that the stream is alive is none.
            if event.starts_with(b"data:") && (begins..ends).contains(&came) {
                got.updates += 1;
                got.bytes += event.len() as u64;
            }
        }
    }
    Ok(got)
}

async fn change(visitor: &Visitor, number: u32) -> anyhow::Result<()> {
    let path = format!("/vehicles/BENCH-{number:08}/bench/cancel");
    let status = visitor.post(&path, "reason=measured".to_owned()).await?.status();
    ensure!(status == StatusCode::SEE_OTHER, "expected {path} to cancel an update, found {status}");
    Ok(())
}

/// How often the server has rendered a live part.
async fn renders(server: &ServerProcess, visitor: &Visitor) -> anyhow::Result<f64> {
    let token =
        std::fs::read_to_string(server.operator_token()).context("cannot read the operator's token")?;
    let request = visitor.client.get(format!("{}/metrics", visitor.url)).bearer_auth(token.trim());
    let text = request.send().await?.error_for_status()?.text().await?;
    let value = text.lines().find_map(|line| line.strip_prefix("farrier_console_renders_total "));
    // Before the first there is none.
    value.map_or(Ok(0.0), |value| value.parse().context("expected a number of renders"))
}

impl Viewers {
    fn of(rounds: Vec<Round>, viewers: u16) -> Self {
        // Of all rounds with so many: processor time in ms, and updates of each viewer, in a second.
        let in_a_second = |viewers: u16| {
            let of: Vec<_> = rounds.iter().filter(|round| round.viewers == viewers).collect();
            let number = of.len().max(1) as f64;
            let cpu_ms = of.iter().map(|round| round.cpu_ms_per_second).sum::<f64>() / number;
            let updates = of.iter().map(|round| round.updates as f64 / round.seconds).sum::<f64>();
            (cpu_ms, updates / number / f64::from(viewers.max(1)))
        };
        let (nobody, (one, updates_of_one), (all, updates)) =
            (in_a_second(0).0, in_a_second(1), in_a_second(viewers));
        let further = f64::from(viewers.saturating_sub(1).max(1));
        Self {
            updates_per_second_and_viewer: updates,
            cpu_ms_of_first_viewer_per_update: (one - nobody) / updates_of_one.max(f64::MIN_POSITIVE),
            cpu_us_per_update_and_viewer: (all - one) * 1e3 / further / updates.max(f64::MIN_POSITIVE),
            rounds,
        }
    }

    pub(super) fn rows(&self) -> Vec<[String; 7]> {
        let row = |round: &Round| {
            [
                round.viewers.to_string(),
                format!("{:.1}", f64::from(round.changes) / round.seconds),
                format!("{:.2}", round.updates as f64 / f64::from(round.viewers.max(1)) / round.seconds),
                format!("{:.2}", round.most_updates_per_second),
                format!("{:.2}", round.renders_per_second),
                crate::output::thousands(round.bytes_per_update),
                format!("{:.0} ms", round.cpu_ms_per_second),
            ]
        };
        self.rounds.iter().map(row).collect()
    }

    pub(super) fn sentence(&self) -> String {
        let further = match self.cpu_us_per_update_and_viewer {
            us if us >= 1.0 => format!("{us:.0} µs"),
            _ => "too little to be told from the rest".to_owned(),
        };
        format!(
            "The first viewer costs the server {:.1} ms of processor time for each update, each further one {further}.",
            self.cpu_ms_of_first_viewer_per_update
        )
    }
}
