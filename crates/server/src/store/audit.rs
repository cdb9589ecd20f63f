//! The audit log's rows: appended in the transaction of the change, never changed.

use farrier_protocol::{Sha256, UnixMillis};
use serde_json::Value;

use super::{Row, StoreError, Tx, changes};
use crate::audit::{AuditEntry, AuditHead};

/// The longest text of what there was before or after that is kept for people, in octets.
const MOST_KEPT: usize = 64 * 1024;

/// Who makes a change.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    name: String,
    client: Option<String>,
    request_id: Option<String>,
}

impl Actor {
    /// The server by its own rules.
    pub(crate) fn server() -> Self {
        Self { name: "server".to_owned(), client: None, request_id: None }
    }

    /// Whoever has this token.
    pub(crate) fn token(name: &str, client: Option<String>, request_id: &str) -> Self {
        Self { name: format!("token:{name}"), client, request_id: Some(request_id.to_owned()) }
    }

    /// Somebody who has signed in to the console.
    pub(crate) fn user(name: &str, client: Option<String>, request_id: &str) -> Self {
        Self { name: format!("user:{name}"), client, request_id: Some(request_id.to_owned()) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A change that is made.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// What was done, as `campaign.started`.
    pub(crate) action: &'static str,
    /// To what, as `campaign/winter`.
    pub(crate) object: String,
    /// The change in words.
    pub(crate) detail: Option<String>,
    /// What the server held of the object.
    pub(crate) before: Option<Value>,
    /// What it holds now.
    pub(crate) after: Option<Value>,
}

/// Appends a change to the log. Whoever appends holds the log's end until the transaction is over, so this comes
/// last in a transaction.
pub(crate) fn record(tx: &Tx<'_>, actor: &Actor, change: Change, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec("UPDATE audit_head SET seq = seq + 1 WHERE only_row = 1", &[])?;
    // The row's hash is still that of the entry before.
    let head = head(tx)?;
    let (before, after) =
        (change.before.map(|value| value.to_string()), change.after.map(|value| value.to_string()));
    let digest = |text: &Option<String>| text.as_ref().map(|text| Sha256::of(text.as_bytes()));
    let mut entry = AuditEntry {
        seq: head.seq,
        at_ms: now,
        actor: actor.name.clone(),
        action: change.action.to_owned(),
        object: change.object,
        detail: change.detail,
        client: actor.client.clone(),
        request_id: actor.request_id.clone(),
        before_sha256: digest(&before),
        after_sha256: digest(&after),
        previous_sha256: head.sha256,
        sha256: Sha256::ZERO,
    };
    entry.sha256 = entry.content_sha256();
    insert(tx, &entry, kept(before.as_ref()), kept(after.as_ref()))?;
    tx.exec("UPDATE audit_head SET sha256 = $1 WHERE only_row = 1", &[(&entry.sha256.to_string()).into()])?;
    changes::audited(tx, &entry, now)
}

/// A text that is short enough to be kept for people; its digest is in the chain whatever its length.
fn kept(text: Option<&String>) -> Option<&String> {
    text.filter(|text| text.len() <= MOST_KEPT)
}

fn insert(
    tx: &Tx<'_>,
    entry: &AuditEntry,
    before_content: Option<&String>,
    after_content: Option<&String>,
) -> Result<(), StoreError> {
    let digest = |digest: &Option<Sha256>| digest.map(|digest| digest.to_string());
    let (before, after) = (digest(&entry.before_sha256), digest(&entry.after_sha256));
    tx.exec(
        "INSERT INTO audit_entry (seq, at, actor, action, object, detail, client, request_id, before_sha256, \
         after_sha256, previous_sha256, sha256, before_content, after_content) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        &[
            i64::try_from(entry.seq).unwrap_or(i64::MAX).into(),
            entry.at_ms.into(),
            (&entry.actor).into(),
            (&entry.action).into(),
            (&entry.object).into(),
            entry.detail.as_ref().into(),
            entry.client.as_ref().into(),
            entry.request_id.as_ref().into(),
            before.as_ref().into(),
            after.as_ref().into(),
            (&entry.previous_sha256.to_string()).into(),
            (&entry.sha256.to_string()).into(),
            before_content.into(),
            after_content.into(),
        ],
    )?;
    Ok(())
}

/// What the server held of an entry's object before and after, where it was kept and is what the entry's digests are of.
pub(crate) fn contents(
    tx: &Tx<'_>,
    entry: &AuditEntry,
) -> Result<(Option<String>, Option<String>), StoreError> {
    let found = tx.row(
        "SELECT before_content, after_content FROM audit_entry WHERE seq = $1",
        &[i64::try_from(entry.seq).unwrap_or(i64::MAX).into()],
        |row| Ok((row.optional_text(0)?, row.optional_text(1)?)),
    )?;
    let (before, after) = found.unwrap_or_default();
    let proven = |text: Option<String>, digest: Option<Sha256>| {
        text.filter(|text| digest == Some(Sha256::of(text.as_bytes())))
    };
    Ok((proven(before, entry.before_sha256), proven(after, entry.after_sha256)))
}

/// Where the log ends.
pub(crate) fn head(tx: &Tx<'_>) -> Result<AuditHead, StoreError> {
    let head = tx.row("SELECT seq, sha256 FROM audit_head WHERE only_row = 1", &[], |row| {
        Ok(AuditHead { seq: row.count(0)?, sha256: row.parsed(1, "a digest")? })
    })?;
    head.ok_or(StoreError::Damaged { expected: "the end of the audit log", found: "nothing".to_owned() })
}

/// Writes what is there already: proves that the store can be written.
pub(crate) fn touch(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.exec("UPDATE audit_head SET only_row = 1 WHERE only_row = 1", &[])?;
    Ok(())
}

macro_rules! select_entry {
    ($rest:literal) => {
        concat!(
            "SELECT seq, at, actor, action, object, detail, client, request_id, before_sha256, after_sha256, \
             previous_sha256, sha256 FROM audit_entry ",
            $rest
        )
    };
}

pub(super) use select_entry;

pub(super) fn read(row: &Row<'_>) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        seq: row.count(0)?,
        at_ms: row.time(1)?,
        actor: row.text(2)?,
        action: row.text(3)?,
        object: row.text(4)?,
        detail: row.optional_text(5)?,
        client: row.optional_text(6)?,
        request_id: row.optional_text(7)?,
        before_sha256: row.optional_parsed(8, "a digest")?,
        after_sha256: row.optional_parsed(9, "a digest")?,
        previous_sha256: row.parsed(10, "a digest")?,
        sha256: row.parsed(11, "a digest")?,
    })
}

