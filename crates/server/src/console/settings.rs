//! `/settings`: who may do what, where changes are sent, how long certificates are good, and how the server is.

pub(super) mod certificates;
pub(super) mod health;
pub(super) mod tokens;
pub(super) mod users;
pub(super) mod webhooks;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::Console;
use super::form;
use super::objection::Objection;
use super::page::{Failed, Frame, with_status};
use super::session::Visitor;
use super::texts::Texts;
use crate::access::{Permission, Scope};
use tokens::TokenRow;
use users::UserRow;

/// One page of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Users,
    Webhooks,
    Certificates,
    Health,
}

impl Tab {
    const ALL: [Self; 4] = [Self::Users, Self::Webhooks, Self::Certificates, Self::Health];

    fn path(self) -> &'static str {
        match self {
            Self::Users => "/settings",
            Self::Webhooks => "/settings/webhooks",
            Self::Certificates => "/settings/certificates",
            Self::Health => "/settings/health",
        }
    }

    fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::Users => t.users_and_tokens,
            Self::Webhooks => t.webhooks,
            Self::Certificates => t.certificates_and_lists,
            Self::Health => t.system_health,
        }
    }
}

/// The pages of the settings that somebody may see: address, name, and whether it is this one.
fn tabs(visitor: &Visitor, here: Tab) -> Vec<(&'static str, &'static str, bool)> {
    let t = visitor.guest.language.texts();
    let may_see = |tab: &Tab| *tab != Tab::Webhooks || visitor.user.scope.may(Permission::Administer);
    Tab::ALL.into_iter().filter(may_see).map(|tab| (tab.path(), tab.text(t), tab == here)).collect()
}

/// What was typed into a form and refused.
#[derive(Debug, Clone, Default)]
struct Typed {
    name: String,
    scope: String,
    days: String,
    fault: Option<Objection>,
}

/// What was just made, or refused.
#[derive(Debug, Clone, Default)]
struct News {
    /// A link, with whose it is: it cannot be shown again.
    link: Option<(String, String)>,
    /// A token, with its name: it cannot be shown again.
    token: Option<(String, String)>,
    user: Typed,
    new_token: Typed,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    tabs: Vec<(&'static str, &'static str, bool)>,
    /// Both are for admins alone.
    users: Vec<UserRow>,
    tokens: Vec<TokenRow>,
    scopes: Vec<(&'static str, &'static str)>,
    news: News,
}

/// `GET /settings`
pub(super) async fn page(State(console): State<Console>, visitor: Visitor) -> Result<Response, Failed> {
    with_news(&console, &visitor, News::default()).await
}

async fn with_news(console: &Console, visitor: &Visitor, news: News) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    let (mut users, mut tokens) = (Vec::new(), Vec::new());
    if visitor.user.scope.may(Permission::Administer) {
        users = users::rows(console, visitor).await?;
        tokens = tokens::rows(console, visitor).await?;
    }
    let is_refused = news.user.fault.is_some() || news.new_token.fault.is_some();
    let status = if is_refused { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let page = SettingsPage {
        frame: visitor.frame(),
        tabs: tabs(visitor, Tab::Users),
        users,
        tokens,
        scopes: Scope::ALL.map(|scope| (scope.name(), t.scope(scope.name()))).to_vec(),
        news,
    };
    Ok(with_status(status, &page))
}

/// A scope as a form has it.
fn scope(t: &Texts, name: &str) -> Result<Scope, String> {
    let names: Vec<_> = Scope::ALL.iter().map(|scope| t.scope(scope.name())).collect();
    name.parse().map_err(|()| form::unfit(t, &names.join(", "), name))
}
