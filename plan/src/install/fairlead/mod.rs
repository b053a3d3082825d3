//! Fairlead: the components as child workloads, and their registration with the API server.
//!
//! Ownership is a chain, so that nothing blocks a cluster that Fairlead has left: the install namespace owns the Fairlead, and the
//! Fairlead owns the rest, the webhook configuration included.

mod build;
mod callers;

use std::sync::Arc;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::install::{Component, Fairlead, FairleadStatus, HighAvailability};
use serde_json::Value;

use self::build::Part;
use crate::cache::{Cache, ChildMeta, Event, KindName, ObjectId, Table};
use crate::change::{Change, Plan};
use crate::conditions::Conditions;
use crate::kind::{Child, Context, Kind, Planned};
use crate::live::{Live, ObjectKey, Read};
use crate::objects;
use crate::problem::{Invalid, Problem};
use crate::readiness::{self, Readiness};

/// By which the API server knows of the webhook.
const VALIDATION: &str = "ValidatingWebhookConfiguration";
const INJECTION: &str = "MutatingWebhookConfiguration";

/// See the module.
pub struct FairleadKind;

/// What a pass sees.
pub struct Seen {
    namespace: Option<Arc<ChildMeta>>,
    owned: Vec<Arc<ChildMeta>>,
}

impl Kind for FairleadKind {
    type Object = Fairlead;
    type Valid = ();
    type Seen = Seen;

    const NAME: KindName = KindName::Fairlead;
    const CHILDREN: &'static [Child] = &[
        Child {
            group: "",
            version: "v1",
            kind: "ServiceAccount",
            plural: "serviceaccounts",
        },
        Child {
            group: "rbac.authorization.k8s.io",
            version: "v1",
            kind: "ClusterRole",
            plural: "clusterroles",
        },
        Child {
            group: "rbac.authorization.k8s.io",
            version: "v1",
            kind: "ClusterRoleBinding",
            plural: "clusterrolebindings",
        },
        Child {
            group: "rbac.authorization.k8s.io",
            version: "v1",
            kind: "Role",
            plural: "roles",
        },
        Child {
            group: "rbac.authorization.k8s.io",
            version: "v1",
            kind: "RoleBinding",
            plural: "rolebindings",
        },
        Child {
            group: "",
            version: "v1",
            kind: "Service",
            plural: "services",
        },
        Child {
            group: "policy",
            version: "v1",
            kind: "PodDisruptionBudget",
            plural: "poddisruptionbudgets",
        },
        Child {
            group: "networking.k8s.io",
            version: "v1",
            kind: "NetworkPolicy",
            plural: "networkpolicies",
        },
        Child {
            group: "apps",
            version: "v1",
            kind: "Deployment",
            plural: "deployments",
        },
        Child {
            group: "admissionregistration.k8s.io",
            version: "v1",
            kind: "ValidatingWebhookConfiguration",
            plural: "validatingwebhookconfigurations",
        },
        Child {
            group: "admissionregistration.k8s.io",
            version: "v1",
            kind: "MutatingWebhookConfiguration",
            plural: "mutatingwebhookconfigurations",
        },
    ];
    const CONDITIONS: &'static [ConditionType] =
        &[ConditionType::WebhookReady, ConditionType::MeshReady];

    fn table(cache: &Cache) -> &Table<Fairlead> {
        &cache.fairleads
    }

    fn validate(object: &Fairlead) -> Result<(), Vec<Invalid>> {
        let components = &object.spec.components;
        let list: Vec<Invalid> = [
            ("webhook", &components.webhook.component),
            ("mesh", &components.mesh.component),
        ]
        .into_iter()
        .flat_map(|(name, own)| check(object, &format!("spec.components.{name}"), own))
        .collect();
        if list.is_empty() { Ok(()) } else { Err(list) }
    }

    fn observe(object: &Fairlead, (): &(), cache: &Cache) -> Seen {
        Seen {
            namespace: cache.namespace(&object.spec.namespace),
            owned: objects::owned(cache, object.metadata.uid.clone()),
        }
    }

    fn reads(object: &Fairlead, (): &(), _: &Seen, _: &Live) -> Vec<Read> {
        let components = build::components(object).into_iter();
        let deployments = components.map(|own| build::deployment(object, own));
        let authorities = callers::authorities(object);
        deployments.chain(authorities).map(Read::Object).collect()
    }

    fn plan(object: &Fairlead, (): &(), seen: &Seen, live: &Live, context: &Context) -> Plan {
        let own = &context.operator.namespace;
        if object.spec.namespace != *own {
            let message = format!(
                "spec.namespace: found {}, and the operator runs in {own}",
                object.spec.namespace
            );
            return Plan::blocked(Problem::invalid(Reason::Invalid, message));
        }
        let Some(namespace) = &seen.namespace else {
            return Plan::blocked(Problem::waiting(
                Reason::NotFound,
                format!("there is no namespace {own}"),
            ));
        };
        let Some(ca_bundle) = &context.operator.ca_bundle else {
            return Plan::blocked(Problem::waiting(
                Reason::Progressing,
                "the certificates are being made",
            ));
        };
        let mut changes: Vec<Change> = build::ownership(object, &namespace.uid)
            .into_iter()
            .collect();
        let parts = build::parts(object, &context.operator);
        let mut wanted: Vec<Value> = parts.iter().flat_map(Part::objects).collect();
        if build::has_mesh(object) {
            wanted.extend(build::figures_account(object));
        }
        // The API server is told of the webhook once one serves, so that an installation never waits for itself.
        if seen.has(VALIDATION) || health(object, &[build::WEBHOOK], live).is_ok() {
            wanted.push(build::validation(object, &context.operator, ca_bundle));
        }
        // Pods get proxies once there is somebody to tell them something.
        let is_served = || health(object, &build::components(object), live).is_ok();
        if build::has_mesh(object) && (seen.has(INJECTION) || is_served()) {
            wanted.push(build::injection(object, &context.operator, ca_bundle));
        }
        changes.extend(wanted.into_iter().map(|body| {
            let key = ObjectKey::of(&body);
            Change::apply(
                body,
                "Install",
                format!("installs {} {}", key.kind, key.name),
            )
        }));
        let keys: Vec<ObjectKey> = changes.iter().map(|change| change.key.clone()).collect();
        changes.extend(objects::prune(&seen.owned, &keys));
        Plan {
            changes,
            ..Plan::default()
        }
    }

    fn report(
        object: &Fairlead,
        mut status: FairleadStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> FairleadStatus {
        let Some(planned) = planned else {
            return status;
        };
        status.version = Some(env!("CARGO_PKG_VERSION").to_owned());
        let is_done = |kind: &str| {
            let changes = &planned.plan.changes;
            planned.failed.is_none() && changes.iter().any(|change| change.key.kind == kind)
        };
        let mut say = |condition: ConditionType, component: &'static str, registration: &str| {
            let mut healthy = health(object, &[component], &planned.live);
            if component == build::WEBHOOK {
                healthy = callers::check(object, &planned.live).and(healthy);
            }
            let problem = match healthy {
                Ok(()) if is_done(registration) => {
                    return conditions.yes(condition, Reason::Ok, "");
                }
                Ok(()) => Problem::waiting(Reason::Progressing, "the webhook is being registered"),
                Err(problem) => problem,
            };
            conditions.no(condition, problem.reason, problem.message.clone());
            conditions.fail(&problem);
        };
        say(ConditionType::WebhookReady, build::WEBHOOK, VALIDATION);
        if build::has_mesh(object) {
            say(ConditionType::MeshReady, build::MESH, INJECTION);
        } else {
            let message = "spec.components.mesh.state is Disabled";
            conditions.no(ConditionType::MeshReady, Reason::Disabled, message);
        }
        conditions.ready("");
        status
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        let Event::Other(meta) = event else {
            return Vec::new();
        };
        let ours = meta
            .owner
            .as_ref()
            .is_some_and(|(kind, _)| kind == KindName::Fairlead.as_str());
        let namespace = meta.key.as_ref().is_some_and(|key| key.kind == "Namespace");
        let mine = |fairlead: &&Arc<Fairlead>| {
            ours || meta
                .key
                .as_ref()
                .is_some_and(|key| key.name == fairlead.spec.namespace)
        };
        if !ours && !namespace {
            return Vec::new();
        }
        cache
            .fairleads
            .all()
            .iter()
            .filter(mine)
            .map(|fairlead| ObjectId::of(&fairlead.metadata))
            .collect()
    }
}

