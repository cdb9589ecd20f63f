//! How a campaign goes out to its vehicles: waves, the rule that stops it, how many vehicles at once.
//! Judged by counters that are kept, never by going through the vehicles.

use farrier_protocol::{Text, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::retry_policy::RetryRule;
use crate::selection::Selection;
use crate::vehicle_update::Standing;
use crate::window::Window;

/// Waves of one campaign at most.
pub const WAVES_AT_MOST: usize = 100;

/// A span in which starts are counted, in ms.
const MINUTE_MS: i64 = 60_000;

/// How a campaign goes out. Without anything in it, all vehicles go at once, and the campaign stops at the first vehicle with
/// a mix of software.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rollout {
    /// In their order; none = one wave with all vehicles.
    #[schemars(length(max = 100))]
    pub waves: Vec<Wave>,
    /// What stops the campaign, by all its vehicles.
    pub stop: StopRule,
    /// Vehicles that are being updated at the same time, at most. A vehicle that is not ready is not counted.
    #[schemars(range(min = 1))]
    pub vehicles_at_once: Option<u64>,
    /// Vehicles whose update begins within one minute of the clock, at most.
    #[schemars(range(min = 1))]
    pub starts_per_minute: Option<u64>,
    /// When updates may begin, by the clock of each vehicle's time zone; none = always. An update whose StartDownload is sent
    /// goes on past the end of a window.
    #[schemars(length(max = 21))]
    pub windows: Vec<Window>,
    /// IANA time zone of vehicles without one, or with one that is not known; without it UTC.
    pub time_zone: Option<Text>,
    /// No update begins before this time, in ms since 1970.
    pub not_before: Option<UnixMillis>,
    /// From this time on no update begins any more, in ms since 1970; after `not_before`.
    pub not_after: Option<UnixMillis>,
    /// Vehicles begin at moments of their own within so many seconds after their wave or their window opens. Without it they are
    /// spread over a minute after a window opens or `not_before`, and not at all else.
    #[schemars(range(max = 86400))]
    pub spread_s: Option<u64>,
    /// All vehicles of the campaign together fetch so many bytes of packages per second from a server, at most.
    #[schemars(range(min = 1024))]
    pub bytes_per_second: Option<u64>,
    /// After which failures a vehicle is tried again by itself; none = an operator has to ask for it. A rule for the code of a
    /// failure goes before the one for `*`.
    #[schemars(length(max = 16))]
    pub retries: Vec<RetryRule>,
}

/// Vehicles that go together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// Which of the campaign's vehicles, or how many.
    pub size: WaveSize,
    /// What opens it, after the one before it is open; of the first one: after the start.
    #[serde(default)]
    pub opens: Opening,
    /// What stops the campaign, by the vehicles of this wave alone.
    #[serde(default)]
    pub stop: StopRule,
}

/// Which vehicles a wave has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaveSize {
    /// So many.
    Vehicles(u64),
    /// So many of a hundred of all vehicles of the campaign, rounded up.
    Percent(u8),
    /// Those that a query selects when the campaign starts, and those of them that it takes in later.
    Where(Selection),
    /// The same by the query that a fleet group has when the campaign is made; it stands in the group's place from then on.
    Group(Text),
    /// All that are left, and those that the campaign takes in later; of the last wave only.
    Rest,
}

/// What opens a wave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// Nothing has to happen; of the first wave.
    #[default]
    AtOnce,
    /// An operator.
    ByHand,
    /// Another operator than the one who started the campaign, by approving it.
    ByApproval,
    /// A time, in ms since 1970.
    At(UnixMillis),
    /// So many of a hundred of the vehicles of the wave before run the release; not counted are those that cannot get it
    /// and those whose update was cancelled.
    AfterSuccessPercent(u8),
}

/// What stops a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopRule {
    /// So many vehicles that failed: rolled back, silent beyond the deadline, or with a mix of software. A driver who does not
    /// consent is no failure.
    #[schemars(range(min = 1))]
    pub failures: Option<u64>,
    /// So many of a hundred of the vehicles.
    #[schemars(range(min = 1, max = 100))]
    pub failed_percent: Option<u8>,
    /// The first vehicle with a mix of software.
    pub inconsistent: bool,
}

impl Default for StopRule {
    fn default() -> Self {
        Self { failures: None, failed_percent: None, inconsistent: true }
    }
}

/// Why a rollout cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: expected {expected}, found {found}")]
pub struct InvalidRollout {
    /// JSON pointer to the value.
    pub pointer: String,
    /// What would have done.
    pub expected: &'static str,
    /// What is there.
    pub found: String,
}

