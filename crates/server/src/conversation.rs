//! The conversation with vehicles: one received message is one transaction (protocol.md §1, §3, §7).
//! Owns who may say what when and what follows; parsing is the protocol's, decisions about updates are the
//! campaign's, remembering is the store's.

mod advance;
mod answers;
mod desk;
mod grants;
mod intake;
mod outgoing;
mod retries;
mod schedule;
mod starting;
mod wake_up;

use std::sync::Arc;

use farrier_campaign::{ApprovalRule, DeltaSettings, Settings};
use farrier_protocol::{
    Binding, LongText, MsgId, ReceivedMessage, Refusal, RefusalCode, Refused, Sha256, UnixMillis, UpTopic,
    VehicleBody, VehicleMessage,
};

use crate::config::Enroll;
use crate::desk::{Inbound, Receipt};
use crate::measurements;
use crate::store::intake::KnownQueries;
use crate::store::releases::KnownReleases;
use crate::store::senders::{self, Sender};
use crate::store::vehicles::{Heard, Vehicle};
use crate::store::{
    StoreError, Tx, commands, messages, nodes, security_events, vehicle_certificates, vehicles,
};

pub(crate) use advance::{advance, at_gate, look_at_campaign, look_at_waiting};
pub(crate) use desk::ServerDesk;
pub(crate) use grants::Grants;
pub(crate) use intake::{take_into_following_campaigns, take_into_open_campaigns};
pub(crate) use retries::take_back;
pub(crate) use starting::{go_on_starting, start, take_in_first};
pub(crate) use wake_up::{NotAsked, ask_inventory, release_from_quarantine};

/// What the conversation goes by; never changes while the server runs.
pub(crate) struct Rules {
    /// Deadlines, pauses, tries.
    pub(crate) settings: Settings,
    /// Which deltas are made and sent.
    pub(crate) deltas: DeltaSettings,
    /// A vehicle that failed a release so often is set aside for it; 0 = none ever is.
    pub(crate) set_aside_after: u32,
    /// Who enrols vehicles.
    pub(crate) enroll: Enroll,
    /// The releases that were used; none changes once it is there.
    pub(crate) releases: KnownReleases,
    /// The queries that running campaigns follow.
    pub(crate) queries: KnownQueries,
    /// Which campaigns need the approval of a second person.
    pub(crate) approval: ApprovalRule,
    /// What the paths of packages stand below.
    pub(crate) base_url: LongText,
    /// Largest range, in KiB, that one GET asks for.
    pub(crate) max_kb_per_msg: u64,
    /// Whether vehicles are asked to report UPDATE_FAILED.
    pub(crate) failure_report: bool,
    /// How it is known whether a vehicle can be spoken to.
    pub(crate) presence: Presence,
}

/// How it is known whether a vehicle can be spoken to.
pub(crate) enum Presence {
    /// Vehicles connect to this server and to others on its store: whether one is connected to this one.
    Connections(Arc<dyn Fn(&Binding) -> bool + Send + Sync>),
    /// Vehicles connect to a broker: it is there from when it is heard until the broker says that nobody listens.
    Broker,
}

/// A message with all that can be made of it without the store: one transaction at a time is what messages share, so
/// it is kept short.
pub(crate) struct ReadMessage {
    inbound: Inbound,
    /// Boxed, so that what carries it to the store stays small: glibc's allocator is quick up to a KiB.
    parsed: Result<Box<Parsed>, Refused>,
}

/// A message that can be parsed.
struct Parsed {
    received: ReceivedMessage,
    content: Sha256,
    /// The same as it is stored.
    content_text: String,
    /// What is kept of the message for people.
    kept: String,
}

impl ReadMessage {
    pub(crate) fn of(inbound: Inbound) -> Self {
        let parsed = ReceivedMessage::parse(inbound.topic, &inbound.payload, Some(&inbound.binding));
        let parsed = parsed.map(|received| {
            let content = Sha256::of(&received.message.to_json());
            let (content_text, kept) = (content.to_string(), messages::kept_of(&inbound.payload));
            Box::new(Parsed { received, content, content_text, kept })
        });
        Self { inbound, parsed }
    }

    /// The command that it answers, if it answers one.
    fn correlation_id(&self) -> Option<&MsgId> {
        self.parsed.as_ref().ok().and_then(|parsed| parsed.received.message.correlation_id())
    }

