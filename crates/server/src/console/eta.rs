//! When a campaign will be done, as far as anything speaks for it: as quickly as its vehicles ended lately.

use farrier_campaign::WaveCounts;
use farrier_protocol::{Text, UnixMillis};

use super::format::{number, span};
use super::texts::{Texts, filled};
use crate::store::campaigns::Campaign;
use crate::store::{StoreError, Tx, samples};

/// What is looked back on, the nearest first: an hour, a day, a week.
const WINDOWS_MS: [i64; 3] = [3_600_000, 86_400_000, 7 * 86_400_000];
/// Over less time, or from fewer vehicles, nothing is foretold: 2 min.
const SHORTEST_MS: i64 = 120_000;
const FEWEST: u64 = 5;
/// What would take longer is not foretold either: a year.
const LONGEST_MS: i64 = 365 * 86_400_000;

/// So many vehicles had ended at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Earlier {
    at: UnixMillis,
    ended: u64,
}

/// When it will be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eta {
    /// About so much later.
    In {
        left_ms: i64,
        remaining: u64,
        /// So many ended in so much time.
        ended: u64,
        within_ms: i64,
    },
    /// All that may begin have ended.
    Done,
    /// It does not go on.
    Halted,
    /// Too few have ended lately.
    Unknown,
}

/// Estimates by the first of the earlier counts that says enough.
fn estimate(goes_on: bool, remaining: u64, ended: u64, earlier: &[Earlier], now: UnixMillis) -> Eta {
    if remaining == 0 {
        return Eta::Done;
    }
    if !goes_on {
        return Eta::Halted;
    }
    let basis = earlier.iter().find_map(|earlier| {
        let within_ms = now.0.saturating_sub(earlier.at.0);
        let ended = ended.saturating_sub(earlier.ended);
        (within_ms >= SHORTEST_MS && ended >= FEWEST).then_some((ended, within_ms))
    });
    let Some((ended, within_ms)) = basis else { return Eta::Unknown };
    let left = u128::from(remaining) * u128::from(within_ms.unsigned_abs()) / u128::from(ended.max(1));
    match i64::try_from(left) {
        Ok(left_ms) if left_ms <= LONGEST_MS => Eta::In { left_ms, remaining, ended, within_ms },
        Ok(_) | Err(_) => Eta::Unknown,
    }
}

/// Whether the vehicles of a wave may begin.
pub(super) fn is_open(campaign: &Campaign, wave: u32) -> bool {
    match campaign.rollout.has_gate() {
        true => wave <= campaign.gate.open,
        false => campaign.started_at.is_some(),
    }
}

/// When the vehicles of the open waves will have ended, and how many there are in the others: nothing is foretold of those that
/// somebody has yet to let begin.
pub(super) fn of_open_waves(
    tx: &Tx<'_>,
    campaign: &Campaign,
    waves: &[WaveCounts],
    goes_on: bool,
    now: UnixMillis,
) -> Result<(Eta, u64), StoreError> {
    let (mut ended, mut remaining, mut not_open) = (0_u64, 0_u64, 0_u64);
    for (wave, counts) in (1_u32..).zip(waves) {
        let left = counts.vehicles.saturating_sub(counts.ended);
        let to = if is_open(campaign, wave) { &mut remaining } else { &mut not_open };
        *to = to.saturating_add(left);
        ended = ended.saturating_add(counts.ended);
    }
    if campaign.started_at.is_none() || (remaining == 0 && not_open > 0) {
        return Ok((Eta::Halted, not_open));
    }
    Ok((estimate(goes_on, remaining, ended, &earlier(tx, campaign, now)?, now), not_open))
}

/// What a campaign counted within each of the windows, its beginning too.
fn earlier(tx: &Tx<'_>, campaign: &Campaign, now: UnixMillis) -> Result<Vec<Earlier>, StoreError> {
    let Some(started_at) = campaign.started_at else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for window in WINDOWS_MS {
        let since = UnixMillis(now.0.saturating_sub(window));
        if started_at >= since {
            all.push(Earlier { at: started_at, ended: 0 });
            return Ok(all);
        }
        all.extend(first(tx, &campaign.name, since)?);
    }
    Ok(all)
}

fn first(tx: &Tx<'_>, campaign: &Text, since: UnixMillis) -> Result<Option<Earlier>, StoreError> {
    let found = samples::first_since(tx, campaign, since)?;
    Ok(found.map(|(at, counted)| Earlier { at, ended: counted.ended }))
}

