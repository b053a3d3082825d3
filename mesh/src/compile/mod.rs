//! Facts in, resources for proxies out. Pure: the same facts make the same resources in the same versions, whichever replica compiles them.
//!
//! Every proxy has the same view of services, which is made once; what the proxy of a pod listens with is its own where not
//! everybody may come in. A service's port is three clusters at the most, one for each way of speaking to it, that share their
//! endpoints: `/http1` and `/http2`, which between two proxies are both carried over HTTP/2, and `/tcp`. The name asked for in TLS
//! tells the other proxy which of them it is ([`names`]), so that it speaks the same to its application.
//!
//! Programs without a proxy that ask for services by name are told of them in their own way ([`programs`]).

mod authorization;
mod callers;
mod entry;
mod inbound;
mod kept;
pub mod names;
mod outbound;
mod policy;
mod programs;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, LazyLock, Mutex};

use fairlead_model::identity::SpiffeId;
use fairlead_model::tls::{ClientTls, Secret, SecretSource, TlsCommon, Trust, Version};
use fairlead_xds::serve::{Resource, Resources, View};
use fairlead_xds::{Kind, ShapeError, Shapes, write};

use self::authorization::Guards;
use self::entry::Entries;
use self::kept::Kept;
use self::outbound::Outbound;
use self::programs::Programs;
use crate::facts::{Facts, Key, Pod};
use crate::figures::Called;

/// What cannot be compiled is a mistake of this program.
#[derive(Debug, thiserror::Error)]
#[error("failed to encode {kind:?} {name:?}: {source}")]
pub struct CompileError {
    /// The kind of resource.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The cause.
    pub source: ShapeError,
}

/// The shapes of resources.
pub(crate) static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::default);

/// A resource, with its kind and its name.
type Single = (Kind, Arc<str>, Resource);

/// One of its JSON form.
fn single(kind: Kind, name: &str, value: &serde_json::Value) -> Result<Single, CompileError> {
    let resource = Resource::of(&SHAPES, kind, value).map_err(|source| CompileError {
        kind,
        name: name.to_owned(),
        source,
    })?;
    Ok((kind, name.into(), resource))
}

/// Resources as they are gathered.
#[derive(Default)]
struct Gathered(Resources);

impl Gathered {
    fn put(
        &mut self,
        kind: Kind,
        name: &str,
        value: &serde_json::Value,
    ) -> Result<(), CompileError> {
        let single = single(kind, name, value)?;
        self.extend([&single]);
        Ok(())
    }
}

impl<'a> Extend<&'a Single> for Gathered {
    fn extend<T: IntoIterator<Item = &'a Single>>(&mut self, all: T) {
        for (kind, name, resource) in all {
            self.0.put(*kind, Arc::clone(name), resource.clone());
        }
    }
}

/// What proxies are told.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The own roots, in PEM.
    roots: Arc<str>,
    /// What is the same for all.
    shared: Arc<Resources>,
    /// Where connections of pods go about which nobody says anything.
    usual: Arc<Resources>,
    /// Where those of other pods go.
    callers: BTreeMap<Key, Arc<Resources>>,
    /// What pods listen with into which everybody may come.
    open: Arc<Resources>,
    /// What other pods listen with.
    guarded: BTreeMap<Key, Arc<Resources>>,
    /// What it was made of.
    facts: Arc<Facts>,
    /// The service that those of them are of.
    served: BTreeMap<Key, Called>,
    /// What is told to programs that ask for services by name.
    programs: Arc<Programs>,
    /// The authorizations whose rules are only counted.
    counted: BTreeSet<Key>,
}

impl Compiled {
    /// What the proxy of a pod is told; nothing before the pod is known, as nobody knows whom it lets in.
    #[must_use]
    pub fn view(&self, pod: &Key, id: &SpiffeId) -> Option<View> {
        self.pod(pod, id)?;
        let own = self.guarded.get(pod).unwrap_or(&self.open);
        let layers = [own, self.outbound(Some(pod)), &self.shared].map(Arc::clone);
        Some(View::of(layers.to_vec()))
    }

    /// What a program is told that asks for services by name, at a time in seconds since 1970; and until when that is right.
    ///
    /// # Errors
    /// When something cannot be encoded, which is a mistake of this program.
    pub fn by_name(&self, id: &SpiffeId, now: u64) -> Result<(View, Option<u64>), CompileError> {
        let told = self.programs.told(id, now)?;
        Ok((told.view(&self.shared), told.until))
    }

