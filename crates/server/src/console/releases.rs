//! `/releases` and `/releases/{name}`: images, rules, deltas and what they save, and which vehicles run it.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use farrier_campaign::{
    EcuField, EcuTest, Image, Selection, SortableVersion, TextTest, VersionField, VersionOrder,
};
use farrier_protocol::UnixMillis;
use serde::Deserialize;

use super::Console;
use super::confirm::ConfirmPage;
use super::format::{Fact, Time, bytes, number, percent, time};
use super::page::{Failed, Frame, shown};
use super::progress::{self, CampaignRow};
use super::release_rules;
use super::session::Visitor;
use super::texts::{Texts, filled};
use crate::access::Permission;
use crate::api::{self, InPath, Problem};
use crate::store::deltas::{DeltaState, ReleaseDelta};
use crate::store::releases::NamedRelease;
use crate::store::{Tx, campaigns, deltas, releases};

/// Releases on a page.
const ON_A_PAGE: u32 = 50;
/// Campaigns of one release that are looked at.
const CAMPAIGNS: u32 = 50;
/// Vehicles that are counted for one image; there may be more.
const COUNTED: u32 = 20_000;

struct Row {
    name: String,
    is_used: bool,
    images: String,
    size: String,
    at_release: String,
    campaigns: String,
    created: Time,
    place: String,
}

#[derive(Template)]
#[template(path = "releases.html")]
struct ReleasesPage {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
    is_first: bool,
}

struct ImageRow {
    hw_part_no: String,
    only_for: String,
    version: String,
    size: String,
    sha256: String,
    rxswins: String,
    /// Of vehicles that run it, and the query that finds them.
    vehicles: String,
    query: String,
}

struct DeltaRow {
    hw_part_no: String,
    from: String,
    state: &'static str,
    class: &'static str,
    size: String,
    of: String,
    saved: String,
    /// Why there is none.
    detail: String,
}

#[derive(Template)]
#[template(path = "release.html")]
struct ReleasePage {
    frame: Frame,
    name: String,
    created: Time,
    is_used: bool,
    facts: Vec<(&'static str, Fact)>,
    images: Vec<ImageRow>,
    rules: Vec<String>,
    deltas: Vec<DeltaRow>,
    /// What all deltas together save.
    saved: Option<String>,
    campaigns: Vec<CampaignRow>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    before: String,
}

/// `GET /releases`
pub(super) async fn list(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { before }): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now, is_first) = (visitor.guest.language.texts(), console.api.now(), before.is_empty());
    let rows = console.api.read(move |tx| {
        let place = match before.as_str() {
            "" => (UnixMillis(i64::MAX), String::new()),
            before => api::cursor(before, "before")?,
        };
        let mut rows = Vec::new();
        for (_, name) in releases::before(tx, &place, ON_A_PAGE + 1)? {
            let Some(release) = releases::by_name(tx, &name)? else { continue };
            rows.push(row(tx, t, &release, now)?);
        }
        Ok(rows)
    });
    let mut rows: Vec<Row> = rows.await.map_err(|problem| visitor.failed(problem))?;
    let has_more = rows.len() > ON_A_PAGE as usize;
    rows.truncate(ON_A_PAGE as usize);
    let next = rows.last().filter(|_| has_more).map(|row| row.place.clone());
    Ok(shown(&ReleasesPage { frame: visitor.frame(), rows, next, is_first }))
}

fn row(tx: &Tx<'_>, t: &Texts, release: &NamedRelease, now: UnixMillis) -> Result<Row, Problem> {
    let images = release.release.images();
    let using = campaigns::of_release(tx, &release.name, CAMPAIGNS)?;
    let mut at_release = 0_u64;
    for campaign in &using {
        let counts = campaigns::counts(tx, &campaign.name)?;
        let there = ["succeeded", "up_to_date"].iter().filter_map(|state| counts.by_state.get(*state));
        at_release = at_release.saturating_add(there.sum());
    }
    Ok(Row {
        name: release.name.to_string(),
        is_used: !using.is_empty(),
        images: number(images.len()),
        size: bytes(images.iter().map(|image| image.size_bytes).sum()),
        at_release: number(at_release),
        campaigns: number(using.len()),
        created: time(t, release.created_at, now),
        place: api::place(&(release.created_at, &release.name)),
    })
}

/// `GET /releases/{name}`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let (frame, can_sign) = (visitor.frame(), console.api.signature.can_sign());
    let page = console.api.read(move |tx| {
        let named = found(tx, &name)?;
        let made = deltas::of_release(tx, &named.name)?;
        let rules = named.release.rules();
        let mut using = Vec::new();
        for campaign in campaigns::of_release(tx, &named.name, CAMPAIGNS)? {
            using.push(progress::row(tx, t, &campaign, now)?);
        }
        let images: Result<_, Problem> =
            named.release.images().iter().map(|image| image_row(tx, image)).collect();
        Ok(ReleasePage {
            name: named.name.to_string(),
            created: time(t, named.created_at, now),
            is_used: !using.is_empty(),
            facts: facts(t, &named),
            images: images?,
            rules: rules.rules.iter().map(|rule| release_rules::words(t, rule)).collect(),
            deltas: made.iter().map(|delta| delta_row(t, delta, can_sign)).collect(),
            saved: saved(t, &made),
            campaigns: using,
            frame,
        })
    });
    Ok(shown(&page.await.map_err(|problem| visitor.failed(problem))?))
}

fn found(tx: &Tx<'_>, name: &str) -> Result<NamedRelease, Problem> {
    let name = api::name(name, "release")?;
    releases::by_name(tx, &name)?.ok_or_else(|| Problem::not_found("release", name.as_str()))
}

