//! How often and how much each certificate may: messages, octets, connections (token buckets), and bans.
//! Counts over reconnects. Owns no clock: the moment is handed in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farrier_protocol::Thumbprint;
use tokio::time::Instant;

use super::settings::MqttLimits;

/// What operators are told of a certificate, and refused messages that are stored: one in so long a time.
const BETWEEN_REPORTS: Duration = Duration::from_secs(10);
/// So many certificates are remembered before those at rest are looked for and forgotten.
const FEW: usize = 1024;

/// A token bucket, as the moment at which it will be full again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes so much, measured in the time in which it comes back; how long one had to wait for room otherwise.
    fn take(&mut self, cost: Duration, capacity: Duration, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + cost;
        let over = (full_at - now).saturating_sub(capacity);
        if over.is_zero() {
            self.full_at = full_at;
            return Ok(());
        }
        Err(over)
    }

    /// Takes so much even beyond what is there; how long to pause for it.
    fn charge(&mut self, cost: Duration, capacity: Duration, now: Instant) -> Duration {
        self.full_at = self.full_at.max(now) + cost;
        (self.full_at - now).saturating_sub(capacity)
    }
}

/// What becomes of a message by its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    /// It may come in.
    Kept,
    /// It is refused; `told` says whether the refusal is stored and the vehicle told why.
    Exceeded { told: bool },
    /// Refusing does not help: the connection is closed.
    Ignored,
}

/// What becomes of a connection by how often its certificate connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connecting {
    Allowed,
    /// Banned by this very attempt.
    BannedNow {
        remaining: Duration,
    },
    Banned {
        remaining: Duration,
    },
}

#[derive(Debug)]
struct Levels {
    messages: Bucket,
    refusals: Bucket,
    octets: Bucket,
    connects: Bucket,
    told: Bucket,
    reports: Bucket,
    banned_until: Option<Instant>,
}

impl Levels {
    fn is_at_rest(&self, now: Instant) -> bool {
        let buckets = [self.messages, self.refusals, self.octets, self.connects, self.told, self.reports];
        buckets.iter().all(|bucket| bucket.full_at <= now)
            && self.banned_until.is_none_or(|until| until <= now)
    }
}

/// What one certificate has used up.
#[derive(Debug)]
pub(super) struct Meter {
    rates: Arc<Rates>,
    levels: Mutex<Levels>,
}

/// The limits, as the times in which one of each comes back.
#[derive(Debug)]
struct Rates {
    per_message: Duration,
    message_burst: u32,
    rate_refusals: u32,
    per_kib: Duration,
    kib_burst: u32,
    per_connect: Duration,
    connects: u32,
    ban: Duration,
}

impl Meter {
    /// A connection is made; whoever makes too many is banned for a time.
    pub(super) fn connecting(&self, now: Instant) -> Connecting {
        let mut levels = locked(&self.levels);
        if let Some(until) = levels.banned_until.filter(|until| *until > now) {
            return Connecting::Banned { remaining: until - now };
        }
        let Rates { per_connect, connects, ban, .. } = *self.rates;
        match levels.connects.take(per_connect, per_connect * connects, now) {
            Ok(()) => Connecting::Allowed,
            Err(_) => {
                levels.banned_until = Some(now + ban);
                Connecting::BannedNow { remaining: ban }
            }
        }
    }

    /// A message came that can be refused.
    pub(super) fn message(&self, now: Instant) -> Rate {
        let mut levels = locked(&self.levels);
        let Rates { per_message, message_burst, rate_refusals, .. } = *self.rates;
        if levels.messages.take(per_message, per_message * message_burst, now).is_ok() {
            return Rate::Kept;
        }
        let second = Duration::from_secs(1);
        if levels.refusals.take(second, second * rate_refusals, now).is_err() {
            return Rate::Ignored;
        }
        Rate::Exceeded { told: levels.told.take(BETWEEN_REPORTS, BETWEEN_REPORTS, now).is_ok() }
    }

    /// A message came that cannot be refused without being lost: how long to read nothing after it.
    pub(super) fn message_that_must_be_taken(&self, now: Instant) -> Duration {
        let Rates { per_message, message_burst, .. } = *self.rates;
        locked(&self.levels).messages.charge(per_message, per_message * message_burst, now)
    }

    /// So many octets came: how long to read nothing after them.
    pub(super) fn octets(&self, octets: usize, now: Instant) -> Duration {
        let Rates { per_kib, kib_burst, .. } = *self.rates;
        let cost = per_kib.mul_f64(octets as f64 / 1024.0);
        locked(&self.levels).octets.charge(cost, per_kib * kib_burst, now)
    }

    /// Whether operators are to be told of something now; what repeats is not stored without end.
    pub(super) fn may_report(&self, now: Instant) -> bool {
        locked(&self.levels).reports.take(BETWEEN_REPORTS, BETWEEN_REPORTS, now).is_ok()
    }
}

/// The meters of all certificates that were seen lately.
#[derive(Debug)]
pub(super) struct Meters {
    rates: Arc<Rates>,
    of: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    meters: HashMap<Thumbprint, Arc<Meter>>,
    tidy_at: usize,
}

