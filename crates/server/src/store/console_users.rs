//! People who use the console, the browsers that they are signed in with, and the links by which they set a password.

use farrier_protocol::{Sha256, UnixMillis};

use super::{Row, StoreError, Tx};
use crate::access::Scope;

/// Somebody who may sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsoleUser {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) created_at: UnixMillis,
    /// As the audit log names them.
    pub(crate) created_by: String,
    /// Since when they may not sign in any more.
    pub(crate) disabled_at: Option<UnixMillis>,
    /// The OpenID Connect provider that they sign in with, in place of a password.
    pub(crate) issuer: Option<String>,
}

impl ConsoleUser {
    /// What the audit log takes the digest of.
    pub(crate) fn audited(&self) -> serde_json::Value {
        serde_json::json!({"name": self.name, "scope": self.scope, "disabled_at": self.disabled_at, "issuer": self.issuer})
    }
}

/// A link that is good for one use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Whose password it sets; `None`: whoever uses it chooses a name.
    pub(crate) user: Option<String>,
    /// Of the user that it makes.
    pub(crate) scope: Scope,
    pub(crate) created_by: String,
    pub(crate) expires_at: UnixMillis,
}

macro_rules! select_user {
    ($rest:literal) => {
        concat!("SELECT name, scope, created_at, created_by, disabled_at, issuer FROM console_user ", $rest)
    };
}

fn read(row: &Row<'_>) -> Result<ConsoleUser, StoreError> {
    Ok(ConsoleUser {
        name: row.text(0)?,
        scope: row.parsed(1, "a scope")?,
        created_at: row.time(2)?,
        created_by: row.text(3)?,
        disabled_at: row.optional_time(4)?,
        issuer: row.optional_text(5)?,
    })
}

/// Stores a user under a name that is free.
pub(crate) fn add(tx: &Tx<'_>, user: &ConsoleUser, password: &str) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO console_user (name, scope, password, created_at, created_by) VALUES ($1, $2, $3, $4, $5)",
        &[
            (&user.name).into(),
            user.scope.name().into(),
            password.into(),
            user.created_at.into(),
            (&user.created_by).into(),
        ],
    )?;
    Ok(())
}

/// Stores somebody whom an OpenID Connect provider knows as `subject`, under a name that is free.
pub(crate) fn add_of_provider(tx: &Tx<'_>, user: &ConsoleUser, subject: &str) -> Result<(), StoreError> {
    add(tx, user, "")?;
    tx.exec(
        "UPDATE console_user SET issuer = $2, subject = $3 WHERE name = $1",
        &[(&user.name).into(), user.issuer.as_ref().into(), subject.into()],
    )?;
    Ok(())
}

/// Whom a provider knows as `subject`.
pub(crate) fn by_identity(
    tx: &Tx<'_>,
    issuer: &str,
    subject: &str,
) -> Result<Option<ConsoleUser>, StoreError> {
    tx.row(select_user!("WHERE issuer = $1 AND subject = $2"), &[issuer.into(), subject.into()], read)
}

pub(crate) fn by_name(tx: &Tx<'_>, name: &str) -> Result<Option<ConsoleUser>, StoreError> {
    tx.row(select_user!("WHERE name = $1"), &[name.into()], read)
}

/// The hash of the password of somebody who may sign in.
pub(crate) fn password_of(tx: &Tx<'_>, name: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT password FROM console_user WHERE name = $1 AND disabled_at IS NULL AND issuer IS NULL";
    tx.row(sql, &[name.into()], |row| row.text(0))
}

pub(crate) fn set_password(tx: &Tx<'_>, name: &str, password: &str) -> Result<(), StoreError> {
    tx.exec("UPDATE console_user SET password = $2 WHERE name = $1", &[name.into(), password.into()])?;
    Ok(())
}

/// From now on the user may not sign in any more, or may again.
pub(crate) fn set_disabled(tx: &Tx<'_>, name: &str, since: Option<UnixMillis>) -> Result<(), StoreError> {
    tx.exec("UPDATE console_user SET disabled_at = $2 WHERE name = $1", &[name.into(), since.into()])?;
    Ok(())
}

pub(crate) fn set_scope(tx: &Tx<'_>, name: &str, scope: Scope) -> Result<(), StoreError> {
    tx.exec("UPDATE console_user SET scope = $2 WHERE name = $1", &[name.into(), scope.name().into()])?;
    Ok(())
}

