//! `/settings`: who may sign in, the operators' tokens, and how long certificates and lists are good.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::format::{Time, absolute, time, time_or_never};
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::{Console, sign_in};
use crate::access::{Permission, Scope};
use crate::api::{self, Problem};
use crate::store::audit::{self, Change};
use crate::store::console_users::{self, ConsoleUser};
use crate::store::{Tx, tokens};

/// Tokens that are shown; the list of the API has all.
const TOKENS: u32 = 200;

struct UserRow {
    name: String,
    scope: &'static str,
    created: Time,
    is_disabled: bool,
    is_me: bool,
}

struct TokenRow {
    name: String,
    scope: &'static str,
    created: Time,
    expires: Time,
    is_usable: bool,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    users: Vec<UserRow>,
    tokens: Vec<TokenRow>,
    scopes: Vec<(&'static str, &'static str)>,
    ending: Vec<(&'static str, String)>,
    /// A link that was just made, with whose it is: it cannot be shown again.
    link: Option<(String, String)>,
}

/// `GET /settings`
pub(super) async fn page(State(console): State<Console>, visitor: Visitor) -> Result<Response, Failed> {
    with_link(&console, &visitor, None).await
}

async fn with_link(
    console: &Console,
    visitor: &Visitor,
    link: Option<(String, String)>,
) -> Result<Response, Failed> {
    let (t, now, me) = (visitor.guest.language.texts(), console.api.now(), visitor.user.name.clone());
    let seen = console.api.read(move |tx| Ok((console_users::all(tx)?, tokens::page(tx, "", TOKENS)?)));
    let (users, tokens) = seen.await.map_err(|problem| visitor.failed(problem))?;
    let users = users.into_iter().map(|user| UserRow {
        scope: t.scope(user.scope.name()),
        created: time(t, user.created_at, now),
        is_disabled: user.disabled_at.is_some(),
        is_me: user.name == me,
        name: user.name,
    });
    let tokens = tokens.into_iter().map(|token| TokenRow {
        scope: t.scope(token.scope.name()),
        created: time(t, token.created_at, now),
        expires: time_or_never(t, token.expires_at, now),
        is_usable: token.is_usable(now),
        name: token.name,
    });
    let ending = console.api.vitals.ending(now).into_iter().map(|(what, at)| (what, absolute(at)));
    Ok(shown(&SettingsPage {
        frame: visitor.frame(),
        users: users.collect(),
        tokens: tokens.collect(),
        scopes: Scope::ALL.map(|scope| (scope.name(), t.scope(scope.name()))).to_vec(),
        ending: ending.collect(),
        link,
    }))
}

#[derive(Deserialize)]
pub(super) struct Invitation {
    name: String,
    scope: String,
}

/// `POST /settings/users`: makes a link by which somebody chooses their password.
pub(super) async fn invite(
    State(console): State<Console>,
    visitor: Visitor,
    Form(Invitation { name, scope }): Form<Invitation>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let failed = |problem| visitor.failed(problem);
    let name = api::name(name.trim(), "user").map_err(failed)?.to_string();
    let scope: Scope = scope.parse().map_err(|()| {
        failed(Problem::invalid(format!("scope: expected one of the list, found {scope:?}.")))
    })?;
    let (actor, user) = (visitor.caller().actor(), name.clone());
    let made = console.api.write(move |tx, _, now| {
        let known = console_users::by_name(tx, &user)?;
        let scope = known.as_ref().map_or(scope, |known| known.scope);
        let link = sign_in::new_link(tx, &actor, Some(user.clone()), scope, now)?;
        let change = Change {
            action: "user.invited",
            object: format!("user/{user}"),
            detail: Some(format!("scope {}", scope.name())),
            before: known.as_ref().map(ConsoleUser::audited),
            after: None,
        };
        audit::record(tx, &actor, change, now)?;
        Ok(link)
    });
    let link = made.await.map_err(failed)?;
    with_link(&console, &visitor, Some((name, link))).await
}

#[derive(Deserialize)]
pub(super) struct NewScope {
    scope: String,
}

/// `POST /settings/users/{name}/{what}`: `disable`, `enable`, `link`.
pub(super) async fn change(
    State(console): State<Console>,
    visitor: Visitor,
    Path((name, what)): Path<(String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let failed = |problem| visitor.failed(problem);
    let (actor, user) = (visitor.caller().actor(), name.clone());
    let changed = console.api.write(move |tx, _, now| {
        let before = found(tx, &user)?;
        let mut link = None;
        let action = match what.as_str() {
            "disable" => {
                must_leave_an_admin(tx, &before)?;
                console_users::set_disabled(tx, &user, Some(now))?;
                console_users::sign_out_everywhere(tx, &user)?;
                "user.disabled"
            }
            "enable" => {
                console_users::set_disabled(tx, &user, None)?;
                "user.enabled"
            }
            "link" => {
                link = Some(sign_in::new_link(tx, &actor, Some(user.clone()), before.scope, now)?);
                "user.link_made"
            }
            other => return Err(Problem::not_found("page", other)),
        };
        let change = Change {
            action,
            object: format!("user/{user}"),
            detail: None,
            before: Some(before.audited()),
            after: Some(found(tx, &user)?.audited()),
        };
        audit::record(tx, &actor, change, now)?;
        Ok(link)
    });
    match changed.await.map_err(failed)? {
        Some(link) => with_link(&console, &visitor, Some((name, link))).await,
        None => Ok(Redirect::to("/settings").into_response()),
    }
}

/// `POST /settings/users/{name}/scope`
pub(super) async fn set_scope(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(NewScope { scope }): Form<NewScope>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let failed = |problem| visitor.failed(problem);
    let scope: Scope = scope.parse().map_err(|()| {
        failed(Problem::invalid(format!("scope: expected one of the list, found {scope:?}.")))
    })?;
    let actor = visitor.caller().actor();
    let changed = console.api.write(move |tx, _, now| {
        let before = found(tx, &name)?;
        if scope != Scope::Admin {
            must_leave_an_admin(tx, &before)?;
        }
        console_users::set_scope(tx, &name, scope)?;
        let change = Change {
            action: "user.scope_changed",
            object: format!("user/{name}"),
            detail: Some(format!("{} to {}", before.scope.name(), scope.name())),
            before: Some(before.audited()),
            after: Some(found(tx, &name)?.audited()),
        };
        Ok(audit::record(tx, &actor, change, now)?)
    });
    changed.await.map_err(failed)?;
    Ok(Redirect::to("/settings").into_response())
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
