//! Numbers about the whole fleet, for those who watch it; each is read from an index.

use std::collections::BTreeMap;

use farrier_protocol::UnixMillis;

use super::{StoreError, Tx, campaigns};

/// How much there is of everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) vehicles: u64,
    pub(crate) updates_by_state: BTreeMap<String, u64>,
    /// Commands that are neither delivered nor expired.
    pub(crate) outbox: u64,
    /// Since when the oldest of them could have gone out.
    pub(crate) outbox_oldest: Option<UnixMillis>,
    /// Vehicle updates whose time has come.
    pub(crate) due: u64,
}

/// How many vehicles are enrolled.
pub(crate) fn vehicles(tx: &Tx<'_>) -> Result<u64, StoreError> {
    Ok(tx.row("SELECT COUNT(*) FROM vehicle", &[], |row| row.count(0))?.unwrap_or(0))
}

/// How many of them are quarantined for a boot loop.
pub(crate) fn quarantined(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) FROM vehicle WHERE quarantined_at IS NOT NULL";
    Ok(tx.row(sql, &[], |row| row.count(0))?.unwrap_or(0))
}

pub(crate) fn counts(tx: &Tx<'_>, now: UnixMillis) -> Result<Counts, StoreError> {
    let count = |sql, parameters: &[super::tx::Value<'_>]| {
        Ok::<_, StoreError>(tx.row(sql, parameters, |row| row.count(0))?.unwrap_or(0))
    };
    let by_state = campaigns::counts_of_all(tx)?;
    let outbox = tx.row(
        "SELECT COUNT(*), MIN(send_at) FROM command \
         WHERE delivered_at IS NULL AND closed_at IS NULL AND send_at <= $1 AND expires_at > $1",
        &[now.into()],
        |row| Ok((row.count(0)?, row.optional_time(1)?)),
    )?;
    let (outbox, outbox_oldest) = outbox.unwrap_or((0, None));
    Ok(Counts {
        vehicles: vehicles(tx)?,
        updates_by_state: by_state,
        outbox,
        outbox_oldest,
        due: count("SELECT COUNT(*) FROM vehicle_update WHERE due_at <= $1", &[now.into()])?,
    })
}
