//! Brings an image to the server in parts, over a line that may break: after each break, or after this program was ended and is run
//! again, it goes on from what the server has. The server finds the upload by the image's digest, so nothing is kept here.

use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use farrier_protocol::Sha256;
use indicatif::ProgressBar;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::operator::{Operator, OperatorError, read};

/// Octets in one request: what a break can cost at most.
const PART: u64 = 8 << 20;
/// Attempts one after the other that bring nothing.
const MOST_ATTEMPTS: u32 = 8;
/// After the first of them; the pause doubles, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// An image in a file.
pub(crate) struct ImageFile<'p> {
    pub(crate) path: &'p Path,
    pub(crate) sha256: Sha256,
    pub(crate) size_bytes: u64,
    /// Detached, base64 of ASN.1 DER.
    pub(crate) signature: Option<String>,
}

/// What the server says of an upload.
#[derive(Deserialize)]
struct Upload {
    offset_bytes: u64,
    is_stored: bool,
}

/// Brings the image, wherever an earlier attempt ended.
pub(crate) async fn upload(
    operator: &Operator,
    image: &ImageFile<'_>,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let (mut failed, mut farthest, mut upload, mut has_begun) = (0_u32, 0, None::<Upload>, false);
    loop {
        let step = match &upload {
            None => begin(operator, image).await,
            Some(begun) => send_part(operator, image, begun.offset_bytes).await,
        };
        match step {
            Ok(there) => {
                let there: Upload = read(&there)?;
                progress.set_position(there.offset_bytes);
                has_begun = true;
                if there.is_stored {
                    return Ok(());
                }
                if there.offset_bytes > farthest {
                    (failed, farthest) = (0, there.offset_bytes);
                }
                upload = Some(there);
            }
            Err(error) => {
                failed = failed.saturating_add(1);
                // A server that was never there is told of at once.
                if !has_begun || !is_worth_another_attempt(&error) || failed > MOST_ATTEMPTS {
                    return Err(error);
                }
                let pause = FIRST_PAUSE.saturating_mul(1 << failed.saturating_sub(1).min(16));
                tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
                // What it has is the server's to say.
                upload = None;
            }
        }
    }
}

async fn begin(operator: &Operator, image: &ImageFile<'_>) -> anyhow::Result<Value> {
    let mut new = json!({"sha256": image.sha256, "size_bytes": image.size_bytes});
    if let (Some(signature), Some(fields)) = (&image.signature, new.as_object_mut()) {
        fields.insert("signature".to_owned(), json!(signature));
    }
    Ok(operator.post(&["uploads"], &new).await?)
}

async fn send_part(operator: &Operator, image: &ImageFile<'_>, from: u64) -> anyhow::Result<Value> {
    let unreadable = || format!("cannot read the image {}; name a file that exists", image.path.display());
    let length = PART.min(image.size_bytes.saturating_sub(from));
    let mut file = tokio::fs::File::open(image.path).await.with_context(unreadable)?;
    file.seek(SeekFrom::Start(from)).await.with_context(unreadable)?;
    let mut part = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(length).read_to_end(&mut part).await.with_context(unreadable)?;
    ensure!(
        part.len() as u64 == length,
        "expected {} bytes in {}, found fewer; do not change the file while it is uploaded",
        image.size_bytes,
        image.path.display()
    );
    Ok(operator.patch_upload(&image.sha256.to_string(), from, part).await?)
}

/// Whether it may be otherwise in a moment: the line, the server, or a part that is still being taken.
fn is_worth_another_attempt(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<OperatorError>() {
        Some(OperatorError::Unreachable { .. }) => true,
        Some(OperatorError::Refused { status, code, .. }) => {
            *status == StatusCode::SERVICE_UNAVAILABLE
                || matches!(code.as_str(), "UPLOAD_BUSY" | "UPLOAD_OFFSET")
        }
        Some(_) | None => false,
    }
}
