//! Releases: images that belong together, under a name.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_campaign::{Image, InvalidRelease, RULES_AT_MOST, Release, ReleaseRules, Rule, VersionScheme};
use farrier_protocol::{LongText, Sha256, Text, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::etag::Resource;
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::{Api, name};
use crate::store::audit::{self, Change};
use crate::store::deltas::{self, DeltaState, ReleaseDelta};
use crate::store::releases::{self, NamedRelease, Removed};
use crate::store::{StoreError, Tx};

/// The body of a new release.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRelease {
    /// 1 to 64 characters [A-Za-z0-9._-].
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub(crate) name: String,
    /// One for each hardware, or several for different suppliers and regions.
    #[schemars(length(min = 1))]
    pub(crate) images: Vec<NewImage>,
    /// How the versions are written; without it they are only the same or not.
    #[serde(default)]
    pub(crate) version_scheme: Option<VersionScheme>,
    /// Whether an ECU that runs a later version gets the earlier one of the release; asked with a version scheme only.
    #[serde(default)]
    pub(crate) allow_downgrade: bool,
    /// The release's place in the maker's own count.
    #[serde(default)]
    pub(crate) release_counter: Option<u64>,
    /// For people.
    #[serde(default)]
    pub(crate) notes: Option<LongText>,
    /// What it demands across the ECUs of a vehicle; all of them must be met.
    #[serde(default)]
    #[schemars(length(max = RULES_AT_MOST))]
    pub(crate) rules: Vec<Rule>,
}

/// An image that was uploaded, and what it is for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewImage {
    pub(crate) hw_part_no: Text,
    /// The supplier whose ECUs it is for (`supplier_code` of the VCI); any without it.
    #[serde(default)]
    pub(crate) supplier: Option<Text>,
    /// The calibration region whose vehicles it is for (`region` of the VCI); any without it.
    #[serde(default)]
    pub(crate) region: Option<Text>,
    pub(crate) version: Text,
    pub(crate) sha256: Sha256,
    /// The RXSWINs (UN R156) that installing it changes.
    #[serde(default)]
    pub(crate) rxswins: Vec<Text>,
}

/// A release as operators see it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ReleaseAnswer {
    name: Text,
    created_at_ms: UnixMillis,
    images: Vec<ImageAnswer>,
    version_scheme: Option<VersionScheme>,
    allow_downgrade: bool,
    release_counter: Option<u64>,
    notes: Option<LongText>,
    rules: Vec<Rule>,
    /// Each rule as part of a sentence for people.
    rules_in_words: Vec<String>,
}

/// An image of a release.
#[derive(Serialize, JsonSchema)]
struct ImageAnswer {
    hw_part_no: Text,
    /// Absent for any.
    supplier: Option<Text>,
    /// Absent for any.
    region: Option<Text>,
    version: Text,
    sha256: Sha256,
    size_bytes: u64,
    rxswins: Vec<Text>,
}

/// A release with its deltas.
#[derive(Serialize, JsonSchema)]
pub(super) struct ReleaseDetails {
    #[serde(flatten)]
    release: ReleaseAnswer,
    deltas: Vec<DeltaAnswer>,
}

/// A delta to an image of a release.
#[derive(Serialize, JsonSchema)]
struct DeltaAnswer {
    hw_part_no: Text,
    from: DeltaEnd,
    to: DeltaEnd,
    /// `pending`, `ready`, `not_smaller` or `failed`.
    state: &'static str,
    /// Why there is none.
    detail: Option<String>,
    /// Of the delta, where it is ready.
    sha256: Option<Sha256>,
    /// Of the delta, where it was made.
    size_bytes: Option<u64>,
    image_size_bytes: u64,
    compressed_image_bytes: Option<u64>,
    /// Of the delta to the compressed image, by which it is judged.
    ratio: Option<f64>,
}

/// One of the two images of a delta.
#[derive(Serialize, JsonSchema)]
struct DeltaEnd {
    version: Text,
    sha256: Sha256,
}

