//! Whom the proxy of a pod lets in.
//!
//! What is denied is looked at before what is allowed. Connections that carry no HTTP are judged by the rules that say nothing of
//! HTTP, when they begin. Where no MeshAuthorization allows anything, policies say who comes in ([`super::entry`]).

mod external;
mod rules;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_crds::mesh::{AuthorizationAction, Issuer, MeshAuthorization};
use fairlead_model::cluster::Cluster;
use fairlead_model::filter::{
    Authorization, Effect, Filter, HttpFilter, Override, Overrides, Rules,
};
use fairlead_plan::mesh::covers_pod;
use kube::ResourceExt;

use self::external::Asking;
use self::rules::{Reading, is_plain};
use self::tokens::Issuers;
use super::entry::{Entries, Entry, probes};
use crate::facts::{Facts, Key, Pod, Probe};

/// Who is let in, for each way of speaking.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Guards {
    /// For requests.
    pub(super) http: Vec<HttpFilter>,
    /// For connections of anything else.
    pub(super) tcp: Vec<Arc<Authorization>>,
    /// The clusters that they need.
    pub(super) clusters: Vec<Cluster>,
    /// What kubelet asks, which these filters do not look at.
    pub(super) exempt: Option<(Vec<Probe>, Overrides)>,
}

/// Whether anything is said of who comes in to the pods of a namespace.
pub(super) fn are_about(facts: &Facts, entries: &Entries, namespace: &Arc<str>) -> bool {
    facts.authorizations.contains_key(namespace) || entries.are_about(namespace)
}

/// Those of a pod; nothing where all may come in.
pub(super) fn guards(facts: &Facts, entries: &Entries, key: &Key, pod: &Pod) -> Option<Guards> {
    let namespace = &key.0;
    let all = facts.authorizations.get(namespace);
    let all = all.map(Vec::as_slice).unwrap_or_default();
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
        issuers: Issuers::of(&about),
        all: about,
    };
    let mut guards = Guards {
        clusters: about.issuers.clusters(),
        ..Guards::default()
    };
    guards.ask(about.issuers.filter(&about.demanded()), pod);
    for action in [AuthorizationAction::Deny, AuthorizationAction::Allow] {
        let of = |is_http: bool| Authorization {
            rules: about
                .enforced(action, is_http)
                .or_else(|| entry.rules(action, pod, is_http)),
            ..Authorization::default()
        };
        guards.put(&format!("{action:?}"), of(true), of(false));
    }
    // What a service changes of a request has no part in which others are asked.
    let (fits, asks): (Vec<_>, Vec<_>) = about
        .askings(namespace)
        .map(|own| (own.fits, own.asks))
        .unzip();
    guards.http.extend(fits.into_iter().flatten());
    for filter in asks {
        guards.ask(Some(filter), pod);
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
    /// Adds a filter that has nothing to do with what kubelet asks, who has no token and is in no mesh.
    fn ask(&mut self, filter: Option<HttpFilter>, pod: &Pod) {
        let Some(filter) = filter else { return };
        if !pod.probes.is_empty() {
            let exempt = self.exempt.get_or_insert_default();
            exempt.0.clone_from(&pod.probes);
            exempt.1.insert(filter.name.clone(), Override::Disabled);
        }
        self.http.push(filter);
    }

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
    issuers: Issuers<'a>,
    all: Vec<&'a MeshAuthorization>,
}

impl<'a> About<'a> {
    /// Those whose rules are only counted.
    fn counted(&self) -> impl Iterator<Item = &'a MeshAuthorization> {
        self.all.iter().copied().filter(|own| own.spec.is_counted())
    }

    /// The issuers of whom one's token is needed: where nobody comes in without.
    fn demanded(&self) -> Vec<&'a Issuer> {
        let all = self.of(AuthorizationAction::Allow, false);
        let issuers: Option<Vec<&[Issuer]>> = all
            .iter()
            .map(|own| Some(own.spec.jwt.as_ref()?.issuers.as_slice()))
            .collect();
        issuers.into_iter().flatten().flatten().collect()
    }

    /// Those of an action that are enforced or, of a dry run, would be.
    fn of(&self, action: AuthorizationAction, is_dry: bool) -> Vec<&'a MeshAuthorization> {
        let all = self.all.iter().copied();
        all.filter(|own| own.spec.action == action && own.spec.is_counted() == is_dry)
            .collect()
    }

    /// What asks the services of those that allow something.
    fn askings(&self, namespace: &Arc<str>) -> impl Iterator<Item = Asking> {
        let all = self.of(AuthorizationAction::Allow, false).into_iter();
        all.filter_map(|own| {
            let external = own.spec.external.as_ref()?;
            let rules = self.said(Effect::Allow, &[own], true);
            external::asking(self.facts, namespace, &own.name_any(), external, rules)
        })
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

    /// The rules of several together, and of what allows what kubelet asks.
    fn rules(&self, effect: Effect, all: &[&MeshAuthorization], is_http: bool) -> Rules {
        let mut rules = self.said(effect, all, is_http);
        if effect == Effect::Allow && is_http && !self.pod.probes.is_empty() {
            let probes = probes(self.pod);
            rules.policies.insert("probes".to_owned(), probes);
        }
        rules
    }

    /// What several say together.
    fn said(&self, effect: Effect, all: &[&MeshAuthorization], is_http: bool) -> Rules {
        let reading = Reading {
            trust_domain: &self.facts.trust_domain,
            issuers: &self.issuers,
            effect,
        };
        let mut policies = BTreeMap::new();
        for authorization in all {
            for (place, rule) in authorization.spec.rules.iter().enumerate() {
                if is_http || is_plain(authorization, rule) {
                    let name = format!("{}[{place}]", authorization.name_any());
                    let policy = reading.policy(authorization, rule);
                    policies.extend(policy.map(|own| (name, own)));
                }
            }
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
