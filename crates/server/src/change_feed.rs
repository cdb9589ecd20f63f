//! The change feed: numbers what changed, and lets streams know that there is something new. A stream reads from the store
//! by its own place, so a slow reader costs no memory and misses nothing that is kept.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use farrier_protocol::Text;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::desk::WallClock;
use crate::store::campaigns::{self, StateCounts};
use crate::store::changes::{self, KEPT};
use crate::store::{Store, StoreError};

/// Streams at a time on one server.
pub(crate) const MOST_STREAMS: usize = 64;
/// Changes that get their numbers in one transaction, so that messages do not wait for it.
const BATCH: u32 = 200;
/// What comes within this time is numbered together.
const GATHER: Duration = Duration::from_millis(20);
/// How often it looks for what another server wrote and did not number before it went.
const SLOW_LOOK: Duration = Duration::from_secs(5);
/// How often campaigns are counted for those who watch.
const PROGRESS: Duration = Duration::from_secs(1);
/// After the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Counters of the campaigns that are under way, or were a moment ago.
pub(crate) type Progress = Arc<BTreeMap<Text, StateCounts>>;

/// What streams hold on to.
pub(crate) struct Feed {
    /// The number of the newest change that this server has seen numbered.
    pub(crate) head: watch::Sender<u64>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) places: Arc<Semaphore>,
    /// Cancelled when the server stops.
    pub(crate) stopping: CancellationToken,
}

impl Feed {
    pub(crate) fn new(stopping: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            head: watch::Sender::new(0),
            progress: watch::Sender::default(),
            places: Arc::new(Semaphore::new(MOST_STREAMS)),
            stopping,
        })
    }
}

/// Numbers changes and counts campaigns while the server runs.
pub(crate) struct Herald {
    pub(crate) store: Store,
    pub(crate) clock: WallClock,
    pub(crate) feed: Arc<Feed>,
    /// Something was written that has no number yet.
    pub(crate) told: Arc<Notify>,
    /// Something is to be delivered to webhooks.
    pub(crate) to_deliver: Arc<Notify>,
}

impl Herald {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        tokio::join!(self.number(shutdown.clone()), self.count(shutdown));
    }

    async fn number(&self, shutdown: CancellationToken) {
        let mut slow_look = interval(SLOW_LOOK);
        slow_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.told.notified() => sleep(GATHER).await,
                _ = slow_look.tick() => {}
            }
            if let Err(error) = self.number_all().await {
                tracing::error!(
                    error = &error as &dyn Error,
                    "Changes could not be numbered; it is tried again."
                );
                sleep(PAUSE).await;
                self.told.notify_one();
            }
        }
    }

    /// Numbers all that is there.
    pub(crate) async fn number_all(&self) -> Result<(), StoreError> {
        loop {
            let now = (self.clock)();
            let numbered = self.store.write(move |tx| changes::number(tx, BATCH, KEPT, now)).await?;
            self.feed.head.send_if_modified(|head| {
                let is_new = *head != numbered.head;
                *head = numbered.head;
                is_new
            });
            // Also what was queued for a test or again wants to go out.
            self.to_deliver.notify_one();
            if numbered.changes < usize::try_from(BATCH).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    async fn count(&self, shutdown: CancellationToken) {
        let mut tick = interval(PROGRESS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
            }
            if self.feed.progress.receiver_count() == 0 {
                continue;
            }
            if let Err(error) = self.count_once().await {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "Campaigns could not be counted; it is tried again."
                );
            }
        }
    }

    /// Counts once for all who watch. A campaign that has just ended is counted a last time.
    pub(crate) async fn count_once(&self) -> Result<(), StoreError> {
        let before = self.feed.progress.borrow().clone();
        let counted = self.store.read::<_, StoreError>(move |tx| {
            let mut names = campaigns::under_way(tx)?;
            let open =
                |(name, counts): (&Text, &StateCounts)| (counts.ended < counts.total).then(|| name.clone());
            names.extend(before.iter().filter_map(open));
            names.sort();
            names.dedup();
            names.into_iter().map(|name| Ok((name.clone(), campaigns::counts(tx, &name)?))).collect()
        });
        let counted: BTreeMap<_, _> = counted.await?;
        self.feed.progress.send_if_modified(|progress| {
            let is_new = **progress != counted;
            *progress = Arc::new(counted);
            is_new
        });
        Ok(())
    }
}
