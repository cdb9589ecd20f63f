//! Samples over time of the fleet, its releases and campaigns: at most one a minute whatever number of servers shares the store,
//! and fewer as they age, so that their number is bounded.
//!
//! How many vehicles have which release is a definition that is cheap to keep: a vehicle has the release of the newest of its
//! updates that ended with it (`succeeded` or `up_to_date`). `updates::save` writes it beside the vehicle in the transaction in
//! which an update comes to such an end or leaves it, and here it is counted from an index, outside of any page. What a workshop
//! has installed meanwhile is not seen until a campaign looks at the vehicle again.

use std::collections::{BTreeMap, BTreeSet};

use farrier_campaign::WaveCounts;
use farrier_protocol::{Text, UnixMillis};

use super::traffic::{self, Traffic};
use super::{Row, StoreError, Tx, campaigns};

/// Releases that are kept of one time: those that most vehicles have.
const RELEASES: u32 = 20;
/// Campaigns that are sampled at one time.
const CAMPAIGNS: usize = 1_000;
/// Samples of one kind and age that are forgotten at a time.
const FORGOTTEN_AT_A_TIME: i64 = 5_000;
/// Samples that lie so far ahead were taken while the clock was wrong, in ms.
const AHEAD_MS: i64 = 10 * 60_000;

/// How coarse a sample is: it was the first of its minute, its quarter of an hour, and so on; the coarser, the longer it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Minute,
    Quarter,
    Hour,
    Day,
}

impl Step {
    pub(crate) const ALL: [Self; 4] = [Self::Minute, Self::Quarter, Self::Hour, Self::Day];

    fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Quarter => 900,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    pub(crate) fn ms(self) -> i64 {
        self.seconds().saturating_mul(1_000)
    }

    fn kept_ms(self) -> i64 {
        let days = match self {
            Self::Minute => 1,
            Self::Quarter => 14,
            Self::Hour => 100,
            Self::Day => 5 * 366,
        };
        Self::Day.ms().saturating_mul(days)
    }

    /// How coarse a sample is that follows another; `None` where they are of the same minute, or it lies before the other.
    pub(crate) fn after(last: Option<UnixMillis>, at: UnixMillis) -> Option<Self> {
        let Some(last) = last else { return Some(Self::Day) };
        let begins = |step: &Self| at.0.div_euclid(step.ms()) > last.0.div_euclid(step.ms());
        Self::ALL.into_iter().rev().find(begins)
    }

    /// The finest step of which no more than so many are within a span.
    pub(crate) fn for_span(span_ms: i64, most: i64) -> Self {
        Self::ALL.into_iter().find(|step| span_ms / step.ms() <= most).unwrap_or(Self::Day)
    }
}

macro_rules! select_counted {
    ($rest:literal) => {
        concat!(
            "SELECT at, at_release, under_way, failed, waiting, ended, sent_bytes, whole_bytes FROM campaign_sample ",
            $rest
        )
    };
}
/// What a campaign counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) at_release: u64,
    pub(crate) under_way: u64,
    pub(crate) failed: u64,
    /// Not over and not under way.
    pub(crate) waiting: u64,
    pub(crate) ended: u64,
    pub(crate) traffic: Traffic,
}

impl Counted {
    /// Now, from the counters that are kept.
    pub(crate) fn of(waves: &[WaveCounts], traffic: Traffic) -> Self {
        let all = waves.iter().fold(WaveCounts::default(), WaveCounts::with);
        Self {
            at_release: all.at_release,
            under_way: all.under_way,
            failed: all.failed,
            waiting: all.vehicles.saturating_sub(all.ended).saturating_sub(all.under_way),
            ended: all.ended,
            traffic,
        }
    }
}

/// What is to be written of a campaign.
#[derive(Debug)]
struct Looked {
    campaign: Text,
    counted: Counted,
    step: Step,
    /// Waves that are over since, and those that are not any more.
    over: Vec<u32>,
    not_over: Vec<u32>,
}

