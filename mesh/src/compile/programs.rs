//! Programs that send their requests to endpoints themselves, as gRPC does with `xds:///service.namespace:port`: one listener for
//! each name of a service, with the routes in it, and a cluster.
//!
//! They are told what they ask for by name, so nothing is made before somebody asks: once for all of whom policies say the same.
//! They speak plain text to endpoints, as whoever is outside of the mesh; a name that ends with [`SECURED`] stands for the
//! endpoints that have a proxy, over mutual TLS.
//!
//! What they are not told: what their own language has no word for (hedging, budgets of retries, classes, mirrors), and faults
//! after their end, which no program looks at itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairlead_crds::mesh::{AnswerClass, Behaviour, RetryCondition};
use fairlead_model::cluster::{Cluster, Discovery, Endpoints, UpstreamProtocol};
use fairlead_model::filter::{Filter, HttpFilter, Injection};
use fairlead_model::identity::SpiffeId;
use fairlead_model::listener::{Http, Routes};
use fairlead_model::retry::{RetryOn, RetryPolicy};
use fairlead_model::route::Forward;
use fairlead_plan::mesh::Caller;
use fairlead_xds::serve::{Resources, View};
use fairlead_xds::{Kind, write};
use serde_json::{Value, json};

use super::inbound::table;
use super::kept::Kept;
use super::names::{self, PROVIDER, SECURED};
use super::outbound::{self, CONNECT, Found};
use super::{CompileError, Gathered, Single, callers, policy, single};
use crate::facts::{Facts, Key, Port, Spoken};

/// The name of a port that is meant where no number is given.
const GRPC: &str = "grpc";
/// gRPC's statuses that may be tried again (gRFC A44), of those an answer without one counts as UNAVAILABLE.
const UNAVAILABLE: u8 = 14;
const INTERNAL: u8 = 13;
const RETRIABLE: [u8; 5] = [1, 4, 8, INTERNAL, UNAVAILABLE];
const TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// What was made of ports of services.
pub(super) type Targets = Kept<Key, Target, Arc<Vec<Single>>>;

/// What programs are told, made when it is asked for.
#[derive(Debug)]
pub(super) struct Programs {
    facts: Arc<Facts>,
    targets: Arc<Mutex<Targets>>,
    /// By which policies name the caller.
    made: Mutex<BTreeMap<Vec<bool>, Told>>,
}

/// What programs are told, and until when that is right, in seconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// What they are told.
    pub(super) resources: Arc<Resources>,
    /// When something of it ends.
    pub(super) until: Option<u64>,
}

impl Told {
    /// What programs see, with what is the same for all.
    pub(super) fn view(&self, shared: &Arc<Resources>) -> View {
        View::of(vec![Arc::clone(&self.resources), Arc::clone(shared)])
    }
}

impl Programs {
    pub(super) fn new(facts: &Arc<Facts>, targets: &Arc<Mutex<Targets>>) -> Self {
        locked(targets).turn();
        Self {
            facts: Arc::clone(facts),
            targets: Arc::clone(targets),
            made: Mutex::default(),
        }
    }

    /// What a program of this identity is told at a time, in seconds since 1970.
    pub(super) fn told(&self, id: &SpiffeId, now: u64) -> Result<Told, CompileError> {
        let workload = id.workload();
        let caller = workload.map(|(namespace, account)| Caller { namespace, account });
        let naming = callers::naming(&self.facts);
        let named = caller.map(|caller| callers::named(&naming, caller));
        // Who is named by none is as everybody else.
        let named = named.filter(|own| own.contains(&true)).unwrap_or_default();
        let mut made = locked(&self.made);
        let found = made.get(&named);
        if let Some(told) = found.filter(|own| own.until.is_none_or(|until| now < until)) {
            return Ok(told.clone());
        }
        let caller = caller.filter(|_| !named.is_empty());
        let told = compile(&self.facts, caller, now, &mut locked(&self.targets))?;
        made.insert(named, told.clone());
        Ok(told)
    }
}

fn locked<T>(own: &Mutex<T>) -> MutexGuard<'_, T> {
    own.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a caller is told.
fn compile(
    facts: &Facts,
    caller: Option<Caller<'_>>,
    now: u64,
    targets: &mut Targets,
) -> Result<Told, CompileError> {
    let mut gathered = Gathered::default();
    let mut until: Option<u64> = None;
    for (key, service) in &facts.services {
        let mut said = policy::of(facts, key, caller);
        match policy::fault_end(&said) {
            Some(end) if now < end => until = Some(until.map_or(end, |other| other.min(end))),
            _ => said.fault = None,
        }
        let usual = usual(&service.ports);
        let spoken = service.ports.iter().filter(|port| is_spoken(port));
        for port in spoken {
            let target = Target {
                port: port.number,
                is_usual: usual == Some(port.number),
                said: said.clone(),
                found: outbound::endpoints(facts, key, port),
            };
            let made = targets.made(key.clone(), target, |own| own.compile(key).map(Arc::new))?;
            gathered.extend(made.iter());
        }
    }
    Ok(Told {
        resources: Arc::new(gathered.0),
        until,
    })
}

/// Whether HTTP/2 may be spoken on a port.
fn is_spoken(port: &Port) -> bool {
    port.spoken != Spoken::Tcp
}

