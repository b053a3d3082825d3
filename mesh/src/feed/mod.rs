//! Watches of the cluster, and the facts that they come to.
//!
//! Objects are kept with no more than traffic depends on. Facts are gathered anew when something changed, at most every
//! [`GATHER`]: a rollout changes hundreds of objects in a second, and proxies are told once.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::labels::PROXIED;
use fairlead_crds::mesh::{
    MeshAuthorization, MeshAuthorizationStatus, MeshPolicy, MeshPolicyStatus, MeshTrust,
};
use fairlead_operator::metrics::Metrics;
use fairlead_plan::Kind as _;
use fairlead_plan::mesh::{MeshPolicyKind, MeshTrustKind, spiffe};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus, Service};
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use kube::runtime::reflector::{Store, reflector, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::facts::{self, Facts, Key, Port, Probe, Readiness, Slice, Spoken};

/// The label by which a slice says of which service it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// What kubelet asks over gRPC.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(50);

/// The cluster as it is watched.
pub struct Feed {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    pods: Store<Pod>,
    policies: Store<MeshPolicy>,
    authorizations: Store<MeshAuthorization>,
    trusts: Store<MeshTrust>,
    changed: Arc<Notify>,
}

/// What a watch needs.
struct Watch {
    client: Client,
    metrics: Arc<Metrics>,
    changed: Arc<Notify>,
    stop: CancellationToken,
}

impl Watch {
    /// Watches a kind; `strip` leaves of each object what is needed.
    fn start<K>(&self, labels: Option<String>, strip: fn(&mut K)) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Hash + Eq + Clone + Default,
    {
        let mut config = watcher::Config::default().page_size(500);
        if let Some(labels) = &labels {
            config = config.labels(labels);
        }
        let api: Api<K> = Api::all(self.client.clone());
        let (reader, writer) = store();
        let stream = watcher(api, config).default_backoff().modify(strip);
        let stream = reflector(writer, stream);
        let (metrics, changed) = (Arc::clone(&self.metrics), Arc::clone(&self.changed));
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            loop {
                let next = tokio::select! {
                    next = stream.next() => next,
                    () = stop.cancelled() => return,
                };
                match next {
                    None => return,
                    Some(Ok(_)) => changed.notify_one(),
                    Some(Err(error)) => {
                        let kind = K::kind(&());
                        metrics.watch_error(&kind);
                        tracing::warn!(%kind, %error, "watch failed and is tried again");
                    }
                }
            }
        });
        reader
    }
}

impl Feed {
    /// Starts the watches; they end with `stop`.
    #[must_use]
    pub fn start(client: Client, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        let changed = Arc::new(Notify::new());
        let watch = Watch {
            client,
            metrics,
            changed: Arc::clone(&changed),
            stop,
        };
        Self {
            services: watch.start(None, |own: &mut Service| {
                strip(own);
                own.status = None;
            }),
            slices: watch.start(Some(SERVICE_NAME.to_owned()), |own: &mut EndpointSlice| {
                let name = own.labels().get(SERVICE_NAME).cloned();
                strip(own);
                let labels = name.map(|name| (SERVICE_NAME.to_owned(), name));
                own.metadata.labels = Some(labels.into_iter().collect());
            }),
            pods: watch.start(Some(PROXIED.to_owned()), |own: &mut Pod| {
                let labels = std::mem::take(own.labels_mut());
                strip(own);
                *own.labels_mut() = labels;
                own.status = own.status.take().map(standing);
                own.spec = own.spec.take().map(asked);
            }),
            authorizations: watch.start(None, |own: &mut MeshAuthorization| {
                strip(own);
                let noted = own.status.take().and_then(|status| status.last_hour);
                own.status = noted.map(|last_hour| MeshAuthorizationStatus {
                    last_hour: Some(last_hour),
                    ..MeshAuthorizationStatus::default()
                });
            }),
            policies: watch.start(None, |own: &mut MeshPolicy| {
                strip(own);
                let refusals = own.status.take().map(|status| status.refusals);
                own.status = refusals.map(|refusals| MeshPolicyStatus {
                    refusals,
                    ..MeshPolicyStatus::default()
                });
            }),
            trusts: watch.start(None, |own: &mut MeshTrust| {
                let name = own.metadata.name.take();
                own.metadata = ObjectMeta {
                    name,
                    ..ObjectMeta::default()
                };
                own.status = None;
            }),
            changed,
        }
    }