/// `POST /releases`
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewRelease>,
) -> Result<(StatusCode, Json<ReleaseAnswer>), Problem> {
    let (name, actor) = (name(&new.name, "release")?, caller.actor());
    api.answer(move |tx, rules, now| {
        let release = release(tx, new)?;
        match releases::by_name(tx, &name)? {
            Some(existing) if is_same(&existing.release, &release) => {
                Ok((StatusCode::OK, shown(&existing)))
            }
            Some(_) => Err(Problem::conflict(
                "RELEASE_EXISTS",
                format!(
                    "Release {name} exists with other images or rules; a release never changes, choose another name."
                ),
            )),
            None => {
                releases::create(tx, &name, &release, now)?;
                if rules.deltas.at_most_percent > 0 {
                    deltas::want_from_newest(tx, &release, rules.deltas.bases_per_image, now)?;
                }
                let created = NamedRelease { name, created_at: now, release };
                let change = Change {
                    action: "release.created",
                    object: format!("release/{}", created.name),
                    detail: Some(in_short(&created.release)),
                    before: None,
                    after: Some(audited(&created)),
                };
                audit::record(tx, &actor, change, now)?;
                Ok((StatusCode::CREATED, shown(&created)))
            }
        }
    })
    .await
}

/// The images must have been uploaded.
fn release(tx: &Tx<'_>, new: NewRelease) -> Result<Release, Problem> {
    let mut images = Vec::new();
    for NewImage { hw_part_no, supplier, region, version, sha256, rxswins } in new.images {
        let stored = releases::image(tx, &sha256)?.ok_or_else(|| {
            Problem::conflict(
                "IMAGE_MISSING",
                format!("Image {sha256} is not there; upload it first (PUT /api/v1/images/{sha256})."),
            )
        })?;
        let image = Image::new(hw_part_no, version, sha256, stored.size_bytes);
        images.push(Image { supplier, region, rxswins, ..image });
    }
    let rules = ReleaseRules {
        scheme: new.version_scheme,
        allow_downgrade: new.allow_downgrade,
        release_counter: new.release_counter,
        notes: new.notes,
        rules: new.rules,
    };
    let (of_images, of_rules) = (images.clone(), rules.rules.clone());
    Release::with_rules(images, rules).map_err(|error| {
        let pointer = pointer(&error, &of_images, &of_rules);
        Problem::invalid_at("RELEASE_INVALID", pointer, format!("{error}."))
    })
}

/// Where in the document of a new release the error is.
fn pointer(error: &InvalidRelease, images: &[Image], rules: &[Rule]) -> String {
    let place = |list: &str, index: Option<usize>| match index {
        Some(index) => format!("/{list}/{index}"),
        None => format!("/{list}"),
    };
    match error {
        InvalidRelease::Empty => place("images", None),
        InvalidRelease::HardwareTwice { hw_part_no } | InvalidRelease::Ambiguous { hw_part_no, .. } => {
            place("images", images.iter().rposition(|image| image.hw_part_no == *hw_part_no))
        }
        InvalidRelease::ImageVersion { hw_part_no, version, .. } => {
            let is_meant = |image: &Image| image.hw_part_no == *hw_part_no && image.version == *version;
            place("images", images.iter().position(is_meant)) + "/version"
        }
        InvalidRelease::RuleVersion { rule, .. }
        | InvalidRelease::RuleWithoutImage { rule, .. }
        | InvalidRelease::RuleIncomplete { rule, .. } => {
            place("rules", rules.iter().position(|other| other == rule))
        }
        InvalidRelease::SchemeMissing { .. } => place("version_scheme", None),
        InvalidRelease::OrderInCircle { .. } | InvalidRelease::TooManyRules { .. } => place("rules", None),
    }
}

fn is_same(one: &Release, other: &Release) -> bool {
    one.rules() == other.rules()
        && one.images().len() == other.images().len()
        && one.images().iter().all(|image| other.images().contains(image))
}

fn in_short(release: &Release) -> String {
    format!("{} image(s), {} rule(s)", release.images().len(), release.rules().rules.len())
}

/// What the audit log takes the digest of.
fn audited(release: &NamedRelease) -> Value {
    let image = |image: &Image| {
        json!({
            "hw_part_no": image.hw_part_no, "supplier": image.supplier, "region": image.region,
            "version": image.version, "sha256": image.sha256, "rxswins": image.rxswins,
        })
    };
    json!({
        "images": release.release.images().iter().map(image).collect::<Vec<_>>(),
        "rules": release.release.rules(),
    })
}

