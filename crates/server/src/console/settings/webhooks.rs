//! Webhooks: where changes are sent, what was delivered, and their secrets, each shown once.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use farrier_protocol::{LongText, Text, UnixMillis};
use serde::Deserialize;

use super::{Tab, tabs};
use crate::access::Permission;
use crate::api::webhooks::{self as operations, NewWebhook, WebhookChange};
use crate::api::{self, Document, InPath, Problem};
use crate::console::Console;
use crate::console::confirm::ConfirmPage;
use crate::console::form;
use crate::console::format::{Fact, Time, absolute, number, time, time_or_never};
use crate::console::objection::Objection;
use crate::console::page::{Failed, Frame, shown, with_status};
use crate::console::session::Visitor;
use crate::console::texts::{Texts, filled};
use crate::store::webhooks::{self, Delivery, DeliveryState, Webhook};

/// Webhooks that are shown: there are no more.
const SHOWN: u32 = 64;
/// Deliveries on a page.
const ON_A_PAGE: u32 = 50;

struct Row {
    name: String,
    host: String,
    types: String,
    is_enabled: bool,
    disabled_because: String,
    waiting: String,
    last: String,
    last_class: &'static str,
}

/// What was typed.
#[derive(Debug, Clone, Default, Deserialize)]
pub(in crate::console) struct WebhookForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    types: String,
    #[serde(default)]
    note: String,
}

impl WebhookForm {
    fn types(&self) -> Vec<String> {
        let parts = self.types.split([',', ' ', '\n', '\r']).map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn note(&self, t: &Texts) -> Result<Option<LongText>, String> {
        match self.note.trim() {
            "" => Ok(None),
            note => form::read(t, note, t.a_long_text).map(Some),
        }
    }
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhooksPage {
    frame: Frame,
    tabs: Vec<(&'static str, &'static str, bool)>,
    rows: Vec<Row>,
    typed: WebhookForm,
    fault: Option<Objection>,
}

/// `GET /settings/webhooks`
pub(in crate::console) async fn list(
    State(console): State<Console>,
    visitor: Visitor,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    listed(&console, &visitor, WebhookForm::default(), None).await
}

async fn listed(
    console: &Console,
    visitor: &Visitor,
    typed: WebhookForm,
    fault: Option<Objection>,
) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    let rows = console.api.read(move |tx| {
        let mut rows = Vec::new();
        for webhook in webhooks::page(tx, "", SHOWN)? {
            let newest = webhooks::deliveries(tx, &webhook.name, "g", 1)?;
            let newest = newest.first();
            rows.push(Row {
                waiting: number(webhooks::waiting_of(tx, &webhook.name)?),
                last: newest.map_or_else(|| t.never.to_owned(), |newest| said(t, newest)),
                last_class: newest.map_or("idle", |newest| class(newest.state)),
                name: webhook.name.to_string(),
                host: webhook.url.host().to_string(),
                types: webhook.types.to_string(),
                is_enabled: webhook.enabled,
                disabled_because: webhook.disabled_because.unwrap_or_default(),
            });
        }
        Ok(rows)
    });
    let rows = rows.await.map_err(|problem| visitor.failed(problem))?;
    let status = if fault.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let tabs = tabs(visitor, Tab::Webhooks);
    Ok(with_status(status, &WebhooksPage { frame: visitor.frame(), tabs, rows, typed, fault }))
}

fn class(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Waiting => "warn",
        DeliveryState::Delivered => "ok",
        DeliveryState::Failed => "bad",
    }
}

fn state(t: &Texts, state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Waiting => t.delivery_waiting,
        DeliveryState::Delivered => t.delivery_delivered,
        DeliveryState::Failed => t.delivery_failed,
    }
}

/// What became of a delivery, in a few words without HTML.
fn said(t: &Texts, delivery: &Delivery) -> String {
    let at = delivery.last.as_ref().map_or(delivery.created_at, |last| last.at);
    format!("{} · {}", state(t, delivery.state), absolute(at))
}

/// `POST /settings/webhooks`
pub(in crate::console) async fn create(
    State(console): State<Console>,
    visitor: Visitor,
    Form(form): Form<WebhookForm>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let t = visitor.guest.language.texts();
    let note = match form.note(t) {
        Ok(note) => note,
        Err(fault) => return listed(&console, &visitor, form, Some(fault.into())).await,
    };
    let new = NewWebhook {
        name: form.name.trim().to_owned(),
        url: form.url.trim().to_owned(),
        types: form.types(),
        note,
        enabled: None,
    };
    match operations::create(State(console.api.clone()), visitor.caller(), Document(new)).await {
        Ok((_, made)) => {
            let name = form.name.trim().to_owned();
            page_of(&console, &visitor, &name, "", Told { secret: Some(made.0.secret), ..Told::default() })
                .await
        }
        Err(problem) => listed(&console, &visitor, form, Some(Objection::of(t, &problem))).await,
    }
}

