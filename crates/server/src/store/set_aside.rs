//! Attempts that failed, by vehicle and release, and the vehicles that are set aside for a release since they failed it too often.

use std::collections::BTreeMap;

use farrier_protocol::{Text, UnixMillis, VehicleId};

use super::{Row, StoreError, Tx};

/// An attempt that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedAttempt<'a> {
    /// The wire's `update_id`; an attempt counts once, however often its end is found out.
    pub(crate) attempt_id: &'a Text,
    pub(crate) vehicle_id: &'a VehicleId,
    pub(crate) release: &'a Text,
    pub(crate) campaign: &'a Text,
    /// Why it failed.
    pub(crate) code: &'a str,
}

/// A vehicle that is set aside for a release.
#[derive(Debug, Clone)]
pub(crate) struct SetAside {
    pub(crate) vehicle_id: VehicleId,
    pub(crate) release: Text,
    /// How often it failed it.
    pub(crate) failures: u32,
    /// Of the last failure.
    pub(crate) campaign: Text,
    /// Why it failed last.
    pub(crate) code: String,
    pub(crate) at: UnixMillis,
}

/// Remembers a failed attempt; gives how often the vehicle has failed the release by now, or `None` where it was remembered
/// before.
pub(crate) fn note_failure(
    tx: &Tx<'_>,
    failed: FailedAttempt<'_>,
    now: UnixMillis,
) -> Result<Option<u32>, StoreError> {
    let (vehicle_id, release) = (failed.vehicle_id.as_str(), failed.release.as_str());
    let noted = tx.exec(
        "INSERT INTO failed_attempt (attempt_id, vehicle_id, release_name, campaign_name, code, at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (attempt_id) DO NOTHING",
        &[
            failed.attempt_id.as_str().into(),
            vehicle_id.into(),
            release.into(),
            failed.campaign.as_str().into(),
            failed.code.into(),
            now.into(),
        ],
    )?;
    if noted == 0 {
        return Ok(None);
    }
    let failures = tx.row(
        "SELECT COUNT(*) FROM failed_attempt WHERE vehicle_id = $1 AND release_name = $2",
        &[vehicle_id.into(), release.into()],
        |row| row.count(0),
    )?;
    Ok(failures.map(|failures| u32::try_from(failures).unwrap_or(u32::MAX)))
}

/// Sets a vehicle aside for a release; says whether it was not before.
pub(crate) fn set_aside(
    tx: &Tx<'_>,
    failed: FailedAttempt<'_>,
    failures: u32,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let changed = tx.exec(
        "INSERT INTO set_aside (vehicle_id, release_name, failures, campaign_name, code, at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (vehicle_id, release_name) DO NOTHING",
        &[
            failed.vehicle_id.as_str().into(),
            failed.release.as_str().into(),
            i64::from(failures).into(),
            failed.campaign.as_str().into(),
            failed.code.into(),
            now.into(),
        ],
    )?;
    Ok(changed > 0)
}

macro_rules! select_set_aside {
    ($rest:literal) => {
        concat!("SELECT vehicle_id, release_name, failures, campaign_name, code, at FROM set_aside ", $rest)
    };
}

fn read(row: &Row<'_>) -> Result<SetAside, StoreError> {
    Ok(SetAside {
        vehicle_id: row.parsed(0, "a vehicle id")?,
        release: row.parsed(1, "a release name")?,
        failures: u32::try_from(row.count(2)?).unwrap_or(u32::MAX),
        campaign: row.parsed(3, "a campaign name")?,
        code: row.text(4)?,
        at: row.time(5)?,
    })
}