impl Meters {
    pub(super) fn new(limits: &MqttLimits) -> Self {
        let second = Duration::from_secs(1);
        let rates = Rates {
            per_message: second / limits.messages_per_second.max(1),
            message_burst: limits.message_burst,
            rate_refusals: limits.rate_refusals,
            per_kib: second / limits.kib_per_second.max(1),
            kib_burst: limits.kib_burst,
            per_connect: Duration::from_secs(60) / limits.connects_per_minute.max(1),
            connects: limits.connects_per_minute,
            ban: Duration::from_secs(limits.ban_s),
        };
        Self { rates: Arc::new(rates), of: Mutex::new(Seen { meters: HashMap::new(), tidy_at: FEW }) }
    }

    /// The meter of a certificate.
    pub(super) fn of(&self, thumbprint: &Thumbprint, now: Instant) -> Arc<Meter> {
        let mut seen = locked(&self.of);
        if let Some(meter) = seen.meters.get(thumbprint) {
            return Arc::clone(meter);
        }
        if seen.meters.len() >= seen.tidy_at {
            seen.meters
                .retain(|_, meter| Arc::strong_count(meter) > 1 || !locked(&meter.levels).is_at_rest(now));
            seen.tidy_at = FEW.max(seen.meters.len().saturating_mul(2));
        }
        let full = Bucket::full(now);
        let levels = Levels {
            messages: full,
            refusals: full,
            octets: full,
            connects: full,
            told: full,
            reports: full,
            banned_until: None,
        };
        let meter = Arc::new(Meter { rates: Arc::clone(&self.rates), levels: Mutex::new(levels) });
        seen.meters.insert(thumbprint.clone(), Arc::clone(&meter));
        meter
    }
}

/// A panic while the lock was held cannot leave these numbers half changed, so poisoning is ignored.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> MqttLimits {
        MqttLimits {
            messages_per_second: 10,
            message_burst: 5,
            rate_refusals: 3,
            kib_per_second: 100,
            kib_burst: 1000,
            connects_per_minute: 6,
            ban_s: 60,
            ..MqttLimits::default()
        }
    }

    fn meter(name: &str, meters: &Meters, now: Instant) -> Arc<Meter> {
        meters.of(&Thumbprint::of_certificate(name.as_bytes()), now)
    }

    #[test]
    fn a_burst_is_taken_and_then_so_many_a_second() {
        let now = Instant::now();
        let meter = meter("a", &Meters::new(&limits()), now);
        assert!((0..5).all(|_| meter.message(now) == Rate::Kept));
        assert_eq!(meter.message(now), Rate::Exceeded { told: true });
        assert_eq!(meter.message(now), Rate::Exceeded { told: false }, "told once in ten seconds");
        let later = now + Duration::from_millis(100);
        assert_eq!(meter.message(later), Rate::Kept);
        assert_eq!(meter.message(later), Rate::Exceeded { told: false });
        assert_eq!(meter.message(later), Rate::Ignored, "three refusals are the most");
        let much_later = now + Duration::from_secs(60);
        assert!((0..5).all(|_| meter.message(much_later) == Rate::Kept));
        assert_eq!(meter.message(much_later), Rate::Exceeded { told: true });
    }

    #[test]
    fn what_cannot_be_refused_makes_the_server_read_slower() {
        let now = Instant::now();
        let meter = meter("a", &Meters::new(&limits()), now);
        assert!((0..5).all(|_| meter.message_that_must_be_taken(now).is_zero()));
        assert_eq!(meter.message_that_must_be_taken(now), Duration::from_millis(100));
        assert_eq!(meter.message_that_must_be_taken(now), Duration::from_millis(200));
        assert!(meter.octets(1000 * 1024, now).is_zero());
        assert_eq!(meter.octets(50 * 1024, now), Duration::from_millis(500));
    }

    #[test]
    fn whoever_connects_too_often_is_banned_for_a_time_and_then_not_at_once_again() {
        let now = Instant::now();
        let meter = meter("a", &Meters::new(&limits()), now);
        assert!((0..6).all(|_| meter.connecting(now) == Connecting::Allowed));
        let minute = Duration::from_secs(60);
        assert_eq!(meter.connecting(now), Connecting::BannedNow { remaining: minute });
        let half = now + minute / 2;
        assert_eq!(meter.connecting(half), Connecting::Banned { remaining: minute / 2 });
        let after = now + minute;
        assert!((0..6).all(|_| meter.connecting(after) == Connecting::Allowed));
    }

    #[test]
    fn certificates_at_rest_are_forgotten_and_others_are_not() {
        let now = Instant::now();
        let meters = Meters::new(&limits());
        let kept = meter("kept", &meters, now);
        meter("banned", &meters, now);
        for _ in 0..7 {
            meter("banned", &meters, now).connecting(now);
        }
        for number in 0..FEW * 3 {
            meter(&number.to_string(), &meters, now);
        }
        let seen = locked(&meters.of);
        assert!(seen.meters.len() <= FEW, "{}", seen.meters.len());
        drop(seen);
        assert!(Arc::ptr_eq(&kept, &meter("kept", &meters, now)));
        assert!(matches!(meter("banned", &meters, now).connecting(now), Connecting::Banned { .. }));
    }
}
