//! Language and theme, switched in the middle of a longer form: the buttons belong to that form, so that what was typed comes with
//! them and is shown again. Which one was chosen stands in the address.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use super::language::Language;
use super::page::Theme;
use super::{Console, cookies, session};

/// A form that a page must not lose when it is switched.
#[derive(Debug, Clone)]
pub(super) struct Switch {
    /// Its id.
    pub(super) form: &'static str,
    /// Where its handler looks whether it was only switched.
    pub(super) action: String,
}

impl Switch {
    pub(super) fn of(form: &'static str, action: impl Into<String>) -> Option<Self> {
        Some(Self { form, action: action.into() })
    }
}

/// What the address of a form that was sent chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) language: Option<Language>,
    pub(super) theme: Option<Theme>,
}

impl Chosen {
    pub(super) fn of(method: &Method, uri: &Uri) -> Self {
        if method != Method::POST {
            return Self::default();
        }
        let mut chosen = Self::default();
        for (name, value) in uri.query().unwrap_or_default().split('&').filter_map(|one| one.split_once('='))
        {
            match name {
                "language" => chosen.language = Language::by_code(value),
                "theme" => chosen.theme = Theme::by_name(value),
                _ => {}
            }
        }
        chosen
    }

    pub(super) fn is_any(self) -> bool {
        self.language.is_some() || self.theme.is_some()
    }
}

/// Lets the browser remember what was chosen with a form.
pub(super) async fn remember(State(console): State<Console>, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method(), request.uri());
    let chosen = match session::comes_from_here(method, request.headers(), uri) {
        true => Chosen::of(method, uri),
        false => Chosen::default(),
    };
    let mut response = next.run(request).await;
    let cookies: [Option<HeaderValue>; 2] = [
        chosen.language.and_then(|one| cookies::choice(cookies::LANGUAGE, one.code(), console.is_tls)),
        chosen.theme.and_then(|one| cookies::choice(cookies::THEME, one.name(), console.is_tls)),
    ];
    for cookie in cookies.into_iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_form_that_is_sent_switches() {
        let chosen = |method, uri| Chosen::of(&method, &Uri::from_static(uri));
        let korean = Chosen { language: Some(Language::Korean), theme: None };
        assert_eq!(chosen(Method::POST, "/plan?language=ko"), korean);
        let dark = Chosen { language: None, theme: Some(Theme::Dark) };
        assert_eq!(chosen(Method::POST, "/plan?a=b&theme=dark"), dark);
        for (method, uri) in [
            (Method::GET, "/plan?language=ko"),
            (Method::POST, "/plan?language=xx&theme=pink"),
            (Method::POST, "/plan"),
        ] {
            assert!(!chosen(method, uri).is_any(), "{uri}");
        }
    }
}
