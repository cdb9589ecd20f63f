//! Webhooks: made, changed, tried, and what was delivered. A secret is shown once, when it is made.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_protocol::{LongText, Text, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::etag::Resource;
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::{Api, name};
use crate::change_types::ChangeTypes;
use crate::store::Tx;
use crate::store::audit::{self, Actor, Change};
use crate::store::webhooks::{self, Delivery, DeliveryState, Webhook};
use crate::webhooks::{Secret, Target, WebhookSettings};

/// Webhooks of one fleet.
const MOST_WEBHOOKS: u64 = 64;
/// How long the secret before a new one signs too, in seconds.
const EARLIER_SIGNS_S: u64 = 24 * 60 * 60;
/// The lock of whoever makes, changes or removes webhooks, and of whoever numbers changes for them.
const LOCK: &str = "changes";

/// A webhook as what an ETag is of.
pub(super) const WEBHOOK: Resource = Resource {
    lock: |tx, _| tx.lock(LOCK),
    settled: |tx, name| {
        let Ok(name) = name.parse() else { return Ok(None) };
        Ok(webhooks::by_name(tx, &name)?.map(|webhook| webhook.audited()))
    },
};

/// The body of a new webhook.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    /// 1 to 64 characters [A-Za-z0-9._-].
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub(crate) name: String,
    /// Where changes are sent, https://.
    pub(crate) url: String,
    /// Which: types as `campaign.started`, `campaign.*`, or `*`.
    #[schemars(length(min = 1, max = 32))]
    pub(crate) types: Vec<String>,
    pub(crate) note: Option<LongText>,
    /// Whether something is sent; true where it is absent.
    pub(crate) enabled: Option<bool>,
}

/// What of a webhook is to be another; what is absent stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookChange {
    pub(crate) url: Option<String>,
    #[schemars(length(min = 1, max = 32))]
    pub(crate) types: Option<Vec<String>>,
    pub(crate) note: Option<LongText>,
    pub(crate) enabled: Option<bool>,
}

/// A webhook as operators see it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct WebhookAnswer {
    name: Text,
    url: String,
    types: Vec<String>,
    note: Option<LongText>,
    enabled: bool,
    /// Why the server disabled it, where it did.
    disabled_because: Option<String>,
    /// Deliveries that were dropped because too many waited.
    dropped: u64,
    /// Until when the secret before signs too.
    earlier_secret_until_ms: Option<UnixMillis>,
    created_at_ms: UnixMillis,
    updated_at_ms: UnixMillis,
}

/// A webhook with a secret that was just made.
#[derive(Serialize, JsonSchema)]
pub(crate) struct MadeWebhook {
    #[serde(flatten)]
    shown: WebhookAnswer,
    /// What signatures are checked with; it is not shown again.
    pub(crate) secret: String,
}

/// One change for one webhook.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DeliveryAnswer {
    id: String,
    /// The `webhook-id` that the receiver sees: the same at each attempt.
    event_id: String,
    #[serde(rename = "type")]
    kind: String,
    state: DeliveryState,
    /// Since it was queued, or asked for again.
    attempts: u64,
    created_at_ms: UnixMillis,
    /// When it is tried next.
    next_at_ms: Option<UnixMillis>,
    last_attempt_at_ms: Option<UnixMillis>,
    duration_ms: Option<u64>,
    /// The HTTP status of the last answer.
    status: Option<u16>,
    /// What the last attempt brought, in words.
    outcome: Option<String>,
    /// The beginning of the last answer.
    response: Option<String>,
}

fn webhook_name(text: &str) -> Result<Text, Problem> {
    name(text, "webhook")
}

fn found(tx: &Tx<'_>, name: &Text) -> Result<Webhook, Problem> {
    webhooks::by_name(tx, name)?.ok_or_else(|| Problem::not_found("webhook", name.as_str()))
}

fn target(text: &str, settings: &WebhookSettings) -> Result<Target, Problem> {
    let target = text.parse::<Target>().and_then(|target| target.check(settings).map(|()| target));
    target.map_err(|error| Problem::invalid(format!("url: {error}.")))
}

fn types(patterns: &[String]) -> Result<ChangeTypes, Problem> {
    ChangeTypes::parse(patterns.iter().map(String::as_str))
        .map_err(|error| Problem::invalid(format!("types: {error}.")))
}

fn new_secret() -> Result<Secret, Problem> {
    Secret::new().map_err(|_| Problem::unavailable())
}

