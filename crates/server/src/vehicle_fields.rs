//! What operators say of a vehicle, checked once where it comes in.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A value that does not satisfy the rule of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub(crate) struct InvalidField {
    pub(crate) expected: &'static str,
    pub(crate) found: String,
}

macro_rules! field {
    ($(#[$doc:meta])* $name:ident, $rule:ident, $expected:literal, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
        #[schemars(extend $schema)]
        pub(crate) struct $name(String);

        impl $name {
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidField;

            fn from_str(text: &str) -> Result<Self, InvalidField> {
                if $rule(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(InvalidField { expected: $expected, found: text.chars().take(64).collect() })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

field!(
    /// A vehicle identification number (ISO 3779): without I, O and Q.
    Vin, is_vin, "a VIN of 17 characters [A-HJ-NPR-Z0-9]", ("pattern" = "^[A-HJ-NPR-Z0-9]{17}$"));
field!(
    /// The name of a time zone in the IANA database; only its form is checked.
    TimeZone, is_time_zone, "the name of an IANA time zone, as Asia/Seoul",
    ("pattern" = "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,3}$", "maxLength" = 64));
field!(
    /// A word that operators put on vehicles.
    Tag, is_tag, "a tag of 1 to 64 characters without spaces, quotes, commas and semicolons",
    ("pattern" = "^[^\\u0000-\\u0020\\u007f-\\u00a0\",;]{1,64}$"));
field!(
    /// The type that a vehicle is approved as: vehicles of one type have the same RXSWINs (UN R156).
    VehicleType, is_vehicle_type, "a vehicle type of 1 to 64 characters [A-Za-z0-9._-] that begins with a letter or digit",
    ("pattern" = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"));

fn is_vehicle_type(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_vin(text: &str) -> bool {
    let may_stand = |b: u8| matches!(b, b'A'..=b'Z' | b'0'..=b'9') && !matches!(b, b'I' | b'O' | b'Q');
    text.len() == 17 && text.bytes().all(may_stand)
}

fn is_time_zone(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-'))
    };
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.split('/').count() <= 4
        && text.split('/').all(is_part)
}

fn is_tag(text: &str) -> bool {
    let may_stand = |c: char| !matches!(c, '\0'..=' ' | '\u{7f}'..='\u{a0}' | '"' | ',' | ';');
    (1..=64).contains(&text.chars().count()) && text.chars().all(may_stand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_checked_by_their_form() {
        for vin in ["KMHXX00XXXX000001", "1HGCM82633A004352"] {
            assert!(vin.parse::<Vin>().is_ok(), "{vin}");
        }
        for vin in ["", "KMHXX00XXXX00000", "KMHXX00XXXX0000011", "KMHXX00XXXX00000O", "kmhxx00xxxx000001"] {
            assert!(vin.parse::<Vin>().is_err(), "{vin}");
        }
        for zone in ["Asia/Seoul", "UTC", "Etc/GMT+9", "America/Argentina/Buenos_Aires"] {
            assert!(zone.parse::<TimeZone>().is_ok(), "{zone}");
        }
        for zone in ["", "/Seoul", "Asia/", "Asia//Seoul", "+09:00", "Asia/Seoul ", "a/b/c/d/e"] {
            assert!(zone.parse::<TimeZone>().is_err(), "{zone}");
        }
        for vehicle_type in ["T1", "KR.2026-a_b"] {
            assert!(vehicle_type.parse::<VehicleType>().is_ok(), "{vehicle_type}");
        }
        for vehicle_type in ["", "a b", "-a", "a/b", &"x".repeat(65)] {
            assert!(vehicle_type.parse::<VehicleType>().is_err(), "{vehicle_type}");
        }
        for tag in ["prototype", "시험차", "line:3", "2026-q4"] {
            assert!(tag.parse::<Tag>().is_ok(), "{tag}");
        }
        for tag in ["", "a b", "a;b", "a,b", "\"a", "a\n", &"x".repeat(65)] {
            assert!(tag.parse::<Tag>().is_err(), "{tag}");
        }
    }
}
