//! Vehicle announcement and identification over UDP.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use farrier_diagnostics::doip::{
    self, Frame, FurtherActionRequired, Message, OwnedPayload, VehicleIdentificationResponse,
    VinGidSyncStatus,
};
use tokio::net::UdpSocket;
use tokio::time::sleep;
use tokio_util::codec::Decoder;

use super::Entity;

/// Announcements at the start (ISO 13400-2, A_DoIP_Announce_Num).
const ANNOUNCEMENTS: usize = 3;

/// Announces the entity, then answers identification requests for ever.
pub(super) async fn answer(entity: Arc<Entity>, socket: UdpSocket) {
    let Some(announcement) = announcement(&entity) else { return };
    tokio::join!(announce(&entity, &socket, &announcement), identify(&entity, &socket, &announcement));
}

async fn announce(entity: &Entity, socket: &UdpSocket, announcement: &[u8]) {
    let Some(announce_to) = entity.config.announce_to else { return };
    for _ in 0..ANNOUNCEMENTS {
        if let Err(error) = socket.send_to(announcement, announce_to.address).await {
            tracing::warn!(entity = entity.config.name, %error, "A vehicle announcement could not be sent.");
        }
        sleep(Duration::from_millis(announce_to.every_ms)).await;
    }
}

async fn identify(entity: &Entity, socket: &UdpSocket, announcement: &[u8]) {
    let mut datagram = [0; 64];
    loop {
        // An error here belongs to an earlier datagram, such as a tester that is gone.
        let Ok((length, tester)) = socket.recv_from(&mut datagram).await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let asked = datagram.get(..length).is_some_and(|request| is_for(entity, request));
        if asked && let Err(error) = socket.send_to(announcement, tester).await {
            tracing::debug!(entity = entity.config.name, %error, "A tester could not be answered.");
        }
    }
}

pub(super) fn is_for(entity: &Entity, datagram: &[u8]) -> bool {
    let Ok(Some(Frame::Message(message))) = doip::codec().decode(&mut BytesMut::from(datagram)) else {
        return false;
    };
    match message.payload {
        OwnedPayload::VehicleIdentificationRequest => true,
        OwnedPayload::VehicleIdentificationRequestWithEid(id) => id == entity.config.entity_id,
        OwnedPayload::VehicleIdentificationRequestWithVin(vin) => vin == entity.vin,
        OwnedPayload::DoIPNack(_)
        | OwnedPayload::AliveCheckRequest
        | OwnedPayload::AliveCheckResponse(_)
        | OwnedPayload::DiagnosticMessage(_)
        | OwnedPayload::DiagnosticMessageAck(_)
        | OwnedPayload::DiagnosticMessageNack(_)
        | OwnedPayload::EntityStatusRequest
        | OwnedPayload::EntityStatusResponse(_)
        | OwnedPayload::PowerModeInfoRequest
        | OwnedPayload::PowerModeInfoResponse(_)
        | OwnedPayload::RoutingActivationRequest(_)
        | OwnedPayload::RoutingActivationResponse(_)
        | OwnedPayload::VehicleAnnouncement(_)
        | OwnedPayload::VehicleIdentificationResponse(_) => false,
        // The enum may grow; nothing in it then asks who we are.
        _ => false,
    }
}

fn announcement(entity: &Entity) -> Option<BytesMut> {
    let payload = doip::Payload::VehicleAnnouncement(VehicleIdentificationResponse {
        vin: entity.vin,
        logical_address: entity.address(),
        entity_id: entity.config.entity_id,
        group_id: None,
        further_action: FurtherActionRequired::NoFurtherActionRequired,
        vin_gid_sync_status: Some(VinGidSyncStatus::Synchronized),
    });
    let mut frame = BytesMut::new();
    doip::append_frame(&mut frame, &Message { protocol_version: doip::VERSION, payload }).ok()?;
    Some(frame)
}
