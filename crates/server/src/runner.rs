//! Does what is due: deadlines and retries of vehicle updates, questions for later, quarantines that may end.
//! What is due is found by index; between times it sleeps, and a commit that changes them wakes it.

use std::sync::Arc;
use std::time::Duration;

use farrier_campaign::Event;
use farrier_protocol::UnixMillis;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::conversation::{Rules, advance, release_from_quarantine};
use crate::desk::WallClock;
use crate::store::{Store, StoreError, Tx, commands, messages, updates, vehicles};

/// Vehicle updates that are worked on in one transaction.
const BATCH: u32 = 256;
/// The wall clock may be set: nothing is slept through for longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// After the store has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long accepted messages and expired commands are remembered, in ms (protocol.md §3: at least 30 days).
const REMEMBERED_MS: i64 = 31 * 24 * 60 * 60 * 1000;

/// Runs what is due until the server stops.
pub(crate) struct Runner {
    pub(crate) store: Store,
    pub(crate) rules: Arc<Rules>,
    pub(crate) clock: WallClock,
    /// Notified when something may be due earlier than before.
    pub(crate) due_changed: Arc<Notify>,
}

/// What a run has found.
pub(crate) struct Ran {
    /// There was more than fits one transaction.
    has_more: bool,
    next: Option<UnixMillis>,
}

impl Runner {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut last = (self.clock)();
        let mut tidied: Option<UnixMillis> = None;
        while !shutdown.is_cancelled() {
            let now = (self.clock)();
            let (rules, since) = (Arc::clone(&self.rules), last);
            let tidies = tidied.is_none_or(|at| now.0.saturating_sub(at.0) >= 60 * 60 * 1000);
            let ran = self.store.write(move |tx| {
                if tidies {
                    forget_the_old(tx, now)?;
                }
                run_due(tx, &rules, since, now)
            });
            let sleep = match ran.await {
                Ok(ran) => {
                    last = now;
                    tidied = if tidies { Some(now) } else { tidied };
                    if ran.has_more { Duration::ZERO } else { until(ran.next, now) }
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "What is due could not be done; it is tried again."
                    );
                    PAUSE
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.due_changed.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }
}

fn until(next: Option<UnixMillis>, now: UnixMillis) -> Duration {
    let ms = next.map_or(i64::MAX, |next| next.0.saturating_sub(now.0));
    Duration::from_millis(ms.max(0).unsigned_abs()).min(LONGEST_SLEEP)
}

/// Does what became due up to now; questions for later went out up to `since` already.
pub(crate) fn run_due(
    tx: &Tx<'_>,
    rules: &Rules,
    since: UnixMillis,
    now: UnixMillis,
) -> Result<Ran, StoreError> {
    let due = updates::claim_due(tx, now, BATCH)?;
    let has_more = due.len() >= BATCH as usize;
    for id in due {
        // The end of one update may have moved another of the same vehicle.
        let Some(update) = updates::by_id(tx, &id)? else { continue };
        let Some(vehicle) = vehicles::by_id(tx, &update.vehicle_id)? else { continue };
        let there = (rules.is_connected)(&vehicle.binding);
        advance(tx, rules, update, Event::TimePassed, None, there, now)?;
    }
    for vehicle in vehicles::claim_quarantine_due(tx, now, BATCH)? {
        if (rules.is_connected)(&vehicle.binding) {
            release_from_quarantine(tx, rules, &vehicle, now)?;
        } else {
            vehicles::await_wake_up_in_quarantine(tx, &vehicle.binding.vehicle_id)?;
        }
    }
    for binding in commands::scheduled(tx, since, now)? {
        tx.wake(&binding);
    }
    let next =
        [updates::next_due(tx)?, vehicles::next_quarantine_due(tx)?, commands::next_scheduled(tx, now)?];
    Ok(Ran { has_more, next: next.into_iter().flatten().min() })
}

fn forget_the_old(tx: &Tx<'_>, now: UnixMillis) -> Result<(), StoreError> {
    let before = UnixMillis(now.0.saturating_sub(REMEMBERED_MS));
    messages::forget_accepted(tx, before, now)?;
    commands::forget_expired(tx, before)?;
    Ok(())
}

#[cfg(test)]
mod tests;
