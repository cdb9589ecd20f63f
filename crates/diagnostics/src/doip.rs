//! How both ends use DoIP frames (ISO 13400-2): version, bounds, and building a frame.
//! The messages themselves are those of `simple_doip`; sockets are the caller's.

use bytes::{BufMut, BytesMut};
pub use simple_doip::LogicalAddress;
pub use simple_doip::message_codec::{Frame, MessageCodec};
pub use simple_doip::messages::{
    ActivationTypeCode, AliveCheckResponse, DiagnosticNackCode, FurtherActionRequired, Message, MessageError,
    NackCode, OwnedDiagnosticMessage, OwnedMessage, OwnedPayload, Payload, RoutingActivationRequest,
    RoutingActivationResponseCode, VehicleIdentificationResponse, VinGidSyncStatus,
};
use simple_doip::messages::{Encode, Header, PayloadType, ProtocolVersion};

/// The version that both ends write: ISO 13400-2:2012, the most widely understood one.
pub const VERSION: ProtocolVersion = ProtocolVersion::V2012;

/// The longest UDS message that is sent or accepted, in bytes: what two bytes of
/// maxNumberOfBlockLength can say.
pub const MAX_UDS_LENGTH: usize = 0xFFFF;

/// The longest DoIP payload that is read, in bytes: the longest UDS message with its two addresses, or
/// an acknowledgement that repeats it. A longer one is dropped without being buffered.
pub const MAX_PAYLOAD_LENGTH: u32 = MAX_UDS_LENGTH as u32 + 5;

/// Bytes that stand before the UDS message in a diagnostic message: header, source, target.
pub const DIAGNOSTIC_PREFIX_LENGTH: usize = Header::SIZE + 4;

/// The decoder for a connection: refuses a wrong inverse version, bounds every payload.
pub fn codec() -> MessageCodec {
    MessageCodec::with_max_payload_length(MAX_PAYLOAD_LENGTH)
}

/// What precedes a UDS message of `uds_length` bytes on the wire, so that a block of 64 KiB is sent from
/// where it was read to instead of being copied into a frame.
pub fn diagnostic_message_prefix(
    source: LogicalAddress,
    target: LogicalAddress,
    uds_length: u16,
) -> [u8; DIAGNOSTIC_PREFIX_LENGTH] {
    let version = u8::from(VERSION);
    let [type_high, type_low] = u16::from(PayloadType::DiagnosticMessage).to_be_bytes();
    let [l3, l2, l1, l0] = (u32::from(uds_length) + 4).to_be_bytes();
    let [source_high, source_low] = source.0.to_be_bytes();
    let [target_high, target_low] = target.0.to_be_bytes();
    [version, !version, type_high, type_low, l3, l2, l1, l0, source_high, source_low, target_high, target_low]
}

/// Appends a whole frame to `out`.
///
/// # Errors
/// A message that DoIP cannot carry, such as a diagnostic message without data.
pub fn append_frame(out: &mut BytesMut, message: &Message<'_>) -> Result<(), MessageError> {
    let size = message.encoded_size()?;
    let start = out.len();
    out.put_bytes(0, size);
    let written = out.get_mut(start..).map_or(Ok(0), |frame| message.encode_to_slice(frame));
    if written.is_err() {
        out.truncate(start);
    }
    written.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio_util::codec::Decoder;

    const TESTER: LogicalAddress = LogicalAddress(0x0E80);
    const ECU: LogicalAddress = LogicalAddress(0x1010);

    fn decode(bytes: &[u8]) -> Result<Option<Frame>, MessageError> {
        codec().decode(&mut BytesMut::from(bytes))
    }

    #[test]
    fn a_prefix_and_its_data_are_the_frame_that_the_codec_writes() {
        let uds = [0x36, 0x01, 0xAA, 0xBB];
        let mut whole = BytesMut::new();
        append_frame(&mut whole, &Message::diagnostic_message(VERSION, TESTER, ECU, &uds)).unwrap();
        let mut parts = diagnostic_message_prefix(TESTER, ECU, 4).to_vec();
        parts.extend(uds);
        assert_eq!(whole.as_ref(), parts);
    }

    #[test]
    fn an_acknowledgement_without_data_is_five_bytes_long() {
        let mut frame = BytesMut::new();
        append_frame(&mut frame, &Message::diagnostic_message_ack(VERSION, ECU, TESTER, &[])).unwrap();
        assert_eq!(frame.as_ref(), [2, 0xFD, 0x80, 2, 0, 0, 0, 5, 0x10, 0x10, 0x0E, 0x80, 0]);
    }

    #[test]
    fn a_message_that_cannot_be_sent_leaves_the_buffer_as_it_was() {
        let mut out = BytesMut::from(&b"before"[..]);
        assert!(append_frame(&mut out, &Message::diagnostic_message(VERSION, TESTER, ECU, &[])).is_err());
        assert_eq!(out.as_ref(), b"before");
    }

    #[test]
    fn a_wrong_inverse_version_is_refused() {
        assert!(decode(&[2, 0xFC, 0x80, 1, 0, 0, 0, 5, 0x10, 0x10, 0x0E, 0x80, 0x3E]).is_err());
    }

    #[test]
    fn a_payload_above_the_bound_is_never_buffered() {
        let frame = decode(&[2, 0xFD, 0x80, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x10]);
        assert!(matches!(frame, Ok(Some(Frame::TooLarge { .. }))));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_diagnostic_message_survives_the_wire(
            source: u16, target: u16, uds in proptest::collection::vec(any::<u8>(), 1..300),
        ) {
            let (source, target) = (LogicalAddress(source), LogicalAddress(target));
            let mut frame = BytesMut::new();
            append_frame(&mut frame, &Message::diagnostic_message(VERSION, source, target, &uds)).unwrap();
            let Ok(Some(Frame::Message(message))) = decode(&frame) else { panic!("not decoded") };
            prop_assert_eq!(message, OwnedMessage::diagnostic_message(VERSION, source, target, uds));
        }
    }
}
