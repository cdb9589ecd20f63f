//! Says in plain English which vehicles a selection has.

use super::write::{Quoted, listed};
use super::{EcuTest, Selection, TextTest, VehicleTest, VersionOrder};

impl Selection {
    /// The meaning in plain English: a first line, and below it one line for each thing that has to hold.
    pub fn explain(&self) -> String {
        if *self == Self::All {
            return "every vehicle".to_owned();
        }
        let (heading, parts) = match self.outline(true) {
            Outline::Line(line) => return format!("vehicles for which this holds:\n  {line}"),
            Outline::List { heading, parts } => (heading, parts),
        };
        let mut text = format!("vehicles for which {heading}:");
        for part in parts {
            part.explain_below(1, &mut text);
        }
        text
    }

    fn explain_below(&self, depth: usize, text: &mut String) {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
        match self.outline(true) {
            Outline::Line(line) => text.push_str(&line),
            Outline::List { heading, parts } => {
                text.push_str(heading);
                text.push(':');
                for part in parts {
                    part.explain_below(depth.saturating_add(1), text);
                }
            }
        }
    }

    /// What it means that this holds, or that it does not. A `not` disappears in what it is about.
    fn outline(&self, holds: bool) -> Outline<'_> {
        let line = match self {
            Self::All if holds => "it is any vehicle".to_owned(),
            Self::All => "it is no vehicle".to_owned(),
            Self::And(parts) => {
                let heading = if holds { "all of these hold" } else { "not all of these hold" };
                return Outline::List { heading, parts };
            }
            Self::Or(parts) => {
                let heading = if holds { "at least one of these holds" } else { "none of these holds" };
                return Outline::List { heading, parts };
            }
            Self::Not(part) => return part.outline(!holds),
            Self::Vehicle(test) => vehicle_phrase(test, holds),
            Self::Tag(test) => tag_phrase(test, holds),
            Self::HasEcu(tests) => {
                let phrases: Vec<String> = tests.iter().map(ecu_phrase).collect();
                format!("{} ECU has {}", if holds { "one" } else { "no" }, phrases.join(" and "))
            }
        };
        Outline::Line(line)
    }
}

/// One line, or a heading and what stands below it.
enum Outline<'s> {
    Line(String),
    List { heading: &'static str, parts: &'s [Selection] },
}

fn vehicle_phrase(test: &VehicleTest, holds: bool) -> String {
    let field = test.field.name();
    // A comparison needs a known value, so the opposite of one holds where there is none.
    let unknown = match (test.field.may_be_unknown(), holds) {
        (true, false) => ", or is unknown",
        (true, true) | (false, _) => "",
    };
    let known = if test.field.may_be_unknown() && holds { "known and " } else { "" };
    let is = |holds: bool| if holds { "is" } else { "is not" };
    match &test.test {
        TextTest::Is(text) => format!("{field} {} {}{unknown}", is(holds), Quoted(text.as_str())),
        TextTest::IsNot(text) if holds => format!("{field} is {known}not {}", Quoted(text.as_str())),
        TextTest::IsNot(text) => format!("{field} is {}{unknown}", Quoted(text.as_str())),
        TextTest::In(texts) => format!("{field} {} one of {}{unknown}", is(holds), listed(texts)),
        TextTest::NotIn(texts) if holds => format!("{field} is {known}not one of {}", listed(texts)),
        TextTest::NotIn(texts) => format!("{field} is one of {}{unknown}", listed(texts)),
        TextTest::StartsWith(text) => {
            let begins = if holds { "begins" } else { "does not begin" };
            format!("{field} {begins} with {}{unknown}", Quoted(text.as_str()))
        }
        TextTest::Known => format!("{field} is {}", known_or_unknown(holds)),
        TextTest::Unknown => format!("{field} is {}", known_or_unknown(!holds)),
    }
}

fn known_or_unknown(known: bool) -> &'static str {
    if known { "known" } else { "unknown" }
}

fn tag_phrase(test: &TextTest, holds: bool) -> String {
    let tag =
        |has: bool, text: &str| format!("it has {} tag {}", if has { "the" } else { "no" }, Quoted(text));
    let one_of = |has: bool, texts| {
        format!("it has {} of the tags {}", if has { "one" } else { "none" }, listed(texts))
    };
    let a = |has: bool| if has { "it has a tag" } else { "it has no tag" };
    match test {
        TextTest::Is(text) => tag(holds, text.as_str()),
        TextTest::IsNot(text) => tag(!holds, text.as_str()),
        TextTest::In(texts) => one_of(holds, texts),
        TextTest::NotIn(texts) => one_of(!holds, texts),
        TextTest::StartsWith(text) => format!("{} that begins with {}", a(holds), Quoted(text.as_str())),
        TextTest::Known => a(holds).to_owned(),
        TextTest::Unknown => a(!holds).to_owned(),
    }
}

fn ecu_phrase(test: &EcuTest) -> String {
    let bare = |name: &'static str| name.strip_prefix("ecu.").unwrap_or(name);
    match test {
        EcuTest::Text { field, test } => {
            let field = bare(field.name());
            match test {
                TextTest::Is(text) => format!("{field} {}", Quoted(text.as_str())),
                TextTest::IsNot(text) => format!("a known {field} other than {}", Quoted(text.as_str())),
                TextTest::In(texts) => format!("one of the {field}s {}", listed(texts)),
                TextTest::NotIn(texts) => format!("a known {field} other than {}", listed(texts)),
                TextTest::StartsWith(text) => format!("a {field} that begins with {}", Quoted(text.as_str())),
                TextTest::Known => format!("a known {field}"),
                TextTest::Unknown => format!("no known {field}"),
            }
        }
        EcuTest::Version { field, order, than } => {
            let order = match order {
                VersionOrder::Below => "below",
                VersionOrder::AtMost => "at most",
                VersionOrder::Above => "above",
                VersionOrder::AtLeast => "at least",
            };
            format!("{} {order} {}", bare(field.name()), than.as_str())
        }
    }
}