/// What was just made, or refused.
#[derive(Default)]
struct Told {
    secret: Option<String>,
    typed: Option<WebhookForm>,
    fault: Option<Objection>,
}

struct DeliveryRow {
    id: String,
    at: Time,
    kind: String,
    state: &'static str,
    class: &'static str,
    attempts: String,
    status: String,
    outcome: String,
    response: String,
    took: String,
    next: Option<Time>,
    body: String,
    can_again: bool,
}

#[derive(Template)]
#[template(path = "webhook.html")]
struct WebhookPage {
    frame: Frame,
    name: String,
    is_enabled: bool,
    facts: Vec<(&'static str, Fact)>,
    typed: WebhookForm,
    secret: Option<String>,
    fault: Option<Objection>,
    rows: Vec<DeliveryRow>,
    next: Option<String>,
    is_first: bool,
}

#[derive(Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    before: String,
}

/// `GET /settings/webhooks/{name}`
pub(in crate::console) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(Asked { before }): Query<Asked>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    page_of(&console, &visitor, &name, &before, Told::default()).await
}

async fn page_of(
    console: &Console,
    visitor: &Visitor,
    name: &str,
    before: &str,
    told: Told,
) -> Result<Response, Failed> {
    let (t, now, frame) = (visitor.guest.language.texts(), console.api.now(), visitor.frame());
    let (name, before) = (name.to_owned(), before.to_owned());
    let status = if told.fault.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let page = console.api.read(move |tx| {
        let name = api::name(&name, "webhook")?;
        let webhook =
            webhooks::by_name(tx, &name)?.ok_or_else(|| Problem::not_found("webhook", name.as_str()))?;
        // Ids are hexadecimal digits and dashes: all come before this.
        let from = if before.is_empty() { "g".to_owned() } else { api::cursor(&before, "before")? };
        let mut found = webhooks::deliveries(tx, &name, &from, ON_A_PAGE + 1)?;
        let has_more = found.len() > ON_A_PAGE as usize;
        found.truncate(ON_A_PAGE as usize);
        let waiting = webhooks::waiting_of(tx, &name)?;
        Ok(WebhookPage {
            is_enabled: webhook.enabled,
            facts: facts(t, &webhook, waiting, now),
            typed: told.typed.unwrap_or_else(|| typed(&webhook)),
            secret: told.secret,
            fault: told.fault,
            next: found.last().filter(|_| has_more).map(|last| api::place(&last.id)),
            rows: found.into_iter().map(|delivery| row(t, delivery, webhook.enabled, now)).collect(),
            is_first: before.is_empty(),
            name: name.to_string(),
            frame,
        })
    });
    Ok(with_status(status, &page.await.map_err(|problem| visitor.failed(problem))?))
}

