//! Carries out what the campaign decides about vehicle updates: state, commands, what may be downloaded, and
//! which update of a vehicle is next.

use std::sync::Arc;

use farrier_campaign::{Block, Context, Deltas, Event, GateRecord, NoRoom, State};
use farrier_protocol::{Binding, MsgId, UnixMillis};

use super::{Rules, is_there, outgoing, retries, schedule};
use crate::evidence;
use crate::store::campaigns::{Aborted, Campaign};
use crate::store::intake::{Rival, rivals};
use crate::store::releases::NamedRelease;
use crate::store::updates::VehicleUpdate;
use crate::store::vehicles::Vehicle;
use crate::store::{StoreError, Tx, campaigns, commands, deltas, packages, set_aside, updates, vehicles};

/// Tells a vehicle update what happened, and carries out what follows. `cause` is the vehicle's message, where it is one:
/// who has just spoken is there.
pub(crate) fn advance(
    tx: &Tx<'_>,
    rules: &Rules,
    mut update: VehicleUpdate,
    event: Event<'_>,
    cause: Option<&MsgId>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (vehicle, campaign, release) = surroundings(tx, rules, &update)?;
    let vehicle_there =
        cause.is_some() || matches!(event, Event::WokenUp) || is_there(tx, rules, &vehicle.binding, now)?;
    let mut settings = rules.settings.clone();
    settings.update_deadline_s = campaign.update_deadline_s.unwrap_or(settings.update_deadline_s);
    let vci = match event {
        Event::VciReceived(vci) | Event::OtherVciSeen(vci) => Some(vci),
        Event::LookedAt
        | Event::WokenUp
        | Event::Ready
        | Event::NotReady { .. }
        | Event::StepReported(_)
        | Event::ErrorReported { .. }
        | Event::ToldLate(_)
        | Event::TimePassed
        | Event::CancelAsked { .. }
        | Event::RollbackAsked
        | Event::RetryAsked => None,
    };
    // Only a VCI is planned by; one that was not asked for, only where that may change something.
    let plans = vci.is_some()
        && (matches!(event, Event::VciReceived(_)) || matches!(update.state, State::Deferred { .. }));
    let ready = if plans {
        deltas::ready_for_vehicle(tx, &campaign.release, &update.vehicle_id)?
    } else {
        Vec::new()
    };
    // Who is under way already asks only whether another is, too.
    let is_waiting = matches!(update.state, State::Waiting { .. });
    let rivals = if is_waiting { rivals(tx, &update.vehicle_id, &update.id)? } else { Vec::new() };
    let (block, gate) = block(tx, &vehicle, &campaign, &update, &rivals, now)?;
    let set_aside = match (&block, &update.state) {
        (None, State::Waiting { .. }) => set_aside::of(tx, &update.vehicle_id, &campaign.release)?,
        (Some(_) | None, _) => None,
    };
    let context = Context {
        now,
        settings: &settings,
        release: &release.release,
        deltas: Deltas { ready: &ready, settings: &rules.deltas },
        vehicle_there,
        block,
        set_aside: set_aside.map(|set_aside| set_aside.failures),
        is_latest: is_latest(tx, &update)?,
    };
    let by_operator = matches!(event, Event::RetryAsked);
    let earlier = update.clone();
    let before = &earlier.state;
    let mut transition = before.clone().handle(event, &context);
    if let Some(Aborted { reason, .. }) = &campaign.aborted
        && matches!(transition.state, State::Waiting { .. })
    {
        // What comes back from the vehicle after the abort does not wait for anything.
        let event = Event::CancelAsked { reason: reason.clone() };
        let ended = transition.state.handle(event, &context);
        transition.state = ended.state;
        transition.commands.extend(ended.commands);
    }
    if transition.state == *before && transition.commands.is_empty() {
        return Ok(());
    }
    let by_operator = by_operator && transition.state != *before;
    update.attempts = update.attempts.after(before, &transition.state, by_operator);
    update.state = transition.state;
    if plans
        && rules.deltas.at_most_percent > 0
        && let Some(plan) = update.state.plan()
    {
        deltas::want_for_plan(tx, plan, rules.deltas.bases_per_image, now)?;
    }
    update.ended_at = match (update.state.is_final(), before.is_final()) {
        (true, true) => update.ended_at,
        (true, false) => Some(now),
        (false, _) => None,
    };
    if let Some(mut gate) = gate
        && !before.standing().takes_a_place()
        && update.state.standing().takes_a_place()
    {
        gate.note_start(now);
        campaigns::set_gate(tx, &campaign.name, &gate)?;
    }
    close_superseded(tx, &update, before, now)?;
    for command in transition.commands {
        outgoing::queue_command(tx, rules, &vehicle.binding, &mut update, command, cause, now)?;
    }
    grant_packages(tx, &update, before, now)?;
    updates::save(tx, &earlier, &update, now)?;
    if update.state.is_final() && update.state != *before {
        evidence::note_end(tx, &update, vci, cause, now)?;
    }
    if before.name() != update.state.name() {
        tracing::info!(
            vehicle = %update.vehicle_id, campaign = %update.campaign, from = before.name(), to = update.state.name(),
            "A vehicle update went on."
        );
    }
    retries::attempt_ended(tx, rules, &campaign, before, &mut update, now)?;
    let lets_others_go =
        before.goes_before_others() && !update.state.goes_before_others() && !update.state.is_active();
    if before.is_active() && !update.state.is_active() {
        look_at_waiting(tx, rules, &vehicle.binding, now)?;
    } else if lets_others_go && rivals.iter().any(|rival| !rival.is_under_way()) {
        look_at_others(tx, rules, &vehicle.binding, Some(&update.id), now)?;
    }
    Ok(())
}

