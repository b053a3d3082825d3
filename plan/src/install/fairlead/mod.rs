//! Fairlead: the components as child workloads, and their registration with the API server.
//!
//! Ownership is a chain, so that nothing blocks a cluster that Fairlead has left: the install namespace owns the Fairlead, and the
//! Fairlead owns the rest, the webhook configuration included.

mod build;

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::install::{Fairlead, FairleadStatus, HighAvailability};

use crate::cache::{Cache, ChildMeta, Event, KindName, ObjectId, Table};
use crate::change::{Change, Plan};
use crate::conditions::Conditions;
use crate::kind::{Child, Context, Kind, Planned};
use crate::live::{Live, ObjectKey, Read};
use crate::objects;
use crate::problem::{Invalid, Problem};
use crate::readiness::{self, Readiness};

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
    ];
    const CONDITIONS: &'static [ConditionType] = &[ConditionType::WebhookReady];

    fn table(cache: &Cache) -> &Table<Fairlead> {
        &cache.fairleads
    }

    fn validate(object: &Fairlead) -> Result<(), Vec<Invalid>> {
        let replicas = object.spec.components.webhook.replicas;
        if object.spec.high_availability == HighAvailability::Enabled
            && replicas.is_some_and(|replicas| replicas < 2)
        {
            let message = "found 1 with highAvailability Enabled, which needs at least 2";
            return Err(vec![Invalid::new(
                "spec.components.webhook.replicas",
                message,
            )]);
        }
        quantities(&object.spec.components.webhook.resources)
    }

    fn observe(object: &Fairlead, (): &(), cache: &Cache) -> Seen {
        Seen {
            namespace: cache.namespace(&object.spec.namespace),
            owned: objects::owned(cache, object.metadata.uid.clone()),
        }
    }

    fn reads(object: &Fairlead, (): &(), _: &Seen, _: &Live) -> Vec<Read> {
        vec![Read::Object(deployment_key(object))]
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
        let mut wanted = build::webhook(object, &context.operator);
        // The API server is told of the webhook once one serves, so that an installation never waits for itself.
        let registered = seen.owned.iter().any(|child| {
            child
                .key
                .as_ref()
                .is_some_and(|key| key.kind == "ValidatingWebhookConfiguration")
        });
        if registered || webhook_health(object, live).is_ok() {
            wanted.push(build::registration(object, ca_bundle));
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
        let registered = planned
            .plan
            .changes
            .iter()
            .any(|change| change.key.kind == "ValidatingWebhookConfiguration")
            && planned.failed.is_none();
        match webhook_health(object, &planned.live) {
            Ok(()) if registered => conditions.yes(ConditionType::WebhookReady, Reason::Ok, ""),
            Ok(()) => conditions.no(
                ConditionType::WebhookReady,
                Reason::Progressing,
                "the webhook is being registered",
            ),
            Err(problem) => {
                conditions.no(
                    ConditionType::WebhookReady,
                    problem.reason,
                    problem.message.clone(),
                );
                conditions.fail(&problem);
            }
        }
        if !registered {
            conditions.fail(&Problem::waiting(
                Reason::Progressing,
                "the webhook is being registered",
            ));
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

fn deployment_key(object: &Fairlead) -> ObjectKey {
    ObjectKey::new(
        "apps/v1",
        "Deployment",
        Some(&object.spec.namespace),
        build::WEBHOOK,
    )
}

fn webhook_health(object: &Fairlead, live: &Live) -> Result<(), Problem> {
    let Some(deployment) = live.object(&deployment_key(object)) else {
        return Err(Problem::waiting(
            Reason::Progressing,
            "the webhook is being made",
        ));
    };
    match readiness::of(deployment) {
        Readiness::Ready => Ok(()),
        Readiness::Progressing(text) => Err(Problem::waiting(
            Reason::Progressing,
            format!("webhook: {text}"),
        )),
        Readiness::Failed(text) => Err(Problem::waiting(
            Reason::Degraded,
            format!("webhook: {text}"),
        )),
    }
}

fn quantities(
    resources: &Option<fairlead_crds::install::ComponentResources>,
) -> Result<(), Vec<Invalid>> {
    let Some(resources) = resources else {
        return Ok(());
    };
    let broken = |(field, map): (&str, &BTreeMap<String, String>)| {
        let known = ["cpu", "memory", "ephemeral-storage"];
        let unknown = map.keys().filter(|key| !known.contains(&key.as_str()));
        let field = format!("spec.components.webhook.resources.{field}");
        unknown
            .map(|key| {
                Invalid::new(
                    format!("{field}.{key}"),
                    format!("there are {}", known.join(", ")),
                )
            })
            .collect::<Vec<_>>()
    };
    let list: Vec<Invalid> = [
        ("requests", &resources.requests),
        ("limits", &resources.limits),
    ]
    .into_iter()
    .flat_map(broken)
    .collect();
    if list.is_empty() { Ok(()) } else { Err(list) }
}
