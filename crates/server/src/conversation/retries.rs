//! What follows from the end of an attempt beyond the end itself: the failure is remembered, a vehicle that failed a release
//! too often is set aside for it, and the next attempt is planned where the campaign's rules have one.

use farrier_campaign::{RetryCode, State};
use farrier_protocol::{Text, UnixMillis, VehicleId};
use serde_json::json;

use super::Rules;
use crate::store::audit::{self, Actor, Change};
use crate::store::campaigns::Campaign;
use crate::store::set_aside::{self, FailedAttempt, SetAside};
use crate::store::updates::{self, VehicleUpdate};
use crate::store::{StoreError, Tx};

/// Does what follows when an update, which is stored, has come from one state to another.
pub(super) fn attempt_ended(
    tx: &Tx<'_>,
    rules: &Rules,
    campaign: &Campaign,
    before: &State,
    update: &mut VehicleUpdate,
    now: UnixMillis,
) -> Result<(), StoreError> {
    if before.name() == update.state.name() {
        return Ok(());
    }
    match &update.state {
        State::Succeeded { .. } | State::UpToDate => {
            let detail = || format!("It runs release {}.", campaign.release);
            take_back(tx, &Actor::server(), &update.vehicle_id, &campaign.release, detail, now)?;
            return Ok(());
        }
        State::RolledBack { cause, .. } | State::Inconsistent { cause, .. } => {
            let is_mixed = matches!(update.state, State::Inconsistent { .. });
            if (is_mixed || RetryCode::of(cause).is_some())
                && remembered(tx, rules, campaign, update, cause.code(), now)?
            {
                return Ok(());
            }
        }
        State::Waiting { .. }
        | State::CollectingVci { .. }
        | State::CheckingReadiness { .. }
        | State::Deferred { .. }
        | State::Downloading(_)
        | State::Installing(_)
        | State::Committing(_)
        | State::Verifying { .. }
        | State::RollingBack { .. }
        | State::Cancelled { .. }
        | State::Ineligible { .. }
        | State::Unknown { .. } => return Ok(()),
    }
    let next = campaign.rollout.next_attempt(before, &update.state, update.attempts, now);
    let Some(next) = next.filter(|_| campaign.aborted.is_none()) else { return Ok(()) };
    tracing::info!(
        vehicle = %update.vehicle_id, campaign = %update.campaign, attempt = next.attempt, of = next.of,
        "A vehicle update is tried again after a pause."
    );
    let ended = update.clone();
    update.state = ended.state.clone().before_next_attempt(next);
    update.ended_at = None;
    update.attempts = ended.attempts.after(&ended.state, &update.state, false);
    updates::save(tx, &ended, update, now)
}

/// Remembers a failed attempt; says whether the vehicle is set aside for the release now.
fn remembered(
    tx: &Tx<'_>,
    rules: &Rules,
    campaign: &Campaign,
    update: &VehicleUpdate,
    code: &str,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let Some(attempt_id) = &update.attempt_id else { return Ok(false) };
    let (vehicle_id, release) = (&update.vehicle_id, &campaign.release);
    let failed = FailedAttempt { attempt_id, vehicle_id, release, campaign: &campaign.name, code };
    let failures = set_aside::note_failure(tx, failed, now)?;
    let is_too_often =
        failures.filter(|failures| rules.set_aside_after > 0 && *failures >= rules.set_aside_after);
    if let Some(failures) = is_too_often
        && set_aside::set_aside(tx, failed, failures, now)?
    {
        let detail = format!(
            "release {release}: {failures} failed attempt(s), the last one with {code} in campaign {}",
            campaign.name
        );
        tracing::warn!(vehicle = %vehicle_id, "A vehicle was set aside: {detail}");
        let after = set_aside::of(tx, vehicle_id, release)?;
        record(tx, &Actor::server(), "vehicle.set_aside", (None, after.as_ref()), detail, now)?;
    }
    Ok(set_aside::of(tx, vehicle_id, release)?.is_some())
}

/// Takes a vehicle back for a release, and says so in the audit log where it was set aside; gives what it was set aside for.
pub(crate) fn take_back(
    tx: &Tx<'_>,
    actor: &Actor,
    vehicle_id: &VehicleId,
    release: &Text,
    detail: impl FnOnce() -> String,
    now: UnixMillis,
) -> Result<Option<SetAside>, StoreError> {
    let before = set_aside::take_back(tx, vehicle_id, release)?;
    if before.is_some() {
        record(tx, actor, "vehicle.taken_back", (before.as_ref(), None), detail(), now)?;
    }
    Ok(before)
}

fn record(
    tx: &Tx<'_>,
    actor: &Actor,
    action: &'static str,
    (before, after): (Option<&SetAside>, Option<&SetAside>),
    detail: String,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let Some(either) = before.or(after) else { return Ok(()) };
    let audited = |set_aside: &SetAside| {
        json!({
            "vehicle_id": set_aside.vehicle_id, "release": set_aside.release, "failures": set_aside.failures,
            "campaign": set_aside.campaign, "code": set_aside.code, "at": set_aside.at,
        })
    };
    let change = Change {
        action,
        object: format!("vehicle/{}", either.vehicle_id),
        detail: Some(detail),
        before: before.map(audited),
        after: after.map(audited),
    };
    audit::record(tx, actor, change, now)
}
