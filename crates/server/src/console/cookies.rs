//! The console's cookies: read from a request, written for an answer.

use axum::http::{HeaderMap, HeaderValue, header};

/// The language that the visitor chose.
pub(super) const LANGUAGE: &str = "farrier-language";
/// Whether the visitor wants it light or dark.
pub(super) const THEME: &str = "farrier-theme";
/// A choice is remembered for a year, in seconds.
const REMEMBERED_S: u64 = 31_536_000;

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

/// Remembers a choice; `value` is one of a few words.
pub(super) fn choice(name: &str, value: &str, is_tls: bool) -> Option<HeaderValue> {
    let secure = if is_tls { "; Secure" } else { "" };
    HeaderValue::try_from(format!(
        "{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={REMEMBERED_S}{secure}"
    ))
    .ok()
}
