//! The UDS services of a simulated ECU.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use bytes::BytesMut;
use farrier_diagnostics::SecurityAlgorithm;
use farrier_diagnostics::doip::MAX_UDS_LENGTH;
use farrier_diagnostics::uds::{
    self, CommunicationControlResponse, ControlDtcSettingResponse, Decode, DiagnosticSessionControlRequest,
    DiagnosticSessionControlResponse, DiagnosticSessionType, EcuResetRequest, EcuResetResponse,
    NegativeResponseCode as Nrc, P2StarServerMax, ReadDataByIdentifierRequest, ReadDataByIdentifierResponse,
    Request, RequestDownloadRequest, RequestDownloadResponse, RequestTransferExitResponse, ResetType,
    Response, RoutineControlRequest, RoutineControlResponse, RoutineControlSubFunction,
    SecurityAccessRequest, SecurityAccessResponse, SecurityAccessType, TesterPresentResponse,
    TransferDataRequest, TransferDataResponse, UdsServiceType, WriteDataByIdentifierRequest,
    WriteDataByIdentifierResponse,
};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{AnswerPort, Ecu, Faults, P2_MS, Then};

/// P2* as the ECU tells it: 5 s in units of 10 ms.
const P2_STAR_10MS: u16 = 500;

/// The data identifier of the running session (ISO 14229-1 Annex C).
const ACTIVE_SESSION: u16 = 0xF186;

/// How many wrong keys lock security access.
const WRONG_KEYS_LIMIT: u8 = 3;

/// What a positive status record says, and what a negative one says.
const GOOD: &[u8] = &[0];
const BAD: &[u8] = &[1];

/// An image on its way into the inactive bank.
#[derive(Debug)]
pub(super) struct Download {
    file: File,
    size: u64,
    received: u64,
    /// How many blocks were written.
    blocks: u32,
    /// Counter of the last block that was written; 0 before the first.
    last_counter: u8,
    /// The exit was requested and every byte was there.
    complete: bool,
}

impl Download {
    /// Waits for a write that is under way.
    pub(super) async fn settle(&mut self) {
        // A write that failed has been answered as such; here it only has to be over.
        let _ = self.file.flush().await;
    }
}

impl Ecu {
    /// The answer to a request; nothing if the tester wants none.
    pub(super) async fn handle(
        &mut self,
        data: &[u8],
        port: &AnswerPort<'_>,
    ) -> Result<Option<BytesMut>, Nrc> {
        let (request, _) = Request::decode(data)
            .map_err(|error| error.negative_response_code().unwrap_or(Nrc::GeneralReject))?;
        let suppressed = request.is_positive_response_suppressed() == Some(true);
        let mut answer = BytesMut::new();
        match request {
            Request::DiagnosticSessionControl(request) => self.change_session(request, &mut answer)?,
            Request::EcuReset(request) => self.reset(request, &mut answer)?,
            Request::TesterPresent(request) if request.sub_function() != 0 => {
                return Err(Nrc::SubFunctionNotSupported);
            }
            Request::TesterPresent(_) => {
                positive(&mut answer, &Response::TesterPresent(TesterPresentResponse::new()))?;
            }
            Request::ReadDataByIdentifier(request) => self.read(&request, &mut answer)?,
            Request::SecurityAccess(request) => self.security_access(request, &mut answer)?,
            Request::CommunicationControl(request) => {
                self.require_session()?;
                let done = CommunicationControlResponse::new(request.control_type());
                positive(&mut answer, &Response::CommunicationControl(done))?;
            }
            Request::ControlDtcSetting(request) => {
                self.require_session()?;
                let done = ControlDtcSettingResponse::new(request.setting);
                positive(&mut answer, &Response::ControlDtcSetting(done))?;
            }
            Request::WriteDataByIdentifier(request) => self.write_fingerprint(request, &mut answer)?,
            Request::RoutineControl(request) => self.routine(request, port, &mut answer).await?,
            Request::RequestDownload(request) => self.request_download(request, &mut answer)?,
            Request::TransferData(request) => self.transfer(request, port, &mut answer).await?,
            Request::RequestTransferExit(_) => self.transfer_exit(&mut answer).await?,
            Request::ClearDiagnosticInfo(_)
            | Request::ReadDtcInfo(_)
            | Request::RequestFileTransfer(_)
            | Request::RequestUpload(_)
            | Request::Other { .. } => return Err(Nrc::ServiceNotSupported),
            // The enum may grow: what this program does not know, the ECU does not support.
            _ => return Err(Nrc::ServiceNotSupported),
        }
        // A fault leaves the answer empty.
        Ok((!suppressed && !answer.is_empty()).then_some(answer))
    }

