//! Who may sign in to the console: invited, given another scope, signed out, disabled. A user's name stays taken for ever, as the
//! audit log names it; passwords are chosen by a link that is good for one use, and never seen here.

use aws_lc_rs::error::Unspecified;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use data_encoding::HEXLOWER;
use farrier_protocol::{Sha256, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::etag::Resource;
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::{Api, name};
use crate::access::Scope;
use crate::store::Tx;
use crate::store::audit::{self, Actor, Change};
use crate::store::console_users::{self, ConsoleUser, Link};

/// How long the link of the first admin is good, in ms: an hour.
const FIRST_LINK_MS: i64 = 3_600_000;
/// And one that an admin makes: two days, for it is sent to somebody.
const LINK_MS: i64 = 2 * 24 * 3_600_000;

/// The body of an invitation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invitation {
    /// 1 to 64 characters [A-Za-z0-9._-].
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub(crate) name: String,
    /// Of the user that is made; one that is there already keeps its own.
    pub(crate) scope: Scope,
}

/// The body of a change of scope.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewScope {
    pub(crate) scope: Scope,
}

/// A user of the console as operators see it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UserAnswer {
    name: String,
    scope: Scope,
    created_at_ms: UnixMillis,
    /// Who let them in, as the audit log names them.
    created_by: String,
    /// Since when they may not sign in any more.
    disabled_at_ms: Option<UnixMillis>,
    /// Browsers that are signed in.
    sessions: u64,
}

/// A link that was just made.
#[derive(Serialize, JsonSchema)]
pub(crate) struct MadeLink {
    pub(crate) name: String,
    scope: Scope,
    /// To be opened at the console's address; whoever has it chooses the password, once.
    pub(crate) path: String,
    expires_at_ms: UnixMillis,
}

fn shown(tx: &Tx<'_>, user: &ConsoleUser) -> Result<UserAnswer, Problem> {
    Ok(UserAnswer {
        name: user.name.clone(),
        scope: user.scope,
        created_at_ms: user.created_at,
        created_by: user.created_by.clone(),
        disabled_at_ms: user.disabled_at,
        sessions: console_users::sessions(tx, &user.name)?,
    })
}

fn found(tx: &Tx<'_>, name: &str) -> Result<ConsoleUser, Problem> {
    console_users::by_name(tx, name)?.ok_or_else(|| Problem::not_found("user", name))
}

fn must_leave_an_admin(tx: &Tx<'_>, user: &ConsoleUser) -> Result<(), Problem> {
    if user.scope == Scope::Admin && !console_users::another_admin(tx, &user.name)? {
        let detail = format!("{} is the only user who can administer; make another one first.", user.name);
        return Err(Problem::conflict("LAST_ADMIN", detail));
    }
    Ok(())
}

/// A secret of 256 bits.
pub(crate) fn secret() -> Result<String, Unspecified> {
    let mut octets = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut octets)?;
    Ok(HEXLOWER.encode(&octets))
}

/// Makes a link; its path nobody can find out again.
pub(crate) fn new_link(
    tx: &Tx<'_>,
    actor: &Actor,
    user: Option<String>,
    scope: Scope,
    now: UnixMillis,
) -> Result<(String, UnixMillis), Problem> {
    let known = user.as_deref().map(|user| console_users::by_name(tx, user)).transpose()?.flatten();
    if let Some(ConsoleUser { name, issuer: Some(issuer), .. }) = known {
        let detail = format!("{name} signs in with {issuer}, and has no password here; change it there.");
        return Err(Problem::conflict("SINGLE_SIGN_ON", detail));
    }
    let secret = secret().map_err(|_| Problem::unavailable())?;
    let good_for = if user.is_some() { LINK_MS } else { FIRST_LINK_MS };
    let expires_at = UnixMillis(now.0.saturating_add(good_for));
    let link = Link { user, scope, created_by: actor.name().to_owned(), expires_at };
    console_users::add_link(tx, &Sha256::of(secret.as_bytes()), &link)?;
    Ok((format!("/welcome/{secret}"), expires_at))
}

/// A user as what an ETag is of.
pub(super) const USER: Resource = Resource {
    lock: |tx, name| tx.lock(&format!("user {name}")),
    settled: |tx, name| Ok(console_users::by_name(tx, name)?.map(|user| user.audited())),
};

