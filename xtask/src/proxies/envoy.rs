//! A hop as Envoy's static bootstrap. Our own proxy is given the same file: JSON is YAML as well.

use std::net::SocketAddrV4;
use std::path::Path;

use serde_json::{Value, json};

use super::certificates::Leaf;
use super::hop::{Carries, Guard, Hop};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// The whole bootstrap. Without `balancing` (an `lb_policy`) it is the proxy's own default.
pub(crate) fn bootstrap(hop: &Hop, folder: &Path, balancing: Option<&str>) -> Value {
    json!({
        "node": {"id": hop.name, "cluster": "bench"},
        "admin": {"address": address(SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, hop.admin))},
        "static_resources": {
            "listeners": [listener(hop, folder)],
            "clusters": [cluster(hop, folder, balancing)],
        },
    })
}

/// The HTTP connection manager of a hop's bootstrap.
pub(crate) fn manager(bootstrap: &mut Value) -> &mut Value {
    let listener = &mut bootstrap["static_resources"]["listeners"][0];
    &mut listener["filter_chains"][0]["filters"][0]["typed_config"]
}

/// Its routes.
pub(crate) fn routes(bootstrap: &mut Value) -> &mut Vec<Value> {
    manager(bootstrap)["route_config"]["virtual_hosts"][0]["routes"]
        .as_array_mut()
        .expect("the bootstrap of a hop that carries HTTP has routes")
}

fn listener(hop: &Hop, folder: &Path) -> Value {
    let mut chain = json!({"filters": [match hop.carries {
        Carries::Http => connections_of_http("AUTO"),
        Carries::Http2 => connections_of_http("HTTP2"),
        Carries::Tcp => json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "tcp",
                "cluster": "upstream",
            },
        }),
    }]});
    let protocols: &[&str] = match hop.carries {
        Carries::Http => &["h2", "http/1.1"],
        Carries::Http2 => &["h2"],
        Carries::Tcp => &[],
    };
    let kind = "DownstreamTlsContext";
    match hop.front {
        Guard::Open => {}
        Guard::Tls(own) => {
            chain["transport_socket"] = socket(kind, tls(Some(own), None, protocols, folder));
        }
        Guard::Mutual(own, peer) => {
            let mut context = tls(Some(own), Some(peer), protocols, folder);
            context["require_client_certificate"] = json!(true);
            chain["transport_socket"] = socket(kind, context);
        }
    }
    json!({"name": "listener", "address": address(hop.listen), "filter_chains": [chain]})
}

fn connections_of_http(codec: &str) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "http",
            "codec_type": codec,
            // Nobody else makes ids.
            "generate_request_id": false,
            "route_config": {
                "name": "routes",
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{
                        "match": {"prefix": "/"},
                        "route": {"cluster": "upstream", "timeout": "0s"},
                    }],
                }],
            },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")},
            }],
        },
    })
}

fn cluster(hop: &Hop, folder: &Path, balancing: Option<&str>) -> Value {
    let endpoints: Vec<Value> = hop
        .upstreams
        .iter()
        .map(|upstream| json!({"endpoint": {"address": address(*upstream)}}))
        .collect();
    let mut cluster = json!({
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": endpoints}],
        },
    });
    if let Some(policy) = balancing {
        cluster["lb_policy"] = json!(policy);
    }
    if hop.carries.is_http() {
        let protocol = if hop.http2 {
            "http2_protocol_options"
        } else {
            "http_protocol_options"
        };
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {protocol: {}},
            },
        });
    }
    let protocols: &[&str] = if hop.http2 { &["h2"] } else { &[] };
    let kind = "UpstreamTlsContext";
    match hop.back {
        Guard::Open => {}
        Guard::Tls(peer) => {
            cluster["transport_socket"] = socket(kind, tls(None, Some(peer), protocols, folder));
        }
        Guard::Mutual(own, peer) => {
            cluster["transport_socket"] =
                socket(kind, tls(Some(own), Some(peer), protocols, folder));
        }
    }
    cluster
}

fn socket(kind: &str, mut context: Value) -> Value {
    context["@type"] = json!(format!("{TYPES}.transport_sockets.tls.v3.{kind}"));
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn tls(own: Option<Leaf>, peer: Option<Leaf>, protocols: &[&str], folder: &Path) -> Value {
    let mut common = json!({"tls_params": {
        "tls_minimum_protocol_version": "TLSv1_3",
        "tls_maximum_protocol_version": "TLSv1_3",
    }});
    if !protocols.is_empty() {
        common["alpn_protocols"] = json!(protocols);
    }
    if let Some(own) = own {
        common["tls_certificates"] = json!([{
            "certificate_chain": {"filename": own.certificate(folder)},
            "private_key": {"filename": own.key(folder)},
        }]);
    }
    if let Some(peer) = peer {
        common["validation_context"] = json!({
            "trusted_ca": {"filename": super::certificates::authority(folder)},
            "match_typed_subject_alt_names": [{
                "san_type": "URI",
                "matcher": {"exact": peer.identity()},
            }],
        });
    }
    json!({"common_tls_context": common})
}

fn address(address: SocketAddrV4) -> Value {
    json!({"socket_address": {
        "address": address.ip().to_string(),
        "port_value": address.port(),
    }})
}
