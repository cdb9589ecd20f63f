//! The eleven messages of protocol.md §4 as types. `VehicleMessage` travels up, `ServerMessage` down.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, ConditionValues, PowerSnapshot};
use crate::decode::{list, optional_list};
use crate::envelope::ProtoVer;
use crate::ids::{
    Binding, CanId, EcuId, GatewayId, IpAddress, LongText, MacAddress, MsgId, PkgId, Sha256, Text,
    Thumbprint, UnixMillis, VehicleId,
};
use crate::names::wire_names;
use crate::placement::FunctionalGroup;

/// What a vehicle's gateway sends, on `up/{wakeup|vci|readiness|result|error}`.
#[derive(Debug, Clone, PartialEq)]
pub struct VehicleMessage {
    /// Unique per sender.
    pub msg_id: MsgId,
    /// The protocol version that the sender speaks.
    pub proto_ver: ProtoVer,
    /// The sending vehicle.
    pub vehicle_id: VehicleId,
    /// Its gateway.
    pub gateway_id: GatewayId,
    /// When it was sent, by the vehicle's clock, which may be wrong.
    pub ts: UnixMillis,
    /// The message proper.
    pub body: VehicleBody,
}

/// What the server sends, on `down`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerMessage {
    /// Unique per sender.
    pub msg_id: MsgId,
    /// The protocol version that the sender speaks.
    pub proto_ver: ProtoVer,
    /// The vehicle it is for.
    pub vehicle_id: VehicleId,
    /// Its gateway.
    pub gateway_id: GatewayId,
    /// When it was sent.
    pub ts: Option<UnixMillis>,
    /// The message proper.
    pub body: ServerBody,
}

impl VehicleMessage {
    /// Who sent it.
    pub fn binding(&self) -> Binding {
        Binding { vehicle_id: self.vehicle_id.clone(), gateway_id: self.gateway_id.clone() }
    }
}

impl ServerMessage {
    /// Whom it is for.
    pub fn binding(&self) -> Binding {
        Binding { vehicle_id: self.vehicle_id.clone(), gateway_id: self.gateway_id.clone() }
    }
}

/// The messages 1, 3, 5, 6 and 10.
#[derive(Debug, Clone, PartialEq)]
pub enum VehicleBody {
    /// Message 1.
    WakeUp(WakeUp),
    /// Message 3.
    SendVci(SendVci),
    /// Message 5.
    ReadinessReport(ReadinessReport),
    /// Message 6.
    UpdateSuccessResult(UpdateSuccessResult),
    /// Message 10.
    ErrorResponse(ErrorResponse),
}

/// The messages 2, 4, 7, 8, 9 and 11.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerBody {
    /// Message 2.
    RequestVci(RequestVci),
    /// Message 4.
    RequestDownloadReadiness(RequestDownloadReadiness),
    /// Message 7.
    StartDownload(StartDownload),
    /// Message 8.
    StartRollback(StartRollback),
    /// Message 9.
    CancelUpdate(CancelUpdate),
    /// Message 11.
    MessageRejected(MessageRejected),
}

/// Message 1: sent after every boot and every reconnect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WakeUp {
    /// New at every boot.
    pub boot_id: Text,
    /// Counts boots, kept in non-volatile memory.
    pub boot_seq: u64,
    /// Milliseconds since this boot.
    pub uptime_ms: u64,
    /// SHA-256 of the certificate of the connection.
    pub client_cert_thumbprint: Thumbprint,
    /// Digest of the VCI that the vehicle last sent (§6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vci_digest: Option<Sha256>,
}

