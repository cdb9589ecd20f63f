//! `/campaigns/{name}`: where its vehicles are, what stops it, why they wait, which failed and why; and what can be done about it.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use farrier_campaign::{Opening, StopRule, WaveCounts};
use farrier_protocol::{Text, UnixMillis};
use serde::Deserialize;

use super::confirm::ConfirmPage;
use super::format::{Fact, Time, number, percent, span, time};
use super::language::Language;
use super::live::Part;
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::{Texts, filled};
use super::{Console, progress, why};
use crate::api::{self, Problem};
use crate::store::campaigns::{self, Campaign, StateCounts};
use crate::store::{Tx, intake, updates};

/// Vehicle updates that are looked at for why they wait or failed: a page must not take longer the larger a campaign is.
const LOOKED_AT: u32 = 1_000;
/// Vehicles on a page.
const ON_A_PAGE: u32 = 25;

struct WaveRow {
    number: u32,
    opens: String,
    is_open: bool,
    vehicles: String,
    at_release: String,
    failed: String,
    done_percent: u64,
    parts: progress::Parts,
    rule: Option<Gauge>,
}

/// How far it is to the stop.
struct Gauge {
    sentence: String,
    /// Of the limit, in percent.
    length: u64,
    class: &'static str,
}

/// How many vehicles have the same reason.
struct Reason {
    what: String,
    vehicles: String,
    length: u64,
}

struct View {
    name: String,
    release: String,
    state: &'static str,
    state_name: &'static str,
    class: &'static str,
    stopped: Option<String>,
    vehicles: String,
    at_release: String,
    at_release_percent: u64,
    under_way: String,
    failed: String,
    failed_percent: u64,
    left_out: String,
    waves: Vec<WaveRow>,
    funnel: Vec<progress::Bar>,
    rules: Vec<Gauge>,
    waiting: Vec<Reason>,
    failures: Vec<Reason>,
    /// Whether there are more than were looked at.
    is_part: bool,
}

impl View {
    fn can(&self, action: Action) -> bool {
        match action {
            Action::Start => self.state == "draft",
            Action::Pause => matches!(self.state, "starting" | "running"),
            Action::Resume => matches!(self.state, "paused" | "stopped"),
            Action::OpenWave => {
                matches!(self.state, "starting" | "running" | "paused" | "stopped")
                    && self.waves.iter().any(|wave| !wave.is_open)
            }
            Action::Abort => !matches!(self.state, "draft" | "aborted" | "finished"),
        }
    }

    fn actions(&self) -> Vec<Action> {
        Action::ALL.into_iter().filter(|action| self.can(*action)).collect()
    }
}

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

#[derive(Template)]
#[template(path = "campaign.html")]
struct CampaignPage {
    frame: Frame,
    view: View,
    rows: Vec<VehicleRow>,
    /// The state that the vehicles are filtered by.
    filter: String,
    next: Option<String>,
    facts: Vec<(&'static str, Fact)>,
}

#[derive(Template)]
#[template(path = "campaign_live.html")]
struct CampaignLive<'a> {
    t: &'static Texts,
    view: &'a View,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    state: String,
    #[serde(default)]
    after: String,
}

/// `GET /campaigns/{name}`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(Asked { state, after }): Query<Asked>,
) -> Result<Response, Failed> {
    let (language, now) = (visitor.guest.language, console.api.now());
    let filter = state.clone();
    let seen = console.api.read(move |tx| {
        let campaign = found(tx, &name)?;
        let t = language.texts();
        let view = view(tx, t, &campaign)?;
        let rows = match filter.as_str() {
            "" => updates::page_of_campaign(tx, &campaign.name, &after, ON_A_PAGE + 1)?,
            state => updates::page_in_state(tx, &campaign.name, state, &after, ON_A_PAGE + 1)?,
        };
        let rows: Vec<_> = rows
            .iter()
            .map(|update| VehicleRow {
                vehicle_id: update.vehicle_id.to_string(),
                state: update.state.name(),
                state_name: t.state(update.state.name()),
                class: progress::class(update.state.name()),
                wave: update.wave,
                sentence: why::sentence(language, &update.state, now),
                since: time(t, update.updated_at, now),
            })
            .collect();
        Ok((view, rows, facts(t, &campaign, now)))
    });
    let (view, mut rows, facts) = seen.await.map_err(|problem| visitor.failed(problem))?;
    let has_more = rows.len() > ON_A_PAGE as usize;
    rows.truncate(ON_A_PAGE as usize);
    let next = rows.last().filter(|_| has_more).map(|row| row.vehicle_id.clone());
    Ok(shown(&CampaignPage { frame: visitor.frame(), view, rows, filter: state, next, facts }))
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
    let t = language.texts();
    let view = console.api.read(move |tx| view(tx, t, &found(tx, &name)?)).await?;
    CampaignLive { t, view: &view }.render().map_err(|_| Problem::unavailable())
}

