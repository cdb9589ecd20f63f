use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

/// semver.org, rule 11: each is earlier than the next.
const SEMVER_ASCENDING: [&str; 24] = [
    "0.0.0",
    "0.0.1",
    "0.1.0",
    "0.9.99",
    "0.10.0",
    "1.0.0-0",
    "1.0.0-2",
    "1.0.0-11",
    "1.0.0-99999999999999999999999",
    "1.0.0--",
    "1.0.0-A",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
    "10.0.0-x",
    "99999999999999999999999.0.0",
];

const DOTTED_ASCENDING: [&str; 8] = ["0", "0.0.1", "0.9", "1", "1.0.0.1", "1.2", "1.10", "20261130"];

const DATES_ASCENDING: [&str; 6] =
    ["1999-12-31", "20240229", "2026.01.31", "2026-02-01", "20261130", "2026.12.01"];

fn ascends(scheme: VersionScheme, versions: &[&str]) {
    let placed: Vec<_> =
        versions.iter().map(|text| scheme.parse(text).unwrap_or_else(|| panic!("{text}"))).collect();
    for (one, first) in placed.iter().enumerate() {
        for (other, second) in placed.iter().enumerate() {
            assert_eq!(first.cmp(second), one.cmp(&other), "{} and {}", versions[one], versions[other]);
        }
    }
}

#[test]
fn versions_are_ordered_by_their_scheme() {
    ascends(VersionScheme::Semver, &SEMVER_ASCENDING);
    ascends(VersionScheme::Dotted, &DOTTED_ASCENDING);
    ascends(VersionScheme::Date, &DATES_ASCENDING);
}

#[test]
fn some_versions_are_written_in_several_ways() {
    let same = |scheme: VersionScheme, one, other| {
        assert_eq!(scheme.parse(one).unwrap(), scheme.parse(other).unwrap())
    };
    same(VersionScheme::Semver, "1.0.0+build.7", "1.0.0+001");
    same(VersionScheme::Semver, "1.0.0-rc.1+x", "1.0.0-rc.1");
    same(VersionScheme::Dotted, "1.02", "1.2.0.00");
    same(VersionScheme::Date, "2026-11-30", "20261130");
    same(VersionScheme::Date, "2026-11-30", "2026.11.30");
}

#[test]
fn what_is_not_of_the_scheme_has_no_place() {
    let refused = [
        (
            VersionScheme::Semver,
            &[
                "",
                "1",
                "1.2",
                "1.2.3.4",
                "v1.2.3",
                "01.2.3",
                "1.2.3-",
                "1.2.3-01",
                "1.2.3-a..b",
                "1.2.3+",
                "1.2.3+a+b",
                "1.2.3-ä",
                " 1.2.3",
                "1.2.+3",
                "-1.2.3",
                "1.2.³",
            ][..],
        ),
        (VersionScheme::Dotted, &["", ".", "1.", ".1", "1..2", "1.a", "1-2", "+1", "1.2 ", "１"][..]),
        (
            VersionScheme::Date,
            &[
                "",
                "2026",
                "2026-11",
                "2026-11.30",
                "2026.11-30",
                "2026-1-01",
                "26-11-30",
                "2026-02-29",
                "1900-02-29",
                "2026-13-01",
                "2026-00-01",
                "2026-04-31",
                "2026-11-00",
                "202611301",
                "2026113",
                "2026-11-30-1",
                "+026-11-30",
                "日本日本",
            ][..],
        ),
    ];
    for (scheme, texts) in refused {
        for text in texts {
            assert_eq!(scheme.parse(text), None, "{text:?} as {scheme:?}");
        }
    }
}

fn any_scheme() -> impl Strategy<Value = VersionScheme> {
    prop::sample::select(vec![VersionScheme::Semver, VersionScheme::Dotted, VersionScheme::Date])
}

fn any_semver() -> impl Strategy<Value = String> {
    "(0|[1-9][0-9]?)\\.(0|[1-9][0-9]?)\\.[0-3](-(0|[1-9]|[a-c-]{1,2})(\\.(0|[1-9][0-9]?|[a-c]))?)?(\\+[0-9a-z]{1,3})?"
}

/// A second, plain way to say when a semantic version precedes another: rule 11, sentence by sentence.
fn by_rule_11(one: &str, other: &str) -> Ordering {
    let without_build = |text: &str| text.split('+').next().unwrap().to_owned();
    let (one, other) = (without_build(one), without_build(other));
    let split = |text: &str| -> (Vec<u64>, Option<Vec<String>>) {
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let pre = pre.map(|pre| pre.split('.').map(str::to_owned).collect());
        (core.split('.').map(|number| number.parse().unwrap()).collect(), pre)
    };
    let ((core, pre), (other_core, other_pre)) = (split(&one), split(&other));
    core.cmp(&other_core).then_with(|| match (pre, other_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(pre), Some(other_pre)) => {
            for (a, b) in pre.iter().zip(&other_pre) {
                let found = match (a.parse::<u64>(), b.parse::<u64>()) {
                    (Ok(a), Ok(b)) => a.cmp(&b),
                    (Ok(_), Err(_)) => Ordering::Less,
                    (Err(_), Ok(_)) => Ordering::Greater,
                    (Err(_), Err(_)) => a.as_bytes().cmp(b.as_bytes()),
                };
                if found != Ordering::Equal {
                    return found;
                }
            }
            pre.len().cmp(&other_pre.len())
        }
    })
}

proptest! {
    #[test]
    fn nothing_that_is_written_makes_parsing_fail(scheme in any_scheme(), text in "\\PC{0,24}|[0-9.+-]{0,24}") {
        if let Some(version) = scheme.parse(&text) {
            prop_assert_eq!(version.cmp(&version), Ordering::Equal);
        }
    }

    #[test]
    fn semantic_versions_are_ordered_by_rule_11(one in any_semver(), other in any_semver()) {
        let (first, second) = (VersionScheme::Semver.parse(&one).unwrap(), VersionScheme::Semver.parse(&other).unwrap());
        prop_assert_eq!(first.cmp(&second), by_rule_11(&one, &other));
    }

    #[test]
    fn the_order_is_total(texts in prop::collection::vec("[0-3](\\.[0-3]){0,3}", 3)) {
        let [a, b, c] = [0, 1, 2].map(|at: usize| VersionScheme::Dotted.parse(&texts[at]).unwrap());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert!(!(a <= b && b <= c) || a <= c);
        prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
    }

    #[test]
    fn days_are_ordered_as_their_digits_are(y in 0..10_000_u32, m in 1..13_u32, d in 1..29_u32, n in 1..29_u32) {
        let day = |d: u32| VersionScheme::Date.parse(&format!("{y:04}.{m:02}.{d:02}")).unwrap();
        prop_assert_eq!(day(d).cmp(&day(n)), d.cmp(&n));
    }
}
