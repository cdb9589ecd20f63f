//! What a vehicle is told when it gets no file: problem documents (RFC 9457), without internals.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A refusal: its status says what a program needs, its sentence what a person needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    detail: &'static str,
}

impl Problem {
    pub(super) const NOT_FOUND: Self =
        Self { status: StatusCode::NOT_FOUND, detail: "There is no such package." };
    pub(super) const FORBIDDEN: Self = Self {
        status: StatusCode::FORBIDDEN,
        detail: "The package is not part of an open StartDownload of this vehicle.",
    };
    pub(super) const GONE: Self = Self {
        status: StatusCode::GONE,
        detail: "The StartDownload that the package was part of is cancelled or expired.",
    };
    pub(super) const METHOD_NOT_ALLOWED: Self =
        Self { status: StatusCode::METHOD_NOT_ALLOWED, detail: "Only GET and HEAD are allowed." };
    pub(super) const PRECONDITION_FAILED: Self = Self {
        status: StatusCode::PRECONDITION_FAILED,
        detail: "The package has another ETag than If-Match names.",
    };
    pub(super) const RANGE_NOT_SATISFIABLE: Self = Self {
        status: StatusCode::RANGE_NOT_SATISFIABLE,
        detail: "The range begins after the end of the package.",
    };
    pub(super) const UNAVAILABLE: Self = Self {
        status: StatusCode::SERVICE_UNAVAILABLE,
        detail: "The server cannot say at the moment; try again later.",
    };
    pub(super) const INTERNAL: Self =
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, detail: "The package cannot be read." };
}

/// When to try again after [`Problem::UNAVAILABLE`], in seconds.
const RETRY_AFTER_S: u16 = 5;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let response = (self.status, content_type, document.to_string());
        if self == Self::UNAVAILABLE {
            return ([(header::RETRY_AFTER, RETRY_AFTER_S.to_string())], response).into_response();
        }
        response.into_response()
    }
}
