use std::collections::HashMap;
use std::io;

use serde_json::{Value, json};

use super::wire::Resource;
use super::*;

fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds))
}

fn outside() -> Outside<'static> {
    Outside {
        read: &|_| Err(io::ErrorKind::NotFound.into()),
        check: &|_| Ok(()),
    }
}

fn session(is_delta: bool) -> Session {
    let dynamic = Dynamic {
        cluster: "control".to_owned(),
        is_delta,
        listeners: true,
        clusters: true,
        metadata: Vec::new(),
        node: vec![0x0a, 1, b'n'],
    };
    Session::new(dynamic, Snapshot::default())
}

fn any(kind: Kind, value: &Value) -> Any {
    Any {
        type_url: kind.type_url(),
        value: Shapes::default()
            .bytes(kind.message(), value)
            .expect("a resource")
            .into(),
    }
}

fn cluster(name: &str, timeout: &str) -> Value {
    json!({"name": name, "type": "EDS", "connect_timeout": timeout, "eds_cluster_config": {"eds_config": {"ads": {}}}})
}

fn endpoints(name: &str) -> Value {
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 80}});
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}

fn listener(name: &str, routes: &str) -> Value {
    const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 15001}},
        "filter_chains": [{"filters": [{
            "name": "http",
            "typed_config": {
                "@type": format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "http",
                "rds": {"route_config_name": routes, "config_source": {"ads": {}}},
                "http_filters": [{
                    "name": "router",
                    "typed_config": {"@type": format!("{EXTENSIONS}.filters.http.router.v3.Router")},
                }],
            },
        }]}],
    })
}

fn routes(name: &str, to: &str) -> Value {
    json!({"name": name, "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": to}}],
    }]})
}

/// A response of either protocol; each resource with its name and version.
fn response(
    session: &Session,
    kind: Kind,
    nonce: &str,
    resources: &[(&str, Value)],
    removed: &[&str],
) -> Vec<u8> {
    if session.dynamic.is_delta {
        return DeltaResponse {
            resources: resources
                .iter()
                .map(|(name, value)| Resource {
                    version: format!("{nonce} of {name}"),
                    resource: Some(any(kind, value)),
                    name: (*name).to_owned(),
                })
                .collect(),
            type_url: kind.type_url(),
            nonce: nonce.to_owned(),
            removed_resources: removed.iter().map(|&name| name.to_owned()).collect(),
        }
        .encode_to_vec();
    }
    StateResponse {
        version_info: nonce.to_owned(),
        resources: resources
            .iter()
            .map(|(_, value)| any(kind, value))
            .collect(),
        type_url: kind.type_url(),
        nonce: nonce.to_owned(),
    }
    .encode_to_vec()
}

fn deltas(requests: &[Vec<u8>]) -> Vec<DeltaRequest> {
    requests
        .iter()
        .map(|own| DeltaRequest::decode(own.as_slice()).expect("a request"))
        .collect()
}

fn states(requests: &[Vec<u8>]) -> Vec<StateRequest> {
    requests
        .iter()
        .map(|own| StateRequest::decode(own.as_slice()).expect("a request"))
        .collect()
}

/// Tells a session something that has to be understood.
fn tell(
    session: &mut Session,
    kind: Kind,
    nonce: &str,
    resources: &[(&str, Value)],
    removed: &[&str],
    now: Moment,
) -> Step {
    let message = response(session, kind, nonce, resources, removed);
    session.take(&message, outside(), now).expect("a response")
}

/// Tells a session all that one listener needs.
fn tell_all(session: &mut Session) {
    session.begin(at(0));
    tell(
        session,
        Kind::Cluster,
        "c1",
        &[("cart", cluster("cart", "1s"))],
        &[],
        at(0),
    );
    tell(
        session,
        Kind::Endpoints,
        "e1",
        &[("cart", endpoints("cart"))],
        &[],
        at(0),
    );
    tell(
        session,
        Kind::Listener,
        "l1",
        &[("in", listener("in", "web"))],
        &[],
        at(0),
    );
    tell(
        session,
        Kind::Routes,
        "r1",
        &[("web", routes("web", "cart"))],
        &[],
        at(0),
    );
}

