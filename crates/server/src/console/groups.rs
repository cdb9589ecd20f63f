//! `/groups`: fleet groups: saved queries, made, changed and deleted by the API's own operations.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use farrier_protocol::LongText;
use serde::Deserialize;

use super::Console;
use super::confirm::ConfirmPage;
use super::form::{self, Field, Kind};
use super::format::{Time, number, time};
use super::objection::Objection;
use super::page::{Failed, Frame, Section, shown, with_status};
use super::query::{self, Help, Selected};
use super::session::Visitor;
use super::switch::Switch;
use super::texts::{Texts, filled};
use crate::access::Permission;
use crate::api::{self, Problem};
use crate::store::{groups, selection};

/// Groups on a page: each one's vehicles are counted.
const ON_A_PAGE: u32 = 20;

struct Row {
    name: String,
    query: String,
    note: String,
    vehicles: String,
    updated: Time,
}

#[derive(Template)]
#[template(path = "groups.html")]
struct GroupsPage {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
    form: GroupForm,
}

#[derive(Template)]
#[template(path = "group.html")]
struct GroupPage {
    frame: Frame,
    name: String,
    form: GroupForm,
}

/// What is typed of a group.
struct GroupForm {
    fields: Vec<Field>,
    selected: Option<Selected>,
    help: Help,
    /// What is wrong with none of the inputs.
    fault: Option<Objection>,
}

#[derive(Clone, Default, Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    name: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    after: String,
    /// A query that is to be saved.
    #[serde(default)]
    query: String,
}

fn framed(visitor: &Visitor) -> Frame {
    Frame { section: Some(Section::Vehicles), ..visitor.frame() }
}

/// The inputs; a new group has a name to choose.
fn inputs(
    t: &'static Texts,
    typed: &Typed,
    is_new: bool,
    problem: Option<&Problem>,
    selected: Option<Selected>,
) -> GroupForm {
    let query = typed.query.replace("\r\n", "\n");
    let mut fields = Vec::new();
    if is_new {
        fields.push(Field::text("name", t.name, &typed.name).with_hint(t.hint_group_name));
    }
    fields.push(Field::new("query", t.query, Kind::Lines, &query));
    fields.push(Field::new("note", t.note, Kind::Text(512, Vec::new()), &typed.note));
    let mut fault = problem.map(|problem| Objection::of(t, problem));
    let at = match problem.and_then(Problem::pointer) {
        Some(pointer) => pointer.trim_start_matches('/'),
        None if problem.is_some_and(|problem| problem.code() == "QUERY_INVALID") => "query",
        None => "",
    };
    if let Some(field) = fields.iter_mut().find(|field| field.name == at) {
        field.fault = fault.take();
        field.mark = query::read(t, &query).err().filter(|_| at == "query");
    }
    GroupForm { fields, selected, help: Help, fault }
}

/// `GET /groups`
pub(super) async fn list(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { after, query }): Query<Asked>,
) -> Result<Response, Failed> {
    let typed = Typed { query, ..Typed::default() };
    listed(&console, &visitor, after, typed, None).await
}

async fn listed(
    console: &Console,
    visitor: &Visitor,
    after: String,
    typed: Typed,
    problem: Option<Problem>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let asked = typed.query.clone();
    let seen = console.api.read(move |tx| {
        let mut rows = Vec::new();
        let mut all = groups::page(tx, &after, ON_A_PAGE + 1)?;
        let has_more = all.len() > ON_A_PAGE as usize;
        all.truncate(ON_A_PAGE as usize);
        for group in &all {
            rows.push(Row {
                name: group.name.to_string(),
                query: group.selection.to_string(),
                note: group.note.as_ref().map(ToString::to_string).unwrap_or_default(),
                vehicles: number(selection::count(tx, &group.selection)?),
                updated: time(t, group.updated_at, now),
            });
        }
        let selected =
            (!asked.is_empty()).then(|| Selected::of(tx, t, query::read(t, &asked))).transpose()?;
        Ok((rows, has_more, selected))
    });
    let (rows, has_more, selected) = seen.await.map_err(|problem| visitor.failed(problem))?;
    let next = rows.last().filter(|_| has_more).map(|row| row.name.clone());
    let form = inputs(t, &typed, true, problem.as_ref(), selected);
    let frame = framed(visitor);
    // Others do not have the form.
    let switch = Switch::of("group", "/groups").filter(|_| frame.may_operate());
    let frame = Frame { switch, ..frame };
    let page = GroupsPage { frame, rows, next, form };
    Ok(with_status(problem.map_or(StatusCode::OK, |problem| problem.status()), &page))
}

