//! One package, or its signature: the headers, the part, the bytes in blocks.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use farrier_protocol::{PkgId, Sha256};
use futures_util::Stream;
use futures_util::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::Instant;

use super::problem::Problem;
use super::range::{Part, Selection, select};
use crate::desk::{FileAnswer, PackageDesk, PeerIdentity};
use crate::measurements;

/// Bytes are read and held in blocks of this size.
const BLOCK_SIZE: usize = 512 * 1024;
/// How often the desk hears of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 9530.
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// `GET` and `HEAD /v1/packages/{pkg_id}/{hash_sha256}` and `…/{hash_sha256}.sig`.
/// As protocol.md §5 says, `HEAD` answers as `GET` does, ranges included.
pub(super) async fn serve<D: PackageDesk>(
    State(desk): State<Arc<D>>,
    Extension(peer): Extension<PeerIdentity>,
    names: Result<UrlPath<(String, String)>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // What is no text, or no identifier, names no package.
    let UrlPath((pkg_id, file)) = names.map_err(|_| Problem::NOT_FOUND)?;
    let (hash, signature) = match file.strip_suffix(".sig") {
        Some(hash) => (hash, true),
        None => (file.as_str(), false),
    };
    let pkg_id: PkgId = pkg_id.parse().map_err(|_| Problem::NOT_FOUND)?;
    let hash: Sha256 = hash.parse().map_err(|_| Problem::NOT_FOUND)?;
    let answer = if signature {
        desk.signature(&peer, &pkg_id, &hash).await
    } else {
        desk.package(&peer, &pkg_id, &hash).await
    };
    let answer = answer.map_err(|error| {
        let error: &dyn std::error::Error = &error;
        tracing::error!(client_id = peer.common_name, %pkg_id, error, "A package could not be looked up.");
        Problem::UNAVAILABLE
    })?;
    match answer {
        FileAnswer::Serve { path, size_bytes } => {
            let progress = Progress { desk, peer, pkg_id, at_byte: 0, told: None };
            serve_file(&path, size_bytes, &hash, &method, &headers, progress).await
        }
        FileAnswer::Signature(octets) => {
            let content_type = [(header::CONTENT_TYPE, "application/octet-stream")];
            Ok((content_type, octets).into_response())
        }
        FileAnswer::Forbidden => {
            tracing::warn!(
                security_event = "foreign_package",
                client_id = peer.common_name,
                %pkg_id,
                "A vehicle asked for a package that is not part of its update."
            );
            Err(Problem::FORBIDDEN)
        }
        FileAnswer::Gone => Err(Problem::GONE),
        FileAnswer::Unknown => Err(Problem::NOT_FOUND),
    }
}

async fn serve_file<D: PackageDesk>(
    path: &Path,
    size_bytes: u64,
    hash: &Sha256,
    method: &Method,
    headers: &HeaderMap,
    progress: Progress<D>,
) -> Result<Response, Problem> {
    let etag = format!("\"{hash}\"");
    let mut response = if none_match_names(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match selection(headers, &etag, size_bytes) {
            Selection::Whole => {
                let body = content(path, size_bytes, 0, size_bytes, method, progress).await?;
                ([(header::CONTENT_LENGTH, size_bytes)], body).into_response()
            }
            Selection::Part(Part { first, last }) => {
                let length = last - first + 1;
                let body = content(path, size_bytes, first, length, method, progress).await?;
                let range = format!("bytes {first}-{last}/{size_bytes}");
                let length = [(header::CONTENT_LENGTH, length)];
                (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], length, body).into_response()
            }
            Selection::Unsatisfiable => {
                let range = format!("bytes */{size_bytes}");
                return Ok(([(header::CONTENT_RANGE, range)], Problem::RANGE_NOT_SATISFIABLE).into_response());
            }
        }
    };
    let added = response.headers_mut();
    added.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    added.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let digest = format!("sha-256=:{}:", STANDARD.encode(hash.as_bytes()));
    for (name, value) in [(header::ETAG, etag), (REPR_DIGEST, digest)] {
        added.insert(name, HeaderValue::try_from(value).map_err(|_| Problem::INTERNAL)?);
    }
    Ok(response)
}

fn none_match_names(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == etag)
}

/// A range counts only for the representation that the vehicle has the beginning of.
fn selection(headers: &HeaderMap, etag: &str, size_bytes: u64) -> Selection {
    let same = headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == etag.as_bytes());
    let mut ranges = headers.get_all(header::RANGE).iter();
    match (ranges.next().map(HeaderValue::to_str), ranges.next()) {
        (Some(Ok(range)), None) if same => select(range, size_bytes),
        _ => Selection::Whole,
    }
}

/// The body; empty for HEAD, though the file must be there all the same.
async fn content<D: PackageDesk>(
    path: &Path,
    size_bytes: u64,
    first: u64,
    length: u64,
    method: &Method,
    mut progress: Progress<D>,
) -> Result<Body, Problem> {
    let opened = async {
        let mut file = File::open(path).await?;
        let found = file.metadata().await?.len();
        if found != size_bytes {
            return Err(io::Error::other(format!("expected {size_bytes} bytes, found {found}")));
        }
        file.seek(io::SeekFrom::Start(first)).await?;
        Ok(file)
    };
    let file = opened.await.map_err(|error| {
        tracing::error!(path = %path.display(), %error, "A package's file cannot be read.");
        Problem::INTERNAL
    })?;
    if method == Method::HEAD {
        return Ok(Body::empty());
    }
    progress.at_byte = first;
    Ok(Body::from_stream(blocks(file, length, progress)))
}

/// The next `left` bytes of the file, block by block: the next is read when the last is on its way.
fn blocks<D: PackageDesk>(
    file: File,
    left: u64,
    progress: Progress<D>,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, left, progress), |(mut file, left, mut progress)| async move {
        if left == 0 {
            return Ok(None);
        }
        let block_size = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_SIZE);
        let mut block = BytesMut::with_capacity(block_size);
        let read = (&mut file).take(left.min(BLOCK_SIZE as u64)).read_buf(&mut block).await?;
        if read == 0 {
            tracing::error!(pkg_id = %progress.pkg_id, "A package's file became shorter while it was served.");
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        progress.went_on(read as u64);
        Ok(Some((block.freeze(), (file, left.saturating_sub(read as u64), progress))))
    })
}

/// Tells the desk how far a request got: now and then, and at its end.
struct Progress<D: PackageDesk> {
    desk: Arc<D>,
    peer: PeerIdentity,
    pkg_id: PkgId,
    at_byte: u64,
    /// When, and up to which byte; nothing is told of what was not begun.
    told: Option<(Instant, u64)>,
}

impl<D: PackageDesk> Progress<D> {
    fn went_on(&mut self, bytes: u64) {
        measurements::package_bytes(bytes);
        self.at_byte += bytes;
        let now = Instant::now();
        match self.told {
            Some((at, _)) if now - at >= PROGRESS_INTERVAL => self.tell(now),
            // The first block counts from its beginning.
            None => self.told = Some((now, 0)),
            Some(_) => {}
        }
    }

    fn tell(&mut self, now: Instant) {
        self.told = Some((now, self.at_byte));
        self.desk.served(&self.peer, &self.pkg_id, self.at_byte);
    }
}

impl<D: PackageDesk> Drop for Progress<D> {
    fn drop(&mut self) {
        if self.told.is_some_and(|(_, up_to)| up_to < self.at_byte) {
            self.tell(Instant::now());
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
