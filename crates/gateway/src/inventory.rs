//! The vehicle configuration inventory (VCI): every ECU asked at the same time, complete or not at all.

use std::time::Duration;

use farrier_diagnostics::IdentificationField;
use farrier_protocol::{EcuEntry, EcuId, MsgId, PowerSnapshot, RequestVci, SendVci, Text, VciField};
use farrier_vehicle_update::VehicleSignals;
use futures_util::future::join_all;

use crate::config::GatewayConfig;
use crate::ecu_link::EcuLinks;
use crate::error_text::with_causes;
use crate::readiness::SignalsUnavailable;
use crate::topology::EcuPlace;

/// Why there is no inventory: ErrorResponse(VCI_INCOMPLETE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incomplete {
    /// The ECUs that did not answer as they should.
    pub failed_ecus: Vec<EcuId>,
    /// For people.
    pub detail: String,
}

/// Asks every ECU of the topology for the requested fields, each for at most `patience`.
pub(crate) async fn collect(
    links: &EcuLinks,
    config: &GatewayConfig,
    command: &MsgId,
    request: &RequestVci,
    signals: Result<VehicleSignals, SignalsUnavailable>,
    patience: Duration,
) -> Result<SendVci, Incomplete> {
    let power = power_snapshot(&request.fields, signals)?;
    let entries = links.topology().ecus.iter().map(|place| async move {
        let entry = tokio::time::timeout(patience, entry(links, place, &request.fields)).await;
        let late = |_| format!("no answer within {} ms", patience.as_millis());
        (&place.ecu_id, entry.map_err(late).and_then(|entry| entry))
    });
    let mut ecu_inventory = Vec::new();
    let mut failures = Vec::new();
    for (ecu_id, entry) in join_all(entries).await {
        match entry {
            Ok(entry) => ecu_inventory.push(entry),
            Err(detail) => failures.push((ecu_id.clone(), detail)),
        }
    }
    if !failures.is_empty() {
        let details: Vec<String> =
            failures.iter().map(|(ecu_id, detail)| format!("{ecu_id}: {detail}")).collect();
        let failed_ecus = failures.into_iter().map(|(ecu_id, _)| ecu_id).collect();
        return Err(Incomplete { failed_ecus, detail: details.join("; ") });
    }
    Ok(SendVci {
        correlation_id: command.clone(),
        region: config.region.clone(),
        fw_sw_version: config.fw_sw_version.clone(),
        bootloader_ver: config.bootloader_ver.clone(),
        ecu_inventory,
        power,
    })
}

async fn entry(links: &EcuLinks, place: &EcuPlace, fields: &[VciField]) -> Result<EcuEntry, String> {
    let asked: Vec<IdentificationField> = IdentificationField::ALL
        .into_iter()
        .filter(|field| fields.iter().any(|requested| read_from_ecu(*requested) == Some(*field)))
        .collect();
    let read = links.read_identification(&place.ecu_id, &asked).await.map_err(|error| with_causes(&error))?;
    let value = |field: IdentificationField| -> Result<Option<Text>, String> {
        let Some(text) = read.get(field) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| format!("{field:?}: {error}"))
    };
    let wanted = |field: VciField| fields.contains(&field);
    let mac_address =
        if wanted(VciField::MacAddress) { links.mac_address(&place.ecu_id).await } else { None };
    Ok(EcuEntry {
        ecu_id: place.ecu_id.clone(),
        supplier_code: value(IdentificationField::SupplierCode)?,
        hw_part_no: value(IdentificationField::HwPartNo)?,
        sw_part_no: value(IdentificationField::SwPartNo)?,
        sw_version: value(IdentificationField::SwVersion)?,
        bootloader_ver: value(IdentificationField::BootloaderVer)?,
        calibration_id: value(IdentificationField::CalibrationId)?,
        mac_address,
        ip_address: place.ip_address.clone().filter(|_| wanted(VciField::IpAddress)),
        can_id: place.can_id.clone().filter(|_| wanted(VciField::CanId)),
        functional_group: place.functional_group.clone(),
    })
}

/// Which fields the ECU itself is asked for; the others come from the topology or the signals.
fn read_from_ecu(field: VciField) -> Option<IdentificationField> {
    match field {
        VciField::SupplierCode => Some(IdentificationField::SupplierCode),
        VciField::HwPartNo => Some(IdentificationField::HwPartNo),
        VciField::SwPartNo => Some(IdentificationField::SwPartNo),
        VciField::SwVersion => Some(IdentificationField::SwVersion),
        VciField::BootloaderVer => Some(IdentificationField::BootloaderVer),
        VciField::CalibrationId => Some(IdentificationField::CalibrationId),
        VciField::EcuId
        | VciField::MacAddress
        | VciField::IpAddress
        | VciField::CanId
        | VciField::PowerBattery12V
        | VciField::PowerBattery48V
        | VciField::PowerChargingStatus => None,
    }
}

/// The requested power values; all of them or no inventory, since each requested field must be there.
fn power_snapshot(
    fields: &[VciField],
    signals: Result<VehicleSignals, SignalsUnavailable>,
) -> Result<Option<PowerSnapshot>, Incomplete> {
    const POWER: [VciField; 3] =
        [VciField::PowerBattery12V, VciField::PowerBattery48V, VciField::PowerChargingStatus];
    if !POWER.iter().any(|field| fields.contains(field)) {
        return Ok(None);
    }
    let incomplete = |detail| Incomplete { failed_ecus: Vec::new(), detail };
    let measured = signals.map_err(|error| incomplete(with_causes(&error)))?.conditions;
    let snapshot = PowerSnapshot {
        battery_12v_v: measured.battery_12v_v.filter(|_| fields.contains(&VciField::PowerBattery12V)),
        battery_48v_v: measured.battery_48v_v.filter(|_| fields.contains(&VciField::PowerBattery48V)),
        charging_status: measured.charging_status.filter(|_| fields.contains(&VciField::PowerChargingStatus)),
    };
    for (field, is_there) in POWER.into_iter().zip([
        snapshot.battery_12v_v.is_some(),
        snapshot.battery_48v_v.is_some(),
        snapshot.charging_status.is_some(),
    ]) {
        if fields.contains(&field) && !is_there {
            return Err(incomplete(format!("{field:?} cannot be measured on this vehicle")));
        }
    }
    Ok(Some(snapshot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals() -> VehicleSignals {
        let mut signals = VehicleSignals::default();
        signals.conditions.battery_12v_v = Some(12.5);
        signals
    }

    #[test]
    fn the_power_snapshot_holds_what_was_asked_for_and_nothing_else() {
        assert_eq!(power_snapshot(&[VciField::SwVersion], Ok(signals())), Ok(None));
        let snapshot = power_snapshot(&[VciField::PowerBattery12V], Ok(signals())).unwrap().unwrap();
        assert_eq!((snapshot.battery_12v_v, snapshot.charging_status), (Some(12.5), None));
    }

    #[test]
    fn a_power_value_that_cannot_be_measured_leaves_the_inventory_incomplete() {
        let incomplete = power_snapshot(&[VciField::PowerBattery48V], Ok(signals())).unwrap_err();
        assert!(incomplete.detail.contains("PowerBattery48V"), "{}", incomplete.detail);
    }
}
