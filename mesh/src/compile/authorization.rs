//! Whom the proxy of a pod lets in.
//!
//! What is denied is looked at before what is allowed. Connections that carry no HTTP are judged by the rules that say nothing of
//! HTTP, when they begin. Where no MeshAuthorization allows anything, policies say who comes in, and how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::mesh::{
    Asked, AuthorizationAction, AuthorizationRule, Callers, Counted, Enforcement, Inbound,
    MeshAuthorization, Per, RateLimit,
};
use fairlead_model::TextMatch;
use fairlead_model::filter::{
    Authorization, Condition, Descriptor, Effect, Filter, HostRates, HttpFilter, LocalRateLimit,
    Policy, Pseudo, RateAction, RateRule, Rules, TokenBucket,
};
use fairlead_model::route::HeaderChanges;
use fairlead_plan::mesh::covers;
use http::StatusCode;
use kube::ResourceExt;

use super::policy;
use crate::facts::{Facts, Key, Pod, Probe};

/// Who is let in, for each way of speaking.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Guards {
    /// For requests.
    pub(super) http: Vec<HttpFilter>,
    /// For connections of anything else.
    pub(super) tcp: Vec<Arc<Authorization>>,
}

/// Those of a pod; nothing where all may come in.
pub(super) fn guards(facts: &Facts, key: &Key, pod: &Pod) -> Option<Guards> {
    let namespace = &key.0;
    let all = facts.authorizations.get(namespace);
    let all = all.map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() && !facts.policies.contains_key(namespace) {
        return None;
    }
    let first: Key = (Arc::clone(namespace), "".into());
    let services: Vec<&str> = facts
        .services
        .range(first..)
        .take_while(|(own, _)| own.0 == *namespace)
        .filter(|(_, service)| service.selects(&pod.labels))
        .map(|(own, _)| &*own.1)
        .collect();
    let about = |own: &&Arc<MeshAuthorization>| {
        let targets = &own.spec.target_refs;
        // A pod of no service is of its namespace still.
        let mut names = services.iter().copied().chain([""]);
        names.any(|name| covers(targets, namespace, name))
    };
    let about: Vec<&MeshAuthorization> = all.iter().filter(about).map(AsRef::as_ref).collect();
    let said = Said::of(facts, namespace, &services);
    if about.is_empty() && said == Said::default() {
        return None;
    }
    let mut guards = Guards::default();
    for action in [AuthorizationAction::Deny, AuthorizationAction::Allow] {
        let of = |is_http: bool| {
            let rules = |own| rules(facts, pod, &about, (action, own), is_http);
            let usual = || said.rules(action, pod, is_http);
            Authorization {
                rules: rules(Enforcement::Enforced).or_else(usual),
                shadow: rules(Enforcement::DryRun),
            }
        };
        let (http, tcp) = (of(true), of(false));
        if http != Authorization::default() {
            guards.http.push(HttpFilter {
                name: format!("authorization/{action:?}").to_lowercase(),
                is_disabled: false,
                filter: Filter::Authorization(Arc::new(http)),
            });
            guards.tcp.push(Arc::new(tcp));
        }
    }
    guards.http.extend(said.rate.as_ref().map(rate));
    Some(guards)
}

/// What policies say of who may come to a pod, which the strictest of its services decides.
#[derive(Debug, Default, PartialEq)]
struct Said {
    inbound: Inbound,
    rate: Option<RateLimit>,
}

impl Said {
    fn of(facts: &Facts, namespace: &Arc<str>, services: &[&str]) -> Self {
        let mut said = Self::default();
        // A pod of no service is of its namespace still.
        let names = if services.is_empty() { &[""] } else { services };
        for name in names {
            let service = (Arc::clone(namespace), (*name).into());
            let own = policy::of(facts, &service, None);
            said.inbound = match (said.inbound, own.inbound.unwrap_or_default()) {
                (Inbound::Deny, _) | (_, Inbound::Deny) => Inbound::Deny,
                (Inbound::Strict, _) | (_, Inbound::Strict) => Inbound::Strict,
                _ => Inbound::Permissive,
            };
            let all = said.rate.take().into_iter().chain(own.rate_limit);
            // So many in so many seconds, compared without a division.
            let pace = |own: &RateLimit| u64::from(own.requests) * (3600 / seconds(own.per));
            said.rate = all.min_by_key(pace);
        }
        said
    }

    /// Who comes in where no MeshAuthorization says anything.
    fn rules(&self, action: AuthorizationAction, pod: &Pod, is_http: bool) -> Option<Rules> {
        if action == AuthorizationAction::Deny {
            return None;
        }
        let mut policies = BTreeMap::new();
        match self.inbound {
            Inbound::Permissive => return None,
            Inbound::Deny => {}
            Inbound::Strict => {
                let known = Policy {
                    permissions: vec![Condition::Any],
                    principals: vec![Condition::Peer(None)],
                };
                policies.insert("strict".to_owned(), known);
            }
        }
        if is_http && !pod.probes.is_empty() {
            policies.insert("probes".to_owned(), probes(pod));
        }
        let effect = Effect::Allow;
        Some(Rules { effect, policies })
    }
}

fn seconds(per: Per) -> u64 {
    match per {
        Per::Second => 1,
        Per::Minute => 60,
        Per::Hour => 3600,
    }
}

