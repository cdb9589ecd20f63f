//! `/audit`: who changed what, found by who, what, about what and when; whether the chain holds; and the whole log to take away.

use std::collections::BTreeSet;
use std::io;

use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use farrier_protocol::UnixMillis;
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;

use super::Console;
use super::format::{Fact, Time, absolute, number, time};
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::{Texts, filled};
use crate::access::Permission;
use crate::api::{self, Api, Problem};
use crate::audit::AuditEntry;
use crate::store::audit;
use crate::store::audit_search::{self, AuditPlace, Wanted};

/// Entries on a page.
const ON_A_PAGE: usize = 50;
/// Entries of one part of an export.
const EXPORTED_AT_A_TIME: u32 = 1_000;

struct Row {
    seq: u64,
    at: Time,
    actor: String,
    action: String,
    object: String,
    link: Option<String>,
    detail: String,
}

/// What was typed.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    actor: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    object: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    until: String,
    #[serde(default)]
    before: String,
}

impl Asked {
    /// The filters, as addresses and fields have them.
    fn filters(&self) -> [(&'static str, &str); 5] {
        [
            ("actor", &self.actor),
            ("action", &self.action),
            ("object", &self.object),
            ("from", &self.from),
            ("until", &self.until),
        ]
    }

    fn is_narrowed(&self) -> bool {
        self.filters().iter().any(|(_, value)| !value.trim().is_empty())
    }
}

/// Whether the chain holds, in words.
struct ChainWords {
    class: &'static str,
    words: String,
    at: Option<Time>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    asked: Asked,
    chain: ChainWords,
    rows: Vec<Row>,
    next: Option<String>,
    /// How far back the page looked, where it ended for that.
    looked_back_to: Option<Time>,
    fault: Option<String>,
}

/// `GET /audit`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let failed = |problem| visitor.failed(problem);
    let chain = console.chain.look(&console.api).await.map_err(failed)?;
    let (end, place) =
        (console.api.read(|tx| Ok(audit::head(tx)?)).await.map_err(failed)?, place(&asked.before));
    let place = place.map_err(failed)?;
    let words = match (&chain.broken, chain.is_under_way) {
        (Some(broken), _) => ChainWords { class: "bad", words: broken.clone(), at: None },
        (None, true) => {
            let words = filled(t.chain_under_way, &[&number(chain.head.seq), &number(end.seq)]);
            ChainWords { class: "run", words, at: None }
        }
        (None, false) => {
            let words = filled(t.chain_holds, &[&number(chain.head.seq), &number(end.seq)]);
            ChainWords { class: "ok", words, at: chain.at.map(|at| time(t, at, now)) }
        }
    };
    let (from, until) = (moment(&asked.from), moment(&asked.until));
    let fault = [&from, &until].iter().any(|moment| moment.is_err()).then(|| t.bad_moment.to_owned());
    let wanted = Wanted {
        actor: asked.actor.trim().to_owned(),
        action: asked.action.trim().to_owned(),
        object: asked.object.trim().to_owned(),
        from: from.ok().flatten().unwrap_or(UnixMillis(i64::MIN)),
        until: until.ok().flatten().unwrap_or(UnixMillis(i64::MAX)),
    };
    let is_wrong = fault.is_some();
    let found = console.api.read(move |tx| match is_wrong {
        true => Ok(None),
        false => Ok(Some(audit_search::search(tx, &wanted, place, ON_A_PAGE)?)),
    });
    let found = found.await.map_err(failed)?;
    let (next, looked_back_to) = found.as_ref().map_or((None, None), |found| {
        (found.next.as_ref().map(api::place), found.looked_back_to.map(|at| time(t, at, now)))
    });
    let rows = found.map(|found| found.entries).unwrap_or_default().into_iter().map(|entry| Row {
        seq: entry.seq,
        at: time(t, entry.at_ms, now),
        link: page_of(&entry.object),
        actor: entry.actor,
        action: entry.action,
        object: entry.object,
        detail: entry.detail.unwrap_or_default(),
    });
    let rows = rows.collect();
    Ok(shown(&AuditPage { frame: visitor.frame(), asked, chain: words, rows, next, looked_back_to, fault }))
}

fn place(before: &str) -> Result<Option<AuditPlace>, Problem> {
    if before.is_empty() { Ok(None) } else { api::cursor(before, "before").map(Some) }
}