/// The releases that a vehicle is set aside for, by name.
pub(crate) fn of_vehicle(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Vec<SetAside>, StoreError> {
    let sql = select_set_aside!("WHERE vehicle_id = $1 ORDER BY release_name");
    tx.rows(sql, &[vehicle_id.as_str().into()], read)
}

/// Whether and why a vehicle is set aside for a release.
pub(crate) fn of(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    release: &Text,
) -> Result<Option<SetAside>, StoreError> {
    tx.row(
        select_set_aside!("WHERE vehicle_id = $1 AND release_name = $2"),
        &[vehicle_id.as_str().into(), release.as_str().into()],
        read,
    )
}

/// The vehicles that are set aside after a vehicle and a release, by both.
pub(crate) fn page(tx: &Tx<'_>, after: (&str, &str), limit: u32) -> Result<Vec<SetAside>, StoreError> {
    tx.rows(
        select_set_aside!(
            "WHERE vehicle_id > $1 OR (vehicle_id = $1 AND release_name > $2) \
             ORDER BY vehicle_id, release_name LIMIT $3"
        ),
        &[after.0.into(), after.1.into(), i64::from(limit).into()],
        read,
    )
}

/// Those of one release after a vehicle, by vehicle.
pub(crate) fn page_of_release(
    tx: &Tx<'_>,
    release: &Text,
    after: &str,
    limit: u32,
) -> Result<Vec<SetAside>, StoreError> {
    tx.rows(
        select_set_aside!("WHERE release_name = $1 AND vehicle_id > $2 ORDER BY vehicle_id LIMIT $3"),
        &[release.as_str().into(), after.into(), i64::from(limit).into()],
        read,
    )
}

/// How many there are.
pub(crate) fn count(tx: &Tx<'_>) -> Result<u64, StoreError> {
    Ok(tx.row("SELECT COUNT(*) FROM set_aside", &[], |row| row.count(0))?.unwrap_or(0))
}

/// How many vehicles could not bring their ECUs to one state, and do not run the release since.
pub(crate) fn count_service_required(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(DISTINCT vehicle_id) FROM failed_attempt WHERE code = 'SERVICE_REQUIRED'";
    Ok(tx.row(sql, &[], |row| row.count(0))?.unwrap_or(0))
}

/// Those after a vehicle, by vehicle: with the campaign of the last such attempt of each, and when it ended.
pub(crate) fn page_service_required(
    tx: &Tx<'_>,
    after: &str,
    limit: u32,
) -> Result<Vec<(VehicleId, Text, UnixMillis)>, StoreError> {
    tx.rows(
        "SELECT vehicle_id, MAX(campaign_name), MAX(at) FROM failed_attempt WHERE code = 'SERVICE_REQUIRED' \
         AND vehicle_id > $1 GROUP BY vehicle_id ORDER BY vehicle_id LIMIT $2",
        &[after.into(), i64::from(limit).into()],
        |row| Ok((row.parsed(0, "a vehicle id")?, row.parsed(1, "a campaign name")?, row.time(2)?)),
    )
}

/// How often each vehicle failed that is set aside for a release, of all vehicles from one to another.
pub(crate) fn between(
    tx: &Tx<'_>,
    release: &Text,
    first: &VehicleId,
    last: &VehicleId,
) -> Result<BTreeMap<VehicleId, u32>, StoreError> {
    let found = tx.rows(
        select_set_aside!("WHERE release_name = $1 AND vehicle_id >= $2 AND vehicle_id <= $3"),
        &[release.as_str().into(), first.as_str().into(), last.as_str().into()],
        read,
    )?;
    Ok(found.into_iter().map(|one| (one.vehicle_id, one.failures)).collect())
}

/// Takes a vehicle back for a release and forgets its failures; gives what it was set aside for, if it was.
pub(crate) fn take_back(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    release: &Text,
) -> Result<Option<SetAside>, StoreError> {
    let key = [vehicle_id.as_str().into(), release.as_str().into()];
    let forgotten =
        tx.exec("DELETE FROM failed_attempt WHERE vehicle_id = $1 AND release_name = $2", &key)?;
    // Nobody is set aside without failures.
    let before = if forgotten > 0 { of(tx, vehicle_id, release)? } else { None };
    if before.is_some() {
        tx.exec("DELETE FROM set_aside WHERE vehicle_id = $1 AND release_name = $2", &key)?;
    }
    Ok(before)
}