    /// Also of one that cannot be parsed, where it can be read that far.
    fn msg_id(&self) -> Option<&MsgId> {
        match &self.parsed {
            Ok(parsed) => Some(&parsed.received.message.msg_id),
            Err(refused) => refused.msg_id.as_ref(),
        }
    }
}

/// Takes a message: checks it, does what follows from it, or stores why it is refused.
pub(crate) fn receive(tx: &Tx<'_>, rules: &Rules, message: &ReadMessage) -> Result<Receipt, StoreError> {
    let ReadMessage { inbound, parsed } = message;
    let sender = senders::of_message(tx, &inbound.binding, message.msg_id())?;
    let vehicle = sender.as_ref().map(|sender| &sender.vehicle);
    let taken = match admitted(tx, rules, inbound, vehicle, parsed.as_deref())? {
        Ok(parsed) => take(tx, rules, inbound, sender, parsed)?,
        Err(refusal) => Err(refusal),
    };
    match taken {
        Ok(()) => Ok(Receipt::Accepted),
        Err(refusal) => {
            refuse(tx, inbound, &refusal, message.msg_id())?;
            Ok(receipt(refusal.code))
        }
    }
}

/// Refuses a message for its sender's rate: nothing of it is taken, and only its own binding is told.
pub(crate) fn refuse_for_rate(tx: &Tx<'_>, rules: &Rules, message: &ReadMessage) -> Result<(), StoreError> {
    let inbound = &message.inbound;
    let vehicle = vehicles::by_id(tx, &inbound.binding.vehicle_id)?;
    let refusal = match known_binding(tx, rules, inbound, vehicle.as_ref())? {
        Ok(()) => {
            let expected = "no more messages a second than the server takes of one vehicle";
            Refusal::new(RefusalCode::RateLimited, "", expected, "more")
        }
        Err(refusal) => refusal,
    };
    refuse(tx, inbound, &refusal, message.msg_id())
}

/// The checks up to the fields, in the order of protocol.md §7: whether the sender is the vehicle's current
/// binding stands between identity and fields, both of which the parser judges.
fn admitted<'m>(
    tx: &Tx<'_>,
    rules: &Rules,
    inbound: &Inbound,
    vehicle: Option<&Vehicle>,
    parsed: Result<&'m Parsed, &Refused>,
) -> Result<Result<&'m Parsed, Refusal>, StoreError> {
    if let Err(refused) = parsed
        && comes_before_the_binding(refused.refusal.code)
    {
        return Ok(Err(refused.refusal.clone()));
    }
    if let Err(refusal) = known_binding(tx, rules, inbound, vehicle)? {
        return Ok(Err(refusal));
    }
    Ok(parsed.map_err(|refused| refused.refusal.clone()).and_then(|parsed| {
        match &parsed.received.message.body {
            VehicleBody::WakeUp(wake_up) => wake_up::check_thumbprint(wake_up, inbound, vehicle),
            VehicleBody::SendVci(_)
            | VehicleBody::ReadinessReport(_)
            | VehicleBody::UpdateSuccessResult(_)
            | VehicleBody::ErrorResponse(_) => Ok(()),
        }?;
        Ok(parsed)
    }))
}

fn comes_before_the_binding(code: RefusalCode) -> bool {
    matches!(
        code,
        RefusalCode::TooLarge
            | RefusalCode::MalformedJson
            | RefusalCode::UnsupportedVersion
            | RefusalCode::UnknownType
            | RefusalCode::WrongTopic
            | RefusalCode::IdentityMismatch
    )
}

