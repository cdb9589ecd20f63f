//! Builds the server's messages and puts them into the outbox.

use farrier_campaign::{
    Alarm, Command, FoundVersion, Plan, PlannedPackage, READINESS_CONDITIONS, VCI_FIELDS,
};
use farrier_protocol::{
    Binding, CancelUpdate, DownloadTransfer, LongText, MessageRejected, MsgId, OfferedPackage, Package,
    ProtoVer, Refusal, RequestDownloadReadiness, RequestVci, ServerBody, ServerMessage, StartDownload,
    StartRollback, Text, Transfer, TransferProtocol, UnixMillis, VciReason,
};

use super::Rules;
use crate::store::commands::{self, NewCommand};
use crate::store::updates::VehicleUpdate;
use crate::store::{StoreError, Tx, deltas, security_events};

/// A question for the VCI outside a vehicle update.
pub(super) struct InventoryQuestion {
    pub(super) reason: VciReason,
    /// How often it was answered by VCI_INCOMPLETE.
    pub(super) try_number: u64,
    /// Not before.
    pub(super) send_at: UnixMillis,
}

/// For how long it is worth telling a vehicle that its message was refused, in seconds.
const REJECTION_WORTH_S: u64 = 3_600;

/// An id that no message of this server had before.
fn new_msg_id() -> Result<MsgId, StoreError> {
    format!("SRV-{}", crate::store::new_id())
        .parse()
        .map_err(|error| StoreError::Damaged { expected: "a message id", found: format!("{error}") })
}

fn addressed(
    binding: &Binding,
    ts: Option<UnixMillis>,
    body: ServerBody,
) -> Result<ServerMessage, StoreError> {
    Ok(ServerMessage {
        msg_id: new_msg_id()?,
        proto_ver: ProtoVer::CURRENT,
        vehicle_id: binding.vehicle_id.clone(),
        gateway_id: binding.gateway_id.clone(),
        ts,
        body,
    })
}

/// A question goes without `ts`, so that its deadline counts from reception: a car's clock may be wrong.
fn question(binding: &Binding, body: ServerBody) -> Result<ServerMessage, StoreError> {
    addressed(binding, None, body)
}

pub(super) fn queue_inventory_question(
    tx: &Tx<'_>,
    rules: &Rules,
    binding: &Binding,
    asked: &InventoryQuestion,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let deadline_s = rules.settings.vci_deadline_s;
    let message = question(binding, request_vci(asked.reason, deadline_s))?;
    let command = NewCommand {
        message: &message,
        update_id: None,
        try_number: asked.try_number,
        send_at: asked.send_at,
        expires_at: asked.send_at.plus_seconds(deadline_s),
    };
    commands::queue(tx, &command, now)
}

fn request_vci(reason: VciReason, deadline_s: u64) -> ServerBody {
    ServerBody::RequestVci(RequestVci {
        correlation_id: None,
        fields: VCI_FIELDS.to_vec(),
        deadline_s: Some(deadline_s),
        expires_at_ms: None,
        reason: Some(reason),
    })
}

/// Tells a vehicle that its message was refused.
pub(super) fn queue_rejection(
    tx: &Tx<'_>,
    binding: &Binding,
    refusal: &Refusal,
    msg_id: Option<&MsgId>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let body = ServerBody::MessageRejected(MessageRejected {
        correlation_id: msg_id.cloned(),
        code: refusal.code,
        detail: refusal.detail(),
    });
    let message = addressed(binding, Some(now), body)?;
    let expires_at = now.plus_seconds(REJECTION_WORTH_S);
    let command = NewCommand { message: &message, update_id: None, try_number: 0, send_at: now, expires_at };
    commands::queue(tx, &command, now)
}

/// Queues a command of a vehicle update; `cause` is the message that led to it.
pub(super) fn queue_command(
    tx: &Tx<'_>,
    rules: &Rules,
    binding: &Binding,
    update: &mut VehicleUpdate,
    command: Command,
    cause: Option<&MsgId>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let seconds_until = |at: UnixMillis| at.0.saturating_sub(now.0).max(0).unsigned_abs().div_ceil(1000);
    let (message, expires_at) = match command {
        Command::RequestVci { reason, expires_at } => {
            (question(binding, request_vci(reason, seconds_until(expires_at)))?, expires_at)
        }
        Command::RequestReadiness { expires_at } => {
            let body = request_readiness(rules, planned(update)?, seconds_until(expires_at));
            (question(binding, body)?, expires_at)
        }
        Command::StartDownload { expires_at } => {
            let attempt_id = attempt_id()?;
            update.attempt_id = Some(attempt_id.clone());
            update.started_at = update.started_at.or(Some(now));
            let cause = cause.cloned().map_or_else(new_msg_id, Ok)?;
            let body = start_download(rules, update, attempt_id, cause, expires_at)?;
            (addressed(binding, Some(now), body)?, expires_at)
        }
        Command::StartRollback { expires_at } => {
            let body = ServerBody::StartRollback(StartRollback {
                correlation_id: None,
                update_id: attempt_of(update)?,
                expires_at_ms: expires_at,
                deadline_s: None,
            });
            (addressed(binding, Some(now), body)?, expires_at)
        }
        Command::CancelUpdate { reason, expires_at } => {
            let body = ServerBody::CancelUpdate(CancelUpdate {
                correlation_id: None,
                update_id: attempt_of(update)?,
                reason,
                expires_at_ms: Some(expires_at),
                deadline_s: None,
            });
            (addressed(binding, Some(now), body)?, expires_at)
        }
        Command::RaiseAlarm(alarm) => return raise(tx, binding, update, &alarm, now),
        Command::AvoidDeltas { deltas } => {
            return deltas::avoid(tx, &binding.vehicle_id, &deltas, now);
        }
    };
    let command = NewCommand {
        message: &message,
        update_id: Some(&update.id),
        try_number: 0,
        send_at: now,
        expires_at,
    };
    commands::queue(tx, &command, now)
}

