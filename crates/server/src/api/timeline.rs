//! A vehicle's whole conversation as a time line, readable and raw; whoever follows it waits for what comes next.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use farrier_protocol::{UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Api;
use super::audit_log::First;
use super::page::{cursor, limit, place};
use super::problem::Problem;
use super::request::{InPath, InQuery};
use super::vehicle_id;
use crate::desk::WhyGone;
use crate::store::timeline::{self, Entry, Kind, Place};
use crate::store::{Tx, vehicles};

/// The longest wait for new entries.
const LONGEST_WAIT_S: u64 = 30;
/// How often a waiting request looks; another server may have written.
const LOOK: Duration = Duration::from_millis(500);
/// Whoever follows gets what is at least so old: until then something can still be committed before it.
const SETTLED_MS: i64 = 1_000;

/// Which part of the time line.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TimelineQuery {
    /// How many entries at most; 100 where it is absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// The `next` or `newest` of an earlier page.
    after: Option<String>,
    /// `newest`, which is what counts where it is absent, or `oldest`.
    first: Option<First>,
    /// Also the messages themselves.
    raw: Option<bool>,
    /// Only with `first=oldest`: how long to wait for an entry where there is none.
    #[schemars(range(min = 0, max = 30))]
    wait_s: Option<u64>,
}

