//! An `AdmissionReview` in, an `AdmissionReview` out.

use fairlead_plan::Cache;
use fairlead_plan::admission::{self, Question};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use serde_json::Value;

/// The most warnings of an answer, and the longest of them: the API server cuts what is longer.
const WARNINGS_MAX: usize = 8;
const WARNING_LENGTH: usize = 250;

/// The answer to a review, and for the metrics the kind and whether it was allowed.
#[must_use]
pub fn answer(
    review: AdmissionReview<DynamicObject>,
    cache: &Cache,
) -> (AdmissionReview<DynamicObject>, String, bool) {
    let request: AdmissionRequest<DynamicObject> = match review.try_into() {
        Ok(request) => request,
        Err(_) => {
            return (
                AdmissionResponse::invalid("the review holds no request").into_review(),
                String::new(),
                false,
            );
        }
    };
    let kind = request.kind.kind.clone();
    let response = respond(&request, cache);
    let allowed = response.allowed;
    (response.into_review(), kind, allowed)
}

fn respond(request: &AdmissionRequest<DynamicObject>, cache: &Cache) -> AdmissionResponse {
    let deletion = request.operation == Operation::Delete;
    let subject = if deletion {
        request.old_object.as_ref()
    } else {
        request.object.as_ref()
    };
    let Some(subject) = subject else {
        return AdmissionResponse::from(request);
    };
    let ending = subject.metadata.deletion_timestamp.is_some();
    let unchanged = request.operation == Operation::Update
        && ending
        && request
            .old_object
            .as_ref()
            .is_some_and(|old| old.data.get("spec") == subject.data.get("spec"));
    if unchanged {
        // Finalizers must always be able to go.
        return AdmissionResponse::from(request);
    }
    let object = serde_json::to_value(subject).unwrap_or(Value::Null);
    let user = request.user_info.username.clone().unwrap_or_default();
    let question = Question {
        kind: &request.kind.kind,
        deletion,
        object: &object,
        user: &user,
    };
    let found = admission::review(&question, cache);
    let mut response = AdmissionResponse::from(request);
    if let Some(message) = found.refusal {
        return response.deny(message);
    }
    let warnings: Vec<String> = found
        .warnings
        .into_iter()
        .take(WARNINGS_MAX)
        .map(|warning| warning.chars().take(WARNING_LENGTH).collect())
        .collect();
    if !warnings.is_empty() {
        response.warnings = Some(warnings);
    }
    response
}
