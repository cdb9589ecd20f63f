//! `farrier bench console`: how long the pages of the console take over a large fleet, asked for by somebody who has signed in,
//! through the operators' listener; then what it costs that many look at one of them while it changes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use farrier_server::bench::Fleet;
use farrier_server::pki::Pki;
use farrier_server::{RunningServer, Server, ServerConfig};
use serde::Serialize;

use super::shown;
use super::viewers::{self, Viewers};
use super::visitor::Visitor;
use crate::folder;
use crate::output::{now, print, table, thousands};
use crate::server_process::ServerProcess;

/// What a page may take, 99 times of a hundred.
const GOAL_MS: f64 = 200.0;
/// Asked for before anything is measured: what the server makes once is there then.
const WARM_UP: u32 = 2;

/// The pages, and what each is called in the table.
const PAGES: [(&str, &str); 19] = [
    ("fleet", "/"),
    ("fleet, a year", "/?span=year"),
    ("fleet charts", "/charts"),
    ("unknown vehicles", "/attention/unknown"),
    ("silent vehicles", "/attention/silent"),
    ("campaigns", "/campaigns"),
    ("campaigns, stopped", "/campaigns?state=stopped"),
    ("campaign", "/campaigns/bench"),
    ("campaign, failed", "/campaigns/bench?state=rolled_back"),
    ("campaign charts", "/campaigns/bench/charts"),
    ("pause a campaign", "/campaigns/bench/pause"),
    ("retry by code", "/campaigns/bench/retry?code=UPDATE_FAILED"),
    ("vehicles", "/vehicles"),
    ("vehicles by query", "/vehicles?q=region+%3D+%22KR%22"),
    ("vehicle", "/vehicles/BENCH-00000002"),
    ("releases", "/releases"),
    ("release", "/releases/bench-2"),
    ("audit log", "/audit"),
    ("settings", "/settings"),
];

#[derive(Args)]
pub(crate) struct Console {
    /// Vehicles of the fleet.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    vehicles: u32,

    /// How often each page is asked for.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    times: u32,

    /// Viewers who look at a campaign while it changes, each with a connection of its own; beside one, and nobody.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=400))]
    viewers: u16,

    /// How long they look, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=50))]
    seconds: u16,

    /// How often one and all of them look, in turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,

    /// Where the temporary folder is made, so that its disk is the one that is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// One page.
#[derive(Debug, Serialize)]
struct Figures {
    page: &'static str,
    path: &'static str,
    bytes: usize,
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    vehicles: u32,
    times: u32,
    filled_s: f64,
    goal_ms: f64,
    pages: Vec<Figures>,
    live: Viewers,
}

impl Console {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        shown(self.json, Report::text, self.measure()).await
    }

    async fn measure(&self) -> anyhow::Result<Report> {
        let folder = folder::temporary("farrier-", self.dir.as_deref())?;
        self.say(&format!(
            "A fleet of {} vehicles is made, with campaigns",
            thousands(self.vehicles.into())
        ))?;
        let begun = Instant::now();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).context("cannot make a folder for the fleet")?;
        let fleet = Fleet::make(&data, None, self.vehicles.into()).await?;
        let mixed = fleet.mix().await;
        fleet.close().await;
        mixed?;
        let filled_s = begun.elapsed().as_secs_f64();
        self.say(&format!("  {filled_s:.0} s; each page is asked for {} times", self.times))?;
        let server = start(folder.path()).await?;
        let pages = self.pages(&server).await;
        server.stop().await;
        let pages = pages?;
        self.say(&format!(
            "  a campaign changes, and nobody looks, then one and {} in turns: {} s each",
            self.viewers, self.seconds
        ))?;
        let server = ServerProcess::start_in(folder, "", "error")?;
        let visitor =
            Visitor::again(server.operator_url().to_owned(), &server.pki.root_certificate()).await?;
        let plan = viewers::Plan {
            vehicles: self.vehicles,
            viewers: self.viewers,
            seconds: self.seconds,
            rounds: self.rounds,
        };
        let live = viewers::measure(&server, &visitor, plan).await?;
        Ok(Report { vehicles: self.vehicles, times: self.times, filled_s, goal_ms: GOAL_MS, pages, live })
    }

    async fn pages(&self, server: &RunningServer) -> anyhow::Result<Vec<Figures>> {
        let visitor = Visitor::first(server).await?;
        let mut pages = Vec::new();
        for (page, path) in PAGES {
            let mut times = Vec::new();
            let mut bytes = 0;
            for number in 0..self.times.saturating_add(WARM_UP) {
                let asked = Instant::now();
                bytes = visitor.page(path).await?.len();
                if number >= WARM_UP {
                    times.push(asked.elapsed());
                }
            }
            pages.push(Figures::of(page, path, bytes, times));
        }
        Ok(pages)
    }

    /// Tells people what happens; programs that asked for JSON get only that.
    fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { print(text) }
    }
}

/// A server on what is in this folder, with certificates of its own.
async fn start(folder: &Path) -> anyhow::Result<RunningServer> {
    let pki = folder.join("pki");
    Pki::init(&pki, false, now())?;
    let mut config = ServerConfig::for_one_machine(folder.join("data"), pki);
    for listener in [&mut config.mqtt.listen, &mut config.https, &mut config.operator] {
        listener.set_port(0);
    }
    Ok(Server::start(config).await?)
}

impl Figures {
    fn of(page: &'static str, path: &'static str, bytes: usize, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3;
        Self {
            page,
            path,
            bytes,
            p50_ms: at(times.len() / 2),
            p99_ms: at(times.len() * 99 / 100),
            longest_ms: at(times.len().saturating_sub(1)),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let row = |figures: &Figures| {
            [
                figures.page.to_owned(),
                format!("{:.1} ms", figures.p50_ms),
                format!("{:.1} ms", figures.p99_ms),
                format!("{:.1} ms", figures.longest_ms),
                thousands(figures.bytes as u64),
                if figures.p99_ms < GOAL_MS { "yes" } else { "NO" }.to_owned(),
            ]
        };
        format!(
            "\n{}\n\n{} vehicles, each page {} times, one after the other, over HTTPS on this machine, in one process with whoever asks. \
             BELOW {GOAL_MS:.0} MS: 99 of 100 times.\n\n{}\n\n{} A server of its own process; each viewer has a connection of its own over HTTPS. UPDATES are those of \
             each viewer a second, BYTES those of an update, CPU the server's in a second, with what the changes take.",
            table(
                ["PAGE", "P50", "P99", "LONGEST", "BYTES", "BELOW 200 MS"],
                self.pages.iter().map(row).collect()
            ),
            thousands(self.vehicles.into()),
            self.times,
            table(["VIEWERS", "CHANGES", "UPDATES", "MOST", "RENDERS", "BYTES", "CPU"], self.live.rows(),),
            self.live.sentence(),
        )
    }
}
