//! What each vehicle of a fleet does: decided by the seed and the vehicle's number alone, so that a run can be repeated.

use std::str::FromStr;
use std::time::Duration;

use farrier_protocol::Sha256;

/// A part of the whole, in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share(u32);

const WHOLE: u32 = 1_000_000;

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("expected 0 to 1 with at most six decimals, such as 0.05, found {text:?}");
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 6 {
            return Err(refused());
        }
        let whole: u32 = whole.parse().map_err(|_| refused())?;
        let millionths: u32 = format!("{decimals:0<6}").parse().map_err(|_| refused())?;
        match whole.saturating_mul(WHOLE).saturating_add(millionths) {
            share if share <= WHOLE => Ok(Self(share)),
            _ => Err(refused()),
        }
    }
}

/// How many of the vehicles do what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    pub(super) failing: Share,
    pub(super) silent: Share,
    pub(super) not_ready: Share,
    pub(super) away: Share,
}

impl Shares {
    /// Whether one vehicle cannot be meant to fail and to be silent.
    pub(super) fn fit(&self) -> bool {
        self.failing.0.saturating_add(self.silent.0) <= WHOLE
    }
}

/// What one vehicle does.
#[derive(Debug, Clone)]
pub(super) struct Nature {
    pub(super) outcome: Outcome,
    /// Says so when it is asked first, and is ready afterwards.
    pub(super) is_not_ready: bool,
    pub(super) away: Option<Away>,
    /// Says that it runs what it does not run. Only tests ask for such a vehicle.
    pub(super) lies: bool,
    /// How long its ECUs take to be written, and to be proven afterwards.
    pub(super) work: Duration,
}

/// What becomes of the update in the vehicle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Updates,
    /// An ECU fails while it is written: all run what they ran before.
    FailsWhileWriting,
    /// An ECU fails after all boot flags are swapped: all are brought back.
    FailsInTrial,
    /// The same, and not all can be brought back.
    FailsBetweenBanks,
    /// Nothing is heard of it any more, though its connection may stand.
    SilentForGood {
        stays_connected: bool,
    },
    /// Nothing is heard of it until so long after the update's deadline.
    SilentUntilLate {
        updates: bool,
        late_by: Duration,
    },
}

/// A break of the connection in the middle of the update.
#[derive(Debug, Clone, Copy)]
pub(super) struct Away {
    pub(super) after: Step,
    pub(super) reboots: bool,
    pub(super) lasts: Duration,
}

/// How far an update has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Ready,
    Downloaded,
    Installed,
    Committed,
}

impl Nature {
    /// The nature of the vehicle with this number.
    pub(super) fn of(seed: u64, number: u32, shares: Shares) -> Self {
        let number_of = |what: &str| hashed(seed, number, what);
        let part = |what: &str| u32::try_from(number_of(what) % u64::from(WHOLE)).unwrap_or_default();
        let within = |what: &str, least_ms: u64, most_ms: u64| {
            let width = most_ms.saturating_sub(least_ms).saturating_add(1);
            Duration::from_millis(least_ms.saturating_add(number_of(what) % width))
        };
        let (outcome, kind) = (part("outcome"), number_of("kind"));
        let outcome = if outcome < shares.failing.0 {
            match kind % 4 {
                0 => Outcome::FailsInTrial,
                1 => Outcome::FailsBetweenBanks,
                _ => Outcome::FailsWhileWriting,
            }
        } else if outcome < shares.failing.0.saturating_add(shares.silent.0) {
            match kind % 4 {
                0 => Outcome::SilentForGood { stays_connected: true },
                1 => Outcome::SilentForGood { stays_connected: false },
                kind => {
                    Outcome::SilentUntilLate { updates: kind == 2, late_by: within("late", 1_000, 30_000) }
                }
            }
        } else {
            Outcome::Updates
        };
        let away = (part("away") < shares.away.0).then(|| Away {
            after: match number_of("away after") % 4 {
                0 => Step::Ready,
                1 => Step::Downloaded,
                2 => Step::Installed,
                _ => Step::Committed,
            },
            reboots: number_of("reboots").is_multiple_of(2),
            lasts: within("away for", 1_000, 8_000),
        });
        let is_not_ready = part("not ready") < shares.not_ready.0;
        Self { outcome, is_not_ready, away, lies: false, work: within("work", 200, 1_500) }
    }
}

fn hashed(seed: u64, number: u32, what: &str) -> u64 {
    let digest = Sha256::of(format!("{seed}/{number}/{what}").as_bytes());
    digest.as_bytes().iter().take(8).fold(0, |value, octet| (value << 8) | u64::from(*octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(share: &str) -> Shares {
        let share = share.parse().unwrap();
        Shares { failing: share, silent: share, not_ready: share, away: share }
    }

    #[test]
    fn a_share_is_written_as_a_part_of_one() {
        for (text, share) in [("0", 0), ("1", WHOLE), ("0.05", 50_000), ("0.000001", 1), ("1.0", WHOLE)] {
            assert_eq!(text.parse(), Ok(Share(share)), "{text}");
        }
        for text in ["", "1.1", "-0.1", "5 %", "0.0000001", ".", "2"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_seed_decides_and_the_shares_hold() {
        let of = |seed| (0..4_000).map(|number| Nature::of(seed, number, shares("0.25"))).collect::<Vec<_>>();
        let (one, again, other) = (of(1), of(1), of(2));
        assert_eq!(format!("{one:?}"), format!("{again:?}"));
        assert_ne!(format!("{one:?}"), format!("{other:?}"));
        let about_a_quarter = |what: fn(&Nature) -> bool| {
            let count = one.iter().filter(|nature| what(nature)).count();
            assert!((850..1_150).contains(&count), "{count}");
        };
        about_a_quarter(|nature| nature.is_not_ready);
        about_a_quarter(|nature| nature.away.is_some());
        about_a_quarter(|nature| {
            matches!(
                nature.outcome,
                Outcome::FailsWhileWriting | Outcome::FailsInTrial | Outcome::FailsBetweenBanks
            )
        });
        about_a_quarter(|nature| {
            matches!(nature.outcome, Outcome::SilentForGood { .. } | Outcome::SilentUntilLate { .. })
        });
        assert!(of(1).iter().all(|nature| !nature.lies));
        assert!(shares("0.5").fit() && !shares("0.6").fit());
    }
}