#[test]
fn what_is_used_by_name_is_asked_for_by_name() {
    let mut session = session(true);
    let first = deltas(&session.begin(at(0)));
    let kinds: Vec<_> = first.iter().map(|own| Kind::of(&own.type_url)).collect();
    assert_eq!(kinds, [Some(Kind::Cluster), Some(Kind::Listener)]);
    assert_eq!(first[0].node, Some(vec![0x0a, 1, b'n']));
    assert_eq!(first[1].node, None, "the node is told once");
    assert!(first[0].resource_names_subscribe.is_empty());

    let step = tell(
        &mut session,
        Kind::Cluster,
        "c1",
        &[("cart", cluster("cart", "1s"))],
        &[],
        at(0),
    );
    let next = deltas(&step.requests);
    assert_eq!(next[0].response_nonce, "c1");
    assert_eq!(next[0].error_detail, None);
    assert_eq!(Kind::of(&next[1].type_url), Some(Kind::Endpoints));
    assert_eq!(next[1].resource_names_subscribe, ["cart"]);
}

#[test]
fn what_is_not_whole_is_not_used() {
    for is_delta in [true, false] {
        let mut session = session(is_delta);
        session.begin(at(0));
        tell(
            &mut session,
            Kind::Cluster,
            "c1",
            &[("cart", cluster("cart", "1s"))],
            &[],
            at(0),
        );
        tell(
            &mut session,
            Kind::Listener,
            "l1",
            &[("in", listener("in", "web"))],
            &[],
            at(0),
        );
        tell(
            &mut session,
            Kind::Routes,
            "r1",
            &[("web", routes("web", "cart"))],
            &[],
            at(0),
        );
        assert_eq!(session.settle(at(0)), None, "the endpoints are waited for");
        assert_eq!(session.due(at(0)), Some(Duration::from_secs(15)));
        tell(
            &mut session,
            Kind::Endpoints,
            "e1",
            &[("cart", endpoints("cart"))],
            &[],
            at(0),
        );
        let snapshot = session.settle(at(0)).expect("all is there");
        assert_eq!(snapshot.listeners.len(), 1);
        assert_eq!(snapshot.endpoints["cart"].len(), 1);
        assert_eq!(session.settle(at(0)), None, "nothing changed");
        assert_eq!(session.due(at(0)), None);
    }
}

#[test]
fn what_does_not_come_is_not_waited_for_forever() {
    let mut session = session(true);
    session.begin(at(0));
    tell(
        &mut session,
        Kind::Cluster,
        "c1",
        &[("cart", cluster("cart", "1s"))],
        &[],
        at(0),
    );
    assert_eq!(session.settle(at(14)), None);
    let snapshot = session
        .settle(at(15))
        .expect("the cluster is used as it is");
    assert!(snapshot.clusters.contains_key("cart"));
}