/// One entry.
pub(crate) fn by_number(tx: &Tx<'_>, seq: u64) -> Result<Option<AuditEntry>, StoreError> {
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    tx.row(select_entry!("WHERE seq = $1"), &[seq.into()], read)
}

/// The entries after a number, oldest first.
pub(crate) fn page(tx: &Tx<'_>, after: u64, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    tx.rows(
        select_entry!("WHERE seq > $1 ORDER BY seq LIMIT $2"),
        &[after.into(), i64::from(limit).into()],
        read,
    )
}

/// The entries before a number, newest first.
pub(crate) fn page_back(tx: &Tx<'_>, before: Option<u64>, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    tx.rows(
        select_entry!("WHERE seq < $1 ORDER BY seq DESC LIMIT $2"),
        &[before.into(), i64::from(limit).into()],
        read,
    )
}

/// When these things were last done to an object, oldest first: no more than so many.
pub(crate) fn times_of(
    tx: &Tx<'_>,
    object: &str,
    actions: [&str; 4],
    limit: u32,
) -> Result<Vec<(String, UnixMillis)>, StoreError> {
    let [first, second, third, fourth] = actions;
    let mut times = tx.rows(
        "SELECT action, at FROM audit_entry WHERE object = $1 AND action IN ($2, $3, $4, $5) ORDER BY seq DESC LIMIT $6",
        &[object.into(), first.into(), second.into(), third.into(), fourth.into(), i64::from(limit).into()],
        |row| Ok((row.text(0)?, row.time(1)?)),
    )?;
    times.reverse();
    Ok(times)
}

/// The entries about an object up to a number, oldest first.
pub(crate) fn about(
    tx: &Tx<'_>,
    object: &str,
    up_to: u64,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    tx.rows(
        select_entry!("WHERE object = $1 AND seq <= $2 ORDER BY seq LIMIT $3"),
        &[object.into(), i64::try_from(up_to).unwrap_or(i64::MAX).into(), i64::from(limit).into()],
        read,
    )
}
