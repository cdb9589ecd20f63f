//! Operators' tokens; only digests are kept. A revoked one stays, so that its name stays taken.

use farrier_protocol::{Sha256, UnixMillis};

use super::{Row, StoreError, Tx};
use crate::access::Scope;

/// A token as the store has it.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) created_at: UnixMillis,
    /// Who made it, as the audit log names it.
    pub(crate) created_by: Option<String>,
    pub(crate) expires_at: Option<UnixMillis>,
    pub(crate) revoked_at: Option<UnixMillis>,
}

impl Token {
    /// Whether it opens anything now.
    pub(crate) fn is_usable(&self, now: UnixMillis) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| expires_at > now)
    }

    /// What the audit log takes the digest of.
    pub(crate) fn audited(&self) -> serde_json::Value {
        serde_json::json!({
            "scope": self.scope, "expires_at": self.expires_at, "revoked_at": self.revoked_at,
        })
    }
}

macro_rules! select_token {
    ($rest:literal) => {
        concat!(
            "SELECT name, scope, created_at, created_by, expires_at, revoked_at FROM operator_token ",
            $rest
        )
    };
}

fn read(row: &Row<'_>) -> Result<Token, StoreError> {
    Ok(Token {
        name: row.text(0)?,
        scope: row.parsed(1, "a scope")?,
        created_at: row.time(2)?,
        created_by: row.optional_text(3)?,
        expires_at: row.optional_time(4)?,
        revoked_at: row.optional_time(5)?,
    })
}

/// Stores a token under a name that is free.
pub(crate) fn add(tx: &Tx<'_>, digest: &Sha256, token: &Token) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO operator_token (sha256, name, scope, created_at, created_by, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            (&digest.to_string()).into(),
            (&token.name).into(),
            token.scope.name().into(),
            token.created_at.into(),
            token.created_by.as_ref().into(),
            token.expires_at.into(),
        ],
    )?;
    Ok(())
}

pub(crate) fn by_digest(tx: &Tx<'_>, digest: &Sha256) -> Result<Option<Token>, StoreError> {
    tx.row(select_token!("WHERE sha256 = $1"), &[(&digest.to_string()).into()], read)
}

pub(crate) fn by_name(tx: &Tx<'_>, name: &str) -> Result<Option<Token>, StoreError> {
    tx.row(select_token!("WHERE name = $1"), &[name.into()], read)
}

/// The tokens after a name, by name.
pub(crate) fn page(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<Token>, StoreError> {
    tx.rows(
        select_token!("WHERE name > $1 ORDER BY name LIMIT $2"),
        &[after.into(), i64::from(limit).into()],
        read,
    )
}

/// Whether a token other than this one could administer now.
pub(crate) fn another_admin(tx: &Tx<'_>, except: &str, now: UnixMillis) -> Result<bool, StoreError> {
    let found = tx.row(
        "SELECT 1 FROM operator_token WHERE scope = 'admin' AND name <> $1 AND revoked_at IS NULL \
         AND (expires_at IS NULL OR expires_at > $2) LIMIT 1",
        &[except.into(), now.into()],
        |row| row.integer(0),
    )?;
    Ok(found.is_some())
}

/// From now on the token opens nothing.
pub(crate) fn revoke(tx: &Tx<'_>, name: &str, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE operator_token SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL",
        &[name.into(), now.into()],
    )?;
    Ok(())
}