    /// Gathers facts for as long as it is polled, from when everything was read once.
    pub async fn follow(&self, trust_domain: &str, facts: watch::Sender<Option<Arc<Facts>>>) {
        let ready = async {
            self.services.wait_until_ready().await?;
            self.slices.wait_until_ready().await?;
            self.pods.wait_until_ready().await?;
            self.policies.wait_until_ready().await?;
            self.authorizations.wait_until_ready().await?;
            self.trusts.wait_until_ready().await
        };
        if ready.await.is_err() {
            // The watches ended, as the process does.
            return std::future::pending().await;
        }
        loop {
            let next = self.gather(trust_domain);
            facts.send_if_modified(|own| {
                let is_new = own.as_deref() != Some(&next);
                if is_new {
                    *own = Some(Arc::new(next));
                }
                is_new
            });
            self.changed.notified().await;
            tokio::time::sleep(GATHER).await;
        }
    }

    fn gather(&self, trust_domain: &str) -> Facts {
        let mut facts = Facts {
            trust_domain: trust_domain.into(),
            ..Facts::default()
        };
        let mut families = HashMap::new();
        for own in self.services.state() {
            if let Some(service) = service(&own) {
                families.extend(family(&own).map(|family| (key(&*own), family)));
                facts.services.insert(key(&*own), Arc::new(service));
            }
        }
        for own in self.slices.state() {
            let Some(name) = own.labels().get(SERVICE_NAME) else {
                continue;
            };
            let of: Key = (
                own.namespace().unwrap_or_default().into(),
                name.as_str().into(),
            );
            let wanted = families.get(&of);
            if wanted.is_some_and(|family| own.address_type != *family) {
                continue;
            }
            let slices = facts.slices.entry(of).or_default();
            slices.insert(own.name_any().into(), Arc::new(slice(&own)));
        }
        for own in self.pods.state().into_iter().filter(|own| !is_over(own)) {
            let account = own
                .spec
                .as_ref()
                .and_then(|spec| spec.service_account_name.clone())
                .unwrap_or_else(|| "default".to_owned());
            let namespace = own.namespace().unwrap_or_default();
            let id = spiffe(trust_domain, &namespace, &account).parse();
            if let Ok(id) = id {
                let pod = facts::Pod {
                    id,
                    labels: own.labels().clone(),
                    probes: own.spec.as_ref().map(probes).unwrap_or_default(),
                };
                facts.pods.insert(key(&*own), Arc::new(pod));
                if phase(&own) == Some("Running") {
                    facts.running.insert(key(&*own));
                }
                let places = addresses(&own).map(|address| (address, key(&*own)));
                facts.places.extend(places);
                if is_unheard(&own) {
                    facts.unheard.insert(key(&*own));
                }
            }
        }
        let policies = self.policies.state().into_iter();
        let valid = policies.filter(|own| MeshPolicyKind::validate(own).is_ok());
        facts.policies = by_namespace(valid);
        // None of these is left out for what it says: without one that allows, everybody might come in.
        facts.authorizations = by_namespace(self.authorizations.state());
        // There is one at most: others are refused by its rules.
        let mut trusts = self.trusts.state().into_iter();
        facts.trust = trusts.find(|own| MeshTrustKind::validate(own).is_ok());
        facts
    }
}

/// Objects by their namespaces, in the order of their names.
fn by_namespace<K: ResourceExt>(
    all: impl IntoIterator<Item = Arc<K>>,
) -> BTreeMap<Arc<str>, Vec<Arc<K>>> {
    let mut found: BTreeMap<Arc<str>, Vec<Arc<K>>> = BTreeMap::new();
    for own in all {
        let namespace = own.namespace().unwrap_or_default();
        found.entry(namespace.into()).or_default().push(own);
    }
    for own in found.values_mut() {
        own.sort_by_key(|object| object.name_any());
    }
    found
}

/// How far a pod is.
fn phase(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref();
    status.and_then(|status| status.phase.as_deref())
}

/// Whether a pod has ended, and its proxy with it.
fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

/// The addresses of a pod, which nobody else has; one that ends may have given them back.
fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let is_on_its_own = |own: &&PodStatus| {
        let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network);
        on_host != Some(true) && pod.metadata.deletion_timestamp.is_none() && own.pod_ips.is_some()
    };
    let status = pod.status.as_ref().filter(is_on_its_own);
    let all = status.into_iter().flat_map(|own| own.pod_ips.iter());
    all.flatten().filter_map(|own| own.ip.parse().ok())
}

/// Whether a pod would be ready if its node were heard of. Kubelet calls a pod ready whose containers are and whose gates are open;
/// while a node is silent, the node controller takes that word back from its pods, and leaves the others.
fn is_unheard(pod: &Pod) -> bool {
    let is = |kind: &str, status: &str| {
        let conditions = pod.status.iter().flat_map(|own| own.conditions.iter());
        let mut own = conditions.flatten().filter(|own| own.type_ == kind);
        own.any(|own| own.status == status)
    };
    let gates = pod.spec.iter().flat_map(|own| own.readiness_gates.iter());
    is("Ready", "False")
        && is("ContainersReady", "True")
        && gates.flatten().all(|own| is(&own.condition_type, "True"))
}

