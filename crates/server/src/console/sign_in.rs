//! Signing in and out, and the links that are good for one use.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use data_encoding::HEXLOWER;
use farrier_protocol::{Sha256, UnixMillis};
use serde::Deserialize;

use super::page::{Frame, Theme, shown, with_status};
use super::passwords::{self, SHORTEST, Wait};
use super::session::{Guest, IDLE_MS, LONGEST_MS, Visitor, wanted};
use super::texts::filled;
use super::{Console, cookies};
use crate::api::users::{new_link, secret};
use crate::api::{self, Problem};
use crate::store::audit::{self, Actor, Change};
use crate::store::console_users::{self, ConsoleUser, Link};
use crate::store::{Tx, new_id};

/// A name that is guessed at is no longer than this, in octets.
const LONGEST_NAME: usize = 64;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    /// Where to go then, as it came.
    to: String,
    name: String,
    error: Option<String>,
    /// What the provider is called that one can sign in with.
    provider: Option<String>,
}

impl SignInPage {
    fn new(console: &Console, guest: &Guest, to: &str) -> Self {
        let provider = console.oidc.as_ref().map(|oidc| oidc.settings().title.clone());
        Self { frame: guest.frame(), to: to.to_owned(), name: String::new(), error: None, provider }
    }
}

/// The page once more, with what is in the way.
pub(super) fn refused(
    console: &Console,
    guest: &Guest,
    to: &str,
    status: StatusCode,
    error: String,
) -> Response {
    with_status(status, &SignInPage { error: Some(error), ..SignInPage::new(console, guest, to) })
}

#[derive(Deserialize)]
pub(super) struct To {
    #[serde(default)]
    pub(super) to: String,
}

#[derive(Deserialize)]
pub(super) struct SignInForm {
    name: String,
    password: String,
    #[serde(default)]
    to: String,
}

/// `GET /sign-in`
pub(super) async fn page(
    State(console): State<Console>,
    guest: Guest,
    Query(To { to }): Query<To>,
) -> Response {
    shown(&SignInPage::new(&console, &guest, &to))
}

/// `POST /sign-in`
pub(super) async fn sign_in(
    State(console): State<Console>,
    guest: Guest,
    Form(form): Form<SignInForm>,
) -> Result<Response, Response> {
    let t = guest.language.texts();
    let refused = |status, error: String| {
        let page = SignInPage::new(&console, &guest, &form.to);
        with_status(status, &SignInPage { name: form.name.clone(), error: Some(error), ..page })
    };
    let short_name: String = form.name.chars().take(LONGEST_NAME).collect();
    let keys =
        [format!("name:{short_name}"), format!("from:{}", guest.client.as_deref().unwrap_or_default())];
    if let Err(Wait(seconds)) = console.passwords.may_try(&keys) {
        let minutes = seconds.div_ceil(60).to_string();
        return Err(refused(StatusCode::TOO_MANY_REQUESTS, filled(t.too_many_tries, &[&minutes])));
    }
    let asked = short_name.clone();
    let stored = console.api.read(move |tx| Ok(console_users::password_of(tx, &asked)?)).await;
    let stored = stored.map_err(|problem| guest.failed(problem).into_response())?;
    let is_long = form.password.len() > passwords::LONGEST || form.name.len() > LONGEST_NAME;
    if is_long || !console.passwords.is_right(form.password.clone(), stored).await {
        console.passwords.failed(&keys);
        tracing::warn!(
            name = short_name,
            client = guest.client,
            "Somebody could not sign in to the console."
        );
        return Err(refused(StatusCode::UNAUTHORIZED, t.wrong_password.to_owned()));
    }
    let response = let_in(&console, &guest, &short_name, &wanted(Some(&form.to))).await;
    response.map_err(|problem| guest.failed(problem).into_response())
}

