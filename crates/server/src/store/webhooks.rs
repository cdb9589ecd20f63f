//! Webhooks: where changes are sent, and what is still to be delivered or was.

use farrier_protocol::{LongText, Text, UnixMillis};

use super::changes::{self, Change};
use super::{Row, StoreError, Tx};
use crate::change_types::ChangeTypes;
use crate::webhooks::{Secret, Target};

/// Deliveries that wait for one webhook; of more, the oldest are dropped.
pub(crate) const MOST_WAITING: i64 = 10_000;
/// Deliveries that are over and kept, for each webhook.
const MOST_KEPT: i64 = 1_000;
/// For how long a delivery is tried, in ms.
const GIVE_UP_AFTER_MS: i64 = 24 * 60 * 60 * 1000;

/// Where changes are sent.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    pub(crate) name: Text,
    pub(crate) url: Target,
    pub(crate) types: ChangeTypes,
    pub(crate) note: Option<LongText>,
    pub(crate) secret: Secret,
    /// The secret before, and until when it signs too.
    pub(crate) earlier: Option<(Secret, UnixMillis)>,
    pub(crate) enabled: bool,
    pub(crate) disabled_because: Option<String>,
    /// Deliveries that were dropped because too many waited.
    pub(crate) dropped: u64,
    pub(crate) created_at: UnixMillis,
    pub(crate) updated_at: UnixMillis,
}

impl Webhook {
    /// What the audit log takes the digest of: nothing secret.
    pub(crate) fn audited(&self) -> serde_json::Value {
        serde_json::json!({
            "url": self.url.to_string(), "types": self.types.patterns(), "note": self.note, "enabled": self.enabled,
        })
    }
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryState {
    /// It is still tried.
    Waiting,
    /// The receiver has it.
    Delivered,
    /// It is not tried any more.
    Failed,
}

impl DeliveryState {
    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for DeliveryState {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let all = [Self::Waiting, Self::Delivered, Self::Failed];
        all.into_iter().find(|state| state.name() == name).ok_or(())
    }
}

/// One change for one webhook.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    /// Of the change: the same however often it is delivered.
    pub(crate) event_id: String,
    pub(crate) kind: String,
    pub(crate) body: String,
    pub(crate) state: DeliveryState,
    pub(crate) attempts: u64,
    pub(crate) created_at: UnixMillis,
    pub(crate) give_up_at: UnixMillis,
    pub(crate) next_at: Option<UnixMillis>,
    pub(crate) last: Option<LastAttempt>,
}

/// What the last attempt brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastAttempt {
    pub(crate) at: UnixMillis,
    pub(crate) duration_ms: u64,
    /// The HTTP status, where there was an answer.
    pub(crate) status: Option<u16>,
    /// In words.
    pub(crate) outcome: String,
    /// The beginning of the answer's body.
    pub(crate) response: Option<String>,
}

macro_rules! select_webhook {
    ($rest:literal) => {
        concat!(
            "SELECT name, url, types, note, secret, earlier_secret, earlier_until, enabled, disabled_because, dropped, \
             created_at, updated_at FROM webhook ",
            $rest
        )
    };
}

/// A secret; what is none is not shown either.
fn secret(row: &Row<'_>, column: usize) -> Result<Option<Secret>, StoreError> {
    let damaged =
        || StoreError::Damaged { expected: "a webhook's secret", found: "something else".to_owned() };
    row.optional_text(column)?.map(|text| text.parse().map_err(|()| damaged())).transpose()
}

fn read(row: &Row<'_>) -> Result<Webhook, StoreError> {
    let missing = || StoreError::Damaged { expected: "a webhook's secret", found: "no value".to_owned() };
    Ok(Webhook {
        name: row.parsed(0, "a name")?,
        url: row.parsed(1, "a webhook's address")?,
        types: row.parsed(2, "types of changes")?,
        note: row.optional_parsed(3, "a note")?,
        secret: secret(row, 4)?.ok_or_else(missing)?,
        earlier: secret(row, 5)?.zip(row.optional_time(6)?),
        enabled: row.integer(7)? != 0,
        disabled_because: row.optional_text(8)?,
        dropped: row.count(9)?,
        created_at: row.time(10)?,
        updated_at: row.time(11)?,
    })
}

