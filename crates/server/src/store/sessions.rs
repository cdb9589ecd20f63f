//! Which client was connected from when until when, and why no longer: the newest of each. By client id, since a vehicle that
//! connects for the first time is not enrolled yet; its time line finds them by the client ids that it has and had.

use farrier_protocol::UnixMillis;

use super::{StoreError, Tx};
use crate::desk::{ClientSession, SessionEnd, WhyGone};

/// Connections of a client that are kept.
pub(crate) const KEPT: i64 = 50;

/// Writes a connection to a server, or its end, and forgets the client's oldest.
pub(crate) fn write(tx: &Tx<'_>, node: &str, session: &ClientSession) -> Result<(), StoreError> {
    let ClientSession { client_id, id, came_at, end } = session;
    let (gone_at, why, detail) = match end {
        Some(SessionEnd { at, why, detail }) => (Some(*at), Some(why.name()), *detail),
        None => (None, None, None),
    };
    tx.exec(
        "INSERT INTO vehicle_session (client_id, id, node, came_at, gone_at, why, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (client_id, id) DO UPDATE SET \
         gone_at = excluded.gone_at, why = excluded.why, detail = excluded.detail",
        &[
            client_id.into(),
            id.into(),
            node.into(),
            (*came_at).into(),
            gone_at.into(),
            why.into(),
            detail.into(),
        ],
    )?;
    tx.exec(
        "DELETE FROM vehicle_session WHERE client_id = $1 AND id <= \
         (SELECT id FROM vehicle_session WHERE client_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
        &[client_id.into(), KEPT.into()],
    )?;
    Ok(())
}

/// Ends what an earlier run of this server left open, as far as is known by `now`; at most 1,000 at a time.
pub(crate) fn end_left_open(tx: &Tx<'_>, node: &str, now: UnixMillis) -> Result<usize, StoreError> {
    tx.exec(
        "UPDATE vehicle_session SET gone_at = $2, why = $3 WHERE node = $1 AND gone_at IS NULL AND id IN \
         (SELECT id FROM vehicle_session WHERE node = $1 AND gone_at IS NULL AND came_at < $2 LIMIT 1000)",
        &[node.into(), now.into(), WhyGone::Unknown.name().into()],
    )
}

/// The newest connection of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Latest {
    pub(crate) came_at: UnixMillis,
    /// When and why it ended, if it did.
    pub(crate) gone: Option<(UnixMillis, WhyGone)>,
}

pub(crate) fn latest(tx: &Tx<'_>, client_id: &str) -> Result<Option<Latest>, StoreError> {
    let sql =
        "SELECT came_at, gone_at, why FROM vehicle_session WHERE client_id = $1 ORDER BY id DESC LIMIT 1";
    tx.row(sql, &[client_id.into()], |row| {
        let gone = row.optional_time(1)?.zip(row.optional_parsed(2, "why a connection ended")?);
        Ok(Latest { came_at: row.time(0)?, gone })
    })
}

/// Forgets connections that ended before a time; at most 1,000 at a time.
pub(crate) fn forget(tx: &Tx<'_>, before: UnixMillis) -> Result<usize, StoreError> {
    tx.exec(
        "DELETE FROM vehicle_session WHERE (client_id, id) IN \
         (SELECT client_id, id FROM vehicle_session WHERE gone_at < $1 ORDER BY gone_at LIMIT 1000)",
        &[before.into()],
    )
}
