//! `/import` and `/export`: many vehicles at a time, in files. What an import would do is shown before it is done.

use askama::Template;
use axum::Form;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use farrier_campaign::Selection;
use serde::Deserialize;

use super::Console;
use super::format::number;
use super::objection::Objection;
use super::page::{Failed, Frame, Section, with_status};
use super::session::Visitor;
use super::switch::Switch;
use super::texts::{Texts, filled};
use crate::access::Permission;
use crate::api::import::{ImportQuery, import};
use crate::api::{self, Api, Caller, LineFault, Problem};
use crate::store::selection;
use crate::vehicle_files::{BrokenFile, COLUMNS, FileFormat, VEHICLES_AT_A_TIME};

/// What an import would do, or has done.
#[derive(Default)]
struct Sums {
    enrolled: u64,
    changed: u64,
    unchanged: u64,
    is_done: bool,
}

impl Sums {
    fn told(&self) -> [String; 3] {
        [self.enrolled, self.changed, self.unchanged].map(number)
    }
}

#[derive(Template)]
#[template(path = "import.html")]
struct ImportPage {
    frame: Frame,
    text: String,
    sums: Option<Sums>,
    faults: Vec<LineFault>,
    error: Option<Objection>,
    columns: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Typed {
    text: String,
    go: String,
}

fn page(
    visitor: &Visitor,
    text: String,
    sums: Option<Sums>,
    faults: Vec<LineFault>,
    error: Option<Objection>,
) -> Response {
    let is_refused = error.is_some() || !faults.is_empty();
    let switch = Switch::of("import", "/import");
    let frame = Frame { section: Some(Section::Vehicles), switch, ..visitor.frame() };
    let page = ImportPage { frame, text, sums, faults, error, columns: COLUMNS.join(",") };
    with_status(if is_refused { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK }, &page)
}

/// `GET /import`
pub(super) async fn form(visitor: Visitor) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    Ok(page(&visitor, String::new(), None, Vec::new(), None))
}

/// `POST /import`: tries it, and does it only where that was asked for.
pub(super) async fn run(
    State(console): State<Console>,
    visitor: Visitor,
    Form(Typed { text, go }): Form<Typed>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let (t, text) = (visitor.guest.language.texts(), text.replace("\r\n", "\n"));
    if visitor.guest.only_switches {
        return Ok(page(&visitor, text, None, Vec::new(), None));
    }
    let vehicles = match FileFormat::of(&text).vehicles(&text) {
        Ok(vehicles) if vehicles.is_empty() => {
            return Ok(page(&visitor, text, None, Vec::new(), Some(broken(t, &BrokenFile::Empty))));
        }
        Ok(vehicles) => vehicles,
        Err(error) => return Ok(page(&visitor, text, None, Vec::new(), Some(broken(t, &error)))),
    };
    // Nothing is done before all of it could be.
    let mut sums = batches(&console.api, &visitor.caller(), &vehicles, true).await;
    if sums.is_ok() && go == "import" {
        sums = batches(&console.api, &visitor.caller(), &vehicles, false).await;
    }
    match sums {
        Ok(sums) if sums.is_done => Ok(page(&visitor, String::new(), Some(sums), Vec::new(), None)),
        Ok(sums) => Ok(page(&visitor, text, Some(sums), Vec::new(), None)),
        Err(problem) if problem.status().is_server_error() => Err(visitor.failed(problem)),
        Err(problem) if problem.faults().is_empty() => {
            Ok(page(&visitor, text, None, Vec::new(), Some(Objection::of(t, &problem))))
        }
        Err(problem) => {
            let faults = problem.faults().to_vec();
            Ok(page(&visitor, text, None, faults, None))
        }
    }
}