pub(crate) fn by_name(tx: &Tx<'_>, name: &Text) -> Result<Option<Webhook>, StoreError> {
    tx.row(select_webhook!("WHERE name = $1"), &[name.as_str().into()], read)
}

/// The webhooks after a name, by name.
pub(crate) fn page(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<Webhook>, StoreError> {
    let parameters = [after.into(), i64::from(limit).into()];
    tx.rows(select_webhook!("WHERE name > $1 ORDER BY name LIMIT $2"), &parameters, read)
}

/// Those that are sent something; there are few.
pub(crate) fn enabled(tx: &Tx<'_>) -> Result<Vec<Webhook>, StoreError> {
    tx.rows(select_webhook!("WHERE enabled = 1 ORDER BY name"), &[], read)
}

pub(crate) fn count(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let counted = tx.row("SELECT CAST(COUNT(*) AS BIGINT) FROM webhook", &[], |row| row.count(0))?;
    Ok(counted.unwrap_or(0))
}

/// Makes a webhook, or puts it in the place of the one of this name.
pub(crate) fn put(tx: &Tx<'_>, webhook: &Webhook) -> Result<(), StoreError> {
    let (secret, until) = match &webhook.earlier {
        Some((secret, until)) => (Some(secret.shown()), Some(*until)),
        None => (None, None),
    };
    tx.exec(
        "INSERT INTO webhook (name, url, types, note, secret, earlier_secret, earlier_until, enabled, disabled_because, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (name) DO UPDATE SET \
         url = $2, types = $3, note = $4, secret = $5, earlier_secret = $6, earlier_until = $7, enabled = $8, \
         disabled_because = $9, updated_at = $11",
        &[
            webhook.name.as_str().into(),
            (&webhook.url.to_string()).into(),
            (&webhook.types.to_string()).into(),
            webhook.note.as_ref().map(LongText::as_str).into(),
            (&webhook.secret.shown()).into(),
            secret.as_ref().into(),
            until.into(),
            i64::from(webhook.enabled).into(),
            webhook.disabled_because.as_ref().into(),
            webhook.created_at.into(),
            webhook.updated_at.into(),
        ],
    )?;
    changes::webhook_wants_steps(tx, webhook.name.as_str(), webhook.enabled && webhook.types.want_steps())
}

/// Removes a webhook with all its deliveries.
pub(crate) fn delete(tx: &Tx<'_>, name: &Text) -> Result<(), StoreError> {
    tx.exec("DELETE FROM webhook_delivery WHERE webhook_name = $1", &[name.as_str().into()])?;
    tx.exec("DELETE FROM webhook WHERE name = $1", &[name.as_str().into()])?;
    changes::webhook_wants_steps(tx, name.as_str(), false)
}

/// Queues a change for a webhook.
pub(super) fn queue(
    tx: &Tx<'_>,
    webhook: &Webhook,
    change: &Change,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let body = change.document().to_string();
    insert(tx, webhook, &change.id, Some(change.seq), &change.kind, &body, now).map(drop)
}

/// Queues a change that nothing but a test of the webhook has made; gives the delivery's id.
pub(crate) fn queue_test(tx: &Tx<'_>, webhook: &Webhook, now: UnixMillis) -> Result<String, StoreError> {
    let (event_id, kind) = (super::new_id(), "webhook.test");
    let body = serde_json::json!({
        "id": event_id, "type": kind, "sequence": null, "at_ms": now, "campaign": null, "vehicle_id": null,
        "data": {"webhook": webhook.name},
    });
    insert(tx, webhook, &event_id, None, kind, &body.to_string(), now)
}

fn insert(
    tx: &Tx<'_>,
    webhook: &Webhook,
    event_id: &str,
    seq: Option<u64>,
    kind: &str,
    body: &str,
    now: UnixMillis,
) -> Result<String, StoreError> {
    let id = super::new_id();
    tx.exec(
        "INSERT INTO webhook_delivery (id, webhook_name, event_id, seq, kind, body, state, created_at, give_up_at, next_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 'waiting', $7, $8, $7)",
        &[
            (&id).into(),
            webhook.name.as_str().into(),
            event_id.into(),
            seq.map(|seq| i64::try_from(seq).unwrap_or(i64::MAX)).into(),
            kind.into(),
            body.into(),
            now.into(),
            UnixMillis(now.0.saturating_add(GIVE_UP_AFTER_MS)).into(),
        ],
    )?;
    tx.told();
    Ok(id)
}

/// Drops what waits beyond the bound, oldest first, and counts it.
pub(super) fn drop_oldest(tx: &Tx<'_>, name: &Text) -> Result<(), StoreError> {
    let dropped = tx.exec(
        "DELETE FROM webhook_delivery WHERE id IN (SELECT id FROM webhook_delivery WHERE webhook_name = $1 \
         AND state = 'waiting' ORDER BY id DESC LIMIT 1000 OFFSET $2)",
        &[name.as_str().into(), MOST_WAITING.into()],
    )?;
    if dropped > 0 {
        tracing::error!(webhook = %name, dropped, "A webhook's receiver is too slow or away: deliveries were dropped.");
        crate::measurements::webhook_dropped(dropped);
        tx.exec(
            "UPDATE webhook SET dropped = dropped + $2 WHERE name = $1",
            &[name.as_str().into(), i64::try_from(dropped).unwrap_or(i64::MAX).into()],
        )?;
    }
    Ok(())
}

macro_rules! select_delivery {
    ($rest:literal) => {
        concat!(
            "SELECT id, event_id, kind, body, state, attempts, created_at, give_up_at, next_at, tried_at, duration_ms, \
             status, outcome, response FROM webhook_delivery ",
            $rest
        )
    };
}

fn read_delivery(row: &Row<'_>) -> Result<Delivery, StoreError> {
    let last = match row.optional_time(9)? {
        None => None,
        Some(at) => Some(LastAttempt {
            at,
            duration_ms: row.count(10)?,
            status: row.optional_integer(11)?.and_then(|status| u16::try_from(status).ok()),
            outcome: row.text(12)?,
            response: row.optional_text(13)?,
        }),
    };
    Ok(Delivery {
        id: row.text(0)?,
        event_id: row.text(1)?,
        kind: row.text(2)?,
        body: row.text(3)?,
        state: row.parsed(4, "the state of a delivery")?,
        attempts: row.count(5)?,
        created_at: row.time(6)?,
        give_up_at: row.time(7)?,
        next_at: row.optional_time(8)?,
        last,
    })
}

/// A webhook's deliveries before one, newest first.
pub(crate) fn deliveries(
    tx: &Tx<'_>,
    name: &Text,
    before: &str,
    limit: u32,
) -> Result<Vec<Delivery>, StoreError> {
    let parameters = [name.as_str().into(), before.into(), i64::from(limit).into()];
    let sql = select_delivery!("WHERE webhook_name = $1 AND id < $2 ORDER BY id DESC LIMIT $3");
    tx.rows(sql, &parameters, read_delivery)
}

pub(crate) fn delivery(tx: &Tx<'_>, name: &Text, id: &str) -> Result<Option<Delivery>, StoreError> {
    let parameters = [name.as_str().into(), id.into()];
    tx.row(select_delivery!("WHERE webhook_name = $1 AND id = $2"), &parameters, read_delivery)
}

/// Tries a delivery again from the beginning, at once.
pub(crate) fn redeliver(tx: &Tx<'_>, id: &str, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE webhook_delivery SET state = 'waiting', attempts = 0, next_at = $2, give_up_at = $3 WHERE id = $1",
        &[id.into(), now.into(), UnixMillis(now.0.saturating_add(GIVE_UP_AFTER_MS)).into()],
    )?;
    tx.told();
    Ok(())
}

