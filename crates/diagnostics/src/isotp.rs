//! ISO-TP (ISO 15765-2) on classical CAN with normal addressing: one end of a connection, without I/O.
//!
//! | received | then |
//! |---|---|
//! | single frame | the message; a reception under way ends |
//! | first frame | flow control "continue to send, all of it"; overflow above 4,095 bytes |
//! | consecutive frame, the next one and in time | the message after the last; any other ends the reception |
//! | flow control while one is awaited | continue, wait again (16 times), or give the transmission up |
//!
//! Both directions are independent. What gets lost is silence to the layer above, which repeats its request.

use std::time::Duration;

use bytes::Bytes;

/// The longest message, in bytes: what the twelve bits of a first frame can say.
pub const MAX_MESSAGE_LENGTH: usize = 4_095;

/// How long a flow control or a consecutive frame is waited for (N_Bs, N_Cr).
const FRAME_TIMEOUT: Duration = Duration::from_millis(1_000);

/// How often in a row the other end may ask to wait.
const MAX_WAITS: u32 = 16;

/// What fills a frame up to eight bytes (ISO 15765-2 recommends 0xCC).
const PADDING: u8 = 0xCC;

const FIRST_FRAME_DATA: usize = 6;
const CONSECUTIVE_FRAME_DATA: usize = 7;

/// A message that ISO-TP on classical CAN cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a message of 1 to 4095 bytes, found {length}")]
pub struct NotSendable {
    /// Its length in bytes.
    pub length: usize,
}

/// One end of a connection.
#[derive(Debug, Default)]
pub struct IsoTp {
    transmission: Option<Transmission>,
    reception: Option<Reception>,
    /// The flow control that a first frame asks for.
    flow_control: Option<[u8; 8]>,
}

#[derive(Debug)]
struct Transmission {
    message: Bytes,
    sent: usize,
    sequence: u8,
    state: Sending,
}

#[derive(Debug)]
enum Sending {
    /// The single or first frame is due.
    First,
    /// The other end says how to go on, or the transmission ends then.
    AwaitFlowControl { until: Duration, waits: u32 },
    /// The next consecutive frame is due then; so many until the next flow control.
    Consecutive { at: Duration, left: Option<u8>, gap: Duration },
}

#[derive(Debug)]
struct Reception {
    message: Vec<u8>,
    length: usize,
    sequence: u8,
    until: Duration,
}

impl IsoTp {
    /// Begins to send a message; one that was under way is given up.
    ///
    /// # Errors
    /// An empty message, or one above 4,095 bytes.
    pub fn send(&mut self, message: Bytes) -> Result<(), NotSendable> {
        let length = message.len();
        if !(1..=MAX_MESSAGE_LENGTH).contains(&length) {
            return Err(NotSendable { length });
        }
        self.transmission = Some(Transmission { message, sent: 0, sequence: 0, state: Sending::First });
        Ok(())
    }

    /// Whether a message is on its way: not all of it has been sent.
    pub fn is_sending(&self) -> bool {
        self.transmission.is_some()
    }

    /// The data of the frame that is due now, if one is.
    pub fn next_frame(&mut self, now: Duration) -> Option<[u8; 8]> {
        if let Some(frame) = self.flow_control.take() {
            return Some(frame);
        }
        let frame = self.transmission.as_mut()?.next_frame(now);
        if self.transmission.as_ref().is_some_and(|transmission| transmission.is_over(now)) {
            self.transmission = None;
        }
        frame
    }

    /// When to ask for a frame again, if nothing is received before.
    pub fn wake_at(&self) -> Option<Duration> {
        match self.transmission.as_ref()?.state {
            Sending::First => Some(Duration::ZERO),
            Sending::AwaitFlowControl { until, .. } => Some(until),
            Sending::Consecutive { at, .. } => Some(at),
        }
    }

    /// Takes the data of a frame; the message, if it is the last of one.
    pub fn on_frame(&mut self, now: Duration, data: &[u8]) -> Option<Vec<u8>> {
        let (first, rest) = data.split_first()?;
        let low = first & 0x0F;
        match first >> 4 {
            0 => self.single(low, rest),
            1 => {
                self.first(now, low, rest);
                None
            }
            2 => self.consecutive(now, low, rest),
            3 => {
                self.on_flow_control(now, low, rest);
                None
            }
            // Reserved.
            _ => None,
        }
    }

    fn single(&mut self, length: u8, data: &[u8]) -> Option<Vec<u8>> {
        let message = data.get(..usize::from(length)).filter(|message| !message.is_empty())?;
        self.reception = None;
        Some(message.to_vec())
    }

