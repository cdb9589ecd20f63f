//! `/`: what the whole fleet does, and did over time, and what needs somebody's attention.

mod history;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};

use super::attention::{self, Attention};
use super::chart::Chart;
use super::format::number;
use super::language::Language;
use super::live::Part;
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::Texts;
use super::{Console, progress};
use crate::api::Problem;
use crate::conversation;
use crate::store::{campaigns, fleet};
use history::{Asked, Span};

/// Campaigns that are shown here; the list has all.
const SHOWN: u32 = 200;

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
    span: Option<Span>,
    charts: Vec<Chart>,
}

impl FleetPage {
    fn spans(&self) -> [Span; 4] {
        Span::ALL
    }

    fn is_chosen(&self, span: &Span) -> bool {
        self.span.as_ref() == Some(span)
    }
}

#[derive(Template)]
#[template(path = "fleet_live.html")]
struct FleetLive<'a> {
    t: &'static Texts,
    view: &'a View,
}

#[derive(Template)]
#[template(path = "charts.html")]
struct FleetCharts {
    t: &'static Texts,
    charts: Vec<Chart>,
}

/// `GET /`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let language = visitor.guest.language;
    let span = asked.span();
    let view = look(&console, language).await.map_err(|problem| visitor.failed(problem))?;
    let charts = over_time(&console, language, span).await.map_err(|problem| visitor.failed(problem))?;
    Ok(shown(&FleetPage { frame: visitor.frame(), view, span, charts }))
}

/// `GET /charts`: asked for again by the page itself, as often as there is a new sample.
pub(super) async fn charts(
    State(console): State<Console>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let language = visitor.guest.language;
    let charts = over_time(&console, language, asked.span()).await;
    let charts = charts.map_err(|problem| visitor.failed(problem))?;
    Ok(shown(&FleetCharts { t: language.texts(), charts }))
}

async fn over_time(console: &Console, language: Language, span: Option<Span>) -> Result<Vec<Chart>, Problem> {
    let (t, now) = (language.texts(), console.api.now());
    let charts = console.api.read(move |tx| Ok(history::charts(tx, t, span, now)?));
    charts.await
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
    let (t, now, rules) = (language.texts(), console.api.now(), console.api.rules.clone());
    let ending = console.api.vitals.ending(now);
    let connected_here = console.api.vitals.connections.number();
    let seen = console.api.read(move |tx| {
        let mut rows = Vec::new();
        let not_over = campaigns::not_over(tx, SHOWN)?;
        for campaign in &not_over {
            let row = progress::row(tx, t, campaign, now)?;
            rows.extend(Some(row).filter(progress::CampaignRow::is_under_way));
        }
        let by_state = campaigns::counts_of_all(tx)?;
        let attention = attention::all(tx, t, &rules, &not_over, &by_state, &ending, now)?;
        let connected = conversation::number_there(tx, &rules, connected_here, now)?;
        let of = |states: &[&str]| states.iter().filter_map(|state| by_state.get(*state)).sum::<u64>();
        Ok(View {
            vehicles: number(fleet::vehicles(tx)?),
            connected: number(connected),
            under_way: number(of(&["downloading", "installing", "committing", "verifying", "rolling_back"])),
            states: progress::bars(t, &by_state),
            attention,
            campaigns: rows,
        })
    });
    seen.await
}