    fn require_session(&self) -> Result<(), Nrc> {
        if self.in_session() { Ok(()) } else { Err(Nrc::ServiceNotSupportedInActiveSession) }
    }

    /// Programming needs its session and an unlocked ECU.
    fn require_programming(&self) -> Result<(), Nrc> {
        if self.session != DiagnosticSessionType::ProgrammingSession {
            return Err(Nrc::ServiceNotSupportedInActiveSession);
        }
        self.require_unlocked()
    }

    fn require_unlocked(&self) -> Result<(), Nrc> {
        if self.security.unlocked { Ok(()) } else { Err(Nrc::SecurityAccessDenied) }
    }

    fn change_session(
        &mut self,
        request: DiagnosticSessionControlRequest,
        answer: &mut BytesMut,
    ) -> Result<(), Nrc> {
        let session = request.session_type;
        match session {
            DiagnosticSessionType::DefaultSession | DiagnosticSessionType::ExtendedDiagnosticSession => {}
            DiagnosticSessionType::ProgrammingSession if self.in_session() => {}
            DiagnosticSessionType::ProgrammingSession => {
                return Err(Nrc::SubFunctionNotSupportedInActiveSession);
            }
            DiagnosticSessionType::IsoSaeReserved { .. }
            | DiagnosticSessionType::SafetySystemDiagnosticSession
            | DiagnosticSessionType::VehicleManufacturerSpecificSession { .. }
            | DiagnosticSessionType::SystemSupplierSpecificSession { .. } => {
                return Err(Nrc::SubFunctionNotSupported);
            }
        }
        self.enter_session(session);
        let p2_star = P2StarServerMax::from_tens_of_millis(P2_STAR_10MS);
        let done = DiagnosticSessionControlResponse::new(session, P2_MS, p2_star);
        positive(answer, &Response::DiagnosticSessionControl(done))
    }

    fn reset(&mut self, request: EcuResetRequest, answer: &mut BytesMut) -> Result<(), Nrc> {
        if request.reset_type != ResetType::HardReset {
            return Err(Nrc::SubFunctionNotSupported);
        }
        self.then = Then::Restart;
        positive(answer, &Response::EcuReset(EcuResetResponse::new(ResetType::HardReset)))
    }

    fn read(&self, request: &ReadDataByIdentifierRequest<'_>, answer: &mut BytesMut) -> Result<(), Nrc> {
        let mut records = Vec::new();
        for identifier in request.dids() {
            records.extend(identifier.to_be_bytes());
            records.extend(self.record(identifier).ok_or(Nrc::RequestOutOfRange)?);
            // The service byte goes before them.
            if records.len() >= MAX_UDS_LENGTH {
                return Err(Nrc::ResponseTooLong);
            }
        }
        positive(answer, &Response::ReadDataByIdentifier(ReadDataByIdentifierResponse::new(&records)))
    }

