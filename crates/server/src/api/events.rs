//! What changes, as a page or as a stream (server-sent events): from a place in the sequence on, and only what is asked for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use farrier_protocol::{Text, UnixMillis};
use futures_util::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep};

use super::problem::Problem;
use super::request::{InQuery, usable_token};
use super::{Api, name, vehicle_id};
use crate::change_feed::{Feed, MOST_STREAMS, Progress};
use crate::change_types::ChangeTypes;
use crate::measurements;
use crate::store::campaigns::StateCounts;
use crate::store::changes::{self, Change};

/// Changes that are looked at for one page, or at once for a stream.
const BATCH: u32 = 200;
/// The largest number of a change: JSON's numbers are exact so far.
const LARGEST: u64 = (1 << 53) - 1;
/// A stream is not silent for longer.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often a stream looks for what another server has numbered.
const OTHERS: Duration = Duration::from_millis(500);
/// Changes within this time go out together.
const GATHER: Duration = Duration::from_millis(100);
/// How often it is looked whether a stream's token is still good.
const TOKEN: Duration = Duration::from_secs(2);
/// How often a stream says that it still wants each step of vehicles.
const RENEWAL: Duration = Duration::from_secs(60);
/// Pieces of a stream that wait for its reader.
const QUEUE: usize = 2;

/// Says after which change a stream that was cut goes on.
pub(super) const LAST_EVENT_ID: (&str, &str) = (
    "last-event-id",
    "The id of the last event that was taken in, where a stream was cut; goes before `after`.",
);
const LAST_EVENT_ID_HEADER: HeaderName = HeaderName::from_static(LAST_EVENT_ID.0);

/// Which changes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Only what came after the change with this number; without it, what comes from now on.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))]
    after: Option<u64>,
    /// Types with commas between them, as `campaign.*,vehicle_update.succeeded`; without it all but `vehicle_update.*`,
    /// or all of a vehicle.
    types: Option<String>,
    /// Only what is about this campaign.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    campaign: Option<String>,
    /// Only what is about this vehicle.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    vehicle: Option<String>,
}

/// Something that changed.
#[derive(Serialize, JsonSchema)]
pub(super) struct EventAnswer {
    id: String,
    /// As `campaign.started`.
    #[serde(rename = "type")]
    kind: String,
    /// Counts from 1.
    sequence: u64,
    at_ms: UnixMillis,
    campaign: Option<String>,
    vehicle_id: Option<String>,
    /// What there is to say about it, by type.
    data: Value,
}

/// Changes after a place.
#[derive(Serialize, JsonSchema)]
pub(super) struct EventPage {
    items: Vec<EventAnswer>,
    /// To be given as `after` to go on.
    next: u64,
    /// Whether there is more already.
    more: bool,
    /// Some changes after that place are not kept any more: read everything anew, and go on from `next`.
    reset: bool,
}

/// What somebody wants to hear of.
struct Filter {
    types: Option<ChangeTypes>,
    campaign: Option<Text>,
    vehicle: Option<String>,
}

impl Filter {
    fn of(query: &EventsQuery) -> Result<Self, Problem> {
        let types = query.types.as_deref().map(str::parse).transpose();
        Ok(Self {
            types: types.map_err(|error| Problem::invalid(format!("types: {error}.")))?,
            campaign: query.campaign.as_deref().map(|text| name(text, "campaign")).transpose()?,
            vehicle: query.vehicle.as_deref().map(vehicle_id).transpose()?.map(|id| id.to_string()),
        })
    }

    fn wants(&self, kind: &str) -> bool {
        match &self.types {
            Some(types) => types.take_in(kind),
            None => self.vehicle.is_some() || !kind.starts_with(ChangeTypes::STEPS),
        }
    }

    fn wants_steps(&self) -> bool {
        self.types.as_ref().map_or(self.vehicle.is_some(), ChangeTypes::want_steps)
    }

    fn takes_in(&self, change: &Change) -> bool {
        self.wants(&change.kind)
            && self.campaign.as_ref().is_none_or(|name| change.campaign.as_deref() == Some(name.as_str()))
            && self.vehicle.as_ref().is_none_or(|id| change.vehicle_id.as_ref() == Some(id))
    }

    fn wants_progress(&self) -> bool {
        self.wants(ChangeTypes::PROGRESS) && self.vehicle.is_none()
    }

    fn has_campaign(&self, name: &Text) -> bool {
        self.campaign.as_ref().is_none_or(|wanted| wanted == name)
    }
}

fn shown(change: Change) -> EventAnswer {
    EventAnswer {
        id: change.id,
        kind: change.kind,
        sequence: change.seq,
        at_ms: change.at,
        campaign: change.campaign,
        vehicle_id: change.vehicle_id,
        data: change.data,
    }
}

