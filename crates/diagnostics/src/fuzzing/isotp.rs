use std::time::Duration;

use bytes::Bytes;

use crate::isotp::{IsoTp, MAX_MESSAGE_LENGTH};

/// The first octet chooses between any frames and two ends whose frames get lost.
///
/// - one end gives the messages that the standard says, never more than 4,095 bytes, whatever frames come when;
/// - what arrives over a bus that loses frames or delays them is what was sent, and both ends come to rest.
pub fn isotp(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    if kind % 2 == 0 { any_frames(rest) } else { a_bus_that_loses(rest) }
}

/// Each frame: an octet with its length (low half) and the time since the one before (high half, in 100 ms).
fn any_frames(mut data: &[u8]) {
    let (mut end, mut model) = (IsoTp::default(), Model::default());
    end.send(Bytes::from_static(&[0xAA; 300])).unwrap();
    let mut now = Duration::ZERO;
    while let Some((head, rest)) = data.split_first() {
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(head & 0x0F).min(8)));
        data = rest;
        now += Duration::from_millis(u64::from(head >> 4) * 100);
        let received = end.on_frame(now, frame);
        assert_eq!(received, model.on_frame(now, frame));
        // A frame of flow control and one of the transmission can be due at once, and no more.
        for _ in 0..2 {
            let _ = end.next_frame(now);
        }
        assert!(end.wake_at().is_none_or(|at| at <= now + Duration::from_secs(1)));
        assert_eq!(end.wake_at().is_some(), end.is_sending());
    }
}

/// The receiver of ISO 15765-2 once more, as a list of bytes that are still to come.
#[derive(Default)]
struct Model {
    open: Option<(Vec<u8>, usize, u8, Duration)>,
}

impl Model {
    fn on_frame(&mut self, now: Duration, frame: &[u8]) -> Option<Vec<u8>> {
        match frame {
            [kind @ 1..=15, data @ ..] => {
                let message = data.get(..usize::from(*kind))?.to_vec();
                self.open = None;
                Some(message)
            }
            [0x10, 0, ..] => {
                self.open = None;
                None
            }
            [high @ 0x10..=0x1F, low, a, b, c, d, e, f] => {
                let length = usize::from(*high - 0x10) * 256 + usize::from(*low);
                if length >= 8 {
                    self.open = Some((vec![*a, *b, *c, *d, *e, *f], length, 1, now));
                }
                None
            }
            [kind @ 0x20..=0x2F, data @ ..] => {
                let (mut message, length, next, since) = self.open.take()?;
                let wanted = (length - message.len()).min(7);
                if *kind != 0x20 + next || data.len() < wanted || now > since + Duration::from_secs(1) {
                    return None;
                }
                message.extend(&data[..wanted]);
                if message.len() == length {
                    return Some(message);
                }
                self.open = Some((message, length, (next + 1) % 16, now));
                None
            }
            _ => None,
        }
    }
}

/// The first two octets are the message's length, each further one the fate of a frame: bit 0 loses it, the rest is
/// a delay in 10 ms.
fn a_bus_that_loses(data: &[u8]) {
    let [high, low, fates @ ..] = data else { return };
    let length = (usize::from(*high) << 8 | usize::from(*low)) % MAX_MESSAGE_LENGTH + 1;
    let message: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let (mut sender, mut receiver) = (IsoTp::default(), IsoTp::default());
    sender.send(Bytes::from(message.clone())).unwrap();
    let (mut now, mut fates, mut received) = (Duration::ZERO, fates.iter(), None);
    // Each frame that is sent takes one turn, each flow control another, the time that runs out one more.
    for _ in 0..2 * length + 4 {
        let of_sender = sender.next_frame(now);
        let of_receiver = receiver.next_frame(now);
        if of_sender.is_none() && of_receiver.is_none() {
            match sender.wake_at() {
                Some(at) => now = now.max(at),
                None => break,
            }
        }
        let mut arrives = |now: &mut Duration| {
            let fate = fates.next().copied().unwrap_or(0);
            *now += Duration::from_millis(u64::from(fate >> 1) * 10);
            fate & 1 == 0
        };
        if let Some(frame) = of_receiver.filter(|_| arrives(&mut now)) {
            assert_eq!(sender.on_frame(now, &frame), None);
        }
        if let Some(frame) = of_sender.filter(|_| arrives(&mut now))
            && let Some(whole) = receiver.on_frame(now, &frame)
        {
            assert_eq!(received.replace(whole), None, "one message came twice");
        }
    }
    assert!(!sender.is_sending(), "the sender does not come to rest");
    assert!(received.is_none_or(|received| received == message));
}
