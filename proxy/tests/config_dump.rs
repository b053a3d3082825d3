//! What the proxy says of its configuration: of a file, and of what a control plane told.

#[path = "support/control.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod control;
#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;

use std::net::SocketAddr;
use std::time::Duration;

use control::Control;
use fairlead_xds::Kind;
use http::StatusCode;
use program::{Program, free};
use serde_json::{Value, json};

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";
const ADMIN: &str = "type.googleapis.com/envoy.admin.v3";

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn listener(name: &str, routes: Value) -> Value {
    let mut manager = json!({
        "@type": format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{EXTENSIONS}.filters.http.router.v3.Router")},
        }],
    });
    for (field, value) in routes.as_object().expect("fields") {
        manager[field] = value.clone();
    }
    json!({
        "name": name,
        "address": socket(free()),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

fn routes(name: &str, cluster: &str) -> Value {
    json!({"name": name, "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
    }]})
}

fn cluster(name: &str, to: SocketAddr) -> Value {
    json!({
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(to)}}]}],
        },
    })
}

fn file() -> Value {
    let names = ["certificate_chain", "private_key"];
    let certificate = rcgen::generate_simple_self_signed(["cart".to_owned()]).expect("one");
    let pem = [
        certificate.cert.pem(),
        certificate.signing_key.serialize_pem(),
    ];
    let own: serde_json::Map<String, Value> = names
        .into_iter()
        .zip(pem)
        .map(|(name, pem)| (name.to_owned(), json!({"inline_string": pem})))
        .collect();
    json!({
        "node": {"id": "cart-1", "cluster": "cart"},
        "admin": {"address": socket(free())},
        "static_resources": {
            "listeners": [listener("in", json!({"route_config": routes("fixed", "up")}))],
            "clusters": [cluster("up", free()), cluster("other", free())],
            "secrets": [{"name": "own", "tls_certificate": own}],
        },
    })
}

/// The section of a dump.
fn section<'a>(dump: &'a Value, name: &str) -> &'a Value {
    let kind = format!("{ADMIN}.{name}");
    let sections = dump["configs"].as_array().expect("sections");
    sections
        .iter()
        .find(|own| own["@type"] == kind)
        .unwrap_or_else(|| panic!("{name} is missing in {dump:#}"))
}

#[tokio::test]
async fn a_file_is_shown_without_its_keys() {
    let mut bootstrap = file();
    let proxy = Program::ours("dump-file", &bootstrap).await;
    let (_, text) = proxy.get("/config_dump").await.expect("an answer");
    assert!(
        text.contains("BEGIN CERTIFICATE") && !text.contains("PRIVATE KEY"),
        "{text}"
    );
    let dump = proxy.json("/config_dump").await;
    let kinds: Vec<&str> = dump["configs"]
        .as_array()
        .expect("sections")
        .iter()
        .filter_map(|own| own["@type"].as_str()?.rsplit('.').next())
        .collect();
    assert_eq!(
        kinds,
        [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "ListenersConfigDump",
            "ScopedRoutesConfigDump",
            "RoutesConfigDump",
            "SecretsConfigDump",
        ]
    );
    assert_eq!(
        section(&dump, "BootstrapConfigDump")["bootstrap"]["node"]["id"],
        "cart-1"
    );
    let secret = &section(&dump, "SecretsConfigDump")["static_secrets"][0];
    assert_eq!(
        secret["secret"]["tls_certificate"]["private_key"],
        json!({"inline_string": "[redacted]"})
    );
    let listener = &section(&dump, "ListenersConfigDump")["static_listeners"][0];
    assert_eq!(listener["listener"]["name"], "in");
    let updated = listener["last_updated"].as_str().expect("a time");
    assert!(
        updated.starts_with("20") && updated.ends_with('Z'),
        "{updated}"
    );
    let routes = &section(&dump, "RoutesConfigDump")["static_route_configs"][0];
    assert_eq!(routes["route_config"]["name"], "fixed");

    // A change of the file is a change here.
    bootstrap["static_resources"]["clusters"][0]["connect_timeout"] = json!("7s");
    proxy.write(&bootstrap);
    let path = "/config_dump?resource=static_clusters&name_regex=up&mask=cluster.connect_timeout";
    let wanted = json!({"configs": [{
        "@type": format!("{ADMIN}.ClustersConfigDump.StaticCluster"),
        "cluster": {"@type": Kind::Cluster.type_url(), "connect_timeout": "7s"},
    }]});
    until(&proxy, path, |own| *own == wanted).await;
}

#[tokio::test]
async fn parts_are_picked_as_envoy_does() {
    let proxy = Program::ours("dump-parts", &file()).await;
    let dump = proxy.json("/config_dump?include_eds").await;
    let endpoints = &section(&dump, "EndpointsConfigDump")["static_endpoint_configs"];
    assert_eq!(endpoints.as_array().map(Vec::len), Some(2));
    assert_eq!(endpoints[0]["endpoint_config"]["cluster_name"], "other");

    let empty = proxy
        .json("/config_dump?resource=dynamic_active_clusters")
        .await;
    assert_eq!(empty, json!({}));
    for (path, status, said) in [
        (
            "/config_dump?resource=nonsense",
            StatusCode::NOT_FOUND,
            "nonsense not found in config dump\n",
        ),
        (
            "/config_dump?resource=bootstrap",
            StatusCode::BAD_REQUEST,
            "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field\n",
        ),
    ] {
        assert_eq!(
            proxy.get(path).await,
            Some((status, said.to_owned())),
            "{path}"
        );
    }
    let (status, said) = proxy
        .get("/config_dump?name_regex=%28")
        .await
        .expect("an answer");
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        said.starts_with("INVALID_ARGUMENT: Error while parsing name_regex from (: "),
        "{said}"
    );
}

