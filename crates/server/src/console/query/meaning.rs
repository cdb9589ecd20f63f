//! What a query means, in the visitor's language: in English as `Selection::explain` says it.

use farrier_campaign::{EcuTest, Quoted, Selection, TextTest, VehicleTest, VersionOrder};
use farrier_protocol::Text;

use crate::console::texts::{QueryTexts, filled};

/// A first line, and below it one line for each thing that has to hold.
pub(super) fn explained(q: &QueryTexts, selection: &Selection) -> String {
    if *selection == Selection::All {
        return q.every_vehicle.to_owned();
    }
    let mut lines = Vec::new();
    match outline(q, selection, true) {
        Outline::Line(line) => lines.extend([q.vehicles_for_one.to_owned(), format!("  {line}")]),
        Outline::List { heading, parts } => {
            lines.push(heading.of_vehicles(q).to_owned());
            for part in parts {
                add_below(q, part, 1, &mut lines);
            }
        }
    }
    lines.join("\n")
}

fn add_below(q: &QueryTexts, selection: &Selection, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    match outline(q, selection, true) {
        Outline::Line(line) => lines.push(format!("{indent}{line}")),
        Outline::List { heading, parts } => {
            lines.push(format!("{indent}{}", heading.alone(q)));
            for part in parts {
                add_below(q, part, depth.saturating_add(1), lines);
            }
        }
    }
}

/// One line, or a heading and what stands below it.
enum Outline<'s> {
    Line(String),
    List { heading: Heading, parts: &'s [Selection] },
}

/// How many of the things below have to hold.
#[derive(Clone, Copy)]
enum Heading {
    All,
    NotAll,
    Any,
    None,
}

impl Heading {
    fn of_vehicles(self, q: &QueryTexts) -> &'static str {
        match self {
            Self::All => q.vehicles_for_all,
            Self::NotAll => q.vehicles_for_not_all,
            Self::Any => q.vehicles_for_any,
            Self::None => q.vehicles_for_none,
        }
    }

    fn alone(self, q: &QueryTexts) -> &'static str {
        match self {
            Self::All => q.all_hold,
            Self::NotAll => q.not_all_hold,
            Self::Any => q.any_holds,
            Self::None => q.none_holds,
        }
    }
}

/// What it means that this holds, or that it does not. A `not` disappears in what it is about.
fn outline<'s>(q: &QueryTexts, selection: &'s Selection, holds: bool) -> Outline<'s> {
    let line = match selection {
        Selection::All if holds => q.any_vehicle.to_owned(),
        Selection::All => q.no_vehicle.to_owned(),
        Selection::And(parts) => {
            return Outline::List { heading: if holds { Heading::All } else { Heading::NotAll }, parts };
        }
        Selection::Or(parts) => {
            return Outline::List { heading: if holds { Heading::Any } else { Heading::None }, parts };
        }
        Selection::Not(part) => return outline(q, part, !holds),
        Selection::Vehicle(test) => of_vehicle(q, test, holds),
        Selection::Tag(test) => of_tags(q, test, holds),
        Selection::HasEcu(tests) => {
            let tests: Vec<_> = tests.iter().map(|test| of_ecu(q, test)).collect();
            filled(if holds { q.one_ecu } else { q.no_ecu }, &[&tests.join(q.and_ecu)])
        }
    };
    Outline::Line(line)
}

fn quoted(text: &Text) -> String {
    Quoted(text.as_str()).to_string()
}

fn listed(texts: &[Text]) -> String {
    texts.iter().map(quoted).collect::<Vec<_>>().join(", ")
}

fn of_vehicle(q: &QueryTexts, test: &VehicleTest, holds: bool) -> String {
    let (field, may_be_unknown) = (test.field.name(), test.field.may_be_unknown());
    // A comparison needs a known value, so the opposite of one holds where there is none.
    let unless = |said: String| if may_be_unknown { format!("{said}{}", q.or_unknown) } else { said };
    let of = |text: &str, value: String| filled(text, &[field, &value]);
    match (&test.test, holds) {
        (TextTest::Is(text), true) => of(q.is, quoted(text)),
        (TextTest::Is(text), false) => unless(of(q.is_not, quoted(text))),
        (TextTest::IsNot(text), true) if may_be_unknown => of(q.is_known_and_not, quoted(text)),
        (TextTest::IsNot(text), true) => of(q.is_not, quoted(text)),
        (TextTest::IsNot(text), false) => unless(of(q.is, quoted(text))),
        (TextTest::In(texts), true) => of(q.is_one_of, listed(texts)),
        (TextTest::In(texts), false) => unless(of(q.is_not_one_of, listed(texts))),
        (TextTest::NotIn(texts), true) if may_be_unknown => of(q.is_known_and_not_one_of, listed(texts)),
        (TextTest::NotIn(texts), true) => of(q.is_not_one_of, listed(texts)),
        (TextTest::NotIn(texts), false) => unless(of(q.is_one_of, listed(texts))),
        (TextTest::StartsWith(text), true) => of(q.begins, quoted(text)),
        (TextTest::StartsWith(text), false) => unless(of(q.begins_not, quoted(text))),
        (TextTest::Known, true) | (TextTest::Unknown, false) => filled(q.is_known, &[field]),
        (TextTest::Known, false) | (TextTest::Unknown, true) => filled(q.is_unknown, &[field]),
    }
}

