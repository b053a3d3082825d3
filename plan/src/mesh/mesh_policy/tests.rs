use serde_json::{Value, json};

use super::*;

/// A policy of the namespace shop that was made at this minute.
fn policy(name: &str, minute: u32, spec: Value) -> MeshPolicy {
    let policy = json!({
        "apiVersion": "mesh.fairlead.dev/v1alpha1",
        "kind": "MeshPolicy",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": format!("2026-06-01T12:{minute:02}:00Z")},
        "spec": spec,
    });
    serde_json::from_value(policy).expect("a policy")
}

fn service(name: &str) -> Value {
    json!([{"kind": "Service", "name": name}])
}

#[test]
fn what_a_service_says_goes_before_what_its_namespace_says_field_by_field() {
    let all = policy(
        "all",
        0,
        json!({
            "targetRefs": [{"kind": "Namespace", "name": "shop"}],
            "timeouts": {"request": "30s", "idle": "1m"},
            "retries": {"attempts": 1},
        }),
    );
    let cart = policy(
        "cart",
        5,
        json!({"targetRefs": service("cart"), "timeouts": {"request": "2s"}}),
    );
    let policies = [&all, &cart];
    let found = effective(&policies, "shop", "cart", None);
    let said: Vec<String> = found
        .sets
        .iter()
        .map(|set| {
            format!(
                "{}={} by {} of the {}",
                set.field, set.value, set.policy, set.target
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "retries.attempts=1 by all of the Namespace",
            "timeouts.idle=\"1m\" by all of the Namespace",
            "timeouts.request=\"2s\" by cart of the Service",
        ]
    );
    let timeouts = found.behaviour.timeouts.expect("they are set");
    assert_eq!(timeouts.request.as_deref(), Some("2s"));
    assert_eq!(timeouts.idle.as_deref(), Some("1m"));
    let other = effective(&policies, "shop", "till", None)
        .behaviour
        .timeouts;
    assert_eq!(other.and_then(|own| own.request).as_deref(), Some("30s"));
    assert_eq!(effective(&[], "shop", "cart", None), Effective::default());
}

#[test]
fn the_older_of_two_policies_of_one_target_counts() {
    let (older, newer) = (
        policy(
            "slow",
            1,
            json!({"targetRefs": service("cart"), "timeouts": {"request": "9s"}}),
        ),
        policy(
            "fast",
            2,
            json!({"targetRefs": service("cart"), "timeouts": {"request": "1s", "idle": "5s"}}),
        ),
    );
    for policies in [[&older, &newer], [&newer, &older]] {
        let timeouts = effective(&policies, "shop", "cart", None)
            .behaviour
            .timeouts;
        let timeouts = timeouts.expect("they are set");
        assert_eq!(timeouts.request.as_deref(), Some("9s"));
        assert_eq!(timeouts.idle.as_deref(), Some("5s"));
    }
}

#[test]
fn durations_are_those_of_the_gateway_api() {
    for (text, milliseconds) in [
        ("10s", Some(10_000)),
        ("1m30s", Some(90_000)),
        ("250ms", Some(250)),
        ("24h", Some(86_400_000)),
        ("0s", None),
        ("25h", None),
        ("soon", None),
    ] {
        let read = duration(text).map(|read| read.as_millis());
        assert_eq!(read, milliseconds, "{text}");
    }
}

#[test]
fn a_policy_that_names_callers_counts_for_them_alone_and_goes_before_others() {
    let (all, tests) = (
        policy(
            "all",
            0,
            json!({"targetRefs": service("cart"), "timeouts": {"request": "2s", "idle": "1m"}}),
        ),
        policy(
            "tests",
            9,
            json!({
                "targetRefs": service("cart"),
                "from": {"namespaces": ["tests"], "serviceAccounts": ["shop/robot"]},
                "timeouts": {"request": "30s"},
            }),
        ),
    );
    let request = |caller: Option<(&str, &str)>| {
        let caller = caller.map(|(namespace, account)| Caller { namespace, account });
        let found = effective(&[&all, &tests], "shop", "cart", caller)
            .behaviour
            .timeouts;
        found.and_then(|own| own.request)
    };
    for (caller, wanted) in [
        (None, "2s"),
        (Some(("tests", "any")), "30s"),
        (Some(("shop", "robot")), "30s"),
        (Some(("shop", "web")), "2s"),
    ] {
        assert_eq!(request(caller).as_deref(), Some(wanted), "{caller:?}");
    }
    // Neither keeps the other from what it says.
    assert!(!compete(&all, &tests));
    let robots = policy(
        "robots",
        10,
        json!({"targetRefs": service("cart"), "from": {"serviceAccounts": ["tests/robot"]}, "timeouts": {"request": "1s"}}),
    );
    assert!(compete(&robots, &tests) && compete(&tests, &robots));
}
