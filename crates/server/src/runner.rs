//! Does what is due: deadlines and retries of vehicle updates, questions for later, quarantines that may end.
//! What is due is found by index; between times it sleeps, and a commit that changes them wakes it.

use std::sync::Arc;
use std::time::Duration;

use farrier_campaign::Event;
use farrier_protocol::UnixMillis;
use futures_util::future::try_join_all;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::SPANS;
use crate::conversation::{
    Rules, advance, go_on_starting, is_there, look_at_campaign, release_from_quarantine,
};
use crate::desk::WallClock;
use crate::store::audit::Actor;
use crate::store::{
    FORGOTTEN_AT_A_TIME, Store, StoreError, Tx, campaigns, commands, idempotency, messages, security_events,
    sessions, updates, vehicles,
};

/// Vehicle updates that are worked on in one transaction.
const BATCH: u32 = 256;
/// The wall clock may be set: nothing is slept through for longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// On a store that other servers share, one that has gone may have left something that is due.
const LONGEST_SLEEP_AMONG_OTHERS: Duration = Duration::from_secs(1);
/// What is due there may be claimed by another server, which is at it.
const SHORTEST_SLEEP_AMONG_OTHERS: Duration = Duration::from_millis(50);
/// Transactions side by side while much is due, where the store has several writers.
const LANES_AMONG_OTHERS: usize = 4;
/// How often the old is looked for.
const TIDY_MS: i64 = 60 * 60 * 1000;
/// After the store has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long accepted messages and expired commands are remembered, in ms (protocol.md §3: at least 30 days).
const REMEMBERED_MS: i64 = 31 * 24 * 60 * 60 * 1000;
/// How long security events are remembered, in ms.
const EVENTS_REMEMBERED_MS: i64 = 400 * 24 * 60 * 60 * 1000;

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
    pub(crate) has_more: bool,
    /// When something is due next.
    pub(crate) next: Option<UnixMillis>,
}

impl Runner {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut since = (self.clock)();
        let mut lanes = 1;
        let mut tidy_at = since;
        while !shutdown.is_cancelled() {
            let now = (self.clock)();
            let ran = async {
                let has_more_of_old =
                    tidy_at <= now && self.store.write(move |tx| forget_the_old(tx, now)).await?;
                Ok::<_, StoreError>((self.run_lanes(lanes, since, now).await?, has_more_of_old))
            };
            let sleep = match ran.await {
                Ok((ran, has_more_of_old)) => {
                    since = now;
                    if tidy_at <= now && !has_more_of_old {
                        tidy_at = UnixMillis(now.0.saturating_add(TIDY_MS));
                    }
                    let is_busy = ran.has_more || has_more_of_old;
                    lanes = if ran.has_more && self.store.is_shared() { LANES_AMONG_OTHERS } else { 1 };
                    if is_busy { Duration::ZERO } else { self.until(ran.next, now) }
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

impl Runner {
    /// Does what is due in several transactions at a time; each claims what it does.
    async fn run_lanes(&self, lanes: usize, since: UnixMillis, now: UnixMillis) -> Result<Ran, StoreError> {
        let lane = |_| {
            let rules = Arc::clone(&self.rules);
            self.store.write(move |tx| run_due(tx, &rules, since, now))
        };
        let span = tracing::debug_span!(target: SPANS, "due work", lanes);
        let ran = try_join_all((0..lanes).map(lane)).instrument(span).await?;
        let rules = Arc::clone(&self.rules);
        let has_more_to_look_at = self.store.write(move |tx| look_at_a_campaign(tx, &rules, now)).await?;
        let has_more_to_start = go_on_starting(&self.store, &self.rules, now).await?;
        Ok(Ran {
            has_more: has_more_to_look_at || has_more_to_start || ran.iter().any(|ran| ran.has_more),
            next: ran.iter().filter_map(|ran| ran.next).min(),
        })
    }

    fn until(&self, next: Option<UnixMillis>, now: UnixMillis) -> Duration {
        let sleep = until(next, now);
        if self.store.is_shared() {
            sleep.clamp(SHORTEST_SLEEP_AMONG_OTHERS, LONGEST_SLEEP_AMONG_OTHERS)
        } else {
            sleep
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
        advance(tx, rules, update, Event::TimePassed, None, now)?;
    }
    for vehicle in vehicles::claim_quarantine_due(tx, now, BATCH)? {
        if is_there(tx, rules, &vehicle.binding, now)? {
            release_from_quarantine(tx, rules, &vehicle, &Actor::server(), now)?;
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

/// Lets some updates of a campaign that was paused, resumed or aborted find out; says whether there are more to do so. In a
/// transaction of its own: it waits for vehicles in the order of their ids, and may hold none before.
pub(crate) fn look_at_a_campaign(tx: &Tx<'_>, rules: &Rules, now: UnixMillis) -> Result<bool, StoreError> {
    let Some((campaign, after)) = campaigns::claim_look(tx)? else { return Ok(false) };
    let vehicle_ids = updates::vehicles_with_open(tx, &campaign.name, &after, BATCH)?;
    for vehicle_id in &vehicle_ids {
        vehicles::lock(tx, vehicle_id)?;
        if let Some(vehicle) = vehicles::by_id(tx, vehicle_id)? {
            look_at_campaign(tx, rules, &campaign, &vehicle, now)?;
        }
    }
    let last = vehicle_ids.last().filter(|_| vehicle_ids.len() >= BATCH as usize);
    campaigns::set_look(tx, &campaign.name, last.map(|vehicle_id| vehicle_id.as_str()))?;
    Ok(last.is_some() || campaigns::is_look_due(tx)?)
}

/// Forgets what is older than has to be remembered, some of it at a time; says whether there is more.
fn forget_the_old(tx: &Tx<'_>, now: UnixMillis) -> Result<bool, StoreError> {
    // Two servers that did it at once would wait for each other.
    tx.lock("forgetting")?;
    let before = UnixMillis(now.0.saturating_sub(REMEMBERED_MS));
    let events_before = UnixMillis(now.0.saturating_sub(EVENTS_REMEMBERED_MS));
    let forgotten = [
        messages::forget_accepted(tx, before, now)?,
        commands::forget_expired(tx, before)?,
        security_events::forget(tx, events_before)?,
        sessions::forget(tx, before)?,
        idempotency::forget(tx, now)?,
    ];
    Ok(forgotten.contains(&FORGOTTEN_AT_A_TIME))
}

#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod tests;
