//! What campaigns cost, measured on a store of its own and without sockets: what `farrier bench campaign` runs. Store, runner,
//! gatekeeper and conversation are the server's; only the vehicles' connections are taken for granted.

mod car;
mod filling;
mod mixed;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farrier_campaign::{
    ApprovalRule, DeltaSettings, GateRecord, Opening, Rollout, Settings, State, StopRule, Wave, WaveCounts,
    WaveSize,
};
use farrier_protocol::{LongText, Text, UnixMillis, VehicleId};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::artifacts::Artifacts;
use crate::config::Enroll;
use crate::conversation::{Grants, Presence, Rules, ServerDesk, at_gate, start};
use crate::desk::WallClock;
use crate::gatekeeper::{ChangedGates, Gatekeeper, look_at_gate};
use crate::runner::Runner;
use crate::store::campaigns::{self, Campaign};
use crate::store::intake::{Intake, KnownQueries};
use crate::store::releases::KnownReleases;
use crate::store::updates::{self, VehicleUpdate};
use crate::store::{PostgresAddress, Store, StoreAddress, StoreError};
use car::Car;

/// Vehicles whose updates go on at the same time.
const AT_A_TIME: usize = 16;
/// How often it is looked whether something is done.
const LOOK: Duration = Duration::from_millis(20);
/// Deadlines that no vehicle of a bench reaches, in seconds.
const FAR_S: u64 = 86_400;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The folder.
    #[error("the folder of the fleet cannot be used")]
    Folder(#[from] std::io::Error),
    /// The server or a vehicle did otherwise than it has to, which makes a figure worthless.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What should have been there.
        expected: &'static str,
        /// What was there.
        found: String,
    },
}

fn unexpected(expected: &'static str, found: impl ToString) -> FleetError {
    FleetError::Unexpected { expected, found: found.to_string() }
}

/// A fleet of vehicles that are all connected and known with their inventories, and the server's parts behind its sockets.
pub struct Fleet {
    store: Store,
    rules: Arc<Rules>,
    desk: Arc<ServerDesk>,
    clock: WallClock,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    vehicles: u64,
}

/// Vehicles whose update is about to go on.
pub struct Chosen(Vec<Car>);

/// How long something took, and how long the messages of others waited meanwhile.
#[derive(Debug, Clone)]
pub struct Work {
    /// Until the operator had an answer.
    pub answered: Duration,
    /// Until all of it was done.
    pub done: Duration,
    /// From when a message was handed in until it was durable: one after the other, each.
    pub messages: Vec<Duration>,
}

/// How long decisions at a gate took, one after the other, the statements with them but not the commit.
#[derive(Debug, Clone)]
pub struct Decisions {
    /// Whether a vehicle may begin, with every kind of limit.
    pub of_vehicles: Vec<Duration>,
    /// Whether a wave opens, the campaign stops, or anybody is let through.
    pub of_gatekeeper: Vec<Duration>,
}

impl Fleet {
    /// Makes a store, in this folder or in an empty database, and the fleet in it.
    ///
    /// # Errors
    /// A store or folder that fails, or a database that has vehicles already.
    pub async fn make(
        folder: &Path,
        database: Option<PostgresAddress>,
        vehicles: u64,
    ) -> Result<Self, FleetError> {
        let address = match database {
            Some(address) => StoreAddress::Postgres(Box::new(address)),
            None => StoreAddress::Sqlite(folder.join("farrier.db")),
        };
        let (due_changed, gates) = (Arc::new(Notify::new()), Arc::new(ChangedGates::default()));
        let (due, changed) = (Arc::clone(&due_changed), Arc::clone(&gates));
        let store = Store::open(
            &address,
            Arc::new(move |committed| {
                changed.add(committed.gates);
                if committed.due_changed {
                    due.notify_one();
                }
            }),
        )?;
        let rules = Arc::new(rules()?);
        let clock: WallClock = Arc::new(wall_clock);
        let desk = Arc::new(ServerDesk {
            store: store.clone(),
            rules: Arc::clone(&rules),
            artifacts: Artifacts::open(&folder.join("images"), "bench")?,
            clock: Arc::clone(&clock),
            grants: Grants::default(),
            sessions: Arc::default(),
        });
        let fleet =
            Self { store, rules, desk, clock, stop: CancellationToken::new(), tasks: Vec::new(), vehicles };
        filling::fill(&fleet).await?;
        Ok(fleet.with_tasks(due_changed, gates))
    }

    fn with_tasks(mut self, due_changed: Arc<Notify>, changed: Arc<ChangedGates>) -> Self {
        let (store, rules, clock) = (self.store.clone(), Arc::clone(&self.rules), Arc::clone(&self.clock));
        let gatekeeper = Gatekeeper {
            store: store.clone(),
            rules: Arc::clone(&rules),
            clock: Arc::clone(&clock),
            changed,
        };
        let runner = Runner { store, rules, clock, due_changed };
        self.tasks.push(tokio::spawn(gatekeeper.run(self.stop.clone())));
        self.tasks.push(tokio::spawn(runner.run(self.stop.clone())));
        self
    }

