//! What the fuzz targets of the gateway run: whatever the server, or whoever is in its place, may send down, and
//! whatever a controller may send back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

use farrier_protocol::{
    Binding, ErrorCode, ErrorResponse, LongText, ServerBody, UnixMillis, VehicleBody, VehicleMessage,
};
use farrier_vehicle_update::{Bounds, Phase, Plan, VehicleUpdate};

use crate::download::package_url;
pub use crate::ecu_link::doip_gateway;
use crate::identity;
use crate::readiness;
use crate::server_link::Received;

const RECEIVED_AT: UnixMillis = UnixMillis(1_800_000_000_000);

/// The payload of a publication on the gateway's own `down` topic.
///
/// - a command for another vehicle, or one that cannot be answered, is not taken in;
/// - every other one is read the same when the journal gives it back, and its refusal fits into an answer;
/// - a plan is for this vehicle's ECUs, each once, and survives the journal;
/// - nothing is fetched from outside of the base URL.
pub fn commands(payload: &[u8]) {
    let own = Binding { vehicle_id: "VEH_001".parse().unwrap(), gateway_id: "CCU_001".parse().unwrap() };
    let Some(received) = Received::read(payload, RECEIVED_AT, &own) else { return };
    let again = Received::read(payload, RECEIVED_AT, &own).unwrap();
    assert_eq!((&again.msg_id, &again.message), (&received.msg_id, &received.message));
    let message = match received.message {
        Ok(message) => message,
        Err(refusal) => {
            let detail = LongText::beginning_of(&refusal.to_string());
            let (code, correlation_id) = (ErrorCode::Unsupported, received.msg_id);
            let answer = ErrorResponse {
                correlation_id,
                code,
                detail,
                failed_ecus: None,
                pkg_ids: None,
                retry_after_s: None,
            };
            return is_sendable(&own, VehicleBody::ErrorResponse(answer));
        }
    };
    assert_eq!(message.binding(), own);
    let expires_at = message.expires_at(received.received_at);
    assert!(
        expires_at.is_some()
            || !matches!(message.body, ServerBody::RequestVci(_) | ServerBody::StartDownload(_))
    );
    match message.body {
        ServerBody::RequestDownloadReadiness(request) => {
            let most = request.packages.iter().map(|package| package.size_bytes).max();
            assert!(readiness::needed_bytes(&request) >= most.unwrap_or_default());
        }
        ServerBody::StartDownload(start) => {
            for package in &start.packages {
                lies_below(start.transfer.base_url.as_str(), package.url.as_str());
            }
            if let Ok(plan) = Plan::new(received.msg_id, RECEIVED_AT, start) {
                planned(plan);
            }
        }
        ServerBody::RequestVci(_)
        | ServerBody::StartRollback(_)
        | ServerBody::CancelUpdate(_)
        | ServerBody::MessageRejected(_) => {}
    }
}

fn lies_below(base_url: &str, path: &str) {
    let Some(url) = package_url(base_url, path) else { return };
    let base = reqwest::Url::parse(base_url).unwrap();
    assert_eq!((url.scheme(), url.origin()), ("https", base.origin()));
    assert!(url.path().starts_with(base.path().trim_end_matches('/')), "{url}");
    assert!(
        url.path().ends_with(path.trim_start_matches('/')) && !path.contains(['?', '#', '%', '\\']),
        "{url}"
    );
    assert_eq!((url.query(), url.fragment(), url.username()), (None, None, ""));
    assert_eq!(reqwest::Url::parse(url.as_str()).unwrap(), url);
}

fn planned(plan: Plan) {
    assert_eq!(plan.ecus().count(), plan.start.ecus().len());
    for ecu_id in plan.ecus() {
        assert_eq!(&plan.package(ecu_id).unwrap().target_component, ecu_id);
    }
    let _ = plan.download_bytes();
    let written = serde_json::to_vec(&plan).unwrap();
    assert_eq!(serde_json::from_slice::<Plan>(&written).unwrap(), plan);
    let (update, commands) = VehicleUpdate::begin(plan, Bounds::default());
    assert!(update.phase() != Phase::Ended && !commands.is_empty());
}

/// An answer that the protocol does not allow would be refused by the server for ever.
fn is_sendable(own: &Binding, body: VehicleBody) {
    let message: VehicleMessage = identity::message(own, body).unwrap();
    let payload = message.to_json();
    let received = farrier_protocol::ReceivedMessage::parse(message.topic(), &payload, Some(own)).unwrap();
    assert_eq!(received.message, message);
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_of_commands_hold() {
        replay::replay("commands", commands);
    }

    #[test]
    fn the_inputs_of_doip_gateway_hold() {
        replay::replay("doip_gateway", doip_gateway);
    }
}
