//! What comes with a request: path, query, document, and who asks. Everything that cannot be used is refused by a
//! problem document.

use std::net::SocketAddr;

use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, MatchedPath, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use farrier_protocol::Sha256;
use serde::de::DeserializeOwned;
use tracing::Instrument;
use tracing::field::Empty;

use super::Api;
use super::problem::Problem;
use crate::SPANS;
use crate::access::{Permission, Scope};
use crate::measurements;
use crate::store::audit::Actor;
use crate::store::tokens::{self, Token};

/// Names a request in answers and in the audit log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(super) token: String,
    pub(super) scope: Scope,
    /// Whether `token` is the name of a user of the console.
    is_user: bool,
    /// The address that the connection comes from.
    client: Option<String>,
    request_id: String,
}

impl Caller {
    /// Somebody who has signed in to the console.
    pub(crate) fn of_user(name: &str, scope: Scope, client: Option<String>, request_id: String) -> Self {
        Self { token: name.to_owned(), scope, is_user: true, client, request_id }
    }

    /// As uploads name it: a token by its bare name, as they have always done; no token's name has a colon.
    pub(super) fn uploader(&self) -> String {
        if self.is_user { self.actor().name().to_owned() } else { self.token.clone() }
    }

    /// As the audit log names it.
    pub(crate) fn actor(&self) -> Actor {
        if self.is_user {
            return Actor::user(&self.token, self.client.clone(), &self.request_id);
        }
        Actor::token(&self.token, self.client.clone(), &self.request_id)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorised)
    }
}

/// Lets requests with a usable token in, and tells everybody the request's id.
pub(super) async fn authenticated(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let request_id = request_id(request.headers());
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_string());
    let token = usable_token(&api, request.headers()).await?;
    let caller = Caller {
        token: token.name,
        scope: token.scope,
        is_user: false,
        client,
        request_id: request_id.clone(),
    };
    request.extensions_mut().insert(caller);
    let (method, route) = (request.method().clone(), request.extensions().get::<MatchedPath>().cloned());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let span =
        tracing::debug_span!(target: SPANS, "operator request", %method, route, request_id, status = Empty);
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    measurements::request(method.as_str(), route, response.status().as_u16());
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    Ok(response)
}

/// Refuses a caller whose scope does not reach.
pub(super) async fn permitted(
    State(needs): State<Permission>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if caller.scope.may(needs) {
        Ok(next.run(request).await)
    } else {
        Err(Problem::forbidden(&caller.token, caller.scope, needs))
    }
}

/// The caller's own id where it is an identifier, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let usable = given.filter(|text| text.parse::<farrier_protocol::MsgId>().is_ok());
    usable.map_or_else(crate::store::new_id, str::to_owned)
}

/// Tokens are found by their digest: what a database tells by its time is of no use to whoever guesses.
pub(super) async fn usable_token(api: &Api, headers: &HeaderMap) -> Result<Token, Problem> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(Problem::unauthorised)?;
    let digest = Sha256::of(given.trim().as_bytes());
    let found = api.read(move |tx| Ok(tokens::by_digest(tx, &digest)?)).await?;
    let token = found.ok_or_else(Problem::unauthorised)?;
    match (token.revoked_at, token.is_usable(api.now())) {
        (Some(_), _) => Err(Problem::spent_token(&token.name, "was revoked")),
        (None, false) => Err(Problem::spent_token(&token.name, "has expired")),
        (None, true) => Ok(token),
    }
}

/// What stands in the address.
pub(crate) struct InPath<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        let Path(value) = path.map_err(|_| Problem::invalid("The address is not UTF-8."))?;
        Ok(Self(value))
    }
}

/// What stands behind the question mark; unknown names are refused by the type.
pub(crate) struct InQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(value) = Query::<T>::try_from_uri(&parts.uri).map_err(|rejection| {
            let found = rejection.body_text();
            let found = found.rsplit("query string: ").next().unwrap_or_default();
            Problem::invalid(format!(
                "The query cannot be used: {found}. Expected the documented names and values only."
            ))
        })?;
        Ok(Self(value))
    }
}

/// One JSON document, read strictly; unknown keys are refused by the type.
pub(crate) struct Document<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Document<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await.map_err(unread)?;
        // A list of the values, without their keys, would do for serde.
        if body.trim_ascii_start().starts_with(b"[") {
            let detail =
                "The body cannot be used: expected one JSON object with the documented keys, found a list.";
            return Err(Problem::invalid(detail));
        }
        let document = serde_json::from_slice(&body).map_err(|error| {
            Problem::invalid(format!(
                "The body cannot be used: {error}. Send one JSON object with the documented keys."
            ))
        })?;
        Ok(Self(document))
    }
}

/// JSON documents, each in a line.
pub(crate) struct Lines(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Lines {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(unread)
    }
}

pub(super) fn unread(rejection: BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::too_large();
    }
    Problem::invalid("The body broke off before its end; send it again.")
}