/// `GET /users`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<UserAnswer>>, Problem> {
    let (limit, after) = (query.limit()?, query.after_name()?);
    let listed = api.read(move |tx| {
        let users = console_users::page(tx, &after, limit + 1)?;
        page(users, limit, |user| user.name.clone(), |user| shown(tx, user))
    });
    Ok(Json(listed.await?))
}

/// `POST /users`: makes a link by which somebody chooses a password; one that was made before is good for nothing then.
pub(crate) async fn invite(
    State(api): State<Api>,
    caller: Caller,
    Document(Invitation { name: text, scope }): Document<Invitation>,
) -> Result<(StatusCode, Json<MadeLink>), Problem> {
    let (user, actor) = (name(&text, "user")?.to_string(), caller.actor());
    let made = api.write(move |tx, _, now| {
        let known = console_users::by_name(tx, &user)?;
        let scope = known.as_ref().map_or(scope, |known| known.scope);
        let (path, expires_at_ms) = new_link(tx, &actor, Some(user.clone()), scope, now)?;
        let change = Change {
            action: "user.invited",
            object: format!("user/{user}"),
            detail: Some(format!("scope {}", scope.name())),
            before: known.as_ref().map(ConsoleUser::audited),
            after: None,
        };
        audit::record(tx, &actor, change, now)?;
        Ok(MadeLink { name: user, scope, path, expires_at_ms })
    });
    Ok((StatusCode::CREATED, Json(made.await?)))
}

/// Changes a user who is there, and says so in the audit log unless nothing is another afterwards.
async fn change(
    api: Api,
    caller: Caller,
    text: String,
    action: &'static str,
    job: impl FnOnce(&Tx<'_>, &ConsoleUser, UnixMillis) -> Result<Option<String>, Problem> + Send + 'static,
) -> Result<Json<UserAnswer>, Problem> {
    let (user, actor) = (name(&text, "user")?.to_string(), caller.actor());
    let changed = api.answer(move |tx, _, now| {
        let before = found(tx, &user)?;
        let detail = job(tx, &before, now)?;
        let after = found(tx, &user)?;
        if before != after || detail.is_some() {
            let change = Change {
                action,
                object: format!("user/{user}"),
                detail,
                before: Some(before.audited()),
                after: Some(after.audited()),
            };
            audit::record(tx, &actor, change, now)?;
        }
        Ok((StatusCode::OK, shown(tx, &after)?))
    });
    Ok(changed.await?.1)
}

/// `POST /users/{name}/scope`
pub(crate) async fn set_scope(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(NewScope { scope }): Document<NewScope>,
) -> Result<Json<UserAnswer>, Problem> {
    let job = move |tx: &Tx<'_>, before: &ConsoleUser, _| {
        if scope == before.scope {
            return Ok(None);
        }
        if scope != Scope::Admin {
            must_leave_an_admin(tx, before)?;
        }
        console_users::set_scope(tx, &before.name, scope)?;
        Ok(Some(format!("{} to {}", before.scope.name(), scope.name())))
    };
    change(api, caller, text, "user.scope_changed", job).await
}

/// `POST /users/{name}/sign-out`: ends all sessions of a user.
pub(crate) async fn sign_out(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<UserAnswer>, Problem> {
    let job = |tx: &Tx<'_>, user: &ConsoleUser, _| {
        let sessions = console_users::sign_out_everywhere(tx, &user.name)?;
        Ok(Some(format!("{sessions} session(s)")))
    };
    change(api, caller, text, "user.signed_out_everywhere", job).await
}

/// `POST /users/{name}/disable`: the user is out at once, and their links are good for nothing.
pub(crate) async fn disable(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<UserAnswer>, Problem> {
    let job = |tx: &Tx<'_>, user: &ConsoleUser, now| {
        if user.disabled_at.is_none() {
            must_leave_an_admin(tx, user)?;
            console_users::set_disabled(tx, &user.name, Some(now))?;
        }
        console_users::sign_out_everywhere(tx, &user.name)?;
        console_users::forget_links(tx, &user.name)?;
        Ok(None)
    };
    change(api, caller, text, "user.disabled", job).await
}

/// `POST /users/{name}/enable`
pub(crate) async fn enable(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<UserAnswer>, Problem> {
    let job = |tx: &Tx<'_>, user: &ConsoleUser, _| {
        console_users::set_disabled(tx, &user.name, None)?;
        Ok(None)
    };
    change(api, caller, text, "user.enabled", job).await
}
