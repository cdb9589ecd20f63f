//! Who looks at a page: read from the session's cookie, and from nothing else. A request that changes something must come from a
//! page of this console.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use data_encoding::HEXLOWER;
use farrier_protocol::{Sha256, UnixMillis};

use super::language::Language;
use super::page::{Failed, Frame, Theme};
use super::switch::Chosen;
use super::{Console, cookies};
use crate::access::Permission;
use crate::api::{Caller, Problem};
use crate::store::console_users::{self, ConsoleUser};
use crate::store::new_id;

/// Whoever does nothing for so long has to sign in again: 12 hours, in ms.
pub(super) const IDLE_MS: i64 = 12 * 3_600_000;
/// And everybody after so long: a week, in ms.
pub(super) const LONGEST_MS: i64 = 7 * 24 * 3_600_000;
/// That somebody is here is noted no more often than this, in ms.
const NOTED_MS: i64 = 60_000;

/// Whoever sent a request, signed in or not.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) language: Language,
    pub(super) theme: Theme,
    pub(super) client: Option<String>,
    /// The address that was asked for.
    pub(super) uri: Uri,
    /// Whether a form came only to be shown again as it is, in another language or theme.
    pub(super) only_switches: bool,
}

/// Somebody who has signed in.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) guest: Guest,
    pub(super) user: ConsoleUser,
    /// What the store finds the session by.
    pub(super) session: Sha256,
}

impl Guest {
    fn of(parts: &Parts) -> Self {
        let client = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_string());
        let chosen = Chosen::of(&parts.method, &parts.uri);
        Self {
            language: chosen.language.unwrap_or_else(|| Language::of(&parts.headers)),
            theme: chosen.theme.unwrap_or_else(|| Theme::of(&parts.headers)),
            client,
            uri: parts.uri.clone(),
            only_switches: chosen.is_any(),
        }
    }

    pub(super) fn frame(&self) -> Frame {
        Frame::of_guest(self.language, self.theme, &self.uri)
    }

    pub(super) fn failed(&self, problem: Problem) -> Failed {
        Failed { frame: Box::new(self.frame()), problem }
    }
}

impl Visitor {
    pub(super) fn frame(&self) -> Frame {
        Frame { user: Some((self.user.name.clone(), self.user.scope)), ..self.guest.frame() }
    }

    /// As the API knows whoever asks.
    pub(super) fn caller(&self) -> Caller {
        Caller::of_user(&self.user.name, self.user.scope, self.guest.client.clone(), new_id())
    }

    pub(super) fn failed(&self, problem: Problem) -> Failed {
        Failed { frame: Box::new(self.frame()), problem }
    }

    /// Refuses somebody whose scope does not reach.
    pub(super) fn must(&self, needs: Permission) -> Result<(), Failed> {
        self.may(needs).map_err(|problem| self.failed(problem))
    }

    /// The same for what is no page.
    pub(super) fn may(&self, needs: Permission) -> Result<(), Problem> {
        if self.user.scope.may(needs) {
            Ok(())
        } else {
            Err(Problem::forbidden(&self.user.name, self.user.scope, needs))
        }
    }
}

impl FromRequestParts<Console> for Guest {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Console) -> Result<Self, Response> {
        let guest = Self::of(parts);
        if comes_from_here(&parts.method, &parts.headers, &parts.uri) {
            Ok(guest)
        } else {
            Err(guest.failed(Problem::from_elsewhere()).into_response())
        }
    }
}

impl FromRequestParts<Console> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let guest = Guest::from_request_parts(parts, console).await?;
        let secret = cookies::value(&parts.headers, cookies::session_name(console.is_tls));
        let Some(session) = secret.map(|secret| Sha256::of(secret.as_bytes())) else {
            return Err(to_sign_in(&guest, &parts.headers));
        };
        let now = console.api.now();
        let found = console.api.read(move |tx| Ok(console_users::by_session(tx, &session)?)).await;
        let found = found.map_err(|problem| guest.failed(problem).into_response())?;
        let is_fresh = |created: UnixMillis, seen: UnixMillis| {
            now.0.saturating_sub(seen.0) < IDLE_MS && now.0.saturating_sub(created.0) < LONGEST_MS
        };
        let Some((user, _, seen_at)) = found.filter(|(_, created, seen)| is_fresh(*created, *seen)) else {
            return Err(to_sign_in(&guest, &parts.headers));
        };
        if now.0.saturating_sub(seen_at.0) >= NOTED_MS {
            let noted =
                console.api.write(move |tx, _, now| Ok(console_users::seen(tx, &session, now)?)).await;
            noted.map_err(|problem| guest.failed(problem).into_response())?;
        }
        Ok(Self { guest, user, session })
    }
}

/// A page sends whoever is not signed in to the door, and back afterwards; a part of a page cannot.
fn to_sign_in(guest: &Guest, headers: &HeaderMap) -> Response {
    if headers.contains_key("hx-request") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let wanted = guest.uri.path_and_query().map_or("/", |wanted| wanted.as_str());
    match wanted {
        "/" => Redirect::to("/sign-in").into_response(),
        wanted => {
            let to = HEXLOWER.encode(wanted.as_bytes());
            Redirect::to(&format!("/sign-in?to={to}")).into_response()
        }
    }
}

/// Where a visitor wanted to go: an address of this console, whatever is given.
pub(super) fn wanted(to: Option<&str>) -> String {
    let decoded = to.and_then(|to| HEXLOWER.decode(to.as_bytes()).ok());
    let wanted = decoded.and_then(|octets| String::from_utf8(octets).ok());
    let is_here = |path: &String| {
        path.starts_with('/')
            && !path.starts_with("//")
            && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
    };
    wanted.filter(is_here).unwrap_or_else(|| "/".to_owned())
}

/// What only reads may come from anywhere. What changes something comes from a page of this console, or is refused: browsers
/// say where it comes from by Sec-Fetch-Site, older ones by Origin.
pub(super) fn comes_from_here(method: &Method, headers: &HeaderMap, uri: &Uri) -> bool {
    if method == Method::GET || method == Method::HEAD {
        return true;
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text("sec-fetch-site"), text(header::ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text("host"));
            let said = origin.split_once("://").map(|(_, host)| host);
            said.is_some() && said == host
        }
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_must_come_from_a_page_of_this_console() {
        let comes = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            comes_from_here(&Method::POST, &headers.collect(), &Uri::from_static("/sign-out"))
        };
        assert!(comes(&[("sec-fetch-site", "same-origin")]));
        assert!(comes(&[("host", "ota:8080"), ("origin", "https://ota:8080")]));
        assert!(!comes(&[("sec-fetch-site", "cross-site")]));
        assert!(!comes(&[("sec-fetch-site", "same-site"), ("host", "ota"), ("origin", "https://ota")]));
        assert!(!comes(&[("host", "ota:8080"), ("origin", "https://evil")]));
        assert!(!comes(&[("host", "ota:8080"), ("origin", "null")]));
        assert!(!comes(&[("host", "ota:8080")]));
        assert!(comes_from_here(&Method::GET, &HeaderMap::new(), &Uri::from_static("/")));
    }

    #[test]
    fn after_signing_in_nobody_is_led_elsewhere() {
        let to = |path: &str| wanted(Some(&HEXLOWER.encode(path.as_bytes())));
        assert_eq!(to("/campaigns/winter?state=failed"), "/campaigns/winter?state=failed");
        for elsewhere in ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb", ""] {
            assert_eq!(to(elsewhere), "/");
        }
        assert_eq!((wanted(None), wanted(Some("zz"))), ("/".to_owned(), "/".to_owned()));
    }
}