/// Is the sender the vehicle's current binding, or a vehicle that may enrol itself?
fn known_binding(
    tx: &Tx<'_>,
    rules: &Rules,
    inbound: &Inbound,
    vehicle: Option<&Vehicle>,
) -> Result<Result<(), Refusal>, StoreError> {
    let refused = |pointer: &str, expected: &str, found: &str| {
        Ok(Err(Refusal::new(RefusalCode::BindingMismatch, pointer, expected, found)))
    };
    let Some(vehicle) = vehicle else {
        if rules.enroll != Enroll::Auto {
            let expected = "a vehicle that an operator has enrolled";
            return refused("/vehicle_id", expected, inbound.binding.vehicle_id.as_str());
        }
        if inbound.topic != UpTopic::Wakeup {
            return refused("", "WakeUp, by which a vehicle is enrolled", "another message");
        }
        return match vehicles::by_client_id(tx, &inbound.binding.client_id())? {
            Some(other) => refused(
                "/vehicle_id",
                &format!("{}, whose client id this is", other.binding),
                "another binding",
            ),
            None => Ok(Ok(())),
        };
    };
    if vehicle.binding != inbound.binding {
        let expected = format!("{}, the vehicle's gateway", vehicle.binding.gateway_id);
        return refused("/gateway_id", &expected, inbound.binding.gateway_id.as_str());
    }
    match (&vehicle.thumbprint, &inbound.peer) {
        (Some(thumbprint), Some(peer)) if *thumbprint != peer.thumbprint => Ok(Err(Refusal::new(
            RefusalCode::IdentityMismatch,
            "",
            format!("certificate {thumbprint}, which the vehicle is bound to"),
            format!("certificate {}", peer.thumbprint),
        ))),
        (Some(_) | None, Some(_) | None) => Ok(Ok(())),
    }
}