wire_names! {
    /// A field of the VCI that a RequestVCI can ask for.
    VciField, "a field of the VCI" {
        /// `ecu_id`, which is always sent.
        EcuId = "ecu_id",
        /// `supplier_code`.
        SupplierCode = "supplier_code",
        /// `hw_part_no`.
        HwPartNo = "hw_part_no",
        /// `sw_part_no`.
        SwPartNo = "sw_part_no",
        /// `sw_version`.
        SwVersion = "sw_version",
        /// `bootloader_ver`.
        BootloaderVer = "bootloader_ver",
        /// `calibration_id`.
        CalibrationId = "calibration_id",
        /// `mac_address`.
        MacAddress = "mac_address",
        /// `ip_address`.
        IpAddress = "ip_address",
        /// `can_id`.
        CanId = "can_id",
        /// `power.battery_12v_v`.
        PowerBattery12V = "power.battery_12v_v",
        /// `power.battery_48v_v`.
        PowerBattery48V = "power.battery_48v_v",
        /// `power.charging_status`.
        PowerChargingStatus = "power.charging_status",
    }
}

/// Message 2: asks for the VCI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestVci {
    /// The message that caused this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<MsgId>,
    /// The wanted fields, at least one.
    #[serde(deserialize_with = "list::<_, _, 1, { usize::MAX }>")]
    #[schemars(length(min = 1))]
    pub fields: Vec<VciField>,
    /// Seconds until it expires; 30 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<UnixMillis>,
    /// Why it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<VciReason>,
}

wire_names! {
    /// Why the server asks for the VCI.
    VciReason, "a reason to ask for the VCI" {
        /// The vehicle woke up.
        Wakeup = "wakeup",
        /// A campaign wants to know what the vehicle runs.
        CampaignEvaluation = "campaign_evaluation",
        /// To see what the vehicle runs after an update.
        VerifyUpdate = "verify_update",
        /// An operator asked.
        Operator = "operator",
    }
}

/// Message 3: the whole inventory, never a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SendVci {
    /// The RequestVCI that is answered.
    pub correlation_id: MsgId,
    /// Region of the vehicle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Text>,
    /// Software version of the gateway itself.
    pub fw_sw_version: Text,
    /// Bootloader version of the gateway itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootloader_ver: Option<Text>,
    /// One entry per ECU; 1 to 512, an empty one is refused VCI_EMPTY.
    #[serde(deserialize_with = "list::<_, _, 0, 512>")]
    #[schemars(length(min = 1, max = 512))]
    pub ecu_inventory: Vec<EcuEntry>,
    /// The power snapshot, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerSnapshot>,
}

/// One ECU of the inventory; carries the requested fields and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EcuEntry {
    /// Unique in the inventory.
    pub ecu_id: EcuId,
    /// Supplier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplier_code: Option<Text>,
    /// Hardware part number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hw_part_no: Option<Text>,
    /// Software part number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sw_part_no: Option<Text>,
    /// Software version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sw_version: Option<Text>,
    /// Bootloader version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootloader_ver: Option<Text>,
    /// Calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_id: Option<Text>,
    /// Ethernet address, of an ECU on Ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<MacAddress>,
    /// IP address, of an ECU on Ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<IpAddress>,
    /// CAN identifier, of an ECU on CAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_id: Option<CanId>,
    /// Which controller it stands behind.
    pub functional_group: FunctionalGroup,
}

/// Message 4: asks whether the vehicle is ready; starts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestDownloadReadiness {
    /// The message that caused this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<MsgId>,
    /// Region that the packages are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_filter: Option<Text>,
    /// What would be downloaded, 1 to 512.
    #[serde(deserialize_with = "list::<_, _, 1, 512>")]
    #[schemars(length(min = 1, max = 512))]
    pub packages: Vec<OfferedPackage>,
    /// How it would be downloaded.
    pub transfer: Transfer,
    /// The conditions to report.
    pub readiness_requirements: Vec<Condition>,
    /// Seconds until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<UnixMillis>,
}

/// A software update package as message 4 names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OfferedPackage {
    /// The package.
    pub pkg_id: PkgId,
    /// The ECU it is for.
    pub target_component: EcuId,
    /// The version that the ECU runs afterwards.
    pub target_version: Text,
    /// The version that a delta starts from; absent = full image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_from: Option<Text>,
    /// Bytes that travel.
    pub size_bytes: u64,
    /// SHA-256 of the bytes that travel.
    pub hash_sha256: Sha256,
}