/// The place after which the client wants to go on.
fn place(query: &EventsQuery, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let refused = |found: &str| {
        Problem::invalid(format!("last-event-id: expected the id of an event, found {found:?}."))
    };
    let after = match headers.get(LAST_EVENT_ID_HEADER) {
        None => query.after,
        Some(value) => {
            let text = value.to_str().map_err(|_| refused("other characters"))?;
            // A browser that has seen no event yet says nothing by an empty one.
            let number = (!text.is_empty()).then(|| text.parse().map_err(|_| refused(text))).transpose()?;
            number.or(query.after)
        }
    };
    match after {
        Some(found) if found > LARGEST => {
            Err(Problem::invalid(format!("after: expected at most {LARGEST}, found {found}.")))
        }
        after => Ok(after),
    }
}

/// `GET /events`
pub(super) async fn events(
    State(api): State<Api>,
    InQuery(query): InQuery<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (filter, after) = (Filter::of(&query)?, place(&query, &headers)?);
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.into_iter().any(|value| value.contains("text/event-stream")) {
        open(api, filter, after, headers).await
    } else {
        Ok(Json(one_page(&api, &filter, after).await?).into_response())
    }
}

/// Where to begin, and whether something before it is missing.
async fn begin(api: &Api, filter: &Filter, after: Option<u64>) -> Result<(u64, bool), Problem> {
    let wants_steps = filter.wants_steps();
    let (head, since) = api
        .write(move |tx, _, now| {
            let since = if wants_steps { changes::streams_want_steps(tx, now)? } else { 0 };
            Ok((changes::head(tx)?, since))
        })
        .await?;
    Ok(match after {
        None => (head, false),
        Some(after) if after < since || after > head => (head, true),
        Some(after) => (after, false),
    })
}

async fn one_page(api: &Api, filter: &Filter, after: Option<u64>) -> Result<EventPage, Problem> {
    let (from, mut reset) = if filter.wants_steps() {
        begin(api, filter, after).await?
    } else {
        match after {
            Some(after) => (after, false),
            None => (api.read(|tx| Ok(changes::head(tx)?)).await?, false),
        }
    };
    let (found, head) = api.read(move |tx| Ok(changes::page(tx, from, BATCH)?)).await?;
    reset |= found.is_none();
    let next = match &found {
        Some(changes) => changes.last().map_or(from, |last| last.seq),
        None => head,
    };
    let items = found.into_iter().flatten().filter(|change| filter.takes_in(change)).map(shown).collect();
    Ok(EventPage { items, next, more: next < head, reset })
}

async fn open(api: Api, filter: Filter, after: Option<u64>, headers: HeaderMap) -> Result<Response, Problem> {
    let place = Arc::clone(&api.feed.places).try_acquire_owned().map_err(|_| {
        let detail =
            format!("{MOST_STREAMS} streams are open on this server already; close one, or try again later.");
        Problem::busy("TOO_MANY_STREAMS", detail)
    })?;
    let (cursor, reset) = begin(&api, &filter, after).await?;
    let (pieces, queue) = mpsc::channel(QUEUE);
    let follower =
        Follower { filter, cursor, headers, pieces, told: Progress::default(), _place: place, api };
    tokio::spawn(follower.follow(after.is_some(), reset));
    let body = stream::unfold(queue, |mut queue| async {
        let piece = queue.recv().await?;
        Some((Ok::<Bytes, Infallible>(piece), queue))
    });
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
    Ok((content_type, Body::from_stream(body)).into_response())
}

/// One stream.
struct Follower {
    api: Api,
    filter: Filter,
    /// The number of the last change that was looked at.
    cursor: u64,
    /// Who asks.
    headers: HeaderMap,
    pieces: mpsc::Sender<Bytes>,
    /// The counters that were told.
    told: Progress,
    _place: OwnedSemaphorePermit,
}

/// The stream is over.
struct Over;

impl Follower {
    async fn follow(mut self, is_resumed: bool, reset: bool) {
        let feed = Arc::clone(&self.api.feed);
        measurements::streams(MOST_STREAMS.saturating_sub(feed.places.available_permits()));
        let first = match (reset, is_resumed) {
            (true, _) => self.reset(),
            (false, true) => frame(None, None, None),
            (false, false) => frame(Some(self.cursor), Some("ready"), Some(&json!({"after": self.cursor}))),
        };
        if self.send(first).await.is_ok() {
            let _over = self.go_on(&feed).await;
        }
        drop(self);
        measurements::streams(MOST_STREAMS.saturating_sub(feed.places.available_permits()));
    }

