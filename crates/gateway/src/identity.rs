//! What this gateway writes on each of its messages.

use farrier_protocol::{Binding, InvalidValue, MsgId, ProtoVer, VehicleBody, VehicleMessage};
use uuid::Uuid;

use crate::clock;

/// How many ECUs or packages an ErrorResponse names, so that it always fits its topic's 16 KiB.
const MAX_NAMED: usize = 90;

/// A new message of this gateway, with a `msg_id` that none has had.
pub(crate) fn message(binding: &Binding, mut body: VehicleBody) -> Result<VehicleMessage, InvalidValue> {
    if let VehicleBody::ErrorResponse(error) = &mut body {
        error.failed_ecus.iter_mut().for_each(|ecus| ecus.truncate(MAX_NAMED));
        error.pkg_ids.iter_mut().for_each(|packages| packages.truncate(MAX_NAMED));
    }
    let msg_id: MsgId = format!("VMG-{}", Uuid::now_v7()).parse()?;
    Ok(VehicleMessage {
        msg_id,
        proto_ver: ProtoVer::CURRENT,
        vehicle_id: binding.vehicle_id.clone(),
        gateway_id: binding.gateway_id.clone(),
        ts: clock::now(),
        body,
    })
}

#[cfg(test)]
mod tests {
    use farrier_protocol::{EcuId, ErrorCode, ErrorResponse, LongText, PkgId, UpTopic};

    use super::*;

    #[test]
    fn the_longest_error_response_fits_its_topic() {
        let binding =
            Binding { vehicle_id: "V".repeat(64).parse().unwrap(), gateway_id: "G".parse().unwrap() };
        let error = ErrorResponse {
            correlation_id: "SRV_1".parse().unwrap(),
            code: ErrorCode::VciIncomplete,
            detail: LongText::beginning_of(&"🚗".repeat(600)),
            failed_ecus: Some(vec!["e".repeat(64).parse::<EcuId>().unwrap(); 512]),
            pkg_ids: Some(vec!["p".repeat(64).parse::<PkgId>().unwrap(); 512]),
            retry_after_s: Some(u64::MAX),
        };
        let message = message(&binding, VehicleBody::ErrorResponse(error)).unwrap();
        assert!(message.to_json().len() <= UpTopic::Error.max_payload_bytes());
    }
}
