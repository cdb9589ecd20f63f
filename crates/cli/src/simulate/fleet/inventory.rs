//! The ECUs that every vehicle of a fleet has, and the inventory of one vehicle.

use anyhow::Context;
use farrier_protocol::{
    CanId, ChargingStatus, EcuEntry, EcuId, FunctionalGroup, MsgId, Placement, PowerSnapshot, SendVci, Text,
    VciField,
};

/// What the vehicles have in common.
pub(super) struct Model {
    ecus: Vec<EcuKind>,
    region: Text,
    first_version: Text,
    supplier_code: Text,
    calibration_id: Text,
}

/// One ECU of each vehicle.
pub(super) struct EcuKind {
    ecu_id: EcuId,
    pub(super) hw_part_no: Text,
    sw_part_no: Text,
    can_id: CanId,
    functional_group: FunctionalGroup,
}

impl Model {
    /// Vehicles with so many ECUs, all at this version at first. Their hardware has names with this tag.
    pub(super) fn new(ecus: u8, first_version: &str, tag: &str) -> anyhow::Result<Self> {
        let ecu = |number: u8| {
            Ok(EcuKind {
                ecu_id: format!("ecu_{number:03}").parse()?,
                hw_part_no: format!("HW-{tag}-{number:03}").parse()?,
                sw_part_no: format!("SW-{tag}-{number:03}").parse()?,
                can_id: format!("0x{:03X}", 0x100 + u16::from(number)).parse()?,
                functional_group: FunctionalGroup {
                    placement: Placement::Domain("body".parse()?),
                    index: Some(number),
                },
            })
        };
        let ecus: anyhow::Result<Vec<_>> = (1..=ecus).map(ecu).collect();
        Ok(Self {
            ecus: ecus.context("the ECUs of the fleet have no good names")?,
            region: "KR".parse()?,
            first_version: first_version.parse()?,
            supplier_code: "FARRIER-SIM".parse()?,
            calibration_id: "CAL-SIM-2026".parse()?,
        })
    }

    pub(super) fn ecus(&self) -> &[EcuKind] {
        &self.ecus
    }

    /// What each ECU runs at first.
    pub(super) fn first_versions(&self) -> Vec<Text> {
        vec![self.first_version.clone(); self.ecus.len()]
    }

    /// What the gateways themselves run, always.
    pub(super) fn gateway_version(&self) -> &Text {
        &self.first_version
    }

    /// The place of an ECU in the model, if it has this hardware.
    pub(super) fn place(&self, ecu_id: &EcuId, hw_part_no: &Text) -> Option<usize> {
        self.ecus.iter().position(|ecu| ecu.ecu_id == *ecu_id && ecu.hw_part_no == *hw_part_no)
    }
}

/// The inventory with the fields that were asked for, and no other.
pub(super) fn inventory(
    model: &Model,
    command: MsgId,
    fields: &[VciField],
    running: &[Text],
    gateway_version: &Text,
) -> SendVci {
    let asked = |field: VciField| fields.contains(&field);
    let entry = |(ecu, version): (&EcuKind, &Text)| EcuEntry {
        ecu_id: ecu.ecu_id.clone(),
        supplier_code: asked(VciField::SupplierCode).then(|| model.supplier_code.clone()),
        hw_part_no: asked(VciField::HwPartNo).then(|| ecu.hw_part_no.clone()),
        sw_part_no: asked(VciField::SwPartNo).then(|| ecu.sw_part_no.clone()),
        sw_version: asked(VciField::SwVersion).then(|| version.clone()),
        bootloader_ver: asked(VciField::BootloaderVer).then(|| model.first_version.clone()),
        calibration_id: asked(VciField::CalibrationId).then(|| model.calibration_id.clone()),
        mac_address: None,
        ip_address: None,
        can_id: asked(VciField::CanId).then(|| ecu.can_id.clone()),
        functional_group: ecu.functional_group.clone(),
    };
    let power = PowerSnapshot {
        battery_12v_v: asked(VciField::PowerBattery12V).then_some(12.6),
        battery_48v_v: asked(VciField::PowerBattery48V).then_some(48.1),
        charging_status: asked(VciField::PowerChargingStatus).then_some(ChargingStatus::NotCharging),
    };
    SendVci {
        correlation_id: command,
        region: Some(model.region.clone()),
        fw_sw_version: gateway_version.clone(),
        bootloader_ver: Some(gateway_version.clone()),
        ecu_inventory: model.ecus.iter().zip(running).map(entry).collect(),
        power: (power != PowerSnapshot::default()).then_some(power),
    }
}
