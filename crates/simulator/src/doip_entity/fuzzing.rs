#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

use super::*;
use crate::ecu::EcuAnswer;

const ENTITY: u16 = 0x1000;
const ECU: u16 = 0x1010;
const VIN: &str = "WVWZZZ1JZXW000001";

/// A routing activation request of tester 0E80.
const ACTIVATION: [u8; 15] = [2, 0xFD, 0, 5, 0, 0, 0, 7, 0x0E, 0x80, 0, 0, 0, 0, 0];

/// Longer than all that is written: nobody reads it before the end.
const WRITTEN: usize = 256 * 1024;

/// What a tester sends, in pieces of as many octets as the first octet says; an even one means that it first
/// activates routing.
///
/// - the ECU gets exactly what stands in diagnostic messages of the activated tester to it;
/// - every frame that is written is one of DoIP, and there is at most one more of each kind than was asked for;
/// - before routing is activated nothing is acknowledged and nothing reaches an ECU;
/// - a datagram of the same octets is answered only where it asks for this entity.
pub fn doip_entity(data: &[u8]) {
    let Some((piece, rest)) = data.split_first() else { return };
    let mut octets = Vec::new();
    if piece % 2 == 0 {
        octets.extend(ACTIVATION);
    }
    octets.extend(rest);
    let whole = Conversation::of(&octets, octets.len());
    let in_pieces = Conversation::of(&octets, (*piece).into());
    whole.check(&octets);
    in_pieces.check(&octets);
    assert_eq!(whole.activation(), in_pieces.activation());

    let (_, entity) = entity();
    if discovery::is_for(&entity, rest) {
        let names_it = |name: &[u8]| rest.windows(name.len()).any(|part| part == name);
        assert!(rest[3] == 1 || names_it(VIN.as_bytes()) || names_it(&local_mac_address()), "{rest:02X?}");
    }
}

fn entity() -> (mpsc::Receiver<EcuRequest>, Entity) {
    let (to_ecu, requests) = mpsc::channel(16);
    let config = EntityConfig {
        name: "zone".to_owned(),
        logical_address: ENTITY,
        listen: loopback(),
        vin: VIN.to_owned(),
        entity_id: local_mac_address(),
        announce_to: None,
        max_connections: four_connections(),
        initial_inactivity_ms: initial_inactivity(),
        general_inactivity_ms: general_inactivity(),
    };
    let ecus = HashMap::from([(ECU, to_ecu)]);
    let vin = VIN.as_bytes().try_into().unwrap();
    (requests, Entity { config, vin, ecus, secured: false, testers: Mutex::default() })
}

struct Conversation {
    requests: Vec<(u16, Vec<u8>)>,
    frames: Vec<(u16, Vec<u8>)>,
}

impl Conversation {
    fn of(octets: &[u8], piece: usize) -> Self {
        let pieces: Vec<io::Result<Bytes>> =
            octets.chunks(piece.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(Self::hold(pieces))
    }

    async fn hold(pieces: Vec<io::Result<Bytes>>) -> Self {
        let (mut to_ecu, entity) = entity();
        let (ours, mut theirs) = tokio::io::duplex(WRITTEN);
        let reader = StreamReader::new(futures_util::stream::iter(pieces));
        let ecu = async {
            let mut requests = Vec::new();
            while let Some(EcuRequest { data, tester, answers }) = to_ecu.recv().await {
                let echo = EcuAnswer { from: ECU, to: tester, data: BytesMut::from(data.as_slice()) };
                let _ = answers.try_send(echo);
                requests.push((tester, data));
            }
            requests
        };
        let ((), requests) = tokio::join!(connection::serve(Arc::new(entity), reader, ours, false), ecu);
        let mut written = Vec::new();
        theirs.read_to_end(&mut written).await.unwrap();
        Self { requests, frames: frames_of(&written) }
    }

    /// What the first routing activation is answered with.
    fn activation(&self) -> Option<&[u8]> {
        self.frames.iter().find(|(kind, _)| *kind == 6).map(|(_, payload)| payload.as_slice())
    }

    fn check(&self, octets: &[u8]) {
        for (tester, data) in &self.requests {
            let message = [&tester.to_be_bytes(), &ECU.to_be_bytes(), data.as_slice()].concat();
            assert!(
                octets.windows(message.len()).any(|part| part == message),
                "{message:02X?} was never sent"
            );
        }
        let is_activated = self.activation().is_some_and(|response| response[4] == 0x10);
        assert!(is_activated || self.requests.is_empty());
        assert!(self.frames.len() <= 2 * octets.len() / 8 + 1);
        for (kind, payload) in &self.frames {
            let length = payload.len();
            match kind {
                0 => assert_eq!(length, 1),
                6 => assert_eq!((length, &payload[2..4]), (9, &ENTITY.to_be_bytes()[..])),
                8 => assert_eq!(payload, &ENTITY.to_be_bytes()),
                // Of an ECU: the echo of a request, and the acknowledgement of its way there.
                0x8001 | 0x8002 => assert!(is_activated && length >= 5 && payload[..2] == ECU.to_be_bytes()),
                0x8003 => assert_eq!(length, 5),
                other => panic!("a frame of type {other:#06X} is written"),
            }
        }
        let count = |kind| self.frames.iter().filter(|(found, _)| *found == kind).count();
        assert!(count(0x8001) <= self.requests.len() && count(0x8002) <= self.requests.len());
    }
}

/// The frames by ISO 13400-2: version and its inverse, type, length, payload.
fn frames_of(mut octets: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [version, inverse, t1, t0, l3, l2, l1, l0, rest @ ..] = octets {
        assert_eq!((*version, *inverse), (2, 0xFD));
        let length = u32::from_be_bytes([*l3, *l2, *l1, *l0]) as usize;
        let (payload, later) = rest.split_at(length);
        frames.push((u16::from_be_bytes([*t1, *t0]), payload.to_vec()));
        octets = later;
    }
    assert!(octets.is_empty(), "half a frame is written");
    frames
}
