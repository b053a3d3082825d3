//! Errors as answers: a status and JSON with a reason.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    /// The request is wrong.
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason: reason.into(),
        }
    }

    /// There is no such thing.
    pub(crate) fn not_found(reason: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            reason: reason.into(),
        }
    }

    /// A dependency does not answer.
    pub(crate) fn unavailable(reason: impl std::fmt::Display) -> Self {
        tracing::warn!(error = %reason, "a dependency does not answer");
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: "a dependency does not answer".to_owned(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.reason}))).into_response()
    }
}