fn shown(release: &NamedRelease) -> ReleaseAnswer {
    let image = |image: &Image| ImageAnswer {
        hw_part_no: image.hw_part_no.clone(),
        supplier: image.supplier.clone(),
        region: image.region.clone(),
        version: image.version.clone(),
        sha256: image.sha256,
        size_bytes: image.size_bytes,
        rxswins: image.rxswins.clone(),
    };
    let rules = release.release.rules();
    ReleaseAnswer {
        name: release.name.clone(),
        created_at_ms: release.created_at,
        images: release.release.images().iter().map(image).collect(),
        version_scheme: rules.scheme,
        allow_downgrade: rules.allow_downgrade,
        release_counter: rules.release_counter,
        notes: rules.notes.clone(),
        rules: rules.rules.clone(),
        rules_in_words: rules.rules.iter().map(Rule::phrase).collect(),
    }
}

fn shown_delta(delta: ReleaseDelta, can_sign: bool) -> DeltaAnswer {
    let ratio = match (delta.size_bytes, delta.compressed_image_bytes) {
        (Some(bytes), Some(compressed)) if compressed > 0 => Some(bytes as f64 / compressed as f64),
        (_, _) => None,
    };
    let detail = match delta.state {
        DeltaState::Pending if !can_sign => Some(
            "not made: this server has no release key to sign it; start the server with a release_key"
                .to_owned(),
        ),
        DeltaState::Pending | DeltaState::Ready | DeltaState::NotSmaller | DeltaState::Failed => delta.detail,
    };
    DeltaAnswer {
        hw_part_no: delta.hw_part_no,
        from: DeltaEnd { version: delta.from_version, sha256: delta.from },
        to: DeltaEnd { version: delta.version, sha256: delta.image },
        state: delta.state.name(),
        detail,
        sha256: delta.sha256,
        size_bytes: delta.size_bytes,
        image_size_bytes: delta.image_bytes,
        compressed_image_bytes: delta.compressed_image_bytes,
        ratio,
    }
}

/// A release as what an ETag is of.
pub(super) const RELEASE: Resource = Resource {
    lock: |tx, name| tx.lock(&format!("release {name}")),
    settled: |tx, name| {
        let Ok(name) = name.parse() else { return Ok(None) };
        Ok(releases::by_name(tx, &name)?.as_ref().map(audited))
    },
};

/// `GET /releases`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<ReleaseAnswer>>, Problem> {
    let (limit, after) = (query.limit()?, query.after_name()?);
    let listed = api.read(move |tx| {
        let named = |name: Text| releases::by_name(tx, &name).transpose();
        let names = releases::names(tx, &after, limit + 1)?;
        Ok(names.into_iter().filter_map(named).collect::<Result<Vec<_>, StoreError>>()?)
    });
    page(listed.await?, limit, |release| release.name.clone(), |release| Ok(shown(release))).map(Json)
}

/// `GET /releases/{name}`
pub(super) async fn show(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Json<ReleaseDetails>, Problem> {
    let wanted = name(&text, "release")?;
    let found = api.read(move |tx| {
        let Some(release) = releases::by_name(tx, &wanted)? else { return Ok(None) };
        Ok(Some((release, deltas::of_release(tx, &wanted)?)))
    });
    let (release, deltas) = found.await?.ok_or_else(|| Problem::not_found("release", &text))?;
    let can_sign = api.signature.can_sign();
    let deltas = deltas.into_iter().map(|delta| shown_delta(delta, can_sign)).collect();
    Ok(Json(ReleaseDetails { release: shown(&release), deltas }))
}

/// `DELETE /releases/{name}`
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<ReleaseAnswer>, Problem> {
    let (name, actor) = (name(&text, "release")?, caller.actor());
    let deleted = api.write(move |tx, _, now| {
        let release =
            releases::by_name(tx, &name)?.ok_or_else(|| Problem::not_found("release", name.as_str()))?;
        match releases::remove(tx, &name)? {
            Removed::InUse(campaign) => Err(Problem::conflict(
                "RELEASE_IN_USE",
                format!(
                    "Release {name} is that of campaign {campaign} and stays, to show what was installed."
                ),
            )),
            Removed::Gone => {
                let change = Change {
                    action: "release.deleted",
                    object: format!("release/{name}"),
                    detail: Some(in_short(&release.release)),
                    before: Some(audited(&release)),
                    after: None,
                };
                audit::record(tx, &actor, change, now)?;
                Ok(shown(&release))
            }
        }
    });
    Ok(Json(deleted.await?))
}
