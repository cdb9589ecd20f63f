//! Asks DoIP entities by UDP who they are (ISO 13400-2, vehicle identification).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use farrier_diagnostics::doip::{
    self, Frame, LogicalAddress, Message, OwnedPayload, Payload, VehicleIdentificationResponse,
};
use farrier_protocol::MacAddress;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::codec::Decoder;

/// How often an entity is asked, since a datagram can be lost, and how long each answer is waited for.
const QUESTIONS: usize = 3;
const PATIENCE: Duration = Duration::from_millis(700);

/// The EID (usually a MAC address) of the entity with this logical address; nothing if it does not answer.
pub(super) async fn entity_id(entity: SocketAddr, logical_address: LogicalAddress) -> Option<MacAddress> {
    let socket = socket_for(entity).await?;
    // Only this entity's datagrams are received.
    socket.connect(entity).await.ok()?;
    let is_it = |found: &VehicleIdentificationResponse| found.logical_address == logical_address;
    let (found, _) = ask(&socket, entity, Payload::VehicleIdentificationRequest, is_it).await?;
    text(found.entity_id).parse().ok()
}

/// Where the entity with this EID is, of all that `asked` reaches; nothing if it does not answer. Who
/// it is must be proved by what is spoken then: anybody in the network can answer.
pub(super) async fn address_of(asked: SocketAddr, eid: &MacAddress) -> Option<IpAddr> {
    let socket = socket_for(asked).await?;
    socket.set_broadcast(true).ok()?;
    let is_it =
        |found: &VehicleIdentificationResponse| text(found.entity_id).eq_ignore_ascii_case(eid.as_ref());
    let question = Payload::VehicleIdentificationRequestWithEid(octets(eid)?);
    let (_, from) = ask(&socket, asked, question, is_it).await?;
    Some(from.ip())
}

async fn socket_for(peer: SocketAddr) -> Option<UdpSocket> {
    let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    UdpSocket::bind(any).await.ok()
}

fn text(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02X}")).join(":")
}

fn octets(eid: &MacAddress) -> Option<[u8; 6]> {
    let octets: Option<Vec<u8>> =
        eid.as_ref().split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    octets?.try_into().ok()
}

/// Asks until somebody answers who is looked for.
async fn ask(
    socket: &UdpSocket,
    asked: SocketAddr,
    question: Payload<'_>,
    is_it: impl Fn(&VehicleIdentificationResponse) -> bool,
) -> Option<(VehicleIdentificationResponse, SocketAddr)> {
    let mut datagram = BytesMut::new();
    let request = Message { protocol_version: doip::VERSION, payload: question };
    doip::append_frame(&mut datagram, &request).ok()?;
    for _ in 0..QUESTIONS {
        // On a connected socket too, Linux takes the address of its peer.
        if socket.send_to(&datagram, asked).await.is_ok()
            && let Ok(Some(found)) = timeout(PATIENCE, answer(socket, &is_it)).await
        {
            return Some(found);
        }
    }
    None
}

/// The next answer of who is looked for; nothing if the socket fails.
async fn answer(
    socket: &UdpSocket,
    is_it: &impl Fn(&VehicleIdentificationResponse) -> bool,
) -> Option<(VehicleIdentificationResponse, SocketAddr)> {
    let mut datagram = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut datagram).await.ok()?;
        let mut received = BytesMut::from(datagram.get(..length).unwrap_or_default());
        if let Ok(Some(Frame::Message(message))) = doip::codec().decode(&mut received)
            && let OwnedPayload::VehicleAnnouncement(found) = message.payload
            && is_it(&found)
        {
            return Some((found, from));
        }
    }
}
