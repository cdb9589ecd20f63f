//! Images that come from a browser in parts: the API's own uploads, for somebody who has signed in. `assets/upload.js` speaks to it,
//! so it answers as the API does.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};

use super::Console;
use super::page::Failed;
use super::session::Visitor;
use crate::access::Permission;
use crate::api::uploads::{self, At, NewUpload};
use crate::api::{Document, InPath, InQuery, Problem};

/// `POST /uploads`
pub(super) async fn begin(
    State(console): State<Console>,
    visitor: Visitor,
    new: Document<NewUpload>,
) -> Result<Response, Problem> {
    visitor.may(Permission::Release)?;
    let begun = uploads::begin(State(console.api), visitor.caller(), new).await?;
    Ok(begun.into_response())
}

/// `PATCH /uploads/{sha256}?offset_bytes=N`
pub(super) async fn append(
    State(console): State<Console>,
    visitor: Visitor,
    sha256: InPath<String>,
    at: InQuery<At>,
    body: Body,
) -> Result<Response, Problem> {
    visitor.may(Permission::Release)?;
    let appended = uploads::append(State(console.api), visitor.caller(), sha256, at, body).await?;
    Ok(appended.into_response())
}

/// `POST /uploads/{sha256}/end`
pub(super) async fn end(
    State(console): State<Console>,
    visitor: Visitor,
    sha256: InPath<String>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Release)?;
    let ended = uploads::end(State(console.api), visitor.caller(), sha256).await;
    let _ = ended.map_err(|problem| visitor.failed(problem))?;
    Ok(Redirect::to("/new-release").into_response())
}
