//! WakeUp: who woke up, whether it rebooted, whether it is in a boot loop, what it is asked next (protocol.md §4.1).

use farrier_campaign::{Event, Reboot, State, quarantine_ends_at};
use farrier_protocol::{Binding, MessageType, Refusal, RefusalCode, UnixMillis, VciReason, WakeUp};

use super::advance::{advance, look_at_waiting};
use super::{Rules, is_there, outgoing, take_into_following_campaigns, take_into_open_campaigns};
use crate::desk::Inbound;
use crate::store::audit::{self, Actor, Change};
use crate::store::senders::{self, Sender};
use crate::store::vehicles::{Boot, EnrolledBy, Vehicle};
use crate::store::{StoreError, Tx, commands, security_events, updates, vehicles};

/// The certificate that the vehicle speaks of is the one of its connection; through a broker, which alone has seen
/// that one, the one that the vehicle is bound to.
pub(super) fn check_thumbprint(
    wake_up: &WakeUp,
    inbound: &Inbound,
    vehicle: Option<&Vehicle>,
) -> Result<(), Refusal> {
    let (known, whose) = match &inbound.peer {
        Some(peer) => (Some(&peer.thumbprint), "the certificate of the connection"),
        None => {
            let bound = vehicle.and_then(|vehicle| vehicle.thumbprint.as_ref());
            (bound, "the certificate that the vehicle is bound to")
        }
    };
    match known {
        Some(known) if *known != wake_up.client_cert_thumbprint => Err(Refusal::new(
            RefusalCode::IdentityMismatch,
            "/client_cert_thumbprint",
            format!("{known}, {whose}"),
            wake_up.client_cert_thumbprint.as_str(),
        )),
        Some(_) | None => Ok(()),
    }
}

/// The boot counter never goes back, and stands still only within one boot.
pub(super) fn check_boot(wake_up: &WakeUp, vehicle: Option<&Vehicle>) -> Result<(), Refusal> {
    let Some(boot) = vehicle.and_then(|vehicle| vehicle.boot.as_ref()) else { return Ok(()) };
    let same_boot = boot.boot_seq == wake_up.boot_seq && boot.boot_id == wake_up.boot_id;
    if same_boot || wake_up.boot_seq > boot.boot_seq {
        return Ok(());
    }
    let expected = format!("more than {}, or the same boot_id with it", boot.boot_seq);
    let found = wake_up.boot_seq.to_string();
    Err(Refusal::new(RefusalCode::BootSeqRegression, "/boot_seq", expected, found))
}

/// Enrols a vehicle by its WakeUp; running campaigns take it in.
pub(super) fn enrol(
    tx: &Tx<'_>,
    rules: &Rules,
    binding: &Binding,
    now: UnixMillis,
) -> Result<Sender, StoreError> {
    vehicles::enrol(tx, binding, EnrolledBy::ItsWakeUp, now)?;
    tracing::info!(vehicle = %binding.vehicle_id, gateway = %binding.gateway_id, "A vehicle enrolled itself.");
    take_into_following_campaigns(tx, rules, &binding.vehicle_id, now)?;
    let sender = senders::of_message(tx, binding, None)?
        .ok_or(StoreError::Damaged { expected: "the vehicle just enrolled", found: binding.to_string() })?;
    let detail = format!("gateway {}, by its WakeUp", binding.gateway_id);
    audit_vehicle(tx, &Actor::server(), "vehicle.enrolled", None, &sender.vehicle, Some(detail), now)?;
    Ok(sender)
}

/// Says in the audit log what became of a vehicle.
fn audit_vehicle(
    tx: &Tx<'_>,
    actor: &Actor,
    action: &'static str,
    before: Option<&Vehicle>,
    after: &Vehicle,
    detail: Option<String>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let change = Change {
        action,
        object: format!("vehicle/{}", after.binding.vehicle_id),
        detail,
        before: before.map(Vehicle::audited),
        after: Some(after.audited()),
    };
    audit::record(tx, actor, change, now)
}

/// What follows from a WakeUp; gives what is worth recording with it.
pub(super) fn woken_up(
    tx: &Tx<'_>,
    rules: &Rules,
    sender: &Sender,
    wake_up: &WakeUp,
    now: UnixMillis,
) -> Result<Option<String>, StoreError> {
    let vehicle = &sender.vehicle;
    if vehicle.thumbprint.is_none() {
        vehicles::set_thumbprint(tx, &vehicle.binding.vehicle_id, Some(&wake_up.client_cert_thumbprint))?;
    }
    let note = note_boot(tx, rules, vehicle, wake_up, now)?;
    if sender.is_wanted {
        take_into_open_campaigns(tx, vehicle, now)?;
    }
    if sender.is_wanted || sender.has_open_updates {
        let open = updates::open_of_vehicle(tx, &vehicle.binding.vehicle_id)?;
        let is_being_updated = open.iter().any(|update| update.state.is_active());
        for (index, update) in open.into_iter().enumerate() {
            // What one under way asks the vehicle tells of one of unknown outcome too, before anything is changed.
            if is_being_updated && matches!(update.state, State::Unknown { .. }) {
                continue;
            }
            // One that was woken up before it may have changed it.
            let update = if index == 0 { Some(update) } else { updates::by_id(tx, &update.id)? };
            if let Some(update) = update {
                advance(tx, rules, update, Event::WokenUp, None, now)?;
            }
        }
    }
    ask_for_inventory(tx, vehicle, wake_up, rules, now)?;
    Ok(note)
}

