//! Pods on their way into the cluster get a proxy of the mesh.

use fairlead_plan::mesh::{Injection, Outcome, inject};
use fairlead_plan::problem::join_invalid;
use json_patch::diff;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::Value;

/// The answer to a review of a pod, and whether it was allowed.
#[must_use]
pub fn inject_answer(
    review: AdmissionReview<DynamicObject>,
    injection: &Injection,
) -> (AdmissionReview<DynamicObject>, bool) {
    let response = match TryInto::<AdmissionRequest<DynamicObject>>::try_into(review) {
        Ok(request) => respond(&request, injection),
        Err(_) => AdmissionResponse::invalid("the review holds no request"),
    };
    let allowed = response.allowed;
    (response.into_review(), allowed)
}

fn respond(request: &AdmissionRequest<DynamicObject>, injection: &Injection) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    let (Some(pod), Some(namespace)) = (&request.object, &request.namespace) else {
        return response;
    };
    let pod = serde_json::to_value(pod).unwrap_or(Value::Null);
    match inject(pod.clone(), namespace, injection) {
        Err(wrong) => response.deny(join_invalid(&wrong)),
        Ok(Outcome::Left(why)) => {
            response.warnings = Some(vec![format!("the pod gets no proxy of the mesh: {why}")]);
            response
        }
        Ok(Outcome::Injected(with)) => {
            let unwritable = |_| AdmissionResponse::invalid("the patch cannot be written");
            response
                .with_patch(diff(&pod, &with))
                .unwrap_or_else(unwritable)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The answer to a pod with these annotations, and the pod as it would be stored.
    fn ask(pod: &Value) -> (AdmissionResponse, Value) {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "shop",
                "operation": "CREATE",
                "userInfo": {"username": "jane"},
                "object": pod,
                "dryRun": true,
            },
        });
        let review = serde_json::from_value(review).expect("it is a review");
        let injection = Injection {
            system: "fairlead-system".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            image: "proxy".to_owned(),
            ..Injection::default()
        };
        let (review, _) = inject_answer(review, &injection);
        let response = review.response.expect("an answer");
        let mut stored = pod.clone();
        if let Some(patch) = &response.patch {
            let patch: json_patch::Patch = serde_json::from_slice(patch).expect("a patch");
            json_patch::patch(&mut stored, &patch).expect("it fits");
        }
        (response, stored)
    }

    fn pod() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "web-"},
            "spec": {"containers": [{"name": "main", "image": "web"}], "initContainers": [{"name": "migrate", "later": 1}]},
        })
    }

    #[test]
    fn a_pod_is_stored_with_its_proxy_once() {
        let (response, stored) = ask(&pod());
        assert!(response.allowed);
        let names = |pod: &Value| -> Vec<String> {
            let list = pod["spec"]["initContainers"].as_array().expect("a list");
            list.iter()
                .map(|own| own["name"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(
            names(&stored),
            ["fairlead-capture", "fairlead-proxy", "migrate"]
        );
        assert_eq!(stored["spec"]["initContainers"][2]["later"], 1);
        assert_eq!(ask(&stored).1, stored);
    }

    #[test]
    fn what_cannot_be_is_refused_and_what_needs_none_is_told() {
        let mut nonsense = pod();
        nonsense["metadata"]["annotations"] = json!({"mesh.fairlead.dev/proxy-cores": "all"});
        let (response, _) = ask(&nonsense);
        assert!(!response.allowed);
        let said = "metadata.annotations[mesh.fairlead.dev/proxy-cores]: found \"all\", and 1 to 64 are allowed";
        assert_eq!(response.result.message, said);
        let mut outside = pod();
        outside["spec"]["hostNetwork"] = json!(true);
        let (response, stored) = ask(&outside);
        assert!(response.allowed && response.warnings.is_some());
        assert_eq!(stored, outside);
    }
}
