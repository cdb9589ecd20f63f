//! What this gateway writes on each of its messages.

use farrier_protocol::{Binding, InvalidValue, MsgId, ProtoVer, VehicleBody, VehicleMessage};
use uuid::Uuid;

use crate::clock;

/// A `msg_id` that no message of this gateway has had.
pub(crate) fn new_msg_id() -> Result<MsgId, InvalidValue> {
    format!("VMG-{}", Uuid::now_v7()).parse()
}

/// A new message of this gateway.
pub(crate) fn message(binding: &Binding, body: VehicleBody) -> Result<VehicleMessage, InvalidValue> {
    Ok(VehicleMessage {
        msg_id: new_msg_id()?,
        proto_ver: ProtoVer::CURRENT,
        vehicle_id: binding.vehicle_id.clone(),
        gateway_id: binding.gateway_id.clone(),
        ts: clock::now(),
        body,
    })
}