#[test]
fn what_is_wrong_is_refused_with_its_path_and_the_last_good_one_stays() {
    for is_delta in [true, false] {
        let mut session = session(is_delta);
        tell_all(&mut session);
        let good = session.settle(at(0)).expect("all is there");
        let mut wrong = cluster("cart", "2s");
        wrong["lb_policy"] = json!("CLUSTER_PROVIDED");
        let step = tell(
            &mut session,
            Kind::Cluster,
            "c2",
            &[("cart", wrong)],
            &[],
            at(0),
        );
        let reason = step.refused.clone().unwrap_or_default();
        assert!(
            reason
                .starts_with(r#"clusters["cart"].lb_policy: "CLUSTER_PROVIDED" is not supported"#),
            "{reason}"
        );
        let (nonce, detail) = if is_delta {
            let request = deltas(&step.requests).remove(0);
            (request.response_nonce, request.error_detail)
        } else {
            let request = states(&step.requests).remove(0);
            assert_eq!(
                request.version_info, "c1",
                "the version in use is the old one"
            );
            (request.response_nonce, request.error_detail)
        };
        assert_eq!(
            (nonce.as_str(), detail),
            ("c2", Some(Status::invalid(reason)))
        );
        assert_eq!(session.settle(at(0)), None);
        assert_eq!(
            good.clusters["cart"].connect_timeout,
            Duration::from_secs(1)
        );
    }
}

#[test]
fn the_good_ones_of_a_response_are_used_though_another_is_wrong() {
    let mut session = session(true);
    tell_all(&mut session);
    let mut wrong = endpoints("cart");
    wrong["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] =
        json!(70000);
    tell(
        &mut session,
        Kind::Cluster,
        "c2",
        &[("b", cluster("b", "1s"))],
        &[],
        at(0),
    );
    let both = [("cart", wrong), ("b", endpoints("b"))];
    let step = tell(&mut session, Kind::Endpoints, "e2", &both, &[], at(0));
    assert_eq!(
        step.refused.as_deref(),
        Some(
            r#"endpoints["cart"].endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value: 70000 is no number from 0 to 65535"#
        )
    );
    let snapshot = session.settle(at(0)).expect("there is a new cluster");
    assert_eq!(snapshot.endpoints["b"].len(), 1);
    assert_eq!(snapshot.endpoints["cart"].len(), 1);
}

#[test]
fn a_changed_cluster_waits_for_its_new_endpoints() {
    let mut session = session(true);
    tell_all(&mut session);
    session.settle(at(0)).expect("all is there");
    let mut changed = cluster("cart", "2s");
    changed["eds_cluster_config"]["service_name"] = json!("cart-2");
    let step = tell(
        &mut session,
        Kind::Cluster,
        "c2",
        &[("cart", changed)],
        &[],
        at(0),
    );
    let asked = deltas(&step.requests).remove(1);
    assert_eq!(asked.resource_names_subscribe, ["cart-2"]);
    assert_eq!(asked.resource_names_unsubscribe, ["cart"]);
    assert_eq!(
        session.settle(at(0)),
        None,
        "the old endpoints go on being used"
    );
    tell(
        &mut session,
        Kind::Endpoints,
        "e2",
        &[("cart-2", endpoints("cart-2"))],
        &[],
        at(0),
    );
    let snapshot = session.settle(at(0)).expect("the new ones are there");
    assert_eq!(
        snapshot.clusters["cart"].connect_timeout,
        Duration::from_secs(2)
    );
    let known: Vec<_> = snapshot.endpoints.keys().collect();
    assert_eq!(known, ["cart-2"]);
}

#[test]
fn routes_wait_for_clusters_that_are_on_their_way() {
    let mut session = session(true);
    tell_all(&mut session);
    session.settle(at(0)).expect("all is there");
    tell(
        &mut session,
        Kind::Cluster,
        "c2",
        &[("new", cluster("new", "1s"))],
        &[],
        at(0),
    );
    tell(
        &mut session,
        Kind::Routes,
        "r2",
        &[("web", routes("web", "new"))],
        &[],
        at(0),
    );
    assert_eq!(
        session.settle(at(0)),
        None,
        "the old routes go on being used"
    );
    tell(
        &mut session,
        Kind::Endpoints,
        "e2",
        &[("new", endpoints("new"))],
        &[],
        at(0),
    );
    let snapshot = session.settle(at(0)).expect("the new cluster is there");
    assert!(snapshot.missing_clusters().is_empty());
    assert!(snapshot.clusters.contains_key("new"));
}

#[test]
fn what_the_file_says_waits_for_what_it_names() {
    // A listener and a changed cluster, given and not told.
    let given = |eds: &str| {
        let mut own = Snapshot::default();
        let shapes = Shapes::default();
        let mut add = |kind: Kind, value: Value| {
            let bytes = any(kind, &value).value;
            let named = resource::decode(&shapes, kind, None, &bytes, outside().read);
            let alone = named.expect("a resource").alone;
            own.clusters.extend(alone.clusters);
            own.listeners.extend(alone.listeners);
        };
        let mut up = cluster("up", "1s");
        up["eds_cluster_config"]["service_name"] = json!(eds);
        add(Kind::Cluster, up);
        add(Kind::Listener, listener("in", "shop"));
        own
    };
    let mut session = session(true);
    session.give(given("first"), at(0));
    session.begin(at(0));
    let next = session.settle(at(0)).expect("a snapshot");
    assert!(next.listeners.is_empty() && next.clusters.contains_key("up"));
    let shop = routes("shop", "up");
    tell(
        &mut session,
        Kind::Routes,
        "r1",
        &[("shop", shop)],
        &[],
        at(1),
    );
    let all = [("first", endpoints("first"))];
    tell(&mut session, Kind::Endpoints, "e1", &all, &[], at(1));
    let next = session.settle(at(1)).expect("a snapshot");
    assert!(next.listeners.contains_key("in") && next.endpoints.contains_key("first"));

    session.give(given("second"), at(2));
    assert_eq!(session.settle(at(2)), None, "the old cluster goes on");
    let all = [("second", endpoints("second"))];
    tell(&mut session, Kind::Endpoints, "e2", &all, &[], at(3));
    let next = session.settle(at(3)).expect("a snapshot");
    assert_eq!(next.clusters, given("second").clusters);

    session.give(given("third"), at(4));
    assert_eq!(session.settle(at(18)), None);
    let next = session.settle(at(19)).expect("a snapshot");
    assert_eq!(next.clusters, given("third").clusters);
}

#[test]
fn what_is_removed_is_gone() {
    let mut delta = session(true);
    tell_all(&mut delta);
    tell(&mut delta, Kind::Listener, "l2", &[], &["in"], at(0));
    assert_eq!(delta.settle(at(0)).map(|own| own.listeners.len()), Some(0));

    let mut state = session(false);
    tell_all(&mut state);
    let rest = [("other", listener("other", "web"))];
    tell(&mut state, Kind::Listener, "l2", &rest, &[], at(0));
    let snapshot = state.settle(at(0)).expect("the listeners changed");
    assert_eq!(snapshot.listeners.keys().collect::<Vec<_>>(), ["other"]);
}

#[test]
fn a_new_stream_says_what_is_known() {
    let mut delta = session(true);
    tell_all(&mut delta);
    let requests = deltas(&delta.begin(at(0)));
    let versions: Vec<HashMap<String, String>> = requests
        .into_iter()
        .map(|own| own.initial_resource_versions)
        .collect();
    let one = |name: &str, version: &str| HashMap::from([(name.to_owned(), version.to_owned())]);
    assert_eq!(
        versions,
        [
            one("cart", "c1 of cart"),
            one("cart", "e1 of cart"),
            one("in", "l1 of in"),
            one("web", "r1 of web"),
        ]
    );

    let mut state = session(false);
    tell_all(&mut state);
    let requests = states(&state.begin(at(0)));
    let said: Vec<_> = requests
        .iter()
        .map(|own| (own.version_info.as_str(), own.response_nonce.as_str()))
        .collect();
    assert_eq!(said, [("c1", ""), ("e1", ""), ("l1", ""), ("r1", "")]);
    assert_eq!(requests[1].resource_names, ["cart"]);
}

#[test]
fn bytes_that_nobody_asked_for_end_the_stream() {
    let mut session = session(true);
    session.begin(at(0));
    assert!(matches!(
        session.take(&[0xff], outside(), at(0)),
        Err(SessionError::Response { .. })
    ));
    let message = response(&session, Kind::Secret, "s1", &[], &[]);
    assert!(matches!(
        session.take(&message, outside(), at(0)),
        Err(SessionError::Type { .. })
    ));
}

#[test]
fn the_ledger_says_what_is_used_what_waits_and_what_was_refused() {
    for is_delta in [true, false] {
        let mut session = session(is_delta);
        tell_all(&mut session);
        session.settle(at(1));
        let key = |kind: Kind, name: &str| (kind, name.to_owned());
        let version = |nonce: &str, name: &str| match is_delta {
            true => format!("{nonce} of {name}"),
            false => nonce.to_owned(),
        };
        let stamp = |nonce: &str, name: &str, second| Stamp {
            version: version(nonce, name),
            at: at(second),
        };
        let whole = session.ledger();
        assert_eq!(whole.waiting, Snapshot::default());
        let used = |own: &Ledger, kind, name| own.entries[&key(kind, name)].used.clone();
        assert_eq!(
            used(&whole, Kind::Listener, "in"),
            Some(stamp("l1", "in", 0))
        );

        // Another cluster waits for its endpoints, and a change of the first is wrong.
        let mut wrong = cluster("cart", "2s");
        wrong["lb_policy"] = json!("CLUSTER_PROVIDED");
        tell(
            &mut session,
            Kind::Cluster,
            "c2",
            &[("cart", wrong), ("till", cluster("till", "1s"))],
            &[],
            at(2),
        );
        session.settle(at(2));
        let ledger = session.ledger();
        let cart = &ledger.entries[&key(Kind::Cluster, "cart")];
        assert_eq!(cart.used, Some(stamp("c1", "cart", 0)));
        let refusal = cart.refused.clone().expect("a refusal");
        assert_eq!(refusal.stamp, stamp("c2", "cart", 2));
        assert!(
            refusal
                .reason
                .starts_with(r#"clusters["cart"].lb_policy: "CLUSTER_PROVIDED" is not supported"#),
            "{refusal:?}"
        );
        let resource = refusal.resource.as_ref().expect("a cluster");
        assert_eq!(resource["lb_policy"], "CLUSTER_PROVIDED", "{resource}");
        assert_eq!(used(&ledger, Kind::Cluster, "till"), None);
        assert_eq!(ledger.waiting.clusters.keys().count(), 1);

        // A better one takes the place of the refusal.
        let both = [
            ("cart", cluster("cart", "3s")),
            ("till", cluster("till", "1s")),
        ];
        tell(&mut session, Kind::Cluster, "c3", &both, &[], at(3));
        session.settle(at(3));
        let better = &session.ledger().entries[&key(Kind::Cluster, "cart")];
        assert_eq!(better.used, Some(stamp("c3", "cart", 3)));
        assert_eq!(better.refused, None);
    }
}
