//! The web console: pages on the operators' listener, rendered here, for people who have signed in. Owns pages, sessions and
//! what changes on a page by itself; leaves every change of the fleet to the API.

mod assets;
mod attention;
mod audit;
mod campaign;
mod campaigns;
mod chain;
mod chart;
mod confirm;
mod cookies;
mod endings;
mod eta;
mod evidence;
mod exchange;
mod fleet;
mod form;
mod format;
mod groups;
mod language;
mod lists;
mod live;
mod new_release;
mod objection;
mod page;
mod passwords;
mod plan;
mod progress;
mod quantity;
mod query;
mod release_rules;
mod releases;
mod session;
mod settings;
mod sign_in;
mod single_sign_on;
mod switch;
mod texts;
mod uploads;
mod vehicle;
mod vehicles;
mod why;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, patch, post};

use crate::api::{Api, Problem};
use chain::Chain;
use live::Live;
use passwords::Passwords;
pub(crate) use single_sign_on::Provider;
pub use single_sign_on::{OidcError, OidcSettings};

/// What may be imported at a time, as a form sends it, in octets.
const MOST_IMPORT_OCTETS: usize = 8 * 1024 * 1024;

/// What the console works with.
#[derive(Clone)]
pub(crate) struct Console {
    api: Api,
    live: Arc<Live>,
    passwords: Arc<Passwords>,
    chain: Arc<Chain>,
    oidc: Option<Arc<Provider>>,
    /// Whether operators' connections are encrypted.
    is_tls: bool,
}

impl Console {
    pub(crate) fn new(api: Api, is_tls: bool, oidc: Option<Provider>) -> Self {
        let live = Arc::new(Live::new(api.vitals.stopping.clone()));
        Self {
            api,
            live,
            passwords: Arc::new(Passwords::new()),
            oidc: oidc.map(Arc::new),
            chain: Arc::new(Chain::new()),
            is_tls,
        }
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
        .route("/new-release", get(new_release::page).post(new_release::change))
        .route("/uploads", post(uploads::begin))
        .route("/uploads/{sha256}", patch(uploads::append).layer(DefaultBodyLimit::disable()))
        .route("/uploads/{sha256}/end", post(uploads::end))
        .route("/releases/{name}", get(releases::page))
        .route("/releases/{name}/delete", get(releases::confirm_delete).post(releases::delete))
        .route("/evidence", get(evidence::page))
        .route("/evidence/key", get(evidence::key))
        .route("/evidence/rxswins", get(evidence::register))
        .route("/evidence/records/{update_id}", get(evidence::record))
        .route("/evidence/campaigns/{name}", get(evidence::campaign))
        .route("/evidence/campaigns/{name}/archive", get(evidence::campaign_archive))
        .route("/evidence/vehicles/{id}", get(evidence::vehicle))
        .route("/evidence/vehicles/{id}/archive", get(evidence::vehicle_archive))
        .route("/audit", get(audit::page))
        .route("/audit/check", post(audit::check))
        .route("/audit/export", get(audit::export))
        .route("/audit/{seq}", get(audit::entry))
        .route("/security-events", get(lists::security_events))
        .route("/refused-messages", get(lists::refused_messages))
        .route("/settings", get(settings::page))
        .route("/settings/users", post(settings::users::invite))
        .route("/settings/users/{name}/scope", post(settings::users::set_scope))
        .route("/settings/users/{name}/{what}", post(settings::users::change))
        .route("/settings/tokens", post(settings::tokens::create))
        .route(
            "/settings/tokens/{name}/revoke",
            get(settings::tokens::confirm_revoke).post(settings::tokens::revoke),
        )
        .route("/settings/webhooks", get(settings::webhooks::list).post(settings::webhooks::create))
        .route("/settings/webhooks/{name}", get(settings::webhooks::page).post(settings::webhooks::change))
        .route(
            "/settings/webhooks/{name}/{what}",
            get(settings::webhooks::confirm).post(settings::webhooks::act),
        )
        .route("/settings/webhooks/{name}/deliveries/{id}", post(settings::webhooks::redeliver))
        .route("/settings/certificates", get(settings::certificates::page))
        .route("/settings/health", get(settings::health::page))
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-in/oidc", get(single_sign_on::begin))
        .route(single_sign_on::CALLBACK, get(single_sign_on::callback))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/sign-out-everywhere", post(sign_in::sign_out_everywhere))
        .route("/welcome/{secret}", get(sign_in::welcome).post(sign_in::use_link))
        .route("/language", post(sign_in::choose_language))
        .route("/theme", post(sign_in::choose_theme))
        .route("/assets/{version}/{name}", get(assets::get))
        .layer(axum::middleware::from_fn_with_state(console.clone(), switch::remember))
        .with_state(console)
}

#[cfg(test)]
mod tests;