/// How many vehicles of one wave are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaveCounts {
    /// All of them.
    pub vehicles: u64,
    /// Whose update is under way, so that it takes a place.
    pub under_way: u64,
    /// That run the release.
    pub at_release: u64,
    /// That failed: rolled back, silent, with a mix of software; also those of which an attempt failed and a later one has not
    /// ended yet.
    pub failed: u64,
    /// That have a mix of software; counted among the failed too.
    pub inconsistent: u64,
    /// That cannot get the release, or whose update was cancelled.
    pub left_out: u64,
    /// Whose update is over.
    pub ended: u64,
}

impl WaveCounts {
    /// Counts so many vehicles with this standing.
    pub fn add(&mut self, standing: Standing, vehicles: u64) {
        let mut count = |counter: fn(&mut Self) -> &mut u64| {
            let counter = counter(self);
            *counter = counter.saturating_add(vehicles);
        };
        count(|counts| &mut counts.vehicles);
        if standing.takes_a_place() {
            count(|counts| &mut counts.under_way);
        }
        if standing.is_final() {
            count(|counts| &mut counts.ended);
        }
        match standing {
            Standing::Succeeded | Standing::UpToDate => count(|counts| &mut counts.at_release),
            Standing::RolledBack | Standing::Unknown | Standing::Overdue => {
                count(|counts| &mut counts.failed)
            }
            Standing::Inconsistent => {
                count(|counts| &mut counts.failed);
                count(|counts| &mut counts.inconsistent);
            }
            Standing::Ineligible | Standing::Cancelled => count(|counts| &mut counts.left_out),
            Standing::Waiting
            | Standing::CollectingVci
            | Standing::CheckingReadiness
            | Standing::Deferred
            | Standing::Downloading
            | Standing::Installing
            | Standing::Committing
            | Standing::Verifying
            | Standing::RollingBack
            | Standing::Declined => {}
        }
    }

    /// Counts so many vehicles of which an attempt failed and a later one has not ended yet; they are counted by their
    /// standings too.
    pub fn add_failed_before(&mut self, vehicles: u64) {
        self.failed = self.failed.saturating_add(vehicles);
    }

    /// These and others together.
    #[must_use]
    pub fn with(self, other: &Self) -> Self {
        Self {
            vehicles: self.vehicles.saturating_add(other.vehicles),
            under_way: self.under_way.saturating_add(other.under_way),
            at_release: self.at_release.saturating_add(other.at_release),
            failed: self.failed.saturating_add(other.failed),
            inconsistent: self.inconsistent.saturating_add(other.inconsistent),
            left_out: self.left_out.saturating_add(other.left_out),
            ended: self.ended.saturating_add(other.ended),
        }
    }

    fn reaches(&self, percent: u8) -> bool {
        let counted = self.vehicles.saturating_sub(self.left_out);
        self.at_release.saturating_mul(100) >= counted.saturating_mul(percent.into())
    }
}

/// How far a campaign has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateRecord {
    /// How many waves are open.
    pub open: u32,
    /// Whether an operator has asked for the next one.
    pub open_next: bool,
    /// The last wave that a second person has approved, from 1; 0 = none.
    pub approved_wave: u32,
    /// Failures that an operator knew of when he resumed the stopped campaign, of each wave: they stop it no more.
    pub forgiven: Vec<WaveCounts>,
    /// The minute in which the last update began, counted from 1970.
    pub minute: i64,
    /// How many updates began in it.
    pub starts: u64,
    /// When each wave opened, from the first.
    pub opened_at: Vec<UnixMillis>,
}

/// What stopped a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StopReason {
    /// The wave, from 1; absent where it was the rule for all vehicles.
    pub wave: Option<u32>,
    /// Vehicles that failed, without those that were known when the campaign was resumed.
    pub failed: u64,
    /// Of them with a mix of software.
    pub inconsistent: u64,
    /// Of so many vehicles.
    pub vehicles: u64,
}

impl StopReason {
    /// The reason in one sentence.
    pub fn sentence(&self) -> String {
        let of = match self.wave {
            Some(wave) => format!("vehicles of wave {wave}"),
            None => "vehicles".to_owned(),
        };
        let Self { failed, inconsistent, vehicles, .. } = self;
        format!("{failed} of {vehicles} {of} failed, {inconsistent} of them with a mix of software.")
    }
}

/// Why no further update may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// So many are under way.
    AtOnce(u64),
    /// So many began in this minute; others may from then on.
    Minute(u64, UnixMillis),
}

