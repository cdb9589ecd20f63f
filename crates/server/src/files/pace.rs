//! How quickly packages leave: a limit for the whole server process, and one for the vehicles of each campaign that has one.
//! Those who wait stand in one line per limit, so that each gets a little in turn; whoever leaves the line takes nothing with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farrier_protocol::Text;
use tokio::time::{Instant, sleep_until};

use crate::desk::CampaignLimit;

/// What a timer that fires late may catch up with.
const SLACK: Duration = Duration::from_millis(100);
/// The least and the most that is let through at a time, in bytes.
const SMALLEST_PORTION: u64 = 1024;
const LARGEST_PORTION: u64 = 512 * 1024;
/// Portions in a second, however few there are in the line.
const PORTIONS_PER_SECOND: u64 = 10;
/// Campaigns that are remembered before those are forgotten that nobody fetches for.
const MANY_CAMPAIGNS: usize = 64;

/// One limit. In any span of time there leave no more bytes than the limit lets, those of [`SLACK`], and one portion.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    in_line: AtomicU64,
    /// Until when what was let through keeps the line busy; its lock is the line, in the order of arrival.
    busy_until: tokio::sync::Mutex<Option<Instant>>,
}

/// A place in the line.
struct InLine<'a>(&'a AtomicU64);

impl<'a> InLine<'a> {
    fn of(pace: &'a Pace) -> Self {
        pace.in_line.fetch_add(1, Ordering::Relaxed);
        Self(&pace.in_line)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, in_line: AtomicU64::new(0), busy_until: tokio::sync::Mutex::new(None) }
    }

    /// How many bytes to ask for at a time: so many that everybody in the line comes to it within a second, where that is possible.
    fn portion(&self) -> u64 {
        let in_line = self.in_line.load(Ordering::Relaxed).saturating_add(1);
        (self.bytes_per_second / in_line.max(PORTIONS_PER_SECOND)).clamp(SMALLEST_PORTION, LARGEST_PORTION)
    }

    /// Waits until so many bytes may leave.
    async fn let_through(&self, bytes: u64) {
        let _place = InLine::of(self);
        let mut busy_until = self.busy_until.lock().await;
        if let Some(until) = *busy_until {
            sleep_until(until).await;
        }
        let now = Instant::now();
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let from = busy_until.map_or(now, |until| until.max(earliest));
        *busy_until = Some(from + self.takes(bytes));
    }

    fn takes(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000;
        let nanos = nanos.div_ceil(u128::from(self.bytes_per_second.max(1)));
        // No longer than the least portion at the least limit: a second; others are far from it.
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).min(600_000_000_000))
    }
}

/// The limits that one download keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Paced(Vec<Arc<Pace>>);

impl Paced {
    /// Waits until some of so many bytes may leave; says how many.
    pub(super) async fn let_through(&self, bytes: u64) -> u64 {
        let portion = self.0.iter().fold(bytes, |portion, pace| portion.min(pace.portion()));
        for pace in &self.0 {
            pace.let_through(portion).await;
        }
        portion
    }
}

/// The limits of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Paces {
    of_server: Option<Arc<Pace>>,
    of_campaigns: Mutex<HashMap<Text, Arc<Pace>>>,
}

impl Paces {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        let of_server = bytes_per_second.map(|limit| Arc::new(Pace::new(limit)));
        Self { of_server, of_campaigns: Mutex::default() }
    }

    /// The limits that a download for a campaign keeps, the campaign's own first.
    pub(super) fn of(&self, campaign: Option<&CampaignLimit>) -> Paced {
        let of_campaign = campaign.map(|limit| self.of_campaign(limit));
        Paced(of_campaign.into_iter().chain(self.of_server.clone()).collect())
    }

    fn of_campaign(&self, limit: &CampaignLimit) -> Arc<Pace> {
        let mut known = self.of_campaigns.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&limit.campaign) {
            Some(pace) if pace.bytes_per_second == limit.bytes_per_second => return Arc::clone(pace),
            Some(_) | None => {}
        }
        if known.len() >= MANY_CAMPAIGNS {
            // What was let through for a campaign keeps its line busy for a second or so.
            let now = Instant::now();
            known.retain(|_, pace| {
                let is_idle =
                    pace.busy_until.try_lock().is_ok_and(|until| until.is_none_or(|until| until < now));
                Arc::strong_count(pace) > 1 || !is_idle
            });
        }
        let pace = Arc::new(Pace::new(limit.bytes_per_second));
        known.insert(limit.campaign.clone(), Arc::clone(&pace));
        pace
    }
}

#[cfg(test)]
mod tests;