    /// The own roots, in PEM.
    #[must_use]
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// A pod with a proxy, where it is who it has to be.
    #[must_use]
    pub fn pod(&self, pod: &Key, id: &SpiffeId) -> Option<&Arc<Pod>> {
        self.facts.pods.get(pod).filter(|own| own.id == *id)
    }

    /// Where connections of a pod go.
    fn outbound(&self, pod: Option<&Key>) -> &Arc<Resources> {
        let own = pod.and_then(|pod| self.callers.get(pod));
        own.unwrap_or(&self.usual)
    }

    /// The service that a cluster is of, and the route to it, where a pod was told of both; who tells of no route took the one of
    /// the cluster's name.
    #[must_use]
    pub fn called(&self, pod: Option<&Key>, route: &str, cluster: &str) -> Option<Called> {
        let told = self.outbound(pod);
        told.get(Kind::Cluster, cluster)?;
        let route = if route.is_empty() { cluster } else { route };
        told.get(Kind::Routes, route)?;
        let (namespace, service, port) = names::of_cluster(cluster)?;
        Some(Called {
            namespace: namespace.into(),
            service: service.into(),
            port,
            route: names::of_port(route).into(),
        })
    }

    /// The service that a pod with a proxy is of, as callers outside of the mesh reach it on a route.
    #[must_use]
    pub fn served(&self, pod: &Key, route: &str) -> Option<Called> {
        let route = names::OUTSIDE.into_iter().find(|own| *own == route)?;
        let own = self.served.get(pod)?.clone();
        Some(Called {
            route: route.into(),
            ..own
        })
    }

    /// Whether the rules of an authorization are only counted.
    #[must_use]
    pub fn counts(&self, authorization: &Key) -> bool {
        self.counted.contains(authorization)
    }

    /// The version of the bundle of whom to trust.
    #[must_use]
    pub fn trust(&self) -> Option<&Arc<str>> {
        let bundle = self.shared.get(Kind::Secret, names::BELIEVED);
        bundle.map(Resource::version)
    }
}

/// What many proxies are told alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// What all are.
    Shared,
    /// Where connections of pods go about which nobody says anything.
    Usual,
    /// Where those of a class of pods go.
    Class(callers::Told),
}

/// Makes what proxies are told, and keeps what nothing changed about.
#[derive(Debug, Default)]
pub struct Compiler {
    outbound: Outbound,
    /// The listeners of pods by their namespaces.
    inbound: Kept<Arc<str>, Guards, Arc<Resources>>,
    programs: Arc<Mutex<programs::Targets>>,
    layers: BTreeMap<Layer, Arc<Resources>>,
}

impl Compiler {
    /// Compiles all that proxies are told.
    ///
    /// # Errors
    /// When something cannot be encoded, which is a mistake of this program.
    pub fn compile(&mut self, facts: &Arc<Facts>, roots: &str) -> Result<Compiled, CompileError> {
        self.outbound.turn();
        self.inbound.turn();
        let before = mem::take(&mut self.layers);
        let mut keep = |layer: Layer, gathered: Gathered| {
            let resources = match before.get(&layer) {
                Some(before) => gathered.0.after(before),
                None => gathered.0,
            };
            let resources = Arc::new(resources);
            self.layers.insert(layer, Arc::clone(&resources));
            resources
        };
        let shared = keep(Layer::Shared, shared(facts, roots)?);
        let mut usual = Gathered::default();
        self.outbound.compile(facts, None, false, &mut usual)?;
        let usual = keep(Layer::Usual, usual);
        let mut callers = BTreeMap::new();
        for (told, (caller, pods)) in callers::classes(facts) {
            let mut own = Gathered::default();
            self.outbound
                .compile(facts, Some(caller), told.is_closed, &mut own)?;
            let own = keep(Layer::Class(told), own);
            callers.extend(pods.into_iter().map(|pod| (pod, Arc::clone(&own))));
        }
        let everybody = Guards::default();
        Ok(Compiled {
            roots: roots.into(),
            shared,
            usual,
            callers,
            open: self.inbound.made("".into(), everybody, inbound::listener)?,
            guarded: self.guarded(facts)?,
            facts: Arc::clone(facts),
            served: served(facts),
            programs: Arc::new(Programs::new(facts, &self.programs)),
            counted: facts.counted_authorizations().map(|(key, _)| key).collect(),
        })
    }

