//! The web console: pages on the operators' listener, rendered here, for people who have signed in. Owns pages, sessions and
//! what changes on a page by itself; leaves every change of the fleet to the API.

mod assets;
mod attention;
mod campaign;
mod campaigns;
mod chart;
mod confirm;
mod cookies;
mod eta;
mod exchange;
mod fleet;
mod form;
mod format;
mod groups;
mod language;
mod lists;
mod live;
mod page;
mod passwords;
mod plan;
mod progress;
mod quantity;
mod query;
mod releases;
mod session;
mod settings;
mod sign_in;
mod texts;
mod vehicle;
mod vehicles;
mod why;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::api::{Api, Problem};
use live::Live;
use passwords::Passwords;

/// What may be imported at a time, as a form sends it, in octets.
const MOST_IMPORT_OCTETS: usize = 8 * 1024 * 1024;

/// What the console works with.
#[derive(Clone)]
pub(crate) struct Console {
    api: Api,
    live: Arc<Live>,
    passwords: Arc<Passwords>,
    /// Whether operators' connections are encrypted.
    is_tls: bool,
}

impl Console {
    pub(crate) fn new(api: Api, is_tls: bool) -> Self {
        let live = Arc::new(Live::new(api.vitals.stopping.clone()));
        Self { api, live, passwords: Arc::new(Passwords::new()), is_tls }
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
        .route("/charts", get(fleet::charts))
        .route("/attention/{kind}", get(attention::page))
        .route("/campaigns", get(campaigns::page))
        .route("/campaigns/{name}", get(campaign::page))
        .route("/campaigns/{name}/live", get(campaign::live))
        .route("/campaigns/{name}/charts", get(campaign::charts))
        .route(
            "/campaigns/{name}/set-aside/{vehicle}",
            get(campaign::confirm_take_back).post(campaign::take_back),
        )
        .route("/campaigns/{name}/{action}", get(campaign::confirm).post(campaign::act))
        .route("/plan", get(plan::begin).post(plan::go))
        .route("/plan/selected", post(plan::selected))
        .route(
            "/import",
            get(exchange::form).post(exchange::run).layer(DefaultBodyLimit::max(MOST_IMPORT_OCTETS)),
        )
        .route("/export", get(exchange::export))
        .route("/groups", get(groups::list).post(groups::create))
        .route("/groups/{name}", get(groups::page).post(groups::change))
        .route("/groups/{name}/delete", get(groups::ask_to_delete).post(groups::delete))
        .route("/selected", get(plan::selected_by_query))
        .route("/vehicles", get(vehicles::page))
        .route("/vehicles/{id}", get(vehicle::page))
        .route("/vehicles/{id}/{of}", get(vehicle::actions::ask).post(vehicle::actions::act))
        .route(
            "/vehicles/{id}/{of}/{action}",
            get(vehicle::actions::ask_of_update).post(vehicle::actions::act_on_update),
        )
        .route(
            "/vehicles/{id}/set-aside/{release}/take-back",
            get(vehicle::actions::ask_to_take_back).post(vehicle::actions::take_back),
        )
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
