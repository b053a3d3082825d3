//! Watches of the cluster, and the facts that they come to.
//!
//! Objects are kept with no more than traffic depends on. Facts are gathered anew when something changed, at most every
//! [`GATHER`]: a rollout changes hundreds of objects in a second, and proxies are told once.

mod pod;

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
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
use kube::api::ObjectMeta;
use kube::runtime::reflector::{Store, reflector, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::facts::{self, Facts, Key, Port, Readiness, Slice, Spoken};

/// The label by which a slice says of which service it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
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
                own.status = own.status.take().map(pod::standing);
                own.spec = own.spec.take().map(pod::asked);
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
        let pods = self.pods.state().into_iter();
        for own in pods.filter(|own| !pod::is_over(own)) {
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
                    probes: own.spec.as_ref().map(pod::probes).unwrap_or_default(),
                };
                facts.pods.insert(key(&*own), Arc::new(pod));
                if pod::phase(&own) == Some("Running") {
                    facts.running.insert(key(&*own));
                }
                let places = pod::addresses(&own).map(|address| (address, key(&*own)));
                facts.places.extend(places);
                if pod::is_unheard(&own) {
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
}