/// The checks from the duplicate on, and what follows from a message that passes them.
fn take(
    tx: &Tx<'_>,
    rules: &Rules,
    inbound: &Inbound,
    sender: Option<Sender>,
    parsed: &Parsed,
) -> Result<Result<(), Refusal>, StoreError> {
    let Parsed { received, content, content_text, kept } = parsed;
    let message = &received.message;
    match sender.as_ref().and_then(|sender| sender.content_before) {
        Some(before) if before == *content => return Ok(Ok(())),
        Some(_) => {
            let expected = "the content that came under this msg_id before, or a new msg_id";
            let code = RefusalCode::DuplicateConflict;
            return Ok(Err(Refusal::new(code, "/msg_id", expected, "other content")));
        }
        None => {}
    }
    let now = inbound.received_at;
    let known = sender.as_ref().and_then(|sender| sender.vehicle.certificate.as_ref());
    let presented = inbound.peer.as_ref().and_then(|peer| peer.certificate.as_ref());
    let new_certificate = presented.filter(|presented| known != Some(presented));
    let note = match &message.body {
        VehicleBody::WakeUp(wake_up) => {
            if let Err(refusal) = wake_up::check_boot(wake_up, sender.as_ref().map(|sender| &sender.vehicle))
            {
                return Ok(Err(refusal));
            }
            let sender = match sender {
                Some(sender) => sender,
                None => wake_up::enrol(tx, rules, &inbound.binding, now)?,
            };
            if inbound.peer.is_none() {
                heard_anew(tx, &sender.vehicle.binding, now)?;
            }
            wake_up::woken_up(tx, rules, &sender, wake_up, now)?
        }
        VehicleBody::SendVci(_)
        | VehicleBody::ReadinessReport(_)
        | VehicleBody::UpdateSuccessResult(_)
        | VehicleBody::ErrorResponse(_) => {
            // Only a WakeUp gets past the check of the binding without a vehicle.
            let Some(Sender { vehicle, .. }) = sender else { return Ok(Ok(())) };
            if inbound.peer.is_none() && vehicle.there_since.is_none() {
                vehicles::came_to_broker(tx, &vehicle.binding.vehicle_id, now)?;
            }
            match answers::answered(tx, rules, &vehicle, received, now)? {
                Ok(note) => note,
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
    };
    if let Some(certificate) = new_certificate {
        vehicle_certificates::note(tx, &message.vehicle_id, certificate)?;
    }
    let behind_ms = now.0.saturating_sub(message.ts.0);
    vehicles::heard(tx, &message.vehicle_id, Heard { at: now, clock_skew_ms: behind_ms })?;
    let (size_bytes, note) = (inbound.payload.len(), note.as_deref());
    let seen = messages::Seen { content: content_text, size_bytes, kept, now, behind_ms, note };
    messages::record_accepted(tx, message, &seen)?;
    log_accepted(message, behind_ms);
    Ok(Ok(()))
}

/// A vehicle has connected to its broker anew. What the broker took for it and it has not answered may be lost with
/// its earlier connection, so that goes out again.
fn heard_anew(tx: &Tx<'_>, binding: &Binding, now: UnixMillis) -> Result<(), StoreError> {
    vehicles::came_to_broker(tx, &binding.vehicle_id, now)?;
    commands::send_again(tx, binding, now)?;
    tx.wake(binding);
    Ok(())
}

fn log_accepted(message: &VehicleMessage, behind_ms: i64) {
    tracing::debug!(
        vehicle = %message.vehicle_id, msg_id = %message.msg_id, message = %message.message_type(), behind_ms,
        "A vehicle's message was taken."
    );
}

/// Stores a refused message, and tells the vehicle once if it is who it says it is.
fn refuse(
    tx: &Tx<'_>,
    inbound: &Inbound,
    refusal: &Refusal,
    msg_id: Option<&MsgId>,
) -> Result<(), StoreError> {
    let now = inbound.received_at;
    let refused = messages::Refused {
        binding: &inbound.binding,
        topic: inbound.topic.name(),
        payload: &inbound.payload,
        refusal,
        msg_id,
    };
    measurements::refusal(refusal.code);
    if is_security_event(refusal.code) {
        security_events::record(tx, &inbound.binding, refusal.code.name(), &refusal.to_string(), now)?;
    }
    if !messages::record_refused(tx, &refused, now)? {
        return Ok(());
    }
    tracing::warn!(
        vehicle = %inbound.binding.vehicle_id, code = %refusal.code, pointer = %refusal.pointer,
        "A vehicle's message was refused."
    );
    if is_identity(refusal.code) {
        return Ok(());
    }
    outgoing::queue_rejection(tx, &inbound.binding, refusal, msg_id, now)
}

fn is_identity(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::IdentityMismatch | RefusalCode::BindingMismatch)
}

fn is_security_event(code: RefusalCode) -> bool {
    is_identity(code) || matches!(code, RefusalCode::DuplicateConflict | RefusalCode::BootSeqRegression)
}

/// How a refused message is acknowledged (protocol.md §7).
fn receipt(code: RefusalCode) -> Receipt {
    match code {
        RefusalCode::MalformedJson
        | RefusalCode::TooLarge
        | RefusalCode::UnsupportedVersion
        | RefusalCode::UnknownType
        | RefusalCode::MissingField
        | RefusalCode::InvalidField
        | RefusalCode::UnknownField => Receipt::RefusedUnparsable,
        RefusalCode::IdentityMismatch | RefusalCode::BindingMismatch => Receipt::RefusedIdentity,
        RefusalCode::RateLimited => Receipt::RefusedRate,
        RefusalCode::WrongTopic
        | RefusalCode::UnknownCorrelation
        | RefusalCode::CorrelationTypeMismatch
        | RefusalCode::CorrelationClosed
        | RefusalCode::CorrelationExpired
        | RefusalCode::DuplicateConflict
        | RefusalCode::BootSeqRegression
        | RefusalCode::VciEmpty
        | RefusalCode::VciDuplicateEcu
        | RefusalCode::VciFieldNotRequested
        | RefusalCode::VciFieldMissing
        | RefusalCode::ReadinessFieldNotRequested
        | RefusalCode::ReadinessInconsistent
        | RefusalCode::EcuCountMismatch
        | RefusalCode::IntegrityNotVerified
        | RefusalCode::Quarantined => Receipt::Refused,
    }
}

/// Whether a vehicle can be spoken to: it is connected to this server, to another one on the same store, or to the
/// broker.
pub(crate) fn is_there(
    tx: &Tx<'_>,
    rules: &Rules,
    binding: &Binding,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    match &rules.presence {
        Presence::Connections(is_connected) => {
            Ok(is_connected(binding) || (tx.is_shared() && nodes::is_present(tx, binding, now)?))
        }
        Presence::Broker => {
            let vehicle = vehicles::by_id(tx, &binding.vehicle_id)?;
            Ok(vehicle.is_some_and(|vehicle| vehicle.binding == *binding && vehicle.there_since.is_some()))
        }
    }
}

/// How many vehicles are connected to any server, of which so many are to this one. One that is connected to two for a while
/// counts twice.
pub(crate) fn number_there(
    tx: &Tx<'_>,
    rules: &Rules,
    connected_here: usize,
    now: UnixMillis,
) -> Result<u64, StoreError> {
    match &rules.presence {
        Presence::Connections(_) if tx.is_shared() => nodes::number_present(tx, now),
        Presence::Connections(_) => Ok(u64::try_from(connected_here).unwrap_or(u64::MAX)),
        Presence::Broker => vehicles::number_there(tx),
    }
}

#[cfg(test)]
mod tests;