fn shown(webhook: &Webhook, now: UnixMillis) -> WebhookAnswer {
    let until = webhook.earlier.as_ref().map(|(_, until)| *until);
    WebhookAnswer {
        name: webhook.name.clone(),
        url: webhook.url.to_string(),
        types: webhook.types.patterns().to_vec(),
        note: webhook.note.clone(),
        enabled: webhook.enabled,
        disabled_because: webhook.disabled_because.clone(),
        dropped: webhook.dropped,
        earlier_secret_until_ms: until.filter(|until| until.0 > now.0),
        created_at_ms: webhook.created_at,
        updated_at_ms: webhook.updated_at,
    }
}

fn shown_delivery(delivery: &Delivery) -> DeliveryAnswer {
    let last = delivery.last.as_ref();
    DeliveryAnswer {
        id: delivery.id.clone(),
        event_id: delivery.event_id.clone(),
        kind: delivery.kind.clone(),
        state: delivery.state,
        attempts: delivery.attempts,
        created_at_ms: delivery.created_at,
        next_at_ms: delivery.next_at,
        last_attempt_at_ms: last.map(|last| last.at),
        duration_ms: last.map(|last| last.duration_ms),
        status: last.and_then(|last| last.status),
        outcome: last.map(|last| last.outcome.clone()),
        response: last.and_then(|last| last.response.clone()),
    }
}

fn record(
    tx: &Tx<'_>,
    actor: &Actor,
    action: &'static str,
    before: Option<&Webhook>,
    after: Option<&Webhook>,
    now: UnixMillis,
) -> Result<(), Problem> {
    let Some(webhook) = after.or(before) else { return Ok(()) };
    let change = Change {
        action,
        object: format!("webhook/{}", webhook.name),
        // Its host, not its path: that of many receivers is a secret.
        detail: after.map(|webhook| format!("{} to {}", webhook.types, webhook.url.host())),
        before: before.map(Webhook::audited),
        after: after.map(Webhook::audited),
    };
    Ok(audit::record(tx, actor, change, now)?)
}

/// `POST /webhooks`
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewWebhook>,
) -> Result<(StatusCode, Json<MadeWebhook>), Problem> {
    let (name, actor, secret) = (webhook_name(&new.name)?, caller.actor(), new_secret()?);
    let (url, types) = (target(&new.url, &api.webhooks)?, types(&new.types)?);
    let made = api.write(move |tx, _, now| {
        tx.lock(LOCK)?;
        if webhooks::by_name(tx, &name)?.is_some() {
            let detail =
                format!("There is a webhook {name} already; choose another name, or change that one.");
            return Err(Problem::conflict("WEBHOOK_EXISTS", detail));
        }
        if webhooks::count(tx)? >= MOST_WEBHOOKS {
            let detail = format!("There are {MOST_WEBHOOKS} webhooks already; delete one that nobody needs.");
            return Err(Problem::conflict("TOO_MANY_WEBHOOKS", detail));
        }
        let webhook = Webhook {
            name,
            url,
            types,
            note: new.note,
            secret,
            earlier: None,
            enabled: new.enabled.unwrap_or(true),
            disabled_because: None,
            dropped: 0,
            created_at: now,
            updated_at: now,
        };
        webhooks::put(tx, &webhook)?;
        record(tx, &actor, "webhook.created", None, Some(&webhook), now)?;
        Ok(MadeWebhook { secret: webhook.secret.shown(), shown: shown(&webhook, now) })
    });
    Ok((StatusCode::CREATED, Json(made.await?)))
}

/// `GET /webhooks`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<WebhookAnswer>>, Problem> {
    let (limit, after, now) = (query.limit()?, query.after_name()?, api.now());
    let listed = api.read(move |tx| Ok(webhooks::page(tx, &after, limit + 1)?)).await?;
    page(listed, limit, |webhook| webhook.name.clone(), |webhook| Ok(shown(webhook, now))).map(Json)
}

