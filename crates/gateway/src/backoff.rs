//! How long to wait before another try: exponential with full jitter (protocol.md §2, reconnect).

use std::time::Duration;

/// The bounds of the waits, and how many tries have failed in a row.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// `min` bounds the first wait, each further bound is twice the one before, up to `max`.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// The next wait: any duration up to the present bound, chosen by `random`.
    pub(crate) fn next_wait(&mut self, random: u64) -> Duration {
        let bound =
            self.min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(random.checked_rem(bound_ms.saturating_add(1)).unwrap_or(0))
    }

    /// A try succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Random bits for the jitter: vehicles that lost one server must not come back at one instant.
pub(crate) fn random_u64() -> u64 {
    let mut octets = [0; 8];
    // Without randomness the wait is zero for this vehicle; the bound of the next one still doubles.
    let _ = aws_lc_rs::rand::fill(&mut octets);
    u64::from_le_bytes(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_maximum_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));
        let bounds: Vec<u64> = (0..40)
            .map(|failures| {
                let bound_ms = if failures < 3 { 5_000 << failures } else { 30_000 };
                // The largest remainder is the bound itself.
                assert_eq!(backoff.next_wait(bound_ms), Duration::from_millis(bound_ms));
                bound_ms
            })
            .collect();
        assert_eq!(bounds[..5], [5_000, 10_000, 20_000, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.next_wait(5_001), Duration::ZERO);
    }

    #[test]
    fn a_wait_can_be_anything_up_to_the_bound() {
        let wait = |random| {
            Backoff::new(Duration::from_secs(5), Duration::from_secs(30)).next_wait(random).as_millis()
        };
        assert_eq!((wait(0), wait(2_500), wait(5_000)), (0, 2_500, 5_000));
    }
}
