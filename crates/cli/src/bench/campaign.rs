//! `farrier bench campaign`: what a campaign costs the server, in a small fleet and in a large one, beside what SQLite alone
//! commits.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use farrier_server::PostgresAddress;
use farrier_server::bench::{Fleet, Work};
use serde::Serialize;

use super::processor_time::processor_time;
use super::shown;
use super::sqlite_limit::{LimitShape, exchanges_per_second};
use crate::folder;
use crate::output::{print, table, thousands};

/// Times that the gate is asked.
const QUESTIONS: u32 = 2_000;
/// Changes that the server makes in one transaction where it goes through many vehicles.
const TO_A_COMMIT: usize = 256;
const LIMIT_FOR: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct Campaign {
    /// Vehicles of the large fleet.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    vehicles: u32,

    /// Vehicles of the small fleet.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    small: u32,

    /// Vehicles of the large campaign's first wave; of the small one's as many of a hundred.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    wave: u32,

    /// Vehicles that are updated in each round and fleet while the processor time is measured.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    updates: u32,

    /// Rounds of it; the middle one counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,

    /// The large fleet's store, such as postgres://USER@HOST/DATABASE: an empty database, in which the fleet stays; without
    /// it SQLite in a temporary folder.
    #[arg(long, value_name = "URL", env = "FARRIER_BENCH_STORE", hide_env_values = true)]
    store: Option<String>,

    /// The same for the small fleet, if the large one's is given.
    #[arg(
        long,
        value_name = "URL",
        env = "FARRIER_BENCH_SMALL_STORE",
        hide_env_values = true,
        requires = "store"
    )]
    small_store: Option<String>,

    /// Where the temporary folder is made, so that its disk is the one that is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// One fleet and its campaign.
#[derive(Debug, Serialize)]
struct OfFleet {
    vehicles: u32,
    wave: u32,
    filled_s: f64,
    start: OfWork,
    wave_opened: OfWork,
    /// Whether a vehicle may begin.
    vehicle_at_gate: Quantiles,
    /// Whether a wave opens, the campaign stops, or anybody is let through.
    look_at_gate: Quantiles,
    /// Of this process for one message of a vehicle that is updated, with what the vehicle needs to write it.
    cpu_us_per_message: f64,
    messages: u64,
}

#[derive(Debug, Serialize)]
struct OfWork {
    answered_s: f64,
    done_s: f64,
    /// Of a vehicle that speaks all the while.
    messages: Quantiles,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    number: usize,
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    small: OfFleet,
    large: OfFleet,
    /// Processor time for one message with the large fleet, by that with the small one.
    cpu_ratio: f64,
    /// Small rows that SQLite commits with nothing else to do, as many to a commit as the server goes through vehicles.
    sqlite_limit_per_second: f64,
}