/// The port that is meant where none is given: the one alone, or that of this name.
fn usual(ports: &[Port]) -> Option<u16> {
    let is_grpc = |port: &&Port| {
        let rest = port.name.strip_prefix(GRPC);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    match ports {
        [only] => Some(only.number),
        all => all.iter().find(is_grpc).map(|port| port.number),
    }
}

/// A port of a service, as programs reach it.
#[derive(Debug, PartialEq)]
pub(super) struct Target {
    port: u16,
    /// Whether it is meant where no port is given.
    is_usual: bool,
    /// What policies say of the service.
    said: Behaviour,
    found: Found,
}

impl Target {
    /// What it needs, as a port of this service.
    fn compile(&self, (namespace, service): &Key) -> Result<Vec<Single>, CompileError> {
        let mut made = Vec::new();
        let mut put = |kind, name: &str, value: &Value| {
            made.push(single(kind, name, value)?);
            Ok(())
        };
        let own = names::port(namespace, service, self.port);
        for secured in [false, true] {
            if secured && self.found.ids.is_empty() {
                continue;
            }
            let (name, suffix) = match secured {
                false => (format!("{own}/program"), ""),
                true => (format!("{own}/secured"), SECURED),
            };
            let cluster = cluster(&name, &self.said, &self.found, secured);
            put(Kind::Cluster, &name, &cluster)?;
            let endpoints = match secured {
                false => write::endpoints(&name, &self.found.endpoints),
                true => write::endpoints(&name, &meshed(&self.found.endpoints)),
            };
            put(Kind::Endpoints, &name, &endpoints)?;
            let http = http(&name, &self.said);
            let named = format!("{service}.{namespace}{suffix}");
            let with_port = format!("{named}:{}", self.port);
            for name in [Some(with_port), self.is_usual.then_some(named)]
                .into_iter()
                .flatten()
            {
                put(Kind::Listener, &name, &write::api_listener(&name, &http))?;
            }
        }
        Ok(made)
    }
}

/// Those that have a proxy.
fn meshed(all: &Endpoints) -> Endpoints {
    let mut own = all.clone();
    for locality in &mut own.localities {
        locality
            .endpoints
            .retain(|endpoint| !endpoint.socket_labels.is_empty());
        locality.weight = u32::try_from(locality.endpoints.len()).ok();
    }
    own.localities
        .retain(|locality| !locality.endpoints.is_empty());
    own
}

fn http(cluster: &str, said: &Behaviour) -> Http {
    let mut forward = Forward::to(cluster);
    // A call's whole time is all there is.
    forward.timeouts.stream = policy::whole(said);
    forward.retry = retries(said);
    let routes = Routes::Inline(Arc::new(table(cluster, forward)));
    Http {
        filters: policy::fault(said).map(unbounded).into_iter().collect(),
        ..Http::routed(cluster, routes)
    }
}

/// In Envoy's words, which have no end of it.
fn unbounded(own: HttpFilter) -> HttpFilter {
    let Filter::Injection(injection) = &own.filter else {
        return own;
    };
    let injection = Injection {
        until: None,
        ..Injection::clone(injection)
    };
    HttpFilter {
        filter: Filter::Injection(Arc::new(injection)),
        ..own
    }
}

/// What is tried again once it was sent; what was not begun is by itself (gRFC A6).
fn retries(said: &Behaviour) -> Option<RetryPolicy> {
    let own = said.retries.as_ref();
    let retries = policy::attempts(own);
    let mut statuses: Vec<u8> = Vec::new();
    for condition in own
        .and_then(|own| own.retry_on.as_ref())
        .into_iter()
        .flatten()
    {
        match condition {
            RetryCondition::ConnectFailure | RetryCondition::RefusedStream => {}
            RetryCondition::GatewayError | RetryCondition::Reset => statuses.push(UNAVAILABLE),
            RetryCondition::ServerError => statuses.extend([INTERNAL, UNAVAILABLE]),
        }
    }
    let classes = said.response_classes.iter().flatten();
    let retryable = classes.filter(|own| own.class == AnswerClass::Retryable);
    statuses.extend(retryable.flat_map(|own| &own.grpc_statuses));
    statuses.retain(|status| RETRIABLE.contains(status));
    statuses.sort_unstable();
    statuses.dedup();
    (retries > 0 && !statuses.is_empty()).then(|| RetryPolicy {
        on: RetryOn {
            grpc: statuses,
            ..RetryOn::default()
        },
        retries,
        safe_only: false,
        budget: None,
        ..RetryPolicy::default()
    })
}

fn cluster(name: &str, said: &Behaviour, found: &Found, secured: bool) -> Value {
    let mut cluster = Cluster {
        discovery: Discovery::Eds(name.to_owned()),
        protocol: UpstreamProtocol::Http2,
        connect_timeout: CONNECT,
        ..Cluster::of(name, Endpoints::default())
    };
    policy::cluster(said, &mut cluster);
    // Failures in a row are nothing that gRPC looks at, and what it would look at instead nobody asked for.
    cluster.breaker = None;
    let mut value = write::cluster(&cluster);
    if secured {
        value["transport_socket"] = mutual(&found.ids);
    }
    value
}

/// TLS to one of these, with the certificate of the program (gRFC A29).
fn mutual(ids: &[String]) -> Value {
    let provider = json!({"instance_name": PROVIDER});
    let names: Vec<Value> = ids.iter().map(|id| json!({"exact": id})).collect();
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": TLS,
        "common_tls_context": {
            "tls_certificate_provider_instance": provider,
            "validation_context": {
                "ca_certificate_provider_instance": provider,
                "match_subject_alt_names": names,
            },
        },
    }})
}