fn facts(t: &'static Texts, named: &NamedRelease) -> Vec<(&'static str, Fact)> {
    let (release, rules) = (&named.release, named.release.rules());
    let size = release.images().iter().map(|image| image.size_bytes).sum();
    let rxswins: Vec<_> = release.rxswins().into_iter().map(ToString::to_string).collect();
    let mut facts = vec![(t.images, format!("{}, {}", number(release.images().len()), bytes(size)))];
    facts.extend((!rxswins.is_empty()).then(|| (t.rxswins, rxswins.join(", "))));
    let scheme = rules.scheme.map_or(t.no_scheme, |scheme| match scheme {
        farrier_campaign::VersionScheme::Semver => "semver",
        farrier_campaign::VersionScheme::Dotted => "dotted",
        farrier_campaign::VersionScheme::Date => "date",
    });
    facts.push((t.version_scheme, scheme.to_owned()));
    facts.extend(rules.allow_downgrade.then(|| (t.downgrade, t.allow_downgrade.to_owned())));
    facts.extend(rules.release_counter.map(|counter| (t.release_counter, number(counter))));
    facts.extend(rules.notes.as_ref().map(|notes| (t.notes, notes.to_string())));
    facts.into_iter().map(|(name, text)| (name, Fact::Text(text))).collect()
}

fn image_row(tx: &Tx<'_>, image: &Image) -> Result<ImageRow, Problem> {
    let only_for = [&image.supplier, &image.region].into_iter().flatten();
    let counted = releases::vehicles_that_run(tx, &image.hw_part_no, &image.version, COUNTED + 1)?;
    let is_part = counted > u64::from(COUNTED);
    Ok(ImageRow {
        hw_part_no: image.hw_part_no.to_string(),
        only_for: only_for.map(ToString::to_string).collect::<Vec<_>>().join(", "),
        version: image.version.to_string(),
        size: bytes(image.size_bytes),
        sha256: image.sha256.to_string(),
        rxswins: image.rxswins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        vehicles: if is_part { format!("{}+", number(COUNTED)) } else { number(counted) },
        query: running(image).to_string(),
    })
}

/// The vehicles of which an ECU runs an image's version, as they are counted.
fn running(image: &Image) -> Selection {
    let text =
        |field, value: &farrier_protocol::Text| EcuTest::Text { field, test: TextTest::Is(value.clone()) };
    let hardware = text(EcuField::HwPartNo, &image.hw_part_no);
    Selection::HasEcu(match SortableVersion::new(image.version.clone()) {
        Some(version) => {
            let side =
                |order| EcuTest::Version { field: VersionField::SwVersion, order, than: version.clone() };
            vec![hardware, side(VersionOrder::AtLeast), side(VersionOrder::AtMost)]
        }
        None => vec![hardware, text(EcuField::SwVersion, &image.version)],
    })
}

fn delta_row(t: &Texts, delta: &ReleaseDelta, can_sign: bool) -> DeltaRow {
    let class = match delta.state {
        DeltaState::Ready => "ok",
        DeltaState::Pending => "run",
        DeltaState::NotSmaller => "idle",
        DeltaState::Failed => "bad",
    };
    let detail = match delta.state {
        DeltaState::Pending if !can_sign => Some(t.delta_needs_key.to_owned()),
        DeltaState::Pending | DeltaState::Ready | DeltaState::NotSmaller | DeltaState::Failed => {
            delta.detail.clone()
        }
    };
    let size = delta.size_bytes;
    DeltaRow {
        hw_part_no: delta.hw_part_no.to_string(),
        from: format!("{} → {}", delta.from_version, delta.version),
        state: t.delta_state(delta.state.name()),
        class,
        size: size.map(bytes).unwrap_or_default(),
        of: bytes(delta.image_bytes),
        saved: size
            .filter(|_| delta.state == DeltaState::Ready)
            .map(|size| format!("{} %", percent(delta.image_bytes.saturating_sub(size), delta.image_bytes)))
            .unwrap_or_default(),
        detail: detail.unwrap_or_default(),
    }
}

/// What the deltas that are made save, against the whole images.
fn saved(t: &Texts, made: &[ReleaseDelta]) -> Option<String> {
    let ready: Vec<_> = made
        .iter()
        .filter(|delta| delta.state == DeltaState::Ready)
        .filter_map(|delta| Some((delta.size_bytes?, delta.image_bytes)))
        .collect();
    let (size, of) = ready.iter().fold((0_u64, 0_u64), |(size, of), (one, image)| {
        (size.saturating_add(*one), of.saturating_add(*image))
    });
    let percent = percent(of.saturating_sub(size), of).to_string();
    let values = [&*number(ready.len()), &*bytes(size), &*bytes(of), &*percent];
    (!ready.is_empty()).then(|| filled(t.deltas_save, &values))
}

/// `GET /releases/{name}/delete`: says what will happen before it happens.
pub(super) async fn confirm_delete(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Release)?;
    let t = visitor.guest.language.texts();
    let named =
        console.api.read(move |tx| found(tx, &name)).await.map_err(|problem| visitor.failed(problem))?;
    let (title, back) =
        (filled(t.delete_release, &[named.name.as_str()]), format!("/releases/{}", named.name));
    let page = ConfirmPage::new(visitor.frame(), title, t.will_delete_release.to_owned(), t.delete, back);
    Ok(shown(&ConfirmPage { is_grave: true, ..page }))
}

/// `POST /releases/{name}/delete`
pub(super) async fn delete(
    State(console): State<Console>,
    visitor: Visitor,
    name: InPath<String>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Release)?;
    let deleted = api::releases::delete(State(console.api), visitor.caller(), name).await;
    let _ = deleted.map_err(|problem| visitor.failed(problem))?;
    Ok(Redirect::to("/releases").into_response())
}