/// One entry; what its kind does not have is absent.
#[derive(Serialize, JsonSchema)]
pub(super) struct TimelineEntry {
    at_ms: UnixMillis,
    /// `received`, `refused`, `command`, `acknowledged`, `step`, `security_event`, `connected` or `disconnected`. The last two
    /// are of the newest 50 connections to the server's own MQTT endpoint.
    kind: &'static str,
    /// All of it in one sentence.
    sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg_id: Option<String>,
    /// The message that this one answers, or that led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    /// Of a message its type, of a refused one its topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// A refusal's code, a security event's kind, or why a connection ended: `LEFT`, `LOST`, `KEEP_ALIVE`, `TAKEN_OVER`,
    /// `REVOKED`, `REBOUND`, `VIOLATION`, `NOT_READING`, `UNFINISHED`, `STORE_FAILED`, `SERVER_STOPPED`, `CUT` or `UNKNOWN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// What is worth knowing, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    /// By how much the vehicle's clock was behind the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_skew_ms: Option<i64>,
    /// How often, where the same can come more than once; the time is that of the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    /// When a command expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<UnixMillis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_state: Option<String>,
    /// The message, where it was asked for: of a vehicle's the first 4 KiB, of a refused one the first 16 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

/// A part of a vehicle's time line.
#[derive(Serialize, JsonSchema)]
pub(super) struct TimelinePage {
    items: Vec<TimelineEntry>,
    /// Where the next page begins: to be given as `after`. Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// The place of the newest entry that was told: to be given as `after` with `first=oldest` by whoever follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<String>,
}

/// What one look at the time line asks for.
#[derive(Clone)]
struct Wanted {
    vehicle_id: VehicleId,
    first: First,
    after: Option<Place>,
    /// Nothing later than this.
    until: UnixMillis,
    limit: u32,
    raw: bool,
}

/// `GET /vehicles/{vehicle_id}/messages`
pub(super) async fn list(
    State(api): State<Api>,
    InPath(text): InPath<String>,
    InQuery(query): InQuery<TimelineQuery>,
) -> Result<Json<TimelinePage>, Problem> {
    let mut wanted = Wanted {
        vehicle_id: vehicle_id(&text)?,
        first: query.first.unwrap_or(First::Newest),
        after: query.after.as_deref().map(|text| cursor(text, "after")).transpose()?,
        until: UnixMillis(i64::MAX),
        limit: limit(query.limit)?,
        raw: query.raw.unwrap_or(false),
    };
    let wait_s = query.wait_s.unwrap_or(0);
    if wait_s > LONGEST_WAIT_S || (query.wait_s.is_some() && wanted.first == First::Newest) {
        let detail = format!("wait_s: expected at most {LONGEST_WAIT_S}, with first=oldest, found {wait_s}.");
        return Err(Problem::invalid(detail));
    }
    let ends_at = Instant::now() + Duration::from_secs(wait_s);
    loop {
        if query.wait_s.is_some() {
            wanted.until = UnixMillis(api.now().0.saturating_sub(SETTLED_MS));
        }
        let asked = wanted.clone();
        let page = api.read(move |tx| look(tx, asked)).await?;
        if !page.items.is_empty() || Instant::now() >= ends_at || api.vitals.stopping.is_cancelled() {
            return Ok(Json(page));
        }
        tokio::select! {
            () = api.vitals.stopping.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn look(tx: &Tx<'_>, wanted: Wanted) -> Result<TimelinePage, Problem> {
    let Wanted { vehicle_id, first, after, until, limit, raw } = wanted;
    if vehicles::by_id(tx, &vehicle_id)?.is_none() {
        return Err(Problem::not_found("vehicle", vehicle_id.as_str()));
    }
    let from = after.clone();
    let mut entries = match first {
        First::Newest => timeline::before(tx, &vehicle_id, &from.unwrap_or_else(Place::end), limit + 1)?,
        First::Oldest => {
            timeline::after(tx, &vehicle_id, &from.unwrap_or_else(Place::beginning), until, limit + 1)?
        }
    };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = entries.len() > most;
    entries.truncate(most);
    let newest = match first {
        First::Newest => entries.first().map(|entry| entry.place.clone()),
        First::Oldest => entries.last().map(|entry| entry.place.clone()).or(after),
    };
    Ok(TimelinePage {
        next: entries.last().filter(|_| has_more).map(|entry| place(&entry.place)),
        newest: newest.map(|newest| place(&newest)),
        items: entries.into_iter().map(|entry| told(entry, raw)).collect(),
    })
}

/// Fills in what a command's own text says.
fn told(entry: Entry, raw: bool) -> TimelineEntry {
    let is_command = entry.kind == Kind::Command;
    let size_bytes = match (&entry.payload, is_command) {
        (Some(payload), true) => Some(payload.len() as u64),
        (_, _) => entry.size_bytes,
    };
    let cause = || {
        let command: serde_json::Value = serde_json::from_str(entry.payload.as_deref()?).ok()?;
        Some(command.get("correlation_id")?.as_str()?.to_owned())
    };
    let correlation_id = if is_command { cause() } else { entry.correlation_id.clone() };
    TimelineEntry {
        at_ms: entry.place.0,
        kind: entry.kind.name(),
        sentence: sentence(&entry, size_bytes, correlation_id.as_deref()),
        msg_id: entry.msg_id,
        correlation_id,
        message: entry.message,
        code: entry.code,
        detail: entry.detail,
        size_bytes,
        clock_skew_ms: entry.clock_skew_ms,
        times: entry.times,
        expires_at_ms: entry.expires_at,
        campaign: entry.campaign,
        from_state: entry.from_state,
        to_state: entry.to_state,
        payload: entry.payload.filter(|_| raw),
    }
}

/// `UpdateSuccessResult(commit)`, `RequestVCI(verify_update)`: the type, and the one word that tells it from its like.
fn message_in_words(entry: &Entry) -> String {
    let message = entry.message.as_deref().unwrap_or("message");
    let word = || {
        let content: serde_json::Value = serde_json::from_str(entry.payload.as_deref()?).ok()?;
        let word = ["operation", "reason"].iter().find_map(|key| content.get(key)?.as_str());
        word.map(str::to_owned)
    };
    match (entry.kind, word()) {
        (Kind::Received | Kind::Command, Some(word)) => format!("{message}({word})"),
        (_, _) => message.to_owned(),
    }
}

fn why_gone(code: &str) -> &str {
    let Ok(why) = code.parse() else { return code };
    match why {
        WhyGone::Left => "it said that it goes",
        WhyGone::Lost => "the connection broke",
        WhyGone::KeepAlive => "its keep alive ran out",
        WhyGone::TakenOver => "it connected anew",
        WhyGone::Revoked => "its certificate was revoked",
        WhyGone::Rebound => "it was bound to another gateway or certificate",
        WhyGone::Violation => "it did what is not allowed",
        WhyGone::NotReading => "it did not read what it was sent",
        WhyGone::Unfinished => "it left a packet unfinished",
        WhyGone::StoreFailed => "the server could not write its store",
        WhyGone::ServerStopped => "the server stopped",
        WhyGone::Cut => "the server cut the connection",
        WhyGone::Unknown => {
            "when is not known, for the server ended meanwhile and was started again at this time"
        }
    }
}

fn sentence(entry: &Entry, size_bytes: Option<u64>, correlation_id: Option<&str>) -> String {
    let message = message_in_words(entry);
    let size = size_bytes.map(|size| format!(", {size} bytes")).unwrap_or_default();
    let answers = correlation_id.map(|id| format!(", answering {id}")).unwrap_or_default();
    let note = entry.detail.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    let (code, detail) =
        (entry.code.as_deref().unwrap_or_default(), entry.detail.as_deref().unwrap_or_default());
    let times = match entry.times {
        Some(times @ 2..) => format!(" {times} times"),
        Some(_) | None => String::new(),
    };
    match entry.kind {
        Kind::Received => format!("{message} was taken{answers}{size}{note}."),
        Kind::Refused => format!("A message on {message} was refused{times}: {code} at {detail}."),
        Kind::Command => {
            let cause = correlation_id.map(|id| format!(", after {id}")).unwrap_or_default();
            format!("{message} was put into the outbox{cause}{size}.")
        }
        Kind::Acknowledged => format!("The vehicle acknowledged {message}."),
        Kind::Step => format!(
            "The update of campaign {} went from {} to {}.",
            entry.campaign.as_deref().unwrap_or_default(),
            entry.from_state.as_deref().unwrap_or_default(),
            entry.to_state.as_deref().unwrap_or_default()
        ),
        Kind::SecurityEvent => format!("Security event {code}{times}: {detail}"),
        Kind::Connected => "The vehicle connected.".to_owned(),
        Kind::Disconnected => format!("The vehicle is gone: {}{note}.", why_gone(code)),
    }
}