impl Rollout {
    /// Whether it can be carried out.
    pub fn check(&self) -> Result<(), InvalidRollout> {
        let refused = |pointer: String, expected, found: &dyn std::fmt::Display| {
            Err(InvalidRollout { pointer, expected, found: found.to_string() })
        };
        if self.waves.len() > WAVES_AT_MOST {
            return refused("/waves".to_owned(), "at most 100 waves", &self.waves.len());
        }
        for (at, limit) in
            [("/vehicles_at_once", self.vehicles_at_once), ("/starts_per_minute", self.starts_per_minute)]
        {
            if limit == Some(0) {
                return refused(at.to_owned(), "at least 1, or no such key", &0);
            }
        }
        self.stop.check("/stop")?;
        self.check_schedule()?;
        self.check_retries()?;
        let last = self.waves.len().saturating_sub(1);
        for (index, wave) in self.waves.iter().enumerate() {
            let at = format!("/waves/{index}");
            wave.stop.check(&format!("{at}/stop"))?;
            match &wave.size {
                WaveSize::Vehicles(0) => return refused(format!("{at}/size"), "at least 1 vehicle", &0),
                WaveSize::Percent(found) if !(1..=100).contains(found) => {
                    return refused(format!("{at}/size"), "1 to 100 percent", found);
                }
                WaveSize::Rest if index != last => {
                    let expected =
                        "a number of vehicles, percent or a query: only the last wave has the rest";
                    return refused(format!("{at}/size"), expected, &"rest");
                }
                WaveSize::Vehicles(_) | WaveSize::Percent(_) | WaveSize::Where(_) | WaveSize::Group(_)
                    if index == last =>
                {
                    let expected = "rest: the last wave has all that are left";
                    return refused(format!("{at}/size"), expected, &"another size");
                }
                WaveSize::Vehicles(_)
                | WaveSize::Percent(_)
                | WaveSize::Where(_)
                | WaveSize::Group(_)
                | WaveSize::Rest => {}
            }
            match wave.opens {
                Opening::AtOnce if index > 0 => {
                    let expected =
                        "by_hand, by_approval, at or after_success_percent of a wave that is not the first";
                    return refused(format!("{at}/opens"), expected, &"at_once");
                }
                Opening::ByApproval if index == 0 => {
                    let expected =
                        "at_once, by_hand or at: the start of a campaign is approved by needs_approval";
                    return refused(format!("{at}/opens"), expected, &"by_approval");
                }
                Opening::AfterSuccessPercent(_) if index == 0 => {
                    let expected = "at_once, by_hand or at: there is no wave before the first";
                    return refused(format!("{at}/opens"), expected, &"after_success_percent");
                }
                Opening::AfterSuccessPercent(found) if !(1..=100).contains(&found) => {
                    return refused(format!("{at}/opens"), "1 to 100 percent", &found);
                }
                Opening::AtOnce
                | Opening::ByHand
                | Opening::ByApproval
                | Opening::At(_)
                | Opening::AfterSuccessPercent(_) => {}
            }
        }
        Ok(())
    }

    /// Whether anything but a stop can keep a vehicle from beginning.
    pub fn has_gate(&self) -> bool {
        !self.waves.is_empty() || self.has_limit()
    }

    /// Whether it matters how many others are under way.
    pub fn has_limit(&self) -> bool {
        self.vehicles_at_once.is_some() || self.starts_per_minute.is_some()
    }

    /// How many waves there are.
    pub fn wave_count(&self) -> u32 {
        u32::try_from(self.waves.len().max(1)).unwrap_or(u32::MAX)
    }

    /// The last place, counted from 1, of the vehicles of each wave among so many.
    pub fn wave_ends(&self, vehicles: u64) -> Vec<u64> {
        let mut end = 0_u64;
        let size = |wave: &Wave| match &wave.size {
            WaveSize::Vehicles(number) => *number,
            WaveSize::Percent(percent) => vehicles.saturating_mul(u64::from(*percent)).div_ceil(100),
            // Its vehicles are chosen, not counted off.
            WaveSize::Where(_) | WaveSize::Group(_) => 0,
            WaveSize::Rest => u64::MAX,
        };
        let ends = self.waves.iter().map(|wave| {
            end = end.saturating_add(size(wave));
            end
        });
        let ends: Vec<_> = ends.collect();
        if ends.is_empty() { vec![u64::MAX] } else { ends }
    }

    /// What stops the campaign, if anything does. `waves` has the counts of each wave, from the first.
    pub fn stop_reason(&self, waves: &[WaveCounts], record: &GateRecord) -> Option<StopReason> {
        let known = |index: usize| record.forgiven.get(index).copied().unwrap_or_default();
        let of_waves = waves.iter().zip(&self.waves).enumerate().find_map(|(index, (counts, wave))| {
            let number = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
            wave.stop.reason(Some(number), counts, &known(index))
        });
        let all = waves.iter().fold(WaveCounts::default(), WaveCounts::with);
        let all_known = record.forgiven.iter().fold(WaveCounts::default(), WaveCounts::with);
        of_waves.or_else(|| self.stop.reason(None, &all, &all_known))
    }

