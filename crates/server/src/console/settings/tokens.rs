//! Operators' tokens, for programs: made, shown once, revoked.

use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::{News, Typed, scope, with_news};
use crate::access::Permission;
use crate::api::tokens::{self as operations, NewToken};
use crate::api::{Document, InPath};
use crate::console::Console;
use crate::console::confirm::ConfirmPage;
use crate::console::format::{Time, time, time_or_never};
use crate::console::objection::Objection;
use crate::console::page::{Failed, shown};
use crate::console::session::Visitor;
use crate::console::texts::{Texts, filled};
use crate::store::tokens;

/// Tokens that are shown; the list of the API has all.
const SHOWN: u32 = 500;
const DAY_S: u64 = 86_400;

pub(super) struct TokenRow {
    pub(super) name: String,
    pub(super) scope: &'static str,
    pub(super) created: Time,
    pub(super) created_by: String,
    pub(super) expires: Time,
    pub(super) is_usable: bool,
    pub(super) is_revoked: bool,
}

pub(super) async fn rows(console: &Console, visitor: &Visitor) -> Result<Vec<TokenRow>, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let tokens = console.api.read(|tx| Ok(tokens::page(tx, "", SHOWN)?)).await;
    let rows = tokens.map_err(|problem| visitor.failed(problem))?.into_iter().map(|token| TokenRow {
        scope: t.scope(token.scope.name()),
        created: time(t, token.created_at, now),
        expires: time_or_never(t, token.expires_at, now),
        is_usable: token.is_usable(now),
        is_revoked: token.revoked_at.is_some(),
        created_by: token.created_by.unwrap_or_default(),
        name: token.name,
    });
    Ok(rows.collect())
}

#[derive(Deserialize)]
pub(in crate::console) struct TokenForm {
    name: String,
    scope: String,
    /// For how long it is good; without it, until it is revoked.
    #[serde(default)]
    days: String,
}

/// `POST /settings/tokens`
pub(in crate::console) async fn create(
    State(console): State<Console>,
    visitor: Visitor,
    Form(form): Form<TokenForm>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let news = match made(&console, &visitor, &form).await {
        Ok(token) => News { token: Some(token), ..News::default() },
        Err(fault) => {
            let TokenForm { name, scope, days } = form;
            News { new_token: Typed { name, scope, days, fault: Some(fault) }, ..News::default() }
        }
    };
    with_news(&console, &visitor, news).await
}

async fn made(console: &Console, visitor: &Visitor, form: &TokenForm) -> Result<(String, String), Objection> {
    let t: &Texts = visitor.guest.language.texts();
    let days = match form.days.trim() {
        "" => None,
        days => Some(days.parse::<u64>().map_err(|_| Objection::from(t.expected_number))?),
    };
    let new = NewToken {
        name: form.name.trim().to_owned(),
        scope: scope(t, &form.scope)?,
        expires_in_s: days.map(|days| days.saturating_mul(DAY_S)),
    };
    let made = operations::create(State(console.api.clone()), visitor.caller(), Document(new)).await;
    let (_, made) = made.map_err(|problem| Objection::of(t, &problem))?;
    Ok((form.name.trim().to_owned(), made.0.token))
}

/// `GET /settings/tokens/{name}/revoke`: says what will happen before it happens.
pub(in crate::console) async fn confirm_revoke(
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let t = visitor.guest.language.texts();
    let (title, consequence) = (filled(t.revoke_token, &[&name]), t.will_revoke_token.to_owned());
    let page = ConfirmPage::new(visitor.frame(), title, consequence, t.revoke, "/settings".to_owned());
    Ok(shown(&ConfirmPage { is_grave: true, ..page }))
}

/// `POST /settings/tokens/{name}/revoke`
pub(in crate::console) async fn revoke(
    State(console): State<Console>,
    visitor: Visitor,
    name: InPath<String>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let revoked = operations::revoke(State(console.api), visitor.caller(), name).await;
    let _ = revoked.map_err(|problem| visitor.failed(problem))?;
    Ok(Redirect::to("/settings").into_response())
}
