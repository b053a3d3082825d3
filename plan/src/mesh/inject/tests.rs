use serde_json::{Value, json};

use super::*;

fn injection() -> Injection {
    Injection {
        system: "fairlead-system".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        image: "registry.example/fairlead-proxy:1".to_owned(),
        pull_policy: String::new(),
        capture: MeshCapture::InitContainer,
    }
}

/// As where the node's CNI plug-in captures.
fn injected_for_cni(pod: Value) -> Value {
    let injection = Injection {
        capture: MeshCapture::Cni,
        ..injection()
    };
    match inject(pod, "shop", &injection) {
        Ok(Outcome::Injected(pod)) => pod,
        other => panic!("{other:?}"),
    }
}

fn pod(annotations: Value, spec: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "annotations": annotations},
        "spec": spec,
    })
}

fn web() -> Value {
    json!({
        "serviceAccountName": "web",
        "initContainers": [{"name": "migrate", "image": "web"}],
        "containers": [{"name": "main", "image": "web", "ports": [{"containerPort": 8080}]}],
    })
}

fn injected(pod: Value) -> Value {
    match inject(pod, "shop", &injection()) {
        Ok(Outcome::Injected(pod)) => pod,
        other => panic!("{other:?}"),
    }
}

fn refused(pod: Value) -> Vec<String> {
    let wrong = inject(pod, "shop", &injection()).expect_err("it is wrong");
    wrong.iter().map(ToString::to_string).collect()
}

#[test]
fn a_pod_gets_its_proxy_before_anything_else_of_it() {
    let pod = injected(pod(json!({}), web()));
    insta::assert_snapshot!(serde_json::to_string_pretty(&pod).expect("plain data"));
}

#[test]
fn a_pod_whose_node_captures_needs_no_capability() {
    let annotations = json!({
        "mesh.fairlead.dev/skip-inbound-ports": "9000",
        "mesh.fairlead.dev/skip-outbound-ports": "25,8000-8100",
        "mesh.fairlead.dev/skip-outbound-networks": "10.9.0.0/16",
    });
    let once = injected_for_cni(pod(annotations, web()));
    insta::assert_snapshot!(serde_json::to_string_pretty(&once).expect("plain data"));
    assert_eq!(injected_for_cni(once.clone()), once, "twice");
    let other = injected(once);
    let annotations = &other["metadata"]["annotations"];
    assert!(annotations.get("mesh.fairlead.dev/capture").is_none());
}

#[test]
fn what_the_node_captures_is_said_by_the_webhook_alone() {
    let own = json!({"mesh.fairlead.dev/capture": "{\"outbound\":1,\"exempt\":[0]}"});
    let said = injected_for_cni(pod(own, web()));
    let plain = injected_for_cni(pod(json!({}), web()));
    assert_eq!(said, plain);
}

#[test]
fn a_pod_that_comes_twice_is_no_different() {
    let annotations = json!({"mesh.fairlead.dev/skip-outbound-ports": "25, 8000-8100"});
    let once = injected(pod(annotations, web()));
    assert_eq!(injected(once.clone()), once);
}

#[test]
fn what_is_not_known_of_a_pod_stays() {
    let mut spec = web();
    spec["initContainers"][0]["fromTheFuture"] = json!({"a": 1});
    let pod = injected(pod(json!({}), spec));
    assert_eq!(pod["spec"]["initContainers"][2]["fromTheFuture"]["a"], 1);
}

