#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

use tokio::io::{AsyncReadExt, DuplexStream};
use tokio_util::io::StreamReader;

use super::*;

const TESTER: LogicalAddress = LogicalAddress(0x0E80);
const ECUS: [LogicalAddress; 2] = [LogicalAddress(0x1010), LogicalAddress(0x1011)];

/// A routing activation response that lets the tester in.
const ACTIVATED: [u8; 17] = [2, 0xFD, 0, 6, 0, 0, 0, 9, 0x0E, 0x80, 0x10, 0, 0x10, 0, 0, 0, 0];
const ALIVE_CHECK_REQUEST: [u8; 6] = [0, 7, 0, 0, 0, 0];
const ALIVE_CHECK_RESPONSE: [u8; 10] = [2, 0xFD, 0, 8, 0, 0, 0, 2, 0x0E, 0x80];

/// Longer than all that is written: nobody reads it before the end.
const WRITTEN: usize = 64 * 1024;

/// What a controller sends, in pieces of as many octets as the first octet says; an even one means that it first
/// activates routing.
///
/// - an ECU's answers are exactly what stands in its diagnostic messages to this tester, at most 16 unread ones;
/// - nothing is written but the routing activation and answers to alive checks;
/// - it does not matter in which pieces the octets come.
pub fn doip_gateway(data: &[u8]) {
    let Some((piece, rest)) = data.split_first() else { return };
    let mut octets = Vec::new();
    if piece % 2 == 0 {
        octets.extend(ACTIVATED);
    }
    octets.extend(rest);
    let whole = Conversation::of(&octets, octets.len());
    let in_pieces = Conversation::of(&octets, (*piece).into());
    assert_eq!((whole.activated, &whole.answers), (in_pieces.activated, &in_pieces.answers));
    whole.check(&octets);
    in_pieces.check(&octets);
}

struct Conversation {
    activated: bool,
    answers: Vec<(LogicalAddress, Result<Vec<u8>, DiagnosticNackCode>)>,
    written: Vec<u8>,
}

impl Conversation {
    fn of(octets: &[u8], piece: usize) -> Self {
        let pieces: Vec<io::Result<Bytes>> =
            octets.chunks(piece.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Self::hold(pieces))
    }

    async fn hold(pieces: Vec<io::Result<Bytes>>) -> Self {
        let reader: Reader = Box::new(StreamReader::new(futures_util::stream::iter(pieces)));
        let mut reader = FramedRead::with_capacity(reader, doip::codec(), READ_BUFFER);
        let (ours, theirs) = tokio::io::duplex(WRITTEN);
        let mut writer: Writer = Box::new(ours);
        let activated =
            activate(&mut reader, &mut writer, ([127, 0, 0, 1], 13400).into(), TESTER).await.is_ok();
        if !activated {
            drop(writer);
            return Self { activated, answers: Vec::new(), written: everything(theirs).await };
        }
        let (frames, frames_to_send) = mpsc::channel(OUTGOING);
        let routes = Routes(Arc::new(Mutex::new(Some(HashMap::new()))));
        let connection = Connection { frames: frames.clone(), routes: routes.clone(), _task: JoinSet::new() };
        let mut channels = ECUS.map(|ecu| connection.channel(TESTER, ecu).unwrap());
        serve(reader, writer, frames_to_send, frames, routes, TESTER).await;
        assert!(connection.channel(TESTER, ECUS[0]).is_none(), "the connection is lost");
        let mut answers = Vec::new();
        for channel in &mut channels {
            while let Some(answer) = channel.receive().await {
                let answer = match answer {
                    FromEcu::Answer(uds) => Ok(uds),
                    FromEcu::Refused(code) => Err(code),
                };
                answers.push((channel.ecu, answer));
            }
        }
        Self { activated, answers, written: everything(theirs).await }
    }

    fn check(&self, octets: &[u8]) {
        let mut request = BytesMut::new();
        let activation =
            Message::routing_activation_request(doip::VERSION, TESTER, ActivationTypeCode::Default, None);
        doip::append_frame(&mut request, &activation).unwrap();
        let alive = self.written.strip_prefix(request.as_ref()).unwrap();
        assert!(alive.chunks(ALIVE_CHECK_RESPONSE.len()).all(|response| response == ALIVE_CHECK_RESPONSE));
        // Whatever the version in front of it, an alive check has this type and no payload.
        let asked = occurrences(octets, &ALIVE_CHECK_REQUEST);
        assert!(alive.len() / ALIVE_CHECK_RESPONSE.len() <= asked);
        for ecu in ECUS {
            assert!(self.answers.iter().filter(|(from, _)| *from == ecu).count() <= UNREAD_ANSWERS);
        }
        for (ecu, answer) in &self.answers {
            let message = match answer {
                Ok(uds) => [&ecu.0.to_be_bytes(), &TESTER.0.to_be_bytes(), uds.as_slice()].concat(),
                Err(_) => ecu.0.to_be_bytes().to_vec(),
            };
            assert!(occurrences(octets, &message) > 0, "{message:02X?} was never sent");
        }
    }
}

fn occurrences(octets: &[u8], part: &[u8]) -> usize {
    octets.windows(part.len()).filter(|window| *window == part).count()
}

async fn everything(mut written: DuplexStream) -> Vec<u8> {
    let mut octets = Vec::new();
    written.read_to_end(&mut octets).await.unwrap();
    octets
}