    /// The data record of an identifier that this ECU knows.
    fn record(&self, identifier: u16) -> Option<Vec<u8>> {
        let ids = &self.identifiers;
        let config = &self.config;
        let text = |value: &str| Some(value.as_bytes().to_vec());
        let one_module = |value: &str| Some([&[1], value.as_bytes()].concat());
        match identifier {
            ACTIVE_SESSION => Some(vec![self.session.value()]),
            _ if identifier == ids.supplier_code => text(&config.supplier_code),
            _ if identifier == ids.hw_part_no => text(&config.hw_part_no),
            _ if identifier == ids.sw_part_no => text(&config.sw_part_no),
            _ if identifier == ids.sw_version || identifier == ids.fingerprint => {
                text(&self.banks.running().version)
            }
            _ if identifier == ids.bootloader_ver => one_module(&config.bootloader_ver),
            _ if identifier == ids.calibration_id => one_module(&config.calibration_id),
            _ if identifier == ids.active_bank => Some(vec![self.banks.active()]),
            // A data record has at least one byte: a zero stands for no version.
            _ if identifier == ids.other_bank_version && !self.banks.other().valid => Some(vec![0]),
            _ if identifier == ids.other_bank_version => text(&self.banks.other().version),
            _ if identifier == ids.trial_state => Some(vec![self.banks.trial_state()]),
            _ => None,
        }
    }

    fn security_access(
        &mut self,
        request: SecurityAccessRequest<'_>,
        answer: &mut BytesMut,
    ) -> Result<(), Nrc> {
        self.require_session()?;
        if self.security.locked_until.is_some_and(|until| Instant::now() < until) {
            return Err(Nrc::RequiredTimeDelayNotExpired);
        }
        let our_level = self.identifiers.security_level;
        match request.access_type {
            SecurityAccessType::RequestSeed(level) if level.request_seed() == our_level => {
                let seed = if self.security.unlocked { [0; 4] } else { fresh_seed()? };
                self.security.seed = Some(seed);
                let access = SecurityAccessResponse::new(request.access_type, &seed);
                positive(answer, &Response::SecurityAccess(access))
            }
            SecurityAccessType::SendKey(level) if level.request_seed() == our_level => {
                self.check_key(request.request_data)?;
                let access = SecurityAccessResponse::new(request.access_type, &[]);
                positive(answer, &Response::SecurityAccess(access))
            }
            SecurityAccessType::RequestSeed(_)
            | SecurityAccessType::SendKey(_)
            | SecurityAccessType::IsoSaeReserved { .. }
            | SecurityAccessType::Iso26021_2Values
            | SecurityAccessType::Iso26021_2SendKeyValues
            | SecurityAccessType::SystemSupplierSpecific { .. } => Err(Nrc::SubFunctionNotSupported),
        }
    }

    fn check_key(&mut self, key: &[u8]) -> Result<(), Nrc> {
        let seed = self.security.seed.take().ok_or(Nrc::RequestSequenceError)?;
        if SecurityAlgorithm::InsecureXorA5ForSimulatorsOnly.key(&seed) == key {
            self.security.unlocked = true;
            self.security.wrong_keys = 0;
            return Ok(());
        }
        self.security.wrong_keys += 1;
        if self.security.wrong_keys < WRONG_KEYS_LIMIT {
            return Err(Nrc::InvalidKey);
        }
        self.security.wrong_keys = 0;
        let delay = Duration::from_millis(self.config.timing.security_delay_ms);
        self.security.locked_until = Some(Instant::now() + delay);
        Err(Nrc::ExceedNumberOfAttempts)
    }

    fn write_fingerprint(
        &mut self,
        request: WriteDataByIdentifierRequest<'_>,
        answer: &mut BytesMut,
    ) -> Result<(), Nrc> {
        self.require_programming()?;
        let version = request.data();
        let printable = version.iter().all(|byte| (0x20..0x7F).contains(byte));
        if request.identifier != self.identifiers.fingerprint || !printable || version.len() > 128 {
            return Err(Nrc::RequestOutOfRange);
        }
        self.fingerprint = Some(String::from_utf8_lossy(version).into_owned());
        let done = WriteDataByIdentifierResponse::new(request.identifier);
        positive(answer, &Response::WriteDataByIdentifier(done))
    }

