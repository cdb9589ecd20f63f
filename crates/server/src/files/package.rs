//! One package, or its signature: the headers, the part, the bytes in blocks.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farrier_protocol::{PkgId, Sha256};
use futures_util::Stream;
use futures_util::stream;

use super::Connection;
use super::blocks::Blocks;
use super::downloads::Share;
use super::pace::Paced;
use super::problem::Problem;
use super::range::{Part, Selection, select};
use super::source::Source;
use crate::desk::{CampaignLimit, FileAnswer, PackageDesk};
use crate::measurements;

/// RFC 9530.
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// `GET` and `HEAD /v1/packages/{pkg_id}/{hash_sha256}` and `…/{hash_sha256}.sig`.
/// As protocol.md §5 says, `HEAD` answers as `GET` does, ranges included.
pub(super) async fn serve<D: PackageDesk>(
    State(desk): State<Arc<D>>,
    Extension(connection): Extension<Arc<Connection>>,
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
    let peer = &connection.peer;
    let answer = if signature {
        desk.signature(peer, &pkg_id, &hash).await
    } else {
        desk.package(peer, &pkg_id, &hash).await
    };
    let answer = answer.map_err(|error| {
        let error: &dyn std::error::Error = &error;
        tracing::error!(client_id = peer.common_name, %pkg_id, error, "A package could not be looked up.");
        Problem::UNAVAILABLE
    })?;
    match answer {
        FileAnswer::Serve { path, size_bytes, limit } => {
            let package = Package {
                connection: &connection,
                pkg_id: &pkg_id,
                hash: &hash,
                path: &path,
                size_bytes,
                limit: limit.as_ref(),
            };
            serve_file(&package, &method, &headers).await
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

/// What a vehicle may have.
struct Package<'a> {
    connection: &'a Connection,
    pkg_id: &'a PkgId,
    hash: &'a Sha256,
    path: &'a Path,
    size_bytes: u64,
    limit: Option<&'a CampaignLimit>,
}

async fn serve_file(
    package: &Package<'_>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let (hash, size_bytes) = (package.hash, package.size_bytes);
    let etag = format!("\"{hash}\"");
    if headers.contains_key(header::IF_MATCH) && !names(headers, &header::IF_MATCH, Strength::Strong, &etag) {
        return Ok(([(header::ETAG, etag)], Problem::PRECONDITION_FAILED).into_response());
    }
    let mut response = if names(headers, &header::IF_NONE_MATCH, Strength::Weak, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match selection(headers, &etag, size_bytes) {
            Selection::Whole => {
                let body = content(package, 0, size_bytes, method).await?;
                ([(header::CONTENT_LENGTH, size_bytes)], body).into_response()
            }
            Selection::Part(Part { first, last }) => {
                let length = last - first + 1;
                let body = content(package, first, length, method).await?;
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

/// How two entity tags are compared (RFC 9110 §8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    Strong,
    Weak,
}

/// Whether a list of entity tags names the package.
fn names(headers: &HeaderMap, list: &HeaderName, strength: Strength, etag: &str) -> bool {
    let values = headers.get_all(list).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|named| {
        let named = match strength {
            Strength::Weak => named.strip_prefix("W/").unwrap_or(named),
            Strength::Strong => named,
        };
        named == "*" || named == etag
    })
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
async fn content(package: &Package<'_>, first: u64, length: u64, method: &Method) -> Result<Body, Problem> {
    let Package { path, size_bytes, connection, .. } = package;
    let source = connection.last_source.open(path, *size_bytes).await.map_err(|error| {
        tracing::error!(path = %path.display(), %error, "A package's file cannot be read.");
        Problem::INTERNAL
    })?;
    if method == Method::HEAD {
        return Ok(Body::empty());
    }
    let share = connection.endpoint.downloads.begin(&connection.peer, package.pkg_id, package.hash, first);
    let blocks = Arc::clone(&connection.endpoint.blocks);
    let paced = connection.endpoint.paces.of(package.limit);
    Ok(Body::from_stream(
        Content { source, blocks, share, paced, at_byte: first, left: length }.into_stream(),
    ))
}

/// What is left of a body: the next block is read when the last is on its way.
struct Content {
    source: Source,
    blocks: Arc<Blocks>,
    share: Share,
    paced: Paced,
    at_byte: u64,
    left: u64,
}

impl Content {
    fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        stream::try_unfold(self, |mut content| async move {
            if content.left == 0 {
                return Ok(None);
            }
            let portion = content.paced.let_through(content.left).await;
            if content.share.is_over() {
                tracing::info!("A download is ended: the vehicle may not have the package any more.");
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let block = content.source.read(content.at_byte, portion, &content.blocks).await;
            let block = block.inspect_err(|error| {
                tracing::error!(%error, "A package's file cannot be read on while it is served.");
            })?;
            let read = block.len() as u64;
            content.at_byte += read;
            content.left = content.left.saturating_sub(read);
            content.share.went_on(read);
            measurements::package_bytes(read);
            Ok(Some((block, content)))
        })
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