    /// What pods listen with into which not everybody may come.
    fn guarded(&mut self, facts: &Facts) -> Result<BTreeMap<Key, Arc<Resources>>, CompileError> {
        let entries = Entries::of(facts);
        // The pods of a workload let the same callers in.
        let mut known = BTreeMap::new();
        let mut guarded = BTreeMap::new();
        for (key, pod) in &facts.pods {
            if !authorization::are_about(facts, &entries, &key.0) {
                continue;
            }
            let alike = (&key.0, pod.made_by(&key.1), &pod.labels, &pod.probes);
            let resources = match known.get(&alike) {
                Some(resources) => Option::clone(resources),
                None => {
                    let guards = authorization::guards(facts, &entries, key, pod);
                    let namespace = Arc::clone(&key.0);
                    let made = guards
                        .map(|own| self.inbound.made(namespace, own, inbound::listener))
                        .transpose()?;
                    known.insert(alike, made.clone());
                    made
                }
            };
            guarded.extend(resources.map(|own| (key.clone(), own)));
        }
        Ok(guarded)
    }
}

/// What is the same for all.
fn shared(facts: &Facts, roots: &str) -> Result<Gathered, CompileError> {
    let mut shared = Gathered::default();
    let trust = Secret::Trust(Arc::new(believed(facts, roots)));
    let trust = write::secret(names::BELIEVED, &trust);
    shared.put(Kind::Secret, names::BELIEVED, &trust)?;
    inbound::clusters(&mut shared)?;
    Ok(shared)
}

/// Whom proxies believe: other meshes only for their own names.
fn believed(facts: &Facts, roots: &str) -> Trust {
    let roots = roots.as_bytes().to_vec();
    let own = facts.trust_domain.as_ref();
    let federation = facts.trust.iter().flat_map(|trust| &trust.spec.federation);
    // Nobody else speaks for the own names.
    let others = federation.filter(|other| other.trust_domain != own);
    let others = others.map(|other| (other.trust_domain.clone(), other.bundle.clone().into()));
    let mut domains: Vec<(String, Vec<u8>)> = others.collect();
    if domains.is_empty() {
        return Trust {
            roots,
            ..Trust::default()
        };
    }
    domains.push((own.to_owned(), roots));
    Trust {
        domains,
        ..Trust::default()
    }
}

/// The service of each pod with a proxy, with its port where it has one alone; of several the first that has an address.
fn served(facts: &Facts) -> BTreeMap<Key, Called> {
    let mut served: BTreeMap<Key, (bool, Called)> = BTreeMap::new();
    for (key, service) in &facts.services {
        let called = Called {
            namespace: Arc::clone(&key.0),
            service: Arc::clone(&key.1),
            port: match &*service.ports {
                [only] => only.number,
                _ => 0,
            },
            route: "".into(),
        };
        let is_reached = !service.addresses.is_empty();
        let slices = facts.slices.get(key).into_iter().flat_map(BTreeMap::values);
        let pods =
            slices.flat_map(|slice| slice.endpoints.iter().filter_map(|own| own.pod.as_ref()));
        for pod in pods.filter(|pod| facts.pods.contains_key(*pod)) {
            let known = served.get(pod);
            if known.is_none_or(|(before, _)| is_reached && !before) {
                served.insert(pod.clone(), (is_reached, called.clone()));
            }
        }
    }
    let all = served.into_iter();
    all.map(|(pod, (_, called))| (pod, called)).collect()
}

/// What both sides of mutual TLS settle.
fn mutual() -> TlsCommon {
    TlsCommon {
        certificates: vec![SecretSource::Named(names::IDENTITY.to_owned())],
        trust: Some(SecretSource::Named(names::BELIEVED.to_owned())),
        lowest: Version::V1_3,
        ..TlsCommon::default()
    }
}

/// TLS to endpoints with a proxy of the mesh, asked for by this name.
fn to_mesh(server_name: &str) -> ClientTls {
    ClientTls {
        common: mutual(),
        server_name: Some(server_name.to_owned()),
        follows_host: false,
    }
}

#[cfg(test)]
mod tests;
