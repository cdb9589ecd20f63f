//! Operators' tokens: made, listed, revoked. A token is shown once, when it is made.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_protocol::{Sha256, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::etag::Resource;
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::{Api, name};
use crate::access::Scope;
use crate::new_token::{add, new_token};
use crate::store::audit::{self, Change};
use crate::store::tokens::{self, Token};

/// The body of a new token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Names it for ever, in the list and in the audit log: 1 to 64 characters [A-Za-z0-9._-].
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub(crate) name: String,
    pub(crate) scope: Scope,
    /// After so many seconds it opens nothing any more; without it, it opens until it is revoked.
    #[schemars(range(min = 1, max = 3_153_600_000_u64))]
    pub(crate) expires_in_s: Option<u64>,
}

/// The longest life of a token that expires: a hundred years, in seconds.
const LONGEST_LIFE_S: u64 = 3_153_600_000;

/// A token as operators see it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TokenAnswer {
    name: String,
    scope: Scope,
    created_at_ms: UnixMillis,
    /// Who made it, as the audit log names them.
    created_by: Option<String>,
    expires_at_ms: Option<UnixMillis>,
    revoked_at_ms: Option<UnixMillis>,
    /// Whether it opens anything now.
    usable: bool,
}

/// A token that was just made.
#[derive(Serialize, JsonSchema)]
pub(crate) struct MadeToken {
    #[serde(flatten)]
    shown: TokenAnswer,
    /// The secret itself; the server does not keep it and cannot show it again.
    pub(crate) token: String,
}

fn shown(token: &Token, now: UnixMillis) -> TokenAnswer {
    TokenAnswer {
        name: token.name.clone(),
        scope: token.scope,
        created_at_ms: token.created_at,
        created_by: token.created_by.clone(),
        expires_at_ms: token.expires_at,
        revoked_at_ms: token.revoked_at,
        usable: token.is_usable(now),
    }
}

/// `POST /tokens`
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    let name = name(&new.name, "token")?.to_string();
    if let Some(found) = new.expires_in_s.filter(|life| !(1..=LONGEST_LIFE_S).contains(life)) {
        let detail = format!("expires_in_s: expected 1 to {LONGEST_LIFE_S}, found {found}.");
        return Err(Problem::invalid(detail));
    }
    let secret = new_token().map_err(|_| Problem::unavailable())?;
    let (digest, actor) = (Sha256::of(secret.as_bytes()), caller.actor());
    let made = api.write(move |tx, _, now| {
        if tokens::by_name(tx, &name)?.is_some() {
            let detail = format!("There is or was a token {name}; choose another name.");
            return Err(Problem::conflict("TOKEN_EXISTS", detail));
        }
        let token = Token {
            name,
            scope: new.scope,
            created_at: now,
            created_by: Some(actor.name().to_owned()),
            expires_at: new.expires_in_s.map(|life| now.plus_seconds(life)),
            revoked_at: None,
        };
        add(tx, &actor, &digest, &token, now)?;
        Ok(shown(&token, now))
    });
    let made = MadeToken { shown: made.await?, token: secret };
    Ok((StatusCode::CREATED, Json(made)))
}

/// `GET /tokens`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<TokenAnswer>>, Problem> {
    let (limit, after, now) = (query.limit()?, query.after_name()?, api.now());
    let tokens = api.read(move |tx| Ok(tokens::page(tx, &after, limit + 1)?)).await?;
    page(tokens, limit, |token| token.name.clone(), |token| Ok(shown(token, now))).map(Json)
}

/// A token as what an ETag is of.
pub(super) const TOKEN: Resource = Resource {
    lock: |tx, name| tx.lock(&format!("token {name}")),
    settled: |tx, name| Ok(tokens::by_name(tx, name)?.map(|token| token.audited())),
};

/// `GET /tokens/{name}`
pub(super) async fn show(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Json<TokenAnswer>, Problem> {
    let (name, now) = (name(&text, "token")?.to_string(), api.now());
    let found = api.read(move |tx| {
        let token = tokens::by_name(tx, &name)?;
        token.map(|token| shown(&token, now)).ok_or_else(|| Problem::not_found("token", &name))
    });
    Ok(Json(found.await?))
}

/// `POST /tokens/{name}/revoke`: revoking a revoked one changes nothing.
pub(crate) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<TokenAnswer>, Problem> {
    let (name, actor) = (name(&text, "token")?.to_string(), caller.actor());
    let revoked = api.answer(move |tx, _, now| {
        let Some(before) = tokens::by_name(tx, &name)? else {
            return Err(Problem::not_found("token", &name));
        };
        if before.revoked_at.is_some() {
            return Ok((StatusCode::OK, shown(&before, now)));
        }
        let administers = before.scope == Scope::Admin && before.is_usable(now);
        if administers && !tokens::another_admin(tx, &name, now)? {
            let detail =
                format!("{name} is the only usable token with the scope admin; make another one first.");
            return Err(Problem::conflict("LAST_ADMIN", detail));
        }
        tokens::revoke(tx, &name, now)?;
        let after = Token { revoked_at: Some(now), ..before.clone() };
        let change = Change {
            action: "token.revoked",
            object: format!("token/{name}"),
            detail: None,
            before: Some(before.audited()),
            after: Some(after.audited()),
        };
        audit::record(tx, &actor, change, now)?;
        Ok((StatusCode::OK, shown(&after, now)))
    });
    Ok(revoked.await?.1)
}