fn surroundings(
    tx: &Tx<'_>,
    rules: &Rules,
    update: &VehicleUpdate,
) -> Result<(Vehicle, Campaign, Arc<NamedRelease>), StoreError> {
    let absent = |expected| StoreError::Damaged { expected, found: format!("none for update {}", update.id) };
    let vehicle = vehicles::by_id(tx, &update.vehicle_id)?.ok_or_else(|| absent("a vehicle"))?;
    let campaign = campaigns::by_name(tx, &update.campaign)?.ok_or_else(|| absent("a campaign"))?;
    let release = rules.releases.get(tx, &campaign.release)?.ok_or_else(|| absent("a release"))?;
    Ok((vehicle, campaign, release))
}

/// What the server itself puts before an update; else the record of a gate that counts who begins.
fn block(
    tx: &Tx<'_>,
    vehicle: &Vehicle,
    campaign: &Campaign,
    update: &VehicleUpdate,
    rivals: &[Rival],
    now: UnixMillis,
) -> Result<(Option<Block>, Option<GateRecord>), StoreError> {
    let blocked = |block| Ok((Some(block), None));
    if campaign.aborted.is_some() {
        return blocked(Block::CampaignAborted);
    }
    if campaign.paused_at.is_some() {
        return blocked(Block::CampaignPaused);
    }
    if campaign.stopped.is_some() {
        return blocked(Block::CampaignStopped);
    }
    let other_active = if matches!(update.state, State::Waiting { .. }) {
        rivals.iter().find(|rival| rival.is_under_way()).map(|rival| rival.campaign.clone())
    } else {
        updates::other_active(tx, &update.vehicle_id, &update.id)?
    };
    if let Some(campaign) = other_active {
        return blocked(Block::OtherUpdate { campaign });
    }
    if vehicle.quarantined_at.is_some() {
        return blocked(Block::Quarantine);
    }
    if let Some(block) = schedule::not_its_turn(vehicle, campaign, update, now) {
        return blocked(block);
    }
    if let Some(first) = rivals.iter().find(|rival| rival.goes_before(campaign)) {
        let (priority, own_priority) = (first.priority, campaign.intake.priority);
        return blocked(Block::GoesAfter { campaign: first.campaign.clone(), priority, own_priority });
    }
    at_gate(tx, campaign, update, now)
}

