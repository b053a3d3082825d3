//! What MeshPolicies come to.

use fairlead_model::class::{Answer, Class};
use fairlead_model::filter::{AbortBy, DelayBy};
use fairlead_model::route::Forward;

use super::*;

/// The cart, and policies of its namespace of which only the specs are given.
pub(super) fn with(specs: &[serde_json::Value]) -> Facts {
    let mut facts = facts();
    facts.trust_domain = "cluster.local".into();
    let all = objects("MeshPolicy", "p", specs);
    facts.policies.insert("shop".into(), all);
    facts
}

fn cart() -> serde_json::Value {
    json!([{"kind": "Service", "name": "cart"}])
}

fn forward<'a>(snapshot: &'a fairlead_model::Snapshot, name: &str) -> &'a Forward {
    match &snapshot.routes[name].hosts()[0].routes[0].action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

#[test]
fn policies_say_how_requests_are_carried() {
    let facts = with(&[json!({
        "targetRefs": cart(),
        "timeouts": {"request": "2s", "backendRequest": "500ms", "idle": "1m"},
        "retries": {"attempts": 3, "retryOn": ["GatewayError"], "budgetPercent": 10},
        "hedging": {"afterPercentile": 95},
        "circuitBreaker": {"maxRequests": 7, "consecutiveFailures": 5},
        "loadBalancer": {"algorithm": "RoundRobin"},
        "responseClasses": [{"statusFrom": 404, "statusTo": 404, "class": "Failure"}],
    })]);
    let snapshot = told(&view(&facts));
    let forward = forward(&snapshot, "cart.shop:80/http1");
    let missing = Answer {
        status: 404,
        grpc: None,
        headers: &HeaderMap::new(),
    };
    assert_eq!(forward.classes.of(&missing), Class::Failure);
    assert_eq!(forward.timeouts.request, Some(Duration::from_secs(2)));
    assert_eq!(forward.timeouts.idle, Some(Duration::from_secs(60)));
    let retry = forward.retry.as_ref().expect("it is tried again");
    assert_eq!(
        (retry.retries, retry.per_try),
        (3, Some(Duration::from_millis(500)))
    );
    assert!(retry.on.gateway_error && !retry.on.connect_failure);
    assert_eq!(retry.budget.as_ref().map(|own| own.percent), Some(10));
    assert_eq!(
        retry.hedge.as_ref().map(|own| own.after),
        Some(HedgeAfter::Percentile(950_000))
    );
    let cluster = &snapshot.clusters["cart.shop:80/http1"];
    assert_eq!(cluster.limits.requests, 7);
    assert_eq!(
        cluster.breaker.as_ref().and_then(|own| own.consecutive),
        Some(5)
    );
    assert_eq!(cluster.balancing.policy, Policy::RoundRobin);
}

#[test]
fn requests_are_copied_to_another_service_that_speaks_the_same() {
    let said = json!({
        "targetRefs": cart(),
        "mirror": {"service": "next", "percent": 10},
    });
    let mut facts = with(&[said]);
    let mirrors = |facts: &Facts| {
        let snapshot = told(&view(facts));
        forward(&snapshot, "cart.shop:80/http2").mirrors.clone()
    };
    assert_eq!(mirrors(&facts), []);
    let next = service([10, 0, 0, 2], &[(80, Spoken::Detected)]);
    facts.services.insert(key("shop", "next"), next);
    let all = mirrors(&facts);
    assert_eq!(all.len(), 1);
    assert_eq!(&*all[0].cluster, "next.shop:80/http2");
    assert_eq!((all[0].share, all[0].safe_only), (100_000, true));
}

