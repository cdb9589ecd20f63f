use bytes::BytesMut;

use crate::can::{MAX_CAN_ID, NotSocketcand, SocketcandMessage};

/// The first octet is the length of the pieces in which the rest comes in.
///
/// - the messages are the same in whatever pieces they come;
/// - what is read is written as something that is read the same.
pub fn socketcand(data: &[u8]) {
    let Some((length, text)) = data.split_first() else { return };
    let (at_once, refused) = read([text]);
    let pieces = text.chunks(usize::from(*length).max(1));
    assert_eq!(read(pieces), (at_once.clone(), refused));
    for message in at_once {
        if let SocketcandMessage::Frame(frame) | SocketcandMessage::Send(frame) = &message {
            assert!(frame.id() <= MAX_CAN_ID && frame.data().len() <= 8);
        }
        let written = message.to_string();
        let (read, refused) = read([written.as_bytes()]);
        // A text that is not UTF-8 grows when it is written again.
        if refused.is_none() {
            assert_eq!(read, [message], "{written:?}");
        }
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<SocketcandMessage>, Option<NotSocketcand>) {
    let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match SocketcandMessage::take(&mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(refused) => return (messages, Some(refused)),
            }
        }
        assert!(buffer.len() < 256);
    }
    (messages, None)
}
