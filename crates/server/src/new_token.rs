//! Makes operators' tokens, and the first one, without which nobody could make others.

use std::io;
use std::path::Path;

use aws_lc_rs::error::Unspecified;
use data_encoding::HEXLOWER;
use farrier_protocol::{Sha256, UnixMillis};

use crate::access::Scope;
use crate::private_file::write_private;
use crate::store::audit::{self, Actor, Change};
use crate::store::tokens::{self, Token};
use crate::store::{Store, StoreError, Tx};

/// Why the first token could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirstTokenError {
    #[error("the system gave no random numbers")]
    Random,
    #[error("the token's file cannot be written")]
    File(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token that nobody can guess: 256 random bits, with a beginning by which searches for leaked secrets know it.
pub(crate) fn new_token() -> Result<String, Unspecified> {
    let mut octets = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut octets)?;
    Ok(format!("farrier_{}", HEXLOWER.encode(&octets)))
}

/// Makes a token with the scope admin and writes it to a file, unless there is one that can be used.
pub(crate) async fn ensure_an_admin(
    store: &Store,
    path: &Path,
    now: UnixMillis,
) -> Result<(), FirstTokenError> {
    let name = store.read::<_, StoreError>(move |tx| {
        Ok(match (tokens::another_admin(tx, "", now)?, tokens::by_name(tx, "first")?) {
            (true, _) => None,
            (false, None) => Some("first".to_owned()),
            (false, Some(_)) => Some(format!("start-{}", now.0)),
        })
    });
    let Some(name) = name.await? else { return Ok(()) };
    let secret = new_token().map_err(|_| FirstTokenError::Random)?;
    // The file first: a token that nobody can read would lock everybody out.
    write_private(path, &secret).map_err(FirstTokenError::File)?;
    let digest = Sha256::of(secret.as_bytes());
    let token = Token {
        name,
        scope: Scope::Admin,
        created_at: now,
        created_by: Some(Actor::server().name().to_owned()),
        expires_at: None,
        revoked_at: None,
    };
    store.write(move |tx| add(tx, &Actor::server(), &digest, &token, now)).await?;
    Ok(())
}

/// Adds a token, and says so in the audit log.
pub(crate) fn add(
    tx: &Tx<'_>,
    actor: &Actor,
    digest: &Sha256,
    token: &Token,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tokens::add(tx, digest, token)?;
    let change = Change {
        action: "token.created",
        object: format!("token/{}", token.name),
        detail: Some(format!("scope {}", token.scope.name())),
        before: None,
        after: Some(token.audited()),
    };
    audit::record(tx, actor, change, now)
}