/// The fleet at one time, before it is written.
#[derive(Debug)]
pub(crate) struct Sample {
    at: UnixMillis,
    vehicles: u64,
    connected: u64,
    releases: Vec<(Text, u64)>,
    campaigns: Vec<Looked>,
}

fn last(tx: &Tx<'_>) -> Result<Option<UnixMillis>, StoreError> {
    Ok(tx.row("SELECT MAX(at) FROM fleet_sample", &[], |row| row.optional_time(0))?.flatten())
}

/// Looks at everything, with so many vehicles connected; `None` where this minute has its sample.
pub(crate) fn look(tx: &Tx<'_>, connected: u64, now: UnixMillis) -> Result<Option<Sample>, StoreError> {
    let at = UnixMillis(now.0.saturating_sub(now.0.rem_euclid(Step::Minute.ms())));
    let last = last(tx)?.filter(|last| last.0 <= at.0.saturating_add(AHEAD_MS));
    if Step::after(last, at).is_none() {
        return Ok(None);
    }
    let releases = tx.rows(
        "SELECT release_name, COUNT(*) FROM vehicle WHERE release_name IS NOT NULL GROUP BY release_name \
         ORDER BY 2 DESC, 1 LIMIT $1",
        &[i64::from(RELEASES).into()],
        |row| Ok((row.parsed(0, "a release name")?, row.count(1)?)),
    )?;
    let under_way: BTreeSet<Text> = campaigns::under_way(tx)?.into_iter().collect();
    let mut names = under_way.clone();
    if let Some(last) = last {
        // Whose end has no sample yet.
        let name = |row: &Row<'_>| row.parsed(0, "a campaign name");
        let sampled = "SELECT campaign_name FROM campaign_sample WHERE at = $1";
        names.extend(tx.rows(sampled, &[last.into()], name)?);
        let started = "SELECT name FROM campaign WHERE started_at >= $1";
        names.extend(tx.rows(started, &[last.into()], name)?);
    }
    let mut campaigns = Vec::new();
    for name in names.into_iter().take(CAMPAIGNS) {
        campaigns.extend(look_at(tx, &name, under_way.contains(&name), at)?);
    }
    let vehicles = super::fleet::vehicles(tx)?;
    Ok(Some(Sample { at, vehicles, connected, releases, campaigns }))
}

/// What a campaign counts, where there is something to write: one that is over has one last sample.
fn look_at(
    tx: &Tx<'_>,
    name: &Text,
    is_under_way: bool,
    at: UnixMillis,
) -> Result<Option<Looked>, StoreError> {
    let Some(campaign) = campaigns::by_name(tx, name)? else { return Ok(None) };
    let waves = campaigns::wave_counts(tx, &campaign)?;
    let counted = Counted::of(&waves, traffic::of_campaign(tx, name)?);
    let newest = tx.row(
        select_counted!("WHERE campaign_name = $1 ORDER BY at DESC LIMIT 1"),
        &[name.as_str().into()],
        read_counted,
    )?;
    let ends = wave_ends(tx, name)?;
    let is_over = |counts: &WaveCounts| {
        campaign.starting.is_none() && counts.vehicles > 0 && counts.ended == counts.vehicles
    };
    let (mut over, mut not_over) = (Vec::new(), Vec::new());
    for (wave, counts) in (1_u32..).zip(&waves) {
        match (is_over(counts), ends.contains_key(&wave)) {
            (true, false) => over.push(wave),
            (false, true) => not_over.push(wave),
            (true, true) | (false, false) => {}
        }
    }
    let is_new = newest.is_none_or(|(_, newest)| newest != counted);
    if !is_under_way && !is_new && over.is_empty() && not_over.is_empty() {
        return Ok(None);
    }
    let step = Step::after(newest.map(|(at, _)| at), at);
    // Its end is kept as long as anything is.
    let step = if is_under_way { step } else { step.map(|_| Step::Day) };
    Ok(step.map(|step| Looked { campaign: name.clone(), counted, step, over, not_over }))
}