    /// Starts a campaign for all vehicles, whose waves are opened by hand: one of so many vehicles and one of the rest.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn start_campaign(&self, first_wave: u64) -> Result<Work, FleetError> {
        let (campaign, now) = (campaign(first_wave, (self.clock)())?, (self.clock)());
        let begin = async {
            let job = move |tx: &crate::store::Tx<'_>| {
                campaigns::create(tx, &campaign, &[])?;
                start(tx, &campaign, now)
            };
            self.store.write::<_, StoreError>(job).await.map(drop)
        };
        let all = self.vehicles;
        let is_done = async || {
            let (campaign, waves) = self.standing().await?;
            Ok(campaign.starting.is_none() && waves.iter().map(|wave| wave.vehicles).sum::<u64>() == all)
        };
        self.work(begin, is_done).await
    }

    /// Opens the first wave: done when each of its vehicles has its first command in the outbox.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn open_wave(&self) -> Result<Work, FleetError> {
        let begin = async {
            let job = |tx: &crate::store::Tx<'_>| {
                let record = campaigns::hold_gate(tx, &campaign_name()?)?;
                campaigns::set_gate(tx, &campaign_name()?, &GateRecord { open_next: true, ..record })
            };
            self.store.write::<_, StoreError>(job).await
        };
        let is_done = async || {
            let (_, waves) = self.standing().await?;
            Ok(waves.first().is_some_and(|wave| wave.under_way == wave.vehicles))
        };
        self.work(begin, is_done).await
    }

    /// Does something while another vehicle speaks.
    async fn work(
        &self,
        begin: impl Future<Output = Result<(), StoreError>>,
        is_done: impl AsyncFn() -> Result<bool, FleetError>,
    ) -> Result<Work, FleetError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (desk, clock, until) = (Arc::clone(&self.desk), Arc::clone(&self.clock), Arc::clone(&stop));
        // It stands in the last wave, as most do.
        let mut speaker = Car::new(self.vehicle_of_wave(2, "").await?)?;
        let speaking = tokio::spawn(async move {
            let mut messages = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let sent = Instant::now();
                speaker.wake_up(&desk, &clock).await?;
                messages.push(sent.elapsed());
            }
            Ok::<_, FleetError>(messages)
        });
        let begun = Instant::now();
        begin.await?;
        let answered = begun.elapsed();
        while !is_done().await? {
            tokio::time::sleep(LOOK).await;
        }
        let done = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        let messages = speaking.await.map_err(|error| unexpected("a vehicle that speaks", error))??;
        Ok(Work { answered, done, messages })
    }

    /// Asks the gate so often.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn ask_gate(&self, times: u32) -> Result<Decisions, FleetError> {
        let mut decisions = Decisions { of_vehicles: Vec::new(), of_gatekeeper: Vec::new() };
        let (campaign, _) = self.standing().await?;
        let limited = Rollout {
            vehicles_at_once: Some(u64::MAX),
            starts_per_minute: Some(u64::MAX),
            ..campaign.rollout.clone()
        };
        let limited = Campaign { rollout: limited, ..campaign };
        let (mut update, now) = (self.update(self.vehicle_of_wave(1, "").await?).await?, (self.clock)());
        update.state = State::selected();
        for _ in 0..times {
            let (limited, update) = (limited.clone(), update.clone());
            let asked = self.store.write::<_, StoreError>(move |tx| {
                let begun = Instant::now();
                let answer = at_gate(tx, &limited, &update, now)?;
                Ok((begun.elapsed(), answer.0))
            });
            let (took, block) = asked.await?;
            if let Some(block) = block {
                return Err(unexpected("a gate that lets the vehicle through", format!("{block:?}")));
            }
            decisions.of_vehicles.push(took);
            let rules = Arc::clone(&self.rules);
            let looked = self.store.write::<_, StoreError>(move |tx| {
                let begun = Instant::now();
                look_at_gate(tx, &rules, &campaign_name()?, now)?;
                Ok(begun.elapsed())
            });
            decisions.of_gatekeeper.push(looked.await?);
        }
        Ok(decisions)
    }

    /// So many vehicles of the open wave, from all over the fleet, whose update has not begun.
    ///
    /// # Errors
    /// A store that fails, or a fleet without as many.
    pub async fn choose_vehicles(&self, vehicles: u64) -> Result<Chosen, FleetError> {
        let there = self.store.read::<_, StoreError>(|tx| {
            let sql = "SELECT vehicle_id FROM vehicle_update WHERE campaign_name = $1 AND state = 'collecting_vci' \
                       AND attempt_id IS NULL ORDER BY vehicle_id";
            tx.rows(sql, &[campaign_name()?.as_str().into()], |row| row.parsed::<VehicleId>(0, "a vehicle id"))
        });
        let there = there.await?;
        let wanted = usize::try_from(vehicles).unwrap_or(usize::MAX);
        if there.len() < wanted || wanted == 0 {
            return Err(unexpected("as many vehicles as shall be updated", there.len()));
        }
        let apart = there.len() / wanted;
        let cars = there.into_iter().step_by(apart).take(wanted).map(Car::new).collect::<Result<_, _>>()?;
        Ok(Chosen(cars))
    }

    /// Takes vehicles through their whole update; says how many messages of theirs were taken.
    ///
    /// # Errors
    /// A store that fails, or a vehicle whose update does not go on as it has to.
    pub async fn update_vehicles(&self, chosen: Chosen) -> Result<u64, FleetError> {
        let update = |mut car: Car| async move { car.update(&self.desk, &self.clock).await };
        let updating = stream::iter(chosen.0).map(update);
        updating.buffer_unordered(AT_A_TIME).try_fold(0_u64, async |sum, sent| Ok(sum + sent)).await
    }

    /// Whether the counters that are kept are what a count finds.
    ///
    /// # Errors
    /// A store that fails, or a counter that is wrong.
    pub async fn check(&self) -> Result<(), FleetError> {
        let wrong = self.store.read::<_, StoreError>(|tx| campaigns::wrong_counters(tx, &campaign_name()?));
        match wrong.await?.first() {
            None => Ok(()),
            Some(wrong) => Err(unexpected("counters that are kept right", wrong)),
        }
    }

    /// Ends everything.
    pub async fn close(self) {
        self.stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        self.store.close().await;
    }

    async fn standing(&self) -> Result<(Campaign, Vec<WaveCounts>), FleetError> {
        let found = self.store.read::<_, StoreError>(|tx| {
            let Some(campaign) = campaigns::by_name(tx, &campaign_name()?)? else { return Ok(None) };
            let waves = campaigns::wave_counts(tx, &campaign)?;
            Ok(Some((campaign, waves)))
        });
        found.await?.ok_or_else(|| unexpected("the campaign", "none"))
    }

    /// A vehicle of a wave that has not begun to speak of its update, at an id or after it; before there is a campaign any.
    async fn vehicle_of_wave(&self, wave: i64, from: &str) -> Result<VehicleId, FleetError> {
        let from = from.to_owned();
        let found = self.store.read::<_, StoreError>(move |tx| {
            let sql = "SELECT v.vehicle_id FROM vehicle v LEFT JOIN vehicle_update u ON u.vehicle_id = v.vehicle_id \
                       WHERE v.vehicle_id >= $1 AND (u.wave = $2 OR u.wave IS NULL) AND u.attempt_id IS NULL \
                       ORDER BY v.vehicle_id LIMIT 1";
            tx.row(sql, &[from.as_str().into(), wave.into()], |row| row.parsed(0, "a vehicle id"))
        });
        found.await?.ok_or_else(|| unexpected("a vehicle that has not begun", "none"))
    }

    async fn update(&self, vehicle_id: VehicleId) -> Result<VehicleUpdate, FleetError> {
        let found = self
            .store
            .read::<_, StoreError>(move |tx| updates::of_vehicle_in(tx, &campaign_name()?, &vehicle_id));
        found.await?.ok_or_else(|| unexpected("the vehicle's update", "none"))
    }
}

