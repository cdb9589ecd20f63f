//! `/campaigns/{name}`: where its vehicles are, what stops it, why they wait, which failed and why, when it will be done; and what
//! can be done about it. The page, and the parts of it that change by themselves; what is shown and what can be done have files of
//! their own.

mod actions;
mod history;
mod tallies;
mod view;
mod waves;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use farrier_protocol::UnixMillis;
use serde::Deserialize;

use super::chart::Chart;
use super::format::{Fact, Time, number, span, time};
use super::language::Language;
use super::live::Part;
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::Texts;
use super::{Console, progress, why};
use crate::api::{self, Problem};
use crate::store::campaigns::{self, Campaign};
use crate::store::{Tx, approvals, set_aside, updates};
pub(super) use actions::{act, confirm};
use view::View;
pub(super) use view::opens;
use waves::Stage;
pub(super) use waves::windows;

/// Vehicles on a page.
const ON_A_PAGE: u32 = 25;

/// A vehicle of the campaign.
struct VehicleRow {
    vehicle_id: String,
    state: &'static str,
    state_name: &'static str,
    class: &'static str,
    wave: u32,
    sentence: String,
    since: Time,
}

/// A vehicle that is set aside for the campaign's release.
struct SetAsideRow {
    vehicle_id: String,
    failures: String,
    code: String,
    campaign: String,
    since: Time,
}

/// What somebody said of the campaign or a wave.
struct WordRow {
    is_approval: bool,
    about: String,
    by: String,
    remark: String,
    at: Time,
}

#[derive(Template)]
#[template(path = "campaign.html")]
struct CampaignPage {
    frame: Frame,
    view: View,
    charts: Vec<Chart>,
    rows: Vec<VehicleRow>,
    /// The state that the vehicles are filtered by.
    filter: String,
    is_first: bool,
    next: Option<String>,
    set_aside: Vec<SetAsideRow>,
    more_set_aside: Option<String>,
    words: Vec<WordRow>,
    facts: Vec<(&'static str, Fact)>,
}

impl CampaignPage {
    /// The states that vehicles can be filtered by, each with its words.
    fn states(&self) -> Vec<(&'static str, &'static str)> {
        progress::STATES.iter().map(|(state, _)| (*state, self.frame.t.state(state))).collect()
    }
}

#[derive(Template)]
#[template(path = "campaign_live.html")]
struct CampaignLive<'a> {
    t: &'static Texts,
    view: &'a View,
}

#[derive(Template)]
#[template(path = "charts.html")]
struct CampaignCharts {
    t: &'static Texts,
    charts: Vec<Chart>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    state: String,
    #[serde(default)]
    after: String,
    /// Of the vehicles that are set aside.
    #[serde(default)]
    aside_after: String,
}

/// `GET /campaigns/{name}`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(Asked { state, after, aside_after }): Query<Asked>,
) -> Result<Response, Failed> {
    let (language, now) = (visitor.guest.language, console.api.now());
    let (filter, rules, is_first) = (state.clone(), console.api.rules.clone(), after.is_empty());
    let seen = console.api.read(move |tx| {
        let campaign = found(tx, &name)?;
        let t = language.texts();
        let rows = vehicle_rows(tx, language, &campaign, (&filter, &after), now)?;
        let view = View::of(tx, t, &rules, &campaign, now)?;
        let charts = history::charts(tx, t, &campaign, now)?;
        let aside = set_aside::page_of_release(tx, &campaign.release, &aside_after, ON_A_PAGE + 1)?;
        let words = approvals::words(tx, &campaign.name)?;
        let words = words.into_iter().map(|word| WordRow {
            is_approval: word.approved,
            about: word.wave.map_or_else(|| t.start.to_owned(), |wave| format!("{} {wave}", t.wave)),
            by: word.by,
            remark: word.remark.to_string(),
            at: time(t, word.at, now),
        });
        Ok((view, charts, rows, aside, words.collect(), facts(t, &campaign, now)))
    });
    let (view, charts, mut rows, mut aside, words, facts) =
        seen.await.map_err(|problem| visitor.failed(problem))?;
    let next = cut(&mut rows, |row| row.vehicle_id.clone());
    let more_set_aside = cut(&mut aside, |one| one.vehicle_id.to_string());
    let t = language.texts();
    let set_aside = aside.into_iter().map(|one| SetAsideRow {
        vehicle_id: one.vehicle_id.to_string(),
        failures: number(one.failures),
        code: one.code,
        campaign: one.campaign.to_string(),
        since: time(t, one.at, now),
    });
    Ok(shown(&CampaignPage {
        frame: visitor.frame(),
        view,
        charts,
        rows,
        filter: state,
        is_first,
        next,
        set_aside: set_aside.collect(),
        more_set_aside,
        words,
        facts,
    }))
}

