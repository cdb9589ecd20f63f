//! Writes the gateway's topology file for the entities that listen now.

use std::net::SocketAddr;

use farrier_protocol::{CanId, EcuId, IpAddress, MacAddress};
use serde::Serialize;

use super::{ControllerPlacement, VehicleConfig, VehicleError, controller_address, ecu_address};
use crate::doip_entity::DoipEntity;

#[derive(Serialize)]
struct File<'a> {
    security_algorithm: &'static str,
    controller: Vec<Controller<'a>>,
    ecu: Vec<Ecu<'a>>,
}

#[derive(Serialize)]
struct Controller<'a> {
    name: &'a str,
    address: SocketAddr,
    logical_address: u16,
}

#[derive(Serialize)]
struct Ecu<'a> {
    ecu_id: &'a EcuId,
    controller: &'a str,
    logical_address: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac_address: Option<&'a MacAddress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<&'a IpAddress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    can_id: Option<&'a CanId>,
    functional_group: Group<'a>,
}

#[derive(Serialize)]
struct Group<'a> {
    #[serde(flatten)]
    placement: &'a ControllerPlacement,
    index: u8,
}

/// The topology file of this vehicle; `entities` are its controllers in the same order.
pub(super) fn text(config: &VehicleConfig, entities: &[DoipEntity]) -> Result<String, VehicleError> {
    let mut file = File {
        security_algorithm: "insecure-xor-a5-for-simulators-only",
        controller: Vec::new(),
        ecu: Vec::new(),
    };
    for (position, (controller, entity)) in config.controllers.iter().zip(entities).enumerate() {
        let logical_address = controller_address(position)?;
        file.controller.push(Controller {
            name: &controller.name,
            address: entity.tcp_address(),
            logical_address,
        });
        for (position, ecu) in controller.ecus.iter().enumerate() {
            file.ecu.push(Ecu {
                ecu_id: &ecu.ecu_id,
                controller: &controller.name,
                logical_address: ecu_address(logical_address, position)?,
                mac_address: ecu.mac_address.as_ref(),
                ip_address: ecu.ip_address.as_ref(),
                can_id: ecu.can_id.as_ref(),
                functional_group: Group {
                    placement: &controller.placement,
                    index: u8::try_from(position + 1).map_err(|_| VehicleError::TooManyEcus)?,
                },
            });
        }
    }
    toml::to_string(&file).map_err(|error| VehicleError::State {
        path: config.state_dir.join("topology.toml"),
        source: std::io::Error::other(error),
    })
}