fn wall_clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn rules() -> Result<Rules, StoreError> {
    let base_url: Result<LongText, _> = "https://localhost:8443".parse();
    Ok(Rules {
        settings: Settings {
            vci_deadline_s: FAR_S,
            readiness_deadline_s: FAR_S,
            verify_deadline_s: FAR_S,
            ..Settings::default()
        },
        deltas: DeltaSettings::default(),
        set_aside_after: 0,
        enroll: Enroll::Auto,
        releases: KnownReleases::default(),
        queries: KnownQueries::default(),
        approval: ApprovalRule::default(),
        base_url: base_url.map_err(|_| StoreError::NotCommitted)?,
        max_kb_per_msg: 512,
        failure_report: true,
        presence: Presence::Connections(Arc::new(|_| true)),
    })
}

fn text(value: &str) -> Result<Text, StoreError> {
    value.parse().map_err(|_| StoreError::Damaged { expected: "a name", found: value.to_owned() })
}

fn campaign_name() -> Result<Text, StoreError> {
    text("bench")
}

fn campaign(first_wave: u64, now: UnixMillis) -> Result<Campaign, StoreError> {
    let wave = |size| Wave { size, opens: Opening::ByHand, stop: StopRule::default() };
    Ok(Campaign {
        name: campaign_name()?,
        release: text(filling::RELEASE)?,
        every_vehicle: true,
        update_deadline_s: None,
        created_at: now,
        started_at: None,
        paused_at: None,
        aborted: None,
        rollout: Rollout {
            waves: vec![wave(WaveSize::Vehicles(first_wave)), wave(WaveSize::Rest)],
            stop: StopRule { failed_percent: Some(5), ..StopRule::default() },
            ..Rollout::default()
        },
        gate: GateRecord::default(),
        stopped: None,
        starting: None,
        intake: Intake::default(),
    })
}
