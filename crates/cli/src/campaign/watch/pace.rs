//! How fast a campaign goes, and how long the rest takes at this pace. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The pace is that of so long a time.
const WINDOW: Duration = Duration::from_secs(120);

/// Of a shorter time nothing can be said.
const SHORTEST: Duration = Duration::from_secs(10);

/// How many vehicles were done when.
#[derive(Default)]
pub(super) struct Samples(VecDeque<(Instant, u64)>);

/// How many vehicles have ended in how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) ended: u64,
    pub(super) within: Duration,
}

impl Samples {
    pub(super) fn note(&mut self, at: Instant, ended: u64) {
        while self.0.front().is_some_and(|(first, _)| at.duration_since(*first) > WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back((at, ended));
    }

    pub(super) fn pace(&self) -> Option<Pace> {
        let ((begin, before), (end, after)) = (self.0.front()?, self.0.back()?);
        let within = end.duration_since(*begin);
        // Fewer than before: a retry has taken some back.
        (within >= SHORTEST).then(|| Pace { ended: after.saturating_sub(*before), within })
    }
}

impl Pace {
    /// Vehicles in a minute.
    pub(super) fn per_minute(self) -> f64 {
        self.ended as f64 * 60.0 / self.within.as_secs_f64()
    }

    /// How long so many more take; nothing where none has ended.
    pub(super) fn left(self, vehicles: u64) -> Option<Duration> {
        let millis = u64::try_from(self.within.as_millis()).ok()?;
        Some(Duration::from_millis(millis.saturating_mul(vehicles).checked_div(self.ended)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_two_minutes() {
        let began = Instant::now();
        let mut samples = Samples::default();
        for second in 0..=300 {
            // 1 in a second at first, 2 in a second from the second minute on.
            let ended = second + u64::saturating_sub(second, 60);
            samples.note(began + Duration::from_secs(second), ended);
        }
        let pace = samples.pace().unwrap();
        assert_eq!(pace, Pace { ended: 240, within: Duration::from_secs(120) });
        assert!((pace.per_minute() - 120.0).abs() < 1e-9);
        assert_eq!(pace.left(20), Some(Duration::from_secs(10)));
    }

    #[test]
    fn nothing_is_said_of_a_short_time_nor_of_a_standstill() {
        let began = Instant::now();
        let mut samples = Samples::default();
        samples.note(began, 5);
        assert_eq!(samples.pace(), None);
        samples.note(began + Duration::from_secs(20), 3);
        let pace = samples.pace().unwrap();
        assert_eq!(pace.ended, 0);
        assert_eq!(pace.left(10), None);
    }
}
