//! What an operator can do with a campaign. Each is said in full before it happens, with how many vehicles it is about, and is done
//! by the API's own operation.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use farrier_protocol::Text;
use serde::Deserialize;

use super::found;
use super::view::View;
use crate::access::Permission;
use crate::api::approvals::{Question, Word};
use crate::api::{self, Problem};
use crate::console::Console;
use crate::console::confirm::ConfirmPage;
use crate::console::form::{self, Field, Kind};
use crate::console::format::number;
use crate::console::objection::Objection;
use crate::console::page::{Failed, shown, with_status};
use crate::console::session::Visitor;
use crate::console::texts::{Texts, filled};
use crate::store::campaigns::{self, Campaign, StateCounts};
use crate::store::{Tx, set_aside, updates};

/// Updates of one state that are looked at for whether they would be tried again.
const LOOKED_AT: u32 = 1_000;
/// Characters of what is said with an action.
const LONGEST_WORDS: u32 = 128;

/// What an operator can do with a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Start,
    Approve,
    Reject,
    Pause,
    Resume,
    OpenWave,
    /// Of those that ended with one code.
    Retry,
    Abort,
}

impl Action {
    pub(super) const ALL: [Self; 8] = [
        Self::Start,
        Self::Approve,
        Self::Reject,
        Self::Pause,
        Self::Resume,
        Self::OpenWave,
        Self::Retry,
        Self::Abort,
    ];

    /// As the address names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::OpenWave => "open-wave",
            Self::Retry => "retry",
            Self::Abort => "abort",
        }
    }

    pub(super) fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::Start => t.start,
            Self::Approve => t.approve,
            Self::Reject => t.reject,
            Self::Pause => t.pause,
            Self::Resume => t.resume,
            Self::OpenWave => t.open_next_wave,
            Self::Retry => t.retry,
            Self::Abort => t.abort,
        }
    }

    pub(super) fn is_grave(self) -> bool {
        matches!(self, Self::Abort | Self::Reject)
    }

    /// What is asked for with it.
    fn words(self, t: &Texts) -> Option<&'static str> {
        match self {
            Self::Approve | Self::Reject => Some(t.remark),
            Self::Abort => Some(t.reason),
            Self::Start | Self::Pause | Self::Resume | Self::OpenWave | Self::Retry => None,
        }
    }

    /// What will happen, and to how many vehicles.
    fn consequence(self, t: &Texts, seen: &Seen) -> String {
        let Seen { view, counts, retried, .. } = seen;
        let of = |states: &[&str]| states.iter().filter_map(|state| counts.by_state.get(*state)).sum::<u64>();
        let before = of(&["waiting", "collecting_vci", "checking_readiness", "deferred"]);
        let under_way = of(&["downloading", "installing", "committing", "verifying", "rolling_back"]);
        let next = view.waves.iter().find(|wave| !wave.is_open);
        let next_vehicles = next.map_or("0", |wave| wave.vehicles.as_str());
        match (self, view.question) {
            (Self::Start, _) => filled(t.will_start, &[&view.vehicles, &view.release]),
            (Self::Approve, Some(Question::Wave(wave))) => {
                filled(t.will_approve_wave, &[&wave.to_string(), next_vehicles])
            }
            (Self::Approve, Some(Question::Start) | None) => {
                filled(t.will_approve_start, &[&view.release, &view.vehicles])
            }
            (Self::Reject, Some(Question::Wave(wave))) => {
                filled(t.will_reject_wave, &[&wave.to_string(), next_vehicles])
            }
            (Self::Reject, Some(Question::Start) | None) => filled(t.will_reject_start, &[&view.vehicles]),
            (Self::Pause, _) => filled(t.will_pause, &[&number(before), &number(under_way)]),
            (Self::Resume, _) => filled(t.will_resume, &[&number(before)]),
            (Self::OpenWave, _) => {
                let wave = next.map_or(0, |wave| wave.number).to_string();
                filled(t.will_open_wave, &[&wave, next_vehicles])
            }
            (Self::Retry, _) => {
                let text = if retried.is_part { t.will_retry_at_least } else { t.will_retry };
                filled(text, &[&number(retried.vehicles), &seen.code, &number(retried.set_aside)])
            }
            (Self::Abort, _) => filled(t.will_abort, &[&number(before), &number(under_way)]),
        }
    }
}

