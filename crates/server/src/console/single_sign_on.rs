//! Signing in with an OpenID Connect provider: it says who somebody is, and its claims what they may do here. Whoever it names is
//! a user of the console as others are, in the audit log too; only their password and their scope are the provider's.

#[cfg(not(feature = "oidc"))]
mod absent;
#[cfg(feature = "oidc")]
mod provider;
mod settings;

use std::path::PathBuf;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::Value;

#[cfg(not(feature = "oidc"))]
pub(crate) use absent::Provider;
#[cfg(feature = "oidc")]
pub(crate) use provider::Provider;
pub use settings::OidcSettings;

use super::session::{Guest, wanted};
use super::sign_in::{self, To, let_in, with_cookie};
use super::texts::filled;
use super::{Console, cookies};
use crate::access::Scope;
use crate::api::Problem;
use crate::store::audit::{self, Actor, Change};
use crate::store::console_users::{self, ConsoleUser};
use crate::store::{Tx, new_id};
use crate::tls::OutgoingTlsError;
use farrier_protocol::UnixMillis;

/// Where the provider sends people back to.
pub(super) const CALLBACK: &str = "/sign-in/oidc/callback";
/// Octets of what a provider calls somebody.
const LONGEST_SUBJECT: usize = 255;

/// Why nobody can sign in with a provider.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The client's secret.
    #[error(
        "oidc.client_secret_file: expected the client's secret in {path}; check the path and who may read it"
    )]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: std::io::Error,
    },
    /// An address that is none.
    #[error("oidc: expected addresses of the provider and of the console: {0}")]
    Address(String),
    /// Roots of the provider's certificate.
    #[error(transparent)]
    Tls(#[from] OutgoingTlsError),
    /// The HTTP library.
    #[error("oidc: the HTTP client could not be set up: {0}")]
    Client(String),
    /// This program cannot.
    #[error(
        "oidc: this program was built without OpenID Connect; build it with `cargo build --release --features oidc`"
    )]
    NotBuilt,
}

/// Why the provider did not say who somebody is; what it said is for the log only.
#[derive(Debug, thiserror::Error)]
enum ProviderError {
    #[cfg_attr(not(feature = "oidc"), expect(dead_code, reason = "only a provider cannot be reached"))]
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Refused(String),
}

/// What stays in the browser while somebody is with the provider.
struct Begun {
    /// Where the browser goes.
    address: String,
    state: String,
    nonce: String,
    /// Of PKCE (RFC 7636).
    verifier: String,
}

impl Begun {
    fn to_cookie(&self, to: &str) -> String {
        let to = if to.bytes().all(|b| b.is_ascii_hexdigit()) { to } else { "" };
        format!("{}~{}~{}~{to}", self.state, self.nonce, self.verifier)
    }

    /// With where the visitor wanted to go.
    fn of_cookie(value: &str) -> Option<(Self, String)> {
        let mut parts = value.split('~').map(str::to_owned);
        let (state, nonce, verifier, to) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some((Self { address: String::new(), state, nonce, verifier }, to))
    }
}

/// `GET /sign-in/oidc`: to the provider.
pub(super) async fn begin(
    State(console): State<Console>,
    guest: Guest,
    Query(To { to }): Query<To>,
) -> Result<Response, Response> {
    let oidc = console.oidc.as_ref().ok_or_else(|| no_provider(&guest))?;
    let begun = oidc.begin().await.map_err(|error| failed(&console, &guest, &to, &error))?;
    let response = Redirect::to(&begun.address).into_response();
    match cookies::on_the_way(&begun.to_cookie(&to), console.is_tls) {
        Some(cookie) => Ok(with_cookie(response, cookie)),
        None => Err(guest.failed(Problem::unavailable()).into_response()),
    }
}

fn no_provider(guest: &Guest) -> Response {
    guest.failed(Problem::not_found("page", "/sign-in/oidc")).into_response()
}

fn failed(console: &Console, guest: &Guest, to: &str, error: &ProviderError) -> Response {
    let t = guest.language.texts();
    let (status, text) = match error {
        ProviderError::Unreachable(_) => (StatusCode::BAD_GATEWAY, t.provider_unreachable),
        ProviderError::Refused(_) => (StatusCode::UNAUTHORIZED, t.provider_refused),
    };
    tracing::warn!(%error, client = guest.client, "Somebody could not sign in with the OpenID Connect provider.");
    sign_in::refused(console, guest, to, status, text.to_owned())
}

#[derive(Deserialize)]
pub(super) struct CameBack {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    /// Who sends them back (RFC 9207), where the provider says so.
    iss: Option<String>,
    error: Option<String>,
}