/// Waits until the admin interface says so.
async fn until(proxy: &Program, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..500 {
        let said = proxy.json(path).await;
        if is_so(&said) {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{path}: {:#}\n{}", proxy.json(path).await, proxy.log());
}

async fn told(protocol: &str) {
    let control = Control::default();
    let address = free();
    let server = control.serve(address, None).await;
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let eds = |name: &str| json!({"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": ads}});
    control.tell(Kind::Cluster, "cart", "c1", &eds("cart"));
    control.tell(
        Kind::Endpoints,
        "cart",
        "e1",
        &json!({"cluster_name": "cart", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(free())}}]}]}),
    );
    let rds = json!({"rds": {"route_config_name": "web", "config_source": ads}});
    control.tell(Kind::Listener, "in", "l1", &listener("in", rds));
    control.tell(Kind::Routes, "web", "r1", &routes("web", "cart"));
    let mut plane = cluster("control", address);
    plane["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    let bootstrap = json!({
        "node": {"id": "cart-1", "cluster": "cart"},
        "admin": {"address": socket(free())},
        "static_resources": {"clusters": [plane]},
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": protocol,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}],
            },
        },
    });
    let proxy = Program::ours(&format!("dump-{protocol}"), &bootstrap).await;

    let dump = proxy.json("/config_dump?include_eds").await;
    let version = |own: &str| match protocol {
        "DELTA_GRPC" => own.to_owned(),
        _ => "1".to_owned(),
    };
    let clusters = section(&dump, "ClustersConfigDump");
    assert_eq!(clusters["static_clusters"][0]["cluster"]["name"], "control");
    let active = &clusters["dynamic_active_clusters"];
    assert_eq!(active.as_array().map(Vec::len), Some(1), "{clusters:#}");
    assert_eq!(active[0]["cluster"]["name"], "cart");
    assert_eq!(active[0]["version_info"], version("c1"));
    let listener = &section(&dump, "ListenersConfigDump")["dynamic_listeners"][0];
    assert_eq!(listener["name"], "in");
    assert_eq!(listener["active_state"]["version_info"], version("l1"));
    let updated = listener["active_state"]["last_updated"]
        .as_str()
        .expect("a time");
    assert!(
        updated.starts_with("20") && updated.ends_with('Z'),
        "{updated}"
    );
    let routes = &section(&dump, "RoutesConfigDump")["dynamic_route_configs"][0];
    assert_eq!(routes["route_config"]["virtual_hosts"][0]["name"], "all");
    let endpoints = &section(&dump, "EndpointsConfigDump")["dynamic_endpoint_configs"][0];
    assert_eq!(endpoints["endpoint_config"]["cluster_name"], "cart");
    assert_eq!(endpoints["version_info"], version("e1"));

    // One that waits for its endpoints, and a change that is wrong.
    let mut wrong = eds("cart");
    wrong["lb_policy"] = json!("CLUSTER_PROVIDED");
    control.tell(Kind::Cluster, "cart", "c2", &wrong);
    control.tell(Kind::Cluster, "till", "t1", &eds("till"));
    let dump = until(
        &proxy,
        "/config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters",
        |own| {
            own["configs"][0].get("dynamic_warming_clusters").is_some()
                && own["configs"][0]["dynamic_active_clusters"][0]
                    .get("error_state")
                    .is_some()
        },
    )
    .await;
    let clusters = &dump["configs"][0];
    let active = &clusters["dynamic_active_clusters"][0];
    assert_eq!(active["version_info"], version("c1"));
    let details = active["error_state"]["details"].as_str().expect("a reason");
    assert!(
        details.starts_with(r#"clusters["cart"].lb_policy: "CLUSTER_PROVIDED" is not supported; "#),
        "{details}"
    );
    let failed = &active["error_state"]["failed_configuration"];
    assert_eq!(failed["@type"], Kind::Cluster.type_url());
    assert_eq!(failed["lb_policy"], "CLUSTER_PROVIDED", "{failed:#}");
    let warming = &clusters["dynamic_warming_clusters"];
    assert_eq!(warming[0]["cluster"]["name"], "till", "{warming:#}");

    // One whose name nobody looks up waits too, and the one before it goes on.
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let mut named = cluster("cart", free());
    named["type"] = json!("STRICT_DNS");
    let place =
        "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/address";
    *named.pointer_mut(place).expect("an address") = json!("cart.example");
    named["typed_dns_resolver_config"] = json!({
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": format!("{EXTENSIONS}.network.dns_resolver.cares.v3.CaresDnsResolverConfig"),
            "resolvers": [socket(silent.local_addr().expect("its address"))],
        },
    });
    control.tell(Kind::Cluster, "cart", "c3", &named);
    let path = "/config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters&name_regex=cart";
    let is_there = |own: &Value| !own["configs"][0]["dynamic_warming_clusters"].is_null();
    let dump = until(&proxy, path, is_there).await;
    let clusters = &dump["configs"][0];
    let (active, warming) = (
        &clusters["dynamic_active_clusters"][0],
        &clusters["dynamic_warming_clusters"][0],
    );
    assert_eq!(active["cluster"]["type"], "EDS", "{clusters:#}");
    assert_eq!(warming["cluster"]["type"], "STRICT_DNS", "{clusters:#}");
    if protocol == "DELTA_GRPC" {
        assert_eq!(warming["version_info"], "c3");
    }
    server.abort();
}

#[tokio::test]
async fn what_only_changed_is_told_with_its_versions() {
    told("DELTA_GRPC").await;
}

#[tokio::test]
async fn the_state_of_the_world_is_told_with_its_version() {
    told("GRPC").await;
}
