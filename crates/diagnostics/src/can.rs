//! Frames of classical CAN, and the text protocol of socketcand that carries them over TCP.
//!
//! Of socketcand, what a client in raw mode needs: `< hi >`, `< open IF >`, `< rawmode >`, `< ok >`,
//! `< send ID LENGTH BYTE… >`, `< frame ID TIME DATA >`.

use std::fmt;

use bytes::{Buf, BytesMut};

/// The highest identifier of 29 bits.
pub const MAX_CAN_ID: u32 = 0x1FFF_FFFF;

/// The highest identifier of 11 bits; above it, frames have the extended format.
const MAX_STANDARD_ID: u32 = 0x7FF;

/// The longest message of socketcand that is read, in bytes.
const MAX_MESSAGE: usize = 256;

/// A data frame of classical CAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanFrame {
    id: u32,
    data: [u8; 8],
    length: u8,
}

impl CanFrame {
    /// A frame; nothing if the identifier has more than 29 bits or the data more than 8 bytes.
    pub fn new(id: u32, data: &[u8]) -> Option<Self> {
        let length = u8::try_from(data.len()).ok()?;
        let mut all = [0; 8];
        all.get_mut(..data.len())?.copy_from_slice(data);
        (id <= MAX_CAN_ID).then_some(Self { id, data: all, length })
    }

    /// Its identifier.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its data, up to 8 bytes.
    pub fn data(&self) -> &[u8] {
        self.data.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Whether its identifier needs the extended format.
    pub fn is_extended(&self) -> bool {
        self.id > MAX_STANDARD_ID
    }
}

/// A message of socketcand, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketcandMessage {
    /// The server greets.
    Hi,
    /// The server agrees.
    Ok,
    /// The client chooses a bus.
    Open(String),
    /// The client wants every frame as it is.
    RawMode,
    /// The client sends a frame.
    Send(CanFrame),
    /// The server hands on a frame of the bus.
    Frame(CanFrame),
    /// Anything else.
    Other(String),
}

/// Text that is no message of socketcand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected messages of socketcand of at most 256 bytes, found a longer one")]
pub struct NotSocketcand;

impl SocketcandMessage {
    /// Takes the next whole message out of what was received; nothing if it is not there yet.
    ///
    /// # Errors
    /// More than 256 bytes without an end.
    pub fn take(received: &mut BytesMut) -> Result<Option<Self>, NotSocketcand> {
        let Some(end) = received.iter().take(MAX_MESSAGE).position(|byte| *byte == b'>') else {
            return if received.len() < MAX_MESSAGE { Ok(None) } else { Err(NotSocketcand) };
        };
        let text = String::from_utf8_lossy(received.get(..end).unwrap_or_default()).into_owned();
        received.advance(end + 1);
        Ok(Some(Self::from_text(text.trim_start().trim_start_matches('<').trim())))
    }

    fn from_text(text: &str) -> Self {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let known = match words.as_slice() {
            ["hi"] => Some(Self::Hi),
            ["ok"] => Some(Self::Ok),
            ["rawmode"] => Some(Self::RawMode),
            ["open", interface] => Some(Self::Open((*interface).to_owned())),
            ["send", id, length, bytes @ ..] => sent(id, length, bytes).map(Self::Send),
            ["frame", id, _time, data @ ..] => handed_on(id, data).map(Self::Frame),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

fn identifier(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

fn sent(id: &str, length: &str, bytes: &[&str]) -> Option<CanFrame> {
    let data: Option<Vec<u8>> = bytes.iter().map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let data = data?;
    let length = usize::from_str_radix(length, 16).ok()?;
    if length == data.len() { CanFrame::new(identifier(id)?, &data) } else { None }
}

fn handed_on(id: &str, data: &[&str]) -> Option<CanFrame> {
    let digits: Vec<u8> = data.concat().into_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let data: Option<Vec<u8>> =
        digits.chunks(2).map(|pair| if pair.len() == 2 { byte(pair) } else { None }).collect();
    CanFrame::new(identifier(id)?, &data?)
}

/// The text that goes over TCP.
impl fmt::Display for SocketcandMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hi => f.write_str("< hi >"),
            Self::Ok => f.write_str("< ok >"),
            Self::Open(interface) => write!(f, "< open {interface} >"),
            Self::RawMode => f.write_str("< rawmode >"),
            Self::Send(frame) => {
                write!(f, "< send {} {:X}", HexId(frame), frame.data().len())?;
                for byte in frame.data() {
                    write!(f, " {byte:X}")?;
                }
                f.write_str(" >")
            }
            // Nobody here asks when a frame was on the bus.
            Self::Frame(frame) => {
                write!(f, "< frame {} 0.000000 ", HexId(frame))?;
                for byte in frame.data() {
                    write!(f, "{byte:02X}")?;
                }
                f.write_str(" >")
            }
            Self::Other(text) => write!(f, "< {text} >"),
        }
    }
}

/// Eight digits say that the format is extended, three that it is not.
struct HexId<'a>(&'a CanFrame);

impl fmt::Display for HexId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0.id();
        if self.0.is_extended() { write!(f, "{id:08X}") } else { write!(f, "{id:03X}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_taken_one_by_one_as_they_come() {
        let mut received = BytesMut::from(&b"< hi >< ok >< frame 7E8 12.5 0210"[..]);
        assert_eq!(SocketcandMessage::take(&mut received), Ok(Some(SocketcandMessage::Hi)));
        assert_eq!(SocketcandMessage::take(&mut received), Ok(Some(SocketcandMessage::Ok)));
        assert_eq!(SocketcandMessage::take(&mut received), Ok(None));
        received.extend_from_slice(b"03 >");
        let frame = CanFrame::new(0x7E8, &[2, 0x10, 3]).unwrap();
        assert_eq!(SocketcandMessage::take(&mut received), Ok(Some(SocketcandMessage::Frame(frame))));
        assert!(received.is_empty());
    }

    #[test]
    fn what_is_no_frame_is_something_else() {
        for text in
            ["send 7E0 2 1", "send 7E0 9 1 2 3 4 5 6 7 8 9", "frame 7E8 0 123", "send FFFFFFFF 1 1", "echo"]
        {
            let mut received = BytesMut::from(format!("< {text} >").as_bytes());
            let message = SocketcandMessage::take(&mut received);
            assert_eq!(message, Ok(Some(SocketcandMessage::Other(text.to_owned()))));
        }
        assert_eq!(SocketcandMessage::take(&mut BytesMut::from(&[b'x'; 256][..])), Err(NotSocketcand));
    }

    proptest! {
        #[test]
        fn frames_survive_the_text(id in 0..=MAX_CAN_ID, data in proptest::collection::vec(any::<u8>(), 0..=8)) {
            let frame = CanFrame::new(id, &data).unwrap();
            prop_assert_eq!(frame.data(), &data[..]);
            for message in [SocketcandMessage::Send(frame), SocketcandMessage::Frame(frame)] {
                let mut text = BytesMut::from(message.to_string().as_bytes());
                prop_assert_eq!(SocketcandMessage::take(&mut text), Ok(Some(message)));
            }
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut received = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = SocketcandMessage::take(&mut received) {}
        }
    }
}