impl Seen {
    /// Whether an object of this kind was made before.
    fn has(&self, kind: &str) -> bool {
        self.owned
            .iter()
            .filter_map(|child| child.key.as_ref())
            .any(|key| key.kind == kind)
    }
}

/// Whether components serve; the first that does not, and why.
fn health(object: &Fairlead, components: &[&'static str], live: &Live) -> Result<(), Problem> {
    for component in components {
        let Some(deployment) = live.object(&build::deployment(object, component)) else {
            let message = format!("the {component} is being made");
            return Err(Problem::waiting(Reason::Progressing, message));
        };
        let (reason, text) = match readiness::of(deployment) {
            Readiness::Ready => continue,
            Readiness::Progressing(text) => (Reason::Progressing, text),
            Readiness::Failed(text) => (Reason::Degraded, text),
        };
        return Err(Problem::waiting(reason, format!("{component}: {text}")));
    }
    Ok(())
}

/// Checks the settings of a component at a field.
fn check(object: &Fairlead, field: &str, component: &Component) -> Vec<Invalid> {
    let mut list = Vec::new();
    let is_doubled = object.spec.high_availability == HighAvailability::Enabled;
    if is_doubled && component.replicas.is_some_and(|replicas| replicas < 2) {
        let message = "found 1 with highAvailability Enabled, which needs at least 2";
        list.push(Invalid::new(format!("{field}.replicas"), message));
    }
    let Some(resources) = &component.resources else {
        return list;
    };
    let known = ["cpu", "memory", "ephemeral-storage"];
    for (name, map) in [
        ("requests", &resources.requests),
        ("limits", &resources.limits),
    ] {
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            let message = format!("there are {}", known.join(", "));
            list.push(Invalid::new(
                format!("{field}.resources.{name}.{key}"),
                message,
            ));
        }
    }
    list
}