/// `GET /sign-in/oidc/callback`: back from the provider.
pub(super) async fn callback(
    State(console): State<Console>,
    guest: Guest,
    headers: HeaderMap,
    Query(back): Query<CameBack>,
) -> Result<Response, Response> {
    let oidc = console.oidc.as_ref().ok_or_else(|| no_provider(&guest))?;
    let t = guest.language.texts();
    let kept = cookies::value(&headers, cookies::on_the_way_name(console.is_tls)).and_then(Begun::of_cookie);
    let (begun, to) = match kept {
        Some((begun, to)) if !begun.state.is_empty() && begun.state == back.state => (begun, to),
        _ => {
            let text = t.provider_way_lost.to_owned();
            return Err(sign_in::refused(&console, &guest, "", StatusCode::UNAUTHORIZED, text));
        }
    };
    let from_another = back.iss.as_ref().is_some_and(|iss| *iss != oidc.settings().issuer);
    if from_another || back.error.is_some() || back.code.is_empty() {
        let error = ProviderError::Refused(format!("error {:?}, issuer {:?}", back.error, back.iss));
        return Err(failed(&console, &guest, &to, &error));
    }
    let claims = oidc.claims(back.code, &begun, console.api.now()).await;
    let claims = claims.map_err(|error| failed(&console, &guest, &to, &error))?;
    let person = Person::of(oidc.settings(), &claims).map_err(|text| {
        let text = match text {
            NotAPerson::WithoutScope => filled(t.provider_gives_no_scope, &[&oidc.settings().scope_claim]),
            NotAPerson::WithoutName => filled(t.provider_gives_no_name, &[&oidc.settings().name_claim]),
        };
        sign_in::refused(&console, &guest, &to, StatusCode::FORBIDDEN, text)
    })?;
    let name = person.name.clone();
    let met = console.api.write(move |tx, _, now| meet(tx, &person, now)).await;
    let user = match met.map_err(|problem| guest.failed(problem).into_response())? {
        Met::Known(user) => user,
        Met::Disabled => {
            let text = t.user_disabled.to_owned();
            return Err(sign_in::refused(&console, &guest, &to, StatusCode::FORBIDDEN, text));
        }
        Met::NameTaken => {
            let text = filled(t.provider_name_taken, &[&name]);
            return Err(sign_in::refused(&console, &guest, &to, StatusCode::CONFLICT, text));
        }
    };
    let let_in = let_in(&console, &guest, &user, &wanted(Some(&to))).await;
    let response = let_in.map_err(|problem| guest.failed(problem).into_response())?;
    Ok(match cookies::on_the_way("", console.is_tls) {
        Some(cookie) => with_cookie(response, cookie),
        None => response,
    })
}

/// Whom the provider names.
struct Person {
    issuer: String,
    subject: String,
    name: String,
    scope: Scope,
}

enum NotAPerson {
    WithoutScope,
    WithoutName,
}

impl Person {
    fn of(settings: &OidcSettings, claims: &Value) -> Result<Self, NotAPerson> {
        let subject = claims.get("sub").and_then(Value::as_str).filter(|sub| sub.len() <= LONGEST_SUBJECT);
        let subject = subject.ok_or(NotAPerson::WithoutName)?.to_owned();
        let scope = settings.scope_of(claims).ok_or(NotAPerson::WithoutScope)?;
        let name = settings.name_of(claims).ok_or(NotAPerson::WithoutName)?;
        Ok(Self { issuer: settings.issuer.clone(), subject, name, scope })
    }
}

enum Met {
    /// By this name.
    Known(String),
    Disabled,
    /// By somebody whom the provider does not call so.
    NameTaken,
}

/// Makes a user of whoever comes for the first time; takes over the scope that the provider gives now.
fn meet(tx: &Tx<'_>, person: &Person, now: UnixMillis) -> Result<Met, Problem> {
    let Some(before) = console_users::by_identity(tx, &person.issuer, &person.subject)? else {
        if console_users::by_name(tx, &person.name)?.is_some() {
            return Ok(Met::NameTaken);
        }
        let user = ConsoleUser {
            name: person.name.clone(),
            scope: person.scope,
            created_at: now,
            created_by: person.issuer.clone(),
            disabled_at: None,
            issuer: Some(person.issuer.clone()),
        };
        console_users::add_of_provider(tx, &user, &person.subject)?;
        noted(tx, "user.created", None, &user, now)?;
        return Ok(Met::Known(user.name));
    };
    if before.disabled_at.is_some() {
        return Ok(Met::Disabled);
    }
    if before.scope != person.scope {
        console_users::set_scope(tx, &before.name, person.scope)?;
        let after = ConsoleUser { scope: person.scope, ..before.clone() };
        noted(tx, "user.scope_changed", Some(&before), &after, now)?;
    }
    Ok(Met::Known(before.name))
}

fn noted(
    tx: &Tx<'_>,
    action: &'static str,
    before: Option<&ConsoleUser>,
    after: &ConsoleUser,
    now: UnixMillis,
) -> Result<(), Problem> {
    let change = Change {
        action,
        object: format!("user/{}", after.name),
        detail: after.issuer.as_ref().map(|issuer| format!("scope {} by {issuer}", after.scope.name())),
        before: before.map(ConsoleUser::audited),
        after: Some(after.audited()),
    };
    Ok(audit::record(tx, &Actor::user(&after.name, None, &new_id()), change, now)?)
}