#[test]
fn what_goes_wrong_goes_wrong_for_those_who_are_named_alone() {
    let said = |from: serde_json::Value| {
        json!({
            "targetRefs": cart(),
            "from": from,
            "fault": {
                "delay": {"by": "200ms", "percent": 5},
                "abort": {"status": 503, "percent": 1},
                "until": "2100-01-01T00:00:00Z",
            },
        })
    };
    let faults = |from: serde_json::Value| {
        let snapshot = told(&view(&with(&[said(from)])));
        let filters = snapshot.http().flat_map(|http| http.filters.clone());
        let faults = filters.filter_map(|own| match own.filter {
            Filter::Injection(own) => Some(own),
            _ => None,
        });
        faults.collect::<Vec<_>>()
    };
    assert_eq!(faults(json!({"serviceAccounts": ["shop/till"]})), []);
    let all = faults(json!({"serviceAccounts": ["shop/cart"]}));
    // Both ways of speaking HTTP to the one port that may be HTTP.
    assert_eq!(all.len(), 2);
    let delay = all[0].delay.as_ref().expect("requests wait");
    let by = DelayBy::Fixed(Duration::from_millis(200));
    assert_eq!((delay.by, delay.share), (by, 50_000));
    let abort = all[0].abort.as_ref().expect("requests are answered");
    let by = AbortBy::Http(http::StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((abort.by, abort.share), (by, 10_000));
    assert_eq!(
        (all[0].until, all[0].most_active),
        (Some(4_102_444_800), Some(100))
    );
    assert_eq!(faults(json!({"namespaces": ["shop"]})).len(), 2);
}

#[test]
fn pods_of_a_closed_namespace_go_to_services_alone() {
    let leaves = |egress: &str| {
        let said = json!({"targetRefs": [{"kind": "Namespace", "name": "shop"}], "egress": egress});
        let snapshot = told(&view(&with(&[said])));
        snapshot.listeners["outbound"].default_chain.is_some()
    };
    assert!(leaves("Allow"));
    assert!(!leaves("Deny"));
}

#[test]
fn a_namespace_says_who_comes_in_where_no_authorization_does() {
    let get = &Method::GET;
    let door = |inbound: &str, authorizations: &[serde_json::Value]| {
        let said =
            json!({"targetRefs": [{"kind": "Namespace", "name": "shop"}], "inbound": inbound});
        Door::beside(with(&[said]), authorizations)
    };
    let permissive = door("Permissive", &[]);
    assert!(permissive.request("", get, "/") && permissive.bytes());
    let strict = door("Strict", &[]);
    assert!(strict.request("ops/jane", get, "/"));
    assert!(!strict.request("", get, "/") && !strict.bytes());
    assert!(
        strict.request("", get, "/healthz"),
        "kubelet has no identity"
    );
    let deny = door("Deny", &[]);
    assert!(!deny.request("ops/jane", get, "/") && !deny.request("", get, "/"));
    assert!(deny.request("", get, "/healthz"));
    // Whoever is named comes in, and those who are not stay outside.
    let named = json!({
        "targetRefs": cart(),
        "rules": [{"from": {"serviceAccounts": ["ops/jane"]}}],
    });
    let named = door("Deny", &[named]);
    assert!(named.request("ops/jane", get, "/") && !named.request("ops/joe", get, "/"));
}

#[test]
fn a_pod_takes_as_many_requests_as_the_strictest_of_its_services_says() {
    let limits = |specs: &[serde_json::Value]| {
        let mut facts = with(specs);
        let other = service([10, 0, 0, 2], &[(80, Spoken::Http)]);
        facts.services.insert(key("shop", "other"), other);
        let snapshot = told(&view(&facts));
        let listener = &snapshot.listeners["inbound"];
        let filters = listener
            .chains
            .iter()
            .flat_map(|chain| match &chain.handler {
                Handler::Http(http) => http.filters.clone(),
                _ => Vec::new(),
            });
        let limits = filters.filter_map(|own| match own.filter {
            Filter::RateLimit(own) => own.bucket.map(|bucket| (bucket.fill, bucket.interval)),
            _ => None,
        });
        limits.collect::<BTreeSet<_>>()
    };
    let of = |name: &str, limit: serde_json::Value| json!({"targetRefs": [{"kind": "Service", "name": name}], "rateLimit": limit});
    assert_eq!(limits(&[]), BTreeSet::new());
    let said = [
        of("cart", json!({"requests": 10, "of": "Caller"})),
        of("other", json!({"requests": 60, "per": "Minute"})),
    ];
    let minute = Duration::from_secs(60);
    assert_eq!(limits(&said), BTreeSet::from([(60, minute)]));
}