/// How packages travel (message 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transfer {
    /// Always HTTPS.
    pub protocol: TransferProtocol,
    /// Whether ranges may be asked for.
    pub allow_chunking: bool,
    /// Largest range that one GET asks for, in KiB.
    pub max_kb_per_msg: u64,
}

/// The one transfer protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransferProtocol {
    /// HTTPS.
    #[serde(rename = "HTTPS")]
    Https,
}

/// Message 5: the vehicle's own verdict, which counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReadinessReport {
    /// The RequestDownloadReadiness that is answered.
    pub correlation_id: MsgId,
    /// Whether the vehicle is ready.
    pub ready: bool,
    /// The values of the requested conditions that it can measure.
    pub requested_fields: ConditionValues,
    /// Why it is not ready; empty or absent when ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready_reasons: Option<Vec<NotReadyReason>>,
    /// When to ask again, in seconds, as sent; 60 to 7,200 count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

wire_names! {
    /// Why a vehicle is not ready: the closed set of the source document.
    NotReadyReason, "a reason of message 5" {
        /// Battery voltage too low.
        PowerLow = "POWER_LOW",
        /// Charging; possible once charged.
        PowerCharging = "POWER_CHARGING",
        /// Battery at a dangerous level.
        PowerCritical = "POWER_CRITICAL",
        /// Too hot.
        TempHigh = "TEMP_HIGH",
        /// Cooling down.
        TempCooling = "TEMP_COOLING",
        /// Above the critical temperature.
        TempCritical = "TEMP_CRITICAL",
        /// Processor overloaded.
        CpuHigh = "CPU_HIGH",
        /// Too little memory.
        MemoryLow = "MEMORY_LOW",
        /// Too little storage.
        StorageLow = "STORAGE_LOW",
        /// Storage fragmented.
        StorageFragmented = "STORAGE_FRAGMENTED",
        /// Network too bad.
        NetworkPoor = "NETWORK_POOR",
        /// Data plan used up.
        NetworkDataLimit = "NETWORK_DATA_LIMIT",
        /// Roaming.
        NetworkRoaming = "NETWORK_ROAMING",
        /// Moving; possible once it stands.
        VehicleMoving = "VEHICLE_MOVING",
        /// Moving fast.
        VehicleHighSpeed = "VEHICLE_HIGH_SPEED",
        /// Emergency.
        VehicleEmergency = "VEHICLE_EMERGENCY",
    }
}

/// Message 6: sent only when all ECUs succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateSuccessResult {
    /// The StartDownload or StartRollback that is answered.
    pub correlation_id: MsgId,
    /// What succeeded.
    pub operation: Operation,
    /// How long it took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<u64>,
    /// Whether the vehicle rebooted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebooted: Option<bool>,
    /// Number of distinct ECUs.
    pub ecu_count: u64,
    /// All packages verified by hash and signature.
    pub verified_integrity: bool,
}

wire_names! {
    /// A step of an update that a vehicle reports as done.
    Operation, "download, install, commit or rollback" {
        /// Every package is in the vehicle, hash and signature verified.
        Download = "download",
        /// Every ECU is written, boot flags of all swapped.
        Install = "install",
        /// The new software is proven running on all ECUs.
        Commit = "commit",
        /// All ECUs run their earlier software again.
        Rollback = "rollback",
    }
}

/// Message 7: starts the download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartDownload {
    /// The readiness report.
    pub correlation_id: MsgId,
    /// The attempt's deadline.
    pub expires_at_ms: UnixMillis,
    /// Seconds until it expires; `expires_at_ms` counts before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// Names this attempt.
    pub update_id: Text,
    /// The campaign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<Text>,
    /// Whether ErrorResponse(UPDATE_FAILED) is wanted.
    pub failure_report: bool,
    /// Where and how to download.
    pub transfer: DownloadTransfer,
    /// What to download, 1 to 512.
    #[serde(deserialize_with = "list::<_, _, 1, 512>")]
    #[schemars(length(min = 1, max = 512))]
    pub packages: Vec<Package>,
    /// Version of this vehicle's Director targets that lists these packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub director_targets_version: Option<u64>,
}