pub(super) fn found(tx: &Tx<'_>, text: &str) -> Result<Campaign, Problem> {
    let name = api::name(text, "campaign")?;
    campaigns::by_name(tx, &name)?.ok_or_else(|| Problem::not_found("campaign", name.as_str()))
}

fn view(tx: &Tx<'_>, t: &'static Texts, campaign: &Campaign) -> Result<View, Problem> {
    let counts = campaigns::counts(tx, &campaign.name)?;
    let waves = campaigns::wave_counts(tx, campaign)?;
    let all = waves.iter().fold(WaveCounts::default(), WaveCounts::with);
    let vehicles = intake::vehicles_in_all(tx, campaign, &counts)?;
    let state = campaign.state_name(&counts);
    let (waiting, some_wait) = waiting(tx, t, &campaign.name, &counts)?;
    let (failures, some_failed) = failures(tx, &campaign.name, &counts)?;
    Ok(View {
        name: campaign.name.to_string(),
        release: campaign.release.to_string(),
        state,
        state_name: t.campaign_state(state),
        class: progress::campaign_class(state),
        stopped: campaign.stopped.as_ref().map(|stopped| stopped.reason.sentence()),
        vehicles: number(vehicles),
        at_release: number(all.at_release),
        at_release_percent: percent(all.at_release, vehicles),
        under_way: number(all.under_way),
        failed: number(all.failed),
        failed_percent: percent(all.failed, vehicles),
        left_out: number(all.left_out),
        waves: wave_rows(t, campaign, &waves),
        funnel: progress::bars(t, &counts.by_state),
        rules: rules(t, &campaign.rollout.stop, &all),
        waiting,
        failures,
        is_part: some_wait || some_failed,
    })
}

fn wave_rows(t: &'static Texts, campaign: &Campaign, counts: &[WaveCounts]) -> Vec<WaveRow> {
    let is_open = |wave: u32| match campaign.rollout.has_gate() {
        true => wave <= campaign.gate.open,
        false => campaign.started_at.is_some(),
    };
    let rows = (1_u32..).zip(counts).map(|(wave, counts)| {
        let planned =
            usize::try_from(wave).ok().and_then(|wave| campaign.rollout.waves.get(wave.checked_sub(1)?));
        WaveRow {
            number: wave,
            opens: planned.map_or_else(|| t.opens_at_once.to_owned(), |planned| opens(t, planned.opens)),
            is_open: is_open(wave),
            vehicles: number(counts.vehicles),
            at_release: number(counts.at_release),
            failed: number(counts.failed),
            done_percent: percent(counts.ended, counts.vehicles),
            parts: progress::Parts::of(counts.at_release, counts.under_way, counts.failed, counts.vehicles),
            rule: planned.and_then(|planned| rules(t, &planned.stop, counts).into_iter().next_back()),
        }
    });
    rows.collect()
}

fn opens(t: &Texts, opening: Opening) -> String {
    match opening {
        Opening::AtOnce => t.opens_at_once.to_owned(),
        Opening::ByHand => t.opens_by_hand.to_owned(),
        Opening::ByApproval => t.opens_by_approval.to_owned(),
        Opening::At(at) => filled(t.opens_at, &[&super::format::absolute(at)]),
        Opening::AfterSuccessPercent(share) => filled(t.opens_after_success, &[&share.to_string()]),
    }
}

