//! Finds entries of the audit log: by who, what, about what and when, newest first. A page looks at a bounded number of entries,
//! however rare what is looked for.

use farrier_protocol::UnixMillis;

use super::audit::{read, select_entry};
use super::{StoreError, Tx};
use crate::audit::AuditEntry;

/// Entries that one page looks at.
const LOOKED_AT: usize = 5_000;
/// Entries that are read at a time.
const AT_A_TIME: u32 = 500;

/// What is looked for; empty texts for anything. Where no entry has exactly this text, those are meant that begin with it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// As the log names them, or the part behind the colon.
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) object: String,
    /// From this time on.
    pub(crate) from: UnixMillis,
    /// Before this time.
    pub(crate) until: UnixMillis,
}

/// Where an entry stands in the log by time: when, and its number.
pub(crate) type AuditPlace = (UnixMillis, i64);

/// What a page of a search has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entries: Vec<AuditEntry>,
    /// Where the next page begins; none where nothing is left to look at.
    pub(crate) next: Option<AuditPlace>,
    /// Until when the log was looked through, where the page ended for that alone.
    pub(crate) looked_back_to: Option<UnixMillis>,
}

/// One text that is looked for.
struct Sought<'w> {
    text: &'w str,
    is_exact: bool,
}

impl<'w> Sought<'w> {
    fn of(tx: &Tx<'_>, sql: &'static str, text: &'w str) -> Result<Self, StoreError> {
        let is_exact = !text.is_empty() && tx.row(sql, &[text.into()], |_| Ok(()))?.is_some();
        Ok(Self { text, is_exact })
    }

    fn is_met(&self, found: &str) -> bool {
        if self.is_exact { found == self.text } else { found.starts_with(self.text) }
    }
}

/// A page of the entries that are looked for, before a place.
pub(crate) fn search(
    tx: &Tx<'_>,
    wanted: &Wanted,
    before: Option<AuditPlace>,
    limit: usize,
) -> Result<Found, StoreError> {
    let object = Sought::of(tx, "SELECT 1 FROM audit_entry WHERE object = $1 LIMIT 1", &wanted.object)?;
    let actor = Sought::of(tx, "SELECT 1 FROM audit_entry WHERE actor = $1 LIMIT 1", &wanted.actor)?;
    let action = Sought::of(tx, "SELECT 1 FROM audit_entry WHERE action = $1 LIMIT 1", &wanted.action)?;
    let (sql, driver) = if object.is_exact {
        (
            select_entry!(
                "WHERE at >= $1 AND at <= $2 AND (at < $2 OR seq < $3) AND object = $5 ORDER BY at DESC, seq DESC LIMIT $4"
            ),
            Some(object.text),
        )
    } else if actor.is_exact {
        (
            select_entry!(
                "WHERE at >= $1 AND at <= $2 AND (at < $2 OR seq < $3) AND actor = $5 ORDER BY at DESC, seq DESC LIMIT $4"
            ),
            Some(actor.text),
        )
    } else if action.is_exact {
        (
            select_entry!(
                "WHERE at >= $1 AND at <= $2 AND (at < $2 OR seq < $3) AND action = $5 ORDER BY at DESC, seq DESC LIMIT $4"
            ),
            Some(action.text),
        )
    } else {
        (
            select_entry!(
                "WHERE at >= $1 AND at <= $2 AND (at < $2 OR seq < $3) ORDER BY at DESC, seq DESC LIMIT $4"
            ),
            None,
        )
    };
    let is_meant = |entry: &AuditEntry| {
        let name = entry.actor.split_once(':').map_or(entry.actor.as_str(), |(_, name)| name);
        object.is_met(&entry.object)
            && action.is_met(&entry.action)
            && (actor.is_met(&entry.actor) || (!actor.is_exact && actor.is_met(name)))
    };
    let mut found = Found { entries: Vec::new(), next: None, looked_back_to: None };
    let (mut place, mut looked_at) = (before.unwrap_or((wanted.until, 0)), 0_usize);
    loop {
        let mut parameters =
            vec![wanted.from.into(), place.0.into(), place.1.into(), i64::from(AT_A_TIME).into()];
        parameters.extend(driver.map(super::tx::Value::from));
        let read = tx.rows(sql, &parameters, read)?;
        for entry in &read {
            if is_meant(entry) {
                if found.entries.len() >= limit {
                    found.next = Some(place);
                    return Ok(found);
                }
                found.entries.push(entry.clone());
            }
            place = (entry.at_ms, i64::try_from(entry.seq).unwrap_or(i64::MAX));
        }
        looked_at = looked_at.saturating_add(read.len());
        if read.len() < AT_A_TIME as usize {
            return Ok(found);
        }
        if looked_at >= LOOKED_AT {
            (found.next, found.looked_back_to) = (Some(place), Some(place.0));
            return Ok(found);
        }
    }
}