#[test]
fn annotations_are_followed() {
    let annotations = json!({
        "mesh.fairlead.dev/skip-inbound-ports": "9000",
        "mesh.fairlead.dev/skip-outbound-ports": "25,8000-8100",
        "mesh.fairlead.dev/skip-outbound-networks": "10.9.0.0/16,fd00::/8",
        "mesh.fairlead.dev/proxy-cpu-limit": "500m",
        "mesh.fairlead.dev/proxy-memory-request": "64Mi",
        "mesh.fairlead.dev/proxy-cores": "2",
        "mesh.fairlead.dev/proxy-log": "warn,fairlead_proxy::http=debug",
        "prometheus.io/scrape": "false",
        "example.com/other": "anything",
    });
    let pod = Pod::deserialize(injected(pod(annotations, web()))).expect("a pod");
    let init = pod
        .spec
        .expect("a spec")
        .init_containers
        .expect("they are there");
    let (capture, proxy) = (&init[0], &init[1]);
    let said = capture.args.clone().unwrap_or_default();
    assert_eq!(
        said[4..],
        [
            "--skip-inbound=15020,9000",
            "--skip-outbound=25,8000-8100",
            "--skip-network=10.9.0.0/16,fd00::/8"
        ]
    );
    let resources = serde_json::to_value(&proxy.resources).expect("plain data");
    assert_eq!(
        resources,
        json!({"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}})
    );
    assert_eq!(
        proxy.args.as_ref().map(|own| own[1].as_str()),
        Some("--cores=2")
    );
    let log = proxy
        .env
        .iter()
        .flatten()
        .find(|own| own.name == "RUST_LOG");
    assert_eq!(
        log.and_then(|own| own.value.as_deref()),
        Some("warn,fairlead_proxy::http=debug")
    );
    let annotations = pod.metadata.annotations.expect("they are there");
    assert_eq!(annotations["prometheus.io/scrape"], "false");
    assert!(!annotations.contains_key("prometheus.io/port"));
}

#[test]
fn annotations_that_say_nothing_are_refused_by_name() {
    for (name, value, why) in [
        (
            "skip-inbound-ports",
            "http",
            "found \"http\", and \"http\" is no port; such as 25 or 8000-8100 are allowed",
        ),
        (
            "skip-inbound-ports",
            "0",
            "found \"0\", and \"0\" is no port; such as 25 or 8000-8100 are allowed",
        ),
        (
            "skip-outbound-ports",
            "90-80",
            "found \"90-80\", and \"90-80\" ends before it begins",
        ),
        (
            "skip-outbound-networks",
            "10.0.0.0",
            "found \"10.0.0.0\", and \"10.0.0.0\" is no network; such as 10.0.0.0/8 or fd00::/8 are allowed",
        ),
        (
            "skip-outbound-networks",
            "10.0.0.0/33",
            "found \"10.0.0.0/33\", and \"10.0.0.0/33\" is no network; such as 10.0.0.0/8 or fd00::/8 are allowed",
        ),
        (
            "proxy-cpu-limit",
            "a lot",
            "found \"a lot\", and a quantity such as 100m or 64Mi is allowed",
        ),
        ("proxy-cores", "0", "found \"0\", and 1 to 64 are allowed"),
        (
            "proxy-log",
            "$(TOKEN)",
            "found \"$(TOKEN)\", and levels such as info or warn,fairlead_proxy::http=debug are allowed",
        ),
    ] {
        let name = format!("mesh.fairlead.dev/{name}");
        let said = refused(pod(json!({ name.clone(): value }), web()));
        assert_eq!(said, [format!("metadata.annotations[{name}]: {why}")]);
    }
    let said = refused(pod(json!({"mesh.fairlead.dev/skip-ports": "1"}), web()));
    assert!(
        said[0].contains(
            "this annotation is not known; there are mesh.fairlead.dev/skip-inbound-ports, "
        ),
        "{said:?}"
    );
}

#[test]
fn a_pod_that_would_get_around_its_proxy_is_refused() {
    let mut spec = web();
    spec["containers"][0]["securityContext"] = json!({"runAsUser": 2102});
    spec["containers"][0]["ports"] = json!([{"containerPort": 15001}]);
    spec["containers"][0]["name"] = json!("fairlead-proxy");
    spec["securityContext"] = json!({"runAsUser": 2102});
    assert_eq!(
        refused(pod(json!({}), spec)),
        [
            "spec.securityContext.runAsUser: found 2102, which only the proxy may be",
            "spec.containers[0].securityContext.runAsUser: found 2102, which only the proxy may be",
            "spec.containers[0].ports: found 15001, which the proxy listens on",
            "spec.containers[0].name: found fairlead-proxy, which is the name of the mesh's own",
        ]
    );
}

#[test]
fn pods_of_the_nodes_network_are_left_alone() {
    let mut spec = web();
    spec["hostNetwork"] = json!(true);
    let left = inject(pod(json!({}), spec), "shop", &injection()).expect("it is no mistake");
    let said = "spec.hostNetwork: the node's network cannot be brought to a proxy";
    assert_eq!(left, Outcome::Left(said.to_owned()));
}