/// Takes deliveries of a webhook whose time has come, so that no other server does until the claim is over.
pub(crate) fn claim(
    tx: &Tx<'_>,
    name: &Text,
    most: usize,
    now: UnixMillis,
    until: UnixMillis,
) -> Result<Vec<Delivery>, StoreError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let sql = tx.one_of(
        select_delivery!(
            "WHERE webhook_name = $1 AND state = 'waiting' AND next_at <= $2 AND claimed_until <= $2 \
             ORDER BY next_at, id LIMIT $3"
        ),
        select_delivery!(
            "WHERE webhook_name = $1 AND state = 'waiting' AND next_at <= $2 AND claimed_until <= $2 \
             ORDER BY next_at, id LIMIT $3 FOR UPDATE SKIP LOCKED"
        ),
    );
    let claimed = tx.rows(sql, &[name.as_str().into(), now.into(), most.into()], read_delivery)?;
    for delivery in &claimed {
        let parameters = [(&delivery.id).into(), until.into()];
        tx.exec("UPDATE webhook_delivery SET claimed_until = $2 WHERE id = $1", &parameters)?;
    }
    Ok(claimed)
}

/// Whether a webhook has deliveries whose time has come and that nobody is at.
pub(crate) fn has_due(tx: &Tx<'_>, name: &Text, now: UnixMillis) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM webhook_delivery WHERE webhook_name = $1 AND state = 'waiting' AND next_at <= $2 \
               AND claimed_until <= $2 LIMIT 1";
    Ok(tx.row(sql, &[name.as_str().into(), now.into()], |_| Ok(()))?.is_some())
}