/// How packages travel (message 7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DownloadTransfer {
    /// Always HTTPS.
    pub protocol: TransferProtocol,
    /// Whether ranges may be asked for.
    pub allow_chunking: bool,
    /// Largest range that one GET asks for, in KiB.
    pub max_kb_per_msg: u64,
    /// What the packages' paths stand below.
    pub base_url: LongText,
}

/// A software update package as message 7 names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Package {
    /// The package.
    pub pkg_id: PkgId,
    /// The ECU it is for.
    pub target_component: EcuId,
    /// The version that the ECU runs afterwards.
    pub target_version: Text,
    /// The version that a delta starts from; absent = full image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_from: Option<Text>,
    /// Bytes that travel.
    pub size_bytes: u64,
    /// SHA-256 of the bytes that travel.
    pub hash_sha256: Sha256,
    /// Path below `base_url`.
    pub url: LongText,
    /// SHA-256 of the full image after a delta is applied.
    pub image_sha256: Sha256,
    /// Bytes of the full image.
    pub image_size_bytes: u64,
    /// The hardware that the ECU must have.
    pub hw_part_no: Text,
    /// Equal numbers in parallel, lower ones first.
    pub install_order: u64,
}

/// Message 8: undoes a committed update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartRollback {
    /// The message that caused this command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<MsgId>,
    /// The update to undo.
    pub update_id: Text,
    /// When it expires.
    pub expires_at_ms: UnixMillis,
    /// Seconds until it expires; `expires_at_ms` counts before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
}

/// Message 9: cancels an update before the first boot flag is swapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelUpdate {
    /// The message that caused this command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<MsgId>,
    /// The update to cancel.
    pub update_id: Text,
    /// Why, for people.
    pub reason: Text,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<UnixMillis>,
    /// Seconds until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
}

/// Message 10: says why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorResponse {
    /// The command that is answered.
    pub correlation_id: MsgId,
    /// What went wrong.
    pub code: ErrorCode,
    /// For people.
    pub detail: LongText,
    /// The ECUs concerned.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_list::<_, _, 0, 512>"
    )]
    #[schemars(length(max = 512))]
    pub failed_ecus: Option<Vec<EcuId>>,
    /// The packages concerned.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_list::<_, _, 0, 512>"
    )]
    #[schemars(length(max = 512))]
    pub pkg_ids: Option<Vec<PkgId>>,
    /// When to ask again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

wire_names! {
    /// The codes of message 10.
    ErrorCode, "an error code of message 10" {
        /// The command had expired.
        Expired = "EXPIRED",
        /// The vehicle does not know the command.
        Unsupported = "UNSUPPORTED",
        /// Asks to be asked later.
        Busy = "BUSY",
        /// Not every ECU answered.
        VciIncomplete = "VCI_INCOMPLETE",
        /// The ECU does not run the version that the delta starts from.
        DeltaBaseMismatch = "DELTA_BASE_MISMATCH",
        /// The driver said no.
        ConsentDenied = "CONSENT_DENIED",
        /// An ECU failed; every ECU is restored.
        UpdateFailed = "UPDATE_FAILED",
        /// The ECUs could not be brought to one state.
        ServiceRequired = "SERVICE_REQUIRED",
        /// Cancelled.
        Cancelled = "CANCELLED",
        /// Too late to cancel.
        CancelRefused = "CANCEL_REFUSED",
        /// The earlier software is gone.
        RollbackUnavailable = "ROLLBACK_UNAVAILABLE",
    }
}

/// Message 11: tells a vehicle that its message was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessageRejected {
    /// The refused message, where its id could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<MsgId>,
    /// Why (§7).
    pub code: crate::refusal::RefusalCode,
    /// For people.
    pub detail: LongText,
}
