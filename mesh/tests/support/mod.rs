//! A control plane, for proxies of tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_mesh::authority::{Authority, Material};
use fairlead_mesh::compile::compile;
use fairlead_mesh::facts::Facts;
use fairlead_mesh::serve::{Names, Plane, Proxies, Review, ReviewError, serve};
use fairlead_xds::Shapes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const DOMAIN: &str = "cluster.local";
const MESH: &str = "spiffe://cluster.local/ns/fairlead-system/sa/fairlead-mesh";

/// Tokens that are the names of their service accounts.
pub struct Plain;

impl Review for Plain {
    fn review(&self, token: String) -> BoxFuture<'_, Result<(String, String), ReviewError>> {
        let account = token.split_once('/');
        let account = account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        Box::pin(async move { account.ok_or(ReviewError::Refused) })
    }
}

/// A control plane.
pub struct Control {
    pub address: SocketAddr,
    pub authority: watch::Sender<Option<Arc<Authority>>>,
    pub view: watch::Sender<Option<fairlead_xds::serve::View>>,
    pub proxies: Arc<Proxies>,
    pub material: Material,
    pub leaf_life: Duration,
    pub stop: CancellationToken,
}

impl Control {
    pub async fn start(leaf_life: Duration) -> Self {
        // Another test of this process may have chosen it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let material = Material::make(DOMAIN, time::OffsetDateTime::now_utc());
        let material = material.expect("an authority");
        let authority = Authority::of(&material).expect("an authority");
        let mut control = Self {
            address: ([127, 0, 0, 1], 0).into(),
            authority: watch::Sender::new(Some(Arc::new(authority))),
            view: watch::Sender::new(None),
            proxies: Arc::default(),
            material,
            leaf_life,
            stop: CancellationToken::new(),
        };
        control.tell(&Facts::default());
        control.serve().await;
        control
    }

    /// Serves, where it served before if it did.
    pub async fn serve(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("it is free");
        self.address = listener.local_addr().expect("it is bound");
        self.stop = CancellationToken::new();
        let plane = Plane {
            authority: self.authority.subscribe(),
            view: self.view.subscribe(),
            review: Arc::new(Plain),
            trust_domain: DOMAIN.to_owned(),
            leaf_life: self.leaf_life,
            proxies: Arc::clone(&self.proxies),
            stop: self.stop.clone(),
        };
        let names = Names {
            id: MESH.parse().expect("an id"),
            dns: vec!["fairlead-mesh.fairlead-system.svc".to_owned()],
        };
        tokio::spawn(serve(listener, names, plane));
    }

    /// Tells proxies of the cluster.
    pub fn tell(&self, facts: &Facts) {
        let roots = &self.material.root.certificate;
        let view = compile(facts, roots, &Shapes::default()).expect("it compiles");
        self.view.send_replace(Some(view));
    }

    /// The bootstrap of a proxy that reaches the control plane here.
    pub fn bootstrap(&self, id: &str, token: &str, address: &Value) -> Value {
        let tls = |certificates: Value| {
            json!({
                "name": "tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": {
                        "alpn_protocols": ["h2"],
                        "tls_certificate_sds_secret_configs": certificates,
                        "validation_context": {
                            "trusted_ca": {"inline_string": self.material.root.certificate},
                            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": MESH}}],
                        },
                    },
                },
            })
        };
        let cluster = |name: &str, certificates: Value| {
            json!({
                "name": name,
                "load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
                "transport_socket": tls(certificates),
            })
        };
        let ads = json!({"ads": {}});
        json!({
            "node": {"id": "cart-1.shop"},
            "bootstrap_extensions": [{
                "name": "identity",
                "typed_config": {
                    "@type": "type.googleapis.com/fairlead.mesh.v1.Identity",
                    "cluster": "authority",
                    "spiffe_id": id,
                    "token_file": token,
                },
            }],
            "dynamic_resources": {
                "lds_config": ads,
                "cds_config": ads,
                "ads_config": {"api_type": "DELTA_GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}]},
            },
            "static_resources": {"clusters": [
                cluster("authority", json!([])),
                cluster("control", json!([{"name": "identity"}])),
            ]},
        })
    }
}
