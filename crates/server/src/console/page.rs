//! What all pages share: frame, language, theme, and how one goes out.

use askama::Template;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::cookies::{self, THEME};
use super::language::Language;
use super::objection::Objection;
use super::switch::Switch;
use super::texts::Texts;
use crate::access::{Permission, Scope};
use crate::api::Problem;

/// Nothing from elsewhere, nothing inline.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    /// As the system says.
    System,
    Light,
    Dark,
}

impl Theme {
    pub(super) const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    pub(super) fn of(headers: &HeaderMap) -> Self {
        cookies::value(headers, THEME).and_then(Self::by_name).unwrap_or(Self::System)
    }

    pub(super) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub(super) fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::System => t.theme_system,
            Self::Light => t.theme_light,
            Self::Dark => t.theme_dark,
        }
    }
}

/// What a page belongs to, for the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Fleet,
    Campaigns,
    Vehicles,
    Releases,
    Evidence,
    Audit,
    Security,
    Refused,
    Settings,
}

impl Section {
    pub(super) const ALL: [Self; 9] = [
        Self::Fleet,
        Self::Campaigns,
        Self::Vehicles,
        Self::Releases,
        Self::Evidence,
        Self::Audit,
        Self::Security,
        Self::Refused,
        Self::Settings,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Fleet => "/",
            Self::Campaigns => "/campaigns",
            Self::Vehicles => "/vehicles",
            Self::Releases => "/releases",
            Self::Evidence => "/evidence",
            Self::Audit => "/audit",
            Self::Security => "/security-events",
            Self::Refused => "/refused-messages",
            Self::Settings => "/settings",
        }
    }

    pub(super) fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::Fleet => t.fleet,
            Self::Campaigns => t.campaigns,
            Self::Vehicles => t.vehicles,
            Self::Releases => t.releases,
            Self::Evidence => t.evidence,
            Self::Audit => t.audit_log,
            Self::Security => t.security_events,
            Self::Refused => t.refused_messages,
            Self::Settings => t.settings,
        }
    }

    /// The one that an address belongs to.
    fn of(uri: &Uri) -> Option<Self> {
        let first = match uri.path().trim_start_matches('/').split('/').next().unwrap_or_default() {
            // Below the releases, "new" is what one may be called.
            "new-release" => "releases",
            first => first,
        };
        Self::ALL.into_iter().find(|section| section.path().trim_start_matches('/') == first)
    }
}

/// What stands around a page's own content.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) t: &'static Texts,
    pub(super) language: Language,
    pub(super) theme: Theme,
    pub(super) section: Option<Section>,
    /// Where the page is, with its query.
    pub(super) address: String,
    /// Whoever is signed in.
    pub(super) user: Option<(String, Scope)>,
    /// The form that goes with a switch of language or theme.
    pub(super) switch: Option<Switch>,
}

impl Frame {
    pub(super) fn of_guest(language: Language, theme: Theme, uri: &Uri) -> Self {
        Self {
            t: language.texts(),
            language,
            theme,
            section: Section::of(uri),
            address: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            user: None,
            switch: None,
        }
    }

    fn may(&self, permission: Permission) -> bool {
        self.user.as_ref().is_some_and(|(_, scope)| scope.may(permission))
    }

    pub(super) fn may_operate(&self) -> bool {
        self.may(Permission::Operate)
    }

    pub(super) fn may_release(&self) -> bool {
        self.may(Permission::Release)
    }

    pub(super) fn may_administer(&self) -> bool {
        self.may(Permission::Administer)
    }

    pub(super) fn sections(&self) -> [Section; 9] {
        Section::ALL
    }

    pub(super) fn languages(&self) -> [Language; 2] {
        Language::ALL
    }

    pub(super) fn themes(&self) -> [Theme; 3] {
        Theme::ALL
    }

    pub(super) fn is_in(&self, section: &Section) -> bool {
        self.section.as_ref() == Some(section)
    }
}

/// Sends a page.
pub(super) fn shown(page: &impl Template) -> Response {
    with_status(StatusCode::OK, page)
}

pub(super) fn with_status(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                // Its own pages may know which one somebody comes from: it is where they go back to.
                (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
            ];
            (status, headers, html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "A page of the console could not be written.");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A page that cannot be shown, or a change that was refused.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) frame: Box<Frame>,
    pub(super) problem: Problem,
}

#[derive(Template)]
#[template(path = "failed.html")]
struct FailedPage<'a> {
    frame: &'a Frame,
    code: &'a str,
    objection: Objection,
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let objection = Objection::of(self.frame.t, &self.problem);
        let page = FailedPage { frame: &self.frame, code: self.problem.code(), objection };
        with_status(self.problem.status(), &page)
    }
}
