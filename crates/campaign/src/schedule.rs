//! When a vehicle's turn comes: its maintenance windows, the days of the campaign, and a moment of its own within its spread, so
//! that not all vehicles begin at once.

use farrier_protocol::{Sha256, Text, UnixMillis, VehicleId};

use crate::rollout::{InvalidRollout, Rollout};
use crate::vehicle_update::Block;
use crate::window::{OpenSpan, WINDOWS_AT_MOST, Zone, open_span, written};

/// The longest spread, in seconds: a day.
const LONGEST_SPREAD_S: u64 = 86_400;
/// Over how long vehicles are spread after the opening of a window, or the first day of a campaign, where nothing is said, in
/// seconds: thousands wait for it to the millisecond.
const USUAL_SPREAD_S: u64 = 60;
/// The fewest bytes per second that a campaign or a server may be held to: with less, downloads look like dead connections.
pub const LEAST_BYTES_PER_SECOND: u64 = 1024;
/// Where no window opens within the days that are looked at, it is looked again after so many seconds.
const LOOK_AGAIN_S: u64 = 86_400;

/// A vehicle that would begin.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its campaign.
    pub campaign: &'a Text,
    /// The vehicle.
    pub vehicle_id: &'a VehicleId,
    /// Its IANA time zone; the campaign's stands in for one that is not known.
    pub time_zone: Option<&'a str>,
    /// Since when its wave is open.
    pub opened_at: UnixMillis,
}

impl Candidate<'_> {
    /// Its part of the spread: the same one each time, and as good as random among the vehicles.
    fn share_of(&self, spread_ms: i64) -> i64 {
        let digest = Sha256::of(format!("turn/{}/{}", self.campaign, self.vehicle_id).as_bytes());
        let number =
            digest.as_bytes().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        match u64::try_from(spread_ms) {
            Ok(spread_ms) if spread_ms > 0 => i64::try_from(number % spread_ms).unwrap_or(0),
            Ok(_) | Err(_) => 0,
        }
    }
}

impl Rollout {
    /// Whether a vehicle may have to wait for a time.
    pub fn has_schedule(&self) -> bool {
        !self.windows.is_empty()
            || self.not_before.is_some()
            || self.not_after.is_some()
            || self.spread_s.is_some_and(|spread_s| spread_s > 0)
    }

    pub(crate) fn check_schedule(&self) -> Result<(), InvalidRollout> {
        let refused =
            |pointer: String, expected, found: String| Err(InvalidRollout { pointer, expected, found });
        if self.windows.len() > WINDOWS_AT_MOST {
            return refused("/windows".to_owned(), "at most 21 windows", self.windows.len().to_string());
        }
        for (index, window) in self.windows.iter().enumerate() {
            if let Some((at, expected, found)) = window.fault() {
                return refused(format!("/windows/{index}{at}"), expected, found);
            }
        }
        if let Some(name) = &self.time_zone
            && Zone::named(name.as_str()).is_none()
        {
            let expected = "the name of an IANA time zone, as Asia/Seoul";
            return refused("/time_zone".to_owned(), expected, name.to_string());
        }
        if let (Some(from), Some(to)) = (self.not_before, self.not_after)
            && to <= from
        {
            return refused("/not_after".to_owned(), "a time after not_before", written(to));
        }
        if let Some(found) = self.spread_s.filter(|spread_s| *spread_s > LONGEST_SPREAD_S) {
            return refused("/spread_s".to_owned(), "at most 86400 seconds", found.to_string());
        }
        if let Some(found) = self.bytes_per_second.filter(|limit| *limit < LEAST_BYTES_PER_SECOND) {
            let expected = "at least 1024 bytes per second, or no such key";
            return refused("/bytes_per_second".to_owned(), expected, found.to_string());
        }
        Ok(())
    }

    /// Why it is not the vehicle's turn yet, or any more; `None` where it may begin. What has a time is over at that time, and
    /// not before.
    pub fn not_its_turn(&self, candidate: &Candidate<'_>, now: UnixMillis) -> Option<Block> {
        if !self.has_schedule() {
            return None;
        }
        let first = self.not_before.map_or(candidate.opened_at, |time| time.max(candidate.opened_at));
        let earliest = now.max(first);
        let Some(span) = self.span(candidate, earliest) else {
            let until = earliest.plus_seconds(LOOK_AGAIN_S);
            return Some(Block::WindowClosed { opens_at: until, until });
        };
        let last = self.not_after.unwrap_or(UnixMillis(i64::MAX));
        if let Some(not_after) = self.not_after
            && span.from.max(earliest) >= last
        {
            return Some(Block::ScheduleOver { not_after });
        }
        let from = span.from.max(first);
        let room_ms = span.until.min(last).0.saturating_sub(from.0);
        let until = UnixMillis(
            from.0.saturating_add(candidate.share_of(self.spread_ms(candidate, from).min(room_ms))),
        );
        if until <= now {
            return None;
        }
        Some(match self.not_before {
            Some(not_before) if now < not_before && span.from <= not_before => {
                Block::ScheduleToBegin { not_before, until }
            }
            Some(_) | None if now < span.from => Block::WindowClosed { opens_at: span.from, until },
            Some(_) | None => Block::Spread { until },
        })
    }

    /// When the vehicle's windows are open, at this time or next.
    fn span(&self, candidate: &Candidate<'_>, at: UnixMillis) -> Option<OpenSpan> {
        if self.windows.is_empty() {
            return Some(OpenSpan { from: UnixMillis(i64::MIN), until: UnixMillis(i64::MAX) });
        }
        let of_campaign = || self.time_zone.as_ref().and_then(|name| Zone::named(name.as_str()));
        let zone = candidate.time_zone.and_then(Zone::named).or_else(of_campaign).unwrap_or_else(Zone::utc);
        open_span(&self.windows, &zone, at)
    }

    /// Over how long vehicles that may begin from this time on are spread.
    fn spread_ms(&self, candidate: &Candidate<'_>, from: UnixMillis) -> i64 {
        let usual = if from > candidate.opened_at { USUAL_SPREAD_S } else { 0 };
        let spread_s = self.spread_s.unwrap_or(usual).min(LONGEST_SPREAD_S);
        i64::try_from(spread_s.saturating_mul(1000)).unwrap_or(0)
    }

    /// When updates begin and how quickly packages leave, for people; `None` where nothing is said of it.
    pub fn schedule_sentence(&self) -> Option<String> {
        let mut parts = Vec::new();
        if !self.windows.is_empty() {
            let windows: Vec<_> = self.windows.iter().map(ToString::to_string).collect();
            let zone = self.time_zone.as_ref().map_or("UTC", |zone| zone.as_str());
            let windows = windows.join(" or ");
            parts.push(format!(
                "updates begin {windows} by the vehicle's clock ({zone} where it has no time zone)"
            ));
        }
        if let Some(time) = self.not_before {
            parts.push(format!("none begins before {}", written(time)));
        }
        if let Some(time) = self.not_after {
            parts.push(format!("none begins from {} on", written(time)));
        }
        if let Some(spread_s) = self.spread_s.filter(|spread_s| *spread_s > 0) {
            parts.push(format!("vehicles begin spread over {spread_s} s"));
        }
        if let Some(limit) = self.bytes_per_second {
            parts.push(format!("all vehicles together fetch {limit} bytes per second of a server at most"));
        }
        let mut sentence = parts.join("; ");
        let first = sentence.chars().next()?.to_uppercase().to_string();
        sentence.replace_range(..1, &first);
        Some(sentence + ".")
    }
}

#[cfg(test)]
mod tests;
