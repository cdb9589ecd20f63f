//! A campaign over time, from its samples: how far its vehicles are, how quickly they end, and what went to them.

use farrier_campaign::WaveCounts;
use farrier_protocol::UnixMillis;

use crate::console::chart::{Chart, Plot, Series, Unit};
use crate::console::texts::Texts;
use crate::store::campaigns::{self, Campaign};
use crate::store::samples::{self, Counted};
use crate::store::{StoreError, Tx, traffic};

/// Samples that are read.
const MOST: i64 = 200;
/// Stretches of time over which it is counted how many ended.
const STRETCHES: i64 = 40;
const HOUR_MS: u128 = 3_600_000;

pub(super) fn charts(
    tx: &Tx<'_>,
    t: &'static Texts,
    campaign: &Campaign,
    now: UnixMillis,
) -> Result<Vec<Chart>, StoreError> {
    let Some(started_at) = campaign.started_at else { return Ok(Vec::new()) };
    let mut seen = samples::of_campaign(tx, &campaign.name, now, MOST)?;
    let waves = campaigns::wave_counts(tx, campaign)?;
    let all = waves.iter().fold(WaveCounts::default(), WaveCounts::with);
    let current = Counted::of(&waves, traffic::of_campaign(tx, &campaign.name)?);
    // What is over does not go on until now.
    if all.ended < all.vehicles || seen.last().is_none_or(|(_, last)| *last != current) {
        seen.push((now, current));
    }
    seen.retain(|(at, _)| *at > started_at);
    seen.insert(0, (started_at, Counted::default()));
    let times: Vec<_> = seen.iter().map(|(at, _)| *at).collect();
    let series = |name: &str, class, is_filled, value: &dyn Fn(&Counted) -> u64| Series {
        name: name.to_owned(),
        class,
        is_filled,
        values: seen.iter().map(|(_, counted)| Some(value(counted))).collect(),
    };
    let mut waiting = series(t.waiting, "idle", false, &|counted| counted.waiting);
    // Before the first vehicle was taken in nobody knows how many there will be.
    if let Some(first) = waiting.values.first_mut() {
        *first = None;
    }
    let progress = Plot {
        id: "progress-chart",
        title: t.progress_over_time,
        note: t.progress_note,
        unit: Unit::Number,
        times: times.clone(),
        series: vec![
            series(t.at_release, "ok", true, &|counted| counted.at_release),
            series(t.under_way, "run", false, &|counted| counted.under_way),
            series(t.failed, "bad", false, &|counted| counted.failed),
            waiting,
        ],
    };
    let ended: Vec<_> = seen.iter().map(|(at, counted)| (*at, counted.ended)).collect();
    let rates = per_hour(&ended);
    let throughput = Plot {
        id: "throughput-chart",
        title: t.throughput,
        note: t.throughput_note,
        unit: Unit::Number,
        times: rates.iter().map(|(at, _)| *at).collect(),
        series: vec![Series {
            name: t.ended_per_hour.to_owned(),
            class: "run",
            is_filled: true,
            values: rates.iter().map(|(_, rate)| Some(*rate)).collect(),
        }],
    };
    let bytes = Plot {
        id: "bytes-chart",
        title: t.bytes_over_time,
        note: t.bytes_note,
        unit: Unit::Bytes,
        times,
        series: vec![
            series(t.bytes_sent, "run", true, &|counted| counted.traffic.sent_bytes),
            series(t.bytes_whole, "idle", false, &|counted| counted.traffic.whole_bytes),
        ],
    };
    Ok([progress, throughput, bytes].into_iter().filter_map(|plot| plot.drawn(t)).collect())
}

/// How many ended per hour, in stretches of the same length, from how many had ended when. Where fewer had ended later, since
/// some were tried again, none did.
fn per_hour(ended: &[(UnixMillis, u64)]) -> Vec<(UnixMillis, u64)> {
    let (Some((from, _)), Some((until, _))) = (ended.first(), ended.last()) else { return Vec::new() };
    let stretch = (until.0.saturating_sub(from.0) / STRETCHES).max(1);
    let mut rates = vec![(*from, 0)];
    let mut begun = ended.first().copied();
    for (index, (at, number)) in ended.iter().enumerate() {
        let Some((since, before)) = begun else { break };
        let is_last = index.saturating_add(1) == ended.len();
        let span = at.0.saturating_sub(since.0);
        if span <= 0 || (span < stretch && !is_last) {
            continue;
        }
        let rate =
            u128::from(number.saturating_sub(before)) * HOUR_MS / u128::from(span.unsigned_abs().max(1));
        rates.push((*at, u64::try_from(rate).unwrap_or(u64::MAX)));
        begun = Some((*at, *number));
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_stretches_however_often_it_was_sampled() {
        let minutes = |minutes: i64| UnixMillis(minutes * 60_000);
        let steady: Vec<_> = (0..=400).map(|minute| (minutes(minute), minute as u64 * 2)).collect();
        let rates = per_hour(&steady);
        assert_eq!(rates.len(), 41);
        assert!(rates.iter().skip(1).all(|(_, rate)| *rate == 120), "{rates:?}");
        let retried = [(minutes(0), 0), (minutes(60), 10), (minutes(120), 4), (minutes(180), 8)];
        let rates: Vec<_> = per_hour(&retried).into_iter().map(|(_, rate)| rate).collect();
        assert_eq!(rates, [0, 10, 0, 4]);
        assert!(per_hour(&[]).is_empty());
    }
}