/// Each limit of a rule, with how far it is to it.
fn rules(t: &Texts, rule: &StopRule, counts: &WaveCounts) -> Vec<Gauge> {
    let gauge = |sentence: String, found: u64, limit: u64| {
        let length = percent(found, limit).min(100);
        let class = match length {
            100.. => "bad",
            50.. => "warn",
            _ => "ok",
        };
        Gauge { sentence, length, class }
    };
    let mut all = Vec::new();
    if rule.inconsistent {
        let sentence = filled(t.rule_inconsistent, &[&number(counts.inconsistent)]);
        all.push(gauge(sentence, counts.inconsistent, 1));
    }
    if let Some(limit) = rule.failures {
        let sentence = filled(t.rule_failures, &[&number(counts.failed), &number(limit)]);
        all.push(gauge(sentence, counts.failed, limit));
    }
    if let Some(limit) = rule.failed_percent {
        let found = percent(counts.failed, counts.vehicles);
        let sentence = filled(t.rule_failed_percent, &[&found.to_string(), &limit.to_string()]);
        all.push(gauge(
            sentence,
            counts.failed.saturating_mul(100),
            counts.vehicles.saturating_mul(limit.into()),
        ));
    }
    all
}

/// Reasons by how many vehicles have them, and whether there are more vehicles than were looked at.
fn waiting(
    tx: &Tx<'_>,
    t: &'static Texts,
    campaign: &Text,
    counts: &StateCounts,
) -> Result<(Vec<Reason>, bool), Problem> {
    let mut tally = Tally::default();
    for state in ["waiting", "collecting_vci", "deferred"] {
        for update in updates::page_in_state(tx, campaign, state, "", LOOKED_AT)? {
            if let Some(waiting_on) = update.state.waiting_on() {
                tally.add(&why::reasons(t, &waiting_on));
            }
        }
        tally.of_all(counts, state);
    }
    Ok(tally.reasons())
}

fn failures(tx: &Tx<'_>, campaign: &Text, counts: &StateCounts) -> Result<(Vec<Reason>, bool), Problem> {
    let mut tally = Tally::default();
    for state in ["rolled_back", "inconsistent", "unknown"] {
        for update in updates::page_in_state(tx, campaign, state, "", LOOKED_AT)? {
            let codes: Vec<String> =
                update.state.failure_codes().iter().map(|code| (*code).to_owned()).collect();
            tally.add(&codes);
        }
        tally.of_all(counts, state);
    }
    Ok(tally.reasons())
}

/// How often something was found among those that were looked at.
#[derive(Default)]
struct Tally {
    found: BTreeMap<String, u64>,
    is_part: bool,
}

impl Tally {
    fn add(&mut self, all: &[String]) {
        for one in all {
            let number = self.found.entry(one.clone()).or_default();
            *number = number.saturating_add(1);
        }
    }

    fn of_all(&mut self, counts: &StateCounts, state: &str) {
        self.is_part |= counts.by_state.get(state).is_some_and(|number| *number > u64::from(LOOKED_AT));
    }

    fn reasons(self) -> (Vec<Reason>, bool) {
        let mut found: Vec<_> = self.found.into_iter().collect();
        found.sort_by_key(|(_, vehicles)| std::cmp::Reverse(*vehicles));
        let most = found.first().map_or(0, |(_, vehicles)| *vehicles);
        let reasons = found.into_iter().map(|(what, vehicles)| Reason {
            what,
            vehicles: number(vehicles),
            length: percent(vehicles, most).max(1),
        });
        (reasons.collect(), self.is_part)
    }
}

fn facts(t: &'static Texts, campaign: &Campaign, now: UnixMillis) -> Vec<(&'static str, Fact)> {
    let at = |at| Fact::Time(time(t, at, now));
    let mut facts = vec![(t.created, at(campaign.created_at))];
    facts.extend(campaign.started_at.map(|started| (t.started, at(started))));
    facts.extend(campaign.paused_at.map(|paused| (t.paused, at(paused))));
    facts.extend(campaign.aborted.as_ref().map(|aborted| (t.aborted, at(aborted.at))));
    let rollout = &campaign.rollout;
    facts.extend(rollout.vehicles_at_once.map(|limit| (t.vehicles_at_once, Fact::Text(number(limit)))));
    facts.extend(rollout.starts_per_minute.map(|limit| (t.starts_per_minute, Fact::Text(number(limit)))));
    facts.extend(campaign.update_deadline_s.map(|seconds| {
        let ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        (t.update_deadline, Fact::Text(span(t, ms)))
    }));
    facts
}

/// What an operator can do with a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Start,
    Pause,
    Resume,
    OpenWave,
    Abort,
}

impl Action {
    const ALL: [Self; 5] = [Self::Start, Self::Pause, Self::Resume, Self::OpenWave, Self::Abort];

