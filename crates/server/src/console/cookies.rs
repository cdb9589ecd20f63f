//! The console's cookies: read from a request, written for an answer.

use axum::http::{HeaderMap, HeaderValue, header};

/// The language that the visitor chose.
pub(super) const LANGUAGE: &str = "farrier-language";
/// Whether the visitor wants it light or dark.
pub(super) const THEME: &str = "farrier-theme";
/// A choice is remembered for a year, in seconds.
const REMEMBERED_S: u64 = 31_536_000;
/// For signing in with a provider, in seconds: ten minutes.
const ON_THE_WAY_S: u64 = 600;

/// The value of a cookie of the request.
pub(super) fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name).then_some(value)
    })
}

/// The cookie that says who is signed in. Over TLS no other host, and no page of plain HTTP, can set or read it.
pub(super) fn session_name(is_tls: bool) -> &'static str {
    if is_tls { "__Host-farrier" } else { "farrier-session" }
}

/// Sets the session; an empty one ends it.
pub(super) fn session(secret: &str, is_tls: bool) -> Option<HeaderValue> {
    let (name, secure) = (session_name(is_tls), if is_tls { "; Secure" } else { "" });
    let end = if secret.is_empty() { "; Max-Age=0" } else { "" };
    HeaderValue::try_from(format!("{name}={secret}; Path=/; HttpOnly; SameSite=Lax{secure}{end}")).ok()
}

/// Ties the way to a provider and back to the browser that went it.
pub(super) fn on_the_way_name(is_tls: bool) -> &'static str {
    if is_tls { "__Host-farrier-oidc" } else { "farrier-oidc" }
}

/// Sets it for as long as signing in may take; an empty one ends it.
pub(super) fn on_the_way(value: &str, is_tls: bool) -> Option<HeaderValue> {
    let (name, secure) = (on_the_way_name(is_tls), if is_tls { "; Secure" } else { "" });
    let seconds = if value.is_empty() { 0 } else { ON_THE_WAY_S };
    HeaderValue::try_from(format!(
        "{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}"
    ))
    .ok()
}

/// Remembers a choice; `value` is one of a few words.
pub(super) fn choice(name: &str, value: &str, is_tls: bool) -> Option<HeaderValue> {
    let secure = if is_tls { "; Secure" } else { "" };
    HeaderValue::try_from(format!(
        "{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={REMEMBERED_S}{secure}"
    ))
    .ok()
}
