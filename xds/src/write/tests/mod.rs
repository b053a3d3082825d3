//! What was written is read again, and is the same.

mod clusters;
mod filters;
mod listeners;
mod observed;
mod routes;
mod services;
mod tls;
mod tokens;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fairlead_model::balance::{Balancing, PeakEwma, Policy, SlowStart};
use fairlead_model::breaker::{BreakerSettings, RateSettings};
use fairlead_model::budget::RetryBudget;
use fairlead_model::class::{Class, ClassRule, Classes};
use fairlead_model::cluster::{
    Address, AddressFamily, AnswerHead, CheckAt, Checked, Cluster, Discovery, Endpoint, Endpoints,
    Health, HealthCheck, Locality, NameLookup, Original, Probe, ProxyVersion, SocketMatch,
    UpstreamProtocol,
};
use fairlead_model::egress::{Egress, NameCache};
use fairlead_model::format::Format;
use fairlead_model::hedge::{Hedge, HedgeAfter};
use fairlead_model::limits::Limits;
use fairlead_model::listener::{
    ByServerName, Chain, ChainMatch, Codec, Detect, Handler, Http, HttpTimeouts, Listener, Routes,
    ServerHeader, Tcp, Transport, Tunnel, Udp,
};
use fairlead_model::retry::{RetryOn, RetryPolicy};
use fairlead_model::route::{
    Action, Affinity, AffinityBy, CookieMade, Forward, HeaderChange, HeaderChanges, HeaderMatch,
    HeaderTest, HostRewrite, Mirror, OnPresent, PathMatch, PathRewrite, QueryMatch, QueryTest,
    Redirect, Route, RouteMatch, RouteTable, TableChanges, Timeouts, VirtualHost, WeightedCluster,
};
use fairlead_model::tls::{
    Certificate, ClientTls, NameKind, NameMatch, Secret, SecretSource, ServerTls, TlsCommon, Trust,
    Version,
};
use fairlead_model::{Pattern, Snapshot, TextMatch};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use serde_json::{Value, json};

use super::tls::REDACTED;
use super::{cluster, listener, secret, secret_with_key};
use crate::{Kind, Shapes, resource};
use clusters::cluster_of;
use listeners::{listener_of, of_datagrams};
use routes::table;
use tls::{certificate, trust};

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,12}"
}

fn time() -> impl Strategy<Value = Duration> {
    (1u64..100_000).prop_map(Duration::from_millis)
}

fn regex() -> impl Strategy<Value = Pattern> {
    select(vec!["/a.*", "[0-9]+", "(x|y)"])
        .prop_map(|source| Pattern::parse(source).expect("a pattern"))
}

fn text() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        (name(), any::<bool>())
            .prop_map(|(text, ignore_case)| TextMatch::Exact { text, ignore_case }),
        (name(), any::<bool>())
            .prop_map(|(text, ignore_case)| TextMatch::Prefix { text, ignore_case }),
        (name(), any::<bool>())
            .prop_map(|(text, ignore_case)| TextMatch::Suffix { text, ignore_case }),
        (name(), any::<bool>())
            .prop_map(|(text, ignore_case)| TextMatch::Contains { text, ignore_case }),
        regex().prop_map(TextMatch::Regex),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..20)
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        4 => socket().prop_map(Address::Socket),
        1 => name().prop_map(|name| Address::Path(format!("/run/{name}").into())),
    ]
}

fn labels() -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::btree_map(name(), name(), 0..3).prop_map(|map| map.into_iter().collect())
}

fn endpoints(
    address: impl Strategy<Value = Address> + Clone + 'static,
) -> impl Strategy<Value = Endpoints> {
    let health = select(vec![Health::Healthy, Health::Degraded, Health::Unhealthy]);
    let endpoint = (
        address,
        prop_oneof![Just(String::new()), name()],
        1u32..1000,
        health,
        (labels(), labels()),
        (
            of(1u16..),
            prop_oneof![Just(String::new()), name()],
            any::<bool>(),
        ),
    )
        .prop_map(
            |(address, hostname, weight, health, (labels, socket_labels), (port, at, is_off))| {
                Endpoint {
                    address,
                    hostname,
                    weight,
                    health,
                    labels,
                    socket_labels,
                    check: CheckAt {
                        port,
                        hostname: at,
                        is_off,
                    },
                    checked: Checked::Not,
                }
            },
        );
    let locality = (name(), name(), 0u32..3, of(1u32..100), vec(endpoint, 0..4)).prop_map(
        |(region, zone, priority, weight, endpoints)| Locality {
            region,
            zone,
            sub_zone: String::new(),
            priority,
            weight,
            endpoints,
        },
    );
    (vec(locality, 0..3), 100u32..200).prop_map(|(localities, overprovisioning)| Endpoints {
        localities,
        overprovisioning,
    })
}

/// The descriptors, decoded once for all cases.
static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::default);

