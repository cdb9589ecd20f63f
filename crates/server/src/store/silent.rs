//! Vehicles that were not heard for long. An index by when each was last heard would be written with every message; so all
//! vehicles are looked at in their order, some at a time, and those that are silent are kept in a list.

use farrier_protocol::{UnixMillis, VehicleId};

use super::{StoreError, Tx};

/// Whoever was not heard for so long is silent: a week, in ms.
pub(crate) const SILENT_AFTER_MS: i64 = 7 * 86_400_000;
/// Vehicles that are looked at at a time.
pub(crate) const AT_A_TIME: u32 = 2_000;

/// What a look at some vehicles has found.
#[derive(Debug)]
pub(crate) struct Look {
    from: String,
    next: String,
    silent: Vec<VehicleId>,
    heard: Vec<VehicleId>,
}

/// Looks at the next vehicles.
pub(crate) fn look(tx: &Tx<'_>, now: UnixMillis, at_a_time: u32) -> Result<Look, StoreError> {
    let from = tx.row("SELECT look_after FROM silent_look WHERE only_row = 1", &[], |row| row.text(0))?;
    let from = from.unwrap_or_default();
    let heard_since = UnixMillis(now.0.saturating_sub(SILENT_AFTER_MS));
    let seen = tx.rows(
        "SELECT v.vehicle_id, COALESCE(v.last_seen_at, v.enrolled_at), s.vehicle_id FROM vehicle v \
         LEFT JOIN silent_vehicle s ON s.vehicle_id = v.vehicle_id \
         WHERE v.vehicle_id > $1 ORDER BY v.vehicle_id LIMIT $2",
        &[(&from).into(), i64::from(at_a_time).into()],
        |row| {
            let id: VehicleId = row.parsed(0, "a vehicle id")?;
            Ok((id, row.time(1)? < heard_since, row.optional_text(2)?.is_some()))
        },
    )?;
    let is_end = seen.len() < usize::try_from(at_a_time).unwrap_or(usize::MAX);
    let next = seen.last().filter(|_| !is_end).map(|(id, _, _)| id.to_string()).unwrap_or_default();
    let (mut silent, mut heard) = (Vec::new(), Vec::new());
    for (id, is_silent, is_listed) in seen {
        match (is_silent, is_listed) {
            (true, false) => silent.push(id),
            (false, true) => heard.push(id),
            (true, true) | (false, false) => {}
        }
    }
    Ok(Look { from, next, silent, heard })
}

/// Writes what a look has found, unless another server has gone on meanwhile.
pub(crate) fn keep(tx: &Tx<'_>, look: &Look) -> Result<(), StoreError> {
    let moved = tx.exec(
        "UPDATE silent_look SET look_after = $2 WHERE only_row = 1 AND look_after = $1",
        &[(&look.from).into(), (&look.next).into()],
    )?;
    if moved == 0 {
        return Ok(());
    }
    for id in &look.silent {
        tx.exec(
            "INSERT INTO silent_vehicle (vehicle_id) VALUES ($1) ON CONFLICT (vehicle_id) DO NOTHING",
            &[id.as_str().into()],
        )?;
    }
    for id in &look.heard {
        tx.exec("DELETE FROM silent_vehicle WHERE vehicle_id = $1", &[id.as_str().into()])?;
    }
    Ok(())
}

/// How many are in the list.
pub(crate) fn count(tx: &Tx<'_>) -> Result<u64, StoreError> {
    Ok(tx.row("SELECT COUNT(*) FROM silent_vehicle", &[], |row| row.count(0))?.unwrap_or(0))
}

/// Those after an id, and when each was last heard; one that was heard since is among them until it is looked at again.
pub(crate) fn page(
    tx: &Tx<'_>,
    after: &str,
    limit: u32,
) -> Result<Vec<(VehicleId, Option<UnixMillis>)>, StoreError> {
    tx.rows(
        "SELECT s.vehicle_id, v.last_seen_at FROM silent_vehicle s JOIN vehicle v ON v.vehicle_id = s.vehicle_id \
         WHERE s.vehicle_id > $1 ORDER BY s.vehicle_id LIMIT $2",
        &[after.into(), i64::from(limit).into()],
        |row| Ok((row.parsed(0, "a vehicle id")?, row.optional_time(1)?)),
    )
}