/// A time as a browser's field has it, in UTC: `2026-11-26T05:30`, with seconds or without; none where nothing was typed.
fn moment(text: &str) -> Result<Option<UnixMillis>, ()> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let numbers =
        |text: &str, by: char| -> Option<Vec<u16>> { text.split(by).map(|part| part.parse().ok()).collect() };
    let read = || {
        let (date, clock) = (numbers(date, '-')?, numbers(clock, ':')?);
        let [year, month, day] = *date.as_slice() else { return None };
        let (hour, minute, second) = match *clock.as_slice() {
            [hour, minute] => (hour, minute, 0),
            [hour, minute, second] => (hour, minute, second),
            _ => return None,
        };
        let small = |number: u16| u8::try_from(number).ok();
        let month = ::time::Month::try_from(small(month)?).ok()?;
        let date = ::time::Date::from_calendar_date(i32::from(year), month, small(day)?).ok()?;
        let clock = ::time::Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
        let seconds = ::time::PrimitiveDateTime::new(date, clock).assume_utc().unix_timestamp();
        Some(UnixMillis(seconds.saturating_mul(1_000)))
    };
    read().map(Some).ok_or(())
}

/// Where the object of an audit entry is to be seen.
fn page_of(object: &str) -> Option<String> {
    let mut parts = object.split('/');
    match (parts.next()?, parts.next()?) {
        ("campaign", name) => Some(format!("/campaigns/{name}")),
        ("vehicle", id) => Some(format!("/vehicles/{id}")),
        ("release", name) => Some(format!("/releases/{name}")),
        ("webhook", name) => Some(format!("/settings/webhooks/{name}")),
        ("token" | "user", _) => Some("/settings".to_owned()),
        ("rxswin", _) => Some("/evidence/rxswins".to_owned()),
        (_, _) => None,
    }
}

/// One field of what there was before and after.
struct Changed {
    name: String,
    before: String,
    after: String,
    is_changed: bool,
}

#[derive(Template)]
#[template(path = "audit_entry.html")]
struct EntryPage {
    frame: Frame,
    title: String,
    facts: Vec<(&'static str, Fact)>,
    link: Option<String>,
    object: String,
    changed: Vec<Changed>,
    /// Why before and after are not shown.
    not_shown: Option<&'static str>,
}

/// `GET /audit/{seq}`
pub(super) async fn entry(
    State(console): State<Console>,
    visitor: Visitor,
    Path(seq): Path<String>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let read = console.api.read(move |tx| {
        let missing = || Problem::not_found("audit entry", &seq);
        let entry = audit::by_number(tx, seq.parse().map_err(|_| missing())?)?.ok_or_else(missing)?;
        let contents = audit::contents(tx, &entry)?;
        Ok((entry, contents))
    });
    let (entry, (before, after)) = read.await.map_err(|problem| visitor.failed(problem))?;
    // What only admins may see of a webhook is not to be seen here by others either.
    let may_see = !entry.object.starts_with("webhook/") || visitor.user.scope.may(Permission::Administer);
    let had_some = entry.before_sha256.is_some() || entry.after_sha256.is_some();
    let not_shown = match (before.is_some() || after.is_some(), may_see, had_some) {
        (_, false, _) => Some(t.only_admins_see),
        (false, true, false) => Some(t.nothing_before_or_after),
        (false, true, true) => Some(t.not_kept),
        (true, true, _) => None,
    };
    let changed = if not_shown.is_none() { changes(before.as_deref(), after.as_deref()) } else { Vec::new() };
    Ok(shown(&EntryPage {
        frame: visitor.frame(),
        title: format!("{} {}", t.entry_number, number(entry.seq)),
        facts: facts(t, &entry, now),
        link: page_of(&entry.object),
        object: entry.object,
        changed,
        not_shown,
    }))
}

fn facts(t: &'static Texts, entry: &AuditEntry, now: UnixMillis) -> Vec<(&'static str, Fact)> {
    let text = |value: &dyn ToString| Fact::Text(value.to_string());
    let mut facts = vec![
        (t.when, Fact::Time(time(t, entry.at_ms, now))),
        (t.at_word, Fact::Text(absolute(entry.at_ms))),
        (t.who, text(&entry.actor)),
        (t.action, text(&entry.action)),
    ];
    facts.extend(entry.detail.as_ref().map(|detail| (t.detail, text(detail))));
    facts.extend(entry.client.as_ref().map(|client| (t.from_address, text(client))));
    facts.extend(entry.request_id.as_ref().map(|id| (t.request, text(id))));
    facts.extend(entry.before_sha256.map(|digest| (t.digest_before, text(&digest))));
    facts.extend(entry.after_sha256.map(|digest| (t.digest_after, text(&digest))));
    facts.push((t.digest_of_entry, text(&entry.sha256)));
    facts.push((t.digest_of_previous, text(&entry.previous_sha256)));
    facts
}

/// The fields of two documents beside each other.
fn changes(before: Option<&str>, after: Option<&str>) -> Vec<Changed> {
    let read = |text: Option<&str>| text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let (before, after) = (read(before), read(after));
    let names: BTreeSet<String> = [&before, &after]
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .flat_map(|fields| fields.keys().cloned())
        .collect();
    let written = |value: Option<&Value>| match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => serde_json::to_string_pretty(value).unwrap_or_default(),
    };
    let field =
        |document: &Option<Value>, name: &str| written(document.as_ref().and_then(|all| all.get(name)));
    let mut changes: Vec<_> = names
        .into_iter()
        .map(|name| {
            let (before, after) = (field(&before, &name), field(&after, &name));
            Changed { is_changed: before != after, name, before, after }
        })
        .collect();
    changes.sort_by_key(|one| !one.is_changed);
    changes
}