    fn first(&mut self, now: Duration, high: u8, rest: &[u8]) {
        let Some((low, data)) = rest.split_first() else { return };
        let length = usize::from(high) << 8 | usize::from(*low);
        // A length of zero announces 32 bits of length: more than classical diagnostics needs.
        if length == 0 {
            self.reception = None;
            self.flow_control = Some(padded(&[0x32, 0, 0]));
            return;
        }
        if length <= CONSECUTIVE_FRAME_DATA || data.len() != FIRST_FRAME_DATA {
            return;
        }
        let until = now + FRAME_TIMEOUT;
        self.reception = Some(Reception { message: data.to_vec(), length, sequence: 1, until });
        self.flow_control = Some(padded(&[0x30, 0, 0]));
    }

    fn consecutive(&mut self, now: Duration, sequence: u8, data: &[u8]) -> Option<Vec<u8>> {
        let mut reception = self.reception.take()?;
        let missing = reception.length - reception.message.len();
        let part = data.get(..missing.min(CONSECUTIVE_FRAME_DATA))?;
        if sequence != reception.sequence || now > reception.until {
            return None;
        }
        reception.message.extend_from_slice(part);
        if reception.message.len() == reception.length {
            return Some(reception.message);
        }
        reception.sequence = (sequence + 1) & 0x0F;
        reception.until = now + FRAME_TIMEOUT;
        self.reception = Some(reception);
        None
    }

    fn on_flow_control(&mut self, now: Duration, status: u8, rest: &[u8]) {
        let Some(transmission) = self.transmission.as_mut() else { return };
        let Sending::AwaitFlowControl { waits, .. } = transmission.state else { return };
        match (status, rest) {
            (0, [block_size, separation, ..]) => {
                let left = (*block_size > 0).then_some(*block_size);
                transmission.state =
                    Sending::Consecutive { at: now, left, gap: separation_time(*separation) };
            }
            (1, _) if waits < MAX_WAITS => {
                transmission.state =
                    Sending::AwaitFlowControl { until: now + FRAME_TIMEOUT, waits: waits + 1 };
            }
            // Overflow, too many waits, or nothing that the standard knows.
            _ => self.transmission = None,
        }
    }
}

impl Transmission {
    fn next_frame(&mut self, now: Duration) -> Option<[u8; 8]> {
        match self.state {
            Sending::First => Some(self.first_frame(now)),
            Sending::AwaitFlowControl { .. } => None,
            Sending::Consecutive { at, .. } if now < at => None,
            Sending::Consecutive { left, gap, .. } => Some(self.consecutive_frame(now, left, gap)),
        }
    }

    fn first_frame(&mut self, now: Duration) -> [u8; 8] {
        let length = self.message.len();
        if length <= CONSECUTIVE_FRAME_DATA {
            self.sent = length;
            return self.frame(&[length.to_le_bytes()[0]], 0, length);
        }
        let [low, high, ..] = length.to_le_bytes();
        self.sent = FIRST_FRAME_DATA;
        self.sequence = 1;
        self.state = Sending::AwaitFlowControl { until: now + FRAME_TIMEOUT, waits: 0 };
        self.frame(&[0x10 | high, low], 0, FIRST_FRAME_DATA)
    }

    fn consecutive_frame(&mut self, now: Duration, left: Option<u8>, gap: Duration) -> [u8; 8] {
        let (from, sequence) = (self.sent, self.sequence);
        self.sent = (from + CONSECUTIVE_FRAME_DATA).min(self.message.len());
        self.sequence = (sequence + 1) & 0x0F;
        self.state = match left {
            Some(1) => Sending::AwaitFlowControl { until: now + FRAME_TIMEOUT, waits: 0 },
            left => Sending::Consecutive { at: now + gap, left: left.map(|left| left - 1), gap },
        };
        self.frame(&[0x20 | sequence], from, self.sent)
    }

    fn frame(&self, header: &[u8], from: usize, to: usize) -> [u8; 8] {
        padded(&[header, self.message.get(from..to).unwrap_or_default()].concat())
    }

    fn is_over(&self, now: Duration) -> bool {
        let waited_in_vain = matches!(self.state, Sending::AwaitFlowControl { until, .. } if now >= until);
        self.sent == self.message.len() || waited_in_vain
    }
}

fn padded(content: &[u8]) -> [u8; 8] {
    let mut frame = [PADDING; 8];
    for (to, from) in frame.iter_mut().zip(content) {
        *to = *from;
    }
    frame
}

