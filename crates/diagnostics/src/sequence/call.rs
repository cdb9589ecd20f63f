//! The requests of a sequence, and how each is built.

use bytes::BytesMut;

use super::failure::Failure;
use crate::settings::{Identifiers, Settings};
use crate::uds::{
    self, AddressAndLengthFormatIdentifier, CommunicationControlRequest, CommunicationControlType,
    CommunicationType, ControlDtcSettingRequest, DataFormatIdentifier, DiagnosticSessionControlRequest,
    DiagnosticSessionType, DtcSettingType, EcuResetRequest, ReadDataByIdentifierRequest, Request,
    RequestDownloadRequest, RequestTransferExitRequest, ResetType, RoutineControlRequest,
    RoutineControlSubFunction, SecurityAccessLevel, SecurityAccessRequest, SecurityAccessType,
    WriteDataByIdentifierRequest,
};

/// One request of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `10`.
    OpenSession(DiagnosticSessionType),
    /// `22`, kept for the caller.
    Read(u16),
    /// `22` of the hardware part number, compared with the one the image is made for.
    CheckHardware,
    /// `27`, odd sub-function.
    RequestSeed,
    /// `27`, even sub-function.
    SendKey,
    /// `2E` of the fingerprint: the version that follows.
    WriteFingerprint,
    /// `31 01`.
    StartRoutine(Routine),
    /// `34`.
    RequestDownload,
    /// All the `36`.
    TransferBlocks,
    /// `37`.
    TransferExit,
    /// `85 02`.
    StopFaultRecording,
    /// `28 03`.
    StopNormalCommunication,
    /// `11 01`.
    Reset,
}

/// A routine of an ECU; its number is a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routine {
    /// Whether the ECU can be programmed now.
    CheckPreconditions,
    /// Erases the inactive bank.
    Erase,
    /// Compares what was written with the SHA-256 of the image.
    CheckMemory,
    /// Whether what was written can run here.
    CheckDependencies,
    /// Marks the inactive bank for the next boot.
    Activate,
    /// Ends the trial.
    Confirm,
    /// Marks the earlier bank for the next boot.
    RollBack,
}

impl Routine {
    fn number(self, identifiers: &Identifiers) -> u16 {
        match self {
            Self::CheckPreconditions => identifiers.check_preconditions_routine,
            Self::Erase => identifiers.erase_routine,
            Self::CheckMemory => identifiers.check_memory_routine,
            Self::CheckDependencies => identifiers.check_dependencies_routine,
            Self::Activate => identifiers.activate_routine,
            Self::Confirm => identifiers.confirm_routine,
            Self::RollBack => identifiers.roll_back_routine,
        }
    }
}

/// The image that goes into the inactive bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteJob {
    /// Length of the image in bytes, 1 to 4,294,967,295.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Its version, up to 128 ASCII characters.
    pub version: String,
    /// The hardware it is made for: nothing is erased on an ECU that says otherwise.
    pub hw_part_no: String,
}

impl WriteJob {
    /// Why this cannot be written to any ECU, if so: found before anything is erased.
    pub(super) fn unusable(&self) -> Option<Failure> {
        if !(1..=u64::from(u32::MAX)).contains(&self.size) {
            return Some(Failure::ImageSize { size: self.size });
        }
        let printable = self.version.bytes().all(|byte| (0x20..0x7F).contains(&byte));
        if !printable || !(1..=128).contains(&self.version.len()) {
            return Some(Failure::VersionText { version: self.version.clone() });
        }
        None
    }
}

impl Call {
    /// Appends the request to `out`.
    pub(super) fn append_request(
        self,
        settings: &Settings,
        job: Option<&WriteJob>,
        seed: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), uds::Error> {
        let identifiers = &settings.identifiers;
        match self {
            Self::OpenSession(session) => uds::append(
                out,
                &Request::DiagnosticSessionControl(DiagnosticSessionControlRequest::new(false, session)),
            ),
            Self::Read(identifier) => append_read(out, identifier),
            Self::CheckHardware => append_read(out, identifiers.hw_part_no),
            Self::RequestSeed => {
                let level = SecurityAccessLevel::from_request_seed(identifiers.security_level)?;
                append_security(out, SecurityAccessType::RequestSeed(level), &[])
            }
            Self::SendKey => {
                let level = SecurityAccessLevel::from_request_seed(identifiers.security_level)?;
                let key = settings.security.key(seed);
                append_security(out, SecurityAccessType::SendKey(level), &key)
            }
            Self::WriteFingerprint => {
                let version = job.map(|job| job.version.as_bytes()).unwrap_or_default();
                let write = WriteDataByIdentifierRequest::new(identifiers.fingerprint, version)?;
                uds::append(out, &Request::WriteDataByIdentifier(write))
            }
            Self::StartRoutine(routine) => {
                let sha256 = job.map(|job| job.sha256).unwrap_or_default();
                let option: &[u8] = if routine == Routine::CheckMemory { &sha256 } else { &[] };
                let start = RoutineControlSubFunction::StartRoutine;
                let number = routine.number(identifiers);
                let request = RoutineControlRequest::new(false, start, number, option);
                uds::append(out, &Request::RoutineControl(request))
            }
            Self::RequestDownload => {
                let size = job.map(|job| job.size).unwrap_or_default();
                let widths = AddressAndLengthFormatIdentifier::new(4, 4)?;
                let address = u64::from(identifiers.memory_address);
                let plain = DataFormatIdentifier::NONE;
                let request = RequestDownloadRequest::new_with_alfid(plain, widths, address, size)?;
                uds::append(out, &Request::RequestDownload(request))
            }
            // Blocks are appended by `next_block` and the caller.
            Self::TransferBlocks => Ok(()),
            Self::TransferExit => {
                uds::append(out, &Request::RequestTransferExit(RequestTransferExitRequest::new(&[])))
            }
            Self::StopFaultRecording => {
                let off = ControlDtcSettingRequest::new(false, DtcSettingType::Off);
                uds::append(out, &Request::ControlDtcSetting(off))
            }
            Self::StopNormalCommunication => {
                let request = CommunicationControlRequest::new(
                    false,
                    CommunicationControlType::DisableRxAndTx,
                    CommunicationType::Normal,
                )?;
                uds::append(out, &Request::CommunicationControl(request))
            }
            Self::Reset => {
                uds::append(out, &Request::EcuReset(EcuResetRequest::new(false, ResetType::HardReset)))
            }
        }
    }
}

fn append_read(out: &mut BytesMut, identifier: u16) -> Result<(), uds::Error> {
    uds::append(out, &Request::ReadDataByIdentifier(ReadDataByIdentifierRequest::new(&[identifier])))
}

fn append_security(out: &mut BytesMut, access: SecurityAccessType, data: &[u8]) -> Result<(), uds::Error> {
    uds::append(out, &Request::SecurityAccess(SecurityAccessRequest::new(false, access, data)))
}
