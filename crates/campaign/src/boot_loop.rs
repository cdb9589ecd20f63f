//! Judges whether a vehicle is in a boot loop and how long it stays quarantined (protocol.md §4.1).
//! Leaves storing the reboots and asking whether a vehicle is still connected to the server.

use farrier_protocol::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::settings::BootLoopSettings;

/// One reboot, as a WakeUp told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reboot {
    /// When its WakeUp arrived, by the server's clock.
    pub seen_at: UnixMillis,
    /// Milliseconds that the vehicle had been up by then.
    pub uptime_ms: u64,
}

/// The newest reboots of a vehicle, oldest first; never more than the settings ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecentReboots(Vec<Reboot>);

impl RecentReboots {
    /// Adds a reboot and forgets those that no longer matter.
    pub fn add(&mut self, reboot: Reboot, settings: &BootLoopSettings) {
        self.0.push(reboot);
        let superfluous = self.0.len().saturating_sub(settings.reboots);
        self.0.drain(..superfluous);
    }

    /// Forgets all, as when an operator has released the vehicle: it gets a fresh start.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the newest reboots are a boot loop.
    pub fn are_a_loop(&self, settings: &BootLoopSettings) -> bool {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else {
            return false;
        };
        self.0.len() >= settings.reboots
            && last.seen_at <= first.seen_at.plus_seconds(settings.within_s)
            && self.0.iter().all(|reboot| reboot.uptime_ms < settings.uptime_below_s.saturating_mul(1000))
    }
}

/// When a quarantined vehicle, last heard with this uptime, will have been up long enough to be let go.
/// At or after this time it is let go if it is connected, or wakes up without having rebooted.
pub fn quarantine_ends_at(seen_at: UnixMillis, uptime_ms: u64, settings: &BootLoopSettings) -> UnixMillis {
    let needed_ms = settings.release_after_s.saturating_mul(1000).saturating_sub(uptime_ms);
    UnixMillis(seen_at.0.saturating_add_unsigned(needed_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reboots(times_s: &[i64], uptime_ms: u64) -> RecentReboots {
        let mut reboots = RecentReboots::default();
        for time in times_s {
            reboots.add(Reboot { seen_at: UnixMillis(time * 1000), uptime_ms }, &BootLoopSettings::default());
        }
        reboots
    }

    #[test]
    fn five_short_lived_boots_in_ten_minutes_are_a_loop() {
        assert!(reboots(&[0, 100, 200, 300, 600], 59_999).are_a_loop(&BootLoopSettings::default()));
    }

    #[test]
    fn fewer_slower_or_longer_lived_boots_are_none() {
        let settings = BootLoopSettings::default();
        assert!(!reboots(&[0, 1, 2, 3], 10).are_a_loop(&settings));
        assert!(!reboots(&[0, 100, 200, 300, 601], 10).are_a_loop(&settings));
        assert!(!reboots(&[0, 100, 200, 300, 400], 60_000).are_a_loop(&settings));
        assert!(!RecentReboots::default().are_a_loop(&settings));
    }

    #[test]
    fn only_the_newest_boots_count() {
        let old_then_quick = reboots(&[0, 10_000, 10_001, 10_002, 10_003, 10_004], 10);
        assert!(old_then_quick.are_a_loop(&BootLoopSettings::default()));
        assert_eq!(old_then_quick.0.len(), 5);
    }

    #[test]
    fn quarantine_ends_half_an_hour_after_the_boot() {
        let settings = BootLoopSettings::default();
        assert_eq!(quarantine_ends_at(UnixMillis(1_000_000), 40_000, &settings), UnixMillis(2_760_000));
        assert_eq!(quarantine_ends_at(UnixMillis(5), u64::MAX, &settings), UnixMillis(5));
    }
}
