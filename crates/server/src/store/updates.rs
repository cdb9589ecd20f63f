//! Vehicle updates: where each stands, what is due, and the steps it took.

use farrier_campaign::{Attempts, State};
use farrier_protocol::{Text, UnixMillis, VehicleId};

use super::tx::{Counted, Counter, stored_json};
use super::{Row, StoreError, Tx, changes, vehicles};

/// One vehicle in one campaign.
#[derive(Debug, Clone)]
pub(crate) struct VehicleUpdate {
    pub(crate) id: String,
    pub(crate) campaign: Text,
    pub(crate) vehicle_id: VehicleId,
    /// Of its campaign's waves, from 1.
    pub(crate) wave: u32,
    /// Names the StartDownload under way, or the last one: the wire's `update_id`.
    pub(crate) attempt_id: Option<Text>,
    pub(crate) state: State,
    pub(crate) attempts: Attempts,
    pub(crate) created_at: UnixMillis,
    /// When its StartDownload was first queued.
    pub(crate) started_at: Option<UnixMillis>,
    pub(crate) updated_at: UnixMillis,
    pub(crate) ended_at: Option<UnixMillis>,
}

/// A state as the store has it: its name for indexes, and name and data as JSON.
struct StoredState {
    name: &'static str,
    data: String,
    phase: &'static str,
    due_at: Option<UnixMillis>,
}

impl TryFrom<&State> for StoredState {
    type Error = StoreError;

    fn try_from(state: &State) -> Result<Self, StoreError> {
        let phase = match (state.is_final(), state.is_active()) {
            (true, _) => "ended",
            (false, true) => "active",
            (false, false) => "waiting",
        };
        Ok(Self { name: state.name(), data: stored_json(state)?, phase, due_at: state.due_at() })
    }
}

macro_rules! select_update {
    ($rest:literal) => {
        concat!(
            "SELECT id, campaign_name, vehicle_id, attempt_id, data, created_at, started_at, updated_at, ended_at, wave, \
             attempts              FROM vehicle_update ",
            $rest
        )
    };
}

fn read(row: &Row<'_>) -> Result<VehicleUpdate, StoreError> {
    Ok(VehicleUpdate {
        id: row.text(0)?,
        campaign: row.parsed(1, "a campaign name")?,
        vehicle_id: row.parsed(2, "a vehicle id")?,
        attempt_id: row.optional_parsed(3, "an attempt id")?,
        state: row.json(4, "the state of a vehicle update")?,
        created_at: row.time(5)?,
        started_at: row.optional_time(6)?,
        updated_at: row.time(7)?,
        ended_at: row.optional_time(8)?,
        wave: u32::try_from(row.integer(9)?).unwrap_or(u32::MAX),
        attempts: row.optional_json(10, "the attempts of a vehicle update")?.unwrap_or_default(),
    })
}

/// Selects a vehicle for a campaign; `None` where it is selected already.
pub(crate) fn select(
    tx: &Tx<'_>,
    campaign: &Text,
    vehicle_id: &VehicleId,
    wave: u32,
    now: UnixMillis,
) -> Result<Option<VehicleUpdate>, StoreError> {
    let (id, state) = (super::new_id(), State::selected());
    let stored = StoredState::try_from(&state)?;
    let inserted = tx.exec(
        "INSERT INTO vehicle_update (id, campaign_name, vehicle_id, state, data, phase, created_at, updated_at, wave) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8) ON CONFLICT (campaign_name, vehicle_id) DO NOTHING",
        &[
            (&id).into(),
            campaign.as_str().into(),
            vehicle_id.as_str().into(),
            stored.name.into(),
            (&stored.data).into(),
            stored.phase.into(),
            now.into(),
            i64::from(wave).into(),
        ],
    )?;
    if inserted == 0 {
        return Ok(None);
    }
    tx.count(counter(tx, campaign, vehicle_id, wave, Counted::At(state.standing())), 1);
    by_id(tx, &id)
}

/// Rows among which the vehicles of one counter are spread, where several servers write.
const SHARDS: u64 = 16;

/// The row that a vehicle is counted in.
pub(super) fn shard(tx: &Tx<'_>, vehicle_id: &VehicleId) -> i64 {
    let sum =
        vehicle_id.as_str().bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    if tx.is_shared() { i64::try_from(sum % SHARDS).unwrap_or(0) } else { 0 }
}

fn counter(tx: &Tx<'_>, campaign: &Text, vehicle_id: &VehicleId, wave: u32, counted: Counted) -> Counter {
    Counter { campaign: campaign.clone(), wave, counted, shard: shard(tx, vehicle_id) }
}

pub(crate) fn by_id(tx: &Tx<'_>, id: &str) -> Result<Option<VehicleUpdate>, StoreError> {
    tx.row(select_update!("WHERE id = $1"), &[id.into()], read)
}

pub(crate) fn of_vehicle_in(
    tx: &Tx<'_>,
    campaign: &Text,
    vehicle_id: &VehicleId,
) -> Result<Option<VehicleUpdate>, StoreError> {
    tx.row(
        select_update!("WHERE campaign_name = $1 AND vehicle_id = $2"),
        &[campaign.as_str().into(), vehicle_id.as_str().into()],
        read,
    )
}

