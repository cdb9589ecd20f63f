//! The checked values of the wire: identifiers, texts, digests, times.
//! Each can only be built from a value that satisfies its rule (protocol.md §2), so the rest of the
//! system never checks again.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

/// A value that does not satisfy the rule of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct InvalidValue {
    /// The rule, in words.
    pub expected: &'static str,
    /// The offending value, shortened for people.
    pub found: String,
}

impl InvalidValue {
    pub(crate) fn new(expected: &'static str, found: &str) -> Self {
        Self { expected, found: shortened(found) }
    }
}

/// Quotes at most 64 characters of a value that came from outside.
pub(crate) fn shortened(text: &str) -> String {
    const LIMIT: usize = 64;
    let mut quoted: String = text.chars().take(LIMIT).collect();
    if text.chars().count() > LIMIT {
        quoted.push('…');
    }
    format!("{quoted:?}")
}

/// Reads a string and checks it; the error keeps the rule and the value apart, as refusals need them.
pub(crate) fn checked<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: TryFrom<String, Error = InvalidValue>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(from)?;
    T::try_from(text)
        .map_err(|error| D::Error::invalid_value(Unexpected::Other(&error.found), &error.expected))
}

/// Defines a string type that is checked when it is built, from JSON or from code.
macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $rule:ident, $expected:literal, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
        #[serde(into = "String")]
        #[schemars(extend $schema)]
        pub struct $name(String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                checked(from)
            }
        }

        impl $name {
            /// The text as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidValue;

            fn try_from(text: String) -> Result<Self, InvalidValue> {
                if $rule(&text) { Ok(Self(text)) } else { Err(InvalidValue::new($expected, &text)) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Defines an identifier: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}` (protocol.md §2).
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        checked_string!($(#[$doc])* $name, is_identifier,
            "an identifier of 1 to 64 characters [A-Za-z0-9._-] that begins with a letter or digit",
            ("pattern" = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"));
    };
}

fn is_identifier(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_text_up_to(text: &str, limit: usize) -> bool {
    !text.is_empty()
        && text.len() <= limit.saturating_mul(4)
        && text.chars().count() <= limit
        && !text.chars().any(char::is_control)
}

fn is_text(text: &str) -> bool {
    is_text_up_to(text, 128)
}

fn is_long_text(text: &str) -> bool {
    is_text_up_to(text, 512)
}

fn is_mac_address(text: &str) -> bool {
    let mut octets = 0;
    text.split(':').all(|octet| {
        octets += 1;
        octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit())
    }) && octets == 6
}

fn is_ip_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

fn is_can_id(text: &str) -> bool {
    text.strip_prefix("0x").is_some_and(|hex| {
        (1..=8).contains(&hex.len())
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
            && u32::from_str_radix(hex, 16).is_ok_and(|id| id <= 0x1FFF_FFFF)
    })
}

fn is_thumbprint(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

identifier!(
    /// Names a vehicle.
    VehicleId
);
identifier!(
    /// Names the gateway (VMG) of a vehicle.
    GatewayId
);
identifier!(
    /// Names an ECU within its vehicle.
    EcuId
);
identifier!(
    /// Names a software update package: what travels to one ECU.
    PkgId
);
identifier!(
    /// Names a message; unique per sender, repeated by a retransmission of the same content.
    MsgId
);
checked_string!(
    /// Any other string of the wire: 1 to 128 characters, none of them a control character.
    Text, is_text, "1 to 128 characters without control characters",
    ("minLength" = 1, "maxLength" = 128, "pattern" = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"));
checked_string!(
    /// A string of 1 to 512 characters: URLs and details for people.
    LongText, is_long_text, "1 to 512 characters without control characters",
    ("minLength" = 1, "maxLength" = 512, "pattern" = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"));
checked_string!(
    /// An Ethernet address, as the vehicle wrote it: the VCI digest depends on its very characters.
    MacAddress, is_mac_address, "six colon-separated hex octets",
    ("pattern" = "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"));
checked_string!(
    /// An IPv4 or IPv6 address, as the vehicle wrote it.
    IpAddress, is_ip_address, "an IPv4 or IPv6 address",
    ("anyOf" = [{"format": "ipv4"}, {"format": "ipv6"}]));
checked_string!(
    /// A CAN identifier, `0x` and hex, at most 0x1FFFFFFF (29 bits), as the vehicle wrote it.
    CanId, is_can_id, "0x and hex digits, at most 0x1FFFFFFF",
    ("pattern" = "^0x(0{0,7}[0-9A-Fa-f]|0{0,6}[0-9A-Fa-f]{2}|0{0,5}[0-9A-Fa-f]{3}|0{0,4}[0-9A-Fa-f]{4}|0{0,3}[0-9A-Fa-f]{5}|0{0,2}[0-9A-Fa-f]{6}|0?[0-9A-Fa-f]{7}|[01][0-9A-Fa-f]{7})$"));
checked_string!(
    /// SHA-256 of a leaf certificate (DER), 64 lower-case hex characters.
    Thumbprint, is_thumbprint, "64 lower-case hex characters",
    ("pattern" = "^[0-9a-f]{64}$"));

impl LongText {
    /// The beginning of a text that may be too long, empty, or hold control characters.
    pub fn beginning_of(text: &str) -> Self {
        let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let beginning: String = text.chars().take(512).map(shown).collect();
        Self(if beginning.is_empty() { "-".to_owned() } else { beginning })
    }
}

impl Thumbprint {
    /// The thumbprint of a certificate in DER.
    pub fn of_certificate(der: &[u8]) -> Self {
        Self(Sha256::of(der).to_string())
    }
}

/// A SHA-256 digest; 64 hex characters on the wire, written in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9A-Fa-f]{64}$"))]
pub struct Sha256([u8; 32]);

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        checked(from)
    }
}

impl Sha256 {
    /// Stands for a digest where there is none; nothing is known that has it.
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = [0; 32];
        let computed = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        for (to, from) in digest.iter_mut().zip(computed.as_ref()) {
            *to = *from;
        }
        Self(digest)
    }

    /// The 32 octets.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Sha256 {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl TryFrom<String> for Sha256 {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl std::str::FromStr for Sha256 {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let refused = || InvalidValue::new("64 hex characters", text);
        if text.len() != 64 || !text.is_ascii() {
            return Err(refused());
        }
        let mut digest = [0; 32];
        for (octet, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            for byte in pair {
                let digit = char::from(*byte).to_digit(16).ok_or_else(refused)?;
                *octet = (*octet << 4) | u8::try_from(digit).map_err(|_| refused())?;
            }
        }
        Ok(Self(digest))
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        for (digits, octet) in text.chunks_exact_mut(2).zip(self.0) {
            for (digit, nibble) in digits.iter_mut().zip([octet >> 4, octet & 0x0f]) {
                *digit = if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) };
            }
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This time and so many seconds; saturates at the end of time.
    pub fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add_unsigned(seconds.saturating_mul(1000)))
    }
}

/// A vehicle together with its gateway: who sends and receives (protocol.md, roles).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binding {
    /// The vehicle.
    pub vehicle_id: VehicleId,
    /// Its gateway.
    pub gateway_id: GatewayId,
}

impl Binding {
    /// The MQTT client id and certificate common name: `{vehicle_id}_{gateway_id}`.
    ///
    /// Two bindings can share one client id, since `_` is allowed in both parts; whoever enrols
    /// or certifies bindings keeps client ids unique.
    pub fn client_id(&self) -> String {
        format!("{}_{}", self.vehicle_id, self.gateway_id)
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vehicle_id, self.gateway_id)
    }
}