    /// As the address names it.
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::OpenWave => "open-wave",
            Self::Abort => "abort",
        }
    }

    fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::Start => t.start,
            Self::Pause => t.pause,
            Self::Resume => t.resume,
            Self::OpenWave => t.open_next_wave,
            Self::Abort => t.abort,
        }
    }

    fn is_grave(self) -> bool {
        matches!(self, Self::Abort)
    }

    /// What will happen, and to how many vehicles.
    fn consequence(self, t: &Texts, view: &View, counts: &StateCounts) -> String {
        let of = |states: &[&str]| states.iter().filter_map(|state| counts.by_state.get(*state)).sum::<u64>();
        let before = of(&["waiting", "collecting_vci", "checking_readiness", "deferred"]);
        let under_way = of(&["downloading", "installing", "committing", "verifying", "rolling_back"]);
        match self {
            Self::Start => filled(t.will_start, &[&view.vehicles, &view.release]),
            Self::Pause => filled(t.will_pause, &[&number(before), &number(under_way)]),
            Self::Resume => filled(t.will_resume, &[&number(before)]),
            Self::OpenWave => {
                let next = view.waves.iter().find(|wave| !wave.is_open);
                let vehicles = next.map_or("0", |wave| wave.vehicles.as_str());
                filled(t.will_open_wave, &[&next.map_or(0, |wave| wave.number).to_string(), vehicles])
            }
            Self::Abort => filled(t.will_abort, &[&number(before), &number(under_way)]),
        }
    }
}

/// `GET /campaigns/{name}/{action}`: says what will happen before it happens.
pub(super) async fn confirm(
    State(console): State<Console>,
    visitor: Visitor,
    Path((name, action)): Path<(String, String)>,
) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    let action = by_name(&action).map_err(|problem| visitor.failed(problem))?;
    visitor.must(crate::access::Permission::Operate)?;
    let seen = console.api.read(move |tx| {
        let campaign = found(tx, &name)?;
        Ok((view(tx, t, &campaign)?, campaigns::counts(tx, &campaign.name)?))
    });
    let (view, counts) = seen.await.map_err(|problem| visitor.failed(problem))?;
    if !view.can(action) {
        let detail = filled(t.not_now, &[&view.name, view.state_name]);
        return Err(visitor.failed(Problem::conflict("NOT_NOW", detail)));
    }
    Ok(shown(&ConfirmPage {
        frame: visitor.frame(),
        title: filled(t.action_of_campaign, &[action.text(t), &view.name]),
        consequence: action.consequence(t, &view, &counts),
        verb: action.text(t),
        is_grave: action.is_grave(),
        asks_why: action == Action::Abort,
        back: format!("/campaigns/{}", view.name),
    }))
}

fn by_name(name: &str) -> Result<Action, Problem> {
    let action = Action::ALL.into_iter().find(|action| action.name() == name);
    action.ok_or_else(|| Problem::not_found("page", name))
}

#[derive(Deserialize)]
pub(super) struct Confirmed {
    #[serde(default)]
    reason: String,
}

/// `POST /campaigns/{name}/{action}`
pub(super) async fn act(
    State(console): State<Console>,
    visitor: Visitor,
    Path((name, action)): Path<(String, String)>,
    axum::Form(Confirmed { reason }): axum::Form<Confirmed>,
) -> Result<Response, Failed> {
    visitor.must(crate::access::Permission::Operate)?;
    let failed = |problem| visitor.failed(problem);
    let (api, caller, path) = (State(console.api), visitor.caller(), api::InPath(name.clone()));
    let _ = match by_name(&action).map_err(failed)? {
        Action::Start => api::campaigns::start(api, caller, path).await.map_err(failed)?,
        Action::Pause => api::campaigns::pause(api, caller, path).await.map_err(failed)?,
        Action::Resume => api::campaigns::resume(api, caller, path).await.map_err(failed)?,
        Action::OpenWave => api::campaigns::open_wave(api, caller, path).await.map_err(failed)?,
        Action::Abort => {
            let reason: Text = reason.trim().parse().map_err(|error| {
                failed(Problem::invalid(format!("{}: {error}.", visitor.guest.language.texts().reason)))
            })?;
            let body = api::Document(api::campaigns::CancelReason { reason });
            api::campaigns::abort(api, caller, path, body).await.map_err(failed)?
        }
    };
    Ok(axum::response::Redirect::to(&format!("/campaigns/{name}")).into_response())
}
