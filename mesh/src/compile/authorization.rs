//! Whom the proxy of a pod lets in.
//!
//! What is denied is looked at before what is allowed. Connections that carry no HTTP are judged by the rules that say nothing of
//! HTTP, when they begin. Where no MeshAuthorization allows anything, policies say who comes in ([`super::entry`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_crds::mesh::{
    Asked, AuthorizationAction, AuthorizationRule, Callers, MeshAuthorization,
};
use fairlead_model::TextMatch;
use fairlead_model::filter::{
    Authorization, Condition, Effect, Filter, HttpFilter, Policy, Pseudo, Rules,
};
use fairlead_plan::mesh::covers_pod;
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
    let workload = pod.made_by(&key.1);
    let about = |own: &&Arc<MeshAuthorization>| {
        covers_pod(&own.spec.target_refs, namespace, &services, workload)
    };
    let about: Vec<&MeshAuthorization> = all.iter().filter(about).map(AsRef::as_ref).collect();
    let entry = entries.of_pod(namespace, &services, workload);
    if about.is_empty() && entry == Entry::default() {
        return None;
    }
    let about = About {
        facts,
        pod,
        all: about,
    };
    let mut guards = Guards::default();
    for action in [AuthorizationAction::Deny, AuthorizationAction::Allow] {
        let of = |is_http: bool| Authorization {
            rules: about
                .enforced(action, is_http)
                .or_else(|| entry.rules(action, pod, is_http)),
            ..Authorization::default()
        };
        guards.put(&format!("{action:?}"), of(true), of(false));
    }
    // What is refused anyway is not counted as what would be.
    for own in about.counted() {
        let name = own.name_any();
        let of = |is_http: bool| Authorization {
            rules: None,
            shadow: about.shadow(own, is_http),
            shadow_name: Some(name.as_str().into()),
        };
        guards.put(&format!("counted/{name}"), of(true), of(false));
    }
    guards.http.extend(entry.rate());
    Some(guards)
}

impl Guards {
    /// Adds rules of requests, and those of them that hold for connections of anything else, where there are any.
    fn put(&mut self, name: &str, http: Authorization, tcp: Authorization) {
        let has_rules = |own: &Authorization| own.rules.is_some() || own.shadow.is_some();
        if has_rules(&http) {
            self.http.push(HttpFilter {
                name: format!("authorization/{name}").to_lowercase(),
                is_disabled: false,
                filter: Filter::Authorization(Arc::new(http)),
            });
        }
        if has_rules(&tcp) {
            self.tcp.push(Arc::new(tcp));
        }
    }
}

/// Authorizations about a pod.
struct About<'a> {
    facts: &'a Facts,
    pod: &'a Pod,
    all: Vec<&'a MeshAuthorization>,
}

impl<'a> About<'a> {
    /// Those whose rules are only counted.
    fn counted(&self) -> impl Iterator<Item = &'a MeshAuthorization> {
        self.all.iter().copied().filter(|own| own.spec.is_counted())
    }

    /// Those of an action that are enforced or, of a dry run, would be.
    fn of(&self, action: AuthorizationAction, is_dry: bool) -> Vec<&'a MeshAuthorization> {
        let all = self.all.iter().copied();
        all.filter(|own| own.spec.action == action && own.spec.is_counted() == is_dry)
            .collect()
    }

    /// All rules of an action that are enforced; nothing where no policy has that action.
    fn enforced(&self, action: AuthorizationAction, is_http: bool) -> Option<Rules> {
        let own = self.of(action, false);
        (!own.is_empty()).then(|| self.rules(effect(action), &own, is_http))
    }

    /// What is counted for one of them: of what allows, what would be refused if all dry runs beside what is enforced were too.
    fn shadow(&self, own: &'a MeshAuthorization, is_http: bool) -> Option<Rules> {
        let action = own.spec.action;
        let rules = match action {
            AuthorizationAction::Allow => {
                let all = [self.of(action, true), self.of(action, false)].concat();
                self.rules(Effect::Allow, &all, is_http)
            }
            _ => self.rules(effect(action), &[own], is_http),
        };
        // Of no use but to refuse whatever nobody allows.
        (rules.effect == Effect::Allow || !rules.policies.is_empty()).then_some(rules)
    }

    /// The rules of several together.
    fn rules(&self, effect: Effect, all: &[&MeshAuthorization], is_http: bool) -> Rules {
        let mut policies = BTreeMap::new();
        for authorization in all {
            for (place, rule) in authorization.spec.rules.iter().enumerate() {
                if !is_http && !rule.to.as_ref().is_none_or(is_plain) {
                    continue;
                }
                let policy = policy(&self.facts.trust_domain, rule);
                // One that names nobody is about nobody; a stock Envoy refuses it.
                if !policy.principals.is_empty() {
                    policies.insert(format!("{}[{place}]", authorization.name_any()), policy);
                }
            }
        }
        if effect == Effect::Allow && is_http && !self.pod.probes.is_empty() {
            policies.insert("probes".to_owned(), probes(self.pod));
        }
        Rules { effect, policies }
    }
}

fn effect(action: AuthorizationAction) -> Effect {
    match action {
        AuthorizationAction::Deny => Effect::Deny,
        AuthorizationAction::Allow => Effect::Allow,
        AuthorizationAction::Audit => Effect::Audit,
    }
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
