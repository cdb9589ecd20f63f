//! Servers that share a store: which are alive, which vehicles are connected to which, whom another shall wake.
//! On SQLite there is one server, which knows all of this by itself, and nothing of it is written.

use farrier_protocol::{Binding, Thumbprint, UnixMillis};

use super::{StoreError, Tx};

/// A server that has not been seen for so long is gone, and its vehicles with it, in ms. The servers' clocks may
/// differ by some seconds.
pub(crate) const GONE_AFTER_MS: i64 = 15_000;
/// After so long nothing is kept of it, in ms.
const FORGOTTEN_AFTER_MS: i64 = 600_000;
/// The channel on which servers tell each other whom to wake.
pub(crate) const WAKE_CHANNEL: &str = "farrier_wake";
/// PostgreSQL takes less than 8,000 octets per notification.
const MOST_OCTETS: usize = 7_000;

/// Whether a server is still in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// As before.
    Kept,
    /// It was forgotten or is new; nothing is known of its vehicles.
    New,
    /// A later run of the server has taken its name.
    Lost,
}

/// Enters a server that starts. An earlier run under this name loses its place.
pub(crate) fn enter(tx: &Tx<'_>, name: &str, run: &str, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO node (name, run, seen_at) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET run = excluded.run, seen_at = excluded.seen_at",
        &[name.into(), run.into(), now.into()],
    )?;
    tx.exec("DELETE FROM presence WHERE node_name = $1", &[name.into()])?;
    Ok(())
}

/// Says that a server is alive.
pub(crate) fn is_alive(tx: &Tx<'_>, name: &str, run: &str, now: UnixMillis) -> Result<Place, StoreError> {
    let kept = tx.exec(
        "UPDATE node SET seen_at = $3 WHERE name = $1 AND run = $2",
        &[name.into(), run.into(), now.into()],
    )?;
    if kept > 0 {
        return Ok(Place::Kept);
    }
    let other = tx.row("SELECT run FROM node WHERE name = $1", &[name.into()], |row| row.text(0))?;
    if other.is_some() {
        return Ok(Place::Lost);
    }
    enter(tx, name, run, now)?;
    Ok(Place::New)
}

/// A server that stops leaves nothing behind, unless another run has its place.
pub(crate) fn leave(tx: &Tx<'_>, name: &str, run: &str) -> Result<(), StoreError> {
    let own = "SELECT 1 FROM node WHERE name = $1 AND run = $2";
    if tx.row(own, &[name.into(), run.into()], |_| Ok(()))?.is_some() {
        tx.exec("DELETE FROM presence WHERE node_name = $1", &[name.into()])?;
        tx.exec("DELETE FROM node WHERE name = $1 AND run = $2", &[name.into(), run.into()])?;
    }
    Ok(())
}

/// Forgets servers that have been gone for long, with their vehicles.
pub(crate) fn forget_gone(tx: &Tx<'_>, now: UnixMillis) -> Result<(), StoreError> {
    // One server does it; two that did would wait for each other.
    tx.lock("node")?;
    let before = UnixMillis(now.0.saturating_sub(FORGOTTEN_AFTER_MS));
    tx.exec(
        "DELETE FROM presence WHERE node_name IN (SELECT name FROM node WHERE seen_at < $1)",
        &[before.into()],
    )?;
    tx.exec("DELETE FROM node WHERE seen_at < $1", &[before.into()])?;
    Ok(())
}

/// Notes that a vehicle is connected to a server, or is not any more.
pub(crate) fn set_presence(
    tx: &Tx<'_>,
    node_name: &str,
    client_id: &str,
    is_there: bool,
) -> Result<(), StoreError> {
    let key = [client_id.into(), node_name.into()];
    let sql = if is_there {
        "INSERT INTO presence (client_id, node_name) VALUES ($1, $2) ON CONFLICT (client_id, node_name) DO NOTHING"
    } else {
        "DELETE FROM presence WHERE client_id = $1 AND node_name = $2"
    };
    tx.exec(sql, &key)?;
    Ok(())
}

