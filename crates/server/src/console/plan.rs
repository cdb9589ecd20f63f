//! `/plan`: a campaign is planned step by step in one form, which carries all that was typed; then looked at as a dry run, and
//! created by the API's own operation.

mod document;
mod draft;
mod like;
mod outlook;
mod steps;

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use self::document::Fault;
use self::draft::Draft;
use self::outlook::{Dry, Outlook, refused};
use self::steps::{Offered, Part, Step, parts};
use super::Console;
use super::form::Kind;
use super::page::{Failed, Frame, Section, shown, with_status};
use super::query::{Help, Selected};
use super::session::Visitor;
use super::switch::Switch;
use super::texts::Texts;
use crate::access::Permission;
use crate::api::dry_run::{DryRun, DryRunVerdict};
use crate::api::new_campaign::{self, NewCampaign};
use crate::api::{self, Problem};
use crate::store::{Tx, campaigns, evidence, groups, intake, releases};

/// Names that are proposed at most.
const PROPOSED: u32 = 200;

#[derive(Template)]
#[template(path = "plan.html")]
struct PlanPage {
    frame: Frame,
    step: Step,
    /// The inputs of the other steps.
    carried: Vec<(String, String)>,
    parts: Vec<Part>,
    /// What is wrong with no input of this step.
    faults: Vec<Fault>,
    /// Those that are told above the form, each with where it leads.
    wrong: Vec<(String, String)>,
    selected: Option<Selected>,
    help: Help,
    outlook: Option<Outlook>,
    dry: Option<Dry>,
    /// Whether it is asked for the last time before it starts.
    confirms: bool,
}

impl PlanPage {
    fn steps(&self) -> [Step; 5] {
        Step::ALL
    }
}

#[derive(Template)]
#[template(path = "selected.html")]
struct SelectedPart<'a> {
    t: &'static Texts,
    selected: &'a Selected,
}

/// Where planning begins.
#[derive(Deserialize)]
pub(super) struct Begin {
    /// As another campaign.
    #[serde(default)]
    like: String,
    #[serde(default)]
    release: String,
    /// For a fleet group.
    #[serde(default)]
    group: String,
    /// For a query.
    #[serde(default)]
    r#where: String,
}

/// What a button asks for.
enum Go {
    Next,
    To(Step),
    /// The same step again, after a change of a list.
    Change(String),
    /// The vehicles of one verdict of the dry run, after one of them.
    List(DryRunVerdict, Option<String>),
    Create,
    /// Says what will happen.
    AskToStart,
    Start,
}

impl Go {
    fn of(text: &str, step: Step) -> Self {
        if let Some((verdict, after)) = text.strip_prefix("list:").and_then(|rest| rest.split_once(':'))
            && let Some(verdict) = outlook::verdict(verdict)
        {
            return Self::List(verdict, Some(after).filter(|after| !after.is_empty()).map(str::to_owned));
        }
        match text {
            "back" => Self::To(step.before().unwrap_or(step)),
            "create" => Self::Create,
            "start" => Self::AskToStart,
            "start-now" => Self::Start,
            text => match text.strip_prefix("to-").and_then(Step::named) {
                Some(step) => Self::To(step),
                None if text.starts_with("add-") || text.starts_with("drop-") => {
                    Self::Change(text.to_owned())
                }
                None => Self::Next,
            },
        }
    }
}

/// `GET /plan`
pub(super) async fn begin(
    State(console): State<Console>,
    visitor: Visitor,
    Query(begin): Query<Begin>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let draft = console.api.read(move |tx| first_draft(tx, begin)).await;
    let draft = draft.map_err(|problem| visitor.failed(problem))?;
    let view = View { step: Step::Vehicles, faults: Vec::new(), listed: None, confirms: false };
    page(&console, &visitor, &draft, view).await
}

fn first_draft(tx: &Tx<'_>, begin: Begin) -> Result<Draft, Problem> {
    let mut draft = match begin.like.as_str() {
        "" => Draft::usual(),
        like => {
            let campaign = super::campaign::found(tx, like)?;
            let named = match (&campaign.intake.query, campaign.every_vehicle) {
                (None, false) => intake::vehicles_after(tx, &campaign, "", 10_000)?,
                _ => Vec::new(),
            };
            Draft::like(&campaign, &named, evidence::statement(tx, &campaign.name)?)
        }
    };
    if !begin.release.is_empty() {
        draft.whole.release = begin.release;
    }
    if !begin.group.is_empty() {
        (draft.whole.group, draft.whole.whom) = (begin.group, "group".to_owned());
    } else if !begin.r#where.is_empty() {
        (draft.whole.query, draft.whole.whom) = (begin.r#where, "where".to_owned());
    }
    Ok(draft)
}

