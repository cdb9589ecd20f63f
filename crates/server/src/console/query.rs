//! Queries as people type them: what is wrong is shown where it stands, what is right with how many vehicles it selects.

mod meaning;

use farrier_campaign::{EcuField, ExpectedInQuery, FoundInQuery, QueryError, Selection, VehicleField};

use super::format::number;
use super::texts::{QueryTexts, Texts, filled};
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
                &[
                    &expected(&t.of_queries, error.expected),
                    &found(&t.of_queries, &error.found),
                    &error.line.to_string(),
                    &error.column.to_string(),
                ],
            ),
        }
    }
}

/// What could have stood there, as `ExpectedInQuery` says it in English.
fn expected(q: &QueryTexts, expected: ExpectedInQuery) -> String {
    let text = match expected {
        ExpectedInQuery::Comparison => q.comparison,
        ExpectedInQuery::Field => {
            let names = Help.vehicle_fields().into_iter().chain(Help.ecu_fields());
            let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
            return filled(q.field, &[&names.join(", ")]);
        }
        ExpectedInQuery::Operator => q.operator,
        ExpectedInQuery::OperatorOfVersion => q.operator_of_version,
        ExpectedInQuery::QuotedText => q.quoted_text,
        // There is one rule for all texts of vehicles.
        ExpectedInQuery::ValidText(_) => q.valid_text,
        ExpectedInQuery::EndOfText => q.end_of_text,
        ExpectedInQuery::Escape => q.escape,
        ExpectedInQuery::Token => q.token,
        ExpectedInQuery::Version => q.version,
        ExpectedInQuery::ListOfTexts => q.list_of_texts,
        ExpectedInQuery::MoreTexts => q.more_texts,
        ExpectedInQuery::MoreOrClosing => q.more_or_closing,
        ExpectedInQuery::MoreOrEnd => q.more_or_end,
        ExpectedInQuery::NothingAfterAll => q.nothing_after_all,
        ExpectedInQuery::KnownOrUnknown => q.known_or_unknown,
        ExpectedInQuery::Keyword(word) => return format!("`{word}`"),
        ExpectedInQuery::EcuSideBySide => q.ecu_side_by_side,
        ExpectedInQuery::Bytes(most) => return filled(q.at_most_bytes, &[&most.to_string()]),
        ExpectedInQuery::CanonicalBytes(most) => {
            return filled(q.at_most_canonical_bytes, &[&most.to_string()]);
        }
        ExpectedInQuery::Depth(most) => return filled(q.at_most_depth, &[&most.to_string()]),
        ExpectedInQuery::Comparisons(most) => return filled(q.at_most_comparisons, &[&most.to_string()]),
    };
    text.to_owned()
}

/// What stands there, as `FoundInQuery` says it in English.
fn found(q: &QueryTexts, found: &FoundInQuery) -> String {
    match found {
        FoundInQuery::End => q.end.to_owned(),
        FoundInQuery::UnknownField { word, meant } => filled(q.unknown_field, &[word, meant]),
        FoundInQuery::Text(text) => filled(q.text, &[text]),
        FoundInQuery::Bytes(bytes) => filled(q.bytes, &[&bytes.to_string()]),
        FoundInQuery::EcuApart => q.ecu_apart.to_owned(),
        // What is quoted needs no words.
        FoundInQuery::Word(_)
        | FoundInQuery::Value(_)
        | FoundInQuery::Symbol(_)
        | FoundInQuery::Character(_)
        | FoundInQuery::Escaped(_) => found.to_string(),
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
    pub(super) fn of(tx: &Tx<'_>, t: &Texts, selected: Result<Selection, Mark>) -> Result<Self, Problem> {
        Ok(match selected {
            Ok(selection) => {
                let meaning = meaning::explained(&t.of_queries, &selection);
                Self::Vehicles(number(selection::count(tx, &selection)?), Some(meaning))
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
    use crate::console::texts::{ENGLISH, KOREAN};

    /// One for each thing that can be expected, and found.
    fn faulty() -> Vec<String> {
        let mut faulty: Vec<String> = [
            "",
            "\"KR\" = region",
            "regoin = \"KR\"",
            "colour = \"red\"",
            "region",
            "region < \"KR\"",
            "ecu.sw_version \"1\"",
            "ecu.sw_version < \"v3\"",
            "region = KR",
            "region = 'KR'",
            "region = \"KR",
            "region = \"K\\R\"",
            "region = \"\"",
            "region in \"KR\"",
            "region in (\"a\" \"b\")",
            "region not = \"a\"",
            "region starts \"a\"",
            "region is \"a\"",
            "(region = \"a\"",
            "region = \"a\")",
            "all and vin is known",
            "ecu.id = \"a\" and vin is known and ecu.zone = \"b\"",
        ]
        .map(str::to_owned)
        .into();
        faulty.push(format!("{}vin is known", "not ".repeat(40)));
        faulty.push(vec!["tag=\"a\""; 300].join("or "));
        faulty.push(format!("all{}", " ".repeat(5_000)));
        faulty.push(format!("tag in({}\"z\")", "\"abc\",".repeat(680)));
        faulty
    }

    #[test]
    fn what_is_wrong_is_said_in_english_as_the_campaign_says_it_and_in_korean_in_korean() {
        for query in faulty() {
            let error = query.parse::<Selection>().unwrap_err();
            let english =
                (expected(&ENGLISH.of_queries, error.expected), found(&ENGLISH.of_queries, &error.found));
            assert_eq!(english, (error.expected.to_string(), error.found.to_string()), "{query}");
            let said = read(&KOREAN, &query).unwrap_err().sentence;
            for word in [" or ", " and ", "a text", "the ", "at most", "nothing", "field", "bytes", "mean"] {
                assert!(!said.contains(word), "{said}");
            }
        }
    }

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