    /// Whether the next wave opens now.
    pub fn opens_next(&self, waves: &[WaveCounts], record: &GateRecord, now: UnixMillis) -> bool {
        let Some(index) = usize::try_from(record.open).ok() else { return false };
        if record.open >= self.wave_count() {
            return false;
        }
        match self.opening(index) {
            Opening::AtOnce => true,
            Opening::ByHand => record.open_next,
            Opening::ByApproval => record.approved_wave > record.open,
            Opening::At(time) => record.open_next || time <= now,
            Opening::AfterSuccessPercent(percent) => {
                let before = index.checked_sub(1).and_then(|before| waves.get(before));
                record.open_next || before.is_none_or(|before| before.reaches(percent))
            }
        }
    }

    /// What opens a wave, counted from 0.
    pub fn opening(&self, index: usize) -> Opening {
        self.waves.get(index).map_or(Opening::AtOnce, |wave| wave.opens)
    }

    /// When the next wave opens by the clock.
    pub fn opens_at(&self, record: &GateRecord) -> Option<UnixMillis> {
        match self.opening(usize::try_from(record.open).ok()?) {
            Opening::At(time) => Some(time),
            Opening::AtOnce | Opening::ByHand | Opening::ByApproval | Opening::AfterSuccessPercent(_) => None,
        }
    }

    /// How many more updates may begin now; else why none.
    pub fn room(&self, waves: &[WaveCounts], record: &GateRecord, now: UnixMillis) -> Result<u64, NoRoom> {
        let mut room = u64::MAX;
        if let Some(limit) = self.vehicles_at_once {
            let under_way = waves.iter().fold(0_u64, |sum, wave| sum.saturating_add(wave.under_way));
            room = limit.saturating_sub(under_way);
            if room == 0 {
                return Err(NoRoom::AtOnce(limit));
            }
        }
        if let Some(limit) = self.starts_per_minute {
            let minute = now.0.div_euclid(MINUTE_MS);
            let starts = if record.minute == minute { record.starts } else { 0 };
            room = room.min(limit.saturating_sub(starts));
            if room == 0 {
                let next = UnixMillis(minute.saturating_add(1).saturating_mul(MINUTE_MS));
                return Err(NoRoom::Minute(limit, next));
            }
        }
        Ok(room)
    }
}

impl GateRecord {
    /// Notes that the next wave opens.
    pub fn note_opening(&mut self, now: UnixMillis) {
        // Of waves that an earlier version opened nobody knows when.
        self.opened_at
            .resize(usize::try_from(self.open).unwrap_or(usize::MAX).min(WAVES_AT_MOST), UnixMillis(0));
        self.opened_at.push(now);
        self.open = self.open.saturating_add(1);
        self.open_next = false;
    }

    /// When a wave, counted from 1, opened; `None` where it has not, or nobody knows.
    pub fn opened_at(&self, wave: u32) -> Option<UnixMillis> {
        let index = usize::try_from(wave).ok()?.checked_sub(1)?;
        self.opened_at.get(index).copied()
    }

    /// Notes that an update begins.
    pub fn note_start(&mut self, now: UnixMillis) {
        let minute = now.0.div_euclid(MINUTE_MS);
        if self.minute != minute {
            (self.minute, self.starts) = (minute, 0);
        }
        self.starts = self.starts.saturating_add(1);
    }
}

impl StopRule {
    fn check(&self, at: &str) -> Result<(), InvalidRollout> {
        let refused = |key: &str, expected, found: String| {
            Err(InvalidRollout { pointer: format!("{at}/{key}"), expected, found })
        };
        if self.failures == Some(0) {
            return refused("failures", "at least 1, or no such key", "0".to_owned());
        }
        match self.failed_percent {
            Some(found) if !(1..=100).contains(&found) => {
                refused("failed_percent", "1 to 100, or no such key", found.to_string())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn reason(&self, wave: Option<u32>, counts: &WaveCounts, known: &WaveCounts) -> Option<StopReason> {
        let failed = counts.failed.saturating_sub(known.failed);
        let inconsistent = counts.inconsistent.saturating_sub(known.inconsistent);
        let is_too_many = self.failures.is_some_and(|limit| failed >= limit);
        let is_too_much = self.failed_percent.is_some_and(|percent| {
            failed > 0 && failed.saturating_mul(100) >= counts.vehicles.saturating_mul(percent.into())
        });
        let is_mixed = self.inconsistent && inconsistent > 0;
        let reason = StopReason { wave, failed, inconsistent, vehicles: counts.vehicles };
        (is_too_many || is_too_much || is_mixed).then_some(reason)
    }
}

#[cfg(test)]
mod tests;