impl Campaign {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        shown(self.json, Report::text, self.measure()).await
    }

    async fn measure(&self) -> anyhow::Result<Report> {
        let folder = folder::temporary("farrier-", self.dir.as_deref())?;
        let before = self.limit(folder.path()).await?;
        let wave = self.wave.min(self.vehicles);
        let small_wave = (u64::from(self.small) * u64::from(wave)).div_ceil(self.vehicles.into());
        let small_wave = u32::try_from(small_wave).unwrap_or(u32::MAX);
        if small_wave < self.updates * u32::from(self.rounds) {
            bail!(
                "expected a first wave with a vehicle for each update, {}, found {small_wave} in the small fleet; \
                 choose fewer --updates or --rounds, or a larger --wave",
                self.updates * u32::from(self.rounds)
            );
        }
        let (small, mut of_small) = self
            .fleet(&folder.path().join("small"), self.small_store.as_ref(), self.small, small_wave)
            .await?;
        let (large, mut of_large) =
            self.fleet(&folder.path().join("large"), self.store.as_ref(), self.vehicles, wave).await?;
        self.say("Vehicles are updated in both fleets, in turns")?;
        let (mut in_small, mut in_large) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            in_small.push(self.round(&small, &mut of_small).await?);
            in_large.push(self.round(&large, &mut of_large).await?);
        }
        for (fleet, of_fleet, rounds) in [(small, &mut of_small, in_small), (large, &mut of_large, in_large)]
        {
            fleet.check().await?;
            fleet.close().await;
            of_fleet.cpu_us_per_message = middle(rounds);
        }
        let sqlite_limit_per_second = f64::midpoint(before, self.limit(folder.path()).await?);
        let cpu_ratio = of_large.cpu_us_per_message / of_small.cpu_us_per_message;
        Ok(Report { small: of_small, large: of_large, cpu_ratio, sqlite_limit_per_second })
    }

    /// Makes a fleet, starts its campaign, opens its first wave, and asks its gate.
    async fn fleet(
        &self,
        folder: &std::path::Path,
        store: Option<&String>,
        vehicles: u32,
        wave: u32,
    ) -> anyhow::Result<(Fleet, OfFleet)> {
        self.say(&format!("A fleet of {} vehicles is made", thousands(vehicles.into())))?;
        std::fs::create_dir(folder).context("cannot make a folder for the fleet")?;
        let begun = Instant::now();
        let store = store.map(|store| store.parse::<PostgresAddress>()).transpose()?;
        let fleet = Fleet::make(folder, store, vehicles.into()).await?;
        let filled_s = begun.elapsed().as_secs_f64();
        self.say("  its campaign starts")?;
        let start = fleet.start_campaign(wave.into()).await?.into();
        self.say(&format!("  a wave of {} opens", thousands(wave.into())))?;
        let wave_opened = fleet.open_wave().await?.into();
        let decisions = fleet.ask_gate(QUESTIONS).await?;
        let of_fleet = OfFleet {
            vehicles,
            wave,
            filled_s,
            start,
            wave_opened,
            vehicle_at_gate: decisions.of_vehicles.into(),
            look_at_gate: decisions.of_gatekeeper.into(),
            cpu_us_per_message: 0.0,
            messages: 0,
        };
        Ok((fleet, of_fleet))
    }

    /// Updates some vehicles; gives the processor time of one message in µs.
    async fn round(&self, fleet: &Fleet, of_fleet: &mut OfFleet) -> anyhow::Result<f64> {
        let cars = fleet.choose_vehicles(self.updates.into()).await?;
        let before = processor_time(std::process::id())?;
        let messages = fleet.update_vehicles(cars).await?;
        let took = processor_time(std::process::id())?.saturating_sub(before);
        of_fleet.messages += messages;
        Ok(took.as_secs_f64() * 1e6 / messages as f64)
    }

    async fn limit(&self, folder: &std::path::Path) -> anyhow::Result<f64> {
        let folder = folder.to_owned();
        let shape =
            LimitShape { messages: 1, inventory_octets: 0, vehicles: 10_000, on_their_way: TO_A_COMMIT };
        let limit = tokio::task::spawn_blocking(move || exchanges_per_second(&folder, shape, LIMIT_FOR));
        limit.await?.context("what SQLite can commit here could not be measured")
    }

    /// Tells people what happens; programs that asked for JSON get only that.
    fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { print(text) }
    }
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

impl From<Work> for OfWork {
    fn from(work: Work) -> Self {
        Self {
            answered_s: work.answered.as_secs_f64(),
            done_s: work.done.as_secs_f64(),
            messages: work.messages.into(),
        }
    }
}

impl From<Vec<Duration>> for Quantiles {
    fn from(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |index: usize| durations.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3;
        let number = durations.len();
        Self {
            number,
            p50_ms: at(number / 2),
            p99_ms: at(number * 99 / 100),
            longest_ms: at(number.saturating_sub(1)),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let row = |fleet: &OfFleet| {
            [
                thousands(fleet.vehicles.into()),
                format!("{:.2} s", fleet.start.done_s),
                waits(&fleet.start),
                format!("{}: {:.2} s", thousands(fleet.wave.into()), fleet.wave_opened.done_s),
                waits(&fleet.wave_opened),
                decision(&fleet.vehicle_at_gate),
                decision(&fleet.look_at_gate),
                format!("{:.0} µs", fleet.cpu_us_per_message),
            ]
        };
        let headings = [
            "VEHICLES",
            "START",
            "OTHERS WAIT",
            "WAVE OPENS",
            "OTHERS WAIT",
            "VEHICLE AT GATE",
            "LOOK AT GATE",
            "CPU PER MESSAGE",
        ];
        format!(
            "\n{}\n\nCPU per message with the large fleet by that with the small one: {:.2}. SQLite alone commits {} small rows \
             a second, {TO_A_COMMIT} at a time.\nSTART: until all vehicles are taken in. WAVE OPENS: until each of its vehicles has \
             its first command in the outbox. OTHERS WAIT: the\nmessages of another vehicle meanwhile until they are durable, and AT \
             GATE the decisions: the middle one / 99 of 100 / the longest.\nThe counters that are kept are what a count finds. In \
             one process, without sockets.",
            table(headings, vec![row(&self.small), row(&self.large)]),
            self.cpu_ratio,
            thousands(self.sqlite_limit_per_second.max(0.0) as u64),
        )
    }
}

fn waits(work: &OfWork) -> String {
    let Quantiles { p50_ms, p99_ms, longest_ms, .. } = work.messages;
    format!("{p50_ms:.1} / {p99_ms:.0} / {longest_ms:.0} ms")
}

fn decision(of: &Quantiles) -> String {
    format!("{:.0} / {:.0} / {:.0} µs", of.p50_ms * 1e3, of.p99_ms * 1e3, of.longest_ms * 1e3)
}