/// `POST /plan`: nothing is stored before the last step.
pub(super) async fn go(
    State(console): State<Console>,
    visitor: Visitor,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let last =
        |name: &str| sent.iter().rev().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let step = Step::named(last("step")).unwrap_or(Step::Vehicles);
    let go = Go::of(last("go"), step);
    let mut draft = Draft::of(sent.iter().filter(|(key, _)| key != "step" && key != "go").cloned());
    let view = |step: Step, faults: Vec<Fault>| View { step, faults, listed: None, confirms: false };
    if visitor.guest.only_switches {
        if step == Step::Review {
            return review(&console, &visitor, &draft, None, last("asks") == "on").await;
        }
        let mut seen = Vec::new();
        if last("told") == "on" {
            seen = faults(&console, &visitor, &draft).await.map_err(|problem| visitor.failed(problem))?;
            seen.retain(|fault| Step::of_input(&fault.input) == step);
        }
        return page(&console, &visitor, &draft, view(step, seen)).await;
    }
    match go {
        Go::To(Step::Review) => review(&console, &visitor, &draft, None, false).await,
        Go::To(to) => page(&console, &visitor, &draft, view(to, Vec::new())).await,
        Go::Change(change) => {
            draft.change(&change);
            page(&console, &visitor, &draft, view(step, Vec::new())).await
        }
        Go::Next => {
            let mut faults = faults(&console, &visitor, &draft).await.map_err(|p| visitor.failed(p))?;
            faults.retain(|fault| Step::of_input(&fault.input) == step);
            match (faults.is_empty(), step.next()) {
                (true, Step::Review) => review(&console, &visitor, &draft, None, false).await,
                (true, next) => page(&console, &visitor, &draft, view(next, faults)).await,
                (false, _) => page(&console, &visitor, &draft, view(step, faults)).await,
            }
        }
        Go::List(verdict, after) => review(&console, &visitor, &draft, Some((verdict, after)), false).await,
        Go::AskToStart => review(&console, &visitor, &draft, None, true).await,
        Go::Create => create(console, visitor, draft, false).await,
        Go::Start => create(console, visitor, draft, true).await,
    }
}

/// `POST /plan/selected`: how many vehicles it is for, while it is typed.
pub(super) async fn selected(
    State(console): State<Console>,
    visitor: Visitor,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Failed> {
    let (t, draft) = (visitor.guest.language.texts(), Draft::of(sent));
    let selected = console.api.read(move |tx| outlook::selected(tx, t, &draft.whole)).await;
    let selected = selected.map_err(|problem| visitor.failed(problem))?;
    Ok(shown(&SelectedPart { t, selected: &selected }))
}

#[derive(Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    query: String,
}

/// `GET /selected`: how many vehicles a query selects, while it is typed.
pub(super) async fn selected_by_query(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Typed { query }): Query<Typed>,
) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    let selected = console.api.read(move |tx| match query.trim() {
        "" => Ok(Selected::Nothing(t.type_a_query.to_owned())),
        typed => Selected::of(tx, t, super::query::read(t, typed)),
    });
    let selected = selected.await.map_err(|problem| visitor.failed(problem))?;
    Ok(shown(&SelectedPart { t, selected: &selected }))
}

/// What would be refused of it. What cannot be read is all told at once; else the API says what comes first.
async fn faults(console: &Console, visitor: &Visitor, draft: &Draft) -> Result<Vec<Fault>, Problem> {
    let document = match draft.document(visitor.guest.language.texts()) {
        Ok(document) => document,
        Err(faults) => return Ok(faults),
    };
    match new_campaign::check(&console.api, &visitor.caller(), document).await {
        Ok(_) => Ok(Vec::new()),
        Err(problem) if problem.status().is_server_error() => Err(problem),
        Err(problem) => Ok(vec![refused(visitor.guest.language.texts(), &problem)]),
    }
}

/// What a page shows of the draft.
struct View {
    step: Step,
    faults: Vec<Fault>,
    listed: Option<(Outlook, Dry)>,
    confirms: bool,
}

