//! What queries can name, and which name an unknown one was probably meant to be.

/// Defines the fields of one thing by the names that queries use for them.
macro_rules! fields {
    ($(#[$doc:meta])* $enum:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $enum {
            /// Every field, in the order in which people are told of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in queries.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The field of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|field| field.name() == name)
            }
        }
    };
}

fields! {
    /// A field of the vehicle. Its tags are apart: [`Selection::Tag`](super::Selection::Tag).
    VehicleField {
        /// The vehicle's id.
        Vehicle = "vehicle",
        /// The id of its gateway.
        Gateway = "gateway",
        /// Its vehicle identification number.
        Vin = "vin",
        /// Its region.
        Region = "region",
        /// Its time zone.
        TimeZone = "time_zone",
        /// The type that it is approved as.
        VehicleType = "vehicle_type",
    }
}

fields! {
    /// A field of an ECU, by its name in the VCI (protocol.md §4.3).
    EcuField {
        /// `ecu_id`.
        Id = "ecu.id",
        /// `supplier_code`.
        SupplierCode = "ecu.supplier_code",
        /// `hw_part_no`.
        HwPartNo = "ecu.hw_part_no",
        /// `sw_part_no`.
        SwPartNo = "ecu.sw_part_no",
        /// `sw_version`.
        SwVersion = "ecu.sw_version",
        /// `bootloader_ver`.
        BootloaderVer = "ecu.bootloader_ver",
        /// `calibration_id`.
        CalibrationId = "ecu.calibration_id",
        /// `mac_address`, compared as the vehicle wrote it.
        MacAddress = "ecu.mac_address",
        /// `ip_address`, compared as the vehicle wrote it.
        IpAddress = "ecu.ip_address",
        /// `can_id`, compared as the vehicle wrote it.
        CanId = "ecu.can_id",
        /// `functional_group.domain`, known where the ECU stands behind a domain controller.
        Domain = "ecu.domain",
        /// `functional_group.zone`, known where the ECU stands behind a zonal controller; a number as its digits.
        Zone = "ecu.zone",
    }
}

fields! {
    /// A field of an ECU that is a version, so that there is an order.
    VersionField {
        /// `sw_version`.
        SwVersion = "ecu.sw_version",
        /// `bootloader_ver`.
        BootloaderVer = "ecu.bootloader_ver",
    }
}

impl VehicleField {
    /// Whether there are vehicles of which this is not known.
    pub const fn may_be_unknown(self) -> bool {
        match self {
            Self::Vehicle | Self::Gateway => false,
            Self::Vin | Self::Region | Self::TimeZone | Self::VehicleType => true,
        }
    }
}

/// The name by which queries speak of tags.
pub(super) const TAG: &str = "tag";

/// The names of the wire contract and of the API that are others in queries.
const OTHER_SPELLINGS: [(&str, &str); 4] =
    [("vehicle_id", "vehicle"), ("gateway_id", "gateway"), ("ecu_id", "ecu.id"), ("ecu.ecu_id", "ecu.id")];

/// All names that queries can use.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let of_vehicles = VehicleField::ALL.iter().map(|field| field.name());
    of_vehicles.chain([TAG]).chain(EcuField::ALL.iter().map(|field| field.name()))
}

/// The name that was probably meant: the nearest one, if a third of the letters differ at most.
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    let unknown = unknown.to_lowercase();
    let bare = names().filter_map(|name| Some((name.strip_prefix("ecu.")?, name)));
    let spellings = names().map(|name| (name, name)).chain(bare).chain(OTHER_SPELLINGS);
    let (distance, spelling, name) = spellings
        .map(|(spelling, name)| (distance(&unknown, spelling), spelling, name))
        .min_by_key(|(distance, _, _)| *distance)?;
    let letters = unknown.chars().count().max(spelling.len());
    (distance.saturating_mul(3) <= letters).then_some(name)
}

/// Letters to insert, leave out or change (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (place, letter) in from.chars().enumerate() {
        let mut left = place.saturating_add(1);
        let mut next = vec![left];
        for ((diagonal, above), other) in row.iter().zip(row.iter().skip(1)).zip(to.chars()) {
            let changed = diagonal.saturating_add(usize::from(letter != other));
            left = changed.min(above.saturating_add(1)).min(left.saturating_add(1));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        for (unknown, meant) in [
            ("regoin", Some("region")),
            ("Region", Some("region")),
            ("tags", Some("tag")),
            ("vehicle_id", Some("vehicle")),
            ("timezone", Some("time_zone")),
            ("sw_version", Some("ecu.sw_version")),
            ("zone", Some("ecu.zone")),
            ("ecu.supplier", Some("ecu.supplier_code")),
            ("ecu.ecu_id", Some("ecu.id")),
            ("colour", None),
            ("지역", None),
            ("ecu.serial_no", None),
        ] {
            assert_eq!(nearest(unknown), meant, "{unknown}");
        }
    }

    #[test]
    fn distances() {
        for (from, to, expected) in [("", "", 0), ("", "ab", 2), ("ab", "", 2), ("kitten", "sitting", 3)] {
            assert_eq!(distance(from, to), expected);
        }
    }

    #[test]
    fn every_version_field_is_an_ecu_field() {
        assert!(VersionField::ALL.iter().all(|field| EcuField::named(field.name()).is_some()));
    }
}
