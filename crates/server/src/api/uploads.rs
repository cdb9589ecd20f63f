//! Images that come in parts, over lines that break: begun with digest and size, continued from where they are, and stored like any
//! other image once they are whole. An upload is found by the digest of its image, so a client that has forgotten all finds it again.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_protocol::{Sha256, UnixMillis};
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::images;
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use crate::artifacts::{Parts, StoreImageError};
use crate::store::audit::{self, Change};
use crate::store::uploads::{self, Upload};
use crate::store::{Tx, releases};

/// Uploads of one token or user that are not over.
const MOST_OF_A_TOKEN: u64 = 16;
/// The largest image, in octets: 64 GiB.
const MOST_BYTES: u64 = 64 << 30;
/// How long an upload waits for its next part, in seconds.
const LIFE_S: u64 = 86_400;
/// How often uploads that nobody goes on with are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(3_600);
/// What has come is made durable after so many octets, however many one request brings.
const DURABLE_EVERY: u64 = 8 << 20;

/// The body of a new upload.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUpload {
    sha256: Sha256,
    /// The image's length.
    #[schemars(range(min = 1, max = 68_719_476_736_u64))]
    size_bytes: u64,
    /// Detached signature of the image by the release key, base64 of ASN.1 DER; without it the server signs, if it can.
    #[schemars(length(max = 1024))]
    signature: Option<String>,
}

/// The longest signature, in characters of base64.
const MOST_SIGNATURE: usize = 1024;

/// Where a part belongs.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct At {
    /// How many octets the server has; they must be as many as it says.
    #[schemars(range(min = 0, max = 68_719_476_736_u64))]
    offset_bytes: u64,
}

/// How far an upload is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UploadAnswer {
    sha256: Sha256,
    size_bytes: u64,
    /// So many octets are durable; the next part begins there.
    offset_bytes: u64,
    /// Whether the image is whole, checked, signed and stored; then the upload is over.
    is_stored: bool,
    /// Who began it, as the audit log names them; absent where the image is stored.
    begun_by: Option<String>,
    /// When it is removed if nothing more comes; absent where the image is stored.
    expires_at_ms: Option<UnixMillis>,
}

impl From<&Upload> for UploadAnswer {
    fn from(upload: &Upload) -> Self {
        Self {
            sha256: upload.sha256,
            size_bytes: upload.size_bytes,
            offset_bytes: upload.offset_bytes,
            is_stored: false,
            begun_by: Some(upload.begun_by_actor()),
            expires_at_ms: Some(upload.expires_at),
        }
    }
}

fn stored(sha256: Sha256, size_bytes: u64) -> UploadAnswer {
    UploadAnswer {
        sha256,
        size_bytes,
        offset_bytes: size_bytes,
        is_stored: true,
        begun_by: None,
        expires_at_ms: None,
    }
}

fn digest(text: &str) -> Result<Sha256, Problem> {
    text.parse().map_err(|error| Problem::invalid(format!("SHA-256 in the address: {error}.")))
}

fn found(tx: &Tx<'_>, sha256: &Sha256) -> Result<Upload, Problem> {
    uploads::by_digest(tx, sha256)?.ok_or_else(|| Problem::not_found("upload", &sha256.to_string()))
}

fn change(action: &'static str, upload: &Upload) -> Change {
    Change {
        action,
        object: format!("upload/{}", upload.sha256),
        detail: Some(format!("{} of {} bytes", upload.offset_bytes, upload.size_bytes)),
        before: None,
        after: None,
    }
}

/// `GET /uploads`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<UploadAnswer>>, Problem> {
    let (limit, after) = (query.limit()?, query.after_name()?);
    let uploads = api.read(move |tx| Ok(uploads::page(tx, &after, limit + 1)?)).await?;
    page(uploads, limit, |upload| upload.sha256.to_string(), |upload| Ok(upload.into())).map(Json)
}

