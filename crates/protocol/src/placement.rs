//! Where an ECU stands in its vehicle: the `functional_group` of message 3.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::Text;

/// Where an ECU stands: behind a domain controller or a zonal controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "FunctionalGroupFields", into = "FunctionalGroupFields")]
#[schemars(with = "FunctionalGroupFields")]
pub struct FunctionalGroup {
    /// The controller.
    pub placement: Placement,
    /// Place in its order, 1 to 255; 0 and absent mean unassigned.
    pub index: Option<u8>,
}

/// The controller of an ECU.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// `domain_zone_bit` 0, an open set: powertrain, body, chassis, ivi, adas, telematics and others.
    Domain(Text),
    /// `domain_zone_bit` 1.
    Zone(Zone),
}

/// The name or number of a zone, kept as the vehicle wrote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Zone {
    /// `"front_left"`.
    Name(Text),
    /// `2`.
    Number(u16),
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ZoneVisitor)
    }
}

struct ZoneVisitor;

impl de::Visitor<'_> for ZoneVisitor {
    type Value = Zone;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a string of 1 to 128 characters without control characters, or an integer from 0 to 65535",
        )
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Zone, E> {
        let refused = |_| E::invalid_value(Unexpected::Str(name), &self);
        name.parse().map(Zone::Name).map_err(refused)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Zone, E> {
        let refused = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
        u16::try_from(number).map(Zone::Number).map_err(refused)
    }

    /// Formats other than JSON give every integer as a signed one, TOML among them.
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Zone, E> {
        let refused = |_| E::invalid_value(Unexpected::Signed(number), &self);
        u16::try_from(number).map(Zone::Number).map_err(refused)
    }
}

/// The wire form of `FunctionalGroup`. Which of `domain` and `zone` must and must not be there is
/// judged by `rules::placement`, which knows where they stand.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [
    {
        "properties": {"domain_zone_bit": {"const": 0}, "zone": false},
        "required": ["domain"]
    },
    {
        "properties": {"domain_zone_bit": {"const": 1}, "domain": false},
        "required": ["zone"]
    }
]))]
struct FunctionalGroupFields {
    /// 0: behind a domain controller, `domain` says which; 1: behind a zonal controller, `zone` says which.
    #[schemars(extend("enum" = [0, 1]))]
    domain_zone_bit: DomainZoneBit,
    /// The domain: powertrain, body, chassis, ivi, adas, telematics or another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<Text>,
    /// The zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<Zone>,
    /// Place in the controller's order; 0 and absent mean unassigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<u8>,
}

/// 0 or 1.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(transparent)]
struct DomainZoneBit(u8);

impl DomainZoneBit {
    const DOMAIN: Self = Self(0);
    const ZONE: Self = Self(1);
}

impl<'de> Deserialize<'de> for DomainZoneBit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u8::deserialize(from)? {
            bit @ (0 | 1) => Ok(Self(bit)),
            other => {
                Err(de::Error::invalid_value(Unexpected::Unsigned(other.into()), &"0 (domain) or 1 (zone)"))
            }
        }
    }
}

impl From<FunctionalGroup> for FunctionalGroupFields {
    fn from(group: FunctionalGroup) -> Self {
        let (domain_zone_bit, domain, zone) = match group.placement {
            Placement::Domain(domain) => (DomainZoneBit::DOMAIN, Some(domain), None),
            Placement::Zone(zone) => (DomainZoneBit::ZONE, None, Some(zone)),
        };
        Self { domain_zone_bit, domain, zone, index: group.index }
    }
}

impl TryFrom<FunctionalGroupFields> for FunctionalGroup {
    type Error = &'static str;

    fn try_from(fields: FunctionalGroupFields) -> Result<Self, Self::Error> {
        let placement = match (fields.domain_zone_bit.0, fields.domain, fields.zone) {
            (0, Some(domain), None) => Placement::Domain(domain),
            (1, None, Some(zone)) => Placement::Zone(zone),
            (_, _, _) => return Err("domain where domain_zone_bit is 0, zone where it is 1, never both"),
        };
        Ok(Self { placement, index: fields.index })
    }
}