/// Writes a sample, unless another server has written this minute's, and forgets the old; says whether it wrote.
pub(crate) fn keep(tx: &Tx<'_>, sample: &Sample) -> Result<bool, StoreError> {
    tx.lock("samples")?;
    let (at, ahead) = (sample.at, UnixMillis(sample.at.0.saturating_add(AHEAD_MS)));
    if last(tx)?.is_some_and(|last| last > ahead) {
        for sql in [
            "DELETE FROM fleet_sample WHERE at > $1",
            "DELETE FROM release_sample WHERE at > $1",
            "DELETE FROM campaign_sample WHERE at > $1",
        ] {
            tx.exec(sql, &[ahead.into()])?;
        }
    }
    let Some(step) = Step::after(last(tx)?, at) else { return Ok(false) };
    let of = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    tx.exec(
        "INSERT INTO fleet_sample (at, step_s, vehicles, connected) VALUES ($1, $2, $3, $4)",
        &[at.into(), step.seconds().into(), of(sample.vehicles).into(), of(sample.connected).into()],
    )?;
    for (release, vehicles) in &sample.releases {
        tx.exec(
            "INSERT INTO release_sample (at, release_name, step_s, vehicles) VALUES ($1, $2, $3, $4)",
            &[at.into(), release.as_str().into(), step.seconds().into(), of(*vehicles).into()],
        )?;
    }
    for looked in &sample.campaigns {
        let (name, counted) = (looked.campaign.as_str(), &looked.counted);
        tx.exec(
            "INSERT INTO campaign_sample (campaign_name, at, step_s, at_release, under_way, failed, waiting, ended, \
             sent_bytes, whole_bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[
                name.into(),
                at.into(),
                looked.step.seconds().into(),
                of(counted.at_release).into(),
                of(counted.under_way).into(),
                of(counted.failed).into(),
                of(counted.waiting).into(),
                of(counted.ended).into(),
                of(counted.traffic.sent_bytes).into(),
                of(counted.traffic.whole_bytes).into(),
            ],
        )?;
        for wave in &looked.over {
            tx.exec(
                "INSERT INTO campaign_wave_end (campaign_name, wave, at) VALUES ($1, $2, $3) \
                 ON CONFLICT (campaign_name, wave) DO NOTHING",
                &[name.into(), i64::from(*wave).into(), at.into()],
            )?;
        }
        for wave in &looked.not_over {
            let sql = "DELETE FROM campaign_wave_end WHERE campaign_name = $1 AND wave = $2";
            tx.exec(sql, &[name.into(), i64::from(*wave).into()])?;
        }
    }
    thin_out(tx, at)?;
    Ok(true)
}

/// Forgets samples that are too old for how coarse they are.
fn thin_out(tx: &Tx<'_>, now: UnixMillis) -> Result<(), StoreError> {
    for step in Step::ALL {
        let before = UnixMillis(now.0.saturating_sub(step.kept_ms()));
        for sql in [
            "DELETE FROM fleet_sample WHERE at IN (SELECT at FROM fleet_sample WHERE step_s = $1 AND at < $2 \
             ORDER BY at LIMIT $3)",
            "DELETE FROM release_sample WHERE (at, release_name) IN (SELECT at, release_name FROM release_sample \
             WHERE step_s = $1 AND at < $2 ORDER BY at LIMIT $3)",
            "DELETE FROM campaign_sample WHERE (campaign_name, at) IN (SELECT campaign_name, at FROM campaign_sample \
             WHERE step_s = $1 AND at < $2 ORDER BY at LIMIT $3)",
        ] {
            tx.exec(sql, &[step.seconds().into(), before.into(), FORGOTTEN_AT_A_TIME.into()])?;
        }
    }
    Ok(())
}

