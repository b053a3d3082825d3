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
use std::sync::{Arc, Mutex, PoisonError};

use fairlead_crds::mesh::{AnswerClass, Behaviour, RetryCondition};
use fairlead_model::cluster::{Cluster, Discovery, Endpoints, UpstreamProtocol};
use fairlead_model::filter::{Filter, HttpFilter, Injection};
use fairlead_model::identity::SpiffeId;
use fairlead_model::listener::{Http, Routes};
use fairlead_model::retry::{RetryOn, RetryPolicy};
use fairlead_model::route::Forward;
use fairlead_plan::mesh::Caller;
use fairlead_xds::serve::{Resources, View};
use fairlead_xds::{Kind, Shapes, write};
use serde_json::{Value, json};

use super::inbound::table;
use super::names::{self, PROVIDER, SECURED};
use super::outbound::{self, CONNECT, Found};
use super::{CompileError, Gathered, callers, policy};
use crate::facts::{Facts, Key, Port, Spoken};

/// The name of a port that is meant where no number is given.
const GRPC: &str = "grpc";
/// gRPC's statuses that may be tried again (gRFC A44), of those an answer without one counts as UNAVAILABLE.
const UNAVAILABLE: u8 = 14;
const INTERNAL: u8 = 13;
const RETRIABLE: [u8; 5] = [1, 4, 8, INTERNAL, UNAVAILABLE];
const TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// What programs are told, made when it is asked for.
#[derive(Debug)]
pub(super) struct Programs {
    facts: Arc<Facts>,
    shapes: Shapes,
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
    pub(super) fn new(facts: &Arc<Facts>, shapes: &Shapes) -> Self {
        Self {
            facts: Arc::clone(facts),
            shapes: shapes.clone(),
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
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let found = made.get(&named);
        if let Some(told) = found.filter(|own| own.until.is_none_or(|until| now < until)) {
            return Ok(told.clone());
        }
        let caller = caller.filter(|_| !named.is_empty());
        let mut gathered = Gathered {
            shapes: &self.shapes,
            resources: Resources::default(),
        };
        let until = compile(&self.facts, caller, now, &mut gathered)?;
        let told = Told {
            resources: Arc::new(gathered.resources),
            until,
        };
        made.insert(named, told.clone());
        Ok(told)
    }
}

/// Adds what a caller is told; gives back when something of it ends.
fn compile(
    facts: &Facts,
    caller: Option<Caller<'_>>,
    now: u64,
    gathered: &mut Gathered<'_>,
) -> Result<Option<u64>, CompileError> {
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
            let is_usual = usual == Some(port.number);
            target(facts, key, port, is_usual, &said, gathered)?;
        }
    }
    Ok(until)
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

/// Adds what a port of a service needs.
fn target(
    facts: &Facts,
    key: &Key,
    port: &Port,
    is_usual: bool,
    said: &Behaviour,
    gathered: &mut Gathered<'_>,
) -> Result<(), CompileError> {
    let found = outbound::endpoints(facts, key, port);
    let own = names::port(&key.0, &key.1, port.number);
    let (namespace, service) = key;
    for secured in [false, true] {
        if secured && found.ids.is_empty() {
            continue;
        }
        let (cluster, suffix) = match secured {
            false => (format!("{own}/program"), ""),
            true => (format!("{own}/secured"), SECURED),
        };
        gathered.put(
            Kind::Cluster,
            &cluster,
            &self::cluster(&cluster, said, &found, secured),
        )?;
        let endpoints = match secured {
            false => write::endpoints(&cluster, &found.endpoints),
            true => write::endpoints(&cluster, &meshed(&found.endpoints)),
        };
        gathered.put(Kind::Endpoints, &cluster, &endpoints)?;
        let named = format!("{service}.{namespace}{suffix}");
        let with_port = format!("{named}:{}", port.number);
        for name in [Some(with_port), is_usual.then_some(named)]
            .into_iter()
            .flatten()
        {
            let listener = write::api_listener(&name, &http(&cluster, said));
            gathered.put(Kind::Listener, &name, &listener)?;
        }
    }
    Ok(())
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
    for condition in own.and_then(|own| own.on.as_ref()).into_iter().flatten() {
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
