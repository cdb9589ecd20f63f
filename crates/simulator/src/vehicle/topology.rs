//! Writes the gateway's topology file for the controllers that listen now.

use std::net::SocketAddr;

use farrier_protocol::{CanId, EcuId, IpAddress, MacAddress};
use serde::Serialize;

use super::controller::{CAN_INTERFACE, RunningController, can_ids, controller_address, ecu_address};
use super::{ControllerPlacement, VehicleConfig, VehicleError};

#[derive(Serialize)]
struct File<'a> {
    security_algorithm: &'static str,
    controller: Vec<Controller<'a>>,
    ecu: Vec<Ecu<'a>>,
}

#[derive(Serialize)]
struct Controller<'a> {
    name: &'a str,
    #[serde(flatten)]
    transport: Transport,
}

/// How the gateway reaches a controller.
#[derive(Serialize)]
#[serde(untagged)]
enum Transport {
    DoIp { address: SocketAddr, logical_address: u16 },
    Can { can: Interface },
}

#[derive(Serialize)]
struct Interface {
    interface: &'static str,
    socketcand: SocketAddr,
}

/// An ECU's address behind a controller.
#[derive(Serialize)]
#[serde(untagged)]
enum Address {
    DoIp { logical_address: u16 },
    Can { can: CanIds },
}

#[derive(Serialize)]
struct CanIds {
    request_id: u32,
    response_id: u32,
}

#[derive(Serialize)]
struct Ecu<'a> {
    ecu_id: &'a EcuId,
    controller: &'a str,
    #[serde(flatten)]
    address: Address,
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

/// The topology file of this vehicle; `running` are its controllers in the same order.
pub(super) fn text(config: &VehicleConfig, running: &[RunningController]) -> Result<String, VehicleError> {
    let mut file = File {
        security_algorithm: "insecure-xor-a5-for-simulators-only",
        controller: Vec::new(),
        ecu: Vec::new(),
    };
    for (position, (controller, running)) in config.controllers.iter().zip(running).enumerate() {
        let controller_address = controller_address(position)?;
        let transport = transport(running, controller_address);
        file.controller.push(Controller { name: &controller.name, transport });
        for (position, ecu) in controller.ecus.iter().enumerate() {
            file.ecu.push(Ecu {
                ecu_id: &ecu.ecu_id,
                controller: &controller.name,
                address: address(running, controller_address, position)?,
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

fn transport(running: &RunningController, logical_address: u16) -> Transport {
    match running {
        RunningController::DoIp(entity) => Transport::DoIp { address: entity.tcp_address(), logical_address },
        RunningController::Can(bus) => {
            Transport::Can { can: Interface { interface: CAN_INTERFACE, socketcand: bus.address() } }
        }
    }
}

fn address(
    running: &RunningController,
    controller_address: u16,
    position: usize,
) -> Result<Address, VehicleError> {
    Ok(match running {
        RunningController::DoIp(_) => {
            Address::DoIp { logical_address: ecu_address(controller_address, position)? }
        }
        RunningController::Can(_) => {
            let (request_id, response_id) = can_ids(position)?;
            Address::Can { can: CanIds { request_id, response_id } }
        }
    })
}