    async fn routine(
        &mut self,
        request: RoutineControlRequest<'_>,
        port: &AnswerPort<'_>,
        answer: &mut BytesMut,
    ) -> Result<(), Nrc> {
        self.require_session()?;
        if request.sub_function != RoutineControlSubFunction::StartRoutine {
            return Err(Nrc::SubFunctionNotSupported);
        }
        let ids = &self.identifiers;
        let routine = request.routine_id;
        let status = match routine {
            _ if routine == ids.check_preconditions_routine => GOOD,
            _ if routine == ids.erase_routine => self.erase(port).await?,
            _ if routine == ids.check_memory_routine => {
                self.check_memory(request.option_record, port).await?
            }
            _ if routine == ids.check_dependencies_routine => {
                self.require_programming()?;
                if self.banks.other().valid { GOOD } else { BAD }
            }
            _ if routine == ids.activate_routine => {
                self.require_unlocked()?;
                self.banks.activate()?;
                self.saved()?
            }
            _ if routine == ids.confirm_routine => {
                self.require_unlocked()?;
                self.banks.confirm()?;
                self.saved()?
            }
            _ if routine == ids.roll_back_routine => {
                self.require_unlocked()?;
                if Faults::take_one(&mut self.faults.lock().refuses_roll_back) {
                    return Err(Nrc::GeneralProgrammingFailure);
                }
                self.banks.roll_back();
                self.saved()?
            }
            _ => return Err(Nrc::RequestOutOfRange),
        };
        let done = RoutineControlResponse::new(request.sub_function, routine, status);
        positive(answer, &Response::RoutineControl(done))
    }

