//! The gate of each campaign: opens waves, stops a campaign by its rule, and lets vehicles that wait for a place go on.
//! Goes by counters that are kept; a commit that changes them wakes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farrier_campaign::{Event, NoRoom, WaveCounts};
use farrier_protocol::{Text, UnixMillis};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::conversation::{Rules, advance};
use crate::desk::WallClock;
use crate::store::audit::{self, Actor, Change};
use crate::store::campaigns::{self, Campaign, Stopped};
use crate::store::{Store, StoreError, Tx, changes, locked, updates};

/// Vehicles that are let through in one transaction.
const BATCH: u64 = 256;
/// Changes that come close together are looked at once.
const GATHER: Duration = Duration::from_millis(20);
/// How often all campaigns under way are looked at: the wall clock may be set.
const SWEEP: Duration = Duration::from_secs(30);
/// On a store that other servers share, one that has gone may have left a gate that nobody has looked at.
const SWEEP_AMONG_OTHERS: Duration = Duration::from_secs(1);

/// The campaigns whose counters have changed.
#[derive(Default)]
pub(crate) struct ChangedGates {
    campaigns: Mutex<BTreeSet<Text>>,
    changed: Notify,
}

impl ChangedGates {
    pub(crate) fn add(&self, campaigns: BTreeSet<Text>) {
        if !campaigns.is_empty() {
            locked(&self.campaigns).extend(campaigns);
            self.changed.notify_one();
        }
    }

    fn take(&self) -> BTreeSet<Text> {
        std::mem::take(&mut *locked(&self.campaigns))
    }
}

/// Looks after the gates until the server stops.
pub(crate) struct Gatekeeper {
    pub(crate) store: Store,
    pub(crate) rules: Arc<Rules>,
    pub(crate) clock: WallClock,
    pub(crate) changed: Arc<ChangedGates>,
}

/// What a look at a gate has found.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// More vehicles may be let through than fit one transaction.
    pub(crate) has_more: bool,
    /// When something happens by the clock.
    pub(crate) next: Option<UnixMillis>,
}

impl Gatekeeper {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let sweep = if self.store.is_shared() { SWEEP_AMONG_OTHERS } else { SWEEP };
        let mut timers: BTreeMap<Text, UnixMillis> = BTreeMap::new();
        let mut all = true;
        let mut swept = tokio::time::Instant::now();
        while !shutdown.is_cancelled() {
            if let Err(error) = self.look(all, &mut timers).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "The gates of campaigns could not be looked at; it is tried again."
                );
            }
            if all {
                swept = tokio::time::Instant::now();
            }
            let now = (self.clock)();
            let timer = timers.values().min().map_or(sweep, |next| {
                Duration::from_millis(next.0.saturating_sub(now.0).max(0).unsigned_abs()).min(sweep)
            });
            let until_sweep = sweep.saturating_sub(swept.elapsed());
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.changed.changed.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(timer.min(until_sweep).max(GATHER)) => {}
            }
            all = swept.elapsed() >= sweep;
        }
    }

    async fn look(&self, all: bool, timers: &mut BTreeMap<Text, UnixMillis>) -> Result<(), StoreError> {
        let now = (self.clock)();
        let mut names = self.changed.take();
        names.extend(timers.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()));
        if all {
            names.extend(self.store.read(campaigns::under_way).await?);
            // That of a campaign whose last vehicle was done just before a crash.
            names.extend(self.store.read(changes::not_finished).await?);
        }
        for name in names {
            timers.remove(&name);
            loop {
                let (rules, now, campaign) = (Arc::clone(&self.rules), (self.clock)(), name.clone());
                let looked = self.store.write(move |tx| look_at_gate(tx, &rules, &campaign, now)).await?;
                if let Some(next) = looked.next {
                    timers.insert(name.clone(), next);
                }
                if !looked.has_more {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Stops the campaign, opens its next wave, or lets through vehicles that may begin.
pub(crate) fn look_at_gate(
    tx: &Tx<'_>,
    rules: &Rules,
    name: &Text,
    now: UnixMillis,
) -> Result<Looked, StoreError> {
    let Some(campaign) = campaigns::claim(tx, name)? else { return Ok(Looked::default()) };
    if campaign.started_at.is_none() {
        return Ok(Looked::default());
    }
    // Nobody knows yet how many vehicles are in which wave.
    if campaign.starting.as_ref().is_some_and(|starting| starting.shares.is_none()) {
        return Ok(Looked::default());
    }
    let (rollout, mut record) = (&campaign.rollout, campaign.gate.clone());
    let waves = campaigns::wave_counts(tx, &campaign)?;
    let sum = |count: fn(&WaveCounts) -> u64| waves.iter().map(count).fold(0, u64::saturating_add);
    if campaign.starting.is_none() {
        changes::finished(tx, name, sum(|wave| wave.vehicles), sum(|wave| wave.ended), now)?;
    }
    if !campaign.goes_on() {
        return Ok(Looked::default());
    }
    if let Some(reason) = rollout.stop_reason(&waves, &record) {
        let sentence = reason.sentence();
        tracing::error!(campaign = %name, "A campaign has stopped by its rule: {sentence}");
        campaigns::stop(tx, name, &Stopped { at: now, reason })?;
        noted(tx, &campaign, "campaign.stopped", sentence, now)?;
        return Ok(Looked::default());
    }
    if !rollout.has_gate() {
        return Ok(Looked::default());
    }
    if rollout.opens_next(&waves, &record, now) {
        record.note_opening(now);
        campaigns::set_gate(tx, name, &record)?;
        if rollout.has_limit() {
            // Whoever finds no place in the open wave says that from now on.
            campaigns::look_again(tx, name)?;
        }
        noted(tx, &campaign, "campaign.wave_opened", format!("wave {}", record.open), now)?;
        return Ok(Looked { has_more: true, next: None });
    }
    let opens_at = rollout.opens_at(&record);
    let room = match rollout.room(&waves, &record, now) {
        Ok(room) => room.min(BATCH),
        Err(NoRoom::AtOnce(_)) => return Ok(Looked { has_more: false, next: opens_at }),
        Err(NoRoom::Minute(_, next)) => {
            let next = opens_at.map_or(next, |at| at.min(next));
            return Ok(Looked { has_more: false, next: Some(next) });
        }
    };
    // Those whose window is closed by now take no place, and there may be many: it shall not be a transaction for each.
    let has_schedule = rollout.has_schedule();
    let limit = if has_schedule { BATCH } else { room };
    let ids = updates::claim_at_gate(tx, name, record.open, limit)?;
    let has_more = ids.len() as u64 >= limit;
    let mut begun = 0;
    for id in ids {
        if begun >= room {
            break;
        }
        let update = updates::by_id(tx, &id)?;
        if let Some(update) = update.filter(|update| update.state.waits_at_gate()) {
            advance(tx, rules, update, Event::LookedAt, None, now)?;
        }
        let has_begun =
            !has_schedule || updates::by_id(tx, &id)?.is_some_and(|update| update.state.is_active());
        begun = begun.saturating_add(u64::from(has_begun));
    }
    Ok(Looked { has_more, next: opens_at })
}

fn noted(
    tx: &Tx<'_>,
    before: &Campaign,
    action: &'static str,
    detail: String,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let after = campaigns::by_name(tx, &before.name)?;
    let change = Change {
        action,
        object: format!("campaign/{}", before.name),
        detail: Some(detail),
        before: Some(before.audited()),
        after: after.as_ref().map(Campaign::audited),
    };
    audit::record(tx, &Actor::server(), change, now)
}

#[cfg(test)]
mod tests;