/// The users after a name, by name.
pub(crate) fn page(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<ConsoleUser>, StoreError> {
    tx.rows(
        select_user!("WHERE name > $1 ORDER BY name LIMIT $2"),
        &[after.into(), i64::from(limit).into()],
        read,
    )
}

/// How many browsers a user is signed in with.
pub(crate) fn sessions(tx: &Tx<'_>, user: &str) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) FROM console_session WHERE user_name = $1";
    Ok(tx.row(sql, &[user.into()], |row| row.count(0))?.unwrap_or(0))
}

/// Whether somebody other than this user can administer.
pub(crate) fn another_admin(tx: &Tx<'_>, except: &str) -> Result<bool, StoreError> {
    let sql =
        "SELECT 1 FROM console_user WHERE scope = 'admin' AND name <> $1 AND disabled_at IS NULL LIMIT 1";
    Ok(tx.row(sql, &[except.into()], |row| row.integer(0))?.is_some())
}

/// Signs a browser in.
pub(crate) fn sign_in(
    tx: &Tx<'_>,
    session: &Sha256,
    user: &str,
    client: Option<&String>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO console_session (sha256, user_name, created_at, seen_at, client) VALUES ($1, $2, $3, $3, $4)",
        &[(&session.to_string()).into(), user.into(), now.into(), client.into()],
    )?;
    Ok(())
}

/// Who is signed in by this, since when, and when they were last here.
pub(crate) fn by_session(
    tx: &Tx<'_>,
    session: &Sha256,
) -> Result<Option<(ConsoleUser, UnixMillis, UnixMillis)>, StoreError> {
    tx.row(
        "SELECT u.name, u.scope, u.created_at, u.created_by, u.disabled_at, u.issuer, s.created_at, s.seen_at \
         FROM console_session s JOIN console_user u ON u.name = s.user_name \
         WHERE s.sha256 = $1 AND u.disabled_at IS NULL",
        &[(&session.to_string()).into()],
        |row| Ok((read(row)?, row.time(6)?, row.time(7)?)),
    )
}

pub(crate) fn seen(tx: &Tx<'_>, session: &Sha256, now: UnixMillis) -> Result<(), StoreError> {
    let sql = "UPDATE console_session SET seen_at = $2 WHERE sha256 = $1";
    tx.exec(sql, &[(&session.to_string()).into(), now.into()])?;
    Ok(())
}

pub(crate) fn sign_out(tx: &Tx<'_>, session: &Sha256) -> Result<(), StoreError> {
    tx.exec("DELETE FROM console_session WHERE sha256 = $1", &[(&session.to_string()).into()])?;
    Ok(())
}

/// Ends all sessions of a user; gives how many there were.
pub(crate) fn sign_out_everywhere(tx: &Tx<'_>, user: &str) -> Result<usize, StoreError> {
    tx.exec("DELETE FROM console_session WHERE user_name = $1", &[user.into()])
}

/// Forgets sessions and links that open nothing any more.
pub(crate) fn forget_spent(
    tx: &Tx<'_>,
    seen_before: UnixMillis,
    created_before: UnixMillis,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tx.exec(
        "DELETE FROM console_session WHERE seen_at < $1 OR created_at < $2",
        &[seen_before.into(), created_before.into()],
    )?;
    tx.exec("DELETE FROM console_link WHERE expires_at < $1", &[now.into()])?;
    Ok(())
}

/// Stores a link; those that were made for the same user are good for nothing from now on.
pub(crate) fn add_link(tx: &Tx<'_>, digest: &Sha256, link: &Link) -> Result<(), StoreError> {
    match &link.user {
        Some(user) => tx.exec("DELETE FROM console_link WHERE user_name = $1", &[user.into()])?,
        None => tx.exec("DELETE FROM console_link WHERE user_name IS NULL", &[])?,
    };
    tx.exec(
        "INSERT INTO console_link (sha256, user_name, scope, created_by, expires_at) VALUES ($1, $2, $3, $4, $5)",
        &[
            (&digest.to_string()).into(),
            link.user.as_ref().into(),
            link.scope.name().into(),
            (&link.created_by).into(),
            link.expires_at.into(),
        ],
    )?;
    Ok(())
}

/// The links of a user are good for nothing from now on.
pub(crate) fn forget_links(tx: &Tx<'_>, user: &str) -> Result<(), StoreError> {
    tx.exec("DELETE FROM console_link WHERE user_name = $1", &[user.into()])?;
    Ok(())
}

/// A link that is still good.
pub(crate) fn link(tx: &Tx<'_>, digest: &Sha256, now: UnixMillis) -> Result<Option<Link>, StoreError> {
    tx.row(
        "SELECT user_name, scope, created_by, expires_at FROM console_link WHERE sha256 = $1 AND expires_at > $2",
        &[(&digest.to_string()).into(), now.into()],
        |row| {
            Ok(Link {
                user: row.optional_text(0)?,
                scope: row.parsed(1, "a scope")?,
                created_by: row.text(2)?,
                expires_at: row.time(3)?,
            })
        },
    )
}

/// Uses a link up; says whether nobody has before.
pub(crate) fn use_link(tx: &Tx<'_>, digest: &Sha256) -> Result<bool, StoreError> {
    Ok(tx.exec("DELETE FROM console_link WHERE sha256 = $1", &[(&digest.to_string()).into()])? > 0)
}
