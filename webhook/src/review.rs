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
    let unchanged = request.operation == Operation::Update
        && request
            .old_object
            .as_ref()
            .is_some_and(|old| old.data.get("spec") == subject.data.get("spec"));
    if unchanged {
        // Finalizers must always be able to go, and labels to change, whatever is thought of the spec by now.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fairlead_crds::platform::{Criterion, Release, ScoreWorkload};
    use fairlead_plan::ObjectId;
    use fairlead_testkit::builders::{definition, environment, release, workload};
    use kube::Resource;
    use serde_json::json;

    use super::*;

    const SOMEBODY: &str = "jane";

    /// What is answered about a change from `old` to `new` by `user`.
    fn ask<T: serde::Serialize + Resource<DynamicType = ()>>(
        operation: &str,
        (old, new): (Option<&T>, Option<&T>),
        user: &str,
        cache: &Cache,
    ) -> AdmissionResponse {
        let object = |object: Option<&T>| serde_json::to_value(object).expect("it is plain data");
        let kind =
            json!({"group": T::group(&()), "version": T::version(&()), "kind": T::kind(&())});
        let resource =
            json!({"group": T::group(&()), "version": T::version(&()), "resource": T::plural(&())});
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "kind": kind,
                "resource": resource,
                "name": "x",
                "operation": operation,
                "userInfo": {"username": user},
                "object": object(new),
                "oldObject": object(old),
                "dryRun": false,
            },
        });
        let review = serde_json::from_value(review).expect("it is a review");
        let (review, kind, allowed) = answer(review, cache);
        let response = review.response.expect("a review is answered");
        assert_eq!(
            (kind, allowed),
            (T::kind(&()).into_owned(), response.allowed)
        );
        assert_eq!(response.uid, "705ab4f5-6393-11e8-b7cc-42010a800002");
        response
    }

    /// A workload that nothing can run: its container has no image.
    fn broken() -> ScoreWorkload {
        workload("shop", "cart").image("").done()
    }

    /// A release that its environment runs, and the cache that knows both.
    fn running() -> (Cache, Release) {
        let cache = Cache::default();
        let dev = environment("shop", "dev").done();
        let first = release("shop", "dev", 1, &[workload("shop", "cart").done()])
            .with(|release| release.metadata.uid = Some("1".to_owned()))
            .done();
        cache
            .environments
            .put(ObjectId::of(dev.meta()), Arc::new(dev));
        cache
            .releases
            .put(ObjectId::of(first.meta()), Arc::new(first.clone()));
        (cache, first)
    }

    #[test]
    fn a_review_without_a_request_is_refused() {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
        let review = serde_json::from_value(review).expect("it is a review");
        let (review, kind, allowed) = answer(review, &Cache::default());
        assert_eq!((kind.as_str(), allowed), ("", false));
        assert!(review.response.is_some_and(|response| !response.allowed));
    }

    #[test]
    fn what_is_invalid_is_refused_with_its_field() {
        let refused = ask(
            "CREATE",
            (None, Some(&broken())),
            SOMEBODY,
            &Cache::default(),
        );
        assert!(!refused.allowed);
        let message = refused.result.message;
        assert!(
            message.starts_with("spec.containers.main.image: "),
            "{message}"
        );
    }

    #[test]
    fn what_is_invalid_may_lose_its_finalizers_and_be_labelled_but_not_change() {
        let cache = Cache::default();
        let going = |mut object: ScoreWorkload, finalizers: &[&str]| {
            let time = serde_json::from_value(json!("2026-01-01T00:00:00Z"));
            object.metadata.deletion_timestamp = Some(time.expect("it is a time"));
            object.metadata.finalizers =
                Some(finalizers.iter().map(|&name| name.to_owned()).collect());
            object
        };
        let held = going(broken(), &["example.com/held"]);
        let free = going(broken(), &[]);
        assert!(ask("UPDATE", (Some(&held), Some(&free)), SOMEBODY, &cache).allowed);
        let mut other = free;
        other.spec.score.containers.clear();
        assert!(!ask("UPDATE", (Some(&held), Some(&other)), SOMEBODY, &cache).allowed);
        // Labels and the annotation that pauses may change on what an older version let in.
        let mut labelled = broken();
        labelled.metadata.labels = Some([("team".to_owned(), "shop".to_owned())].into());
        assert!(
            ask(
                "UPDATE",
                (Some(&broken()), Some(&labelled)),
                SOMEBODY,
                &cache
            )
            .allowed
        );
    }

    #[test]
    fn a_release_that_runs_is_not_deleted_but_by_the_end_of_its_namespace() {
        let (cache, first) = running();
        let refused = ask("DELETE", (Some(&first), None), SOMEBODY, &cache);
        assert!(!refused.allowed);
        let message = refused.result.message;
        assert!(
            message.contains("kubectl fairlead rollback dev"),
            "{message}"
        );
        let cleaner = "system:serviceaccount:kube-system:namespace-controller";
        assert!(ask("DELETE", (Some(&first), None), cleaner, &cache).allowed);
        let another = release("shop", "dev", 2, &[])
            .with(|release| release.metadata.uid = Some("2".to_owned()))
            .done();
        assert!(ask("DELETE", (Some(&another), None), SOMEBODY, &cache).allowed);
    }

    #[test]
    fn warnings_are_few_and_short() {
        let cache = Cache::default();
        let class = |number: usize| Criterion {
            class: Some(format!("c{number}")),
            ..Criterion::default()
        };
        let many = definition("postgres", "postgres")
            .with(|definition| definition.spec.criteria = (0..12).map(class).collect())
            .done();
        let allowed = ask("CREATE", (None, Some(&many)), SOMEBODY, &cache);
        assert!(allowed.allowed, "{}", allowed.result.message);
        let warnings = allowed.warnings.expect("no class is there");
        assert_eq!(warnings.len(), WARNINGS_MAX);
        assert_eq!(warnings[0], "there is no ResourceClass postgres.c0 yet");
        let name = "é".repeat(300);
        let long = release("shop", &name, 1, &[workload("shop", "cart").done()]).done();
        let allowed = ask("CREATE", (None, Some(&long)), SOMEBODY, &cache);
        let warnings = allowed.warnings.expect("the environment is not there");
        assert_eq!(warnings[0].chars().count(), WARNING_LENGTH);
    }
}
