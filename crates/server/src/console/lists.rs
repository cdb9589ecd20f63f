//! What happened, newest first: security events and refused messages, by kind and vehicle.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use farrier_protocol::{RefusalCode, UnixMillis, VehicleId};
use serde::Deserialize;

use super::Console;
use super::form;
use super::format::{Time, number, time};
use super::objection::Objection;
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::Texts;
use crate::api::{self, Problem};
use crate::store::{Tx, messages, security_events, vehicles};
use crate::vehicle_fields::Vin;

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
    facts: Vec<(&'static str, String)>,
    times: String,
    first: Time,
    /// What can be opened: the message itself.
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
    /// What the rows are sorted by into kinds.
    kind_label: &'static str,
    kinds: Vec<String>,
    kind: String,
    vehicle: String,
    /// That the vehicle is not known.
    fault: Option<Objection>,
    rows: Vec<Row>,
    next: Option<String>,
    is_first: bool,
}

impl ListPage {
    fn is_narrowed(&self) -> bool {
        !self.kind.is_empty() || !self.vehicle.is_empty()
    }

    fn with(mut self, mut rows: Vec<(String, Row)>) -> Response {
        let has_more = rows.len() > ON_A_PAGE as usize;
        rows.truncate(ON_A_PAGE as usize);
        self.next = rows.last().filter(|_| has_more).map(|(place, _)| place.clone());
        self.rows = rows.into_iter().map(|(_, row)| row).collect();
        shown(&self)
    }
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    kind: String,
    /// A vehicle's id or VIN.
    #[serde(default)]
    vehicle: String,
    #[serde(default)]
    before: String,
}

impl Asked {
    /// The vehicle that is meant; the error says that there is none.
    fn vehicle(&self, tx: &Tx<'_>, t: &Texts) -> Result<Option<VehicleId>, Problem> {
        let typed = self.vehicle.trim();
        if typed.is_empty() {
            return Ok(None);
        }
        let by_vin = match typed.parse::<Vin>() {
            Ok(vin) => vehicles::by_vin(tx, &vin)?.map(|vehicle| vehicle.binding.vehicle_id),
            Err(_) => None,
        };
        match by_vin {
            Some(vehicle_id) => Ok(Some(vehicle_id)),
            None => {
                let read = form::read(t, typed, t.vehicle_or_vin);
                read.map(Some).map_err(|what| Problem::invalid(what).localised())
            }
        }
    }

    fn place(&self) -> Result<(UnixMillis, String), Problem> {
        match self.before.as_str() {
            "" => Ok((UnixMillis(i64::MAX), String::new())),
            before => api::cursor(before, "before"),
        }
    }
}

/// `GET /security-events`
pub(super) async fn security_events(
    State(console): State<Console>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let mut page = ListPage {
        frame: visitor.frame(),
        title: t.security_events,
        note: t.security_note,
        nothing: t.nothing_suspicious,
        kind_label: t.kind,
        kinds: Vec::new(),
        kind: asked.kind.clone(),
        vehicle: asked.vehicle.clone(),
        fault: None,
        rows: Vec::new(),
        next: None,
        is_first: asked.before.is_empty(),
    };
    let seen = console.api.read(move |tx| {
        let (place, kinds) = (asked.place()?, security_events::kinds(tx)?);
        let events = match asked.vehicle(tx, t) {
            Ok(vehicle) => {
                let kind = Some(asked.kind.as_str()).filter(|kind| !kind.is_empty());
                Ok(security_events::filtered(tx, kind, vehicle.as_ref(), &place, ON_A_PAGE + 1)?)
            }
            Err(problem) => Err(problem),
        };
        Ok((kinds, events))
    });
    let (kinds, events) = seen.await.map_err(|problem| visitor.failed(problem))?;
    page.kinds = kinds;
    page.fault = events.as_ref().err().map(|problem| Objection::of(t, problem));
    let rows = events.unwrap_or_default().into_iter().map(|event| {
        let row = Row {
            at: time(t, event.last_at, now),
            class: "bad",
            link: event.vehicle_id.as_ref().map(|id| format!("/vehicles/{id}")),
            facts: Vec::new(),
            times: number(event.times),
            first: time(t, event.first_at, now),
            more: None,
            kind: event.kind,
            subject: event.subject,
            detail: event.detail,
        };
        (api::place(&(event.last_at, &event.id)), row)
    });
    Ok(page.with(rows.collect()))
}

/// `GET /refused-messages`
pub(super) async fn refused_messages(
    State(console): State<Console>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let mut page = ListPage {
        frame: visitor.frame(),
        title: t.refused_messages,
        note: t.refused_note,
        nothing: t.nothing_refused,
        kind_label: t.code,
        kinds: RefusalCode::ALL.iter().map(ToString::to_string).collect(),
        kind: asked.kind.clone(),
        vehicle: asked.vehicle.clone(),
        fault: None,
        rows: Vec::new(),
        next: None,
        is_first: asked.before.is_empty(),
    };
    let seen = console.api.read(move |tx| {
        let place = asked.place()?;
        let code = match asked.kind.as_str() {
            "" => None,
            kind => match kind.parse::<RefusalCode>() {
                Ok(code) => Some(code),
                Err(_) => {
                    let what = form::unfit(t, t.code, kind);
                    return Ok(Err(Problem::invalid(what).localised()));
                }
            },
        };
        match asked.vehicle(tx, t) {
            Ok(vehicle) => Ok(Ok(messages::refused_with(tx, code, vehicle.as_ref(), &place, ON_A_PAGE + 1)?)),
            Err(problem) => Ok(Err(problem)),
        }
    });
    let refused = seen.await.map_err(|problem| visitor.failed(problem))?;
    page.fault = refused.as_ref().err().map(|problem| Objection::of(t, problem));
    let rows = refused.unwrap_or_default().into_iter().map(|message| {
        let refusal = message.refusal;
        let mut facts = vec![
            (t.pointer, refusal.pointer),
            (t.expected, refusal.expected),
            (t.found, refusal.found),
            (t.topic, message.topic),
        ];
        facts.extend(message.msg_id.map(|id| (t.message, id)));
        let row = Row {
            at: time(t, message.last_at, now),
            kind: refusal.code.name().to_owned(),
            class: "bad",
            link: Some(format!("/vehicles/{}", message.binding.vehicle_id)),
            subject: message.binding.to_string(),
            detail: String::new(),
            facts,
            times: number(message.times),
            first: time(t, message.first_at, now),
            more: Some(message.payload),
        };
        (api::place(&(message.last_at, &message.id)), row)
    });
    Ok(page.with(rows.collect()))
}
