//! A running controller of a vehicle with the ECUs behind it, and the addresses that follow from its place.

use std::path::Path;

use super::{ControllerConfig, EcuOfVehicle, VehicleConfig, VehicleError};
use crate::can_bus::{CanBus, CanBusConfig, CanEcuConfig};
use crate::doip_entity::{DoipEntity, EntityConfig};
use crate::ecu::{EcuConfig, EcuHandle};

/// Logical addresses of the controllers begin here, 0x100 apart; their ECUs follow each.
const FIRST_CONTROLLER_ADDRESS: u16 = 0x1000;
const CONTROLLER_ADDRESS_STEP: u16 = 0x100;

/// The name under which the gateway opens a bus; each bus has a socketcand server of its own.
pub(super) const CAN_INTERFACE: &str = "can0";

/// The external tester's address in normal fixed addressing (ISO 15765-4).
const TESTER_ON_CAN: u8 = 0xF1;

/// What stands between the gateway and ECUs.
#[derive(Debug)]
pub(super) enum RunningController {
    /// A domain or zonal controller that the gateway reaches by DoIP.
    DoIp(DoipEntity),
    /// No controller but a bus that the gateway is on itself.
    Can(CanBus),
}

impl RunningController {
    /// Powers up the ECUs behind the controller at this position of the vehicle.
    pub(super) async fn start(
        config: &VehicleConfig,
        controller: &ControllerConfig,
        position: usize,
        ecu_folder: &Path,
    ) -> Result<Self, VehicleError> {
        let address = controller_address(position)?;
        let ecus = ecu_configs(controller, address)?;
        if controller.can {
            let bus = CanBusConfig { interface: CAN_INTERFACE.to_owned(), listen: controller.listen };
            return Ok(Self::Can(CanBus::start(bus, on_can(ecus)?, ecu_folder).await?));
        }
        let entity = entity_config(config, controller, address);
        Ok(Self::DoIp(DoipEntity::start(entity, ecus, ecu_folder).await?))
    }

    /// The faults and the power of one of its ECUs.
    pub(super) fn ecu(&self, ecu_id: &str) -> Option<EcuHandle> {
        match self {
            Self::DoIp(entity) => entity.ecu(ecu_id),
            Self::Can(bus) => bus.ecu(ecu_id),
        }
    }

    /// Switches its ECUs off.
    pub(super) async fn stop(self) {
        match self {
            Self::DoIp(entity) => entity.stop().await,
            Self::Can(bus) => bus.stop().await,
        }
    }
}

pub(super) fn controller_address(position: usize) -> Result<u16, VehicleError> {
    // Addresses up to 0x6FFF: those from 0x7000 on have other uses (ISO 13400-2, table 13).
    let position = u16::try_from(position).ok().filter(|position| *position < 96);
    position
        .map(|position| FIRST_CONTROLLER_ADDRESS + position * CONTROLLER_ADDRESS_STEP)
        .ok_or(VehicleError::TooManyEcus)
}

/// The logical address of an ECU by its position behind a controller.
pub(super) fn ecu_address(controller: u16, position: usize) -> Result<u16, VehicleError> {
    let offset = u8::try_from(position + 1).map_err(|_| VehicleError::TooManyEcus)?;
    Ok(controller + u16::from(offset))
}

/// The identifiers (request, response) of an ECU's diagnostics by its position on a bus: normal fixed addressing
/// (ISO 15765-2), the gateway as the external tester F1.
pub(super) fn can_ids(position: usize) -> Result<(u32, u32), VehicleError> {
    // Addresses below the tester's own: the two identifiers must differ.
    let ecu = u8::try_from(position + 1).ok().filter(|ecu| *ecu < TESTER_ON_CAN);
    let ecu = u32::from(ecu.ok_or(VehicleError::TooManyEcus)?);
    let tester = u32::from(TESTER_ON_CAN);
    Ok((0x18DA_0000 | ecu << 8 | tester, 0x18DA_0000 | tester << 8 | ecu))
}

fn on_can(ecus: Vec<EcuConfig>) -> Result<Vec<CanEcuConfig>, VehicleError> {
    let with_ids = |(position, ecu)| {
        let (request_id, response_id) = can_ids(position)?;
        Ok(CanEcuConfig { request_id, response_id, ecu })
    };
    ecus.into_iter().enumerate().map(with_ids).collect()
}

fn entity_config(config: &VehicleConfig, controller: &ControllerConfig, address: u16) -> EntityConfig {
    let [high, low] = address.to_be_bytes();
    let letters: String =
        config.vehicle_id.as_str().chars().filter(char::is_ascii_alphanumeric).take(17).collect();
    EntityConfig {
        name: format!("{}/{}", config.vehicle_id, controller.name),
        logical_address: address,
        listen: controller.listen,
        vin: format!("{:0>17}", letters.to_ascii_uppercase()),
        entity_id: [0x02, 0, 0, 0, high, low],
        announce_to: None,
        max_connections: 64,
        initial_inactivity_ms: 2_000,
        general_inactivity_ms: 300_000,
    }
}

fn ecu_configs(controller: &ControllerConfig, address: u16) -> Result<Vec<EcuConfig>, VehicleError> {
    let ecu_config = |(position, ecu): (usize, &EcuOfVehicle)| {
        Ok(EcuConfig {
            ecu_id: ecu.ecu_id.to_string(),
            logical_address: ecu_address(address, position)?,
            supplier_code: ecu.supplier_code.to_string(),
            hw_part_no: ecu.hw_part_no.to_string(),
            sw_part_no: ecu
                .sw_part_no
                .as_ref()
                .map_or_else(|| format!("SW-{}", ecu.ecu_id), ToString::to_string),
            sw_version: ecu.sw_version.to_string(),
            bootloader_ver: ecu.bootloader_ver.to_string(),
            calibration_id: ecu.calibration_id.to_string(),
            timing: ecu.timing.clone(),
            faults: ecu.faults.clone(),
        })
    };
    controller.ecus.iter().enumerate().map(ecu_config).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_addresses_stay_within_those_of_ecus() {
        assert_eq!(controller_address(0).unwrap(), 0x1000);
        assert_eq!(ecu_address(controller_address(95).unwrap(), 254).unwrap(), 0x6FFF);
        assert!(controller_address(96).is_err() && ecu_address(0x1000, 255).is_err());
    }

    #[test]
    fn identifiers_on_a_bus_differ_and_end_before_the_testers_own() {
        assert_eq!(can_ids(0).unwrap(), (0x18DA_01F1, 0x18DA_F101));
        assert_eq!(can_ids(239).unwrap(), (0x18DA_F0F1, 0x18DA_F1F0));
        assert!(can_ids(240).is_err() && can_ids(255).is_err());
    }
}
