#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

use super::*;

const ETAG: &str = "\"0000000000000000000000000000000000000000000000000000000000000000\"";

/// The size of the file in eight octets, then header fields, one a line: `If-Range` and `If-None-Match` after `I` and
/// `N`, everything else is a `Range`. An `E` alone stands for the file's own ETag.
///
/// - a part lies within the file, and is the one that RFC 9110 §14 gives for the range, read once more;
/// - only one range of a kind that is understood, for the file that the vehicle has the beginning of, is a part.
pub fn http_ranges(data: &[u8]) {
    let Some((size, lines)) = data.split_at_checked(8) else { return };
    let size = u64::from_be_bytes(size.try_into().unwrap());
    let mut headers = HeaderMap::new();
    for line in lines.split(|octet| *octet == b'\n') {
        let (name, value) = match line {
            [b'I', value @ ..] => (header::IF_RANGE, value),
            [b'N', value @ ..] => (header::IF_NONE_MATCH, value),
            value => (header::RANGE, value),
        };
        let value = if value == b"E" { ETAG.as_bytes() } else { value };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let _ = names(&headers, &header::IF_NONE_MATCH, Strength::Weak, ETAG);
    let selected = selection(&headers, ETAG, size);
    if let Selection::Part(Part { first, last }) = selected {
        assert!(first <= last && last < size);
    }
    let same = headers.get_all(header::IF_RANGE).iter().all(|value| value.as_bytes() == ETAG.as_bytes());
    let ranges: Vec<&[u8]> = headers.get_all(header::RANGE).iter().map(HeaderValue::as_bytes).collect();
    match ranges.as_slice() {
        [range] if same => match by_the_standard(range, size.into()) {
            // Several ranges may be answered as none, and refused where there are many.
            Asked::Several => assert!(!matches!(selected, Selection::Part(_))),
            Asked::Nothing => assert_eq!(selected, Selection::Whole),
            Asked::Beyond => assert_eq!(selected, Selection::Unsatisfiable),
            Asked::Part(first, last) => {
                let part = Part { first: first.try_into().unwrap(), last: last.try_into().unwrap() };
                assert_eq!(selected, Selection::Part(part), "{}", String::from_utf8_lossy(range));
            }
        },
        // Only the first If-Range counts; two of them are nothing that the standard knows.
        _ if headers.get_all(header::IF_RANGE).iter().count() > 1 => {}
        _ => assert!(!matches!(selected, Selection::Part(_))),
    }
}

#[derive(Debug)]
enum Asked {
    Nothing,
    Several,
    Beyond,
    Part(u128, u128),
}

/// `ranges-specifier = range-unit "=" range-set` (RFC 9110 §14.1.1, §14.1.2), from left to right.
fn by_the_standard(range: &[u8], size: u128) -> Asked {
    let (unit, set) = range.split_at(range.len().min(6));
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return Asked::Nothing;
    }
    let set = set.trim_ascii();
    if set.contains(&b',') {
        return Asked::Several;
    }
    let first_digits = set.iter().take_while(|octet| octet.is_ascii_digit()).count();
    let (first, rest) = set.split_at(first_digits);
    let [b'-', last @ ..] = rest else { return Asked::Nothing };
    if !last.iter().all(u8::is_ascii_digit) || (first.is_empty() && last.is_empty()) {
        return Asked::Nothing;
    }
    let value = |digits: &[u8]| {
        digits
            .iter()
            .fold(0_u128, |value, digit| value.saturating_mul(10).saturating_add(u128::from(digit - b'0')))
    };
    if first.is_empty() {
        return match value(last) {
            0 => Asked::Beyond,
            // The last octets of an empty file are a part that no Content-Range can name.
            _ if size == 0 => Asked::Nothing,
            length => Asked::Part(size.saturating_sub(length), size - 1),
        };
    }
    let width = first.len().max(last.len());
    let aligned = |digits: &[u8]| [vec![b'0'; width - digits.len()], digits.to_vec()].concat();
    if !last.is_empty() && aligned(last) < aligned(first) {
        return Asked::Nothing;
    }
    let first = value(first);
    let last = if last.is_empty() { u128::MAX } else { value(last) };
    if first >= size { Asked::Beyond } else { Asked::Part(first, last.min(size - 1)) }
}