/// `POST /audit/check`: follows the chain from its beginning once more.
pub(super) async fn check(State(console): State<Console>, _: Visitor) -> Response {
    console.chain.begin_anew();
    Redirect::to("/audit").into_response()
}

/// `GET /audit/export`: all entries, one a line, as `farrier audit verify --export` takes them.
pub(super) async fn export(State(console): State<Console>, visitor: Visitor) -> Result<Response, Failed> {
    let head =
        console.api.read(|tx| Ok(audit::head(tx)?)).await.map_err(|problem| visitor.failed(problem))?;
    let lines = stream::try_unfold((console.api, 0_u64), move |(api, after)| async move {
        Ok::<_, io::Error>(part(&api, after, head.seq).await?.map(|(octets, last)| (octets, (api, last))))
    });
    let mut response = Body::from_stream(lines).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"audit-{}.jsonl\"", head.seq)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// The next lines of an export, and the number of the last of them.
async fn part(api: &Api, after: u64, until: u64) -> io::Result<Option<(Bytes, u64)>> {
    let read = api.read(move |tx| Ok(audit::page(tx, after, EXPORTED_AT_A_TIME)?)).await;
    let mut entries = read.map_err(|_| io::Error::other("the export broke off"))?;
    entries.retain(|entry| entry.seq <= until);
    let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(None) };
    let mut lines = Vec::new();
    for entry in &entries {
        serde_json::to_writer(&mut lines, entry)?;
        lines.push(b'\n');
    }
    Ok(Some((lines.into(), last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_browsers_write_it_and_nothing_else_is() {
        let at = |text: &str| moment(text).map(|at| at.map(|at| at.0));
        assert_eq!(at("2025-11-26T01:45"), Ok(Some(1_764_121_500_000)));
        assert_eq!(at("2025-11-26T01:45:09"), Ok(Some(1_764_121_509_000)));
        assert_eq!(at(" 2025-11-26 "), Ok(Some(1_764_115_200_000)));
        assert_eq!(at(""), Ok(None));
        for wrong in
            ["2025-13-01", "2025-02-30", "2025-11-26T24:00", "2025-11-26T1", "x", "2025-11", "-1-1-1"]
        {
            assert_eq!(at(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn fields_stand_beside_each_other_and_those_that_changed_come_first() {
        let changed =
            changes(Some(r#"{"a": 1, "b": "x", "c": null}"#), Some(r#"{"a": 2, "b": "x", "d": [1]}"#));
        let told: Vec<_> =
            changed.iter().map(|one| (one.name.as_str(), one.before.as_str(), one.is_changed)).collect();
        assert_eq!(told, [("a", "1", true), ("d", "", true), ("b", "x", false), ("c", "", false)]);
        assert!(changes(None, None).is_empty() && changes(Some("no JSON"), None).is_empty());
    }
}