/// The last step where all is well, else the first one with a fault.
async fn review(
    console: &Console,
    visitor: &Visitor,
    draft: &Draft,
    listed: Option<(DryRunVerdict, Option<String>)>,
    confirms: bool,
) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    let back = |faults: Vec<Fault>| {
        let step = faults.iter().map(|fault| Step::of_input(&fault.input)).min().unwrap_or(Step::Review);
        View { step, faults, listed: None, confirms: false }
    };
    let document = match draft.document(t) {
        Ok(document) => document,
        Err(faults) => return page(console, visitor, draft, back(faults)).await,
    };
    let asked = DryRun {
        release: document.release.clone(),
        vehicles: document.vehicles.clone(),
        r#where: document.r#where.clone(),
        group: document.group.clone(),
        verdict: None,
        limit: None,
        after: None,
    };
    let prepared = match new_campaign::check(&console.api, &visitor.caller(), document).await {
        Ok(prepared) => prepared,
        Err(problem) if problem.status().is_server_error() => return Err(visitor.failed(problem)),
        Err(problem) => return page(console, visitor, draft, back(vec![refused(t, &problem)])).await,
    };
    let outlook = console.api.read(move |tx| outlook::outlook(tx, t, &prepared)).await;
    let outlook = outlook.map_err(|problem| visitor.failed(problem))?;
    let dry = outlook::dry(&console.api, t, asked, listed).await;
    let dry = dry.map_err(|problem| visitor.failed(problem))?;
    let view = View { step: Step::Review, faults: Vec::new(), listed: Some((outlook, dry)), confirms };
    page(console, visitor, draft, view).await
}

async fn create(console: Console, visitor: Visitor, draft: Draft, starts: bool) -> Result<Response, Failed> {
    let document: NewCampaign = match draft.document(visitor.guest.language.texts()) {
        Ok(document) => document,
        // Says where.
        Err(_) => return review(&console, &visitor, &draft, None, false).await,
    };
    let name = document.name.clone();
    let made = new_campaign::create(State(console.api.clone()), visitor.caller(), api::Document(document));
    if let Err(problem) = made.await {
        if problem.status().is_server_error() {
            return Err(visitor.failed(problem));
        }
        let fault = refused(visitor.guest.language.texts(), &problem);
        let view =
            View { step: Step::of_input(&fault.input), faults: vec![fault], listed: None, confirms: false };
        return page(&console, &visitor, &draft, view).await;
    }
    if starts {
        let path = api::InPath(name.clone());
        let started = api::campaigns::start(State(console.api), visitor.caller(), path).await;
        let _ = started.map_err(|problem| visitor.failed(problem))?;
    }
    Ok(Redirect::to(&format!("/campaigns/{name}")).into_response())
}

async fn page(
    console: &Console,
    visitor: &Visitor,
    draft: &Draft,
    View { step, faults, listed, confirms }: View,
) -> Result<Response, Failed> {
    let (t, whole) = (visitor.guest.language.texts(), draft.whole.clone());
    let seen = console.api.read(move |tx| {
        let offered = offered(tx)?;
        let selected = match step {
            Step::Vehicles => Some(outlook::selected(tx, t, &whole)?),
            Step::Waves | Step::Pace | Step::Rules | Step::Review => None,
        };
        Ok((offered, selected))
    });
    let (offered, selected) = seen.await.map_err(|problem| visitor.failed(problem))?;
    let is_refused = !faults.is_empty();
    let (parts, others) = parts(t, step, draft, &offered, &faults);
    let here = |name: &str| parts.iter().flat_map(|part| &part.fields).any(|field| field.name == name);
    let mut carried: Vec<_> = draft.sent().into_iter().filter(|(name, _)| !here(name)).collect();
    // What the page says beside what was typed is said again when it is switched to another language.
    let said = [("told", is_refused), ("asks", confirms)].into_iter().filter(|(_, is_said)| *is_said);
    carried.extend(said.map(|(name, _)| (name.to_owned(), "on".to_owned())));
    let wrong = parts.iter().flat_map(|part| {
        let legend = &part.legend;
        part.fields
            .iter()
            .filter(|field| field.fault.is_some())
            .map(move |field| (field.name.clone(), format!("{legend}: {}", field.label)))
    });
    let wrong = wrong.collect();
    let (outlook, dry) = listed.unzip();
    let page = PlanPage {
        frame: Frame {
            section: Some(Section::Campaigns),
            switch: Switch::of("plan", "/plan"),
            ..visitor.frame()
        },
        step,
        carried,
        faults: others,
        wrong,
        parts,
        selected,
        help: Help,
        outlook,
        dry,
        confirms,
    };
    let status = if is_refused { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    Ok(with_status(status, &page))
}

fn offered(tx: &Tx<'_>) -> Result<Offered, Problem> {
    Ok(Offered {
        releases: releases::names(tx, "", PROPOSED)?.iter().map(ToString::to_string).collect(),
        groups: groups::page(tx, "", PROPOSED)?.iter().map(|group| group.name.to_string()).collect(),
        campaigns: campaigns::page(tx, "", PROPOSED)?.iter().map(|one| one.name.to_string()).collect(),
    })
}
