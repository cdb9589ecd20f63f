//! The rules of a release in the visitor's language, and the simple ones made from two fields.

use farrier_campaign::Rule;
use farrier_protocol::Text;

use super::form;
use super::texts::{Texts, filled};

/// A rule as part of a sentence, as `Rule::phrase` says it in English.
pub(super) fn words(t: &Texts, rule: &Rule) -> String {
    let joined = |names: &[Text], by: &str| names.iter().map(Text::as_str).collect::<Vec<_>>().join(by);
    match rule {
        Rule::Needs { hw_part_no, when_updating: None, at_least } => {
            filled(t.rule_needs, &[hw_part_no.as_str(), at_least.as_str()])
        }
        Rule::Needs { hw_part_no, when_updating: Some(updating), at_least } => {
            let updating = joined(updating, t.or_between);
            filled(t.rule_needs_when, &[&updating, hw_part_no.as_str(), at_least.as_str()])
        }
        Rule::Conflicts { hw_part_no, from, to } => {
            filled(t.rule_conflicts, &[hw_part_no.as_str(), &range(t, from.as_ref(), to.as_ref())])
        }
        Rule::Together { hw_part_nos } => filled(t.rule_together, &[&joined(hw_part_nos, t.and_between)]),
        Rule::Order { first, then } => filled(t.rule_order, &[first.as_str(), then.as_str()]),
        Rule::MinimumBootloader { hw_part_no, version } => {
            filled(t.rule_bootloader, &[hw_part_no.as_str(), version.as_str()])
        }
        Rule::EarlierVersions { hw_part_no, versions } => {
            filled(t.rule_earlier, &[hw_part_no.as_str(), &joined(versions, t.or_between)])
        }
    }
}

/// Versions from one to another.
pub(super) fn range(t: &Texts, from: Option<&Text>, to: Option<&Text>) -> String {
    match (from, to) {
        (None, None) => t.any_version.to_owned(),
        (Some(from), None) => filled(t.version_or_later, &[from.as_str()]),
        (None, Some(to)) => filled(t.version_or_earlier, &[to.as_str()]),
        (Some(from), Some(to)) => filled(t.version_range, &[from.as_str(), to.as_str()]),
    }
}

/// What can be said with two fields, A and B.
const SIMPLE: [&str; 6] =
    ["needs", "together", "order", "minimum_bootloader", "earlier_versions", "conflicts"];

/// The simple rules by name, each as the sentence that it makes of A and B.
pub(super) fn simple(t: &Texts) -> Vec<(&'static str, String)> {
    let sentence = |kind| make(t, kind, "A", "B").map(|rule| (kind, words(t, &rule)));
    SIMPLE.into_iter().filter_map(|kind| sentence(kind).ok()).collect()
}

/// A simple rule; the error is what one of its fields should be.
pub(super) fn make(t: &Texts, kind: &str, a: &str, b: &str) -> Result<Rule, String> {
    let text = |value: &str| form::read::<Text>(t, value, t.of_forms.a_short_text);
    let (a, first_b) = (text(a)?, text(b)?);
    let rule = match kind {
        "needs" => Rule::Needs { hw_part_no: a, when_updating: None, at_least: first_b },
        "together" => Rule::Together { hw_part_nos: vec![a, first_b] },
        "order" => Rule::Order { first: a, then: first_b },
        "minimum_bootloader" => Rule::MinimumBootloader { hw_part_no: a, version: first_b },
        "conflicts" => Rule::Conflicts { hw_part_no: a, from: None, to: Some(first_b) },
        "earlier_versions" => {
            let versions = b.split(',').map(text).collect::<Result<_, _>>()?;
            Rule::EarlierVersions { hw_part_no: a, versions }
        }
        other => return Err(form::unfit(t, t.of_forms.a_rule, other)),
    };
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::language::Language;
    use crate::console::texts::ENGLISH;

    #[test]
    fn every_rule_is_said_in_english_as_the_campaign_says_it_and_in_every_language_with_all_that_it_names() {
        let rules: Vec<Rule> = serde_json::from_str(
            r#"[{"rule": "needs", "hw_part_no": "H1", "at_least": "V1"},
                {"rule": "needs", "hw_part_no": "H1", "when_updating": ["H2", "H3"], "at_least": "V1"},
                {"rule": "conflicts", "hw_part_no": "H1"},
                {"rule": "conflicts", "hw_part_no": "H1", "from": "V1"},
                {"rule": "conflicts", "hw_part_no": "H1", "to": "V1"},
                {"rule": "conflicts", "hw_part_no": "H1", "from": "V1", "to": "V2"},
                {"rule": "together", "hw_part_nos": ["H1", "H2"]},
                {"rule": "order", "first": "H1", "then": "H2"},
                {"rule": "minimum_bootloader", "hw_part_no": "H1", "version": "V1"},
                {"rule": "earlier_versions", "hw_part_no": "H1", "versions": ["V1", "V2"]}]"#,
        )
        .unwrap();
        for rule in &rules {
            assert_eq!(words(&ENGLISH, rule), rule.phrase());
            let names = serde_json::to_value(rule).unwrap();
            for t in Language::ALL.map(Language::texts) {
                let said = words(t, rule);
                for name in ["H1", "H2", "H3", "V1", "V2"] {
                    assert_eq!(names.to_string().contains(name), said.contains(name), "{said}");
                }
            }
        }
        assert_eq!(simple(&ENGLISH).len(), SIMPLE.len());
    }
}
