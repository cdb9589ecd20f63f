//! Asks a DoIP entity by UDP who it is (ISO 13400-2, vehicle identification).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use farrier_diagnostics::doip::{self, Frame, LogicalAddress, Message, OwnedPayload, Payload};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::codec::Decoder;

/// How often an entity is asked, since a datagram can be lost, and how long each answer is waited for.
const QUESTIONS: usize = 3;
const PATIENCE: Duration = Duration::from_millis(700);

/// The EID (usually a MAC address) of the entity with this logical address; nothing if it does not answer.
pub(super) async fn entity_id(entity: SocketAddr, logical_address: LogicalAddress) -> Option<[u8; 6]> {
    let any: SocketAddr = if entity.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.ok()?;
    // Only this entity's datagrams are received.
    socket.connect(entity).await.ok()?;
    let mut question = BytesMut::new();
    let request = Message { protocol_version: doip::VERSION, payload: Payload::VehicleIdentificationRequest };
    doip::append_frame(&mut question, &request).ok()?;
    for _ in 0..QUESTIONS {
        if socket.send(&question).await.is_ok()
            && let Ok(Some(found)) = timeout(PATIENCE, answer(&socket, logical_address)).await
        {
            return Some(found);
        }
    }
    None
}

/// The next answer of this entity; nothing if the socket fails.
async fn answer(socket: &UdpSocket, logical_address: LogicalAddress) -> Option<[u8; 6]> {
    let mut datagram = [0; 64];
    loop {
        let length = socket.recv(&mut datagram).await.ok()?;
        let mut received = BytesMut::from(datagram.get(..length).unwrap_or_default());
        if let Ok(Some(Frame::Message(message))) = doip::codec().decode(&mut received)
            && let OwnedPayload::VehicleAnnouncement(found) = message.payload
            && found.logical_address == logical_address
        {
            return Some(found.entity_id);
        }
    }
}