/// Cuts what is more than a page, which says only that there is more; gives where that begins.
fn cut<R>(rows: &mut Vec<R>, key: impl Fn(&R) -> String) -> Option<String> {
    let has_more = rows.len() > ON_A_PAGE as usize;
    rows.truncate(ON_A_PAGE as usize);
    rows.last().filter(|_| has_more).map(key)
}

fn vehicle_rows(
    tx: &Tx<'_>,
    language: Language,
    campaign: &Campaign,
    (state, after): (&str, &str),
    now: UnixMillis,
) -> Result<Vec<VehicleRow>, Problem> {
    let t = language.texts();
    let rows = match state {
        "" => updates::page_of_campaign(tx, &campaign.name, after, ON_A_PAGE + 1)?,
        state => updates::page_in_state(tx, &campaign.name, state, after, ON_A_PAGE + 1)?,
    };
    let rows = rows.iter().map(|update| VehicleRow {
        vehicle_id: update.vehicle_id.to_string(),
        state: update.state.name(),
        state_name: t.state(update.state.name()),
        class: progress::class(update.state.name()),
        wave: update.wave,
        sentence: why::sentence(language, &update.state, now),
        since: time(t, update.updated_at, now),
    });
    Ok(rows.collect())
}

/// `GET /campaigns/{name}/live`
pub(super) async fn live(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    let asked = name.clone();
    let is_there = console.api.read(move |tx| found(tx, &asked).map(|_| ())).await;
    is_there.map_err(|problem| visitor.failed(problem))?;
    let language = visitor.guest.language;
    let part = Part { path: format!("/campaigns/{name}"), language };
    let (live, looked) = (console.live.clone(), console);
    let stream = live.stream(part, move || {
        let (console, name) = (looked.clone(), name.clone());
        async move { rendered(&console, language, name).await }
    });
    Ok(stream.unwrap_or_else(|| axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response()))
}

async fn rendered(console: &Console, language: Language, name: String) -> Result<String, Problem> {
    let (t, now, rules) = (language.texts(), console.api.now(), console.api.rules.clone());
    let view = console.api.read(move |tx| View::of(tx, t, &rules, &found(tx, &name)?, now)).await?;
    CampaignLive { t, view: &view }.render().map_err(|_| Problem::unavailable())
}

/// `GET /campaigns/{name}/charts`: asked for again by the page itself, as often as there is a new sample.
pub(super) async fn charts(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let charts = console.api.read(move |tx| Ok(history::charts(tx, t, &found(tx, &name)?, now)?)).await;
    Ok(shown(&CampaignCharts { t, charts: charts.map_err(|problem| visitor.failed(problem))? }))
}

pub(super) fn found(tx: &Tx<'_>, text: &str) -> Result<Campaign, Problem> {
    let name = api::name(text, "campaign")?;
    campaigns::by_name(tx, &name)?.ok_or_else(|| Problem::not_found("campaign", name.as_str()))
}

fn facts(t: &'static Texts, campaign: &Campaign, now: UnixMillis) -> Vec<(&'static str, Fact)> {
    let at = |at| Fact::Time(time(t, at, now));
    let mut facts = vec![(t.created, at(campaign.created_at))];
    facts.extend(campaign.started_at.map(|started| (t.started, at(started))));
    facts.extend(campaign.paused_at.map(|paused| (t.paused, at(paused))));
    facts.extend(campaign.aborted.as_ref().map(|aborted| (t.aborted, at(aborted.at))));
    let rollout = &campaign.rollout;
    facts.extend(windows(t, rollout).map(|windows| (t.windows, Fact::Text(windows))));
    facts.extend(rollout.vehicles_at_once.map(|limit| (t.vehicles_at_once, Fact::Text(number(limit)))));
    facts.extend(rollout.starts_per_minute.map(|limit| (t.starts_per_minute, Fact::Text(number(limit)))));
    facts.extend(campaign.update_deadline_s.map(|seconds| {
        let ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        (t.update_deadline, Fact::Text(span(t, ms)))
    }));
    facts
}
