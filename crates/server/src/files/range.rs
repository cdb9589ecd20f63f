//! Which octets a request asks for (RFC 9110 §14).

/// A part of a file: `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// 200: no range, none that is understood, or several of them, which a server may answer so.
    Whole,
    /// 206.
    Part(Part),
    /// 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` octets.
pub(super) fn select(range: &str, size: u64) -> Selection {
    let Some((unit, set)) = range.split_once('=') else { return Selection::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    // Several ranges have a comma, which is in no number.
    match set.trim().split_once('-') {
        Some(("", suffix)) => match number(suffix) {
            Some(0) => Selection::Unsatisfiable,
            // The last octets of nothing are nothing, which a 206 cannot say.
            Some(_) if size == 0 => Selection::Whole,
            Some(length) => part(size.saturating_sub(length), u64::MAX, size),
            None => Selection::Whole,
        },
        Some((first, "")) => match number(first) {
            Some(first) => part(first, u64::MAX, size),
            None => Selection::Whole,
        },
        Some((first, last)) => match (number(first), number(last)) {
            (Some(_), Some(_)) if is_beyond(first, last) => Selection::Whole,
            (Some(first), Some(last)) => part(first, last, size),
            (None, _) | (_, None) => Selection::Whole,
        },
        None => Selection::Whole,
    }
}

fn part(first: u64, last: u64, size: u64) -> Selection {
    match size.checked_sub(1) {
        Some(end) if first <= end => Selection::Part(Part { first, last: last.min(end) }),
        Some(_) | None => Selection::Unsatisfiable,
    }
}

/// Digits only; what is larger than any file counts as the largest number.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Compares digits: of two numbers that are larger than any file, [`number`] does not say which is larger.
fn is_beyond(first: &str, last: &str) -> bool {
    let (first, last) = (first.trim_start_matches('0'), last.trim_start_matches('0'));
    (first.len(), first) > (last.len(), last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(first: u64, last: u64) -> Selection {
        Selection::Part(Part { first, last })
    }

    #[test]
    fn ranges_select_what_the_standard_says() {
        for (range, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=0-99", part(0, 99)),
            ("bytes=10-19", part(10, 19)),
            ("BYTES=10-19", part(10, 19)),
            ("bytes=90-", part(90, 99)),
            ("bytes=90-1000", part(90, 99)),
            ("bytes=99-99999999999999999999999999", part(99, 99)),
            ("bytes=-1", part(99, 99)),
            ("bytes=-1000", part(0, 99)),
            ("bytes=100-", Selection::Unsatisfiable),
            ("bytes=100-200", Selection::Unsatisfiable),
            ("bytes=99999999999999999999999999-", Selection::Unsatisfiable),
            ("bytes=-0", Selection::Unsatisfiable),
            ("bytes=20-10", Selection::Whole),
            ("bytes=99999999999999999999-88888888888888888888", Selection::Whole),
            ("bytes=88888888888888888888-99999999999999999999", Selection::Unsatisfiable),
            ("bytes=010-9", Selection::Whole),
            ("bytes=9-010", part(9, 10)),
            ("bytes=0-1,5-6", Selection::Whole),
            ("bytes=-1,-2", Selection::Whole),
            ("bytes=", Selection::Whole),
            ("bytes=-", Selection::Whole),
            ("bytes=a-b", Selection::Whole),
            ("bytes=+1-2", Selection::Whole),
            ("items=0-1", Selection::Whole),
            ("nonsense", Selection::Whole),
        ] {
            assert_eq!(select(range, 100), expected, "{range}");
        }
    }

    #[test]
    fn an_empty_file_has_no_part() {
        assert_eq!(select("bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(select("bytes=0-10", 0), Selection::Unsatisfiable);
        assert_eq!(select("bytes=-5", 0), Selection::Whole);
    }

    /// What stands between the commas, as it was meant rather than as it is written.
    #[derive(Debug, Clone)]
    enum Meant {
        FromTo(u64, u64),
        From(u64),
        Last(u64),
    }

    impl Meant {
        fn written(&self) -> String {
            match self {
                Self::FromTo(first, last) => format!("{first}-{last}"),
                Self::From(first) => format!("{first}-"),
                Self::Last(count) => format!("-{count}"),
            }
        }

        /// RFC 9110 §14.1.2, asked of one octet.
        fn means(&self, at: u64, size: u64) -> bool {
            match self {
                Self::FromTo(first, last) => (first..=last).contains(&&at),
                Self::From(first) => at >= *first,
                Self::Last(count) => size - at <= *count,
            }
        }

        fn is_valid(&self) -> bool {
            match self {
                Self::FromTo(first, last) => first <= last,
                Self::From(_) | Self::Last(_) => true,
            }
        }
    }

    fn meant() -> impl Strategy<Value = Meant> {
        let number = || prop_oneof![0_u64..80, Just(u64::MAX)];
        prop_oneof![
            (number(), number()).prop_map(|(first, last)| Meant::FromTo(first, last)),
            number().prop_map(Meant::From),
            number().prop_map(Meant::Last),
        ]
    }

    proptest! {
        #[test]
        fn a_part_holds_exactly_the_octets_that_are_meant(
            meant in proptest::collection::vec(meant(), 1..3),
            size in 0_u64..70,
            unit in "[bB][yY][tT][eE][sS]",
            space in " {0,2}",
        ) {
            let written: Vec<_> = meant.iter().map(Meant::written).collect();
            let found = select(&format!("{unit}={space}{}{space}", written.join(",")), size);
            let [meant] = meant.as_slice() else {
                prop_assert_eq!(found, Selection::Whole, "several ranges get the whole");
                return Ok(());
            };
            let octets: Vec<_> = (0..size).filter(|at| meant.means(*at, size)).collect();
            match found {
                Selection::Part(part) => {
                    prop_assert!(meant.is_valid());
                    prop_assert_eq!((part.first..=part.last).collect::<Vec<_>>(), octets);
                }
                Selection::Unsatisfiable => prop_assert!(meant.is_valid() && octets.is_empty()),
                // Not valid, or the last octets of nothing.
                Selection::Whole => {
                    let last_of_nothing = size == 0 && matches!(meant, Meant::Last(1..));
                    prop_assert!(!meant.is_valid() || last_of_nothing);
                }
            }
        }

        #[test]
        fn whatever_is_asked_a_part_lies_within_the_file(range in "\\PC{0,40}|bytes=[0-9]{0,22}-[0-9]{0,22}", size in 0_u64..) {
            if let Selection::Part(part) = select(&range, size) {
                prop_assert!(part.first <= part.last && part.last < size);
            }
        }
    }
}
