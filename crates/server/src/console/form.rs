//! Inputs with their labels, hints and faults, as all longer forms of the console show them (`field.html`).

use std::str::FromStr;

use super::objection::Objection;
use super::query::Mark;
use super::texts::{Texts, filled};

/// One input.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) hint: &'static str,
    pub(super) kind: Kind,
    pub(super) value: String,
    /// What is wrong with it.
    pub(super) fault: Option<Objection>,
    pub(super) mark: Option<Mark>,
    /// Of which choice in the same part of the form it is; empty where it is of any.
    pub(super) of_choice: &'static str,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Of so many characters at most; the values are proposals.
    Text(u32, Vec<String>),
    Number,
    /// A time of UTC.
    Instant,
    /// Several lines.
    Lines,
    /// Values, each with its words.
    Choice(Vec<(String, String)>),
    Tick,
}

impl Field {
    pub(super) fn new(name: impl Into<String>, label: impl Into<String>, kind: Kind, value: &str) -> Self {
        Self {
            name: name.into(),
            label: label.into(),
            hint: "",
            kind,
            value: value.to_owned(),
            fault: None,
            mark: None,
            of_choice: "",
        }
    }

    pub(super) fn text(name: impl Into<String>, label: impl Into<String>, value: &str) -> Self {
        Self::new(name, label, Kind::Text(64, Vec::new()), value)
    }

    pub(super) fn number(name: impl Into<String>, label: impl Into<String>, value: &str) -> Self {
        Self::new(name, label, Kind::Number, value)
    }

    pub(super) fn tick(name: impl Into<String>, label: impl Into<String>, is_on: bool) -> Self {
        Self::new(name, label, Kind::Tick, if is_on { "on" } else { "" })
    }

    pub(super) fn with_hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }

    pub(super) fn only_of(self, of_choice: &'static str) -> Self {
        Self { of_choice, ..self }
    }

    /// What describes it, by the ids of elements.
    pub(super) fn described_by(&self) -> String {
        let hint = (!self.hint.is_empty()).then(|| format!("{}-hint", self.name));
        let fault = self.fault.as_ref().map(|_| format!("{}-fault", self.name));
        hint.into_iter().chain(fault).collect::<Vec<_>>().join(" ")
    }
}

/// Characters of what was typed that are said again.
const SAID_AGAIN: usize = 40;

/// Reads what was typed; else says what was expected, and what was found.
pub(super) fn read<T: FromStr>(t: &Texts, typed: &str, expected: &str) -> Result<T, String> {
    let typed = typed.trim();
    typed.parse().map_err(|_| unfit(t, expected, typed))
}

/// What was expected, and what was found.
pub(super) fn unfit(t: &Texts, expected: &str, found: &str) -> String {
    let shown: String = found.chars().take(SAID_AGAIN).collect();
    match shown.is_empty() {
        true => filled(t.expected_nothing, &[expected]),
        false => filled(t.expected_found, &[expected, &shown]),
    }
}
