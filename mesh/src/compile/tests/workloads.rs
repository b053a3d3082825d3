//! What is said of the pods of a workload.

use super::policies::with;
use super::*;

/// With the pod cart-1 as one of a workload.
fn made_by(mut facts: Facts, labels: &[(&str, &str)], name: &str) -> Facts {
    let key = key("shop", "cart-1");
    let mut pod = (*facts.pods.remove(&key).expect("it is there")).clone();
    let labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    pod.labels.extend(labels);
    assert_eq!(pod.workload(&key.1), name);
    facts.pods.insert(key, Arc::new(pod));
    facts
}

const STATEFUL: [(&str, &str); 2] = [
    ("controller-revision-hash", "cart-5c7f"),
    ("statefulset.kubernetes.io/pod-name", "cart-1"),
];

#[test]
fn an_authorization_of_a_workload_is_about_its_pods() {
    let get = &Method::GET;
    let door = |kind: &str, labels: &[(&str, &str)]| {
        let spec = json!({"targetRefs": [{"kind": kind, "name": "cart"}], "rules": [{"from": {"serviceAccounts": ["ops/jane"]}}]});
        Door::beside(
            made_by(
                facts(),
                labels,
                if labels.is_empty() { "cart-1" } else { "cart" },
            ),
            &[spec],
        )
    };
    let own = door("StatefulSet", &STATEFUL);
    assert!(own.request("ops/jane", get, "/") && !own.request("ops/joe", get, "/"));
    assert!(!own.bytes());
    for (kind, labels) in [
        ("DaemonSet", &STATEFUL[..]),
        ("Deployment", &STATEFUL),
        ("StatefulSet", &[]),
    ] {
        assert!(
            door(kind, labels).request("ops/joe", get, "/"),
            "{kind} {labels:?}"
        );
    }
    assert!(!door("DaemonSet", &STATEFUL[..1]).request("ops/joe", get, "/"));
}

#[test]
fn what_is_said_of_a_workload_goes_before_what_is_said_of_its_services() {
    let get = &Method::GET;
    let all = json!({"targetRefs": [{"kind": "Namespace", "name": "shop"}], "inbound": "Strict"});
    let service = json!({"targetRefs": [{"kind": "Service", "name": "cart"}], "inbound": "Deny"});
    let own =
        json!({"targetRefs": [{"kind": "StatefulSet", "name": "cart"}], "inbound": "Permissive"});
    let door = |policies: &[serde_json::Value]| {
        Door::beside(made_by(with(policies), &STATEFUL, "cart"), &[])
    };
    assert!(!door(std::slice::from_ref(&all)).request("", get, "/"));
    assert!(!door(&[all.clone(), service.clone()]).request("ops/jane", get, "/"));
    assert!(door(&[all, service, own]).request("", get, "/"));
}
