//! Cuts the byte stream into MQTT packets, before anything of them is believed.

use bytes::{Bytes, BytesMut};

/// One packet: its first octet, and what follows the length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) body: Bytes,
}

/// What a packet's header tells of it, before it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) kind: u8,
    /// With the header.
    pub(super) total_octets: usize,
    pub(super) is_complete: bool,
}

impl Announced {
    /// Whether it is a PUBLISH.
    pub(super) fn is_message(self) -> bool {
        self.kind == 3
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameError {
    /// Announces more octets than the limit; found before any of them is stored.
    TooLarge,
    /// The length does not end within four octets, or takes more of them than it needs.
    Malformed,
}

/// The octets that are not yet a packet. Holds no memory while there are none.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    octets: BytesMut,
}

/// The longest fixed header: one octet, and four of length.
const LONGEST_HEADER: usize = 5;

impl FrameBuffer {
    pub(super) fn extend(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    /// What comes next, once its header is there; `limit` counts octets with the header.
    pub(super) fn announced(&self, limit: usize) -> Result<Option<Announced>, FrameError> {
        let Some(&first) = self.octets.first() else { return Ok(None) };
        let Some((header, remaining)) = self.lengths()? else { return Ok(None) };
        let total_octets = header.saturating_add(remaining);
        if total_octets > limit {
            return Err(FrameError::TooLarge);
        }
        let is_complete = self.octets.len() >= total_octets;
        Ok(Some(Announced { kind: first >> 4, total_octets, is_complete }))
    }

    /// The next whole packet, if it is there; `limit` counts its octets with the header.
    pub(super) fn next(&mut self, limit: usize) -> Result<Option<Frame>, FrameError> {
        let Some(&first) = self.octets.first() else { return Ok(None) };
        let Some(announced) = self.announced(limit)?.filter(|announced| announced.is_complete) else {
            return Ok(None);
        };
        let Some((header, _)) = self.lengths()? else { return Ok(None) };
        let body = self.octets.split_to(announced.total_octets).freeze().split_off(header);
        if self.octets.is_empty() {
            self.octets = BytesMut::new();
        }
        Ok(Some(Frame { kind: first >> 4, flags: first & 0x0f, body }))
    }

    /// The lengths of the header and of what follows it, once the header is there.
    fn lengths(&self) -> Result<Option<(usize, usize)>, FrameError> {
        let mut remaining = 0;
        for (position, octet) in self.octets.iter().take(LONGEST_HEADER).skip(1).enumerate() {
            remaining |= usize::from(octet & 0x7f) << (7 * position);
            // In as few octets as it needs (MQTT 5, 1.5.5).
            if position > 0 && *octet == 0 {
                return Err(FrameError::Malformed);
            }
            if octet & 0x80 == 0 {
                return Ok(Some((position + 2, remaining)));
            }
        }
        if self.octets.len() >= LONGEST_HEADER { Err(FrameError::Malformed) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffered(octets: &[u8]) -> FrameBuffer {
        let mut buffer = FrameBuffer::default();
        buffer.extend(octets);
        buffer
    }

    #[test]
    fn packets_come_out_whole_whatever_the_pieces() {
        let stream = [0xc0, 0x00, 0x32, 0x03, 1, 2, 3, 0xe0, 0x00];
        let mut buffer = FrameBuffer::default();
        let mut frames = Vec::new();
        for octet in stream {
            buffer.extend(&[octet]);
            while let Some(frame) = buffer.next(100).unwrap() {
                frames.push((frame.kind, frame.flags, frame.body.to_vec()));
            }
        }
        assert_eq!(frames, [(12, 0, vec![]), (3, 2, vec![1, 2, 3]), (14, 0, vec![])]);
        assert_eq!(buffer.octets.capacity(), 0, "an idle connection keeps no buffer");
    }

    #[test]
    fn a_packet_above_the_limit_is_refused_by_its_header_alone() {
        assert_eq!(buffered(&[0x30, 0xff, 0xff, 0xff, 0x7f]).next(1000), Err(FrameError::TooLarge));
        assert_eq!(buffered(&[0x30, 0x08]).next(10), Ok(None));
        assert_eq!(buffered(&[0x30, 0x09]).next(10), Err(FrameError::TooLarge));
    }

    #[test]
    fn a_length_in_more_octets_than_it_needs_is_malformed() {
        for octets in [&[0xc0, 0x80, 0x00][..], &[0x30, 0x83, 0x00], &[0x30, 0xff, 0x80, 0x00]] {
            assert_eq!(buffered(octets).next(100), Err(FrameError::Malformed), "{octets:?}");
        }
        assert_eq!(buffered(&[0xc0, 0x00]).next(100).unwrap().map(|frame| frame.body.len()), Some(0));
        assert_eq!(buffered(&[0x30, 0x80, 0x01]).next(200), Ok(None));
    }

    #[test]
    fn a_length_without_end_is_malformed() {
        assert_eq!(buffered(&[0x30, 0xff, 0xff, 0xff, 0xff]).next(usize::MAX), Err(FrameError::Malformed));
    }
}
