//! How versions are ordered: by a scheme that the release declares, never by a guess.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the versions of a release are written, and so which of two is the later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionScheme {
    /// Semantic Versioning 2.0.0: `1.4.0`, `1.4.0-rc.1`; what follows a `+` does not count.
    Semver,
    /// Numbers between dots, as many as there are: `3.12.07`. Numbers that are not there count as 0.
    Dotted,
    /// A day of the calendar: `2026-11-30`, `2026.11.30` or `20261130`.
    Date,
}

/// A version's place in the order of its scheme; versions of two schemes have no order that means anything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    numbers: Vec<Number>,
    stage: Stage,
}

/// A pre-release comes before its release (semver.org, rule 11.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    PreRelease(Vec<Identifier>),
    Release,
}

/// Numbers come before words (semver.org, rule 11.4.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(Number),
    Word(String),
}

/// A number of any length, as the count of its digits and its digits without leading zeros: so they sort.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Number(usize, String);

impl Number {
    fn padded(digits: &str) -> Option<Self> {
        if !is_number(digits) {
            return None;
        }
        let significant = digits.trim_start_matches('0');
        Some(Self(significant.len(), significant.to_owned()))
    }

    fn unpadded(digits: &str) -> Option<Self> {
        let is_padded = digits.len() > 1 && digits.starts_with('0');
        Self::padded(digits).filter(|_| !is_padded)
    }

    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl VersionScheme {
    /// The place of a version; `None` where it is not written by this scheme.
    pub fn parse(&self, text: &str) -> Option<Version> {
        match self {
            Self::Semver => semver(text),
            Self::Dotted => dotted(text),
            Self::Date => date(text),
        }
    }

    /// What its versions look like, for people.
    pub fn phrase(&self) -> &'static str {
        match self {
            Self::Semver => "a semantic version such as 1.4.0 or 1.4.0-rc.1",
            Self::Dotted => "numbers between dots such as 3.12.7",
            Self::Date => "a date such as 2026-11-30, 2026.11.30 or 20261130",
        }
    }
}

fn semver(text: &str) -> Option<Version> {
    let (precedence, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    if !build.is_none_or(|build| build.split('.').all(is_word)) {
        return None;
    }
    let (core, pre_release) = precedence.split_once('-').map_or((precedence, None), |(a, b)| (a, Some(b)));
    let numbers: Vec<_> = core.split('.').map(Number::unpadded).collect::<Option<_>>()?;
    let stage = match pre_release {
        None => Stage::Release,
        Some(identifiers) => {
            Stage::PreRelease(identifiers.split('.').map(identifier).collect::<Option<_>>()?)
        }
    };
    Some(Version { numbers, stage }).filter(|version| version.numbers.len() == 3)
}

fn identifier(text: &str) -> Option<Identifier> {
    if is_number(text) {
        Number::unpadded(text).map(Identifier::Number)
    } else {
        Some(text).filter(|text| is_word(text)).map(|word| Identifier::Word(word.to_owned()))
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn dotted(text: &str) -> Option<Version> {
    let mut numbers: Vec<_> = text.split('.').map(Number::padded).collect::<Option<_>>()?;
    while numbers.last().is_some_and(Number::is_zero) {
        numbers.pop();
    }
    Some(Version { numbers, stage: Stage::Release })
}

fn date(text: &str) -> Option<Version> {
    let parts = |separator| text.split(separator).collect::<Vec<_>>();
    let (year, month, day) = match (parts('-').as_slice(), parts('.').as_slice()) {
        ([year, month, day], [_]) | ([_], [year, month, day]) => (*year, *month, *day),
        ([digits], [_]) => (digits.get(..4)?, digits.get(4..6)?, digits.get(6..)?),
        (_, _) => return None,
    };
    let is_written_out = (year.len(), month.len(), day.len()) == (4, 2, 2);
    let all = [year, month, day];
    let numbers = all.into_iter().map(Number::padded).collect::<Option<_>>()?;
    let is_in_calendar = is_day(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    (is_written_out && is_in_calendar).then_some(Version { numbers, stage: Stage::Release })
}

fn is_day(year: u16, month: u8, day: u8) -> bool {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 0,
    };
    (1..=days).contains(&day)
}

#[cfg(test)]
mod tests;
