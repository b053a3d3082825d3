//! A control plane, for proxies of tests.
#![allow(dead_code, reason = "every test uses a part")]

pub mod caller;
pub mod place;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_mesh::authority::{Authority, Material, Slots};
use fairlead_mesh::compile::{Compiled, Compiler};
use fairlead_mesh::facts::{Facts, Pod};
use fairlead_mesh::figures::Figures;
use fairlead_mesh::serve::{
    Account, Given, Holder, Misuse, Names, Plane, Proxies, Replicas, Review, ReviewError, Turns,
    serve,
};
use fairlead_plan::mesh::{Bootstrap, bootstrap, spiffe};
use futures::future::BoxFuture;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub const DOMAIN: &str = "cluster.local";
pub const SYSTEM: &str = "fairlead-system";
pub const MESH: &str = "spiffe://cluster.local/ns/fairlead-system/sa/fairlead-mesh";

/// Tokens that are the names of their service accounts, and of their pods where those have others; `shop/cart/` has none.
pub struct Plain;

impl Review for Plain {
    fn review(
        &self,
        token: String,
        audience: &'static str,
    ) -> BoxFuture<'_, Result<Holder, ReviewError>> {
        let mut words = token.splitn(3, '/').map(str::to_owned);
        let account = words.next().zip(words.next());
        let holder = account.map(|(namespace, name)| {
            let pod = words.next().unwrap_or_else(|| name.clone());
            let uid = pod.clone();
            Holder {
                pod: (!pod.is_empty()).then_some(Given { name: pod, uid }),
                account: (namespace, name),
            }
        });
        Box::pin(async move { holder.ok_or(ReviewError::Refused { audience }) })
    }

    /// Everybody may see its own namespace, and the installation's accounts all of them.
    fn may_see<'a>(
        &'a self,
        (own, _): &'a Account,
        namespace: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        let may = own == SYSTEM || Some(own.as_str()) == namespace;
        Box::pin(async move { Ok(may) })
    }
}

/// A root that lives for a day.
pub fn root() -> Material {
    let made = Material::make(DOMAIN, time::Duration::DAY, OffsetDateTime::now_utc());
    made.expect("a root")
}

/// A control plane.
pub struct Control {
    pub address: SocketAddr,
    pub authority: watch::Sender<Option<Arc<Authority>>>,
    pub compiled: watch::Sender<Option<Arc<Compiled>>>,
    pub facts: watch::Sender<Option<Arc<Facts>>>,
    pub proxies: Arc<Proxies>,
    pub figures: Arc<Figures>,
    pub slots: Slots,
    pub leaf_life: Duration,
    /// Those that were told of.
    pub misuses: mpsc::Receiver<Misuse>,
    misused: mpsc::Sender<Misuse>,
    pub stop: CancellationToken,
    compiler: Mutex<Compiler>,
}

impl Control {
    pub async fn start(leaf_life: Duration) -> Self {
        // Another test of this process may have chosen it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let slots = Slots::first(root(), OffsetDateTime::now_utc());
        Self::with(slots, leaf_life).await
    }

    /// One that signs as others do.
    pub async fn with(slots: Slots, leaf_life: Duration) -> Self {
        let authority = Authority::of(&slots).expect("an authority");
        let (misused, misuses) = mpsc::channel(8);
        let mut control = Self {
            address: ([127, 0, 0, 1], 0).into(),
            authority: watch::Sender::new(Some(Arc::new(authority))),
            compiled: watch::Sender::new(None),
            facts: watch::Sender::new(None),
            proxies: Arc::default(),
            figures: Arc::default(),
            slots,
            leaf_life,
            misuses,
            misused,
            stop: CancellationToken::new(),
            compiler: Mutex::default(),
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
        let names = Names {
            id: MESH.parse().expect("an id"),
            dns: vec![
                "fairlead-mesh.fairlead-system.svc".to_owned(),
                "localhost".to_owned(),
            ],
        };
        let plane = Plane {
            authority: self.authority.subscribe(),
            compiled: self.compiled.subscribe(),
            facts: self.facts.subscribe(),
            replicas: Replicas {
                authority: self.authority.subscribe(),
                compiled: self.compiled.subscribe(),
                proxies: Arc::clone(&self.proxies),
                names: names.clone(),
                namespace: SYSTEM.to_owned(),
            },
            review: Arc::new(Plain),
            trust_domain: DOMAIN.to_owned(),
            leaf_life: self.leaf_life,
            proxies: Arc::clone(&self.proxies),
            figures: Arc::clone(&self.figures),
            metrics: Arc::default(),
            misuses: self.misused.clone(),
            turns: Turns::default(),
            stop: self.stop.clone(),
        };
        tokio::spawn(serve(listener, names, plane));
    }

    /// Serves again where it served, once that is free.
    pub async fn serve_again(&mut self) {
        let until_free = async {
            while TcpListener::bind(self.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let free = tokio::time::timeout(Duration::from_secs(20), until_free).await;
        free.expect("it ends in time");
        self.serve().await;
    }

    /// Tells proxies of the cluster, in which the pods cart-1 and web-1 of the shop are.
    pub fn tell(&self, facts: &Facts) -> Arc<Compiled> {
        let roots = &self.slots.bundle();
        let mut facts = facts.clone();
        facts.trust_domain = DOMAIN.into();
        for account in ["cart", "web"] {
            let id = spiffe(DOMAIN, "shop", account).parse().expect("an id");
            let pod = facts
                .pods
                .entry(("shop".into(), format!("{account}-1").into()));
            pod.or_insert_with(|| {
                Arc::new(Pod {
                    id,
                    labels: BTreeMap::new(),
                    probes: Vec::new(),
                })
            });
        }
        let facts = Arc::new(facts);
        let mut compiler = self.compiler.lock().expect("nobody panicked");
        let compiled = compiler.compile(&facts, roots).expect("it compiles");
        let compiled = Arc::new(compiled);
        self.compiled.send_replace(Some(Arc::clone(&compiled)));
        self.facts.send_replace(Some(facts));
        compiled
    }

    /// The bootstrap of a pod's proxy that reaches the control plane here; what it is given lies in `folder`.
    pub fn bootstrap(
        &self,
        (namespace, account): (&str, &str),
        folder: &Path,
        control: Value,
    ) -> Value {
        let file = |name: &str, text: &str| {
            let path = folder.join(format!("{account}.{name}"));
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        bootstrap(&Bootstrap {
            trust_domain: DOMAIN,
            system: "fairlead-system",
            namespace,
            account,
            pod: &format!("{account}-1"),
            control,
            token: &file("token", &format!("{namespace}/{account}")),
            roots: &file("pem", &self.slots.bundle()),
            admin: &folder
                .join(format!("{account}.admin"))
                .display()
                .to_string(),
        })
    }
}