/// Leaves of a pod's status how far it is, where, and which of its conditions are so.
fn standing(status: PodStatus) -> PodStatus {
    let said = |own: PodCondition| PodCondition {
        type_: own.type_,
        status: own.status,
        ..PodCondition::default()
    };
    let conditions = status.conditions;
    PodStatus {
        phase: status.phase,
        pod_ips: status.pod_ips,
        conditions: conditions.map(|all| all.into_iter().map(said).collect()),
        ..PodStatus::default()
    }
}

/// Leaves of a pod's spec who it is, where, what kubelet asks it, and what else says whether it is ready.
fn asked(spec: PodSpec) -> PodSpec {
    let probed = |own: Container| Container {
        ports: own.ports,
        liveness_probe: own.liveness_probe,
        readiness_probe: own.readiness_probe,
        startup_probe: own.startup_probe,
        ..Container::default()
    };
    PodSpec {
        service_account_name: spec.service_account_name,
        readiness_gates: spec.readiness_gates,
        host_network: spec.host_network,
        containers: spec.containers.into_iter().map(probed).collect(),
        init_containers: spec
            .init_containers
            .map(|all| all.into_iter().map(probed).collect()),
        ..PodSpec::default()
    }
}

/// What kubelet asks over HTTP.
fn probes(spec: &PodSpec) -> Vec<Probe> {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut found = Vec::new();
    for container in containers {
        let all = [
            &container.liveness_probe,
            &container.readiness_probe,
            &container.startup_probe,
        ];
        for own in all.into_iter().flatten() {
            let http = own.http_get.as_ref().and_then(|http| {
                let path = http.path.as_deref().unwrap_or("/");
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                Some(Probe {
                    port: number(&http.port, container)?,
                    method: "GET",
                    path: path.to_owned(),
                })
            });
            let grpc = own.grpc.as_ref().and_then(|grpc| {
                Some(Probe {
                    port: u16::try_from(grpc.port).ok()?,
                    method: "POST",
                    path: HEALTH.to_owned(),
                })
            });
            found.extend(http.into_iter().chain(grpc));
        }
    }
    found.dedup();
    found
}

/// A port of a container, by its number or its name.
fn number(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            ports
                .find(|own| own.name.as_ref() == Some(name))?
                .container_port
        }
    };
    u16::try_from(number).ok()
}

fn key<K: ResourceExt>(object: &K) -> Key {
    (
        object.namespace().unwrap_or_default().into(),
        object.name_any().into(),
    )
}

/// Leaves of an object's metadata what tells it from others.
fn strip<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.annotations_mut().clear();
    object.labels_mut().clear();
}

/// A service with endpoints in the cluster.
fn service(own: &Service) -> Option<facts::Service> {
    let spec = own.spec.as_ref()?;
    let all = spec.cluster_ips.iter().flatten();
    let addresses: std::collections::BTreeSet<IpAddr> =
        all.filter_map(|address| address.parse().ok()).collect();
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let ports = spec.ports.iter().flatten();
    let ports = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
    let ports = ports.filter_map(|port| {
        let number = u16::try_from(port.port).ok()?;
        let name = port.name.as_deref().unwrap_or_default();
        Some(Port {
            number,
            name: name.into(),
            spoken: Spoken::of(port.app_protocol.as_deref(), name, number),
        })
    });
    Some(facts::Service {
        addresses,
        ports: ports.collect(),
        selector: spec.selector.clone().unwrap_or_default(),
    })
}

/// The family of a service's first address, by which its endpoints are reached however callers come: each of its pods would be
/// there twice otherwise. Nothing where callers look endpoints up themselves, as they have that of either family.
fn family(own: &Service) -> Option<&'static str> {
    let all = own.spec.as_ref()?.cluster_ips.as_ref()?;
    let first: IpAddr = all.first()?.parse().ok()?;
    Some(match first {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    })
}

fn slice(own: &EndpointSlice) -> Slice {
    let ports = own.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port?).ok()?;
        Some((port.name.as_deref().unwrap_or_default().into(), number))
    });
    let namespace: Arc<str> = own.namespace().unwrap_or_default().into();
    let endpoints = own.endpoints.iter().flatten().flat_map(|endpoint| {
        let readiness = readiness(endpoint.conditions.as_ref());
        let zone: Arc<str> = endpoint.zone.as_deref().unwrap_or_default().into();
        let pod = endpoint
            .target_ref
            .as_ref()
            .filter(|own| own.kind.as_deref() == Some("Pod"));
        let pod = pod
            .and_then(|own| own.name.as_deref())
            .map(|name| (Arc::clone(&namespace), name.into()));
        let addresses = endpoint.addresses.iter();
        addresses.filter_map(move |address| {
            Some(facts::Endpoint {
                address: address.parse().ok()?,
                readiness,
                zone: Arc::clone(&zone),
                pod: pod.clone(),
            })
        })
    });
    Slice {
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    }
}