/// STmin (ISO 15765-2, table 20); reserved values mean the longest.
fn separation_time(value: u8) -> Duration {
    match value {
        0x00..=0x7F => Duration::from_millis(value.into()),
        0xF1..=0xF9 => Duration::from_micros(u64::from(value - 0xF0) * 100),
        _ => Duration::from_millis(127),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Duration = Duration::ZERO;

    /// Carries frames between two ends until nothing is due; what the second received.
    fn carried(message: &[u8]) -> Option<Vec<u8>> {
        let (mut a, mut b) = (IsoTp::default(), IsoTp::default());
        a.send(Bytes::copy_from_slice(message)).unwrap();
        loop {
            if let Some(frame) = a.next_frame(START) {
                if let Some(received) = b.on_frame(START, &frame) {
                    assert!(!a.is_sending());
                    return Some(received);
                }
            } else if let Some(frame) = b.next_frame(START) {
                assert_eq!(a.on_frame(START, &frame), None);
            } else {
                return None;
            }
        }
    }

    fn long() -> IsoTp {
        let mut end = IsoTp::default();
        end.send(Bytes::from(vec![0xAA; 100])).unwrap();
        assert_eq!(end.next_frame(START), Some([0x10, 100, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA]));
        assert_eq!(end.next_frame(START), None);
        end
    }

    #[test]
    fn a_short_message_is_one_padded_frame() {
        let mut end = IsoTp::default();
        end.send(Bytes::from_static(&[0x3E, 0x80])).unwrap();
        assert_eq!(end.next_frame(START), Some([2, 0x3E, 0x80, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC]));
        assert!(!end.is_sending());
        assert_eq!(end.on_frame(START, &[2, 0x7E, 0x00]), Some(vec![0x7E, 0x00]));
    }

    #[test]
    fn messages_without_content_or_too_long_cannot_be_sent() {
        for length in [0, 4_096] {
            assert_eq!(IsoTp::default().send(Bytes::from(vec![0; length])), Err(NotSendable { length }));
        }
    }

    #[test]
    fn block_size_and_separation_time_are_kept() {
        let mut end = long();
        end.on_frame(START, &[0x30, 2, 10]);
        assert_eq!(end.next_frame(START).unwrap()[0], 0x21);
        assert_eq!(end.next_frame(START), None);
        assert_eq!(end.wake_at(), Some(Duration::from_millis(10)));
        assert_eq!(end.next_frame(Duration::from_millis(10)).unwrap()[0], 0x22);
        assert_eq!(end.next_frame(Duration::from_millis(20)), None);
        end.on_frame(Duration::from_millis(20), &[0x30, 0, 0]);
        assert_eq!(end.next_frame(Duration::from_millis(20)).unwrap()[0], 0x23);
        assert_eq!(separation_time(0xF3), Duration::from_micros(300));
        assert_eq!(separation_time(0x80), Duration::from_millis(127));
    }

    #[test]
    fn whoever_is_told_nothing_or_to_wait_for_ever_gives_up() {
        let mut end = long();
        assert_eq!(end.next_frame(FRAME_TIMEOUT), None);
        assert!(!end.is_sending());

        let mut end = long();
        for _ in 0..16 {
            end.on_frame(START, &[0x31, 0, 0]);
            assert!(end.is_sending());
        }
        end.on_frame(START, &[0x31, 0, 0]);
        assert!(!end.is_sending());

        let mut end = long();
        end.on_frame(START, &[0x32, 0, 0]);
        assert!(!end.is_sending());
    }

    #[test]
    fn a_message_with_a_frame_missing_is_dropped_and_the_next_one_received() {
        let mut end = IsoTp::default();
        end.on_frame(START, &[0x10, 20, 1, 2, 3, 4, 5, 6]);
        assert_eq!(end.next_frame(START), Some([0x30, 0, 0, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC]));
        assert_eq!(end.on_frame(START, &[0x22, 7, 8, 9, 10, 11, 12, 13]), None);
        assert_eq!(end.on_frame(START, &[0x21, 7, 8, 9, 10, 11, 12, 13]), None);
        end.on_frame(START, &[0x10, 8, 1, 2, 3, 4, 5, 6]);
        assert_eq!(end.on_frame(START, &[0x21, 7, 8]), Some(vec![1, 2, 3, 4, 5, 6, 7, 8]));
    }

    #[test]
    fn a_frame_that_comes_too_late_ends_the_reception() {
        let mut end = IsoTp::default();
        end.on_frame(START, &[0x10, 8, 1, 2, 3, 4, 5, 6]);
        let late = FRAME_TIMEOUT + Duration::from_millis(1);
        assert_eq!(end.on_frame(late, &[0x21, 7, 8]), None);
    }

    #[test]
    fn more_than_4095_bytes_are_refused_with_overflow() {
        let mut end = IsoTp::default();
        end.on_frame(START, &[0x10, 0, 0, 0, 0x10, 0, 1, 2]);
        assert_eq!(end.next_frame(START).unwrap()[0], 0x32);
    }

    proptest! {
        #[test]
        fn every_message_arrives_as_it_was(message in proptest::collection::vec(any::<u8>(), 1..=4_095)) {
            prop_assert_eq!(carried(&message), Some(message));
        }

        #[test]
        fn no_frames_whatever_make_it_panic(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..100),
        ) {
            let mut end = long();
            for (number, frame) in frames.iter().enumerate() {
                let now = Duration::from_millis(number as u64 * 10);
                let _ = end.on_frame(now, frame);
                let _ = end.next_frame(now);
            }
        }
    }
}
