//! What changed, for those who follow it: written in the transaction of the change, numbered afterwards.
//! Owns the rows and their order; leaves who is told what to the change feed and the webhooks.

use farrier_campaign::State;
use farrier_protocol::{Text, UnixMillis, VehicleId};
use serde_json::{Value, json};

use super::security_events::NewEvent;
use super::updates::VehicleUpdate;
use super::{Row, StoreError, Tx, campaigns, webhooks};
use crate::audit::AuditEntry;
use crate::change_types::ChangeTypes;

/// Changes that are kept: whoever comes back later has to read everything anew.
pub(crate) const KEPT: u64 = 100_000;
/// The interest of those who follow changes as a stream, on whichever server.
const STREAMS: &str = "streams";
/// How long a stream that was cut can be taken up again without missing a vehicle's step, in ms.
const STREAM_INTEREST_MS: i64 = 600_000;

/// Something that changed, with its place in the sequence.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) id: String,
    /// Counts from 1 without gaps.
    pub(crate) seq: u64,
    pub(crate) at: UnixMillis,
    /// As `campaign.started`.
    pub(crate) kind: String,
    pub(crate) campaign: Option<String>,
    pub(crate) vehicle_id: Option<String>,
    pub(crate) data: Value,
}

impl Change {
    /// The document that goes out.
    pub(crate) fn document(&self) -> Value {
        json!({
            "id": self.id, "type": self.kind, "sequence": self.seq, "at_ms": self.at,
            "campaign": self.campaign, "vehicle_id": self.vehicle_id, "data": self.data,
        })
    }
}

struct NewChange<'a> {
    kind: &'a str,
    campaign: Option<&'a str>,
    vehicle_id: Option<&'a str>,
    data: Value,
}

fn add(tx: &Tx<'_>, change: &NewChange<'_>, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO change (id, at, kind, campaign_name, vehicle_id, data) VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            (&super::new_id()).into(),
            now.into(),
            change.kind.into(),
            change.campaign.into(),
            change.vehicle_id.into(),
            (&change.data.to_string()).into(),
        ],
    )?;
    tx.told();
    Ok(())
}

/// A change that is in the audit log. The object is `campaign/C`, `campaign/C/vehicle/V`, `vehicle/V`, or another.
pub(super) fn audited(tx: &Tx<'_>, entry: &AuditEntry, now: UnixMillis) -> Result<(), StoreError> {
    let mut object = entry.object.split('/');
    let (campaign, vehicle_id) = match (object.next(), object.next()) {
        (Some("campaign"), campaign) => (campaign, object.nth(1)),
        (Some("vehicle"), vehicle_id) => (None, vehicle_id),
        (_, _) => (None, None),
    };
    let data = json!({
        "object": entry.object, "detail": entry.detail, "actor": entry.actor,
        "audit_head": {"seq": entry.seq, "sha256": entry.sha256},
    });
    add(tx, &NewChange { kind: &entry.action, campaign, vehicle_id, data }, now)
}

/// A vehicle update has come to another state; written only where somebody wants to know.
pub(super) fn stepped(
    tx: &Tx<'_>,
    before: &State,
    update: &VehicleUpdate,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let data = json!({
        "from": before.name(), "to": update.state.name(), "final": update.state.is_final(),
        "codes": update.state.failure_codes(), "update_id": update.attempt_id,
    });
    let written = tx.exec(
        "INSERT INTO change (id, at, kind, campaign_name, vehicle_id, data) \
         SELECT $1, CAST($2 AS BIGINT), $3, $4, $5, $6 WHERE EXISTS \
         (SELECT 1 FROM change_interest WHERE until > $2)",
        &[
            (&super::new_id()).into(),
            now.into(),
            (&format!("{}{}", ChangeTypes::STEPS, update.state.name())).into(),
            update.campaign.as_str().into(),
            update.vehicle_id.as_str().into(),
            (&data.to_string()).into(),
        ],
    )?;
    if written > 0 {
        tx.told();
    }
    Ok(())
}

/// A security event, the first time in its hour.
pub(super) fn security_event(
    tx: &Tx<'_>,
    event: &NewEvent<'_>,
    detail: &str,
    hour: i64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let data = json!({"kind": event.kind, "subject": event.subject, "detail": detail});
    let written = tx.exec(
        "INSERT INTO change (id, at, kind, vehicle_id, data) \
         SELECT $1, CAST($2 AS BIGINT), 'security.event', $3, $4 WHERE EXISTS (SELECT 1 FROM security_event \
         WHERE subject = $5 AND kind = $6 AND hour = $7 AND times = $8)",
        &[
            (&super::new_id()).into(),
            now.into(),
            event.vehicle_id.map(VehicleId::as_str).into(),
            (&data.to_string()).into(),
            event.subject.into(),
            event.kind.into(),
            hour.into(),
            i64::try_from(event.times).unwrap_or(i64::MAX).into(),
        ],
    )?;
    if written > 0 {
        tx.told();
    }
    Ok(())
}

/// Says once that all updates of a campaign are over, and again when that is so after another has begun.
pub(crate) fn finished(
    tx: &Tx<'_>,
    campaign: &Text,
    vehicles: u64,
    ended: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let name = campaign.as_str();
    if vehicles == 0 || ended < vehicles {
        tx.exec("DELETE FROM campaign_finished WHERE campaign_name = $1", &[name.into()])?;
        return Ok(());
    }
    let sql =
        "INSERT INTO campaign_finished (campaign_name) VALUES ($1) ON CONFLICT (campaign_name) DO NOTHING";
    if tx.exec(sql, &[name.into()])? == 0 {
        return Ok(());
    }
    let counts = campaigns::counts(tx, campaign)?;
    let data = json!({"vehicles": vehicles, "by_state": counts.by_state});
    add(tx, &NewChange { kind: "campaign.finished", campaign: Some(name), vehicle_id: None, data }, now)
}

