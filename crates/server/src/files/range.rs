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

    proptest::proptest! {
        #[test]
        fn a_part_always_lies_within_the_file(range in "bytes=[0-9]{0,22}-[0-9]{0,22}", size in 0_u64..) {
            if let Selection::Part(part) = select(&range, size) {
                proptest::prop_assert!(part.first <= part.last && part.last < size);
            }
        }
    }
}
