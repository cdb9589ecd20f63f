//! `farrier bench ingest`: how many messages a second the server takes in, each acknowledged after it is durable,
//! beside what SQLite alone commits on the same disk just before and just after.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::processor_time::processor_time;
use super::shown;
use super::sqlite_limit::{LimitShape, exchanges_per_second};
use super::vehicle::{Sent, Vehicle};
use crate::output::{now, print, table, thousands};
use crate::server_process::ServerProcess;

/// Before anything is counted: caches are warm, batches have found their size.
const WARM_UP: Duration = Duration::from_secs(1);
/// ECUs of a vehicle whose inventory has about 36 KB.
const ECUS: usize = 100;
const INVENTORY_OCTETS: usize = 36_000;
/// Vehicles that connect at a time.
const CONNECTING: usize = 32;

#[derive(Args)]
pub(crate) struct Ingest {
    /// Vehicles, each with a connection of its own.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=2000))]
    connections: u16,

    /// Small messages that a vehicle has on their way at a time: at most as many as the server announces (MQTT's receive maximum).
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=32))]
    window: u16,

    /// How long each kind of message is measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,

    /// The server's store, such as postgres://USER@HOST/DATABASE, in which the messages stay; without it SQLite in a
    /// temporary folder.
    #[arg(long, value_name = "URL", env = "FARRIER_BENCH_STORE", hide_env_values = true)]
    store: Option<String>,

    /// Where the temporary folder is made, so that its disk is the one that is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What the vehicles do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Load {
    /// WakeUps of vehicles that reconnect and whose inventory is known, several on their way.
    SmallMessages,
    /// WakeUp, RequestVCI, SendVCI; the next one when all is acknowledged.
    InventoryExchanges,
}

/// What one vehicle saw while it was measured.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    octets: u64,
}

/// The figures of one load; each exchange has one message of a vehicle or two.
#[derive(Debug, Serialize)]
struct Figures {
    load: Load,
    exchanges: u64,
    exchanges_per_second: f64,
    messages_per_second: f64,
    bytes_per_exchange: u64,
    server_cpu_us_per_exchange: f64,
    client_cpu_us_per_exchange: f64,
    /// From when the last message of the exchange was sent until it was acknowledged.
    p50_ms: f64,
    p99_ms: f64,
    /// What SQLite commits with nothing else to do.
    sqlite_limit_per_second: f64,
    of_sqlite_limit: f64,
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Report {
    connections: u16,
    window: u16,
    seconds: u16,
    processors: usize,
    loads: Vec<Figures>,
    /// Messages that the server acknowledged, with those before anything was measured.
    acknowledged: u64,
    /// Messages in the server's SQLite store in the end; none for another store.
    stored: Option<u64>,
}

impl Ingest {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        shown(self.json, Report::text, self.measure()).await
    }

    async fn measure(&self) -> anyhow::Result<Report> {
        let server = ServerProcess::start(self.dir.as_deref(), self.store.as_deref())?;
        let mut vehicles = self.vehicles(&server).await?;
        self.say(&format!("{} vehicles are connected, and known with their inventories", vehicles.len()))?;
        let mut loads = Vec::new();
        for load in [Load::SmallMessages, Load::InventoryExchanges] {
            self.say(&format!("{}: {} s", load.title(), self.seconds))?;
            // The machine may have other work: the limit is taken on both sides of what is compared with it.
            let before = self.limit(&server, load).await?;
            let (seen, server_time, client_time);
            (vehicles, seen, server_time, client_time) = self.load(&server, vehicles, load).await?;
            let limit = f64::midpoint(before, self.limit(&server, load).await?);
            loads.push(self.figures(load, seen, server_time, client_time, limit)?);
        }
        let acknowledged = vehicles.iter().map(Vehicle::acknowledged).sum();
        let stored = match self.store {
            Some(_) => None,
            None => Some(stored_messages(&server)?),
        };
        if let Some(stored) = stored {
            ensure!(
                stored == acknowledged,
                "the server acknowledged {acknowledged} messages and stored {stored}"
            );
        }
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (connections, window, seconds) = (self.connections, self.window, self.seconds);
        Ok(Report { connections, window, seconds, processors, loads, acknowledged, stored })
    }

