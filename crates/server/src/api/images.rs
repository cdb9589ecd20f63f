//! Images: uploaded under their digest, checked while they come, signed or verified before they count.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use data_encoding::{BASE64, HEXLOWER};
use farrier_protocol::Sha256;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Api;
use super::problem::Problem;
use super::request::{Caller, InPath, InQuery};
use crate::artifacts::{StoreImageError, WrittenImage};
use crate::release_signature::SignatureError;
use crate::store::audit::{self, Change};
use crate::store::releases::{self, StoredImage};

/// The query of an upload.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Announced {
    /// The image's length.
    #[schemars(range(min = 1, max = 9_223_372_036_854_775_807_u64))]
    size_bytes: u64,
}

/// Detached signature of the image, base64 of ASN.1 DER.
pub(super) const SIGNATURE: (&str, &str) =
    ("farrier-signature", "Detached signature of the image by the release key, base64 of ASN.1 DER.");

/// An image that is stored.
#[derive(Serialize, JsonSchema)]
pub(super) struct StoredImageAnswer {
    sha256: Sha256,
    size_bytes: u64,
}

/// `PUT /images/{sha256}?size_bytes=N`
pub(super) async fn put(
    State(api): State<Api>,
    caller: Caller,
    InPath(sha256): InPath<String>,
    InQuery(announced): InQuery<Announced>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<StoredImageAnswer>), Problem> {
    let sha256: Sha256 =
        sha256.parse().map_err(|error| Problem::invalid(format!("SHA-256 in the address: {error}.")))?;
    if announced.size_bytes == 0 {
        return Err(Problem::invalid("Expected an image of at least one octet, found an empty one."));
    }
    let given = signature(&headers)?;
    let written = api.artifacts.write(sha256, announced.size_bytes, body.into_data_stream()).await?;
    store(&api, &caller, written, announced.size_bytes, given).await
}

/// Signs an image that is written, puts it under its name and remembers it.
pub(super) async fn store(
    api: &Api,
    caller: &Caller,
    written: WrittenImage,
    size_bytes: u64,
    given: Option<Vec<u8>>,
) -> Result<(StatusCode, Json<StoredImageAnswer>), Problem> {
    let sha256 = written.sha256();
    let signature = api.signature.settle(&written.digest, given)?;
    api.artifacts.keep(written).await.map_err(StoreImageError::from)?;
    let image = StoredImage { sha256, size_bytes, signature };
    let actor = caller.actor();
    let known = api.write(move |tx, _, now| {
        let before = releases::image(tx, &image.sha256)?;
        releases::put_image(tx, &image, now)?;
        let audited = |image: &StoredImage| json!({"signature": HEXLOWER.encode(&image.signature)});
        let change = Change {
            action: if before.is_some() { "image.signed_again" } else { "image.uploaded" },
            object: format!("image/{}", image.sha256),
            detail: Some(format!("{} bytes", image.size_bytes)),
            before: before.as_ref().map(audited),
            after: Some(audited(&image)),
        };
        audit::record(tx, &actor, change, now)?;
        Ok(before.is_some())
    });
    let status = if known.await? { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(StoredImageAnswer { sha256, size_bytes })))
}

/// The detached signature that came with the image.
fn signature(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Problem> {
    let Some(value) = headers.get(SIGNATURE.0) else { return Ok(None) };
    read_signature(value.as_bytes()).map(Some)
}

pub(super) fn read_signature(base64: &[u8]) -> Result<Vec<u8>, Problem> {
    BASE64.decode(base64).map_err(|_| {
        Problem::invalid("Expected base64 of an ASN.1 DER signature in Farrier-Signature or signature, found something else.")
    })
}

impl From<StoreImageError> for Problem {
    fn from(error: StoreImageError) -> Self {
        match &error {
            StoreImageError::Size { .. } | StoreImageError::Digest { .. } | StoreImageError::Interrupted => {
                Self::invalid(format!("The image was not stored: {error}."))
            }
            StoreImageError::Write(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "An image could not be written.");
                Self::unavailable()
            }
        }
    }
}

impl From<SignatureError> for Problem {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::Invalid | SignatureError::Missing => {
                Self::conflict("SIGNATURE_REQUIRED", format!("{error}."))
            }
            SignatureError::NotSigned => Self::unavailable(),
        }
    }
}
