//! What operators must know about who can be trusted: replays, foreign identities, bans, boot loops. The same
//! event of the same sender is counted within its hour, so that nobody can fill the store with them.

use farrier_protocol::{Binding, UnixMillis, VehicleId};

use super::{Row, StoreError, Tx, changes};
use crate::measurements;

const HOUR_MS: i64 = 60 * 60 * 1000;
/// Characters of a detail that are kept.
const KEPT_DETAIL: usize = 512;

/// What happened, and how often in its hour.
#[derive(Debug, Clone)]
pub(crate) struct SecurityEvent {
    pub(crate) id: String,
    pub(crate) kind: String,
    /// A binding, a certificate's common name, or an address.
    pub(crate) subject: String,
    /// Where the subject is a vehicle that is known.
    pub(crate) vehicle_id: Option<VehicleId>,
    /// Of the last time.
    pub(crate) detail: String,
    pub(crate) first_at: UnixMillis,
    pub(crate) last_at: UnixMillis,
    pub(crate) times: u64,
}

/// Something that is to be remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewEvent<'a> {
    pub(crate) kind: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) vehicle_id: Option<&'a VehicleId>,
    pub(crate) detail: &'a str,
    /// How often it happened since it was last remembered.
    pub(crate) times: u64,
}

/// Remembers what a vehicle did.
pub(crate) fn record(
    tx: &Tx<'_>,
    binding: &Binding,
    kind: &str,
    detail: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let subject = binding.to_string();
    let vehicle_id = Some(&binding.vehicle_id);
    count(tx, &NewEvent { kind, subject: &subject, vehicle_id, detail, times: 1 }, now)
}

/// Remembers an event, or counts it where the same happened in this hour.
pub(crate) fn count(tx: &Tx<'_>, event: &NewEvent<'_>, now: UnixMillis) -> Result<(), StoreError> {
    measurements::security_event(event.kind, event.times);
    let detail: String = event.detail.chars().take(KEPT_DETAIL).collect();
    tx.exec(
        "INSERT INTO security_event (id, kind, subject, vehicle_id, hour, detail, first_at, last_at, times) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8) ON CONFLICT (subject, kind, hour) DO UPDATE SET \
         detail = excluded.detail, last_at = excluded.last_at, times = security_event.times + excluded.times",
        &[
            (&super::new_id()).into(),
            event.kind.into(),
            event.subject.into(),
            event.vehicle_id.map(VehicleId::as_str).into(),
            now.0.div_euclid(HOUR_MS).into(),
            (&detail).into(),
            now.into(),
            i64::try_from(event.times).unwrap_or(i64::MAX).into(),
        ],
    )?;
    changes::security_event(tx, event, &detail, now.0.div_euclid(HOUR_MS), now)
}

macro_rules! select_event {
    ($rest:literal) => {
        concat!(
            "SELECT id, kind, subject, vehicle_id, detail, first_at, last_at, times FROM security_event ",
            $rest
        )
    };
}

fn read(row: &Row<'_>) -> Result<SecurityEvent, StoreError> {
    Ok(SecurityEvent {
        id: row.text(0)?,
        kind: row.text(1)?,
        subject: row.text(2)?,
        vehicle_id: row.optional_parsed(3, "a vehicle id")?,
        detail: row.text(4)?,
        first_at: row.time(5)?,
        last_at: row.time(6)?,
        times: row.count(7)?,
    })
}

/// The newest events before a place in the list.
pub(crate) fn page(
    tx: &Tx<'_>,
    before: &(UnixMillis, String),
    limit: u32,
) -> Result<Vec<SecurityEvent>, StoreError> {
    tx.rows(
        select_event!(
            "WHERE last_at < $1 OR (last_at = $1 AND id < $2) ORDER BY last_at DESC, id DESC LIMIT $3"
        ),
        &[before.0.into(), (&before.1).into(), i64::from(limit).into()],
        read,
    )
}

/// The newest events of a kind, of a vehicle, or of both, before a place in the list.
pub(crate) fn filtered(
    tx: &Tx<'_>,
    kind: Option<&str>,
    vehicle_id: Option<&VehicleId>,
    before: &(UnixMillis, String),
    limit: u32,
) -> Result<Vec<SecurityEvent>, StoreError> {
    let place = [before.0.into(), (&before.1).into(), i64::from(limit).into()];
    match (kind, vehicle_id.map(VehicleId::as_str)) {
        (None, None) => page(tx, before, limit),
        (Some(kind), None) => tx.rows(
            select_event!(
                "WHERE kind = $4 AND last_at <= $1 AND (last_at < $1 OR id < $2) \
                 ORDER BY last_at DESC, id DESC LIMIT $3"
            ),
            &[place.as_slice(), &[kind.into()]].concat(),
            read,
        ),
        (None, Some(vehicle_id)) => tx.rows(
            select_event!(
                "WHERE vehicle_id = $4 AND last_at <= $1 AND (last_at < $1 OR id < $2) \
                 ORDER BY last_at DESC, id DESC LIMIT $3"
            ),
            &[place.as_slice(), &[vehicle_id.into()]].concat(),
            read,
        ),
        (Some(kind), Some(vehicle_id)) => tx.rows(
            select_event!(
                "WHERE vehicle_id = $4 AND kind = $5 AND last_at <= $1 AND (last_at < $1 OR id < $2) \
                 ORDER BY last_at DESC, id DESC LIMIT $3"
            ),
            &[place.as_slice(), &[vehicle_id.into(), kind.into()]].concat(),
            read,
        ),
    }
}

/// The kinds that there are, by name: each is found by one look into the index.
pub(crate) fn kinds(tx: &Tx<'_>) -> Result<Vec<String>, StoreError> {
    let mut kinds: Vec<String> = Vec::new();
    loop {
        let after = kinds.last().map_or("", String::as_str);
        let sql = "SELECT kind FROM security_event WHERE kind > $1 ORDER BY kind LIMIT 1";
        let Some(next) = tx.row(sql, &[after.into()], |row| row.text(0))? else { return Ok(kinds) };
        kinds.push(next);
    }
}

/// The newest events of one vehicle.
pub(crate) fn of_vehicle(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    limit: u32,
) -> Result<Vec<SecurityEvent>, StoreError> {
    tx.rows(
        select_event!("WHERE vehicle_id = $1 ORDER BY last_at DESC, id DESC LIMIT $2"),
        &[vehicle_id.as_str().into(), i64::from(limit).into()],
        read,
    )
}

/// Forgets events that last happened before `before`; at most 1,000 at a time.
pub(crate) fn forget(tx: &Tx<'_>, before: UnixMillis) -> Result<usize, StoreError> {
    tx.exec(
        "DELETE FROM security_event WHERE id IN \
         (SELECT id FROM security_event WHERE last_at < $1 ORDER BY last_at, id LIMIT 1000)",
        &[before.into()],
    )
}