fn of_tags(q: &QueryTexts, test: &TextTest, holds: bool) -> String {
    match (test, holds) {
        (TextTest::Is(text), true) | (TextTest::IsNot(text), false) => filled(q.has_tag, &[&quoted(text)]),
        (TextTest::Is(text), false) | (TextTest::IsNot(text), true) => filled(q.has_no_tag, &[&quoted(text)]),
        (TextTest::In(texts), true) | (TextTest::NotIn(texts), false) => {
            filled(q.has_one_of_tags, &[&listed(texts)])
        }
        (TextTest::In(texts), false) | (TextTest::NotIn(texts), true) => {
            filled(q.has_none_of_tags, &[&listed(texts)])
        }
        (TextTest::StartsWith(text), true) => filled(q.has_tag_beginning, &[&quoted(text)]),
        (TextTest::StartsWith(text), false) => filled(q.has_no_tag_beginning, &[&quoted(text)]),
        (TextTest::Known, true) | (TextTest::Unknown, false) => q.has_a_tag.to_owned(),
        (TextTest::Known, false) | (TextTest::Unknown, true) => q.has_not_a_tag.to_owned(),
    }
}

fn of_ecu(q: &QueryTexts, test: &EcuTest) -> String {
    let bare = |name: &'static str| name.strip_prefix("ecu.").unwrap_or(name);
    match test {
        EcuTest::Text { field, test } => {
            let field = bare(field.name());
            match test {
                TextTest::Is(text) => filled(q.ecu_is, &[field, &quoted(text)]),
                TextTest::IsNot(text) => filled(q.ecu_other_than, &[field, &quoted(text)]),
                TextTest::In(texts) => filled(q.ecu_one_of, &[field, &listed(texts)]),
                TextTest::NotIn(texts) => filled(q.ecu_other_than, &[field, &listed(texts)]),
                TextTest::StartsWith(text) => filled(q.ecu_begins, &[field, &quoted(text)]),
                TextTest::Known => filled(q.ecu_known, &[field]),
                TextTest::Unknown => filled(q.ecu_unknown, &[field]),
            }
        }
        EcuTest::Version { field, order, than } => {
            let text = match order {
                VersionOrder::Below => q.ecu_below,
                VersionOrder::AtMost => q.ecu_at_most,
                VersionOrder::Above => q.ecu_above,
                VersionOrder::AtLeast => q.ecu_at_least,
            };
            filled(text, &[bare(field.name()), than.as_str()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::texts::{ENGLISH, KOREAN};

    const QUERIES: [&str; 12] = [
        "all",
        "region = \"KR\"",
        "not vehicle = \"V1\"",
        "vehicle not in (\"V1\", \"V2\") and gateway != \"G\" and not gateway starts with \"C\"",
        "region != \"EU\" and not region != \"EU\" and region not in (\"EU\", \"US\") and not region not in (\"EU\")",
        "region in (\"EU\", \"US\") or not region in (\"EU\") or vin starts with \"K\" or not vin starts with \"K\"",
        "vin is known and not vin is unknown and vin is unknown and not vin is known",
        "tag = \"a\" and not tag = \"a\" and tag in (\"a\", \"b\") and tag not in (\"a\", \"b\") and tag is known",
        "tag starts with \"w\" or not tag starts with \"w\" or tag is unknown or tag != \"x\" or not tag != \"x\"",
        "not (region = \"a\" or (vin is known and tag = \"b\\\"c\")) and not (vin is known and tag = \"z\")",
        "ecu.hw_part_no = \"A\" and ecu.sw_version < \"3.2\" and ecu.bootloader_ver >= \"1\" and ecu.sw_version <= \"4\"",
        "not (ecu.id != \"A\" and ecu.domain in (\"x\", \"y\") and ecu.zone not in (\"1\") and ecu.zone is known) \
         and ecu.can_id starts with \"0x\" and ecu.mac_address is unknown and ecu.sw_version > \"1\"",
    ];

    #[test]
    fn in_english_a_query_is_explained_as_the_campaign_explains_it() {
        for query in QUERIES {
            let selection: Selection = query.parse().unwrap();
            assert_eq!(explained(&ENGLISH.of_queries, &selection), selection.explain(), "{query}");
        }
    }

    #[test]
    fn in_korean_every_line_is_korean_and_names_what_the_english_one_names() {
        for query in QUERIES.into_iter().filter(|query| !query.contains('\\')) {
            let selection: Selection = query.parse().unwrap();
            let (said, english) = (explained(&KOREAN.of_queries, &selection), selection.explain());
            assert_eq!(said.lines().count(), english.lines().count(), "{query}");
            for (said, english) in said.lines().zip(english.lines()) {
                let is_korean = said.chars().any(|c| ('가'..='힣').contains(&c));
                assert!(is_korean || said.contains(" = "), "{said}");
                let quotes =
                    |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
                assert_eq!(quotes(said), quotes(english), "{said}");
            }
        }
    }
}
