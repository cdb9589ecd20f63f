//! What operators are told when something is refused: a stable code, and a sentence that says what to do.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A refusal (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", detail)
    }

    pub(super) fn unauthorised() -> Self {
        let detail = "Expected an operator's token in the header Authorization: Bearer TOKEN; \
                      the first one is in operator.token of the server's data folder.";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORISED", detail)
    }

    pub(super) fn not_found(what: &str, name: &str) -> Self {
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

    pub(super) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    pub(super) fn unavailable() -> Self {
        let detail =
            "The server cannot read or write its store at the moment; try again, and look at its log.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let response = (self.status, content_type, document.to_string());
        if self.status == StatusCode::UNAUTHORIZED {
            return ([(header::WWW_AUTHENTICATE, "Bearer")], response).into_response();
        }
        response.into_response()
    }
}
