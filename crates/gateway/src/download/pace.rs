//! How fast a download goes: at most as fast as the setting says, and not so slowly that it never ends.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::DownloadLimits;

/// A timer is late by up to a millisecond: shorter pauses would cost more than they hold back, and add up to one
/// that is worth it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Keeps a download below its bandwidth. Time in which nothing came is not saved up.
#[derive(Debug)]
pub(super) struct Pace {
    /// 0 = no bound.
    max_bytes_per_s: u64,
    free_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(limits: &DownloadLimits) -> Self {
        Self { max_bytes_per_s: limits.max_bytes_per_s, free_at: None }
    }

    /// When to read on after so many bytes came at `now`; `None` = at once.
    pub(super) fn go_on_at(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        if self.max_bytes_per_s == 0 {
            return None;
        }
        let took = Duration::from_secs_f64(bytes as f64 / self.max_bytes_per_s as f64);
        let free_at = self.free_at.filter(|free_at| *free_at > now).unwrap_or(now) + took;
        self.free_at = Some(free_at);
        (free_at - now >= SHORTEST_PAUSE).then_some(free_at)
    }
}

/// Notices a server that keeps the connection open but sends next to nothing.
#[derive(Debug)]
pub(super) struct MinimumRate {
    window: Duration,
    min_bytes: u64,
    ends: Instant,
    bytes: u64,
}

impl MinimumRate {
    pub(super) fn new(limits: &DownloadLimits, now: Instant) -> Self {
        let window = Duration::from_secs(limits.min_rate_window_s);
        let min_bytes = limits.min_bytes_per_s.saturating_mul(limits.min_rate_window_s);
        Self { window, min_bytes, ends: now + window, bytes: 0 }
    }

    /// When the present window ends.
    pub(super) fn window_ends(&self) -> Instant {
        self.ends
    }

    /// So many bytes came until `now`; whether that is too slow.
    pub(super) fn is_too_slow(&mut self, bytes: usize, now: Instant) -> bool {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if now < self.ends {
            return false;
        }
        let too_slow = self.bytes < self.min_bytes;
        (self.ends, self.bytes) = (now + self.window, 0);
        too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_bytes_per_s: u64, min_bytes_per_s: u64) -> DownloadLimits {
        DownloadLimits { max_bytes_per_s, min_bytes_per_s, min_rate_window_s: 10 }
    }

    #[test]
    fn a_download_is_held_to_its_bandwidth_and_saves_nothing_up() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(&limits(1_000, 0));
        assert_eq!(pace.go_on_at(2_000, start), Some(at(2)));
        assert_eq!(pace.go_on_at(3_000, start), Some(at(5)), "bytes that came too early count");
        assert_eq!(pace.go_on_at(1_000, at(100)), Some(at(101)), "silence gives no right to a burst");
    }

    #[test]
    fn a_download_pauses_only_for_what_a_timer_can_hold_back() {
        let start = Instant::now();
        assert_eq!(Pace::new(&limits(0, 0)).go_on_at(1_000_000, start), None);
        let mut pace = Pace::new(&limits(1_000, 0));
        assert_eq!(pace.go_on_at(6, start), None);
        assert_eq!(pace.go_on_at(6, start), Some(start + Duration::from_millis(12)), "short ones add up");
    }

    #[test]
    fn a_server_that_dribbles_is_too_slow_at_the_end_of_the_window() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut rate = MinimumRate::new(&limits(0, 100), start);
        assert!(!rate.is_too_slow(1, at(9)));
        assert!(rate.is_too_slow(998, at(10)), "999 of 1,000 bytes");
        assert_eq!(rate.window_ends(), at(20));
        assert!(!rate.is_too_slow(1_000, at(20)), "each window counts by itself");
        assert!(rate.is_too_slow(0, at(30)));
    }
}