    /// All vehicles, some connecting at a time. Their ids are new in every run, for a store that outlives it.
    async fn vehicles(&self, server: &ServerProcess) -> anyhow::Result<Vec<Vehicle>> {
        let run = now().0;
        let ids: Vec<_> = (1..=self.connections).map(|number| format!("BENCH-{run:x}-{number:04}")).collect();
        let mut vehicles = Vec::new();
        for ids in ids.chunks(CONNECTING) {
            let connecting = ids.iter().map(|id| Vehicle::connect(server, id, ECUS));
            vehicles.extend(futures_util::future::try_join_all(connecting).await?);
        }
        Ok(vehicles)
    }

    /// Puts a load on the server; gives what was seen while it was measured, and the processor time of server and
    /// vehicles in that time.
    async fn load(
        &self,
        server: &ServerProcess,
        vehicles: Vec<Vehicle>,
        load: Load,
    ) -> anyhow::Result<(Vec<Vehicle>, Seen, Duration, Duration)> {
        let from = Instant::now() + WARM_UP;
        let during = from..from + self.duration();
        let window = usize::from(self.window);
        let start = Arc::new(Barrier::new(vehicles.len()));
        let mut tasks = JoinSet::new();
        for mut vehicle in vehicles {
            let (start, during) = (Arc::clone(&start), during.clone());
            tasks.spawn(async move {
                start.wait().await;
                let seen = match load {
                    Load::SmallMessages => send_small_messages(&mut vehicle, window, &during).await,
                    Load::InventoryExchanges => exchange_inventories(&mut vehicle, &during).await,
                };
                Ok::<_, anyhow::Error>((vehicle, seen?))
            });
        }
        let pids = [server.pid(), std::process::id()];
        let mut ended = Vec::new();
        collect_until(Some(during.start), &mut tasks, &mut ended).await?;
        let (began, before) = (Instant::now(), pids.map(processor_time));
        collect_until(Some(during.end), &mut tasks, &mut ended).await?;
        let (took, after) = (began.elapsed(), pids.map(processor_time));
        collect_until(None, &mut tasks, &mut ended).await?;
        let (mut vehicles, mut all) = (Vec::new(), Seen::default());
        for (vehicle, seen) in ended {
            vehicles.push(vehicle);
            all.latencies.extend(seen.latencies);
            all.octets += seen.octets;
        }
        let [server_before, client_before] = before;
        let [server_after, client_after] = after;
        let scale = self.duration().as_secs_f64() / took.as_secs_f64();
        let server_time = server_after?.saturating_sub(server_before?).mul_f64(scale);
        let client_time = client_after?.saturating_sub(client_before?).mul_f64(scale);
        Ok((vehicles, all, server_time, client_time))
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// What SQLite commits of this load's exchanges a second, with as many on their way.
    async fn limit(&self, server: &ServerProcess, load: Load) -> anyhow::Result<f64> {
        let (folder, vehicles) = (server.folder().to_owned(), usize::from(self.connections));
        let shape = match load {
            Load::SmallMessages => LimitShape {
                messages: 1,
                inventory_octets: 0,
                vehicles,
                on_their_way: vehicles * usize::from(self.window),
            },
            Load::InventoryExchanges => LimitShape {
                messages: 2,
                inventory_octets: INVENTORY_OCTETS,
                vehicles,
                on_their_way: vehicles,
            },
        };
        let during = (self.duration() / 4).min(Duration::from_secs(3));
        let limit = tokio::task::spawn_blocking(move || exchanges_per_second(&folder, shape, during));
        limit.await?.context("what SQLite can commit here could not be measured")
    }

    fn figures(
        &self,
        load: Load,
        seen: Seen,
        server_time: Duration,
        client_time: Duration,
        limit: f64,
    ) -> anyhow::Result<Figures> {
        let Seen { mut latencies, octets } = seen;
        ensure!(!latencies.is_empty(), "nothing was acknowledged in {} s", self.seconds);
        latencies.sort_unstable();
        let percentile = |percent: usize| {
            let latency = latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
            latency.as_secs_f64() * 1e3
        };
        let exchanges = latencies.len() as u64;
        #[allow(clippy::cast_precision_loss, reason = "a count, for people to read")]
        let count = exchanges as f64;
        let per_second = count / self.duration().as_secs_f64();
        Ok(Figures {
            load,
            exchanges,
            exchanges_per_second: per_second,
            messages_per_second: per_second * load.messages_each(),
            bytes_per_exchange: octets / exchanges,
            server_cpu_us_per_exchange: server_time.as_secs_f64() * 1e6 / count,
            client_cpu_us_per_exchange: client_time.as_secs_f64() * 1e6 / count,
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            sqlite_limit_per_second: limit,
            of_sqlite_limit: per_second / limit,
        })
    }

    /// Tells people what happens; programs that asked for JSON get only that.
    fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { print(text) }
    }
}