/// Writes what an attempt brought; the delivery is tried again at `next_at` where it waits.
pub(crate) fn attempted(
    tx: &Tx<'_>,
    id: &str,
    attempt: &LastAttempt,
    state: DeliveryState,
    next_at: Option<UnixMillis>,
) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE webhook_delivery SET state = $2, next_at = $3, claimed_until = 0, attempts = attempts + 1, tried_at = $4, \
         duration_ms = $5, status = $6, outcome = $7, response = $8 WHERE id = $1",
        &[
            id.into(),
            state.name().into(),
            next_at.into(),
            attempt.at.into(),
            i64::try_from(attempt.duration_ms).unwrap_or(i64::MAX).into(),
            attempt.status.map(i64::from).into(),
            (&attempt.outcome).into(),
            attempt.response.as_ref().into(),
        ],
    )?;
    Ok(())
}

/// Sends nothing any more to a webhook's receiver, who said so.
pub(crate) fn disable(tx: &Tx<'_>, name: &Text, because: &str, now: UnixMillis) -> Result<bool, StoreError> {
    let disabled = tx.exec(
        "UPDATE webhook SET enabled = 0, disabled_because = $2, updated_at = $3 WHERE name = $1 AND enabled = 1",
        &[name.as_str().into(), because.into(), now.into()],
    )?;
    changes::webhook_wants_steps(tx, name.as_str(), false)?;
    Ok(disabled > 0)
}

/// Forgets the oldest deliveries that are over; gives how many.
pub(crate) fn forget(tx: &Tx<'_>, name: &Text) -> Result<usize, StoreError> {
    tx.exec(
        "DELETE FROM webhook_delivery WHERE id IN (SELECT id FROM webhook_delivery WHERE webhook_name = $1 \
         AND state <> 'waiting' ORDER BY id DESC LIMIT 1000 OFFSET $2)",
        &[name.as_str().into(), MOST_KEPT.into()],
    )
}

/// Deliveries that wait, of one webhook.
pub(crate) fn waiting_of(tx: &Tx<'_>, name: &Text) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) FROM webhook_delivery WHERE webhook_name = $1 AND state = 'waiting'";
    Ok(tx.row(sql, &[name.as_str().into()], |row| row.count(0))?.unwrap_or(0))
}

/// Deliveries that wait, of all webhooks.
pub(crate) fn waiting(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM webhook_delivery WHERE state = 'waiting'";
    Ok(tx.row(sql, &[], |row| row.count(0))?.unwrap_or(0))
}

/// Webhooks whose receivers do not take what is sent: it is tried again, or the webhook was disabled for it.
pub(crate) fn failing(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) FROM webhook w WHERE w.disabled_because IS NOT NULL OR (w.enabled = 1 AND EXISTS \
               (SELECT 1 FROM webhook_delivery d WHERE d.webhook_name = w.name AND d.state = 'waiting' AND d.attempts > 0))";
    Ok(tx.row(sql, &[], |row| row.count(0))?.unwrap_or(0))
}
