//! Releases: images that belong together, under a name.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use farrier_campaign::{Image, Release};
use farrier_protocol::{Sha256, Text};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Api, document, name};
use crate::store::Tx;
use crate::store::deltas::{self, DeltaState, ReleaseDelta};
use crate::store::releases::{self, NamedRelease};

/// The body of a new release.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRelease {
    name: String,
    images: Vec<NewImage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewImage {
    hw_part_no: Text,
    version: Text,
    sha256: Sha256,
}

/// `POST /releases`
pub(super) async fn create(
    State(api): State<Api>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let new: NewRelease = document(&body)?;
    let name = name(&new.name, "release")?;
    api.write(move |tx, rules, now| {
        let release = release(tx, new.images)?;
        match releases::by_name(tx, &name)? {
            Some(existing) if same_images(&existing.release, &release) => {
                Ok((StatusCode::OK, shown(&existing)))
            }
            Some(_) => Err(Problem::conflict(
                "RELEASE_EXISTS",
                format!(
                    "Release {name} exists with other images; a release never changes, choose another name."
                ),
            )),
            None => {
                releases::create(tx, &name, &release, now)?;
                if rules.deltas.at_most_percent > 0 {
                    deltas::want_from_newest(tx, &release, rules.deltas.bases_per_image, now)?;
                }
                let created = NamedRelease { name, created_at: now, release };
                Ok((StatusCode::CREATED, shown(&created)))
            }
        }
    })
    .await
    .map(|(status, release)| (status, Json(release)))
}

/// The images must have been uploaded.
fn release(tx: &Tx<'_>, images: Vec<NewImage>) -> Result<Release, Problem> {
    let mut known = Vec::new();
    for NewImage { hw_part_no, version, sha256 } in images {
        let stored = releases::image(tx, &sha256)?.ok_or_else(|| {
            Problem::conflict(
                "IMAGE_MISSING",
                format!("Image {sha256} is not there; upload it first (PUT /api/v1/images/{sha256})."),
            )
        })?;
        known.push(Image { hw_part_no, version, sha256, size_bytes: stored.size_bytes });
    }
    Release::new(known).map_err(|error| Problem::invalid(format!("images: {error}.")))
}

fn same_images(one: &Release, other: &Release) -> bool {
    one.images().len() == other.images().len()
        && one.images().iter().all(|image| other.images().contains(image))
}

fn shown(release: &NamedRelease) -> Value {
    let images: Vec<_> = release
        .release
        .images()
        .iter()
        .map(|image| {
            json!({
                "hw_part_no": image.hw_part_no, "version": image.version,
                "sha256": image.sha256, "size_bytes": image.size_bytes,
            })
        })
        .collect();
    json!({"name": release.name, "created_at_ms": release.created_at, "images": images})
}

/// The ratio is to the compressed image, by which a delta is judged.
fn shown_delta(delta: &ReleaseDelta, can_sign: bool) -> Value {
    let ratio = match (delta.size_bytes, delta.compressed_image_bytes) {
        (Some(bytes), Some(compressed)) if compressed > 0 => Some(bytes as f64 / compressed as f64),
        (_, _) => None,
    };
    let detail = match delta.state {
        DeltaState::Pending if !can_sign => Some(
            "not made: this server has no release key to sign it; start the server with a release_key"
                .to_owned(),
        ),
        DeltaState::Pending | DeltaState::Ready | DeltaState::NotSmaller | DeltaState::Failed => {
            delta.detail.clone()
        }
    };
    json!({
        "hw_part_no": delta.hw_part_no,
        "from": {"version": delta.from_version, "sha256": delta.from},
        "to": {"version": delta.version, "sha256": delta.image},
        "state": delta.state.name(), "detail": detail, "sha256": delta.sha256, "size_bytes": delta.size_bytes,
        "image_size_bytes": delta.image_bytes, "compressed_image_bytes": delta.compressed_image_bytes,
        "ratio": ratio,
    })
}

/// `GET /releases`
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let releases = api.read(|tx| {
        let mut shown_releases = Vec::new();
        for name in releases::names(tx)? {
            shown_releases.extend(releases::by_name(tx, &name)?.as_ref().map(shown));
        }
        Ok(shown_releases)
    });
    Ok(Json(Value::Array(releases.await?)))
}

/// `GET /releases/{name}`
pub(super) async fn show(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<Value>, Problem> {
    let wanted = name(&text, "release")?;
    let found = api.read(move |tx| {
        let Some(release) = releases::by_name(tx, &wanted)? else { return Ok(None) };
        Ok(Some((release, deltas::of_release(tx, &wanted)?)))
    });
    let (release, deltas) = found.await?.ok_or_else(|| Problem::not_found("release", &text))?;
    let can_sign = api.signature.can_sign();
    let mut shown = shown(&release);
    if let Value::Object(fields) = &mut shown {
        let deltas = deltas.iter().map(|delta| shown_delta(delta, can_sign)).collect();
        fields.insert("deltas".to_owned(), Value::Array(deltas));
    }
    Ok(Json(shown))
}