impl Report {
    fn text(&self) -> String {
        let row = |figures: &Figures| {
            [
                figures.load.title().to_owned(),
                thousands(whole(figures.exchanges_per_second)),
                thousands(figures.bytes_per_exchange),
                format!("{:.0} µs", figures.server_cpu_us_per_exchange),
                format!("{:.0} µs", figures.client_cpu_us_per_exchange),
                format!("{:.1} ms", figures.p50_ms),
                format!("{:.1} ms", figures.p99_ms),
                thousands(whole(figures.sqlite_limit_per_second)),
                format!("{:.2}", figures.of_sqlite_limit),
            ]
        };
        let headings =
            ["WHAT", "A SECOND", "BYTES", "SERVER CPU", "CLIENT CPU", "P50", "P99", "SQLITE ALONE", "RATIO"];
        let stored = self.stored.map_or_else(String::new, |stored| {
            format!(" {} messages were acknowledged, and all are in the store.", thousands(stored))
        });
        format!(
            "\n{}\n\n{} vehicles over mutual TLS for {} s each, small messages {} on their way from each; acknowledged \
             after the commit.{stored}\nP50 and P99 are from the last message of an exchange to its acknowledgement. SQLITE \
             ALONE is what SQLite commits of the same\nmessages on this disk with nothing else to do, as many to a commit. \
             Vehicles and server share {} processors.",
            table(headings, self.loads.iter().map(row).collect()),
            self.connections,
            self.seconds,
            self.window,
            self.processors,
        )
    }
}

impl Load {
    fn title(self) -> &'static str {
        match self {
            Self::SmallMessages => "small messages (WakeUp)",
            Self::InventoryExchanges => "VCI exchanges (WakeUp, RequestVCI, SendVCI)",
        }
    }

    /// Messages of the vehicle in one exchange.
    fn messages_each(self) -> f64 {
        match self {
            Self::SmallMessages => 1.0,
            Self::InventoryExchanges => 2.0,
        }
    }
}

/// Waits until then, or until all have ended; an error as soon as one fails.
async fn collect_until<T: 'static>(
    then: Option<Instant>,
    tasks: &mut JoinSet<anyhow::Result<T>>,
    ended: &mut Vec<T>,
) -> anyhow::Result<()> {
    let then = async {
        match then {
            Some(then) => tokio::time::sleep_until(then.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(then);
    loop {
        tokio::select! {
            () = &mut then => return Ok(()),
            joined = tasks.join_next() => match joined {
                Some(joined) => ended.push(joined.context("a vehicle ended by a panic")??),
                None => return Ok(()),
            },
        }
    }
}

/// Keeps `window` messages on their way; counts those that are acknowledged in the time.
async fn send_small_messages(
    vehicle: &mut Vehicle,
    window: usize,
    during: &Range<Instant>,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut on_their_way: VecDeque<Sent> = VecDeque::with_capacity(window);
    loop {
        while on_their_way.len() < window && Instant::now() < during.end {
            on_their_way.push_back(vehicle.put_wake_up());
        }
        if on_their_way.is_empty() {
            return Ok(seen);
        }
        vehicle.flush().await?;
        let mut acknowledged = Some(vehicle.acknowledgement().await?);
        while let Some(packet_id) = acknowledged {
            let sent = on_their_way.pop_front().context("the server acknowledged what was not sent")?;
            ensure!(
                packet_id == sent.packet_id,
                "expected the acknowledgement of {}, found that of {packet_id}",
                sent.packet_id
            );
            let now = Instant::now();
            if during.contains(&now) {
                seen.latencies.push(now - sent.at);
                seen.octets += sent.octets;
            }
            acknowledged = vehicle.acknowledgement_received()?;
        }
    }
}

/// One exchange after the other; counts those that end in the time.
async fn exchange_inventories(vehicle: &mut Vehicle, during: &Range<Instant>) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    while Instant::now() < during.end {
        let exchange = vehicle.exchange_inventory().await?;
        if during.contains(&Instant::now()) {
            seen.latencies.push(exchange.latency);
            seen.octets += exchange.octets;
        }
    }
    Ok(seen)
}

/// The accepted messages in the server's own file.
fn stored_messages(server: &ServerProcess) -> anyhow::Result<u64> {
    let store = Connection::open_with_flags(server.store_file(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let count: i64 = store.query_row("SELECT count(*) FROM inbound_message", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a figure for people to read")]
fn whole(figure: f64) -> u64 {
    figure.max(0.0).round() as u64
}