fn read_counted(row: &Row<'_>) -> Result<(UnixMillis, Counted), StoreError> {
    let counted = Counted {
        at_release: row.count(1)?,
        under_way: row.count(2)?,
        failed: row.count(3)?,
        waiting: row.count(4)?,
        ended: row.count(5)?,
        traffic: Traffic { sent_bytes: row.count(6)?, whole_bytes: row.count(7)? },
    };
    Ok((row.time(0)?, counted))
}

/// The samples of a campaign, oldest first: no more than about so many.
pub(crate) fn of_campaign(
    tx: &Tx<'_>,
    campaign: &Text,
    now: UnixMillis,
    most: i64,
) -> Result<Vec<(UnixMillis, Counted)>, StoreError> {
    let name = campaign.as_str();
    let first = tx.row(
        "SELECT at FROM campaign_sample WHERE campaign_name = $1 ORDER BY at LIMIT 1",
        &[name.into()],
        |row| row.time(0),
    )?;
    let Some(first) = first else { return Ok(Vec::new()) };
    let step = Step::for_span(now.0.saturating_sub(first.0), most);
    tx.rows(
        select_counted!("WHERE campaign_name = $1 AND step_s >= $2 ORDER BY at"),
        &[name.into(), step.seconds().into()],
        read_counted,
    )
}

/// The first sample of a campaign from a time on.
pub(crate) fn first_since(
    tx: &Tx<'_>,
    campaign: &Text,
    since: UnixMillis,
) -> Result<Option<(UnixMillis, Counted)>, StoreError> {
    tx.row(
        select_counted!("WHERE campaign_name = $1 AND at >= $2 ORDER BY at LIMIT 1"),
        &[campaign.as_str().into(), since.into()],
        read_counted,
    )
}

/// When the waves of a campaign were over that are.
pub(crate) fn wave_ends(tx: &Tx<'_>, campaign: &Text) -> Result<BTreeMap<u32, UnixMillis>, StoreError> {
    let ends = tx.rows(
        "SELECT wave, at FROM campaign_wave_end WHERE campaign_name = $1 ORDER BY wave",
        &[campaign.as_str().into()],
        |row| Ok((u32::try_from(row.integer(0)?).unwrap_or(u32::MAX), row.time(1)?)),
    )?;
    Ok(ends.into_iter().collect())
}

/// The fleet over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// When, how many vehicles there were, and how many of them were connected; oldest first.
    pub(crate) fleet: Vec<(UnixMillis, u64, u64)>,
    /// When how many vehicles had which release.
    pub(crate) releases: Vec<(UnixMillis, Text, u64)>,
}

/// The fleet from a time on, as no more than about so many samples.
pub(crate) fn of_fleet(
    tx: &Tx<'_>,
    since: UnixMillis,
    now: UnixMillis,
    most: i64,
) -> Result<History, StoreError> {
    let first = "SELECT at FROM fleet_sample WHERE at >= $1 ORDER BY at LIMIT 1";
    let Some(first) = tx.row(first, &[since.into()], |row| row.time(0))? else {
        return Ok(History::default());
    };
    let step = Step::for_span(now.0.saturating_sub(first.0), most);
    let mut history = History::default();
    // By their index, a step at a time: most samples are finer.
    for step in Step::ALL.into_iter().filter(|known| *known >= step) {
        let parameters = [step.seconds().into(), since.into()];
        history.fleet.extend(tx.rows(
            "SELECT at, vehicles, connected FROM fleet_sample WHERE step_s = $1 AND at >= $2 ORDER BY at",
            &parameters,
            |row| Ok((row.time(0)?, row.count(1)?, row.count(2)?)),
        )?);
        history.releases.extend(tx.rows(
            "SELECT at, release_name, vehicles FROM release_sample WHERE step_s = $1 AND at >= $2 ORDER BY at",
            &parameters,
            |row| Ok((row.time(0)?, row.parsed(1, "a release name")?, row.count(2)?)),
        )?);
    }
    history.fleet.sort_unstable_by_key(|(at, _, _)| *at);
    history.releases.sort_by_key(|(at, _, _)| *at);
    Ok(history)
}
