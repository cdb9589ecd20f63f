//! `farrier simulate fleet`: thousands of light vehicles, each with a certificate and a connection of its own, in one
//! campaign. They speak the real protocol and download for real; only the work of their ECUs is played. In the end the
//! server's record of each vehicle is held against what the vehicle is.

mod begun;
mod gateway;
mod inventory;
mod nature;
mod scoreboard;
mod stage;
mod summary;
mod vehicle;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use farrier_protocol::Text;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::gateway::Gateway;
use self::inventory::Model;
use self::nature::{Nature, Share, Shares};
use self::scoreboard::{Record, Truth, compare};
use self::stage::{FACTORY_VERSION, Member, Stage};
use self::summary::{Pulse, Summary};
use self::vehicle::{Surroundings, Vehicle};
use crate::campaign::CampaignAnswer;
use crate::operator::read;
use crate::output::{print, seconds, thousands};
use crate::stop_signal::StopSignal;

/// How often the server is asked how far the campaign is, and people are told.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Where nothing changes, people are told so after so long.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);
/// A fleet in which nothing happens for so long, besides the deadline of the updates, will not end.
const PATIENCE: Duration = Duration::from_secs(150);
/// Files beside one for each vehicle: those of downloads, of the store, of the program.
const FILES_BESIDE: u64 = 256;

#[derive(Args)]
pub(crate) struct Fleet {
    /// How many vehicles there are.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    vehicles: u32,

    /// How many ECUs each vehicle has.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=255))]
    ecus: u8,

    /// Decides with a vehicle's number what it does: the same seed, the same vehicles.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The part of the vehicles, 0 to 1, in which an ECU fails: while it is written, afterwards, or for good.
    #[arg(long, value_name = "SHARE", default_value = "0.02")]
    failing: Share,

    /// The part of the vehicles that nothing is heard of after the StartDownload: half of them for good, half until
    /// after its deadline.
    #[arg(long, value_name = "SHARE", default_value = "0.01")]
    silent: Share,

    /// The part of the vehicles that are not ready when they are asked first; they are asked again a minute later.
    #[arg(long, value_name = "SHARE", default_value = "0.05")]
    not_ready: Share,

    /// The part of the vehicles that lose their connection in the middle of the update, some by a reboot.
    #[arg(long, value_name = "SHARE", default_value = "0.05")]
    away: Share,

    /// How many vehicles begin to connect in a second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connect_per_second: u32,

    /// How long an update may take from its StartDownload on, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    deadline: u64,

    /// Where the temporary folder is made.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// The operator API of a server that runs already, in place of a server of the fleet's own. The release, the campaign
    /// and the vehicles stay there.
    #[arg(long, value_name = "ADDRESS", requires_all = ["mqtt", "pki"])]
    server: Option<String>,

    /// Where vehicles connect to that server.
    #[arg(long, value_name = "HOST:PORT", requires = "server")]
    mqtt: Option<String>,

    /// The folder, made by `farrier pki init`, whose certificates that server trusts. Its release key signs the images, if
    /// it is there.
    #[arg(long, value_name = "DIR", requires = "server")]
    pki: Option<PathBuf>,

    /// An operator's token of that server.
    #[arg(long, env = "FARRIER_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// A file that holds the operator's token.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,

    /// The root certificate (PEM) that the certificate of that server's operator API must lead to.
    #[arg(long, env = "FARRIER_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Start no campaign: the vehicles stay until Ctrl-C, for campaigns that are planned on that server.
    #[arg(long, requires = "server", conflicts_with = "json")]
    no_campaign: bool,

    /// What the names of vehicles, hardware, release and campaign begin with; without it, of a server that runs already, a name
    /// that no earlier run had.
    #[arg(long, value_name = "NAME", requires = "server")]
    tag: Option<Text>,

    /// Print one JSON object at the end, and nothing else.
    #[arg(long)]
    json: bool,

    /// Let the vehicle with this number report what it does not run: so tests see that it is found out.
    #[arg(long, hide = true)]
    lying: Option<u32>,
}

/// The vehicles that live; each gives what it is when it is asked to end.
type Living = JoinSet<Truth>;