/// The campaigns that have started and of which it was not said that all their updates are over.
pub(crate) fn not_finished(tx: &Tx<'_>) -> Result<Vec<Text>, StoreError> {
    tx.rows(
        "SELECT name FROM campaign WHERE started_at IS NOT NULL AND NOT EXISTS \
         (SELECT 1 FROM campaign_finished WHERE campaign_name = campaign.name) ORDER BY name",
        &[],
        |row| row.parsed(0, "a campaign name"),
    )
}

/// What numbering has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// The number of the newest change.
    pub(crate) head: u64,
    /// Changes that got their numbers.
    pub(crate) changes: usize,
    /// What webhooks are to deliver of them.
    pub(crate) deliveries: usize,
}

/// Gives the next changes their numbers, hands them to the webhooks that want them, and forgets the oldest.
pub(crate) fn number(tx: &Tx<'_>, most: u32, kept: u64, now: UnixMillis) -> Result<Numbered, StoreError> {
    tx.lock("changes")?;
    let mut seq = head(tx)?;
    let new = tx.rows(
        "SELECT id, at, kind, campaign_name, vehicle_id, data FROM change WHERE seq IS NULL ORDER BY id LIMIT $1",
        &[i64::from(most).into()],
        |row| read(row, 0),
    )?;
    if new.is_empty() {
        return Ok(Numbered { head: seq, changes: 0, deliveries: 0 });
    }
    let (mut deliveries, receivers) = (0, webhooks::enabled(tx)?);
    let changes = new.len();
    for mut change in new {
        seq = seq.saturating_add(1);
        change.seq = seq;
        tx.exec("UPDATE change SET seq = $2 WHERE id = $1", &[(&change.id).into(), number_of(seq).into()])?;
        for webhook in receivers.iter().filter(|webhook| webhook.types.take_in(&change.kind)) {
            webhooks::queue(tx, webhook, &change, now)?;
            deliveries += 1;
        }
    }
    if deliveries > 0 {
        for webhook in &receivers {
            webhooks::drop_oldest(tx, &webhook.name)?;
        }
    }
    tx.exec("UPDATE change_head SET seq = $1 WHERE only_row = 1", &[number_of(seq).into()])?;
    tx.exec("DELETE FROM change WHERE seq <= $1", &[number_of(seq.saturating_sub(kept)).into()])?;
    Ok(Numbered { head: seq, changes, deliveries })
}

fn number_of(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// The number of the newest change; 0 where there was none.
pub(crate) fn head(tx: &Tx<'_>) -> Result<u64, StoreError> {
    Ok(tx.row("SELECT seq FROM change_head WHERE only_row = 1", &[], |row| row.count(0))?.unwrap_or(0))
}

fn read(row: &Row<'_>, seq: u64) -> Result<Change, StoreError> {
    Ok(Change {
        id: row.text(0)?,
        seq,
        at: row.time(1)?,
        kind: row.text(2)?,
        campaign: row.optional_text(3)?,
        vehicle_id: row.optional_text(4)?,
        data: row.json(5, "a change")?,
    })
}

/// The changes after a number, oldest first, and the number of the newest; none where some of them are forgotten, or the
/// number is beyond the end.
pub(crate) fn page(tx: &Tx<'_>, after: u64, limit: u32) -> Result<(Option<Vec<Change>>, u64), StoreError> {
    let head = head(tx)?;
    if after >= head {
        return Ok(((after == head).then(Vec::new), head));
    }
    let changes = tx.rows(
        "SELECT id, at, kind, campaign_name, vehicle_id, data, seq FROM change WHERE seq > $1 ORDER BY seq LIMIT $2",
        &[number_of(after).into(), i64::from(limit).into()],
        |row| read(row, row.count(6)?),
    )?;
    let is_next = changes.first().is_some_and(|first| first.seq == after.saturating_add(1));
    Ok((is_next.then_some(changes), head))
}

/// Streams want to know each step for some time from now on; gives the number after which none is missing.
pub(crate) fn streams_want_steps(tx: &Tx<'_>, now: UnixMillis) -> Result<u64, StoreError> {
    let until = UnixMillis(now.0.saturating_add(STREAM_INTEREST_MS));
    tx.exec(
        "INSERT INTO change_interest (name, until, since_seq) SELECT $1, CAST($2 AS BIGINT), seq FROM change_head \
         WHERE only_row = 1 ON CONFLICT (name) DO UPDATE SET since_seq = CASE WHEN change_interest.until < $3 \
         THEN excluded.since_seq ELSE change_interest.since_seq END, until = excluded.until",
        &[STREAMS.into(), until.into(), now.into()],
    )?;
    let sql = "SELECT since_seq FROM change_interest WHERE name = $1";
    Ok(tx.row(sql, &[STREAMS.into()], |row| row.count(0))?.unwrap_or(u64::MAX))
}

/// A webhook wants to know each step, or does not any more.
pub(super) fn webhook_wants_steps(tx: &Tx<'_>, name: &str, wants: bool) -> Result<(), StoreError> {
    let name = format!("webhook/{name}");
    if wants {
        tx.exec(
            "INSERT INTO change_interest (name, until, since_seq) SELECT $1, CAST($2 AS BIGINT), seq FROM change_head \
             WHERE only_row = 1 ON CONFLICT (name) DO NOTHING",
            &[(&name).into(), i64::MAX.into()],
        )?;
    } else {
        tx.exec("DELETE FROM change_interest WHERE name = $1", &[(&name).into()])?;
    }
    Ok(())
}
