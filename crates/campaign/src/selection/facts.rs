//! What is known of one vehicle, and whether a selection has it. The SQL of the store must say the same.

use std::borrow::Cow;

use farrier_protocol::{EcuEntry, Placement, Text, Zone};

use super::{EcuField, EcuTest, Selection, TextTest, VehicleField, VersionField};
use crate::version_key::version_key;

/// What a selection can ask of a vehicle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VehicleFacts<'v> {
    /// The vehicle's id.
    pub vehicle_id: &'v str,
    /// The id of its gateway.
    pub gateway_id: &'v str,
    /// Its vehicle identification number.
    pub vin: Option<&'v str>,
    /// Its region.
    pub region: Option<&'v str>,
    /// Its time zone.
    pub time_zone: Option<&'v str>,
    /// The type that it is approved as.
    pub vehicle_type: Option<&'v str>,
    /// Its tags.
    pub tags: Vec<&'v str>,
    /// Its ECUs; none where its inventory is not known.
    pub ecus: Vec<EcuFacts<'v>>,
}

/// What a selection can ask of an ECU, as the VCI says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EcuFacts<'v> {
    /// `ecu_id`.
    pub ecu_id: &'v str,
    /// `supplier_code`.
    pub supplier_code: Option<&'v str>,
    /// `hw_part_no`.
    pub hw_part_no: Option<&'v str>,
    /// `sw_part_no`.
    pub sw_part_no: Option<&'v str>,
    /// `sw_version`.
    pub sw_version: Option<&'v str>,
    /// `bootloader_ver`.
    pub bootloader_ver: Option<&'v str>,
    /// `calibration_id`.
    pub calibration_id: Option<&'v str>,
    /// `mac_address`.
    pub mac_address: Option<&'v str>,
    /// `ip_address`.
    pub ip_address: Option<&'v str>,
    /// `can_id`.
    pub can_id: Option<&'v str>,
    /// `functional_group.domain`.
    pub domain: Option<&'v str>,
    /// `functional_group.zone`; a number as decimal digits.
    pub zone: Option<Cow<'v, str>>,
}

impl<'v> From<&'v EcuEntry> for EcuFacts<'v> {
    fn from(ecu: &'v EcuEntry) -> Self {
        let text = |text: &'v Option<Text>| text.as_ref().map(Text::as_str);
        let (domain, zone) = match &ecu.functional_group.placement {
            Placement::Domain(domain) => (Some(domain.as_str()), None),
            Placement::Zone(Zone::Name(name)) => (None, Some(Cow::Borrowed(name.as_str()))),
            Placement::Zone(Zone::Number(number)) => (None, Some(Cow::Owned(number.to_string()))),
        };
        Self {
            ecu_id: ecu.ecu_id.as_str(),
            supplier_code: text(&ecu.supplier_code),
            hw_part_no: text(&ecu.hw_part_no),
            sw_part_no: text(&ecu.sw_part_no),
            sw_version: text(&ecu.sw_version),
            bootloader_ver: text(&ecu.bootloader_ver),
            calibration_id: text(&ecu.calibration_id),
            mac_address: ecu.mac_address.as_ref().map(AsRef::as_ref),
            ip_address: ecu.ip_address.as_ref().map(AsRef::as_ref),
            can_id: ecu.can_id.as_ref().map(AsRef::as_ref),
            domain,
            zone,
        }
    }
}

impl VehicleFacts<'_> {
    fn value(&self, field: VehicleField) -> Option<&str> {
        match field {
            VehicleField::Vehicle => Some(self.vehicle_id),
            VehicleField::Gateway => Some(self.gateway_id),
            VehicleField::Vin => self.vin,
            VehicleField::Region => self.region,
            VehicleField::TimeZone => self.time_zone,
            VehicleField::VehicleType => self.vehicle_type,
        }
    }
}

impl EcuFacts<'_> {
    fn value(&self, field: EcuField) -> Option<&str> {
        match field {
            EcuField::Id => Some(self.ecu_id),
            EcuField::SupplierCode => self.supplier_code,
            EcuField::HwPartNo => self.hw_part_no,
            EcuField::SwPartNo => self.sw_part_no,
            EcuField::SwVersion => self.sw_version,
            EcuField::BootloaderVer => self.bootloader_ver,
            EcuField::CalibrationId => self.calibration_id,
            EcuField::MacAddress => self.mac_address,
            EcuField::IpAddress => self.ip_address,
            EcuField::CanId => self.can_id,
            EcuField::Domain => self.domain,
            EcuField::Zone => self.zone.as_deref(),
        }
    }

    fn version(&self, field: VersionField) -> Option<&str> {
        match field {
            VersionField::SwVersion => self.sw_version,
            VersionField::BootloaderVer => self.bootloader_ver,
        }
    }

    fn satisfies(&self, test: &EcuTest) -> bool {
        match test {
            EcuTest::Text { field, test } => test.holds(self.value(*field)),
            EcuTest::Version { field, order, than } => {
                let key = self.version(*field).and_then(version_key);
                key.is_some_and(|key| order.holds(key.as_str().cmp(than.key())))
            }
        }
    }
}

impl Selection {
    /// Whether the selection has this vehicle.
    pub fn matches(&self, vehicle: &VehicleFacts<'_>) -> bool {
        match self {
            Self::All => true,
            Self::And(parts) => parts.iter().all(|part| part.matches(vehicle)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(vehicle)),
            Self::Not(part) => !part.matches(vehicle),
            Self::Vehicle(test) => test.test.holds(vehicle.value(test.field)),
            Self::Tag(test) => test.holds_for_tags(&vehicle.tags),
            Self::HasEcu(tests) => {
                vehicle.ecus.iter().any(|ecu| tests.iter().all(|test| ecu.satisfies(test)))
            }
        }
    }
}

impl TextTest {
    /// Whether a value, or its absence, satisfies the test.
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::Is(text) => value == Some(text.as_str()),
            Self::IsNot(text) => value.is_some_and(|value| value != text.as_str()),
            Self::In(texts) => value.is_some_and(|value| among(texts, value)),
            Self::NotIn(texts) => value.is_some_and(|value| !among(texts, value)),
            Self::StartsWith(prefix) => value.is_some_and(|value| value.starts_with(prefix.as_str())),
            Self::Known => value.is_some(),
            Self::Unknown => value.is_none(),
        }
    }

    fn holds_for_tags(&self, tags: &[&str]) -> bool {
        match self {
            Self::Is(text) => tags.contains(&text.as_str()),
            Self::IsNot(text) => !tags.contains(&text.as_str()),
            Self::In(texts) => tags.iter().any(|tag| among(texts, tag)),
            Self::NotIn(texts) => !tags.iter().any(|tag| among(texts, tag)),
            Self::StartsWith(prefix) => tags.iter().any(|tag| tag.starts_with(prefix.as_str())),
            Self::Known => !tags.is_empty(),
            Self::Unknown => tags.is_empty(),
        }
    }
}

fn among(texts: &[Text], value: &str) -> bool {
    texts.iter().any(|text| text.as_str() == value)
}