/// Why a file cannot be read, as `BrokenFile` says it in English.
fn broken(t: &Texts, error: &BrokenFile) -> Objection {
    let f = &t.of_forms;
    let said = match error {
        BrokenFile::Empty => f.file_empty.to_owned(),
        BrokenFile::Column { found } => filled(f.file_columns, &[&COLUMNS.join(", "), found]),
        BrokenFile::Cells { line, expected, found } => {
            filled(f.file_cells, &[&line.to_string(), &expected.to_string(), &found.to_string()])
        }
        BrokenFile::Quote(line) => filled(f.file_quote, &[&line.to_string()]),
    };
    said.into()
}

/// Each batch as a whole or not at all; a fault is told with its line in the file.
async fn batches(
    api: &Api,
    caller: &Caller,
    vehicles: &[(usize, String)],
    dry_run: bool,
) -> Result<Sums, Problem> {
    let mut sums = Sums { is_done: !dry_run, ..Sums::default() };
    for batch in vehicles.chunks(VEHICLES_AT_A_TIME) {
        let lines: Vec<&str> = batch.iter().map(|(_, vehicle)| vehicle.as_str()).collect();
        let lines = api::Lines(Bytes::from(lines.join("\n")));
        let query = api::InQuery(ImportQuery { dry_run });
        let done = import(State(api.clone()), caller.clone(), query, lines).await;
        let done = done.map_err(|problem| {
            problem.of_lines(|line| {
                line.checked_sub(1).and_then(|index| batch.get(index)).map_or(line, |(line, _)| *line)
            })
        })?;
        sums.enrolled = sums.enrolled.saturating_add(done.enrolled);
        sums.changed = sums.changed.saturating_add(done.changed);
        sums.unchanged = sums.unchanged.saturating_add(done.unchanged);
    }
    Ok(sums)
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    q: String,
    format: String,
}

/// `GET /export`: the vehicles of a query as they can be imported again, page by page so that none waits for the last.
pub(super) async fn export(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Wanted { q, format }): Query<Wanted>,
) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    let selected = super::vehicles::read(t, q.trim());
    let selection = selected.map_err(|mark| visitor.failed(Problem::invalid(mark.sentence).localised()))?;
    let selection = selection.unwrap_or(Selection::All);
    let (format, file, kind) = match format.as_str() {
        "jsonl" => (FileFormat::JsonLines, "attachment; filename=\"vehicles.jsonl\"", "application/jsonl"),
        _ => (FileFormat::Csv, "attachment; filename=\"vehicles.csv\"", "text/csv; charset=utf-8"),
    };
    let api = console.api.clone();
    let state = (api, selection, Some(String::new()), format);
    let pages = futures_util::stream::unfold(state, |(api, selection, after, format)| async move {
        let after = after?;
        let page = lines(&api, &selection, &after, format).await;
        let (text, next) = match page {
            Ok(page) => page,
            Err(problem) => {
                // Whoever saves it must not take a part for the whole.
                let broken = std::io::Error::other(problem.detail().to_owned());
                return Some((Err(broken), (api, selection, None, format)));
            }
        };
        let text = if after.is_empty() { format!("{}{text}", format.heading()) } else { text };
        Some((Ok(Bytes::from(text)), (api, selection, next, format)))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(file)),
    ];
    Ok((headers, Body::from_stream(pages)).into_response())
}

/// A page of the export, and after which vehicle the next one begins.
async fn lines(
    api: &Api,
    selection: &Selection,
    after: &str,
    format: FileFormat,
) -> Result<(String, Option<String>), Problem> {
    let (asked, selection, after) = (api.clone(), selection.clone(), after.to_owned());
    let at_a_time = u32::try_from(VEHICLES_AT_A_TIME).unwrap_or(u32::MAX);
    api.read(move |tx| {
        let vehicles = selection::page(tx, &selection, &after, at_a_time)?;
        let next = vehicles.last().filter(|_| vehicles.len() == VEHICLES_AT_A_TIME);
        let next = next.map(|last| last.binding.vehicle_id.to_string());
        let mut text = String::new();
        for vehicle in &vehicles {
            text.push_str(&format.line(&api::vehicles::exported(tx, &asked, vehicle)?));
        }
        Ok((text, next))
    })
    .await
}
