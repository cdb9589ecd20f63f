#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use farrier_protocol::{Binding, MsgId, Thumbprint, UnixMillis, UpTopic};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{Frame, FrameBuffer};
use super::packet::{self, Packet, Version};
use super::*;
use crate::desk::{
    ClientSession, DeskUnavailable, Inbound, PeerEvent, PeerIdentity, PendingCommand, Receipt,
};

const CLIENT_ID: &str = "VEH_A_B";
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A CONNECT of 5.0 and one of 3.1.1, and the subscription of each to its commands.
const CONNECTS: [&[u8]; 2] = [
    b"\x10\x14\0\x04MQTT\x05\x02\0\x3c\0\0\x07VEH_A_B\x82\x16\0\x01\0\0\x10ota/VEH/A_B/down\x01",
    b"\x10\x13\0\x04MQTT\x04\x02\0\x3c\0\x07VEH_A_B\x82\x15\0\x01\0\x10ota/VEH/A_B/down\x01",
];

/// What a vehicle sends. The first octet is the length of the pieces in which it comes; the bits of the second: a
/// CONNECT goes first, the one of 3.1.1, commands are waiting, the vehicle stays silent at the end instead of leaving.
///
/// - every connection ends, whatever it sent, and holds what it said to the answer that MQTT has for it;
/// - the desk gets exactly the payloads that were published on the vehicle's own topics, in their order;
/// - exactly what was published with QoS 1 is acknowledged, in its order, and nothing that came after a violation;
/// - it does not matter in which pieces the octets come.
pub fn mqtt_input(data: &[u8]) {
    let [piece, how, rest @ ..] = data else { return };
    let mut octets = Vec::new();
    if how & 1 != 0 {
        octets.extend(CONNECTS[usize::from(how >> 1 & 1)]);
    }
    octets.extend(rest);
    let (commands, silent) = (how & 4 != 0, how & 8 != 0);
    let whole = Conversation::of(&octets, octets.len(), commands, silent);
    let in_pieces = Conversation::of(&octets, (*piece).into(), commands, silent);
    let expected = Expected::of(&octets);
    whole.check(&expected);
    in_pieces.check(&expected);
    if whole.desk_failed() {
        return;
    }
    assert_eq!(whole.heard, in_pieces.heard);
    // Whoever says good-bye does not wait for what is still to be written.
    if !expected.leaves {
        assert_eq!(whole.of_kind(CONNACK), in_pieces.of_kind(CONNACK));
        for kind in [PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT] {
            assert_eq!(whole.of_kind(kind), in_pieces.of_kind(kind));
        }
    }
}

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;
const UNSUBACK: u8 = 11;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;

/// What reached the desk, or would.
type Heard = (Binding, UpTopic, Bytes);

/// What the packets mean, one by one and without a connection.
#[derive(Debug, Default)]
struct Expected {
    connected: Option<Version>,
    leaves: bool,
    published: Vec<Heard>,
    packet_ids: Vec<u16>,
}

impl Expected {
    fn of(octets: &[u8]) -> Self {
        let mut expected = Self::default();
        let mut frames = FrameBuffer::default();
        frames.extend(octets);
        let Ok(Some(first)) = frames.next(super::session::MAXIMUM_CONNECT_SIZE) else { return expected };
        let Ok(connect) = packet::decode_connect(&first) else { return expected };
        let version = *expected.connected.insert(connect.version);
        while let Ok(Some(frame)) = frames.next(MqttLimits::default().packet_octets() as usize) {
            let Ok(packet) = packet::decode(version, &frame) else { break };
            match packet {
                Packet::Publish(publish) => {
                    expected.packet_ids.extend(publish.packet_id);
                    if let Some((binding, topic)) = Topics::default().parse_up(&publish.topic) {
                        expected.published.push((binding, topic, publish.payload));
                    }
                }
                Packet::Disconnect => {
                    expected.leaves = true;
                    break;
                }
                Packet::Puback { .. }
                | Packet::Subscribe { .. }
                | Packet::Unsubscribe { .. }
                | Packet::Pingreq => {}
            }
        }
        expected
    }
}

struct Conversation {
    heard: Vec<Heard>,
    delivered: Vec<MsgId>,
    answers: Vec<Frame>,
}

impl Conversation {
    fn of(octets: &[u8], piece: usize, commands: bool, silent: bool) -> Self {
        let desk = Arc::new(Desk { commands, heard: Mutex::default(), delivered: Mutex::default() });
        let written = Arc::new(Mutex::new(Vec::new()));
        let wire = Wire {
            pieces: octets.chunks(piece.max(1)).map(Bytes::copy_from_slice).collect(),
            silent,
            written: Arc::clone(&written),
        };
        // What is above its rate is held by tests of its own.
        let limits =
            MqttLimits { messages_per_second: 1_000_000, message_burst: 1_000_000, ..MqttLimits::default() };
        let connections = Arc::new(Connections::new());
        let shared = Shared::new(Arc::clone(&desk), connections, Topics::default(), Arc::new(|| NOW), limits);
        let peer = PeerIdentity {
            common_name: CLIENT_ID.to_owned(),
            thumbprint: Thumbprint::of_certificate(b"certificate"),
            certificate: None,
        };
        // Its clock jumps where everybody waits, so that silence has its end at once.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(connection::serve(wire, peer, Arc::new(shared)));
        let (heard, delivered) = (taken(&desk.heard), taken(&desk.delivered));
        Self { heard, delivered, answers: frames_of(&taken(&written)) }
    }