/// What is known when an action is confirmed.
struct Seen {
    view: View,
    counts: StateCounts,
    code: String,
    retried: Retried,
}

/// How many would be tried again, and how many would but for being set aside.
#[derive(Default)]
struct Retried {
    vehicles: u64,
    set_aside: u64,
    /// Whether there may be more.
    is_part: bool,
}

impl Retried {
    fn of(tx: &Tx<'_>, campaign: &Campaign, code: &str) -> Result<Self, Problem> {
        let mut all = Self::default();
        // By state, each from an index: of a large campaign most have succeeded.
        for state in ["rolled_back", "ineligible", "cancelled", "waiting"] {
            let page = updates::page_in_state(tx, &campaign.name, state, "", LOOKED_AT)?;
            all.is_part |= page.len() >= LOOKED_AT as usize;
            for update in page.iter().filter(|update| update.state.failure_codes().contains(&code)) {
                let is_set_aside = set_aside::of(tx, &update.vehicle_id, &campaign.release)?.is_some();
                let number = if is_set_aside { &mut all.set_aside } else { &mut all.vehicles };
                *number = number.saturating_add(1);
            }
        }
        Ok(all)
    }
}

/// What goes with an action.
#[derive(Deserialize, Default)]
pub(in crate::console) struct Asked {
    /// Why, or what was looked at.
    #[serde(default)]
    reason: String,
    /// Of those that are tried again.
    #[serde(default)]
    code: String,
    /// The wave that was shown as the next one.
    wave: Option<u32>,
}

