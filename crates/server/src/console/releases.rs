//! `/releases` and `/releases/{name}`: images, rules, and the deltas that were made.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::Console;
use super::format::{Time, bytes, number, percent, time};
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::Texts;
use crate::api::{self, Problem};
use crate::store::deltas::ReleaseDelta;
use crate::store::{deltas, releases};

/// Releases on a page.
const ON_A_PAGE: u32 = 50;

struct Row {
    name: String,
    images: String,
    size: String,
    created: Time,
}

#[derive(Template)]
#[template(path = "releases.html")]
struct ReleasesPage {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
}

struct ImageRow {
    hw_part_no: String,
    only_for: String,
    version: String,
    size: String,
    sha256: String,
    rxswins: String,
}

struct DeltaRow {
    hw_part_no: String,
    from: String,
    state: String,
    size: String,
    saved: String,
}

#[derive(Template)]
#[template(path = "release.html")]
struct ReleasePage {
    frame: Frame,
    name: String,
    created: Time,
    images: Vec<ImageRow>,
    deltas: Vec<DeltaRow>,
    /// As JSON; none where there are no rules.
    rules: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    after: String,
}

/// `GET /releases`
pub(super) async fn list(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { after }): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let rows = console.api.read(move |tx| {
        let mut rows = Vec::new();
        for name in releases::names(tx, &after, ON_A_PAGE + 1)? {
            let Some(release) = releases::by_name(tx, &name)? else { continue };
            let images = release.release.images();
            rows.push(Row {
                name: name.to_string(),
                images: number(images.len()),
                size: bytes(images.iter().map(|image| image.size_bytes).sum()),
                created: time(t, release.created_at, now),
            });
        }
        Ok(rows)
    });
    let mut rows: Vec<Row> = rows.await.map_err(|problem| visitor.failed(problem))?;
    let has_more = rows.len() > ON_A_PAGE as usize;
    rows.truncate(ON_A_PAGE as usize);
    let next = rows.last().filter(|_| has_more).map(|row| row.name.clone());
    Ok(shown(&ReleasesPage { frame: visitor.frame(), rows, next }))
}

/// `GET /releases/{name}`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let frame = visitor.frame();
    let page = console.api.read(move |tx| {
        let name = api::name(&name, "release")?;
        let named =
            releases::by_name(tx, &name)?.ok_or_else(|| Problem::not_found("release", name.as_str()))?;
        let made = deltas::of_release(tx, &name)?;
        let (release, rules) = (&named.release, named.release.rules());
        let images = release.images().iter().map(|image| {
            let only_for = [&image.supplier, &image.region].into_iter().flatten();
            ImageRow {
                hw_part_no: image.hw_part_no.to_string(),
                only_for: only_for.map(ToString::to_string).collect::<Vec<_>>().join(", "),
                version: image.version.to_string(),
                size: bytes(image.size_bytes),
                sha256: image.sha256.to_string(),
                rxswins: image.rxswins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            }
        });
        Ok(ReleasePage {
            name: name.to_string(),
            created: time(t, named.created_at, now),
            images: images.collect(),
            deltas: made.iter().map(|delta| delta_row(t, delta)).collect(),
            rules: (*rules != farrier_campaign::ReleaseRules::default())
                .then(|| serde_json::to_string_pretty(rules).unwrap_or_default()),
            frame,
        })
    });
    Ok(shown(&page.await.map_err(|problem| visitor.failed(problem))?))
}

fn delta_row(t: &Texts, delta: &ReleaseDelta) -> DeltaRow {
    let (size, compressed) = (delta.size_bytes, delta.compressed_image_bytes);
    let saved =
        size.zip(compressed).map(|(size, compressed)| percent(compressed.saturating_sub(size), compressed));
    DeltaRow {
        hw_part_no: delta.hw_part_no.to_string(),
        from: format!("{} → {}", delta.from_version, delta.version),
        state: t.delta_state(delta.state.name()).to_owned(),
        size: size.map(bytes).unwrap_or_default(),
        saved: saved.map(|saved| format!("{saved} %")).unwrap_or_default(),
    }
}
