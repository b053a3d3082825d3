//! What policies say of who may come in to a pod, and how often: what is said of its workload, else the strictest of its services.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::mesh::{
    AuthorizationAction, Behaviour, Counted, Inbound, MeshPolicy, Per, RateLimit, TargetKind,
};
use fairlead_model::TextMatch;
use fairlead_model::filter::{
    Condition, Descriptor, Effect, Filter, HostRates, HttpFilter, LocalRateLimit, Policy, Pseudo,
    RateAction, RateRule, Rules, TokenBucket,
};
use fairlead_model::route::HeaderChanges;
use fairlead_plan::mesh::of_workload;
use http::StatusCode;

use super::policy;
use crate::facts::{Facts, Key, Pod, Probe};

/// What is said in the namespaces whose policies say anything of who comes in.
pub(super) struct Entries {
    /// Of services; of pods of no service, under an empty name.
    services: BTreeMap<Key, Entry>,
    /// Of workloads that policies name.
    workloads: BTreeMap<(Arc<str>, TargetKind, String), Entry>,
}

impl Entries {
    pub(super) fn of(facts: &Facts) -> Self {
        let says = |own: &Arc<MeshPolicy>| {
            let said = &own.spec.behaviour;
            said.inbound.is_some() || said.rate_limit.is_some()
        };
        let mut found = Self {
            services: BTreeMap::new(),
            workloads: BTreeMap::new(),
        };
        let all = facts.policies.iter();
        for (namespace, policies) in all.filter(|(_, policies)| policies.iter().any(says)) {
            let names = facts.services_of(namespace).map(|(name, _)| name);
            for name in names.chain([""]) {
                let key = (Arc::clone(namespace), name.into());
                let entry = Entry::of(policy::of(facts, &key, None));
                found.services.insert(key, entry);
            }
            let policies: Vec<&MeshPolicy> = policies.iter().map(AsRef::as_ref).collect();
            let targets = policies.iter().flat_map(|own| &own.spec.target_refs);
            for own in targets.filter(|own| own.kind.is_workload()) {
                let entry = Entry::of(of_workload(&policies, own.kind, &own.name).behaviour);
                let key = (Arc::clone(namespace), own.kind, own.name.clone());
                found.workloads.insert(key, entry);
            }
        }
        found
    }

    /// Whether there is one of a namespace.
    pub(super) fn are_about(&self, namespace: &Arc<str>) -> bool {
        let key = (Arc::clone(namespace), "".into());
        self.services.contains_key(&key)
    }

    /// What is said of a pod of these services: what is said of its workload goes before.
    pub(super) fn of_pod(
        &self,
        namespace: &Arc<str>,
        services: &[&str],
        workload: Option<(TargetKind, &str)>,
    ) -> Entry {
        // A pod of no service is of its namespace still.
        let names = if services.is_empty() { &[""] } else { services };
        let found = names
            .iter()
            .filter_map(|name| self.services.get(&(Arc::clone(namespace), (*name).into())));
        let of_services = found.fold(Entry::default(), Entry::stricter);
        let own = workload.and_then(|(kind, name)| {
            let key = (Arc::clone(namespace), kind, name.to_owned());
            self.workloads.get(&key).cloned()
        });
        let own = own.unwrap_or_default();
        Entry {
            inbound: own.inbound.or(of_services.inbound),
            rate: own.rate.or(of_services.rate),
        }
    }
}

/// What is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Entry {
    inbound: Option<Inbound>,
    rate: Option<RateLimit>,
}

impl Entry {
    fn of(said: Behaviour) -> Self {
        Self {
            inbound: said.inbound,
            rate: said.rate_limit,
        }
    }

    /// The stricter of both, part by part.
    fn stricter(self, other: &Self) -> Self {
        let inbounds = self.inbound.into_iter().chain(other.inbound);
        // So many in so many seconds, compared without a division.
        let pace = |own: &RateLimit| u64::from(own.requests) * (3600 / seconds(own.per));
        let rates = self.rate.into_iter().chain(other.rate.clone());
        Self {
            inbound: inbounds.max_by_key(|own| strictness(*own)),
            rate: rates.min_by_key(pace),
        }
    }

    /// Who comes in where no MeshAuthorization says anything.
    pub(super) fn rules(
        &self,
        action: AuthorizationAction,
        pod: &Pod,
        is_http: bool,
    ) -> Option<Rules> {
        if action == AuthorizationAction::Deny {
            return None;
        }
        let mut policies = BTreeMap::new();
        match self.inbound.unwrap_or_default() {
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

    /// How many requests the pod takes.
    pub(super) fn rate(&self) -> Option<HttpFilter> {
        self.rate.as_ref().map(rate)
    }
}

fn strictness(inbound: Inbound) -> u8 {
    match inbound {
        Inbound::Permissive => 0,
        Inbound::Strict => 1,
        Inbound::Deny => 2,
    }
}

fn seconds(per: Per) -> u64 {
    match per {
        Per::Second => 1,
        Per::Minute => 60,
        Per::Hour => 3600,
    }
}

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

/// What kubelet asks for, which has no identity.
pub(super) fn probes(pod: &Pod) -> Policy {
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
