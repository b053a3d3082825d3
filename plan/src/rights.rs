//! What the control plane must be allowed to do, derived from the registry: a kind that lists a child can write it, without
//! a second list that somebody has to remember. `cargo xtask gen` writes these rules into the chart.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Resource;

use crate::kind::Kind;
use crate::registry::{self, Visitor};

/// The Secrets that the operator keeps in its own namespace: the certificate authority and the webhook's certificate.
pub const OWN_SECRETS: &[&str] = &["fairlead-ca", "fairlead-webhook-tls"];

/// The Secret that the mesh keeps there: its certificate authority.
pub const MESH_SECRETS: &[&str] = &["fairlead-mesh-ca"];

/// The DaemonSet that keeps the CNI plug-in on the nodes.
pub const CNI: &str = "fairlead-cni";

/// The Secret with an authority of the user's own for the mesh.
pub const MESH_ISSUER: &str = "fairlead-mesh-issuer";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// What definitions may create unless the platform team says otherwise: group and plural names.
const PROVISION: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "persistentvolumeclaims",
            "secrets",
            "serviceaccounts",
            "services",
        ],
    ),
    ("apps", &["deployments", "statefulsets"]),
    ("batch", &["cronjobs", "jobs"]),
    ("gateway.networking.k8s.io", &["httproutes"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
];

/// Verbs by group and resource.
#[derive(Default)]
struct Rights(BTreeMap<(String, String), Vec<&'static str>>);

impl Rights {
    fn add(&mut self, group: &str, resource: &str, verbs: &[&'static str]) {
        let have = self
            .0
            .entry((group.to_owned(), resource.to_owned()))
            .or_default();
        for verb in verbs {
            if !have.contains(verb) {
                have.push(verb);
            }
        }
    }

    fn mesh(&mut self) {
        self.add("", "pods", READ);
        self.add("", "services", READ);
        self.add("", "namespaces", &["list"]);
        self.add("events.k8s.io", "events", &["create"]);
        self.add("discovery.k8s.io", "endpointslices", READ);
        self.add(fairlead_crds::mesh::GROUP, "meshauthorizations", READ);
        self.add(fairlead_crds::mesh::GROUP, "meshpolicies", READ);
        self.add(
            fairlead_crds::mesh::GROUP,
            "meshtrusts",
            &["get", "list", "watch", "create"],
        );
        for status in [
            "meshauthorizations/status",
            "meshpolicies/status",
            "meshtrusts/status",
        ] {
            self.add(fairlead_crds::mesh::GROUP, status, &["patch"]);
        }
        self.add("", "configmaps", &["create", "patch"]);
        self.add("authentication.k8s.io", "tokenreviews", &["create"]);
        self.add("authorization.k8s.io", "subjectaccessreviews", &["create"]);
    }

    /// One rule for all resources of a group with the same verbs.
    fn rules(self) -> Vec<PolicyRule> {
        let mut merged: BTreeMap<(String, Vec<&str>), Vec<String>> = BTreeMap::new();
        for ((group, resource), verbs) in self.0 {
            merged
                .entry((group, ordered(verbs)))
                .or_default()
                .push(resource);
        }
        merged
            .into_iter()
            .map(|((group, verbs), resources)| rule(&group, resources, &verbs, &[]))
            .collect()
    }
}

/// Verbs in the order in which people read them.
fn ordered(mut verbs: Vec<&'static str>) -> Vec<&'static str> {
    const ORDER: &[&str] = &[
        "get", "list", "watch", "create", "update", "patch", "delete",
    ];
    verbs.sort_by_key(|verb| ORDER.iter().position(|known| known == verb));
    verbs
}

fn rule(group: &str, resources: Vec<String>, verbs: &[&str], names: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources),
        resource_names: if names.is_empty() {
            None
        } else {
            Some(owned(names))
        },
        verbs: owned(verbs),
        non_resource_urls: None,
    }
}

impl Visitor for Rights {
    fn visit<K: Kind>(&mut self) {
        let (group, plural) = (K::Object::group(&()), K::Object::plural(&()));
        self.add(&group, &plural, READ);
        self.add(
            &group,
            &format!("{plural}/status"),
            &["get", "update", "patch"],
        );
        // Owner references with blockOwnerDeletion need the right to set finalizers.
        self.add(&group, &format!("{plural}/finalizers"), &["update"]);
        if K::FINALIZER.is_some() {
            self.add(&group, &plural, &["patch"]);
        }
        for child in K::CHILDREN {
            self.add(child.group, child.plural, WRITE);
        }
    }
}

/// The rules of the operator's ClusterRole.
///
/// They hold what the ClusterRoles of the components grant, so the operator needs no right to escalate.
#[must_use]
pub fn operator() -> Vec<PolicyRule> {
    let mut rights = Rights::default();
    rights.mesh();
    registry::visit(&mut rights);
    // The installation takes an owner, its namespace.
    rights.add(fairlead_crds::install::GROUP, "fairleads", &["patch"]);
    rights.add("", "namespaces", READ);
    rights.add("", "pods", READ);
    rights.add("", "pods/log", &["get"]);
    // Policies may be about them.
    for workloads in ["daemonsets", "deployments", "statefulsets"] {
        rights.add("apps", workloads, &["get"]);
    }
    for group in ["", "events.k8s.io"] {
        rights.add(group, "events", &["create", "patch"]);
    }
    rights.rules()
}

/// What a leader does with its lease.
fn leases() -> PolicyRule {
    rule(
        "coordination.k8s.io",
        vec!["leases".to_owned()],
        &["get", "watch", "create", "update"],
        &[],
    )
}

/// The rules of the operator's Role in its own namespace: the lease of the leader, the certificates, and the
/// ConfigMap with the authorities of the webhook's callers.
#[must_use]
pub fn operator_namespaced() -> Vec<PolicyRule> {
    vec![
        leases(),
        rule("", vec!["secrets".to_owned()], &["create"], &[]),
        rule(
            "",
            vec!["secrets".to_owned()],
            &["get", "update"],
            &[OWN_SECRETS, MESH_SECRETS].concat(),
        ),
        rule(
            "",
            vec!["secrets".to_owned()],
            &["list", "watch"],
            MESH_SECRETS,
        ),
        rule("", vec!["secrets".to_owned()], &["get"], &[MESH_ISSUER]),
        rule("", vec!["configmaps".to_owned()], &["get"], &[]),
    ]
}

/// The rules of the webhook's ClusterRole: it reads Fairlead's kinds to see conflicts between objects.
#[must_use]
pub fn webhook() -> Vec<PolicyRule> {
    people(Audience::View)
}

/// The rules of the ClusterRole of the mesh's control plane: it reads where traffic goes, asks whose tokens are and what those
/// may see, and writes whom to trust.
#[must_use]
pub fn mesh() -> Vec<PolicyRule> {
    let mut rights = Rights::default();
    rights.mesh();
    rights.rules()
}

/// The rules of the ClusterRole of who sees all live figures of the mesh.
#[must_use]
pub fn figures() -> Vec<PolicyRule> {
    vec![rule("", vec!["services".to_owned()], &["get"], &[])]
}

/// The rules of the Role of the mesh's control plane in its own namespace.
#[must_use]
pub fn mesh_namespaced() -> Vec<PolicyRule> {
    let secrets = || vec!["secrets".to_owned()];
    let verbs = &["get", "list", "watch", "update"];
    vec![
        leases(),
        rule("", secrets(), &["create"], &[]),
        rule("", secrets(), verbs, MESH_SECRETS),
        rule("", secrets(), &["get"], &[MESH_ISSUER]),
    ]
}

/// The rules of the Role of what keeps the CNI plug-in on a node: it asks whether its DaemonSet goes, and the plug-in with it.
#[must_use]
pub fn cni() -> Vec<PolicyRule> {
    let sets = vec!["daemonsets".to_owned()];
    vec![rule("apps", sets, &["get"], &[CNI])]
}

/// The rules of the further ClusterRole of the mesh's control plane where nodes capture: it has pods made anew that nobody captured.
#[must_use]
pub fn mesh_cni() -> Vec<PolicyRule> {
    vec![rule("", vec!["pods".to_owned()], &["delete"], &[])]
}

/// What definitions may create by default; the platform team adds ClusterRoles with the same label.
#[must_use]
pub fn provision() -> Vec<PolicyRule> {
    let mut rights = Rights::default();
    for (group, plurals) in PROVISION {
        for plural in *plurals {
            rights.add(group, plural, WRITE);
        }
    }
    rights.rules()
}

/// What people may do with Fairlead's kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Reads the catalogue: the cluster-scoped kinds that say what can be asked for and how it is provided.
    Everybody,
    /// Reads every kind.
    View,
    /// Writes what an application's team writes.
    Edit,
}

/// The namespaced kinds that an application's team writes; ResourceInstances are made by Fairlead.
const TEAM: &[(&str, &[&str])] = &[
    (
        fairlead_crds::platform::GROUP,
        &["environments", "releases", "scoreworkloads"],
    ),
    (
        fairlead_crds::mesh::GROUP,
        &["meshauthorizations", "meshpolicies"],
    ),
];

/// The rules of the ClusterRoles for people: that of the catalogue, and those that are added to Kubernetes' own view and edit.
#[must_use]
pub fn people(audience: Audience) -> Vec<PolicyRule> {
    struct All(Rights);
    impl Visitor for All {
        fn visit<K: Kind>(&mut self) {
            self.0
                .add(&K::Object::group(&()), &K::Object::plural(&()), READ);
        }
    }
    match audience {
        Audience::Everybody => {
            let mut rights = Rights::default();
            let catalogue = |crd: &CustomResourceDefinition| {
                crd.spec.group == fairlead_crds::platform::GROUP && crd.spec.scope == "Cluster"
            };
            for crd in fairlead_crds::all().into_iter().filter(catalogue) {
                rights.add(&crd.spec.group, &crd.spec.names.plural, READ);
            }
            rights.rules()
        }
        Audience::View => {
            let mut all = All(Rights::default());
            registry::visit(&mut all);
            all.0.rules()
        }
        Audience::Edit => {
            let mut rights = Rights::default();
            for (group, plurals) in TEAM {
                for plural in *plurals {
                    rights.add(group, plural, &["create", "update", "patch", "delete"]);
                }
            }
            rights.rules()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// True when the rules allow the verb.
    fn allows(rules: &[PolicyRule], group: &str, resource: &str, verb: &str) -> bool {
        rules.iter().any(|rule| {
            let has = |list: &Option<Vec<String>>, word: &str| {
                list.iter().flatten().any(|have| have == word)
            };
            has(&rule.api_groups, group)
                && has(&rule.resources, resource)
                && rule.verbs.iter().any(|have| have == verb)
        })
    }

    struct Needs<'a>(&'a [PolicyRule], Vec<String>);

    impl Needs<'_> {
        fn need(&mut self, group: &str, resource: &str, verbs: &[&str]) {
            for verb in verbs {
                if !allows(self.0, group, resource, verb) {
                    self.1.push(format!("{verb} {resource}.{group}"));
                }
            }
        }
    }

    impl Visitor for Needs<'_> {
        fn visit<K: Kind>(&mut self) {
            let (group, plural) = (K::Object::group(&()), K::Object::plural(&()));
            self.need(&group, &plural, READ);
            self.need(&group, &format!("{plural}/status"), &["patch"]);
            self.need(&group, &format!("{plural}/finalizers"), &["update"]);
            if K::FINALIZER.is_some() {
                self.need(&group, &plural, &["patch"]);
            }
            for child in K::CHILDREN {
                self.need(child.group, child.plural, WRITE);
            }
        }
    }

    #[test]
    fn the_operator_may_do_what_every_kind_needs() {
        let rules = operator();
        let mut needs = Needs(&rules, Vec::new());
        registry::visit(&mut needs);
        assert!(needs.1.is_empty(), "missing: {:?}", needs.1);
    }

    #[test]
    fn no_rule_is_a_wildcard() {
        let all = [
            operator(),
            operator_namespaced(),
            cni(),
            mesh_cni(),
            provision(),
            people(Audience::Everybody),
            people(Audience::View),
            people(Audience::Edit),
        ]
        .concat();
        for rule in all {
            let words = rule
                .verbs
                .iter()
                .chain(rule.resources.iter().flatten())
                .chain(rule.api_groups.iter().flatten());
            assert!(
                words.into_iter().all(|word| !word.contains('*')),
                "{rule:?}"
            );
        }
    }

    #[test]
    fn pods_are_deleted_only_where_nodes_capture() {
        assert!(allows(&mesh_cni(), "", "pods", "delete"));
        for rules in [operator(), mesh(), mesh_namespaced(), cni()] {
            assert!(!allows(&rules, "", "pods", "delete"), "{rules:?}");
        }
    }

    #[test]
    fn everybody_reads_the_catalogue_and_no_more() {
        let rules = people(Audience::Everybody);
        assert!(allows(
            &rules,
            "platform.fairlead.dev",
            "resourceclasses",
            "list"
        ));
        assert!(!allows(
            &rules,
            "platform.fairlead.dev",
            "environments",
            "list"
        ));
        assert!(!allows(
            &rules,
            "platform.fairlead.dev",
            "resourceclasses",
            "create"
        ));
    }

    #[test]
    fn nobody_but_the_operator_makes_resource_instances() {
        let rules = people(Audience::Edit);
        assert!(allows(
            &rules,
            "platform.fairlead.dev",
            "scoreworkloads",
            "create"
        ));
        assert!(!allows(
            &rules,
            "platform.fairlead.dev",
            "resourceinstances",
            "create"
        ));
        assert!(allows(
            &people(Audience::View),
            "platform.fairlead.dev",
            "resourceinstances",
            "watch"
        ));
    }
}
