//! An answer against its command: correlation and content (protocol.md §3, §4, §7).

use std::collections::BTreeSet;

use crate::decode::Fault;
use crate::ids::EcuId;
use crate::json::{Member, Object};
use crate::message::{
    ErrorCode, ErrorResponse, Operation, ReadinessReport, RequestDownloadReadiness, RequestVci, SendVci,
    ServerBody, ServerMessage, StartDownload, UpdateSuccessResult, VciField, VehicleBody,
};
use crate::parse::ReceivedMessage;
use crate::refusal::{Refusal, RefusalCode};

impl ReceivedMessage {
    /// Whether this answers `command`: same binding, its `msg_id`, a type that belongs to it. Whether
    /// the command is still open and in time is the server's to know. A WakeUp answers nothing, and is
    /// taken as it is.
    ///
    /// # Errors
    /// BINDING_MISMATCH, UNKNOWN_CORRELATION or CORRELATION_TYPE_MISMATCH, in this order.
    pub fn check_correlation(&self, command: &ServerMessage) -> Result<(), Refusal> {
        let Some(correlation_id) = self.message.correlation_id() else { return Ok(()) };
        let mismatch = |pointer: &str, expected: &str, found: &str| {
            Err(Refusal::new(RefusalCode::BindingMismatch, pointer, expected, found))
        };
        if self.message.vehicle_id != command.vehicle_id {
            return mismatch("/vehicle_id", command.vehicle_id.as_str(), self.message.vehicle_id.as_str());
        }
        if self.message.gateway_id != command.gateway_id {
            return mismatch("/gateway_id", command.gateway_id.as_str(), self.message.gateway_id.as_str());
        }
        if *correlation_id != command.msg_id {
            let (expected, found) = (command.msg_id.as_str(), correlation_id.as_str());
            return Err(Refusal::new(RefusalCode::UnknownCorrelation, "/correlation_id", expected, found));
        }
        if self.message.body.belongs_to(&command.body) {
            return Ok(());
        }
        let expected = format!("an answer that belongs to a {}", command.message_type());
        let found = self.message.body.describe();
        Err(Refusal::new(RefusalCode::CorrelationTypeMismatch, "/correlation_id", expected, found))
    }

    /// Whether the content fits `command`, which `check_correlation` has matched; without a command, only
    /// what needs none.
    ///
    /// # Errors
    /// The first fault in document order.
    pub fn check_content(&self, command: Option<&ServerMessage>) -> Result<(), Refusal> {
        let Some(document) = self.document.as_ref().and_then(|document| document.value.as_object()) else {
            return Ok(());
        };
        let command = command.map(|command| &command.body);
        let mut first = First::default();
        match &self.message.body {
            VehicleBody::WakeUp(_) => {}
            VehicleBody::SendVci(vci) => {
                inventory(vci, document, &mut first);
                if let Some(ServerBody::RequestVci(request)) = command {
                    requested_vci(request, document, &mut first);
                }
            }
            VehicleBody::ReadinessReport(report) => {
                verdict(report, document, &mut first);
                if let Some(ServerBody::RequestDownloadReadiness(request)) = command {
                    requested_conditions(request, document, &mut first);
                }
            }
            VehicleBody::UpdateSuccessResult(result) => success(result, command, document, &mut first),
            VehicleBody::ErrorResponse(error) => {
                if let Some(command) = command {
                    error_code(error, command, document, &mut first);
                }
            }
        }
        first.fault.map_or(Ok(()), |fault| Err(fault.into()))
    }
}

impl VehicleBody {
    /// The table of protocol.md §3, correlation.
    fn belongs_to(&self, command: &ServerBody) -> bool {
        match self {
            Self::WakeUp(_) => false,
            Self::SendVci(_) => matches!(command, ServerBody::RequestVci(_)),
            Self::ReadinessReport(_) => matches!(command, ServerBody::RequestDownloadReadiness(_)),
            Self::UpdateSuccessResult(result) => match result.operation {
                Operation::Download | Operation::Install | Operation::Commit => {
                    matches!(command, ServerBody::StartDownload(_))
                }
                Operation::Rollback => matches!(command, ServerBody::StartRollback(_)),
            },
            Self::ErrorResponse(_) => !matches!(command, ServerBody::MessageRejected(_)),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::WakeUp(_) => "WakeUp".to_owned(),
            Self::SendVci(_) => "SendVCI".to_owned(),
            Self::ReadinessReport(_) => "ReadinessReportForDownload".to_owned(),
            Self::UpdateSuccessResult(result) => format!("UpdateSuccessResult({})", result.operation),
            Self::ErrorResponse(_) => "ErrorResponse".to_owned(),
        }
    }
}