/// A new session for somebody who has shown who they are.
pub(super) async fn let_in(
    console: &Console,
    guest: &Guest,
    name: &str,
    to: &str,
) -> Result<Response, Problem> {
    let secret = secret().map_err(|_| Problem::unavailable())?;
    let (session, client, user) = (Sha256::of(secret.as_bytes()), guest.client.clone(), name.to_owned());
    let signed_in = console.api.write(move |tx, _, now| {
        let since = |ms: i64| UnixMillis(now.0.saturating_sub(ms));
        console_users::forget_spent(tx, since(IDLE_MS), since(LONGEST_MS), now)?;
        console_users::sign_in(tx, &session, &user, client.as_ref(), now)?;
        let change = change("user.signed_in", &user, None);
        Ok(audit::record(tx, &Actor::user(&user, client, &new_id()), change, now)?)
    });
    signed_in.await?;
    let cookie = cookies::session(&secret, console.is_tls).ok_or_else(Problem::unavailable)?;
    Ok(with_cookie(Redirect::to(to).into_response(), cookie))
}

pub(super) fn with_cookie(mut response: Response, cookie: HeaderValue) -> Response {
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

fn change(action: &'static str, user: &str, detail: Option<String>) -> Change {
    Change { action, object: format!("user/{user}"), detail, before: None, after: None }
}

/// `POST /sign-out`
pub(super) async fn sign_out(
    State(console): State<Console>,
    visitor: Visitor,
) -> Result<Response, super::page::Failed> {
    let session = visitor.session;
    let signed_out = console.api.write(move |tx, _, _| Ok(console_users::sign_out(tx, &session)?)).await;
    signed_out.map_err(|problem| visitor.failed(problem))?;
    Ok(gone(&console))
}

/// `POST /sign-out-everywhere`
pub(super) async fn sign_out_everywhere(
    State(console): State<Console>,
    visitor: Visitor,
) -> Result<Response, super::page::Failed> {
    let (name, actor) = (visitor.user.name.clone(), visitor.caller().actor());
    let signed_out = console.api.write(move |tx, _, now| {
        let sessions = console_users::sign_out_everywhere(tx, &name)?;
        let change = change("user.signed_out_everywhere", &name, Some(format!("{sessions} session(s)")));
        Ok(audit::record(tx, &actor, change, now)?)
    });
    signed_out.await.map_err(|problem| visitor.failed(problem))?;
    Ok(gone(&console))
}

fn gone(console: &Console) -> Response {
    let response = Redirect::to("/sign-in").into_response();
    match cookies::session("", console.is_tls) {
        Some(cookie) => with_cookie(response, cookie),
        None => response,
    }
}

#[derive(Template)]
#[template(path = "welcome.html")]
struct WelcomePage {
    frame: Frame,
    /// The name that the link is for; without it one is chosen.
    user: Option<String>,
    name: String,
    shortest: usize,
    error: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct WelcomeForm {
    #[serde(default)]
    name: String,
    password: String,
    again: String,
}

/// `GET /welcome/{secret}`: shows the form; the link stays good until a password is set.
pub(super) async fn welcome(
    State(console): State<Console>,
    guest: Guest,
    Path(secret): Path<String>,
) -> Result<Response, super::page::Failed> {
    let link = found(&console, &secret).await.map_err(|problem| guest.failed(problem))?;
    let page = WelcomePage {
        frame: guest.frame(),
        user: link.user,
        name: String::new(),
        shortest: SHORTEST,
        error: None,
    };
    Ok(shown(&page))
}

async fn found(console: &Console, secret: &str) -> Result<Link, Problem> {
    let (digest, now) = (Sha256::of(secret.as_bytes()), console.api.now());
    let link = console.api.read(move |tx| Ok(console_users::link(tx, &digest, now)?)).await?;
    link.ok_or_else(Problem::spent_link)
}

/// `POST /welcome/{secret}`: sets the password, uses the link up, and signs in.
pub(super) async fn use_link(
    State(console): State<Console>,
    guest: Guest,
    Path(secret): Path<String>,
    Form(form): Form<WelcomeForm>,
) -> Result<Response, Response> {
    let failed = |problem| guest.failed(problem).into_response();
    let link = found(&console, &secret).await.map_err(failed)?;
    let t = guest.language.texts();
    let refused = |error: String| {
        let page = WelcomePage {
            frame: guest.frame(),
            user: link.user.clone(),
            name: form.name.clone(),
            shortest: SHORTEST,
            error: Some(error),
        };
        with_status(StatusCode::UNPROCESSABLE_ENTITY, &page)
    };
    let name = link.user.clone().unwrap_or_else(|| form.name.trim().to_owned());
    let name = api::name(&name, "user").map_err(|_| refused(t.bad_user_name.to_owned()))?.to_string();
    if !passwords::is_usable(&form.password) {
        return Err(refused(filled(t.password_too_short, &[&SHORTEST.to_string()])));
    }
    if form.password != form.again {
        return Err(refused(t.passwords_differ.to_owned()));
    }
    let hash = console.passwords.hash(form.password.clone()).await;
    let hash = hash.ok_or_else(|| failed(Problem::unavailable()))?;
    let (digest, user, used) = (Sha256::of(secret.as_bytes()), name.clone(), link.clone());
    let set = console.api.write(move |tx, _, now| set_password(tx, &digest, &used, &user, &hash, now));
    if !set.await.map_err(failed)? {
        return Err(refused(t.user_name_taken.to_owned()));
    }
    let_in(&console, &guest, &name, "/").await.map_err(failed)
}

/// Sets a password by a link; `false` where a new name is taken.
fn set_password(
    tx: &Tx<'_>,
    digest: &Sha256,
    link: &Link,
    name: &str,
    hash: &str,
    now: UnixMillis,
) -> Result<bool, Problem> {
    let known = console_users::by_name(tx, name)?;
    if known.is_some() && link.user.is_none() {
        return Ok(false);
    }
    if !console_users::use_link(tx, digest)? {
        return Err(Problem::spent_link());
    }
    let action = match &known {
        Some(_) => {
            console_users::set_password(tx, name, hash)?;
            console_users::sign_out_everywhere(tx, name)?;
            "user.password_set"
        }
        None => {
            let user = ConsoleUser {
                name: name.to_owned(),
                scope: link.scope,
                created_at: now,
                created_by: link.created_by.clone(),
                disabled_at: None,
                issuer: None,
            };
            console_users::add(tx, &user, hash)?;
            "user.created"
        }
    };
    let after = console_users::by_name(tx, name)?;
    let change = Change {
        before: known.as_ref().map(ConsoleUser::audited),
        after: after.as_ref().map(ConsoleUser::audited),
        ..change(action, name, Some(format!("by a link of {}", link.created_by)))
    };
    audit::record(tx, &Actor::user(name, None, &new_id()), change, now)?;
    Ok(true)
}

/// A link for the first admin of a console that has none; `None` where somebody can administer already.
pub(super) fn first_link(tx: &Tx<'_>, now: UnixMillis) -> Result<Option<String>, Problem> {
    if console_users::another_admin(tx, "")? {
        return Ok(None);
    }
    let (path, _) = new_link(tx, &Actor::server(), None, crate::access::Scope::Admin, now)?;
    Ok(Some(path))
}

#[derive(Deserialize)]
pub(super) struct Choice {
    choice: String,
    #[serde(default)]
    back: String,
}

/// `POST /language`
pub(super) async fn choose_language(
    State(console): State<Console>,
    _: Guest,
    Form(Choice { choice, back }): Form<Choice>,
) -> Response {
    let code = super::language::Language::by_code(&choice).map(super::language::Language::code);
    chosen(&console, cookies::LANGUAGE, code, &back)
}

/// `POST /theme`
pub(super) async fn choose_theme(
    State(console): State<Console>,
    _: Guest,
    Form(Choice { choice, back }): Form<Choice>,
) -> Response {
    chosen(&console, cookies::THEME, Theme::by_name(&choice).map(Theme::name), &back)
}

fn chosen(console: &Console, name: &str, value: Option<&str>, back: &str) -> Response {
    let back = wanted(Some(&HEXLOWER.encode(back.as_bytes())));
    let response = Redirect::to(&back).into_response();
    match value.and_then(|value| cookies::choice(name, value, console.is_tls)) {
        Some(cookie) => with_cookie(response, cookie),
        None => response,
    }
}
