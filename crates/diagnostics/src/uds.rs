//! UDS messages (ISO 14229-1) as both ends use them: building a message, and telling whether what came
//! is the answer to what was asked. The messages themselves are those of `uds_protocol`.

use bytes::{BufMut, BytesMut};
pub use uds_protocol::{
    AddressAndLengthFormatIdentifier, CommunicationControlRequest, CommunicationControlResponse,
    CommunicationControlType, CommunicationType, ControlDtcSettingRequest, ControlDtcSettingResponse,
    DataFormatIdentifier, Decode, DiagnosticSessionControlRequest, DiagnosticSessionControlResponse,
    DiagnosticSessionType, DtcSettingType, EcuResetRequest, EcuResetResponse, Encode, Error,
    NegativeResponse, NegativeResponseCode, P2StarServerMax, ReadDataByIdentifierRequest,
    ReadDataByIdentifierResponse, Request, RequestDownloadRequest, RequestDownloadResponse,
    RequestTransferExitRequest, RequestTransferExitResponse, ResetType, Response, RoutineControlRequest,
    RoutineControlResponse, RoutineControlSubFunction, SecurityAccessLevel, SecurityAccessRequest,
    SecurityAccessResponse, SecurityAccessType, TesterPresentRequest, TesterPresentResponse,
    TransferDataRequest, TransferDataResponse, UdsServiceType, WriteDataByIdentifierRequest,
    WriteDataByIdentifierResponse,
};

/// `3E 80`: keeps a session open and asks for no answer.
pub const TESTER_PRESENT_WITHOUT_ANSWER: [u8; 2] = [0x3E, 0x80];

/// Service byte of a negative response.
const NEGATIVE_RESPONSE: u8 = 0x7F;

/// What lies between a request's service byte and its positive answer's.
const POSITIVE_OFFSET: u8 = 0x40;

/// Appends a request or response to `out`.
///
/// # Errors
/// A message that UDS cannot carry, such as an empty data record.
pub fn append<M: Encode<Error = Error>>(out: &mut BytesMut, message: &M) -> Result<(), Error> {
    let size = message.encoded_size()?;
    let start = out.len();
    out.put_bytes(0, size);
    let written = out.get_mut(start..).map_or(Ok(0), |part| message.encode_to_slice(part));
    if written.is_err() {
        out.truncate(start);
    }
    written.map(|_| ())
}

/// What a received message is to the request that is outstanding.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Its positive response.
    Positive(Response<'a>),
    /// Its negative response.
    Negative(NegativeResponseCode),
    /// A response to something else: a late answer to an earlier request.
    Foreign,
    /// Its positive response by service and echo, but not a message of that service.
    Malformed,
}

/// The first bytes of a request, by which its answer is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    service: u8,
    echo: [u8; 3],
    echo_length: usize,
}

impl Expected {
    /// What the answer to this request begins with.
    pub fn for_request(request: &[u8]) -> Self {
        let mut expected = Self::default();
        let Some((service, rest)) = request.split_first() else { return expected };
        expected.service = *service;
        expected.echo_length = echo_length(*service).min(rest.len());
        for (to, from) in expected.echo.iter_mut().zip(rest) {
            *to = *from;
        }
        expected
    }

    /// Classifies a received message.
    pub fn classify<'a>(&self, received: &'a [u8]) -> Answer<'a> {
        if let [NEGATIVE_RESPONSE, service, code] = received {
            return if *service == self.service {
                Answer::Negative(NegativeResponseCode::from(*code))
            } else {
                Answer::Foreign
            };
        }
        let Some((service, rest)) = received.split_first() else { return Answer::Foreign };
        let echo = self.echo.get(..self.echo_length).unwrap_or_default();
        if *service != self.service.wrapping_add(POSITIVE_OFFSET) || !rest.starts_with(echo) {
            return Answer::Foreign;
        }
        match Response::decode(received) {
            Ok((response, _)) => Answer::Positive(response),
            Err(_) => Answer::Malformed,
        }
    }
}

/// How many bytes after the service byte a positive response repeats from its request.
fn echo_length(service: u8) -> usize {
    match service {
        // Sub-function, or block counter.
        0x10 | 0x11 | 0x27 | 0x28 | 0x36 | 0x3E | 0x85 => 1,
        // Data identifier.
        0x22 | 0x2E => 2,
        // Sub-function and routine identifier.
        0x31 => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(request: &Request<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        append(&mut out, request).unwrap();
        out
    }

    #[test]
    fn the_answer_to_an_earlier_block_is_foreign() {
        let expected = Expected::for_request(&[0x36, 0x02, 0xAA]);
        assert_eq!(expected.classify(&[0x76, 0x01]), Answer::Foreign);
        assert!(matches!(expected.classify(&[0x76, 0x02]), Answer::Positive(Response::TransferData(_))));
    }

    #[test]
    fn a_routine_is_recognised_by_its_number() {
        let expected = Expected::for_request(&[0x31, 0x01, 0xFF, 0x00]);
        assert_eq!(expected.classify(&[0x71, 0x01, 0x02, 0x02, 0x00]), Answer::Foreign);
        assert!(matches!(expected.classify(&[0x71, 0x01, 0xFF, 0x00, 0x00]), Answer::Positive(_)));
    }

    #[test]
    fn a_negative_response_belongs_to_its_service() {
        let expected = Expected::for_request(&[0x34, 0x00]);
        assert_eq!(expected.classify(&[0x7F, 0x3E, 0x12]), Answer::Foreign);
        assert_eq!(
            expected.classify(&[0x7F, 0x34, 0x70]),
            Answer::Negative(NegativeResponseCode::UploadDownloadNotAccepted)
        );
    }

    #[test]
    fn a_positive_answer_with_bytes_too_many_is_malformed() {
        assert_eq!(Expected::for_request(&[0x11, 0x01]).classify(&[0x51, 0x01, 1, 2, 3]), Answer::Malformed);
    }

    proptest! {
        #[test]
        fn classifying_never_panics(
            request in proptest::collection::vec(any::<u8>(), 0..16),
            received in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = Expected::for_request(&request).classify(&received);
            let _ = Request::decode(&received);
        }

        #[test]
        fn requests_survive_the_wire(
            counter: u8, did: u16, routine: u16, address: u32, size: u32,
            data in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let width = AddressAndLengthFormatIdentifier::new(4, 4).unwrap();
            let requests = [
                Request::TransferData(TransferDataRequest::new(counter, &data)),
                Request::WriteDataByIdentifier(WriteDataByIdentifierRequest::new(did, &data).unwrap()),
                Request::RoutineControl(RoutineControlRequest::new(
                    false, RoutineControlSubFunction::StartRoutine, routine, &data,
                )),
                Request::RequestDownload(RequestDownloadRequest::new_with_alfid(
                    DataFormatIdentifier::NONE, width, address.into(), size.into(),
                ).unwrap()),
            ];
            for request in requests {
                let bytes = bytes_of(&request);
                prop_assert_eq!(Request::decode(&bytes).unwrap().0, request);
            }
        }
    }
}