/// Tells a reboot from a reconnect, and quarantines a vehicle that reboots again and again.
fn note_boot(
    tx: &Tx<'_>,
    rules: &Rules,
    vehicle: &Vehicle,
    wake_up: &WakeUp,
    now: UnixMillis,
) -> Result<Option<String>, StoreError> {
    let settings = &rules.settings.boot_loop;
    let vehicle_id = &vehicle.binding.vehicle_id;
    let boot = Boot { boot_id: wake_up.boot_id.clone(), boot_seq: wake_up.boot_seq };
    let ends_at = quarantine_ends_at(now, wake_up.uptime_ms, settings);
    if vehicle.boot.as_ref() == Some(&boot) {
        match vehicle.quarantined_at {
            Some(_) if ends_at <= now => end_quarantine(tx, vehicle, &Actor::server(), now)?,
            Some(since) => vehicles::quarantine(tx, vehicle_id, since, ends_at)?,
            None => {}
        }
        return Ok(None);
    }
    let mut reboots = vehicle.recent_reboots.clone();
    let is_reboot = vehicle.boot.is_some();
    if is_reboot {
        reboots.add(Reboot { seen_at: now, uptime_ms: wake_up.uptime_ms }, settings);
    }
    vehicles::set_boot(tx, vehicle_id, &boot, &reboots)?;
    match vehicle.quarantined_at {
        Some(since) => vehicles::quarantine(tx, vehicle_id, since, ends_at)?,
        None if reboots.are_a_loop(settings) => begin_quarantine(tx, vehicle, ends_at, now)?,
        None => {}
    }
    Ok(is_reboot.then(|| "reboot".to_owned()))
}

fn begin_quarantine(
    tx: &Tx<'_>,
    vehicle: &Vehicle,
    ends_at: UnixMillis,
    now: UnixMillis,
) -> Result<(), StoreError> {
    vehicles::quarantine(tx, &vehicle.binding.vehicle_id, now, ends_at)?;
    let detail =
        "The vehicle reboots again and again; it gets no update command until it stays up or is released.";
    security_events::record(tx, &vehicle.binding, "BOOT_LOOP", detail, now)?;
    tracing::warn!(vehicle = %vehicle.binding.vehicle_id, "A vehicle was quarantined for a boot loop.");
    let after = Vehicle { quarantined_at: Some(now), ..vehicle.clone() };
    let detail = Some("boot loop".to_owned());
    audit_vehicle(tx, &Actor::server(), "vehicle.quarantined", Some(vehicle), &after, detail, now)
}

fn end_quarantine(tx: &Tx<'_>, vehicle: &Vehicle, actor: &Actor, now: UnixMillis) -> Result<(), StoreError> {
    tracing::info!(vehicle = %vehicle.binding.vehicle_id, "A vehicle's quarantine is over.");
    // Commands were held back.
    tx.wake(&vehicle.binding);
    vehicles::release(tx, &vehicle.binding.vehicle_id)?;
    let after = Vehicle { quarantined_at: None, ..vehicle.clone() };
    audit_vehicle(tx, actor, "vehicle.released", Some(vehicle), &after, None, now)
}

/// Ends a quarantine outside a WakeUp, for whoever wants it; its updates go on.
pub(crate) fn release_from_quarantine(
    tx: &Tx<'_>,
    rules: &Rules,
    vehicle: &Vehicle,
    actor: &Actor,
    now: UnixMillis,
) -> Result<(), StoreError> {
    end_quarantine(tx, vehicle, actor, now)?;
    look_at_waiting(tx, rules, &vehicle.binding, now)
}

/// Asks for the VCI where the server does not hold what the vehicle last sent, unless the vehicle is in the
/// middle of an update or has been asked already.
fn ask_for_inventory(
    tx: &Tx<'_>,
    vehicle: &Vehicle,
    wake_up: &WakeUp,
    rules: &Rules,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let is_known = vehicle.vci_digest.is_some() && vehicle.vci_digest == wake_up.vci_digest;
    if is_known || not_to_be_asked(tx, vehicle, now)?.is_some() {
        return Ok(());
    }
    let question = outgoing::InventoryQuestion { reason: VciReason::Wakeup, try_number: 0, send_at: now };
    outgoing::queue_inventory_question(tx, rules, &vehicle.binding, &question, now)
}

/// Why a vehicle is not asked for its inventory now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAsked {
    Quarantined,
    Away,
    BeingUpdated,
    AskedAlready,
}

fn not_to_be_asked(tx: &Tx<'_>, vehicle: &Vehicle, now: UnixMillis) -> Result<Option<NotAsked>, StoreError> {
    let is_open = |command| commands::is_open(tx, &vehicle.binding.vehicle_id, command, now);
    if is_open(MessageType::RequestVci)? {
        return Ok(Some(NotAsked::AskedAlready));
    }
    let is_being_updated = is_open(MessageType::StartDownload)? || is_open(MessageType::StartRollback)?;
    Ok(is_being_updated.then_some(NotAsked::BeingUpdated))
}

/// Asks a connected vehicle for its VCI, for whoever wants it; gives why it is not asked where it is not.
pub(crate) fn ask_inventory(
    tx: &Tx<'_>,
    rules: &Rules,
    vehicle: &Vehicle,
    now: UnixMillis,
) -> Result<Option<NotAsked>, StoreError> {
    if vehicle.quarantined_at.is_some() {
        return Ok(Some(NotAsked::Quarantined));
    }
    if !is_there(tx, rules, &vehicle.binding, now)? {
        return Ok(Some(NotAsked::Away));
    }
    if let Some(why) = not_to_be_asked(tx, vehicle, now)? {
        return Ok(Some(why));
    }
    let question = outgoing::InventoryQuestion { reason: VciReason::Operator, try_number: 0, send_at: now };
    outgoing::queue_inventory_question(tx, rules, &vehicle.binding, &question, now)?;
    Ok(None)
}