/// `POST /uploads`
pub(crate) async fn begin(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewUpload>,
) -> Result<(StatusCode, Json<UploadAnswer>), Problem> {
    let NewUpload { sha256, size_bytes, signature } = new;
    if !(1..=MOST_BYTES).contains(&size_bytes) {
        return Err(Problem::invalid(format!("size_bytes: expected 1 to {MOST_BYTES}, found {size_bytes}.")));
    }
    if let Some(signature) = &signature {
        if signature.len() > MOST_SIGNATURE {
            let detail = format!(
                "signature: expected at most {MOST_SIGNATURE} characters, found {}.",
                signature.len()
            );
            return Err(Problem::invalid(detail));
        }
        images::read_signature(signature.as_bytes())?;
    }
    remove_expired(&api).await?;
    let free = api.artifacts.free_bytes().map_err(StoreImageError::from)?;
    let actor = caller.actor();
    api.answer(move |tx, _, now| {
        tx.lock("uploads")?;
        if let Some(image) = releases::image(tx, &sha256)?.filter(|_| signature.is_none()) {
            return Ok((StatusCode::OK, stored(sha256, image.size_bytes)));
        }
        if let Some(upload) = uploads::by_digest(tx, &sha256)? {
            if upload.size_bytes != size_bytes {
                let detail = format!(
                    "The upload of {sha256} was begun with {} bytes, found {size_bytes}; check the file, or give the upload up.",
                    upload.size_bytes
                );
                return Err(Problem::conflict("UPLOAD_DIFFERS", detail));
            }
            if let Some(signature) = signature.filter(|signature| upload.signature.as_ref() != Some(signature)) {
                uploads::set_signature(tx, &sha256, &signature)?;
                audit::record(tx, &actor, change("image.upload_signed", &upload), now)?;
            }
            return Ok((StatusCode::OK, UploadAnswer::from(&upload)));
        }
        let begun_by = caller.uploader();
        if uploads::count_of(tx, &begun_by)? >= MOST_OF_A_TOKEN {
            let detail = format!(
                "{} has begun {MOST_OF_A_TOKEN} uploads that are not over; finish some or give them up.",
                actor.name()
            );
            return Err(Problem::conflict("UPLOAD_TOO_MANY", detail));
        }
        let needed = uploads::bytes_to_come(tx)?.saturating_add(size_bytes);
        if needed > free {
            let detail = format!(
                "Expected room for {needed} bytes, with what is still to come of other uploads, found {free}; make room first."
            );
            return Err(Problem::conflict("UPLOAD_NO_ROOM", detail));
        }
        let upload = Upload {
            sha256,
            size_bytes,
            offset_bytes: 0,
            signature,
            begun_by,
            begun_at: now,
            expires_at: now.plus_seconds(LIFE_S),
        };
        uploads::begin(tx, &upload)?;
        audit::record(tx, &actor, change("image.upload_begun", &upload), now)?;
        Ok((StatusCode::CREATED, UploadAnswer::from(&upload)))
    })
    .await
}

