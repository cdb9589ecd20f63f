//! Queries as people type them: what is wrong is shown where it stands, what is right with how many vehicles it selects.

use farrier_campaign::{EcuField, QueryError, Selection, VehicleField};

use super::format::number;
use super::texts::{Texts, filled};
use crate::api::Problem;
use crate::store::{Tx, selection};

/// Characters of a line that are shown on each side of what is wrong.
const SHOWN: usize = 60;

/// What is wrong with a query, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Of the line in question, up to the place.
    pub(super) before: String,
    /// What stands there; a sign for the end of the query where nothing does.
    pub(super) there: String,
    pub(super) after: String,
    /// What was expected, found, and where.
    pub(super) sentence: String,
}

impl Mark {
    pub(super) fn of(t: &Texts, query: &str, error: &QueryError) -> Self {
        let line = query.split('\n').nth(error.line.saturating_sub(1)).unwrap_or_default();
        // A tab would be shown wider than it is counted.
        let line: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let place = error.column.saturating_sub(1).min(line.len());
        let (before, rest) = line.split_at_checked(place).unwrap_or((&line, &[]));
        let is_word = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let word = rest.iter().take_while(|c| is_word(c)).count().max(1).min(rest.len());
        let (there, after) = rest.split_at_checked(word).unwrap_or((rest, &[]));
        let shown = before.get(before.len().saturating_sub(SHOWN)..).unwrap_or(before);
        Self {
            before: shown.iter().collect(),
            there: if there.is_empty() { t.query_end.to_owned() } else { there.iter().collect() },
            after: after.iter().take(SHOWN).collect(),
            sentence: filled(
                t.query_fault,
                &[&error.expected, &error.found, &error.line.to_string(), &error.column.to_string()],
            ),
        }
    }
}

/// Reads a query.
pub(super) fn read(t: &Texts, query: &str) -> Result<Selection, Mark> {
    query.parse().map_err(|error| Mark::of(t, query, &error))
}

/// What a query that is being typed comes to.
#[derive(Debug)]
pub(super) enum Selected {
    /// So many vehicles, and what the query means.
    Vehicles(String, Option<String>),
    Wrong(Mark),
    /// In words: what is missing.
    Nothing(String),
}

impl Selected {
    pub(super) fn of(tx: &Tx<'_>, selected: Result<Selection, Mark>) -> Result<Self, Problem> {
        Ok(match selected {
            Ok(selection) => {
                Self::Vehicles(number(selection::count(tx, &selection)?), Some(selection.explain()))
            }
            Err(mark) => Self::Wrong(mark),
        })
    }
}

/// The names of the language's fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Help;

impl Help {
    pub(super) fn vehicle_fields(&self) -> Vec<&'static str> {
        VehicleField::ALL.iter().map(|field| field.name()).chain(["tag"]).collect()
    }

    pub(super) fn ecu_fields(&self) -> Vec<&'static str> {
        EcuField::ALL.iter().map(|field| field.name()).collect()
    }

    /// Each with what it means.
    pub(super) fn examples(&self, t: &Texts) -> Vec<(&'static str, &'static str)> {
        EXAMPLES
            .into_iter()
            .zip([t.example_region, t.example_version, t.example_tag, t.example_vin])
            .collect()
    }
}

const EXAMPLES: [&str; 4] = [
    "region = \"KR\"",
    "ecu.hw_part_no = \"HW-PT-0001\" and ecu.sw_version < \"3.2.6\"",
    "tag in (\"pilot\", \"staff\") and not region = \"EU\"",
    "vin starts with \"KMH\" or vin is unknown",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::texts::ENGLISH;

    fn marked(query: &str) -> (String, String, String) {
        let mark = read(&ENGLISH, query).unwrap_err();
        (mark.before, mark.there, mark.after)
    }

    #[test]
    fn what_is_wrong_is_marked_where_it_stands() {
        let parts = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(marked("regoin = \"KR\""), parts("", "regoin", " = \"KR\""));
        assert_eq!(marked("region = \"KR\" and\n  tag == \"x\""), parts("  tag =", "=", " \"x\""));
        assert_eq!(marked("region ="), parts("region =", ENGLISH.query_end, ""));
        assert_eq!(marked("지역 = \"KR\"").1, "지역");
    }

    #[test]
    fn every_example_of_the_help_is_a_query() {
        for (example, _) in Help.examples(&ENGLISH) {
            assert!(read(&ENGLISH, example).is_ok(), "{example}");
        }
    }
}