impl Eta {
    /// `about 3 h 20 min`
    pub(super) fn short(self, t: &Texts) -> String {
        match self {
            Self::In { left_ms, .. } => filled(t.eta_about, &[&rounded(t, left_ms)]),
            Self::Done => t.eta_done.to_owned(),
            Self::Halted => t.eta_halted.to_owned(),
            Self::Unknown => t.eta_unknown.to_owned(),
        }
    }

    /// The same with what it goes by.
    pub(super) fn sentence(self, t: &Texts) -> String {
        match self {
            Self::In { remaining, ended, within_ms, .. } => filled(
                t.eta_basis,
                &[&self.short(t), &number(remaining), &number(ended), &rounded(t, within_ms)],
            ),
            Self::Done => t.eta_done_why.to_owned(),
            Self::Halted => t.eta_halted_why.to_owned(),
            Self::Unknown => t.eta_unknown_why.to_owned(),
        }
    }
}

/// As exact as an estimate may be: to the minute below an hour, then to ten, from two days on to hours.
pub(super) fn rounded(t: &Texts, ms: i64) -> String {
    const MINUTE: i64 = 60_000;
    let to = match ms {
        ..3_600_000 => MINUTE,
        3_600_000..172_800_000 => 10 * MINUTE,
        _ => 60 * MINUTE,
    };
    let rounded = ms.saturating_add(to / 2) / to * to;
    // A zero behind the larger unit says nothing.
    let text = span(t, rounded.max(MINUTE));
    let zero = [t.seconds, t.minutes, t.hours].map(|unit| format!(" 0{}{unit}", t.before_units));
    zero.iter().find_map(|zero| text.strip_suffix(zero.as_str())).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::console::texts::ENGLISH;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn ago(minutes: i64, ended: u64) -> Earlier {
        Earlier { at: UnixMillis(NOW.0 - minutes * 60_000), ended }
    }

    fn told(remaining: u64, ended: u64, earlier: &[Earlier]) -> String {
        estimate(true, remaining, ended, earlier, NOW).sentence(&ENGLISH)
    }

    #[test]
    fn it_says_what_it_goes_by() {
        assert_eq!(
            told(410, 620, &[ago(60, 500)]),
            "about 3 h 30 min: 410 vehicles remain, 120 ended in the last 1 h"
        );
        assert_eq!(told(3, 20, &[ago(4, 10)]), "about 1 min: 3 vehicles remain, 10 ended in the last 4 min");
        assert_eq!(
            told(50_000, 2_000, &[ago(60, 1_999), ago(1_440, 1_000)]),
            "about 50 d: 50,000 vehicles remain, 1,000 ended in the last 1 d"
        );
    }

    #[test]
    fn it_foretells_nothing_where_nothing_speaks_for_it() {
        let eta = |goes_on, remaining, earlier: &[Earlier]| estimate(goes_on, remaining, 10, earlier, NOW);
        assert_eq!(eta(true, 0, &[ago(60, 0)]), Eta::Done);
        assert_eq!(eta(false, 5, &[ago(60, 0)]), Eta::Halted);
        assert_eq!(eta(true, 5, &[]), Eta::Unknown);
        assert_eq!(eta(true, 5, &[ago(60, 6)]), Eta::Unknown, "four have ended");
        assert_eq!(eta(true, 5, &[ago(1, 0)]), Eta::Unknown, "in a minute");
        assert_eq!(eta(true, 5, &[ago(60, 11)]), Eta::Unknown, "fewer than before: some were tried again");
        assert_eq!(eta(true, 10_000_000, &[ago(60, 0)]), Eta::Unknown, "a hundred years");
    }

    proptest! {
        #[test]
        fn more_vehicles_take_no_less_time_and_a_quicker_campaign_no_more(
            remaining in 1_u64..10_000_000,
            more in 0_u64..1_000_000,
            minutes in 2_i64..20_000,
            before in 0_u64..1_000_000,
            ended in 5_u64..1_000_000,
            quicker in 0_u64..1_000_000,
        ) {
            let left = |remaining, ended| match estimate(true, remaining, before + ended, &[ago(minutes, before)], NOW) {
                Eta::In { left_ms, .. } => left_ms,
                Eta::Done | Eta::Halted => -1,
                Eta::Unknown => i64::MAX,
            };
            let own = left(remaining, ended);
            prop_assert!(own >= 0);
            prop_assert!(left(remaining + more, ended) >= own);
            prop_assert!(left(remaining, ended + quicker) <= own);
        }
    }
}