    /// A flag counts only once it is in the state file.
    fn saved(&self) -> Result<&'static [u8], Nrc> {
        self.banks.save(&self.folder).map(|()| GOOD).map_err(|error| self.failed_to_write(&error))
    }

    fn failed_to_write(&self, error: &dyn std::error::Error) -> Nrc {
        tracing::error!(ecu = self.config.ecu_id, %error, "The ECU could not write its memory.");
        Nrc::GeneralProgrammingFailure
    }

    async fn erase(&mut self, port: &AnswerPort<'_>) -> Result<&'static [u8], Nrc> {
        self.require_programming()?;
        self.download = None;
        self.banks.erase()?;
        // The bank is unbootable before its content goes, and cannot be written before the erase has ended.
        let status = self.saved()?;
        let image = self.banks.other_image(&self.folder);
        match std::fs::remove_file(&image) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(self.failed_to_write(&error));
            }
            Ok(()) | Err(_) => {}
        }
        let service = UdsServiceType::RoutineControl.to_request_sid();
        port.work(service, Duration::from_millis(self.config.timing.erase_ms)).await;
        std::fs::File::create(image).map_err(|error| self.failed_to_write(&error))?;
        Ok(status)
    }

    async fn check_memory(&mut self, expected: &[u8], port: &AnswerPort<'_>) -> Result<&'static [u8], Nrc> {
        self.require_programming()?;
        if expected.len() != SHA256.output_len() {
            return Err(Nrc::IncorrectMessageLengthOrInvalidFormat);
        }
        let complete = self.download.as_ref().is_some_and(|download| download.complete);
        let version = self.fingerprint.clone().filter(|_| complete).ok_or(Nrc::RequestSequenceError)?;
        port.pending(UdsServiceType::RoutineControl.to_request_sid());
        // What counts is what is in the memory, not what came over the wire.
        let image = self.banks.other_image(&self.folder);
        let found = tokio::task::spawn_blocking(move || digest_of(image))
            .await
            .map_err(|error| self.failed_to_write(&error))?
            .map_err(|error| self.failed_to_write(&error))?;
        if self.faults.lock().wrong_checksum || found.as_ref() != expected {
            return Ok(BAD);
        }
        self.banks.written(version);
        self.saved()
    }

    fn request_download(
        &mut self,
        request: RequestDownloadRequest,
        answer: &mut BytesMut,
    ) -> Result<(), Nrc> {
        self.require_programming()?;
        let plain = request.data_format_identifier().value() == 0;
        let address = u64::from(self.identifiers.memory_address);
        if !plain || request.memory_address() != address || request.memory_size() == 0 {
            return Err(Nrc::RequestOutOfRange);
        }
        // Only an erased bank can be written, and only if it is known what will be in it.
        let image = self.banks.other_image(&self.folder);
        if self.fingerprint.is_none() || self.banks.other().valid || !image.exists() {
            return Err(Nrc::RequestSequenceError);
        }
        let file = std::fs::File::create(image).map_err(|error| self.failed_to_write(&error))?;
        let (file, size) = (File::from_std(file), request.memory_size());
        self.download =
            Some(Download { file, size, received: 0, blocks: 0, last_counter: 0, complete: false });
        let length = self.config.timing.max_block_length.to_be_bytes();
        let done = RequestDownloadResponse::new(&length).map_err(|_| Nrc::GeneralReject)?;
        positive(answer, &Response::RequestDownload(done))
    }

    async fn transfer(
        &mut self,
        request: TransferDataRequest<'_>,
        port: &AnswerPort<'_>,
        answer: &mut BytesMut,
    ) -> Result<(), Nrc> {
        self.require_programming()?;
        let timing = &self.config.timing;
        let download = self.download.as_mut().ok_or(Nrc::RequestSequenceError)?;
        let done = TransferDataResponse::new(request.block_sequence_counter, &[]);
        let repeated = download.received > 0 && request.block_sequence_counter == download.last_counter;
        if repeated {
            return positive(answer, &Response::TransferData(done));
        }
        if request.block_sequence_counter != download.last_counter.wrapping_add(1) {
            return Err(Nrc::WrongBlockSequenceCounter);
        }
        let length = request.data.len() as u64;
        if length == 0 || length + 2 > u64::from(timing.max_block_length) {
            return Err(Nrc::IncorrectMessageLengthOrInvalidFormat);
        }
        let end = download.received + length;
        if end > download.size {
            return Err(Nrc::TransferDataSuspended);
        }
        let number = download.blocks + 1;
        let (fails, loses_power, loses_answer) = {
            let mut faults = self.faults.lock();
            (
                faults.fails_write_at_byte.is_some_and(|limit| end > limit),
                Faults::take_at(&mut faults.loses_power_at_block, number),
                Faults::take_at(&mut faults.loses_answer_to_block, number),
            )
        };
        if fails {
            return Err(Nrc::GeneralProgrammingFailure);
        }
        let service = UdsServiceType::TransferData.to_request_sid();
        port.work(service, Duration::from_millis(timing.block_ms)).await;
        let written = if loses_power { request.data.len() / 2 } else { request.data.len() };
        if let Err(error) = download.file.write_all(request.data.get(..written).unwrap_or_default()).await {
            return Err(self.failed_to_write(&error));
        }
        if loses_power {
            self.then = Then::LosePower;
            return Ok(());
        }
        download.received = end;
        download.blocks = number;
        download.last_counter = request.block_sequence_counter;
        if loses_answer {
            return Ok(());
        }
        positive(answer, &Response::TransferData(done))
    }

    async fn transfer_exit(&mut self, answer: &mut BytesMut) -> Result<(), Nrc> {
        self.require_programming()?;
        let download = self.download.as_mut().ok_or(Nrc::RequestSequenceError)?;
        if download.received != download.size {
            return Err(Nrc::RequestSequenceError);
        }
        // What is acknowledged here survives a power cut of the machine that simulates it.
        if let Err(error) = download.file.sync_all().await {
            return Err(self.failed_to_write(&error));
        }
        download.complete = true;
        positive(answer, &Response::RequestTransferExit(RequestTransferExitResponse::new(&[])))
    }
}

fn positive(answer: &mut BytesMut, response: &Response<'_>) -> Result<(), Nrc> {
    uds::append(answer, response).map_err(|_| Nrc::GeneralReject)
}

/// A seed that is never all zeros, which would mean "unlocked already".
fn fresh_seed() -> Result<[u8; 4], Nrc> {
    let mut seed = [0; 4];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| Nrc::GeneralReject)?;
    if let Some(last) = seed.last_mut() {
        *last |= 1;
    }
    Ok(seed)
}

fn digest_of(image: PathBuf) -> std::io::Result<Digest> {
    use std::io::Read;
    let mut file = std::fs::File::open(image)?;
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = file.read(&mut buffer)?;
        match buffer.get(..length) {
            None | Some([]) => return Ok(digest.finish()),
            Some(part) => digest.update(part),
        }
    }
}