/// Reads what was written, once more as bytes.
fn read_again(kind: Kind, value: &Value) -> Result<Snapshot, TestCaseError> {
    let failed = |error: &dyn std::fmt::Display| TestCaseError::fail(format!("{error}\n{value:#}"));
    let bytes = SHAPES
        .bytes(kind.message(), value)
        .map_err(|error| failed(&error))?;
    resource::decode(&SHAPES, kind, None, &bytes, &|_| Ok(Vec::new()))
        .map(|named| named.alone)
        .map_err(|(_, error)| failed(&error))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_cluster_comes_back(own in cluster_of()) {
        let read = read_again(Kind::Cluster, &cluster(&own))?;
        prop_assert_eq!(read.clusters.values().next().map(|own| &**own), Some(&own));
    }

    #[test]
    fn endpoints_come_back(own in endpoints(address().boxed()), name in name()) {
        let read = read_again(Kind::Endpoints, &super::endpoints(&name, &own))?;
        prop_assert_eq!(read.endpoints.get(&name).map(|own| &**own), Some(&own));
    }

    #[test]
    fn routes_come_back(own in table()) {
        let read = read_again(Kind::Routes, &super::routes(&own))?;
        prop_assert_eq!(read.routes.values().next().map(|own| &**own), Some(&own));
    }

    #[test]
    fn a_listener_comes_back(own in prop_oneof![4 => listener_of(), 1 => of_datagrams()]) {
        let read = read_again(Kind::Listener, &listener(&own))?;
        prop_assert_eq!(read.listeners.values().next().map(|own| &**own), Some(&own));
    }

    #[test]
    fn a_secret_comes_back(own in prop_oneof![certificate(bytes().boxed()), trust()], name in name()) {
        let read = read_again(Kind::Secret, &secret_with_key(&name, &own))?;
        prop_assert_eq!(read.secrets.get(&name), Some(&own));
    }
}

#[test]
fn policies_by_hash_say_on_their_own_that_localities_share() -> Result<(), TestCaseError> {
    for policy in [
        Policy::RingHash {
            least: 1,
            most: 2000,
        },
        Policy::Maglev { size: 7 },
        Policy::Random,
        Policy::PeakEwma(PeakEwma::default()),
    ] {
        let mut own = Cluster::of("a", Endpoints::default());
        own.balancing.policy = policy;
        own.balancing.weighted_localities = true;
        let read = read_again(Kind::Cluster, &cluster(&own))?;
        assert_eq!(read.clusters.values().next().map(|own| &**own), Some(&own));
    }
    Ok(())
}

#[test]
fn a_server_header_comes_back() -> Result<(), TestCaseError> {
    for server in [
        ServerHeader::Pass,
        ServerHeader::IfAbsent("a".to_owned()),
        ServerHeader::Overwrite("a".to_owned()),
    ] {
        let http = Http {
            server,
            ..Http::routed("a", Routes::Named("a".to_owned()))
        };
        let own = listeners::plain(Handler::Http(Arc::new(http)));
        let read = read_again(Kind::Listener, &listener(&own))?;
        assert_eq!(read.listeners.values().next().map(|own| &**own), Some(&own));
    }
    Ok(())
}

#[test]
fn an_operator_sees_no_key() {
    let own = Secret::Certificate(Arc::new(Certificate {
        chain: b"chain".to_vec(),
        key: b"the key".to_vec(),
    }));
    assert_eq!(
        secret("a", &own),
        json!({
            "name": "a",
            "tls_certificate": {
                "certificate_chain": {"inline_string": "chain"},
                "private_key": {"inline_string": "[redacted]"},
            },
        })
    );
    let mut cluster = Cluster::of("a", Endpoints::default());
    cluster.tls = Some(ClientTls {
        common: TlsCommon {
            certificates: vec![SecretSource::Inline(own)],
            ..TlsCommon::default()
        },
        server_name: None,
        follows_host: false,
    });
    let shown = super::cluster(&cluster).to_string();
    assert!(shown.contains("[redacted]") && !shown.contains("the key"));
}

#[test]
fn a_bootstrap_comes_back() {
    let text = r#"
node: {id: cart-1, cluster: cart, metadata: {namespace: shop}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
stats_config: {histogram_bucket_settings: [{match: {prefix: ""}, buckets: [1, 2.5]}]}
static_resources:
  clusters:
  - name: control
    load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /run/control}}}}]}]}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: {validation_context: {trusted_ca: {inline_string: roots}}}
  secrets:
  - {name: roots, validation_context: {trusted_ca: {inline_string: roots}}}
stats_flush_interval: 1s
stats_sinks:
- name: envoy.stat_sinks.metrics_service
  typed_config:
    "@type": type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig
    grpc_service: {envoy_grpc: {cluster_name: control}, initial_metadata: [{key: token, value: secret}]}
    report_counters_as_deltas: true
    emit_tags_as_labels: true
bootstrap_extensions:
- name: identity
  typed_config:
    "@type": type.googleapis.com/fairlead.mesh.v1.Identity
    cluster: control
    spiffe_id: spiffe://cluster.local/ns/shop/sa/cart
    token_file: /var/run/token
    trust_secret_name: roots
dynamic_resources:
  cds_config: {ads: {}}
  lds_config: {ads: {}}
  ads_config:
    api_type: DELTA_GRPC
    grpc_services: [{envoy_grpc: {cluster_name: control}, initial_metadata: [{key: token, value: secret}]}]
"#;
    let read = |text: &str| {
        crate::bootstrap(text, &|_| Ok(Vec::new())).unwrap_or_else(|error| panic!("{error}"))
    };
    let mut own = read(text);
    let shown = super::bootstrap(&own).to_string();
    assert!(!shown.contains("secret\""), "{shown}");
    if let Some(dynamic) = &mut own.dynamic {
        dynamic.metadata[0].1 = "[redacted]".to_owned();
    }
    if let Some(sinks) = &mut own.sinks {
        sinks.all[0].metadata[0].1 = "[redacted]".to_owned();
    }
    assert_eq!(read(&shown), own);
}
