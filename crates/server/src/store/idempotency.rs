//! What was asked under an operator's key, so that a request which is sent again does nothing again.

use farrier_protocol::{Sha256, UnixMillis};

use super::{StoreError, Tx};

/// How long a key is remembered, in ms: a day.
const REMEMBERED_MS: i64 = 24 * 60 * 60 * 1000;
/// Keys of one token that are remembered at a time.
const MOST_OF_A_TOKEN: i64 = 10_000;

/// A key as a client gave it; it stands for one request of its token.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// The name of the token that it came with.
    pub(crate) token: String,
    pub(crate) given: String,
    /// Of everything that makes the request what it is.
    pub(crate) fingerprint: Sha256,
}

/// What was asked under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) fingerprint: Sha256,
    /// Status and JSON; absent where it may not be kept, or is not there yet.
    pub(crate) answer: Option<(u16, String)>,
}

/// What became of a key that was to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Now,
    /// Another request had it before.
    Before,
    /// The token has as many as it may.
    TooMany,
}

fn oldest(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(REMEMBERED_MS))
}

/// What was asked under a key, if it is still remembered.
pub(crate) fn asked(tx: &Tx<'_>, key: &Key, now: UnixMillis) -> Result<Option<Asked>, StoreError> {
    tx.row(
        "SELECT fingerprint, status, answer FROM idempotency_key WHERE token = $1 AND given = $2 AND at > $3",
        &[(&key.token).into(), (&key.given).into(), oldest(now).into()],
        |row| {
            let status = row.optional_integer(1)?.and_then(|status| u16::try_from(status).ok());
            let answer = status.zip(row.optional_text(2)?);
            Ok(Asked { fingerprint: row.parsed(0, "a digest")?, answer })
        },
    )
}

/// Takes a key in the transaction that does what was asked.
pub(crate) fn take(tx: &Tx<'_>, key: &Key, now: UnixMillis) -> Result<Taken, StoreError> {
    tx.exec(
        "DELETE FROM idempotency_key WHERE token = $1 AND given = $2 AND at <= $3",
        &[(&key.token).into(), (&key.given).into(), oldest(now).into()],
    )?;
    let of_token = tx.row(
        "SELECT COUNT(*) FROM (SELECT 1 FROM idempotency_key WHERE token = $1 LIMIT $2) AS some_of_them",
        &[(&key.token).into(), MOST_OF_A_TOKEN.into()],
        |row| row.integer(0),
    )?;
    if of_token.unwrap_or(0) >= MOST_OF_A_TOKEN {
        return Ok(Taken::TooMany);
    }
    // A transaction that has taken the same key and is not over is waited for.
    let inserted = tx.exec(
        "INSERT INTO idempotency_key (token, given, fingerprint, at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (token, given) DO NOTHING",
        &[(&key.token).into(), (&key.given).into(), (&key.fingerprint.to_string()).into(), now.into()],
    )?;
    Ok(if inserted == 1 { Taken::Now } else { Taken::Before })
}

/// Keeps the answer to what was asked under a key that was taken.
pub(crate) fn keep(tx: &Tx<'_>, key: &Key, status: u16, answer: &str) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE idempotency_key SET status = $3, answer = $4 WHERE token = $1 AND given = $2",
        &[(&key.token).into(), (&key.given).into(), i64::from(status).into(), answer.into()],
    )?;
    Ok(())
}

/// Forgets keys that are not remembered any more, some of them at a time; gives how many.
pub(crate) fn forget(tx: &Tx<'_>, now: UnixMillis) -> Result<usize, StoreError> {
    tx.exec(
        "DELETE FROM idempotency_key WHERE (token, given) IN \
         (SELECT token, given FROM idempotency_key WHERE at <= $1 ORDER BY at LIMIT 1000)",
        &[oldest(now).into()],
    )
}
