//! Which types of changes somebody wants: names as `campaign.started`, or all below one as `campaign.*`.

use std::fmt;
use std::str::FromStr;

/// Patterns of one list.
const MOST_PATTERNS: usize = 32;
/// Characters of one pattern.
const MOST_CHARACTERS: usize = 64;

/// A list of patterns; a change is taken in where one of them fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangeTypes(Vec<String>);

impl ChangeTypes {
    /// What the types of a vehicle's steps begin with: there are many of them.
    pub(crate) const STEPS: &'static str = "vehicle_update.";
    /// Counters of campaigns, of which only the newest matter; told to streams, never kept.
    pub(crate) const PROGRESS: &'static str = "campaign.progress";

    /// Reads a list.
    pub(crate) fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let patterns: Vec<String> = patterns.into_iter().take(MOST_PATTERNS + 1).map(str::to_owned).collect();
        if patterns.is_empty() || patterns.len() > MOST_PATTERNS {
            return Err(format!("expected 1 to {MOST_PATTERNS} types, found {}", patterns.len()));
        }
        match patterns.iter().find(|pattern| !is_pattern(pattern)) {
            Some(found) => Err(format!(
                "expected types as campaign.started, campaign.* or *, at most {MOST_CHARACTERS} characters, found {found:?}"
            )),
            None => Ok(Self(patterns)),
        }
    }

    pub(crate) fn take_in(&self, kind: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => kind.starts_with(start),
            None => pattern == kind,
        })
    }

    /// Whether steps of vehicles may be among them.
    pub(crate) fn want_steps(&self) -> bool {
        self.0.iter().any(|pattern| pattern == "*" || pattern.starts_with(Self::STEPS))
    }

    pub(crate) fn patterns(&self) -> &[String] {
        &self.0
    }
}

/// Words of small letters, digits and `_` with a dot between them; the last may be `*`.
fn is_pattern(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let words = text.strip_suffix(".*").unwrap_or(text);
    text.len() <= MOST_CHARACTERS && (text == "*" || words.split('.').all(is_word))
}

impl FromStr for ChangeTypes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text.split(','))
    }
}

impl fmt::Display for ChangeTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_in_its_type_and_those_below_it() {
        let types: ChangeTypes = "campaign.*,vehicle.enrolled".parse().unwrap();
        for (kind, is_in) in [
            ("campaign.started", true),
            ("campaigns.started", false),
            ("vehicle.enrolled", true),
            ("vehicle.enrolled.twice", false),
            ("vehicle_update.succeeded", false),
        ] {
            assert_eq!(types.take_in(kind), is_in, "{kind}");
        }
        assert!(!types.want_steps());
        assert!("*".parse::<ChangeTypes>().unwrap().want_steps());
        assert!("vehicle_update.succeeded".parse::<ChangeTypes>().unwrap().want_steps());
    }

    #[test]
    fn what_is_no_pattern_is_refused_and_named() {
        for text in ["", "a,,b", "a*", "*.a", "a.*.b", "A", "a.", ".a", "**", "a b", "ä"] {
            let error = text.parse::<ChangeTypes>().unwrap_err();
            assert!(error.contains("campaign.*"), "{text}: {error}");
        }
        assert!(["a"; 33].join(",").parse::<ChangeTypes>().unwrap_err().contains("1 to 32"));
        assert!("a".repeat(65).parse::<ChangeTypes>().is_err());
    }
}