/// Keeps the fault that stands first; of faults at one place the first that was found.
#[derive(Default)]
struct First {
    fault: Option<Fault>,
}

impl First {
    fn consider(&mut self, fault: Fault) {
        self.fault = Some(match self.fault.take() {
            Some(first) => first.or_earlier(Some(fault)),
            None => fault,
        });
    }

    /// A fault of a member that is there.
    fn member(&mut self, code: RefusalCode, path: &[&str], member: &Member, expected: &str, found: String) {
        let fault = Fault::new(code, member.start, expected, found).under(member.key.as_ref());
        self.consider(within(fault, path));
    }

    /// A fault of a member that is absent: it counts as standing at the end of its object.
    fn absent(&mut self, code: RefusalCode, path: &[&str], key: &str, object: &Object, expected: &str) {
        let fault = Fault::new(code, object.end, expected, "no such field").under(key);
        self.consider(within(fault, path));
    }
}

fn within(fault: Fault, path: &[&str]) -> Fault {
    path.iter().rev().fold(fault, |fault, segment| fault.under(*segment))
}

/// The entries of the inventory with their index as a segment of a pointer.
fn entries<'d>(document: &'d Object<'d>) -> impl Iterator<Item = (String, &'d Object<'d>)> {
    let items = document.member("ecu_inventory").and_then(|member| member.value.value.as_array());
    let items = items.unwrap_or_default().iter().enumerate();
    items.filter_map(|(index, item)| Some((index.to_string(), item.value.as_object()?)))
}

/// What an inventory must satisfy whoever asked: it is not empty and names no ECU twice.
fn inventory(vci: &SendVci, document: &Object, first: &mut First) {
    if let (true, Some(member)) = (vci.ecu_inventory.is_empty(), document.member("ecu_inventory")) {
        first.member(RefusalCode::VciEmpty, &[], member, "at least one ECU", "an empty array".to_owned());
    }
    let mut seen = BTreeSet::new();
    for (ecu, (index, entry)) in vci.ecu_inventory.iter().zip(entries(document)) {
        if seen.insert(&ecu.ecu_id) {
            continue;
        }
        if let Some(member) = entry.member("ecu_id") {
            let (path, expected) = (["ecu_inventory", index.as_str()], "each ECU once");
            let found = format!("{} again", ecu.ecu_id);
            first.member(RefusalCode::VciDuplicateEcu, &path, member, expected, found);
        }
    }
}

