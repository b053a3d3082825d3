//! What the mesh knows of the cluster: as much of services, endpoints, pods and namespaces as traffic depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fairlead_crds::mesh::{MeshAuthorization, MeshPolicy, MeshTrust, TargetKind};
use fairlead_model::identity::SpiffeId;
use fairlead_plan::mesh::{made_by, workload};
use kube::ResourceExt;

/// A namespace and a name.
pub type Key = (Arc<str>, Arc<str>);

/// What the mesh knows of the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The trust domain.
    pub trust_domain: Arc<str>,
    /// Services that have endpoints in the cluster.
    pub services: BTreeMap<Key, Arc<Service>>,
    /// The slices of each service, by their name.
    pub slices: BTreeMap<Key, BTreeMap<Arc<str>, Arc<Slice>>>,
    /// Pods with a proxy of the mesh.
    pub pods: BTreeMap<Key, Arc<Pod>>,
    /// Those of them that run, whose proxies are to be connected.
    pub running: BTreeSet<Key>,
    /// Those that would be ready if their nodes were heard of.
    pub unheard: BTreeSet<Key>,
    /// The pods with a proxy, by their addresses.
    pub places: BTreeMap<IpAddr, Key>,
    /// The policies of each namespace, those that say what can be.
    pub policies: BTreeMap<Arc<str>, Vec<Arc<MeshPolicy>>>,
    /// Who may reach services, in the same way.
    pub authorizations: BTreeMap<Arc<str>, Vec<Arc<MeshAuthorization>>>,
    /// Whom the mesh is to believe.
    pub trust: Option<Arc<MeshTrust>>,
}

impl Facts {
    /// The authorizations whose rules are only counted.
    pub fn counted_authorizations(&self) -> impl Iterator<Item = (Key, &MeshAuthorization)> {
        let all = self.authorizations.iter();
        let all = all.flat_map(|(namespace, all)| all.iter().map(move |own| (namespace, own)));
        let counted = all.filter(|(_, own)| own.spec.is_counted());
        counted.map(|(namespace, own)| {
            let key = (Arc::clone(namespace), own.name_any().into());
            (key, &**own)
        })
    }

    /// The endpoints of a service's port.
    pub fn endpoints<'a>(
        &'a self,
        service: &Key,
        port: &'a Port,
    ) -> impl Iterator<Item = (&'a Endpoint, SocketAddr)> {
        let slices = self.slices.get(service).into_iter();
        let slices = slices.flat_map(BTreeMap::values);
        slices.flat_map(|slice| {
            let numbers = slice.ports.iter().filter(|(name, _)| *name == port.name);
            numbers.flat_map(|(_, number)| {
                let all = slice.endpoints.iter();
                all.map(|own| (own, (own.address, *number).into()))
            })
        })
    }

    /// Those of them that callers choose among: the ready ones; and where there are none, those that serve until they end, as
    /// kube-proxy has it, and those that only their silent nodes keep from being ready.
    #[must_use]
    pub fn callable<'a>(
        &'a self,
        service: &Key,
        port: &'a Port,
    ) -> Vec<(&'a Endpoint, SocketAddr)> {
        let ready = self.endpoints(service, port);
        let ready: Vec<_> = ready
            .filter(|(own, _)| own.readiness == Readiness::Ready)
            .collect();
        if !ready.is_empty() {
            return ready;
        }
        let is_unheard = |own: &Endpoint| {
            let pod = own.pod.as_ref();
            pod.is_some_and(|pod| self.unheard.contains(pod))
        };
        let all = self.endpoints(service, port);
        all.filter(|(own, _)| own.readiness == Readiness::Ending || is_unheard(own))
            .collect()
    }

    /// The services of a namespace by name.
    pub fn services_of<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Service>)> {
        let first: Key = (namespace.into(), "".into());
        let all = self.services.range(first..);
        let own = all.take_while(move |((of, _), _)| **of == *namespace);
        own.map(|((_, name), service)| (&**name, service))
    }
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its addresses, of either family; none where callers look its endpoints up themselves (`clusterIP: None`).
    pub addresses: BTreeSet<IpAddr>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// The labels of its pods; nothing where somebody else says which they are.
    pub selector: BTreeMap<String, String>,
}

impl Service {
    /// Whether a pod with these labels is one of its.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut wanted = self.selector.iter();
        !self.selector.is_empty() && wanted.all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The number.
    pub number: u16,
    /// The name; empty where it has none.
    pub name: Arc<str>,
    /// What is spoken.
    pub spoken: Spoken,
}

/// What is spoken on a port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP, of whichever version the caller speaks.
    Http,
    /// HTTP/2 alone, as gRPC does.
    Http2,
    /// Bytes.
    Tcp,
    /// Whatever the first bytes of a connection say.
    Detected,
}

impl Spoken {
    /// What `appProtocol` or else the beginning of a port's name says (KEP-1422 and Istio's names), else what is usual for its number.
    #[must_use]
    pub fn of(app_protocol: Option<&str>, name: &str, number: u16) -> Self {
        let said = app_protocol.map_or_else(
            || name.split('-').next().unwrap_or_default().to_owned(),
            str::to_ascii_lowercase,
        );
        match said.as_str() {
            "http" | "http1" | "ws" | "kubernetes.io/ws" => Self::Http,
            "http2" | "grpc" | "h2c" | "kubernetes.io/h2c" => Self::Http2,
            "tcp" | "tls" | "https" | "wss" | "kubernetes.io/wss" | "mongo" | "mysql"
            | "postgres" | "postgresql" | "redis" | "kafka" | "amqp" => Self::Tcp,
            _ if fairlead_model::listener::SERVER_FIRST_PORTS.contains(&number) => Self::Tcp,
            _ => Self::Detected,
        }
    }
}

/// A slice of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Its ports: the name, and the number.
    pub ports: Vec<(Arc<str>, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether it takes new requests.
    pub readiness: Readiness,
    /// The zone it is in; empty where nobody says.
    pub zone: Arc<str>,
    /// The pod.
    pub pod: Option<Key>,
}

/// Whether an endpoint takes new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It ends, and takes them for as long as it goes on.
    Ending,
    /// It does not, or nobody knows.
    Not,
}

/// A pod with a proxy of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Who it is.
    pub id: SpiffeId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What kubelet asks it over HTTP.
    pub probes: Vec<Probe>,
}

impl Pod {
    /// The Deployment, StatefulSet or DaemonSet that made the pod called `name`, as its labels say; nothing where none of them did.
    #[must_use]
    pub fn made_by<'a>(&'a self, name: &'a str) -> Option<(TargetKind, &'a str)> {
        made_by(&self.labels, name)
    }

    /// The name of the workload that made the pod called `name`; the pod's own where nothing did.
    #[must_use]
    pub fn workload<'a>(&'a self, name: &'a str) -> &'a str {
        workload(&self.labels, name)
    }
}

/// What kubelet asks a pod over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// The port.
    pub port: u16,
    /// The method.
    pub method: &'static str,
    /// The path, without its query.
    pub path: String,
}