/// Whether a vehicle is connected to any server that is alive; on SQLite nobody has written so.
pub(crate) fn is_present(tx: &Tx<'_>, binding: &Binding, now: UnixMillis) -> Result<bool, StoreError> {
    let alive_since = UnixMillis(now.0.saturating_sub(GONE_AFTER_MS));
    let found = tx.row(
        "SELECT 1 FROM presence p JOIN node n ON n.name = p.node_name \
         WHERE p.client_id = $1 AND n.seen_at > $2 LIMIT 1",
        &[(&binding.client_id()).into(), alive_since.into()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// How many vehicles are connected to servers that are alive.
pub(crate) fn number_present(tx: &Tx<'_>, now: UnixMillis) -> Result<u64, StoreError> {
    let alive_since = UnixMillis(now.0.saturating_sub(GONE_AFTER_MS));
    let sql = "SELECT COUNT(*) FROM presence p JOIN node n ON n.name = p.node_name WHERE n.seen_at > $1";
    Ok(tx.row(sql, &[alive_since.into()], |row| row.count(0))?.unwrap_or(0))
}

/// Tells all servers to wake these vehicles' connections, once this transaction is committed.
pub(crate) fn tell_to_wake<'a>(
    tx: &Tx<'_>,
    bindings: impl IntoIterator<Item = &'a Binding>,
) -> Result<(), StoreError> {
    let mut payload = String::new();
    let tell = |payload: &str| {
        let sql = "SELECT 1 FROM pg_notify($1, $2)";
        tx.rows(sql, &[WAKE_CHANNEL.into(), payload.into()], |_| Ok(()))
    };
    for binding in bindings {
        let line = format!("{}/{}\n", binding.vehicle_id, binding.gateway_id);
        if payload.len().saturating_add(line.len()) > MOST_OCTETS {
            tell(&payload)?;
            payload.clear();
        }
        payload.push_str(&line);
    }
    if !payload.is_empty() {
        tell(&payload)?;
    }
    Ok(())
}

/// A binding that is a vehicle's no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EarlierBinding {
    pub(crate) binding: Binding,
    /// The certificate that the vehicle is bound to now, where it was named: connections made with it stay.
    pub(crate) kept: Option<Thumbprint>,
}

/// What another server wants done about connections.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// This vehicle has new commands.
    Wake(Binding),
    /// This binding is a vehicle's no more.
    Cut(EarlierBinding),
}

/// What a line about an earlier binding begins with; no id does.
const CUT: char = '!';

/// Tells all servers to end the connections of an earlier binding, once this transaction is committed. Should a server not
/// hear it, the connection stays, and what comes by it is refused.
pub(crate) fn tell_to_cut(tx: &Tx<'_>, earlier: &EarlierBinding) -> Result<(), StoreError> {
    let EarlierBinding { binding, kept } = earlier;
    let kept = kept.as_ref().map_or("", Thumbprint::as_str);
    let line = format!("{CUT}{}/{}/{kept}", binding.vehicle_id, binding.gateway_id);
    let sql = "SELECT 1 FROM pg_notify($1, $2)";
    tx.rows(sql, &[WAKE_CHANNEL.into(), (&line).into()], |_| Ok(()))?;
    Ok(())
}

/// What a notification says; what cannot be read is left out, since the slow look finds whom to wake.
pub(crate) fn notices_of(payload: &str) -> impl Iterator<Item = Notice> + '_ {
    payload.lines().filter_map(|line| match line.strip_prefix(CUT) {
        None => Some(Notice::Wake(binding(line)?)),
        Some(earlier) => {
            let (ids, kept) = earlier.rsplit_once('/')?;
            let kept = if kept.is_empty() { None } else { Some(kept.parse().ok()?) };
            Some(Notice::Cut(EarlierBinding { binding: binding(ids)?, kept }))
        }
    })
}

fn binding(ids: &str) -> Option<Binding> {
    let (vehicle_id, gateway_id) = ids.split_once('/')?;
    Some(Binding { vehicle_id: vehicle_id.parse().ok()?, gateway_id: gateway_id.parse().ok()? })
}