    async fn go_on(&mut self, feed: &Feed) -> Result<(), Over> {
        let mut head = feed.head.subscribe();
        let mut progress = self.filter.wants_progress().then(|| feed.progress.subscribe());
        if let Some(progress) = &mut progress {
            progress.mark_changed();
        }
        let shared = self.api.store.is_shared();
        let (mut sent_at, mut checked_at, mut renewed_at) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            if checked_at.elapsed() >= TOKEN {
                checked_at = Instant::now();
                if usable_token(&self.api, &self.headers).await.is_err() {
                    return Err(Over);
                }
            }
            if self.filter.wants_steps() && renewed_at.elapsed() >= RENEWAL {
                renewed_at = Instant::now();
                let renewed = self.api.write(|tx, _, now| Ok(changes::streams_want_steps(tx, now)?));
                renewed.await.map_err(|_| Over)?;
            }
            let (mut text, has_more) = self.news().await?;
            if let Some(progress) = &mut progress {
                let counted = progress.borrow_and_update().clone();
                self.tell_progress(&counted, &mut text);
            }
            if text.is_empty() && sent_at.elapsed() >= HEARTBEAT {
                // With the place, so that one who filters much does not fall behind what is kept.
                text = frame(Some(self.cursor), None, None);
            }
            if !text.is_empty() {
                sent_at = Instant::now();
                self.send(text).await?;
            }
            if has_more {
                continue;
            }
            let rest = HEARTBEAT.saturating_sub(sent_at.elapsed()).min(TOKEN);
            tokio::select! {
                () = feed.stopping.cancelled() => return Err(Over),
                () = self.pieces.closed() => return Err(Over),
                _ = head.changed() => sleep(GATHER).await,
                () = changed(&mut progress) => {}
                () = sleep(if shared { rest.min(OTHERS) } else { rest }) => {}
            }
        }
    }

    /// What is new, and whether there may be more.
    async fn news(&mut self) -> Result<(String, bool), Over> {
        let after = self.cursor;
        let read = self.api.read(move |tx| Ok(changes::page(tx, after, BATCH)?));
        let (found, head) = read.await.map_err(|_| Over)?;
        let Some(found) = found else {
            self.cursor = head;
            return Ok((self.reset(), true));
        };
        let mut text = String::new();
        for change in found {
            self.cursor = change.seq;
            if self.filter.takes_in(&change) {
                text.push_str(&frame(Some(change.seq), Some(&change.kind), Some(&change.document())));
            }
        }
        Ok((text, self.cursor < head))
    }

    /// Some changes are not kept any more.
    fn reset(&self) -> String {
        let data = json!({"after": self.cursor, "reason": "some changes are not kept any more; read everything anew"});
        frame(Some(self.cursor), Some("reset"), Some(&data))
    }

    fn tell_progress(&mut self, counted: &Progress, text: &mut String) {
        for (name, counts) in counted.iter().filter(|(name, _)| self.filter.has_campaign(name)) {
            if self.told.get(name) != Some(counts) {
                text.push_str(&frame(None, Some(ChangeTypes::PROGRESS), Some(&progress(name, counts))));
            }
        }
        self.told = Arc::clone(counted);
    }

    async fn send(&self, text: String) -> Result<(), Over> {
        tokio::select! {
            () = self.api.feed.stopping.cancelled() => Err(Over),
            sent = self.pieces.send(Bytes::from(text)) => sent.map_err(|_| Over),
        }
    }
}

async fn changed(progress: &mut Option<tokio::sync::watch::Receiver<Progress>>) {
    let is_there = match progress {
        Some(progress) => progress.changed().await.is_ok(),
        None => false,
    };
    if !is_there {
        std::future::pending::<()>().await;
    }
}

fn progress(name: &Text, counts: &StateCounts) -> Value {
    let by_state: &BTreeMap<_, _> = &counts.by_state;
    json!({"campaign": name, "vehicles": counts.total, "ended": counts.ended, "by_state": by_state})
}

/// One event; one without a name and data only says where the stream is, or that it is still there.
fn frame(id: Option<u64>, event: Option<&str>, data: Option<&Value>) -> String {
    let mut text = String::new();
    if let Some(id) = id {
        // Writing to a text does not fail.
        let _ = writeln!(text, "id: {id}");
    }
    if let Some(event) = event {
        let _ = writeln!(text, "event: {event}");
    }
    match data {
        // JSON has no line breaks of its own.
        Some(data) => _ = writeln!(text, "data: {data}"),
        None => text.push_str(": still here\n"),
    }
    text.push('\n');
    text
}
