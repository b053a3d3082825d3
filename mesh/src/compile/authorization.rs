//! Whom the proxy of a pod lets in.
//!
//! What is denied is looked at before what is allowed. Connections that carry no HTTP are judged by the rules that say nothing of
//! HTTP, when they begin. Where no MeshAuthorization allows anything, policies say who comes in ([`super::entry`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_crds::mesh::{
    Asked, AuthorizationAction, AuthorizationRule, Callers, Enforcement, MeshAuthorization,
};
use fairlead_model::TextMatch;
use fairlead_model::filter::{
    Authorization, Condition, Effect, Filter, HttpFilter, Policy, Pseudo, Rules,
};
use fairlead_plan::mesh::covers;
use kube::ResourceExt;

use super::entry::{Entries, Entry, probes};
use crate::facts::{Facts, Key, Pod};

/// Who is let in, for each way of speaking.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Guards {
    /// For requests.
    pub(super) http: Vec<HttpFilter>,
    /// For connections of anything else.
    pub(super) tcp: Vec<Arc<Authorization>>,
}

/// Those of a pod; nothing where all may come in.
pub(super) fn guards(facts: &Facts, entries: &Entries, key: &Key, pod: &Pod) -> Option<Guards> {
    let namespace = &key.0;
    let all = facts.authorizations.get(namespace);
    let all = all.map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() && !entries.are_about(namespace) {
        return None;
    }
    let services: Vec<&str> = facts
        .services_of(namespace)
        .filter(|(_, service)| service.selects(&pod.labels))
        .map(|(name, _)| name)
        .collect();
    let about = |own: &&Arc<MeshAuthorization>| {
        let targets = &own.spec.target_refs;
        // A pod of no service is of its namespace still.
        let mut names = services.iter().copied().chain([""]);
        names.any(|name| covers(targets, namespace, name))
    };
    let about: Vec<&MeshAuthorization> = all.iter().filter(about).map(AsRef::as_ref).collect();
    let entry = entries.of_pod(namespace, &services);
    if about.is_empty() && entry == Entry::default() {
        return None;
    }
    let mut guards = Guards::default();
    for action in [AuthorizationAction::Deny, AuthorizationAction::Allow] {
        let of = |is_http: bool| {
            let rules = |own| rules(facts, pod, &about, (action, own), is_http);
            let usual = || entry.rules(action, pod, is_http);
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
    guards.http.extend(entry.rate());
    Some(guards)
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