impl Fleet {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        ensure!(
            self.shares().fit(),
            "expected --failing and --silent to be at most 1 together: a vehicle does one or the other"
        );
        let mut stop = StopSignal::new()?;
        open_as_many_files_as_needed(self.vehicles)?;
        let stage = tokio::select! {
            stage = Stage::set(self) => stage?,
            () = stop.received() => bail!("stopped before it began"),
        };
        if self.no_campaign {
            return tokio::select! {
                ended = self.stay(&stage) => ended,
                () = stop.received() => Ok(ExitCode::SUCCESS),
            };
        }
        let summary = tokio::select! {
            summary = self.play(&stage) => summary,
            () = stop.received() => Err(anyhow::anyhow!("stopped before the end; everything is cleaned up")),
        };
        if summary.is_err() {
            stage.abandon().await;
        }
        // The folder is large; the summary is the last line.
        drop(stage);
        let summary = summary?;
        print(&if self.json { serde_json::to_string(&summary)? } else { summary.text() })?;
        Ok(if summary.is_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn shares(&self) -> Shares {
        Shares { failing: self.failing, silent: self.silent, not_ready: self.not_ready, away: self.away }
    }

    /// Lets the vehicles live, whatever campaigns others plan for them.
    async fn stay(&self, stage: &Stage) -> anyhow::Result<ExitCode> {
        let (_around, mut living) = self.gather(stage, &CancellationToken::new()).await?.1;
        self.say("They stay until Ctrl-C, for campaigns that are planned on this server.")?;
        while let Some(ended) = living.join_next().await {
            ended.context("a vehicle ended by a panic")?;
        }
        bail!("all vehicles ended by themselves")
    }

    /// Makes the vehicles and lets them begin to live; gives their ids too.
    async fn gather(
        &self,
        stage: &Stage,
        end: &CancellationToken,
    ) -> anyhow::Result<(Vec<String>, (Arc<Surroundings>, Living))> {
        let began = Instant::now();
        let members = stage.members(self.vehicles).await?;
        let vehicles = members.iter().map(|member| member.binding.vehicle_id.to_string()).collect();
        self.say(&format!(
            "{} certificates are made, in {}",
            thousands(u64::from(self.vehicles)),
            seconds(began.elapsed())
        ))?;
        let model = Model::new(self.ecus, FACTORY_VERSION, &stage.tag)?;
        let around = Arc::new(Surroundings::new(model, stage.server.clone()));
        let mut living = Living::new();
        let connecting = Instant::now();
        self.connect(members, &around, end, &mut living).await?;
        self.say(&format!(
            "{} vehicles are connected and known to the server, in {}",
            thousands(around.board.known.get()),
            seconds(connecting.elapsed())
        ))?;
        Ok((vehicles, (around, living)))
    }

    async fn play(&self, stage: &Stage) -> anyhow::Result<Summary> {
        let end = CancellationToken::new();
        let (vehicles, (around, mut living)) = self.gather(stage, &end).await?;
        let started = Instant::now();
        let before = around.board.messages();
        stage.start_campaign(&around.model, &vehicles, self.deadline).await?;
        self.say(&format!("campaign {} has started, in {}", stage.name(), seconds(started.elapsed())))?;
        let mut pulse = Pulse::new(started, before);
        self.follow(stage, &around, &mut pulse, &mut living).await?;
        let took = started.elapsed();
        end.cancel();
        let truths = truths(living).await?;
        let records: Vec<Record> =
            read(&stage.operator.list(&["campaigns", &stage.name(), "vehicles"]).await?)?;
        let differences = compare(&truths, &records);
        Ok(Summary::new(&around.board, &pulse, took, &records, differences))
    }

    /// Lets vehicles begin to live, so many in a second, until the server knows them all.
    async fn connect(
        &self,
        members: Vec<Member>,
        around: &Arc<Surroundings>,
        end: &CancellationToken,
        living: &mut Living,
    ) -> anyhow::Result<()> {
        let mut pace = interval(Duration::from_secs(1) / self.connect_per_second);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = Progress::default();
        for (number, member) in (1..).zip(members) {
            pace.tick().await;
            let mut nature = Nature::of(self.seed, number, self.shares());
            nature.lies = self.lying == Some(number);
            let Member { binding, thumbprint, tls } = member;
            let running = around.model.first_versions();
            let gateway = Gateway::new(binding, thumbprint, nature, running);
            let vehicle = Vehicle::new(gateway, tls, Arc::clone(around));
            living.spawn(live(vehicle, end.clone()));
            if progress.is_due() {
                self.tell_of_connections(around)?;
            }
        }
        let mut every = interval(ASK_EVERY);
        loop {
            every.tick().await;
            // Their inventories are asked for too; that is not part of the campaign.
            let at_rest = around.board.at_rest.get();
            if at_rest == u64::from(self.vehicles) && around.board.known.get() == at_rest {
                return Ok(());
            }
            self.tell_of_connections(around)?;
            progress.expect(around.board.messages(), PATIENCE).with_context(|| {
                let failures = around.board.failures();
                format!(
                    "not all vehicles came to be known to the server; what failed how often: {failures:?}"
                )
            })?;
        }
    }

    /// Waits until the campaign is over and no vehicle has anything more to say.
    async fn follow(
        &self,
        stage: &Stage,
        around: &Arc<Surroundings>,
        pulse: &mut Pulse,
        living: &mut Living,
    ) -> anyhow::Result<()> {
        let name = stage.name();
        let mut progress = Progress::default();
        let mut every = interval(ASK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                // A vehicle ends only when it is asked to.
                Some(ended) = living.join_next() => {
                    ended.context("a vehicle ended by a panic")?;
                    bail!("a vehicle ended before the campaign did");
                }
            }
            let at_rest = around.board.at_rest.get();
            let campaign: CampaignAnswer = read(&stage.operator.get(&["campaigns", &name]).await?)?;
            pulse.beat(around.board.messages());
            // In this order: what a vehicle said before it came to rest is in the server's answer.
            if at_rest == u64::from(self.vehicles) && campaign.ended == campaign.vehicles {
                return Ok(());
            }
            let states: Vec<_> = campaign
                .states
                .iter()
                .map(|(state, count)| format!("{} {state}", thousands(*count)))
                .collect();
            let states = states.join(", ");
            if progress.has_news(&states) {
                self.say(&format!("{:>6.1} s  {states}", pulse.elapsed().as_secs_f64()))?;
            }
            let marks = around.board.messages().saturating_add(campaign.ended);
            let patience = PATIENCE.saturating_add(Duration::from_secs(self.deadline));
            progress
                .expect(marks, patience)
                .with_context(|| format!("the campaign did not end; its vehicles are {states}"))?;
        }
    }