fn typed(webhook: &Webhook) -> WebhookForm {
    WebhookForm {
        name: webhook.name.to_string(),
        url: webhook.url.to_string(),
        types: webhook.types.patterns().join(", "),
        note: webhook.note.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn facts(t: &'static Texts, webhook: &Webhook, waiting: u64, now: UnixMillis) -> Vec<(&'static str, Fact)> {
    let text = |text: String| Fact::Text(text);
    let mut facts = vec![
        (t.created, Fact::Time(time(t, webhook.created_at, now))),
        (t.last_changed, Fact::Time(time(t, webhook.updated_at, now))),
        (t.deliveries_waiting, text(number(waiting))),
    ];
    facts.extend((webhook.dropped > 0).then(|| (t.deliveries_dropped, text(number(webhook.dropped)))));
    facts.extend(webhook.disabled_because.clone().map(|why| (t.disabled_because, text(why))));
    let earlier = webhook.earlier.as_ref().map(|(_, until)| *until).filter(|until| until.0 > now.0);
    facts.extend(earlier.map(|until| (t.earlier_secret_until, Fact::Time(time(t, until, now)))));
    facts
}

fn row(t: &Texts, delivery: Delivery, is_enabled: bool, now: UnixMillis) -> DeliveryRow {
    let last = delivery.last;
    DeliveryRow {
        at: time(t, last.as_ref().map_or(delivery.created_at, |last| last.at), now),
        state: state(t, delivery.state),
        class: class(delivery.state),
        attempts: number(delivery.attempts),
        status: last
            .as_ref()
            .and_then(|last| last.status)
            .map(|status| status.to_string())
            .unwrap_or_default(),
        took: last.as_ref().map(|last| format!("{} ms", number(last.duration_ms))).unwrap_or_default(),
        outcome: last.as_ref().map(|last| last.outcome.clone()).unwrap_or_default(),
        response: last.and_then(|last| last.response).unwrap_or_default(),
        next: delivery
            .next_at
            .filter(|_| delivery.state == DeliveryState::Waiting)
            .map(|at| time_or_never(t, Some(at), now)),
        can_again: is_enabled && delivery.state != DeliveryState::Waiting,
        id: delivery.id,
        kind: delivery.kind,
        body: delivery.body,
    }
}

/// `POST /settings/webhooks/{name}`: changes address, types and note.
pub(in crate::console) async fn change(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<WebhookForm>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let t = visitor.guest.language.texts();
    let changed = match form.note(t) {
        Err(fault) => Err(fault.into()),
        Ok(note) => {
            let change = WebhookChange {
                url: Some(form.url.trim().to_owned()),
                types: Some(form.types()),
                note,
                enabled: None,
            };
            let path = InPath(name.clone());
            operations::change(State(console.api.clone()), visitor.caller(), path, Document(change))
                .await
                .map_err(|problem| Objection::of(t, &problem))
        }
    };
    match changed {
        Ok(_) => Ok(Redirect::to(&format!("/settings/webhooks/{name}")).into_response()),
        Err(fault) => {
            let told = Told { typed: Some(form), fault: Some(fault), secret: None };
            page_of(&console, &visitor, &name, "", told).await
        }
    }
}

/// `POST /settings/webhooks/{name}/{what}`: `enable`, `disable`, `test`, `rotate`, `delete`.
pub(in crate::console) async fn act(
    State(console): State<Console>,
    visitor: Visitor,
    Path((name, what)): Path<(String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let failed = |problem| visitor.failed(problem);
    let (api, caller, path) = (State(console.api.clone()), visitor.caller(), InPath(name.clone()));
    let with = |enabled: bool| WebhookChange { url: None, types: None, note: None, enabled: Some(enabled) };
    match what.as_str() {
        "enable" => drop(operations::change(api, caller, path, Document(with(true))).await.map_err(failed)?),
        "disable" => {
            drop(operations::change(api, caller, path, Document(with(false))).await.map_err(failed)?)
        }
        "test" => drop(operations::test(api, caller, path).await.map_err(failed)?),
        "rotate" => {
            let made = operations::rotate(api, caller, path).await.map_err(failed)?;
            let told = Told { secret: Some(made.0.secret), ..Told::default() };
            return page_of(&console, &visitor, &name, "", told).await;
        }
        "delete" => {
            let _ = operations::delete(api, caller, path).await.map_err(failed)?;
            return Ok(Redirect::to("/settings/webhooks").into_response());
        }
        other => return Err(failed(Problem::not_found("page", other))),
    }
    Ok(Redirect::to(&format!("/settings/webhooks/{name}")).into_response())
}

/// `GET /settings/webhooks/{name}/{what}`: says what `rotate` or `delete` will do before it is done.
pub(in crate::console) async fn confirm(
    State(console): State<Console>,
    visitor: Visitor,
    Path((name, what)): Path<(String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let failed = |problem| visitor.failed(problem);
    let t = visitor.guest.language.texts();
    let name: Text = api::name(&name, "webhook").map_err(failed)?;
    let asked = name.clone();
    let waiting = console.api.read(move |tx| {
        webhooks::by_name(tx, &asked)?.ok_or_else(|| Problem::not_found("webhook", asked.as_str()))?;
        Ok(webhooks::waiting_of(tx, &asked)?)
    });
    let waiting = number(waiting.await.map_err(failed)?);
    let (title, consequence, verb, is_grave) = match what.as_str() {
        "rotate" => (t.rotate_webhook, t.will_rotate.to_owned(), t.rotate_secret, false),
        "delete" => (t.delete_webhook, filled(t.will_delete_webhook, &[&waiting]), t.delete, true),
        other => return Err(failed(Problem::not_found("page", other))),
    };
    let (title, back) = (filled(title, &[name.as_str()]), format!("/settings/webhooks/{name}"));
    Ok(shown(&ConfirmPage { is_grave, ..ConfirmPage::new(visitor.frame(), title, consequence, verb, back) }))
}

/// `POST /settings/webhooks/{name}/deliveries/{id}`: delivers once more.
pub(in crate::console) async fn redeliver(
    State(console): State<Console>,
    visitor: Visitor,
    Path((name, id)): Path<(String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Administer)?;
    let path = InPath((name.clone(), id));
    let queued = operations::redeliver(State(console.api.clone()), visitor.caller(), path).await;
    let _ = queued.map_err(|problem| visitor.failed(problem))?;
    Ok(Redirect::to(&format!("/settings/webhooks/{name}")).into_response())
}