fn readiness(said: Option<&EndpointConditions>) -> Readiness {
    let is = |word: Option<bool>| word.unwrap_or_default();
    match said {
        Some(own) if own.ready == Some(false) => match is(own.terminating) && is(own.serving) {
            true => Readiness::Ending,
            false => Readiness::Not,
        },
        _ => Readiness::Ready,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_outside_of_the_cluster_is_left_out() {
        let read = |spec| {
            let own = json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": spec});
            service(&serde_json::from_value(own).expect("a service"))
        };
        let ports = json!([
            {"name": "http", "port": 80, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]);
        let own = read(json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ports": ports}));
        let own = own.expect("it has addresses");
        assert_eq!(own.addresses.len(), 2);
        assert_eq!(own.ports.len(), 1);
        assert_eq!(
            (own.ports[0].number, own.ports[0].spoken),
            (80, Spoken::Http)
        );
        let headless = read(json!({"clusterIPs": ["None"], "ports": ports}));
        assert!(headless.expect("it has endpoints").addresses.is_empty());
        assert_eq!(
            read(json!({"type": "ExternalName", "externalName": "shop.example"})),
            None
        );
    }

    #[test]
    fn endpoints_are_of_the_family_of_the_first_address() {
        let of = |addresses: serde_json::Value| {
            let own = json!({"metadata": {"name": "cart"}, "spec": {"clusterIPs": addresses}});
            family(&serde_json::from_value(own).expect("a service"))
        };
        assert_eq!(of(json!(["10.0.0.1", "fd00::1"])), Some("IPv4"));
        assert_eq!(of(json!(["fd00::1", "10.0.0.1"])), Some("IPv6"));
        assert_eq!(of(json!(["None"])), None);
    }

    #[test]
    fn endpoints_are_those_of_slices() {
        let own = json!({
            "metadata": {"name": "cart-1", "namespace": "shop"},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.1.0.1"], "conditions": {"ready": true}, "zone": "a",
                 "targetRef": {"kind": "Pod", "name": "cart-x", "namespace": "shop"}},
                {"addresses": ["10.1.0.2"], "conditions": {"ready": false, "serving": false}},
                {"addresses": ["10.1.0.3"],
                 "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.1.0.4"],
                 "conditions": {"ready": false, "serving": false, "terminating": true}},
            ],
        });
        let read = slice(&serde_json::from_value(own).expect("a slice"));
        assert_eq!(read.ports, [("http".into(), 8080)]);
        assert_eq!(
            read.endpoints[0].pod,
            Some(("shop".into(), "cart-x".into()))
        );
        let all: Vec<Readiness> = read.endpoints.iter().map(|own| own.readiness).collect();
        assert_eq!(
            all,
            [
                Readiness::Ready,
                Readiness::Not,
                Readiness::Ending,
                Readiness::Not
            ]
        );
        assert_eq!(&*read.endpoints[0].zone, "a");
    }

    #[test]
    fn a_pod_is_unheard_where_all_but_its_node_says_that_it_is_ready() {
        let is = |ready: &str, containers: &str, gate: Option<&str>| {
            let mut conditions = vec![
                json!({"type": "Ready", "status": ready}),
                json!({"type": "ContainersReady", "status": containers}),
            ];
            conditions.extend(gate.map(|status| json!({"type": "shop/warm", "status": status})));
            let own = json!({
                "metadata": {"name": "cart-x"},
                "spec": {"containers": [], "readinessGates": [{"conditionType": "shop/warm"}]},
                "status": {"conditions": conditions},
            });
            is_unheard(&serde_json::from_value(own).expect("a pod"))
        };
        assert!(is("False", "True", Some("True")));
        assert!(!is("True", "True", Some("True")));
        assert!(!is("False", "False", Some("True")));
        assert!(!is("False", "True", Some("False")));
        assert!(!is("False", "True", None));
    }

    #[test]
    fn a_pod_has_its_addresses_until_it_ends_and_none_of_its_node() {
        let of = |metadata: serde_json::Value, is_on_host: bool| {
            let own = json!({
                "metadata": metadata,
                "spec": {"containers": [], "hostNetwork": is_on_host},
                "status": {"podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd01::1"}]},
            });
            let own: Pod = serde_json::from_value(own).expect("a pod");
            addresses(&own).count()
        };
        assert_eq!(of(json!({"name": "cart-x"}), false), 2);
        assert_eq!(of(json!({"name": "cart-x"}), true), 0);
        let ends = json!({"name": "cart-x", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(of(ends, false), 0);
    }
}
