//! How long something lasts, as it is said on the command line.

use std::time::Duration;

/// `90d`, `12h`, `30m`, `45s`.
pub(crate) fn time_span(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a time such as 90d, 12h, 30m or 45s, found {text:?}");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(expected)?;
    let seconds = match unit {
        "d" => 24 * 60 * 60,
        "h" => 60 * 60,
        "m" => 60,
        "s" => 1,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(seconds).filter(|span| *span > 0).map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_span_is_a_number_and_a_unit() {
        for (text, seconds) in [("90d", 7_776_000), ("12h", 43_200), ("30m", 1_800), ("45s", 45)] {
            assert_eq!(time_span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "d", "0d", "1", "1w", "-1d", "1.5h", "99999999999999999999d", "1é"] {
            assert!(time_span(text).unwrap_err().contains("90d"), "{text}");
        }
    }
}
