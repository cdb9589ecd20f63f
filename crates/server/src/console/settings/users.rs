//! Users of the console, by the API's operations.

use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::{News, Typed, scope, with_news};
use crate::access::Permission;
use crate::api::users::{self as operations, Invitation};
use crate::api::{Document, InPath, Problem};
use crate::console::Console;
use crate::console::format::{Time, time};
use crate::console::objection::Objection;
use crate::console::page::Failed;
use crate::console::session::Visitor;
use crate::store::console_users;

/// Users that are shown; the list of the API has all.
const SHOWN: u32 = 500;

pub(super) struct UserRow {
    pub(super) name: String,
    pub(super) scope: &'static str,
    pub(super) created: Time,
    pub(super) created_by: String,
    pub(super) sessions: u64,
    pub(super) is_disabled: bool,
    pub(super) is_me: bool,
}

pub(super) async fn rows(console: &Console, visitor: &Visitor) -> Result<Vec<UserRow>, Failed> {
    let (t, now, me) = (visitor.guest.language.texts(), console.api.now(), visitor.user.name.clone());
    let rows = console.api.read(move |tx| {
        let mut rows = Vec::new();
        for user in console_users::page(tx, "", SHOWN)? {
            rows.push(UserRow {
                scope: t.scope(user.scope.name()),
                created: time(t, user.created_at, now),
                created_by: user.created_by,
                sessions: console_users::sessions(tx, &user.name)?,
                is_disabled: user.disabled_at.is_some(),
                is_me: user.name == me,
                name: user.name,
            });
        }
        Ok(rows)
    });
    rows.await.map_err(|problem| visitor.failed(problem))
}

#[derive(Deserialize)]
pub(in crate::console) struct InviteForm {
    name: String,
    scope: String,
}

/// `POST /settings/users`: makes a link by which somebody chooses their password.
pub(in crate::console) async fn invite(
    State(console): State<Console>,
    visitor: Visitor,
    Form(form): Form<InviteForm>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let news = match invited(&console, &visitor, form.name.trim().to_owned(), &form.scope).await {
        Ok(link) => News { link: Some(link), ..News::default() },
        Err(problem) => {
            let fault = Some(Objection::of(visitor.guest.language.texts(), &problem));
            let typed = Typed { name: form.name, scope: form.scope, fault, ..Typed::default() };
            News { user: typed, ..News::default() }
        }
    };
    with_news(&console, &visitor, news).await
}

async fn invited(
    console: &Console,
    visitor: &Visitor,
    name: String,
    scope_name: &str,
) -> Result<(String, String), Problem> {
    let scope = scope(visitor.guest.language.texts(), scope_name);
    let scope = scope.map_err(|what| Problem::invalid(what).localised())?;
    let invitation = Invitation { name, scope };
    let made = operations::invite(State(console.api.clone()), visitor.caller(), Document(invitation));
    let (_, made) = made.await?;
    Ok((made.0.name, made.0.path))
}

/// `POST /settings/users/{name}/{what}`: `disable`, `enable`, `sign-out`, `link`.
pub(in crate::console) async fn change(
    State(console): State<Console>,
    visitor: Visitor,
    Path((name, what)): Path<(String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let failed = |problem| visitor.failed(problem);
    let (api, caller, user) = (State(console.api.clone()), visitor.caller(), InPath(name.clone()));
    let changed = match what.as_str() {
        "disable" => operations::disable(api, caller, user).await,
        "enable" => operations::enable(api, caller, user).await,
        "sign-out" => operations::sign_out(api, caller, user).await,
        "link" => {
            // Whoever is there keeps their scope.
            let link = invited(&console, &visitor, name, visitor.user.scope.name()).await;
            let link = link.map_err(failed)?;
            return with_news(&console, &visitor, News { link: Some(link), ..News::default() }).await;
        }
        other => Err(Problem::not_found("page", other)),
    };
    let _ = changed.map_err(failed)?;
    Ok(Redirect::to("/settings").into_response())
}

#[derive(Deserialize)]
pub(in crate::console) struct ScopeForm {
    scope: String,
}

/// `POST /settings/users/{name}/scope`
pub(in crate::console) async fn set_scope(
    State(console): State<Console>,
    visitor: Visitor,
    user: InPath<String>,
    Form(form): Form<ScopeForm>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let failed = |problem| visitor.failed(problem);
    let new = scope(visitor.guest.language.texts(), &form.scope);
    let new = new.map_err(|what| failed(Problem::invalid(what).localised()))?;
    let body = Document(operations::NewScope { scope: new });
    let _ = operations::set_scope(State(console.api), visitor.caller(), user, body).await.map_err(failed)?;
    Ok(Redirect::to("/settings").into_response())
}