/// All updates of a vehicle, oldest first.
pub(crate) fn of_vehicle(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Vec<VehicleUpdate>, StoreError> {
    tx.rows(select_update!("WHERE vehicle_id = $1 ORDER BY id"), &[vehicle_id.as_str().into()], read)
}

/// The updates of a vehicle that its WakeUp concerns, oldest first: all that are not over, and those whose
/// outcome nobody knows.
pub(crate) fn open_of_vehicle(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Vec<VehicleUpdate>, StoreError> {
    tx.rows(
        select_update!(
            "WHERE vehicle_id = $1 AND (phase IN ('waiting', 'active') OR state = 'unknown') ORDER BY id"
        ),
        &[vehicle_id.as_str().into()],
        read,
    )
}

/// The updates of a vehicle that wait for something of the server's or the vehicle's, oldest first.
pub(crate) fn waiting_of_vehicle(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
) -> Result<Vec<VehicleUpdate>, StoreError> {
    tx.rows(
        select_update!("WHERE vehicle_id = $1 AND phase = 'waiting' ORDER BY id"),
        &[vehicle_id.as_str().into()],
        read,
    )
}

/// The campaign of another update of this vehicle that is under way.
pub(crate) fn other_active(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    except_id: &str,
) -> Result<Option<Text>, StoreError> {
    tx.row(
        "SELECT campaign_name FROM vehicle_update WHERE vehicle_id = $1 AND phase = 'active' AND id <> $2 LIMIT 1",
        &[vehicle_id.as_str().into(), except_id.into()],
        |row| row.parsed(0, "a campaign name"),
    )
}

/// The update whose StartDownload was the last that was queued for this vehicle.
pub(crate) fn latest_started(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
) -> Result<Option<VehicleUpdate>, StoreError> {
    tx.row(
        select_update!("WHERE vehicle_id = $1 AND attempt_id IS NOT NULL ORDER BY attempt_id DESC LIMIT 1"),
        &[vehicle_id.as_str().into()],
        read,
    )
}

/// The updates of a campaign in one state, by vehicle.
pub(crate) fn page_in_state(
    tx: &Tx<'_>,
    campaign: &Text,
    state: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<VehicleUpdate>, StoreError> {
    tx.rows(
        select_update!(
            "WHERE campaign_name = $1 AND state = $2 AND vehicle_id > $3 ORDER BY vehicle_id LIMIT $4"
        ),
        &[campaign.as_str().into(), state.into(), after.into(), i64::from(limit).into()],
        read,
    )
}

/// The updates of all campaigns that are inconsistent or unknown, newest first, before an id.
pub(crate) fn page_of_outcome(
    tx: &Tx<'_>,
    state: &str,
    before: &str,
    limit: u32,
) -> Result<Vec<VehicleUpdate>, StoreError> {
    tx.rows(
        select_update!(
            "WHERE state = $1 AND state IN ('inconsistent', 'unknown') AND id < $2 ORDER BY id DESC LIMIT $3"
        ),
        &[state.into(), before.into(), i64::from(limit).into()],
        read,
    )
}

/// The updates of a campaign after a vehicle, by vehicle.
pub(crate) fn page_of_campaign(
    tx: &Tx<'_>,
    campaign: &Text,
    after: &str,
    limit: u32,
) -> Result<Vec<VehicleUpdate>, StoreError> {
    tx.rows(
        select_update!("WHERE campaign_name = $1 AND vehicle_id > $2 ORDER BY vehicle_id LIMIT $3"),
        &[campaign.as_str().into(), after.into(), i64::from(limit).into()],
        read,
    )
}

/// The updates of a campaign that ended without a change, or pause before another attempt, after a vehicle, by vehicle.
pub(crate) fn page_without_change(
    tx: &Tx<'_>,
    campaign: &Text,
    after: &str,
    limit: u32,
) -> Result<Vec<VehicleUpdate>, StoreError> {
    tx.rows(
        select_update!(
            "WHERE campaign_name = $1 AND vehicle_id > $2 AND (state IN ('cancelled', 'ineligible', 'rolled_back') \
             OR (state = 'waiting' AND attempts IS NOT NULL)) ORDER BY vehicle_id LIMIT $3"
        ),
        &[campaign.as_str().into(), after.into(), i64::from(limit).into()],
        read,
    )
}

/// Vehicles after one whose updates in a campaign are not over, by id.
pub(crate) fn vehicles_with_open(
    tx: &Tx<'_>,
    campaign: &Text,
    after: &str,
    limit: u32,
) -> Result<Vec<VehicleId>, StoreError> {
    tx.rows(
        "SELECT vehicle_id FROM vehicle_update WHERE campaign_name = $1 AND vehicle_id > $2 \
         AND phase IN ('waiting', 'active') ORDER BY vehicle_id LIMIT $3",
        &[campaign.as_str().into(), after.into(), i64::from(limit).into()],
        |row| row.parsed(0, "a vehicle id"),
    )
}

fn is_at_release(state: &State) -> bool {
    matches!(state, State::Succeeded { .. } | State::UpToDate)
}

/// Writes a changed update, and the step where its state has another name than before.
pub(crate) fn save(
    tx: &Tx<'_>,
    before: &VehicleUpdate,
    update: &VehicleUpdate,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let attempts =
        (update.attempts != Attempts::default()).then(|| stored_json(&update.attempts)).transpose()?;
    let stored = StoredState::try_from(&update.state)?;
    tx.exec(
        "UPDATE vehicle_update SET attempt_id = $2, state = $3, data = $4, phase = $5, due_at = $6, \
         started_at = $7, updated_at = $8, ended_at = $9, at_gate = $10, attempts = $11 WHERE id = $1",
        &[
            (&update.id).into(),
            update.attempt_id.as_ref().map(Text::as_str).into(),
            stored.name.into(),
            (&stored.data).into(),
            stored.phase.into(),
            stored.due_at.into(),
            update.started_at.into(),
            now.into(),
            update.ended_at.into(),
            update.state.waits_at_gate().then_some(1_i64).into(),
            attempts.as_ref().into(),
        ],
    )?;
    let count = |counted, vehicles| {
        tx.count(counter(tx, &update.campaign, &update.vehicle_id, update.wave, counted), vehicles);
    };
    if before.state.standing() != update.state.standing() {
        count(Counted::At(before.state.standing()), -1);
        count(Counted::At(update.state.standing()), 1);
        if is_at_release(&before.state) || is_at_release(&update.state) {
            vehicles::note_release(tx, &update.vehicle_id)?;
        }
    }
    let failed_before = |update: &VehicleUpdate| update.attempts.count_as_failed(&update.state);
    match (failed_before(before), failed_before(update)) {
        (false, true) => count(Counted::FailedBefore, 1),
        (true, false) => count(Counted::FailedBefore, -1),
        (false, false) | (true, true) => {}
    }
    let before = &before.state;
    if before.name() != stored.name {
        tx.exec(
            "INSERT INTO vehicle_update_step (id, vehicle_update_id, from_state, to_state, at) \
             VALUES ($1, $2, $3, $4, $5)",
            &[
                (&super::new_id()).into(),
                (&update.id).into(),
                before.name().into(),
                stored.name.into(),
                now.into(),
            ],
        )?;
        changes::stepped(tx, before, update, now)?;
    }
    if before.due_at() != stored.due_at {
        tx.due_changed();
    }
    Ok(())
}

/// The names of the states that an update went through, oldest first, with the time of each.
pub(crate) fn steps(tx: &Tx<'_>, update_id: &str) -> Result<Vec<(String, UnixMillis)>, StoreError> {
    tx.rows(
        "SELECT to_state, at FROM vehicle_update_step WHERE vehicle_update_id = $1 ORDER BY id",
        &[update_id.into()],
        |row| Ok((row.text(0)?, row.time(1)?)),
    )
}

/// The ids of updates whose time has come, the longest overdue first, claimed with their vehicles: none that another
/// transaction is at. What they were when they were found they may no longer be once they are claimed.
pub(crate) fn claim_due(tx: &Tx<'_>, now: UnixMillis, limit: u32) -> Result<Vec<String>, StoreError> {
    let sql = tx.one_of(
        "SELECT id FROM vehicle_update WHERE due_at <= $1 ORDER BY due_at, id LIMIT $2",
        "SELECT u.id FROM vehicle_update u JOIN vehicle v ON v.vehicle_id = u.vehicle_id \
         WHERE u.due_at <= $1 ORDER BY u.due_at, u.id LIMIT $2 FOR NO KEY UPDATE OF v SKIP LOCKED",
    );
    tx.rows(sql, &[now.into(), i64::from(limit).into()], |row| row.text(0))
}

/// The ids of updates of open waves that wait at their campaign's gate, those of earlier waves first, claimed with their
/// vehicles as those that are due are.
pub(crate) fn claim_at_gate(
    tx: &Tx<'_>,
    campaign: &Text,
    open_waves: u32,
    limit: u64,
) -> Result<Vec<String>, StoreError> {
    let sql = tx.one_of(
        "SELECT id FROM vehicle_update WHERE campaign_name = $1 AND wave <= $2 AND at_gate IS NOT NULL \
         ORDER BY wave, id LIMIT $3",
        "SELECT u.id FROM vehicle_update u JOIN vehicle v ON v.vehicle_id = u.vehicle_id \
         WHERE u.campaign_name = $1 AND u.wave <= $2 AND u.at_gate IS NOT NULL \
         ORDER BY u.wave, u.id LIMIT $3 FOR NO KEY UPDATE OF v SKIP LOCKED",
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.rows(sql, &[campaign.as_str().into(), i64::from(open_waves).into(), limit.into()], |row| row.text(0))
}

pub(crate) fn next_due(tx: &Tx<'_>) -> Result<Option<UnixMillis>, StoreError> {
    let sql = "SELECT due_at FROM vehicle_update WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1";
    tx.row(sql, &[], |row| row.time(0))
}
