//! The order of software versions, as a text key that databases can compare.
//! Owns what counts as a version; which versions are compared is for those who ask.

/// Digits that one number of a version may have, leading zeros aside: its length is two digits of the key.
const MAX_DIGITS: usize = 99;

/// A key whose byte order is the order of versions; `None` for a text that is not a version.
///
/// A version is dotted numbers, a pre-release after `-` as in Semantic Versioning 2.0.0 §9, and a build after
/// `+`, which does not count (§10). Unlike there, there may be any number of numbers, with leading zeros
/// (`2026.01.05`); missing ones count as 0. Two versions of the same rank have the same key.
/// In SQL the key wants a collation by bytes (PostgreSQL: `COLLATE "C"`).
pub fn version_key(version: &str) -> Option<String> {
    let (version, build) = split(version, '+');
    let (numbers, pre_release) = split(version, '-');
    if build.is_some_and(|build| !build.split('.').all(is_identifier)) {
        return None;
    }
    let mut key = numbers_key(numbers)?;
    // Both sort before the digit that begins a further number, and a pre-release before its release.
    match pre_release {
        None => key.push('.'),
        Some(pre_release) => {
            key.push('-');
            for identifier in pre_release.split('.') {
                key.push_str(&identifier_key(identifier)?);
            }
        }
    }
    Some(key)
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// Zeros at the end are left out: 1.2 is 1.2.0.
fn numbers_key(numbers: &str) -> Option<String> {
    let keys = numbers.split('.').map(number_key).collect::<Option<Vec<_>>>()?;
    let is_zero = |key: &String| *key == "00";
    let counting = keys.len().saturating_sub(keys.iter().rev().take_while(|key| is_zero(key)).count());
    Some(keys.into_iter().take(counting).collect())
}

/// The length, then the digits: the longer number is the greater one.
fn number_key(number: &str) -> Option<String> {
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = number.trim_start_matches('0');
    (digits.len() <= MAX_DIGITS).then(|| format!("{:02}{digits}", digits.len()))
}

/// `0` begins a numeric identifier and `1` another one: numeric ones sort first. `!` ends the latter, as it
/// sorts before all that may stand in it.
fn identifier_key(identifier: &str) -> Option<String> {
    if identifier.bytes().all(|byte| byte.is_ascii_digit()) {
        number_key(identifier).map(|number| format!("0{number}"))
    } else {
        is_identifier(identifier).then(|| format!("1{identifier}!"))
    }
}

fn is_identifier(identifier: &str) -> bool {
    !identifier.is_empty() && identifier.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_stand_in_the_order_of_their_versions() {
        let ascending = [
            "0",
            "0.0.1",
            "0.9",
            "1.0.0-0",
            "1.0.0-2",
            "1.0.0-10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-beta-1",
            "1.0.0-rc.1",
            "1",
            "1.0.1-rc",
            "1.0.1",
            "1.2",
            "1.10",
            "3.2.6",
            "10.4",
            "2026.01.05",
            "2026.11.25",
            "20261125103000",
        ];
        for pair in ascending.windows(2) {
            assert!(version_key(pair[0]).unwrap() < version_key(pair[1]).unwrap(), "{pair:?}");
        }
    }

    #[test]
    fn what_does_not_count_does_not_change_the_key() {
        for (version, same) in [
            ("1.2", "1.2.0.0"),
            ("0", "0.0"),
            ("1.02", "1.2"),
            ("1.2+b.7", "1.2"),
            ("1-rc.1+x-y", "1.0-rc.01"),
        ] {
            assert_eq!(version_key(version).unwrap(), version_key(same).unwrap());
        }
    }

    #[test]
    fn other_texts_are_no_versions() {
        let too_long = "9".repeat(100);
        for text in [
            "", "v1.2", "1.", ".1", "1..2", "1.x", "1.2-", "1.2-a..b", "1.2-ä", "1.2+", "1.2+a.", "1.2+a+b",
            "-1", " 1", "1 ", "R12", "١.٢", &too_long,
        ] {
            assert_eq!(version_key(text), None, "{text}");
        }
    }

    /// The order of versions told anew, from their parts.
    #[derive(Debug, Clone)]
    struct Parts {
        numbers: Vec<u64>,
        pre_release: Vec<String>,
    }

    impl Parts {
        fn text(&self) -> String {
            let numbers: Vec<String> = self.numbers.iter().map(u64::to_string).collect();
            let pre_release = self.pre_release.join(".");
            let hyphen = if pre_release.is_empty() { "" } else { "-" };
            format!("{}{hyphen}{pre_release}", numbers.join("."))
        }

        fn order(&self, other: &Self) -> Ordering {
            for place in 0..self.numbers.len().max(other.numbers.len()) {
                let number = |parts: &Self| parts.numbers.get(place).copied().unwrap_or(0);
                match number(self).cmp(&number(other)) {
                    Ordering::Equal => {}
                    unequal @ (Ordering::Less | Ordering::Greater) => return unequal,
                }
            }
            match (self.pre_release.is_empty(), other.pre_release.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => {
                    let pairs = self.pre_release.iter().zip(&other.pre_release);
                    let first =
                        pairs.map(|(one, two)| identifier_order(one, two)).find(|order| order.is_ne());
                    first.unwrap_or(self.pre_release.len().cmp(&other.pre_release.len()))
                }
            }
        }
    }

    fn identifier_order(one: &str, two: &str) -> Ordering {
        match (one.parse::<u64>(), two.parse::<u64>()) {
            (Ok(one), Ok(two)) => one.cmp(&two),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => one.cmp(two),
        }
    }

    fn parts() -> impl Strategy<Value = Parts> {
        // Few numbers and letters, so that many versions differ late.
        let number = prop_oneof![6 => 0..2_u64, 1 => 9..11_u64, 1 => any::<u64>()];
        let identifier = prop_oneof![3 => "[01-]", 3 => "[a0-]{1,2}", 1 => "[0-9A-Ba-b-]{1,4}"];
        let numbers = prop::collection::vec(number, 1..4);
        let pre_release = prop::collection::vec(identifier, 0..4);
        (numbers, pre_release).prop_map(|(numbers, pre_release)| Parts { numbers, pre_release })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn key_order_is_version_order(one in parts(), two in parts()) {
            let key = |parts: &Parts| version_key(&parts.text()).unwrap();
            prop_assert_eq!(key(&one).cmp(&key(&two)), one.order(&two));
        }
    }
}
