//! The web console: pages on the operators' listener, rendered here, for people who have signed in. Owns pages, sessions and
//! what changes on a page by itself; leaves every change of the fleet to the API.

mod assets;
mod campaign;
mod campaigns;
mod cookies;
mod fleet;
mod format;
mod language;
mod lists;
mod live;
mod page;
mod passwords;
mod progress;
mod releases;
mod session;
mod settings;
mod sign_in;
mod single_sign_on;
mod texts;
mod vehicle;
mod vehicles;
mod why;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::api::{Api, Problem};
use live::Live;
use passwords::Passwords;
pub(crate) use single_sign_on::Provider;
pub use single_sign_on::{OidcError, OidcSettings};

/// What the console works with.
#[derive(Clone)]
pub(crate) struct Console {
    api: Api,
    live: Arc<Live>,
    passwords: Arc<Passwords>,
    oidc: Option<Arc<Provider>>,
    /// Whether operators' connections are encrypted.
    is_tls: bool,
}

impl Console {
    pub(crate) fn new(api: Api, is_tls: bool, oidc: Option<Provider>) -> Self {
        let live = Arc::new(Live::new(api.vitals.stopping.clone()));
        Self { api, live, passwords: Arc::new(Passwords::new()), oidc: oidc.map(Arc::new), is_tls }
    }

    /// The path by which the first admin chooses name and password; `None` where there is one who can sign in.
    pub(crate) async fn first_link(&self) -> Result<Option<String>, Problem> {
        self.api.write(|tx, _, now| sign_in::first_link(tx, now)).await
    }
}

/// The console's pages.
pub(crate) fn router(console: Console) -> Router {
    Router::new()
        .route("/", get(fleet::page))
        .route("/live", get(fleet::live))
        .route("/campaigns", get(campaigns::page))
        .route("/campaigns/{name}", get(campaign::page))
        .route("/campaigns/{name}/live", get(campaign::live))
        .route("/campaigns/{name}/{action}", get(campaign::confirm).post(campaign::act))
        .route("/vehicles", get(vehicles::page))
        .route("/vehicles/{id}", get(vehicle::page))
        .route("/vehicles/{id}/release", post(vehicle::release))
        .route("/vehicles/{id}/{campaign}/cancel", post(vehicle::cancel))
        .route("/vehicles/{id}/{campaign}/rollback", post(vehicle::roll_back))
        .route("/releases", get(releases::list))
        .route("/releases/{name}", get(releases::page))
        .route("/audit", get(lists::audit_log))
        .route("/security-events", get(lists::security_events))
        .route("/refused-messages", get(lists::refused_messages))
        .route("/settings", get(settings::page))
        .route("/settings/users", post(settings::invite))
        .route("/settings/users/{name}/scope", post(settings::set_scope))
        .route("/settings/users/{name}/{what}", post(settings::change))
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-in/oidc", get(single_sign_on::begin))
        .route(single_sign_on::CALLBACK, get(single_sign_on::callback))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/sign-out-everywhere", post(sign_in::sign_out_everywhere))
        .route("/welcome/{secret}", get(sign_in::welcome).post(sign_in::use_link))
        .route("/language", post(sign_in::choose_language))
        .route("/theme", post(sign_in::choose_theme))
        .route("/assets/{version}/{name}", get(assets::get))
        .with_state(console)
}

#[cfg(test)]
mod tests;