    fn tell_of_connections(&self, around: &Surroundings) -> anyhow::Result<()> {
        let known = around.board.known.get();
        let failures = match around.board.failures().values().sum::<u64>() {
            0 => String::new(),
            failures => format!(", {} tries failed", thousands(failures)),
        };
        let of = thousands(u64::from(self.vehicles));
        self.say(&format!("{} of {of} vehicles are known to the server{failures}", thousands(known)))
    }

    /// Tells people what happens; programs that asked for JSON get only that.
    fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { print(text) }
    }
}

async fn live(mut vehicle: Vehicle, end: CancellationToken) -> Truth {
    tokio::select! {
        () = vehicle.live() => {}
        () = end.cancelled() => {}
    }
    vehicle.truth()
}

async fn truths(mut living: Living) -> anyhow::Result<Vec<Truth>> {
    let mut truths = Vec::with_capacity(living.len());
    while let Some(truth) = living.join_next().await {
        truths.push(truth.context("a vehicle ended by a panic")?);
    }
    Ok(truths)
}

/// What people were told last, and when something happened last.
struct Progress {
    told: String,
    told_at: Instant,
    marks: u64,
    changed_at: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self { told: String::new(), told_at: Instant::now(), marks: 0, changed_at: Instant::now() }
    }
}

impl Progress {
    /// Whether it is time to tell something; then it is told.
    fn is_due(&mut self) -> bool {
        let is_due = self.told_at.elapsed() >= ASK_EVERY;
        if is_due {
            self.told_at = Instant::now();
        }
        is_due
    }

    /// Whether this is not what people were told last, or was told long ago; then it is told.
    fn has_news(&mut self, text: &str) -> bool {
        let is_news = self.told != text || self.told_at.elapsed() >= LONGEST_SILENCE;
        if is_news {
            text.clone_into(&mut self.told);
            self.told_at = Instant::now();
        }
        is_news
    }

    /// An error where this number has not changed for so long.
    fn expect(&mut self, marks: u64, patience: Duration) -> anyhow::Result<()> {
        if marks != self.marks {
            (self.marks, self.changed_at) = (marks, Instant::now());
        }
        ensure!(self.changed_at.elapsed() < patience, "nothing happened for {} s", patience.as_secs());
        Ok(())
    }
}

/// Each connection is a file.
fn open_as_many_files_as_needed(vehicles: u32) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What it comes to is looked at below.
    let _ = setrlimit(Resource::Nofile, limit);
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = u64::from(vehicles).saturating_add(FILES_BESIDE);
    ensure!(
        allowed >= needed,
        "expected to be allowed {needed} open files, found {allowed}; raise `ulimit -Hn`, or take fewer --vehicles"
    );
    Ok(())
}