/// `GET /uploads/{sha256}`
pub(super) async fn show(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Json<UploadAnswer>, Problem> {
    let sha256 = digest(&text)?;
    let shown = api.read(move |tx| Ok(UploadAnswer::from(&found(tx, &sha256)?)));
    Ok(Json(shown.await?))
}

/// `PATCH /uploads/{sha256}?offset_bytes=N`
pub(crate) async fn append(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    InQuery(At { offset_bytes }): InQuery<At>,
    body: Body,
) -> Result<Json<UploadAnswer>, Problem> {
    let sha256 = digest(&text)?;
    api.read(move |tx| found(tx, &sha256)).await?;
    let mut parts = locked(&api, &sha256).await?;
    // Again, as it may have ended or grown until nobody else wrote to it.
    let upload = match api.read(move |tx| found(tx, &sha256)).await {
        Ok(upload) => upload,
        Err(problem) => {
            parts.remove().await.map_err(StoreImageError::from)?;
            return Err(problem);
        }
    };
    let there = parts.go_to(upload.offset_bytes).await.map_err(StoreImageError::from)?;
    if there != upload.offset_bytes {
        acknowledge(&api, &sha256, there).await?;
    }
    if offset_bytes != there {
        let detail = format!(
            "Expected a part that begins at byte {there}, found one at {offset_bytes}; go on from there."
        );
        return Err(Problem::conflict("UPLOAD_OFFSET", detail));
    }
    let there = take(&api, &mut parts, &upload, there, body).await?;
    if there < upload.size_bytes {
        return show(State(api), InPath(text)).await;
    }
    let given =
        upload.signature.as_deref().map(|given| images::read_signature(given.as_bytes())).transpose()?;
    let whole = match parts.whole(sha256).await {
        Ok(written) => images::store(&api, &caller, written, upload.size_bytes, given).await.map(drop),
        Err(error) => Err(error.into()),
    };
    // Whole or wrong, nothing is left to be continued.
    api.store.write::<_, Problem>(move |tx| Ok(uploads::end(tx, &sha256)?)).await?;
    whole.map(|()| Json(stored(sha256, upload.size_bytes)))
}

async fn locked(api: &Api, sha256: &Sha256) -> Result<Parts, Problem> {
    let parts = api.artifacts.parts(sha256).await.map_err(StoreImageError::from)?;
    parts.ok_or_else(|| {
        let detail = "Another request is sending a part of this image; wait until it is over, and ask how far the upload is.";
        Problem::conflict("UPLOAD_BUSY", detail)
    })
}

async fn acknowledge(api: &Api, sha256: &Sha256, offset_bytes: u64) -> Result<(), Problem> {
    let (sha256, now) = (*sha256, api.now());
    let expires_at = now.plus_seconds(LIFE_S);
    let is_there = api
        .store
        .write::<_, Problem>(move |tx| Ok(uploads::acknowledge(tx, &sha256, offset_bytes, expires_at)?));
    if is_there.await? { Ok(()) } else { Err(Problem::not_found("upload", &sha256.to_string())) }
}

/// Takes what a request brings, durably; gives how much there is then. What came before a line broke stays.
async fn take(api: &Api, parts: &mut Parts, upload: &Upload, from: u64, body: Body) -> Result<u64, Problem> {
    let (mut there, mut durable) = (from, from);
    let mut octets = body.into_data_stream();
    let mut broken = None;
    while let Some(chunk) = octets.next().await {
        let Ok(chunk) = chunk else {
            broken = Some(Problem::from(StoreImageError::Interrupted));
            break;
        };
        let after = there.saturating_add(chunk.len() as u64);
        if after > upload.size_bytes {
            broken = Some(StoreImageError::Size { expected: upload.size_bytes, found: after }.into());
            break;
        }
        parts.append(&chunk).await.map_err(StoreImageError::from)?;
        there = after;
        if there.saturating_sub(durable) >= DURABLE_EVERY {
            parts.sync().await.map_err(StoreImageError::from)?;
            acknowledge(api, &upload.sha256, there).await?;
            durable = there;
        }
    }
    if there > durable {
        parts.sync().await.map_err(StoreImageError::from)?;
        acknowledge(api, &upload.sha256, there).await?;
    }
    broken.map_or(Ok(there), Err)
}

/// `DELETE /uploads/{sha256}`
pub(crate) async fn end(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<UploadAnswer>, Problem> {
    let (sha256, actor) = (digest(&text)?, caller.actor());
    api.read(move |tx| found(tx, &sha256)).await?;
    let parts = locked(&api, &sha256).await?;
    let ended = api.write(move |tx, _, now| {
        let upload = found(tx, &sha256)?;
        uploads::end(tx, &sha256)?;
        audit::record(tx, &actor, change("image.upload_ended", &upload), now)?;
        Ok(UploadAnswer::from(&upload))
    });
    let ended = ended.await?;
    parts.remove().await.map_err(StoreImageError::from)?;
    Ok(Json(ended))
}

/// Removes uploads that nobody goes on with, at the start and every hour, until the server stops.
pub(crate) async fn keep_uploads_tidy(api: Api, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        // What the store or the disk refuses is in the log, and is tried again.
        let _ = remove_expired(&api).await;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(TIDY_EVERY) => {}
        }
    }
}

/// Removes uploads that nobody goes on with. Whoever begins one does it too, so that they take room from nobody.
async fn remove_expired(api: &Api) -> Result<(), Problem> {
    let now = api.now();
    for upload in api.read(move |tx| Ok(uploads::expired(tx, now)?)).await? {
        // One that is being written to is not over.
        let Some(parts) = api.artifacts.parts(&upload.sha256).await.map_err(StoreImageError::from)? else {
            continue;
        };
        api.store.write::<_, Problem>(move |tx| Ok(uploads::end(tx, &upload.sha256)?)).await?;
        parts.remove().await.map_err(StoreImageError::from)?;
    }
    Ok(())
}
