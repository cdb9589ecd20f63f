//! How the server is, in words: what `/readyz` and `/metrics` know.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::{Tab, tabs};
use crate::api::health;
use crate::console::Console;
use crate::console::format::{bytes, number, span};
use crate::console::page::{Failed, Frame, shown};
use crate::console::session::Visitor;
use crate::console::texts::{Texts, filled};
use crate::measurements::CommitTimes;
use crate::store::{fleet, webhooks};

/// Less room than this for images is a warning, in octets.
const LITTLE_ROOM: u64 = 10 << 30;
/// A commit that takes longer than this is slow, in milliseconds.
const SLOW_COMMIT_MS: u64 = 100;
/// Commands and deadlines are worked off within this, in milliseconds.
const SOON_MS: i64 = 60_000;

struct Row {
    name: &'static str,
    class: &'static str,
    state: &'static str,
    words: String,
}

#[derive(Template)]
#[template(path = "health.html")]
struct HealthPage {
    frame: Frame,
    tabs: Vec<(&'static str, &'static str, bool)>,
    is_ready: bool,
    rows: Vec<Row>,
}

/// `GET /settings/health`
pub(in crate::console) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
) -> Result<Response, Failed> {
    let (t, api) = (visitor.guest.language.texts(), &console.api);
    let now = api.now();
    let readiness = health::readiness(api).await;
    let mut rows: Vec<Row> =
        readiness.checks.iter().map(|(name, outcome)| check(t, name, *outcome == "ok")).collect();
    // A store that cannot be read is told by its check.
    let counts = api.read(move |tx| Ok((fleet::counts(tx, now)?, webhooks::waiting(tx)?))).await.ok();
    if let Some((counts, waiting)) = counts {
        let age_ms = counts.outbox_oldest.map_or(0, |since| now.0.saturating_sub(since.0).max(0));
        let words = filled(t.outbox_words, &[&number(counts.outbox), &span(t, age_ms)]);
        rows.push(graded(t, t.outbox, age_ms <= SOON_MS || counts.outbox == 0, words));
        rows.push(graded(t, t.deadlines, counts.due == 0, filled(t.deadlines_words, &[&number(counts.due)])));
        rows.push(told(t, t.deliveries_waiting, number(waiting)));
    }
    rows.push(told(t, t.connections, number(api.vitals.connections.number())));
    rows.push(commits(t, api.vitals.measurements.commit_times()));
    rows.push(match api.artifacts.free_bytes() {
        Ok(free) => graded(t, t.disk, free >= LITTLE_ROOM, filled(t.disk_words, &[&bytes(free)])),
        Err(_) => {
            Row { name: t.disk, class: "bad", state: t.health_bad, words: t.disk_unreadable.to_owned() }
        }
    });
    let up_ms = i64::try_from(api.vitals.since.elapsed().as_millis()).unwrap_or(i64::MAX);
    rows.push(told(t, t.up_for, span(t, up_ms)));
    rows.push(told(t, t.version, env!("CARGO_PKG_VERSION").to_owned()));
    let is_ready = readiness.is_ready();
    Ok(shown(&HealthPage { frame: visitor.frame(), tabs: tabs(&visitor, Tab::Health), is_ready, rows }))
}

fn graded(t: &Texts, name: &'static str, is_good: bool, words: String) -> Row {
    let (class, state) = if is_good { ("ok", t.health_good) } else { ("warn", t.health_look) };
    Row { name, class, state, words }
}

fn told(t: &Texts, name: &'static str, words: String) -> Row {
    Row { name, class: "idle", state: t.health_told, words }
}

/// What the readiness check looks at.
fn check(t: &Texts, name: &str, holds: bool) -> Row {
    let (name, good, bad) = match name {
        "store" => (t.check_store, t.check_store_good, t.check_store_bad),
        "certificates" => (t.check_certificates, t.check_certificates_good, t.check_certificates_bad),
        "listeners" => (t.check_listeners, t.check_listeners_good, t.check_listeners_bad),
        _ => (t.check_broker, t.check_broker_good, t.check_broker_bad),
    };
    match holds {
        true => Row { name, class: "ok", state: t.health_good, words: good.to_owned() },
        false => Row { name, class: "bad", state: t.health_bad, words: bad.to_owned() },
    }
}

fn commits(t: &Texts, times: Option<CommitTimes>) -> Row {
    match times {
        None => told(t, t.commits, t.no_commits.to_owned()),
        Some(times) => {
            let within = |ms: Option<f64>| ms.map_or_else(|| "> 10000".to_owned(), |ms| ms.to_string());
            let words = filled(
                t.commits_words,
                &[&number(times.commits), &within(times.p50_ms), &within(times.p99_ms)],
            );
            graded(t, t.commits, times.p99_ms.is_some_and(|ms| ms <= SLOW_COMMIT_MS as f64), words)
        }
    }
}
