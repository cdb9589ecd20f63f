//! `/`: what the whole fleet does, and what needs somebody's attention.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use farrier_protocol::UnixMillis;

use super::format::number;
use super::language::Language;
use super::live::Part;
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::{Texts, filled};
use super::{Console, progress};
use crate::api::Problem;
use crate::store::{campaigns, fleet};

/// Campaigns that are shown here; the list has all.
const SHOWN: u32 = 200;

/// Something that somebody should look at.
struct Attention {
    /// `bad` or `warn`.
    class: &'static str,
    sentence: String,
    link: &'static str,
}

struct View {
    vehicles: String,
    connected: String,
    under_way: String,
    states: Vec<progress::Bar>,
    attention: Vec<Attention>,
    campaigns: Vec<progress::CampaignRow>,
}

#[derive(Template)]
#[template(path = "fleet.html")]
struct FleetPage {
    frame: Frame,
    view: View,
}

#[derive(Template)]
#[template(path = "fleet_live.html")]
struct FleetLive<'a> {
    t: &'static Texts,
    view: &'a View,
}

/// `GET /`
pub(super) async fn page(State(console): State<Console>, visitor: Visitor) -> Result<Response, Failed> {
    let view = look(&console, visitor.guest.language).await.map_err(|problem| visitor.failed(problem))?;
    Ok(shown(&FleetPage { frame: visitor.frame(), view }))
}

/// `GET /live`
pub(super) async fn live(State(console): State<Console>, visitor: Visitor) -> Response {
    let language = visitor.guest.language;
    let part = Part { path: "/".to_owned(), language };
    let (live, looked) = (console.live.clone(), console);
    let stream = live.stream(part, move || {
        let console = looked.clone();
        async move {
            let view = look(&console, language).await?;
            FleetLive { t: language.texts(), view: &view }.render().map_err(|_| Problem::unavailable())
        }
    });
    stream.unwrap_or_else(|| axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response())
}

async fn look(console: &Console, language: Language) -> Result<View, Problem> {
    let t = language.texts();
    let ending = console.api.vitals.ending(console.api.now());
    let connected = console.api.vitals.connections.number();
    let seen = console.api.read(move |tx| {
        let mut rows = Vec::new();
        for campaign in campaigns::page(tx, "", SHOWN)? {
            let counts = campaigns::counts(tx, &campaign.name)?;
            rows.push(progress::row(t, &campaign, &counts));
        }
        Ok((fleet::vehicles(tx)?, fleet::quarantined(tx)?, campaigns::counts_of_all(tx)?, rows))
    });
    let (vehicles, quarantined, by_state, rows) = seen.await?;
    let attention = attention(t, &by_state, quarantined, &rows, &ending);
    let rows = rows.into_iter().filter(progress::CampaignRow::is_under_way).collect();
    let of = |states: &[&str]| states.iter().filter_map(|state| by_state.get(*state)).sum::<u64>();
    let active = of(&["downloading", "installing", "committing", "verifying", "rolling_back"]);
    Ok(View {
        vehicles: number(vehicles),
        connected: number(connected),
        under_way: number(active),
        states: progress::bars(t, &by_state),
        attention,
        campaigns: rows,
    })
}

fn attention(
    t: &'static Texts,
    by_state: &BTreeMap<String, u64>,
    quarantined: u64,
    rows: &[progress::CampaignRow],
    ending: &[(&'static str, UnixMillis)],
) -> Vec<Attention> {
    let mut all = Vec::new();
    let mut add = |class, sentence: String, link| all.push(Attention { class, sentence, link });
    let inconsistent = by_state.get("inconsistent").copied().unwrap_or_default();
    if inconsistent > 0 {
        add("bad", filled(t.attention_inconsistent, &[&number(inconsistent)]), "/campaigns");
    }
    for row in rows.iter().filter(|row| row.state == "stopped") {
        add("bad", filled(t.attention_stopped, &[&row.name]), "/campaigns");
    }
    let unknown = by_state.get("unknown").copied().unwrap_or_default();
    if unknown > 0 {
        add("warn", filled(t.attention_unknown, &[&number(unknown)]), "/campaigns");
    }
    if quarantined > 0 {
        add("warn", filled(t.attention_quarantined, &[&number(quarantined)]), "/vehicles");
    }
    for (what, ends_at) in ending {
        add("warn", filled(t.attention_expiry, &[*what, &super::format::absolute(*ends_at)]), "/settings");
    }
    all
}