/// Every entry carries the requested fields and no other; the power snapshot likewise.
fn requested_vci(request: &RequestVci, document: &Object, first: &mut First) {
    for (index, entry) in entries(document) {
        for field in VciField::ALL {
            let need = match (field.kind(), request.fields.contains(field)) {
                (FieldKind::Always | FieldKind::Power, _) => continue,
                (FieldKind::Required, true) => Need::Must,
                (FieldKind::Conditional, true) => Need::May,
                (FieldKind::Required | FieldKind::Conditional, false) => Need::MustNot,
            };
            requested_field(need, &["ecu_inventory", &index], field.name(), entry, first);
        }
    }
    let power: Vec<&VciField> =
        request.fields.iter().filter(|field| field.kind() == FieldKind::Power).collect();
    let need = if power.is_empty() { Need::MustNot } else { Need::Must };
    requested_field(need, &[], "power", document, first);
    let snapshot = document.member("power").and_then(|member| member.value.value.as_object());
    if let (Need::Must, Some(snapshot)) = (need, snapshot) {
        for field in VciField::ALL.iter().filter(|field| field.kind() == FieldKind::Power) {
            let need = if power.contains(&field) { Need::Must } else { Need::MustNot };
            requested_field(need, &["power"], field.name(), snapshot, first);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Need {
    Must,
    May,
    MustNot,
}

fn requested_field(need: Need, path: &[&str], key: &str, object: &Object, first: &mut First) {
    match (need, object.member(key)) {
        (Need::Must, None) => {
            let expected = format!("the requested field {key:?}");
            first.absent(RefusalCode::VciFieldMissing, path, key, object, &expected);
        }
        (Need::MustNot, Some(member)) => {
            let expected = "only fields that were requested";
            let found = format!("{key:?}, which was not");
            first.member(RefusalCode::VciFieldNotRequested, path, member, expected, found);
        }
        (Need::Must | Need::May, Some(_)) | (Need::May | Need::MustNot, None) => {}
    }
}

/// What the source document of message 3 calls a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldKind {
    /// Sent whether it is asked for or not.
    Always,
    Required,
    /// Left out where the ECU has no such interface.
    Conditional,
    /// Not of an ECU: part of the power snapshot.
    Power,
}

impl VciField {
    fn kind(self) -> FieldKind {
        match self {
            Self::EcuId => FieldKind::Always,
            Self::SupplierCode
            | Self::HwPartNo
            | Self::SwPartNo
            | Self::SwVersion
            | Self::BootloaderVer
            | Self::CalibrationId => FieldKind::Required,
            Self::MacAddress | Self::IpAddress | Self::CanId => FieldKind::Conditional,
            Self::PowerBattery12V | Self::PowerBattery48V | Self::PowerChargingStatus => FieldKind::Power,
        }
    }
}

/// A ready vehicle has no reasons, another has some.
fn verdict(report: &ReadinessReport, document: &Object, first: &mut First) {
    let reasons = report.not_ready_reasons.as_ref().map_or(0, Vec::len);
    let expected = match (report.ready, reasons) {
        (true, 1..) => "no reasons, since ready is true",
        (false, 0) => "at least one reason, since ready is false",
        (true, 0) | (false, 1..) => return,
    };
    let (code, key) = (RefusalCode::ReadinessInconsistent, "not_ready_reasons");
    match document.member(key) {
        Some(member) => first.member(code, &[], member, expected, format!("{reasons} reasons")),
        None => first.absent(code, &[], key, document, expected),
    }
}

/// Only conditions that were asked for are reported.
fn requested_conditions(request: &RequestDownloadReadiness, document: &Object, first: &mut First) {
    let reported = document.member("requested_fields").and_then(|member| member.value.value.as_object());
    for member in reported.iter().flat_map(|object| &object.members) {
        let Ok(condition) = member.key.parse() else { continue };
        if !request.readiness_requirements.contains(&condition) {
            let (code, expected) =
                (RefusalCode::ReadinessFieldNotRequested, "only conditions that were requested");
            first.member(
                code,
                &["requested_fields"],
                member,
                expected,
                format!("{condition}, which was not"),
            );
        }
    }
}

/// A success counts every ECU of the command and vouches for every package.
fn success(result: &UpdateSuccessResult, command: Option<&ServerBody>, document: &Object, first: &mut First) {
    if let (false, Some(member)) = (result.verified_integrity, document.member("verified_integrity")) {
        first.member(RefusalCode::IntegrityNotVerified, &[], member, "true", "false".to_owned());
    }
    let Some(ServerBody::StartDownload(start)) = command else { return };
    let commanded = start.ecus().len();
    if let (false, Some(member)) =
        (u64::try_from(commanded) == Ok(result.ecu_count), document.member("ecu_count"))
    {
        let expected = format!("{commanded}, the ECUs of the command");
        first.member(RefusalCode::EcuCountMismatch, &[], member, &expected, result.ecu_count.to_string());
    }
}

impl StartDownload {
    /// The distinct ECUs that the command updates.
    pub fn ecus(&self) -> BTreeSet<&EcuId> {
        self.packages.iter().map(|package| &package.target_component).collect()
    }
}

/// A code answers only the commands that the table of message 10 names.
fn error_code(error: &ErrorResponse, command: &ServerBody, document: &Object, first: &mut First) {
    if let (false, Some(member)) = (error.code.answers(command), document.member("code")) {
        let expected = "a code that answers this command (message 10)";
        first.member(RefusalCode::InvalidField, &[], member, expected, error.code.to_string());
    }
}

impl ErrorCode {
    /// The table of message 10.
    fn answers(self, command: &ServerBody) -> bool {
        match self {
            Self::Expired | Self::Unsupported => true,
            Self::Busy => matches!(
                command,
                ServerBody::RequestVci(_)
                    | ServerBody::RequestDownloadReadiness(_)
                    | ServerBody::StartDownload(_)
            ),
            Self::VciIncomplete => matches!(command, ServerBody::RequestVci(_)),
            Self::DeltaBaseMismatch => {
                matches!(command, ServerBody::RequestDownloadReadiness(_) | ServerBody::StartDownload(_))
            }
            Self::ConsentDenied => matches!(command, ServerBody::StartDownload(_)),
            Self::UpdateFailed => matches!(command, ServerBody::StartDownload(start) if start.failure_report),
            Self::ServiceRequired => {
                matches!(command, ServerBody::StartDownload(_) | ServerBody::StartRollback(_))
            }
            Self::Cancelled | Self::CancelRefused => matches!(command, ServerBody::CancelUpdate(_)),
            Self::RollbackUnavailable => matches!(command, ServerBody::StartRollback(_)),
        }
    }
}
