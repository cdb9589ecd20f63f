//! What operators are told when something is refused: a stable code, and a sentence that says what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use farrier_campaign::QueryError;
use schemars::JsonSchema;
use serde::Serialize;

use crate::access::{Permission, Scope};

/// Faults of an import that are told one by one.
const MOST_FAULTS: usize = 100;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Option<Box<More>>,
}

/// What only some refusals say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct More {
    pointer: Option<String>,
    needed_scopes: Option<Vec<Scope>>,
    place: Option<Place>,
    lines: Vec<LineFault>,
    /// What the resource's ETag is now.
    etag: Option<String>,
    /// Whether it is told in the language of whoever is told.
    is_localised: bool,
}

/// Where in a query something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Place {
    /// In bytes from the start of the query.
    position: usize,
    /// From 1.
    line: usize,
    /// In characters from 1.
    column: usize,
}

/// What is wrong in a line of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct LineFault {
    /// From 1.
    pub(crate) line: usize,
    /// Of the line; absent where the whole line is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// How a refusal goes out (RFC 9457).
#[derive(Serialize, JsonSchema)]
pub(super) struct ProblemDocument<'a> {
    /// The address of a page that says what the code means.
    #[serde(rename = "type")]
    kind: &'a str,
    /// The status in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// Stable; for programs.
    code: &'a str,
    /// What was expected, what was found, what to do; for people.
    detail: &'a str,
    /// Where in the document that was sent (RFC 6901), if that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    /// Scopes of which the token needs one, where that is what is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    needed_scopes: Option<&'a [Scope]>,
    /// Where a query cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
    /// What is wrong in an import, the first 100.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    lines: &'a [LineFault],
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), more: None }
    }

    fn with(self, more: More) -> Self {
        Self { more: Some(Box::new(more)), ..self }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// To the console: the same, told in its visitor's language already.
    pub(crate) fn localised(self) -> Self {
        let more = self.more.map(|more| *more).unwrap_or_default();
        Self { more: Some(Box::new(More { is_localised: true, ..more })), ..self }
    }

    pub(crate) fn is_localised(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.is_localised)
    }

    /// Where in the document that was sent something is wrong.
    pub(crate) fn pointer(&self) -> Option<&str> {
        self.more.as_ref().and_then(|more| more.pointer.as_deref())
    }

    /// To the console: a change that does not come from one of its pages.
    pub(crate) fn from_elsewhere() -> Self {
        let detail = "Expected a request from a page of this console, found one from elsewhere; open the console and try again.";
        Self::new(StatusCode::FORBIDDEN, "FROM_ELSEWHERE", detail)
    }

    /// A link of the console that somebody has used, or that is too old.
    pub(crate) fn spent_link() -> Self {
        let detail = "The link was used already or is too old; ask an admin for a new one, or start the server again for that of the first admin.";
        Self::new(StatusCode::NOT_FOUND, "LINK_SPENT", detail)
    }

    /// The same about one place of the document that was sent (RFC 6901).
    pub(crate) fn at(self, pointer: impl Into<String>) -> Self {
        let more = self.more.map(|more| *more).unwrap_or_default();
        Self { more: Some(Box::new(More { pointer: Some(pointer.into()), ..more })), ..self }
    }

    /// What is wrong with which lines of an import.
    pub(crate) fn faults(&self) -> &[LineFault] {
        self.more.as_ref().map_or(&[], |more| &more.lines)
    }

    /// The same, with the lines of the file that those of the request came from.
    pub(crate) fn of_lines(mut self, line_of: impl Fn(usize) -> usize) -> Self {
        for fault in self.more.iter_mut().flat_map(|more| &mut more.lines) {
            fault.line = line_of(fault.line);
        }
        self
    }

    /// Code and words, for scripts.
    #[cfg(test)]
    pub(crate) fn told(&self) -> String {
        format!("{}: {}", self.code, self.detail)
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", detail)
    }

    /// The same with a code of its own, about one place of the document.
    pub(super) fn invalid_at(code: &'static str, pointer: String, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
        problem.with(More { pointer: Some(pointer), ..More::default() })
    }

    pub(crate) fn query(error: &QueryError) -> Self {
        let place = Place { position: error.position, line: error.line, column: error.column };
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "QUERY_INVALID", format!("{error}."));
        problem.with(More { place: Some(place), ..More::default() })
    }

    /// Nothing of an import was taken.
    pub(super) fn lines(mut faults: Vec<LineFault>) -> Self {
        let first = faults.first().map(|first| {
            let field = first.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
            format!(" Line {}: {field}expected {}, found {}.", first.line, first.expected, first.found)
        });
        let detail = format!("Nothing was imported.{}", first.unwrap_or_default());
        faults.truncate(MOST_FAULTS);
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "IMPORT_REFUSED", detail);
        problem.with(More { lines: faults, ..More::default() })
    }

    pub(super) fn unauthorised() -> Self {
        let detail = "Expected an operator's token that this server knows, in the header Authorization: Bearer TOKEN. \
                      The first one is in operator.token of the server's data folder; an admin makes others by \
                      `farrier token create`.";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORISED", detail)
    }

    pub(super) fn spent_token(name: &str, what: &str) -> Self {
        let detail = format!("The token {name} {what}; an admin makes a new one by `farrier token create`.");
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORISED", detail)
    }

    pub(crate) fn forbidden(token: &str, scope: Scope, needs: Permission) -> Self {
        let needed_scopes = needs.scopes();
        let names: Vec<_> = needed_scopes.iter().map(|scope| scope.name()).collect();
        let detail = format!(
            "Expected a token with the scope {}, found the token {token} with the scope {}; an admin makes one by \
             `farrier token create`.",
            names.join(" or "),
            scope.name()
        );
        let problem = Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", detail);
        problem.with(More { needed_scopes: Some(needed_scopes), ..More::default() })
    }

    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        let detail = format!("There is no {what} {name}; list what there is and check the name.");
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", detail)
    }

    pub(super) fn no_such_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NO_SUCH_ROUTE", "The API has nothing under this address.")
    }

    pub(super) fn method_not_allowed() -> Self {
        let detail = "The address exists, but not for this method.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
    }

    pub(super) fn too_large() -> Self {
        let detail = "The document is larger than 1 MiB; send less at a time.";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", detail)
    }

    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// A resource is not as the client has seen it; `etag` is its tag now.
    pub(super) fn precondition_failed(etag: String, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED", detail);
        problem.with(More { etag: Some(etag), ..More::default() })
    }

    pub(super) fn key_reused() -> Self {
        let detail = "This Idempotency-Key was given with another request within a day; use a new key for each request.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", detail)
    }

    /// There is no room at the moment.
    pub(super) fn busy(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }

    pub(crate) fn unavailable() -> Self {
        let detail =
            "The server cannot read or write its store at the moment; try again, and look at its log.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let more = self.more.map(|more| *more).unwrap_or_default();
        let document = ProblemDocument {
            kind: &format!("{}/{}", super::problems::PATH, self.code),
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            pointer: more.pointer.as_deref(),
            needed_scopes: more.needed_scopes.as_deref(),
            place: more.place,
            lines: &more.lines,
        };
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        // A struct of texts and a number is always JSON.
        let document = serde_json::to_string(&document).unwrap_or_default();
        let mut response = (self.status, content_type, document).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(etag) = more.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}
