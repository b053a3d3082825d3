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
pub mod names;
mod outbound;
mod policy;
mod programs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairlead_model::identity::SpiffeId;
use fairlead_model::tls::{ClientTls, Secret, SecretSource, TlsCommon, Trust, Version};
use fairlead_xds::serve::{Resource, Resources, View};
use fairlead_xds::{Kind, ShapeError, Shapes, write};

use self::authorization::Guards;
use self::entry::Entries;
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

/// Resources as they are gathered.
struct Gathered<'a> {
    shapes: &'a Shapes,
    resources: Resources,
}

impl Gathered<'_> {
    fn put(
        &mut self,
        kind: Kind,
        name: &str,
        value: &serde_json::Value,
    ) -> Result<(), CompileError> {
        let resource = Resource::of(self.shapes, kind, value).map_err(|source| CompileError {
            kind,
            name: name.to_owned(),
            source,
        })?;
        self.resources.put(kind, name, resource);
        Ok(())
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
    /// All pods with a proxy.
    pods: BTreeMap<Key, Arc<Pod>>,
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
        self.pods.get(pod).filter(|own| own.id == *id)
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
        let bundle = self.shared.get(Kind::Secret, names::TRUST);
        bundle.map(Resource::version)
    }
}

/// Compiles all that proxies are told.
///
/// # Errors
/// When something cannot be encoded, which is a mistake of this program.
pub fn compile(facts: &Arc<Facts>, roots: &str, shapes: &Shapes) -> Result<Compiled, CompileError> {
    let gathered = || Gathered {
        shapes,
        resources: Resources::default(),
    };
    let mut shared = gathered();
    let trust = Secret::Trust(Arc::new(believed(facts, roots)));
    shared.put(
        Kind::Secret,
        names::TRUST,
        &write::secret(names::TRUST, &trust),
    )?;
    inbound::clusters(&mut shared)?;
    let mut usual = gathered();
    outbound::compile(facts, None, false, &mut usual)?;
    let mut callers = BTreeMap::new();
    for (class, pods) in callers::classes(facts) {
        let mut own = gathered();
        outbound::compile(facts, Some(class.caller), class.is_closed, &mut own)?;
        let own = Arc::new(own.resources);
        callers.extend(pods.into_iter().map(|pod| (pod, Arc::clone(&own))));
    }
    let mut open = gathered();
    inbound::listener(&mut open, &Guards::default())?;
    let entries = Entries::of(facts);
    let mut guarded = BTreeMap::new();
    // The pods of a workload let the same callers in.
    let mut made: Vec<(Guards, Arc<Resources>)> = Vec::new();
    for (key, pod) in &facts.pods {
        let Some(guards) = authorization::guards(facts, &entries, key, pod) else {
            continue;
        };
        let found = made.iter().find(|(other, _)| *other == guards);
        let resources = match found {
            Some((_, resources)) => Arc::clone(resources),
            None => {
                let mut own = gathered();
                inbound::listener(&mut own, &guards)?;
                let resources = Arc::new(own.resources);
                made.push((guards, Arc::clone(&resources)));
                resources
            }
        };
        guarded.insert(key.clone(), resources);
    }
    Ok(Compiled {
        roots: roots.into(),
        shared: Arc::new(shared.resources),
        usual: Arc::new(usual.resources),
        callers,
        open: Arc::new(open.resources),
        guarded,
        pods: facts.pods.clone(),
        served: served(facts),
        programs: Arc::new(Programs::new(facts, shapes)),
        counted: facts.counted_authorizations().collect(),
    })
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
        trust: Some(SecretSource::Named(names::TRUST.to_owned())),
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