/// `GET /webhooks/{name}`
pub(super) async fn show(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Json<WebhookAnswer>, Problem> {
    let (name, now) = (webhook_name(&text)?, api.now());
    let shown = api.read(move |tx| Ok(shown(&found(tx, &name)?, now)));
    Ok(Json(shown.await?))
}

/// `PATCH /webhooks/{name}`
pub(crate) async fn change(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(change): Document<WebhookChange>,
) -> Result<Json<WebhookAnswer>, Problem> {
    let (name, actor) = (webhook_name(&text)?, caller.actor());
    let url = change.url.as_deref().map(|url| target(url, &api.webhooks)).transpose()?;
    let types = change.types.as_deref().map(types).transpose()?;
    let changed = api.write(move |tx, _, now| {
        tx.lock(LOCK)?;
        let before = found(tx, &name)?;
        let mut after = before.clone();
        after.url = url.unwrap_or(after.url);
        after.types = types.unwrap_or(after.types);
        after.note = change.note.or(after.note);
        after.enabled = change.enabled.unwrap_or(after.enabled);
        if after.enabled {
            after.disabled_because = None;
        }
        if before.audited() == after.audited() {
            return Ok(shown(&before, now));
        }
        after.updated_at = now;
        webhooks::put(tx, &after)?;
        record(tx, &actor, "webhook.changed", Some(&before), Some(&after), now)?;
        Ok(shown(&after, now))
    });
    Ok(Json(changed.await?))
}

/// `DELETE /webhooks/{name}`; gives what it was.
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<WebhookAnswer>, Problem> {
    let (name, actor) = (webhook_name(&text)?, caller.actor());
    let deleted = api.write(move |tx, _, now| {
        tx.lock(LOCK)?;
        let webhook = found(tx, &name)?;
        webhooks::delete(tx, &name)?;
        record(tx, &actor, "webhook.deleted", Some(&webhook), None, now)?;
        Ok(shown(&webhook, now))
    });
    Ok(Json(deleted.await?))
}

/// `POST /webhooks/{name}/rotate-secret`: from now on both secrets sign, after a day only the new one.
pub(crate) async fn rotate(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<MadeWebhook>, Problem> {
    let (name, actor, secret) = (webhook_name(&text)?, caller.actor(), new_secret()?);
    let rotated = api.write(move |tx, _, now| {
        tx.lock(LOCK)?;
        let before = found(tx, &name)?;
        let earlier = Some((before.secret.clone(), now.plus_seconds(EARLIER_SIGNS_S)));
        let after = Webhook { secret, earlier, updated_at: now, ..before.clone() };
        webhooks::put(tx, &after)?;
        record(tx, &actor, "webhook.secret_rotated", Some(&before), Some(&after), now)?;
        Ok(MadeWebhook { secret: after.secret.shown(), shown: shown(&after, now) })
    });
    Ok(Json(rotated.await?))
}

/// `POST /webhooks/{name}/test`
pub(crate) async fn test(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<DeliveryAnswer>, Problem> {
    let (name, actor) = (webhook_name(&text)?, caller.actor());
    let queued = api.write(move |tx, _, now| {
        tx.lock(LOCK)?;
        let webhook = enabled(tx, &name)?;
        let id = webhooks::queue_test(tx, &webhook, now)?;
        record(tx, &actor, "webhook.tested", Some(&webhook), Some(&webhook), now)?;
        delivery(tx, &name, &id)
    });
    Ok(Json(queued.await?))
}

/// `GET /webhooks/{name}/deliveries`
pub(super) async fn deliveries(
    State(api): State<Api>,
    InPath(text): InPath<String>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<DeliveryAnswer>>, Problem> {
    let (name, limit) = (webhook_name(&text)?, query.limit()?);
    // Ids are hexadecimal digits and dashes: all come before this.
    let before: String = query.after()?.unwrap_or_else(|| "g".to_owned());
    let listed = api.read(move |tx| {
        found(tx, &name)?;
        Ok(webhooks::deliveries(tx, &name, &before, limit + 1)?)
    });
    page(listed.await?, limit, |delivery| delivery.id.clone(), |one| Ok(shown_delivery(one))).map(Json)
}

/// `POST /webhooks/{name}/deliveries/{id}/redeliver`
pub(crate) async fn redeliver(
    State(api): State<Api>,
    caller: Caller,
    InPath((text, id)): InPath<(String, String)>,
) -> Result<Json<DeliveryAnswer>, Problem> {
    let (name, actor, id) = (webhook_name(&text)?, caller.actor(), self::name(&id, "delivery")?);
    let queued = api.write(move |tx, _, now| {
        tx.lock(LOCK)?;
        let webhook = enabled(tx, &name)?;
        delivery(tx, &name, id.as_str())?;
        webhooks::redeliver(tx, id.as_str(), now)?;
        record(tx, &actor, "webhook.redelivery_asked", Some(&webhook), Some(&webhook), now)?;
        delivery(tx, &name, id.as_str())
    });
    Ok(Json(queued.await?))
}

fn enabled(tx: &Tx<'_>, name: &Text) -> Result<Webhook, Problem> {
    let webhook = found(tx, name)?;
    if webhook.enabled {
        return Ok(webhook);
    }
    let detail = format!("The webhook {name} is disabled, and nothing is sent; enable it first.");
    Err(Problem::conflict("WEBHOOK_DISABLED", detail))
}

fn delivery(tx: &Tx<'_>, name: &Text, id: &str) -> Result<DeliveryAnswer, Problem> {
    let delivery = webhooks::delivery(tx, name, id)?;
    delivery.as_ref().map(shown_delivery).ok_or_else(|| Problem::not_found("delivery", id))
}
