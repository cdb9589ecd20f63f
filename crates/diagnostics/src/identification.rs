//! What an ECU says about itself: the inventory fields that UDS carries, and its banks.

use crate::settings::Identifiers;

/// An inventory field that is read from the ECU. The others (`mac_address`, `ip_address`, `can_id`) have
/// no UDS identifier and come from the topology file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdentificationField {
    /// Supplier code.
    SupplierCode,
    /// Hardware part number.
    HwPartNo,
    /// Software part number.
    SwPartNo,
    /// Version of the running software.
    SwVersion,
    /// Bootloader version.
    BootloaderVer,
    /// Calibration identifier.
    CalibrationId,
}

impl IdentificationField {
    /// All of them, in the order of the inventory.
    pub const ALL: [Self; 6] = [
        Self::SupplierCode,
        Self::HwPartNo,
        Self::SwPartNo,
        Self::SwVersion,
        Self::BootloaderVer,
        Self::CalibrationId,
    ];

    /// Its data identifier.
    pub fn identifier(self, identifiers: &Identifiers) -> u16 {
        match self {
            Self::SupplierCode => identifiers.supplier_code,
            Self::HwPartNo => identifiers.hw_part_no,
            Self::SwPartNo => identifiers.sw_part_no,
            Self::SwVersion => identifiers.sw_version,
            Self::BootloaderVer => identifiers.bootloader_ver,
            Self::CalibrationId => identifiers.calibration_id,
        }
    }

    /// Whether its value begins with the number of modules (ISO 14229-1 Annex C, F180 and F182).
    fn begins_with_module_count(self) -> bool {
        match self {
            Self::BootloaderVer | Self::CalibrationId => true,
            Self::SupplierCode | Self::HwPartNo | Self::SwPartNo | Self::SwVersion => false,
        }
    }
}

/// What was read of the requested fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identification {
    values: Vec<(IdentificationField, String)>,
}

impl Identification {
    /// Takes the data records that answered `fields`, in the same order.
    ///
    /// # Errors
    /// A record that is missing or is not a text.
    pub fn from_records(fields: &[IdentificationField], records: &[Vec<u8>]) -> Result<Self, NotAText> {
        let mut values = Vec::with_capacity(fields.len());
        for (position, field) in fields.iter().enumerate() {
            let record = records.get(position).map(Vec::as_slice).unwrap_or_default();
            let skipped = usize::from(field.begins_with_module_count());
            let text = text(record.get(skipped..).unwrap_or_default())
                .filter(|text| !text.is_empty())
                .ok_or(NotAText { field: *field, length: record.len() })?;
            values.push((*field, text));
        }
        Ok(Self { values })
    }

    /// The value of a field, if it was requested.
    pub fn get(&self, field: IdentificationField) -> Option<&str> {
        self.values.iter().find(|(name, _)| *name == field).map(|(_, value)| value.as_str())
    }
}

/// A data record that should have been a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected printable ASCII as {field:?}, found {length} bytes that are not; check the identifier in the topology file"
)]
pub struct NotAText {
    /// The field that was read.
    pub field: IdentificationField,
    /// Length of the record, in bytes.
    pub length: usize,
}

/// Whether the running software is on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// No update under way; the other bank may be anything.
    None,
    /// Activated, not confirmed: the ECU goes back by itself if nobody confirms.
    OnTrial,
    /// Confirmed; the other bank still holds the earlier software.
    Confirmed,
}

/// What an ECU runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Version of the running software.
    pub version: String,
    /// The bank it runs from, 0 or 1.
    pub active_bank: u8,
    /// Version of the software in the other bank, if that bank can be booted.
    pub other_bank_version: Option<String>,
    /// Whether it is on trial.
    pub trial: Trial,
}

impl Running {
    /// The data identifiers to read, in the order in which [`Running::from_records`] takes them.
    pub fn identifiers(identifiers: &Identifiers) -> Vec<u16> {
        vec![
            identifiers.sw_version,
            identifiers.active_bank,
            identifiers.other_bank_version,
            identifiers.trial_state,
        ]
    }

    /// Reads the data records; nothing if one of them is not what the convention says.
    pub fn from_records(records: &[Vec<u8>]) -> Option<Self> {
        let [version, active_bank, other_version, trial] = records else { return None };
        let [active_bank @ (0 | 1)] = active_bank.as_slice() else { return None };
        let trial = match trial.as_slice() {
            [0] => Trial::None,
            [1] => Trial::OnTrial,
            [2] => Trial::Confirmed,
            _ => return None,
        };
        Some(Self {
            version: text(version).filter(|text| !text.is_empty())?,
            active_bank: *active_bank,
            other_bank_version: Some(text(other_version)?).filter(|text| !text.is_empty()),
            trial,
        })
    }
}

/// A data record as text: printable ASCII, without the zeros or spaces that pad it.
fn text(record: &[u8]) -> Option<String> {
    let end = record.iter().rposition(|byte| *byte != 0 && *byte != b' ').map_or(0, |last| last + 1);
    let record = record.get(..end)?;
    let printable = record.iter().all(|byte| (0x20..0x7F).contains(byte));
    printable.then(|| String::from_utf8_lossy(record).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_and_module_count_are_not_part_of_a_value() {
        let fields = [IdentificationField::HwPartNo, IdentificationField::BootloaderVer];
        let read =
            Identification::from_records(&fields, &[b"HW-1\0\0 ".to_vec(), b"\x01BL-2.1".to_vec()]).unwrap();
        assert_eq!(read.get(IdentificationField::HwPartNo), Some("HW-1"));
        assert_eq!(read.get(IdentificationField::BootloaderVer), Some("BL-2.1"));
        assert_eq!(read.get(IdentificationField::SwVersion), None);
    }

    #[test]
    fn an_empty_or_binary_value_is_an_error_and_not_an_empty_field() {
        for record in [&b""[..], b"\0\0", b"A\x01B", b"\xFF"] {
            let read = Identification::from_records(&[IdentificationField::SwVersion], &[record.to_vec()]);
            assert!(read.is_err(), "{record:?}");
        }
    }

    #[test]
    fn what_runs_is_read_from_four_records() {
        let records = [b"2.0".to_vec(), vec![1], b"1.0".to_vec(), vec![2]];
        assert_eq!(
            Running::from_records(&records),
            Some(Running {
                version: "2.0".into(),
                active_bank: 1,
                other_bank_version: Some("1.0".into()),
                trial: Trial::Confirmed
            })
        );
        let empty_other_bank = [b"2.0".to_vec(), vec![0], vec![0], vec![0]];
        assert_eq!(Running::from_records(&empty_other_bank).unwrap().other_bank_version, None);
    }

    #[test]
    fn a_bank_other_than_0_or_1_is_not_accepted() {
        assert_eq!(Running::from_records(&[b"2.0".to_vec(), vec![2], vec![], vec![0]]), None);
    }
}
