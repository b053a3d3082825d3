//! Whom the proxy of a pod lets in.
//!
//! What is denied is looked at before what is allowed. Connections that carry no HTTP are judged by the rules that say nothing of
//! HTTP, when they begin.

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
    let all = facts.authorizations.get(namespace)?;
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
    if about.is_empty() {
        return None;
    }
    let mut guards = Guards::default();
    for action in [AuthorizationAction::Deny, AuthorizationAction::Allow] {
        let of = |is_http: bool| {
            let rules = |own| rules(facts, pod, &about, (action, own), is_http);
            Authorization {
                rules: rules(Enforcement::Enforced),
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
            let name = format!("{}[{place}]", authorization.name_any());
            policies.insert(name, policy(&facts.trust_domain, rule));
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