/// Reads what the API takes as a text of its own.
fn note(t: &Texts, typed: &str) -> Result<Option<LongText>, Problem> {
    match typed.trim() {
        "" => Ok(None),
        text => form::read(t, text, t.a_long_text)
            .map(Some)
            .map_err(|what| Problem::invalid(what).localised().at("/note")),
    }
}

/// `POST /groups`
pub(super) async fn create(
    State(console): State<Console>,
    visitor: Visitor,
    Form(typed): Form<Typed>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    if visitor.guest.only_switches {
        return listed(&console, &visitor, String::new(), typed, None).await;
    }
    let name = typed.name.trim().to_owned();
    let made = match note(visitor.guest.language.texts(), &typed.note) {
        Ok(note) => {
            let new = api::groups::NewGroup { name: name.clone(), query: typed.query.clone(), note };
            let new = api::Document(new);
            api::groups::create(State(console.api.clone()), visitor.caller(), new).await.map(|_| ())
        }
        Err(problem) => Err(problem),
    };
    match made {
        Ok(()) => Ok(Redirect::to(&format!("/groups/{name}")).into_response()),
        Err(problem) if problem.status().is_server_error() => Err(visitor.failed(problem)),
        Err(problem) => listed(&console, &visitor, String::new(), typed, Some(problem)).await,
    }
}

/// `GET /groups/{name}`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Path(text): Path<String>,
) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    let seen = console.api.read(move |tx| {
        let missing = || Problem::not_found("group", &text);
        let name = api::name(&text, "group")?;
        let group = groups::by_name(tx, &name)?.ok_or_else(missing)?;
        Ok((Selected::of(tx, t, Ok(group.selection.clone()))?, group))
    });
    let (selected, group) = seen.await.map_err(|problem| visitor.failed(problem))?;
    let typed = Typed {
        name: group.name.to_string(),
        query: group.selection.to_string(),
        note: group.note.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let form = inputs(t, &typed, false, None, Some(selected));
    Ok(shown(&group_page(&visitor, typed.name, form)))
}

fn group_page(visitor: &Visitor, name: String, form: GroupForm) -> GroupPage {
    let switch = Switch::of("group", format!("/groups/{name}"));
    GroupPage { frame: Frame { switch, ..framed(visitor) }, name, form }
}

/// `POST /groups/{name}`: changes it.
pub(super) async fn change(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    if visitor.guest.only_switches {
        return Ok(shown(&group_page(&visitor, name, inputs(t, &typed, false, None, None))));
    }
    visitor.must(Permission::Operate)?;
    let changed = match note(t, &typed.note) {
        Ok(note) => {
            let document = api::Document(api::groups::ChangedGroup { query: typed.query.clone(), note });
            let path = api::InPath(name.clone());
            let change = api::groups::change(State(console.api.clone()), visitor.caller(), path, document);
            change.await.map(|_| ())
        }
        Err(problem) => Err(problem),
    };
    match changed {
        Ok(()) => Ok(Redirect::to(&format!("/groups/{name}")).into_response()),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            let form = inputs(t, &typed, false, Some(&problem), None);
            Ok(with_status(problem.status(), &group_page(&visitor, name, form)))
        }
        Err(problem) => Err(visitor.failed(problem)),
    }
}

/// `GET /groups/{name}/delete`: says what will happen.
pub(super) async fn ask_to_delete(visitor: Visitor, Path(name): Path<String>) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let t = visitor.guest.language.texts();
    let name = api::name(&name, "group").map_err(|problem| visitor.failed(problem))?;
    let (title, back) = (filled(t.delete_group, &[name.as_str()]), format!("/groups/{name}"));
    let page = ConfirmPage::new(framed(&visitor), title, t.will_delete_group.to_owned(), t.delete, back);
    Ok(shown(&ConfirmPage { is_grave: true, ..page }))
}

/// `POST /groups/{name}/delete`
pub(super) async fn delete(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let deleted = api::groups::delete(State(console.api), visitor.caller(), api::InPath(name)).await;
    let _ = deleted.map_err(|problem| visitor.failed(problem))?;
    Ok(Redirect::to("/groups").into_response())
}