/// Tells operators what they must look at.
fn raise(
    tx: &Tx<'_>,
    binding: &Binding,
    update: &VehicleUpdate,
    alarm: &Alarm,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (kind, detail) = match alarm {
        Alarm::ServiceRequired { failed_ecus } => {
            let failed: Vec<_> = failed_ecus.iter().map(AsRef::as_ref).collect();
            let which = match failed.as_slice() {
                [] => "it does not say which".to_owned(),
                failed => failed.join(", "),
            };
            let detail = format!("The vehicle could not bring its ECUs to one state: {which}.");
            ("SERVICE_REQUIRED", detail)
        }
        Alarm::MixedSoftware { found } => {
            let found: Vec<_> = found.iter().map(FoundVersion::phrase).collect();
            let detail = format!(
                "The vehicle's inventory shows neither all new nor all earlier versions: {}.",
                found.join(", ")
            );
            ("MIXED_SOFTWARE", detail)
        }
        Alarm::SuccessNotFound => {
            let detail = "The vehicle reported success, but its inventory shows the earlier versions.";
            ("FALSE_SUCCESS", detail.to_owned())
        }
    };
    tracing::error!(vehicle = %binding.vehicle_id, campaign = %update.campaign, "{detail}");
    security_events::record(tx, binding, kind, &detail, now)
}

fn planned(update: &VehicleUpdate) -> Result<&Plan, StoreError> {
    update.state.plan().ok_or_else(|| StoreError::Damaged {
        expected: "a state with a plan",
        found: update.state.name().to_owned(),
    })
}

fn attempt_id() -> Result<Text, StoreError> {
    crate::store::new_id()
        .parse()
        .map_err(|error| StoreError::Damaged { expected: "an attempt id", found: format!("{error}") })
}

fn attempt_of(update: &VehicleUpdate) -> Result<Text, StoreError> {
    update
        .attempt_id
        .clone()
        .ok_or_else(|| StoreError::Damaged { expected: "an attempt under way", found: update.id.clone() })
}

fn request_readiness(rules: &Rules, plan: &Plan, deadline_s: u64) -> ServerBody {
    let offered = |package: &PlannedPackage| OfferedPackage {
        pkg_id: package.pkg_id.clone(),
        target_component: package.ecu_id.clone(),
        target_version: package.version.clone(),
        delta_from: package.delta_from.clone(),
        size_bytes: package.size_bytes,
        hash_sha256: package.sha256,
    };
    ServerBody::RequestDownloadReadiness(RequestDownloadReadiness {
        correlation_id: None,
        region_filter: None,
        packages: plan.packages.iter().map(offered).collect(),
        transfer: Transfer {
            protocol: TransferProtocol::Https,
            allow_chunking: true,
            max_kb_per_msg: rules.max_kb_per_msg,
        },
        readiness_requirements: READINESS_CONDITIONS.to_vec(),
        deadline_s: Some(deadline_s),
        expires_at_ms: None,
    })
}

fn start_download(
    rules: &Rules,
    update: &VehicleUpdate,
    update_id: Text,
    correlation_id: MsgId,
    expires_at: UnixMillis,
) -> Result<ServerBody, StoreError> {
    let packages = planned(update)?.packages.iter().map(package).collect::<Result<_, _>>()?;
    Ok(ServerBody::StartDownload(StartDownload {
        correlation_id,
        expires_at_ms: expires_at,
        deadline_s: None,
        update_id,
        campaign_id: Some(update.campaign.clone()),
        failure_report: rules.failure_report,
        transfer: DownloadTransfer {
            protocol: TransferProtocol::Https,
            allow_chunking: true,
            max_kb_per_msg: rules.max_kb_per_msg,
            base_url: rules.base_url.clone(),
        },
        packages,
        director_targets_version: None,
    }))
}

fn package(planned: &PlannedPackage) -> Result<Package, StoreError> {
    let path = format!("/v1/packages/{}/{}", planned.pkg_id, planned.sha256);
    let url: LongText = path
        .parse()
        .map_err(|error| StoreError::Damaged { expected: "a package's path", found: format!("{error}") })?;
    Ok(Package {
        pkg_id: planned.pkg_id.clone(),
        target_component: planned.ecu_id.clone(),
        target_version: planned.version.clone(),
        delta_from: planned.delta_from.clone(),
        size_bytes: planned.size_bytes,
        hash_sha256: planned.sha256,
        url,
        image_sha256: planned.image_sha256,
        image_size_bytes: planned.image_size_bytes,
        hw_part_no: planned.hw_part_no.clone(),
        install_order: planned.install_order,
    })
}
