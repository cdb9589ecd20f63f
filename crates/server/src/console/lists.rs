//! What happened, newest first: the audit log, security events, refused messages.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use farrier_protocol::UnixMillis;
use serde::Deserialize;

use super::Console;
use super::format::{Time, number, time};
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use crate::api;
use crate::store::{audit, messages, security_events};

/// Rows on a page.
const ON_A_PAGE: u32 = 50;

struct Row {
    at: Time,
    /// In one word, with its colour.
    kind: String,
    class: &'static str,
    /// Who or what it is about.
    subject: String,
    /// Where more of the subject is to be seen.
    link: Option<String>,
    detail: String,
    times: Option<String>,
    /// What can be opened: the message itself, the digests.
    more: Option<String>,
}

#[derive(Template)]
#[template(path = "list.html")]
struct ListPage {
    frame: Frame,
    title: &'static str,
    note: &'static str,
    /// What is said where there is nothing.
    nothing: &'static str,
    rows: Vec<Row>,
    next: Option<String>,
    is_first: bool,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    before: String,
}

fn page(
    visitor: &Visitor,
    (title, note, nothing): (&'static str, &'static str, &'static str),
    mut rows: Vec<(String, Row)>,
    is_first: bool,
) -> Response {
    let has_more = rows.len() > ON_A_PAGE as usize;
    rows.truncate(ON_A_PAGE as usize);
    let next = rows.last().filter(|_| has_more).map(|(place, _)| place.clone());
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    shown(&ListPage { frame: visitor.frame(), title, note, nothing, rows, next, is_first })
}

/// `GET /audit`
pub(super) async fn audit_log(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { before }): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now, is_first) = (visitor.guest.language.texts(), console.api.now(), before.is_empty());
    let seq = before.parse().ok();
    let entries = console.api.read(move |tx| Ok(audit::page_back(tx, seq, ON_A_PAGE + 1)?)).await;
    let rows = entries.map_err(|problem| visitor.failed(problem))?.into_iter().map(|entry| {
        let row = Row {
            at: time(t, entry.at_ms, now),
            kind: entry.action.clone(),
            class: "run",
            link: page_of(&entry.object),
            subject: entry.object.clone(),
            detail: [Some(entry.actor.clone()), entry.detail.clone()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" · "),
            times: None,
            more: Some(format!(
                "{} {}\nSHA-256 {}\n← {}",
                t.entry_number, entry.seq, entry.sha256, entry.previous_sha256
            )),
        };
        (entry.seq.to_string(), row)
    });
    let texts = (t.audit_log, t.audit_note, t.nothing_here);
    Ok(page(&visitor, texts, rows.collect(), is_first))
}

/// Where the object of an audit entry is to be seen.
fn page_of(object: &str) -> Option<String> {
    let mut parts = object.split('/');
    match (parts.next()?, parts.next()?) {
        ("campaign", name) => Some(format!("/campaigns/{name}")),
        ("vehicle", id) => Some(format!("/vehicles/{id}")),
        ("release", name) => Some(format!("/releases/{name}")),
        (_, _) => None,
    }
}

/// `GET /security-events`
pub(super) async fn security_events(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { before }): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now, is_first) = (visitor.guest.language.texts(), console.api.now(), before.is_empty());
    let place = place(&before).map_err(|problem| visitor.failed(problem))?;
    let events = console.api.read(move |tx| Ok(security_events::page(tx, &place, ON_A_PAGE + 1)?)).await;
    let rows = events.map_err(|problem| visitor.failed(problem))?.into_iter().map(|event| {
        let row = Row {
            at: time(t, event.last_at, now),
            kind: event.kind.clone(),
            class: "bad",
            link: event.vehicle_id.as_ref().map(|id| format!("/vehicles/{id}")),
            subject: event.subject.clone(),
            detail: event.detail.clone(),
            times: Some(number(event.times)),
            more: None,
        };
        (api::place(&(event.last_at, &event.id)), row)
    });
    let texts = (t.security_events, t.security_note, t.nothing_suspicious);
    Ok(page(&visitor, texts, rows.collect(), is_first))
}

/// `GET /refused-messages`
pub(super) async fn refused_messages(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { before }): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now, is_first) = (visitor.guest.language.texts(), console.api.now(), before.is_empty());
    let place = place(&before).map_err(|problem| visitor.failed(problem))?;
    let refused = console.api.read(move |tx| Ok(messages::refused(tx, &place, ON_A_PAGE + 1)?)).await;
    let rows = refused.map_err(|problem| visitor.failed(problem))?.into_iter().map(|message| {
        let refusal = &message.refusal;
        let row = Row {
            at: time(t, message.last_at, now),
            kind: refusal.code.name().to_owned(),
            class: "bad",
            link: Some(format!("/vehicles/{}", message.binding.vehicle_id)),
            subject: message.binding.to_string(),
            detail: format!(
                "{}: {} {}, {} {}",
                refusal.pointer, t.expected, refusal.expected, t.found, refusal.found
            ),
            times: Some(number(message.times)),
            more: Some(message.payload.clone()),
        };
        (api::place(&(message.last_at, &message.id)), row)
    });
    let texts = (t.refused_messages, t.refused_note, t.nothing_refused);
    Ok(page(&visitor, texts, rows.collect(), is_first))
}

fn place(before: &str) -> Result<(UnixMillis, String), api::Problem> {
    match before {
        "" => Ok((UnixMillis(i64::MAX), String::new())),
        before => api::cursor(before, "before"),
    }
}
