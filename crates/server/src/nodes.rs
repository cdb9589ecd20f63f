//! What servers on one store tell each other: who is alive, which vehicles are connected where, whom to wake.
//! Owns the telling; what the rows mean is the store's, who is connected here the endpoint's. A server alone on
//! SQLite has nobody to tell.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farrier_protocol::{Binding, UnixMillis};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::desk::WallClock;
use crate::mqtt::Connections;
use crate::store::nodes::{self, Place};
use crate::store::{Store, StoreError, commands};

/// Several of these fit into the time after which a silent server counts as gone.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How often the outbox is looked at for what a notification that was lost would have told.
const SLOW_LOOK: Duration = Duration::from_secs(10);
/// What the slow look goes back beyond the one before, in ms: a command is seen only once its transaction is over,
/// and the servers' clocks differ.
const OVERLAP_MS: i64 = 60_000;
/// How often servers that have been gone for long are forgotten.
const TIDY: Duration = Duration::from_secs(60);
/// What comes within this time goes out together.
const GATHER: Duration = Duration::from_millis(5);
/// After the store has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Vehicles that are told of in one transaction.
const BATCH: usize = 500;

/// What is still to be told; whatever is added twice is told once.
#[derive(Default)]
pub(crate) struct Untold {
    wakes: Mutex<BTreeSet<Binding>>,
    /// Client ids whose connection came or went.
    changes: Mutex<BTreeSet<String>>,
    added: Notify,
}

impl Untold {
    /// Vehicles that may be connected to another server have new commands.
    pub(crate) fn wake(&self, bindings: impl IntoIterator<Item = Binding>) {
        locked(&self.wakes).extend(bindings);
        self.added.notify_one();
    }

    /// A client's connection to this server came or went.
    pub(crate) fn changed(&self, client_id: &str) {
        locked(&self.changes).insert(client_id.to_owned());
        self.added.notify_one();
    }

    fn take_wakes(&self) -> Vec<Binding> {
        take_some(&self.wakes)
    }

    fn take_changes(&self) -> Vec<String> {
        take_some(&self.changes)
    }

    fn is_empty(&self) -> bool {
        locked(&self.wakes).is_empty() && locked(&self.changes).is_empty()
    }
}

fn take_some<T: Ord>(from: &Mutex<BTreeSet<T>>) -> Vec<T> {
    let mut from = locked(from);
    (0..BATCH).map_while(|_| from.pop_first()).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This server among those that share its store.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) connections: Arc<Connections>,
    pub(crate) clock: WallClock,
    pub(crate) name: String,
    /// Of this run of the server.
    pub(crate) run: String,
    pub(crate) untold: Arc<Untold>,
    /// Cancelled when another server has taken this one's name.
    pub(crate) replaced: CancellationToken,
}

impl Node {
    /// Enters the server among the others.
    pub(crate) async fn enter(&self) -> Result<(), StoreError> {
        let (name, run, now) = (self.name.clone(), self.run.clone(), (self.clock)());
        self.store.write(move |tx| nodes::enter(tx, &name, &run, now)).await
    }

    /// Tells the others until the server stops, and then leaves them.
    pub(crate) async fn tell(self, shutdown: CancellationToken) {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut slow_look = interval(SLOW_LOOK);
        slow_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked_at = (self.clock)();
        let mut tidied = Instant::now();
        while !shutdown.is_cancelled() {
            let told = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = heartbeat.tick() => self.beat().await,
                _ = slow_look.tick() => self.look(&mut looked_at).await,
                () = self.untold.added.notified() => {
                    sleep(GATHER).await;
                    self.tell_untold().await
                }
            };
            let told = match told {
                Ok(()) if tidied.elapsed() >= TIDY => {
                    tidied = Instant::now();
                    let now = (self.clock)();
                    self.store.write(move |tx| nodes::forget_gone(tx, now)).await
                }
                told => told,
            };
            if let Err(error) = told {
                tracing::error!(
                    error = &error as &dyn Error,
                    "The other servers on this store could not be told; it is tried again."
                );
                sleep(PAUSE).await;
                self.untold.added.notify_one();
            }
        }
        let (name, run) = (self.name, self.run);
        if let Err(error) = self.store.write(move |tx| nodes::leave(tx, &name, &run)).await {
            tracing::warn!(
                error = &error as &dyn Error,
                "The other servers find out by themselves that this one stops."
            );
        }
    }

    async fn beat(&self) -> Result<(), StoreError> {
        let (name, run, now) = (self.name.clone(), self.run.clone(), (self.clock)());
        match self.store.write(move |tx| nodes::is_alive(tx, &name, &run, now)).await? {
            Place::Kept => {}
            Place::New => {
                self.connections.client_ids().iter().for_each(|client_id| self.untold.changed(client_id))
            }
            Place::Lost => {
                tracing::error!(
                    node = self.name,
                    "Another server has started under this node's name; this one stops. Give each its own."
                );
                self.replaced.cancel();
            }
        }
        Ok(())
    }

    /// Wakes those for whom a command has become due since the last look.
    async fn look(&self, looked_at: &mut UnixMillis) -> Result<(), StoreError> {
        let now = (self.clock)();
        let since = UnixMillis(looked_at.0.saturating_sub(OVERLAP_MS));
        let due: Vec<Binding> = self.store.read(move |tx| commands::scheduled(tx, since, now)).await?;
        due.iter().for_each(|binding| _ = self.connections.wake(binding));
        *looked_at = now;
        Ok(())
    }

    async fn tell_untold(&self) -> Result<(), StoreError> {
        let (wakes, changes) = (self.untold.take_wakes(), self.untold.take_changes());
        let told = self.tell_batch(wakes.clone(), changes.clone()).await;
        if told.is_err() {
            locked(&self.untold.wakes).extend(wakes);
            locked(&self.untold.changes).extend(changes);
        }
        if !self.untold.is_empty() {
            self.untold.added.notify_one();
        }
        told
    }

    async fn tell_batch(&self, wakes: Vec<Binding>, changes: Vec<String>) -> Result<(), StoreError> {
        let (name, connections) = (self.name.clone(), Arc::clone(&self.connections));
        self.store
            .write(move |tx| {
                for client_id in &changes {
                    // As it is now: what came or went since is told again.
                    nodes::set_presence(tx, &name, client_id, connections.has_client(client_id))?;
                }
                nodes::tell_to_wake(tx, &wakes)
            })
            .await
    }
}
