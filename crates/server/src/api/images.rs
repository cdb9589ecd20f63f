//! Images: uploaded under their digest, checked while they come, signed or verified before they count.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use data_encoding::BASE64;
use farrier_protocol::Sha256;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::problem::Problem;
use crate::artifacts::StoreImageError;
use crate::release_signature::SignatureError;
use crate::store::releases::{self, StoredImage};

/// The query of an upload.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Announced {
    size_bytes: u64,
}

/// `PUT /images/{sha256}?size_bytes=N`
pub(super) async fn put(
    State(api): State<Api>,
    Path(sha256): Path<String>,
    announced: Result<Query<Announced>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let sha256: Sha256 =
        sha256.parse().map_err(|error| Problem::invalid(format!("SHA-256 in the address: {error}.")))?;
    let Query(announced) = announced.map_err(|_| {
        Problem::invalid("Expected the query size_bytes=N with the image's length in octets.")
    })?;
    if announced.size_bytes == 0 {
        return Err(Problem::invalid("Expected an image of at least one octet, found an empty one."));
    }
    let given = signature(&headers)?;
    let written = api.artifacts.write(sha256, announced.size_bytes, body.into_data_stream()).await?;
    let signature = api.signature.settle(&written.digest, given)?;
    api.artifacts.keep(written).await.map_err(StoreImageError::from)?;
    let image = StoredImage { sha256, size_bytes: announced.size_bytes, signature };
    let known = api.write(move |tx, _, now| {
        let known = releases::image(tx, &image.sha256)?.is_some();
        releases::put_image(tx, &image, now)?;
        Ok(known)
    });
    let status = if known.await? { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(json!({"sha256": sha256, "size_bytes": announced.size_bytes}))))
}

/// The detached signature that came with the image.
fn signature(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Problem> {
    let Some(value) = headers.get("farrier-signature") else { return Ok(None) };
    let decoded = BASE64.decode(value.as_bytes());
    decoded.map(Some).map_err(|_| {
        Problem::invalid("Expected base64 of an ASN.1 DER signature in the header Farrier-Signature, found something else.")
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