/// How many requests a pod takes.
fn rate(said: &RateLimit) -> HttpFilter {
    const CALLER: &str = "caller";
    let bucket = TokenBucket {
        most: said.requests,
        fill: said.requests,
        interval: Duration::from_secs(seconds(said.per)),
    };
    let is_each = said.of == Counted::Caller;
    let action = RateAction::Caller {
        key: CALLER.to_owned(),
    };
    let descriptor = Descriptor {
        entries: vec![(CALLER.to_owned(), String::new())],
        bucket,
    };
    let rule = RateRule {
        stage: 0,
        actions: vec![action],
    };
    let limit = LocalRateLimit {
        name: "inbound".to_owned(),
        status: StatusCode::TOO_MANY_REQUESTS,
        bucket: Some(bucket),
        enabled: 1_000_000,
        enforced: 1_000_000,
        descriptors: is_each.then_some(descriptor).into_iter().collect(),
        rules: is_each.then_some(rule).into_iter().collect(),
        stage: 0,
        host_rates: HostRates::Never,
        most_values: 1024,
        counts_all: false,
        response_headers: HeaderChanges::default(),
        tells: true,
        retry_after: true,
        is_exhausted: true,
    };
    HttpFilter {
        name: "rate".to_owned(),
        is_disabled: false,
        filter: Filter::RateLimit(Arc::new(limit)),
    }
}

/// All rules of an action together; nothing where no policy has that action.
fn rules(
    facts: &Facts,
    pod: &Pod,
    about: &[&MeshAuthorization],
    (action, enforcement): (AuthorizationAction, Enforcement),
    is_http: bool,
) -> Option<Rules> {
    let own: Vec<&MeshAuthorization> = about
        .iter()
        .copied()
        .filter(|own| own.spec.action == action && own.spec.enforcement == enforcement)
        .collect();
    if own.is_empty() {
        return None;
    }
    let mut policies = BTreeMap::new();
    for authorization in own {
        let fits = |rule: &&AuthorizationRule| is_http || rule.to.as_ref().is_none_or(is_plain);
        for (place, rule) in authorization.spec.rules.iter().filter(fits).enumerate() {
            let policy = policy(&facts.trust_domain, rule);
            // One that names nobody is about nobody; a stock Envoy refuses it.
            if !policy.principals.is_empty() {
                policies.insert(format!("{}[{place}]", authorization.name_any()), policy);
            }
        }
    }
    let effect = match action {
        AuthorizationAction::Deny => Effect::Deny,
        AuthorizationAction::Allow => Effect::Allow,
    };
    if effect == Effect::Allow && is_http && !pod.probes.is_empty() {
        policies.insert("probes".to_owned(), probes(pod));
    }
    Some(Rules { effect, policies })
}

/// Whether something asked for is there in any protocol.
fn is_plain(to: &Asked) -> bool {
    to.methods.is_empty() && to.paths.is_empty()
}

fn policy(trust_domain: &str, rule: &AuthorizationRule) -> Policy {
    Policy {
        permissions: vec![rule.to.as_ref().map_or(Condition::Any, permission)],
        principals: match &rule.from {
            None => vec![Condition::Any],
            Some(from) => principals(trust_domain, from),
        },
    }
}

fn permission(to: &Asked) -> Condition {
    let ports = to.ports.iter();
    let ports = ports
        .map(|port| Condition::DestinationPort(*port..=*port))
        .collect();
    let methods = to.methods.iter();
    let methods = methods.map(|own| Condition::Pseudo(Pseudo::Method, TextMatch::exact(own)));
    let paths = to.paths.iter().map(|path| {
        Condition::Path(match path.strip_suffix('*') {
            Some(beginning) => TextMatch::prefix(beginning),
            None => TextMatch::exact(path),
        })
    });
    let parts: [Vec<Condition>; 3] = [ports, methods.collect(), paths.collect()];
    let given = parts.into_iter().filter(|part| !part.is_empty());
    Condition::All(
        given
            .map(Condition::OneOf)
            .chain([Condition::Any])
            .collect(),
    )
}

fn principals(trust_domain: &str, from: &Callers) -> Vec<Condition> {
    let accounts = from.service_accounts.iter().filter_map(|own| {
        let (namespace, name) = own.split_once('/')?;
        let id = fairlead_plan::mesh::spiffe(trust_domain, namespace, name);
        Some(Condition::Peer(Some(TextMatch::exact(&id))))
    });
    let namespaces = from.namespaces.iter().map(|namespace| {
        let beginning = fairlead_plan::mesh::spiffe(trust_domain, namespace, "");
        Condition::Peer(Some(TextMatch::prefix(&beginning)))
    });
    let networks = from.networks.iter().filter_map(|own| own.parse().ok());
    let networks = networks.map(Condition::Source);
    accounts.chain(namespaces).chain(networks).collect()
}

/// What kubelet asks for, which has no identity.
fn probes(pod: &Pod) -> Policy {
    let one = |probe: &Probe| {
        Condition::All(vec![
            Condition::DestinationPort(probe.port..=probe.port),
            Condition::Pseudo(Pseudo::Method, TextMatch::exact(probe.method)),
            Condition::Path(TextMatch::exact(&probe.path)),
        ])
    };
    Policy {
        permissions: pod.probes.iter().map(one).collect(),
        principals: vec![Condition::Any],
    }
}
