//! Keys as a terminal sends them.

use std::io::Read;

use tokio::sync::mpsc::{Receiver, channel};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// `q` or Ctrl-C.
    Quit,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    Letter(char),
}

/// The keys from now on. The thread that waits for them ends with the program: nothing else can end a read of a terminal.
pub(super) fn pressed() -> Receiver<Key> {
    let (pressed, keys) = channel(64);
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        let mut stdin = std::io::stdin().lock();
        while let Ok(length @ 1..) = stdin.read(&mut bytes) {
            for key in read(bytes.get(..length).unwrap_or_default()) {
                if pressed.blocking_send(key).is_err() {
                    return;
                }
            }
        }
    });
    keys
}

/// A terminal sends a key with all its bytes at once.
fn read(mut bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: [(&[u8], Key); 8] = [
        (b"\x1b[A", Key::Up),
        (b"\x1bOA", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1bOB", Key::Down),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
        (b"\x1b[H", Key::Home),
        (b"\x1b[1~", Key::Home),
    ];
    let mut keys = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        let known = SEQUENCES.iter().find_map(|(sequence, key)| Some((bytes.strip_prefix(*sequence)?, *key)));
        if let Some((rest, key)) = known {
            keys.push(key);
            bytes = rest;
            continue;
        }
        match first {
            b'q' | b'Q' | 0x03 => keys.push(Key::Quit),
            // A key that is not known: all of it is passed over.
            0x1b => return keys,
            letter if letter.is_ascii_alphanumeric() => {
                keys.push(Key::Letter(char::from(letter.to_ascii_lowercase())));
            }
            b' ' => keys.push(Key::PageDown),
            _ => {}
        }
        bytes = rest;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_by_their_bytes_and_unknown_ones_are_passed_over() {
        for (bytes, keys) in [
            (&b"q"[..], &[Key::Quit][..]),
            (b"\x03", &[Key::Quit]),
            (b"P", &[Key::Letter('p')]),
            (
                b"\x1b[A\x1b[B\x1b[5~\x1b[6~\x1b[H",
                &[Key::Up, Key::Down, Key::PageUp, Key::PageDown, Key::Home],
            ),
            (b"y\x1b[24~q", &[Key::Letter('y')]),
            (b"\x1b", &[]),
            (b"\xc3\xa9", &[]),
            (b"", &[]),
        ] {
            assert_eq!(read(bytes), keys, "{bytes:?}");
        }
    }
}