/// `GET /campaigns/{name}/{action}`: says what will happen before it happens.
pub(in crate::console) async fn confirm(
    State(console): State<Console>,
    visitor: Visitor,
    Path((name, action)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let action = by_name(&action).map_err(|problem| visitor.failed(problem))?;
    visitor.must(Permission::Operate)?;
    Ok(shown(&confirmation(&console, &visitor, name, action, asked, None).await?))
}

async fn confirmation(
    console: &Console,
    visitor: &Visitor,
    name: String,
    action: Action,
    asked: Asked,
    fault: Option<&Problem>,
) -> Result<ConfirmPage, Failed> {
    let t = visitor.guest.language.texts();
    let (rules, now, code) = (console.api.rules.clone(), console.api.now(), asked.code.clone());
    let seen = console.api.read(move |tx| {
        let campaign = found(tx, &name)?;
        let retried = match action {
            Action::Retry => Retried::of(tx, &campaign, &code)?,
            Action::Start
            | Action::Approve
            | Action::Reject
            | Action::Pause
            | Action::Resume
            | Action::OpenWave
            | Action::Abort => Retried::default(),
        };
        let view = View::without_tallies(tx, t, &rules, &campaign, now)?;
        Ok(Seen { view, counts: campaigns::counts(tx, &campaign.name)?, code, retried })
    });
    let seen = seen.await.map_err(|problem| visitor.failed(problem))?;
    let view = &seen.view;
    let has_none = action == Action::Retry && seen.retried.vehicles == 0 && !seen.retried.is_part;
    if !view.can(action) || has_none {
        let detail = match has_none && view.can(action) {
            true => filled(t.none_to_retry, &[&seen.code, &number(seen.retried.set_aside)]),
            false => filled(t.not_now, &[&view.name, view.state_name]),
        };
        return Err(visitor.failed(Problem::conflict("NOT_NOW", detail)));
    }
    let note = match (action, view.question) {
        (Action::Approve, Some(Question::Wave(_))) => Some(t.second_person_of_wave),
        (Action::Approve, Some(Question::Start) | None) => Some(t.second_person_of_start),
        (
            Action::Start
            | Action::Reject
            | Action::Pause
            | Action::Resume
            | Action::OpenWave
            | Action::Retry
            | Action::Abort,
            _,
        ) => None,
    };
    let mut with = Vec::new();
    if let (Action::Approve | Action::Reject, Some(Question::Wave(wave))) = (action, view.question) {
        with.push(("wave", wave.to_string()));
    }
    if action == Action::Retry {
        with.push(("code", seen.code.clone()));
    }
    let is_of_words = fault.is_some_and(|problem| problem.status() == StatusCode::UNPROCESSABLE_ENTITY);
    let detail = fault.map(|problem| Objection::of(t, problem));
    let (of_words, refused) = if is_of_words { (detail, None) } else { (None, detail) };
    let mut fields = Vec::new();
    if let Some(label) = action.words(t) {
        let field = Field::new("reason", label, Kind::Text(LONGEST_WORDS, Vec::new()), &asked.reason);
        fields.push(Field { fault: of_words, ..field });
    }
    let (title, consequence) =
        (filled(t.action_of_campaign, &[action.text(t), &view.name]), action.consequence(t, &seen));
    let back = format!("/campaigns/{}", view.name);
    let mut page = ConfirmPage::new(visitor.frame(), title, consequence, action.text(t), back);
    page.consequences.extend(note.map(str::to_owned));
    Ok(ConfirmPage { refused, fields, with, is_grave: action.is_grave(), ..page })
}

fn by_name(name: &str) -> Result<Action, Problem> {
    let action = Action::ALL.into_iter().find(|action| action.name() == name);
    action.ok_or_else(|| Problem::not_found("page", name))
}

/// `POST /campaigns/{name}/{action}`
pub(in crate::console) async fn act(
    State(console): State<Console>,
    visitor: Visitor,
    Path((name, action)): Path<(String, String)>,
    axum::Form(asked): axum::Form<Asked>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let action = by_name(&action).map_err(|problem| visitor.failed(problem))?;
    match done(&console, &visitor, &name, action, &asked).await {
        Ok(()) => Ok(Redirect::to(&format!("/campaigns/{name}")).into_response()),
        Err(problem) => {
            let page = confirmation(&console, &visitor, name, action, asked, Some(&problem)).await;
            // Where it cannot be done at all any more, that is said.
            Ok(with_status(problem.status(), &page?))
        }
    }
}

async fn done(
    console: &Console,
    visitor: &Visitor,
    name: &str,
    action: Action,
    asked: &Asked,
) -> Result<(), Problem> {
    let t = visitor.guest.language.texts();
    let (api, caller, path) = (State(console.api.clone()), visitor.caller(), api::InPath(name.to_owned()));
    let words = || {
        let words = form::read::<Text>(t, &asked.reason, t.of_forms.a_short_text);
        words.map_err(|what| Problem::invalid(what).localised())
    };
    let word = || words().map(|remark| api::Document(Word { remark, wave: asked.wave }));
    match action {
        Action::Start => api::campaigns::start(api, caller, path).await.map(drop),
        Action::Approve => api::approvals::approve(api, caller, path, word()?).await.map(drop),
        Action::Reject => api::approvals::reject(api, caller, path, word()?).await.map(drop),
        Action::Pause => api::campaigns::pause(api, caller, path).await.map(drop),
        Action::Resume => api::campaigns::resume(api, caller, path).await.map(drop),
        Action::OpenWave => api::campaigns::open_wave(api, caller, path).await.map(drop),
        Action::Retry => {
            let body = api::Document(api::campaigns::Retry { codes: vec![asked.code.clone()] });
            api::campaigns::retry(api, caller, path, body).await.map(drop)
        }
        Action::Abort => {
            let body = api::Document(api::campaigns::CancelReason { reason: words()? });
            api::campaigns::abort(api, caller, path, body).await.map(drop)
        }
    }
}