/// Whether the campaign's gate lets a vehicle begin that has not begun, or would begin again.
pub(crate) fn at_gate(
    tx: &Tx<'_>,
    campaign: &Campaign,
    update: &VehicleUpdate,
    now: UnixMillis,
) -> Result<(Option<Block>, Option<GateRecord>), StoreError> {
    let rollout = &campaign.rollout;
    if !rollout.has_gate() || !matches!(update.state, State::Waiting { .. } | State::Deferred { .. }) {
        return Ok((None, None));
    }
    if update.wave > campaign.gate.open {
        return Ok((Some(Block::WaveNotOpen { wave: update.wave }), None));
    }
    let record =
        if rollout.has_limit() { campaigns::hold_gate(tx, &campaign.name)? } else { campaign.gate.clone() };
    let waves = campaigns::wave_counts(tx, campaign)?;
    // The gatekeeper is about to stop it.
    if rollout.stop_reason(&waves, &record).is_some() {
        return Ok((Some(Block::CampaignStopped), None));
    }
    Ok(match rollout.room(&waves, &record, now) {
        Ok(_) => (None, rollout.starts_per_minute.map(|_| record)),
        Err(NoRoom::AtOnce(vehicles_at_once)) => (Some(Block::NoPlace { vehicles_at_once }), None),
        Err(NoRoom::Minute(starts_per_minute, until)) => {
            (Some(Block::NoStart { starts_per_minute, until }), None)
        }
    })
}

/// Whether no other update has sent the vehicle a StartDownload since; only those want to know of which an attempt has ended.
fn is_latest(tx: &Tx<'_>, update: &VehicleUpdate) -> Result<bool, StoreError> {
    if !update.state.is_final() && !update.state.is_between_attempts() {
        return Ok(true);
    }
    let latest = updates::latest_started(tx, &update.vehicle_id)?;
    Ok(latest.is_some_and(|latest| latest.id == update.id))
}

/// Closes the commands whose answers mean nothing any more. A question that is asked anew needs no closing:
/// the one before it is answered or expired.
fn close_superseded(
    tx: &Tx<'_>,
    update: &VehicleUpdate,
    before: &State,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let still_meant = update.state.open_commands();
    for command in before.open_commands().iter().filter(|command| !still_meant.contains(command)) {
        commands::close_of_update(tx, &update.id, *command, now)?;
    }
    Ok(())
}

/// Packages can be fetched exactly as long as the StartDownload is open.
fn grant_packages(
    tx: &Tx<'_>,
    update: &VehicleUpdate,
    before: &State,
    now: UnixMillis,
) -> Result<(), StoreError> {
    match (before.may_download(), update.state.may_download()) {
        (false, true) => match (update.state.plan(), update.state.due_at()) {
            (Some(plan), Some(until)) => packages::open(tx, &update.id, &update.vehicle_id, plan, until),
            (_, _) => Ok(()),
        },
        (true, false) => packages::close(tx, &update.id, now),
        (false, false) | (true, true) => Ok(()),
    }
}

/// Looks whether updates of a vehicle that wait can go on; which of them goes first their campaigns say.
pub(crate) fn look_at_waiting(
    tx: &Tx<'_>,
    rules: &Rules,
    binding: &Binding,
    now: UnixMillis,
) -> Result<(), StoreError> {
    look_at_others(tx, rules, binding, None, now)
}

fn look_at_others(
    tx: &Tx<'_>,
    rules: &Rules,
    binding: &Binding,
    except_id: Option<&str>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let waiting = updates::waiting_of_vehicle(tx, &binding.vehicle_id)?;
    let others = waiting.into_iter().filter(|update| except_id != Some(update.id.as_str()));
    for (index, update) in others.enumerate() {
        // One that was looked at before it may have changed it.
        let update = if index == 0 { Some(update) } else { updates::by_id(tx, &update.id)? };
        if let Some(update) = update.filter(|update| matches!(update.state, State::Waiting { .. })) {
            advance(tx, rules, update, Event::LookedAt, None, now)?;
        }
    }
    Ok(())
}

/// Lets the update of a vehicle find out what became of its campaign.
pub(crate) fn look_at_campaign(
    tx: &Tx<'_>,
    rules: &Rules,
    campaign: &Campaign,
    vehicle: &Vehicle,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let update = updates::of_vehicle_in(tx, &campaign.name, &vehicle.binding.vehicle_id)?;
    let Some(update) = update.filter(|update| !update.state.is_final()) else { return Ok(()) };
    let event = match &campaign.aborted {
        Some(Aborted { reason, .. }) => Event::CancelAsked { reason: reason.clone() },
        None => Event::LookedAt,
    };
    advance(tx, rules, update, event, None, now)
}