    fn of_kind(&self, kind: u8) -> Vec<&Frame> {
        self.answers.iter().filter(|frame| frame.kind == kind).collect()
    }

    fn desk_failed(&self) -> bool {
        self.heard.iter().any(|(_, _, payload)| desk_fails_at(payload))
    }

    fn check(&self, expected: &Expected) {
        let kinds: Vec<u8> = self.answers.iter().map(|frame| frame.kind).collect();
        let known = [CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT];
        assert!(kinds.iter().all(|kind| known.contains(kind)), "{kinds:?}");
        assert!(kinds.iter().skip(1).all(|kind| *kind != CONNACK), "{kinds:?}");
        assert!(kinds.first().is_none_or(|kind| *kind == CONNACK), "{kinds:?}");
        assert!(kinds.iter().rev().skip(1).all(|kind| *kind != DISCONNECT), "{kinds:?}");
        let accepted = self.answers.first().is_some_and(|connack| connack.body[1] == 0);
        let unheard = expected.leaves && kinds.is_empty();
        assert!(accepted || unheard || (kinds.len() <= 1 && self.heard.is_empty()));
        assert!(!accepted || expected.connected.is_some());

        let own = self.heard.iter().all(|(binding, _, _)| binding.client_id() == CLIENT_ID);
        assert!(own, "{:?}", self.heard);
        let of_one_binding: Vec<&Heard> = match self.heard.first() {
            Some((binding, _, _)) => {
                expected.published.iter().filter(|(found, _, _)| found == binding).collect()
            }
            None => Vec::new(),
        };
        assert!(of_one_binding.iter().zip(&self.heard).all(|(expected, heard)| *expected == heard));
        assert!(self.heard.len() <= of_one_binding.len());

        let acknowledged: Vec<u16> = self
            .of_kind(PUBACK)
            .iter()
            .map(|frame| u16::from_be_bytes([frame.body[0], frame.body[1]]))
            .collect();
        assert!(
            expected.packet_ids.starts_with(&acknowledged),
            "{acknowledged:?} of {:?}",
            expected.packet_ids
        );
        assert!(self.delivered.len() <= self.of_kind(PUBLISH).len());
    }
}

fn frames_of(octets: &[u8]) -> Vec<Frame> {
    let mut frames = FrameBuffer::default();
    frames.extend(octets);
    let mut found = Vec::new();
    while let Some(frame) = frames.next(usize::MAX).unwrap() {
        found.push(frame);
    }
    let length: usize = found.iter().map(|frame| frame.body.len() + 2).sum();
    assert!(length <= octets.len(), "half a packet is written");
    found
}

fn taken<T: Default>(shared: &Mutex<T>) -> T {
    std::mem::take(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Desk {
    commands: bool,
    heard: Mutex<Vec<Heard>>,
    delivered: Mutex<Vec<MsgId>>,
}

fn desk_fails_at(payload: &Bytes) -> bool {
    payload.first() == Some(&b'!')
}

impl MessageDesk for Desk {
    async fn receive(&self, inbound: Inbound) -> Result<Receipt, DeskUnavailable> {
        let Inbound { binding, topic, payload, .. } = inbound;
        let failed = desk_fails_at(&payload);
        let receipt = match payload.first() {
            Some(b'p') => Receipt::RefusedUnparsable,
            Some(b'i') => Receipt::RefusedIdentity,
            Some(b'r') => Receipt::RefusedRate,
            Some(b'f') => Receipt::Refused,
            Some(_) | None => Receipt::Accepted,
        };
        self.heard.lock().unwrap().push((binding, topic, payload));
        if failed { Err(DeskUnavailable("the disk is full".into())) } else { Ok(receipt) }
    }

    async fn refuse_for_rate(&self, _: Inbound) -> Result<(), DeskUnavailable> {
        panic!("nothing is above this rate");
    }

    async fn report(&self, _: &PeerIdentity, _: PeerEvent, _: String) -> Result<(), DeskUnavailable> {
        Ok(())
    }

    fn session(&self, session: ClientSession) {
        assert_eq!(session.client_id, CLIENT_ID);
    }

    async fn pending(&self, _: &Binding, limit: usize) -> Result<Vec<PendingCommand>, DeskUnavailable> {
        let delivered = self.delivered.lock().unwrap();
        let names = (0..20).map(|number| format!("m{number}").parse::<MsgId>().unwrap());
        let waiting = names.filter(|name| self.commands && !delivered.contains(name)).take(limit);
        let expires_at = Some(NOW.plus_seconds(30));
        Ok(waiting
            .map(|msg_id| PendingCommand { payload: Bytes::from(msg_id.to_string()), msg_id, expires_at })
            .collect())
    }

    async fn delivered(&self, binding: &Binding, msg_id: &MsgId) -> Result<(), DeskUnavailable> {
        assert_eq!(binding.client_id(), CLIENT_ID);
        let mut delivered = self.delivered.lock().unwrap();
        assert!(!delivered.contains(msg_id), "{msg_id} is delivered twice");
        delivered.push(msg_id.clone());
        Ok(())
    }
}

/// A vehicle's side of a connection: sends its pieces, takes everything.
struct Wire {
    pieces: VecDeque<Bytes>,
    silent: bool,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let silent = self.silent;
        match self.pieces.front_mut() {
            Some(piece) => {
                into.put_slice(&piece.split_to(piece.len().min(into.remaining())));
                if piece.is_empty() {
                    self.pieces.pop_front();
                }
            }
            // Only time can end this.
            None if silent => return Poll::Pending,
            None => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.written.lock().unwrap().extend_from_slice(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
