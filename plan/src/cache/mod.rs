//! What is known of the cluster: tables that watches fill, and that passes, triggers and admission read.
//!
//! Fairlead's own kinds are held whole; of everything else only the metadata is held ([`ChildMeta`]). The operator feeds
//! the cache from watches, the simulator from its store.

mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_crds::install::Fairlead;
use fairlead_crds::labels;
use fairlead_crds::platform::{
    Environment, Release, ResourceClass, ResourceDefinition, ResourceDefinitionRevision,
    ResourceInstance, ScoreWorkload,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

pub use table::Table;

use crate::live::ObjectKey;
use crate::platform::releases;

/// The kinds that have a control loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KindName {
    /// [`fairlead_crds::install::Fairlead`].
    Fairlead,
    /// [`fairlead_crds::platform::ResourceClass`].
    ResourceClass,
    /// [`fairlead_crds::platform::ResourceDefinition`].
    ResourceDefinition,
    /// [`fairlead_crds::platform::ResourceDefinitionRevision`].
    ResourceDefinitionRevision,
    /// [`fairlead_crds::platform::Environment`].
    Environment,
    /// [`fairlead_crds::platform::ScoreWorkload`].
    ScoreWorkload,
    /// [`fairlead_crds::platform::Release`].
    Release,
    /// [`fairlead_crds::platform::ResourceInstance`].
    ResourceInstance,
    /// [`fairlead_crds::mesh::MeshPolicy`].
    MeshPolicy,
    /// [`fairlead_crds::mesh::MeshAuthorization`].
    MeshAuthorization,
    /// [`fairlead_crds::mesh::MeshTrust`].
    MeshTrust,
}

impl KindName {
    /// The kind's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fairlead => "Fairlead",
            Self::ResourceClass => "ResourceClass",
            Self::ResourceDefinition => "ResourceDefinition",
            Self::ResourceDefinitionRevision => "ResourceDefinitionRevision",
            Self::Environment => "Environment",
            Self::ScoreWorkload => "ScoreWorkload",
            Self::Release => "Release",
            Self::ResourceInstance => "ResourceInstance",
            Self::MeshPolicy => "MeshPolicy",
            Self::MeshAuthorization => "MeshAuthorization",
            Self::MeshTrust => "MeshTrust",
        }
    }
}

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectId {
    /// An id.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The id in an object's metadata.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Annotations by which the controller of Deployments counts; they are no edit of what was applied.
const COUNTED: &str = "deployment.kubernetes.io/";

/// The labels that are held: those that anything is found by, or that are handed on.
const HELD: [&str; 5] = [
    labels::MANAGED_BY,
    labels::APPLICATION,
    labels::ENVIRONMENT,
    labels::WORKLOAD,
    labels::INJECT,
];

/// What is held of an object of another kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChildMeta {
    /// Which object it is.
    pub key: Option<ObjectKey>,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// Its generation; 0 for kinds without one.
    pub generation: i64,
    /// The uid of the object that controls it.
    pub owner_uid: Option<String>,
    /// The kind and name of the object that controls it.
    pub owner: Option<(String, String)>,
    /// Its labels, those of Fairlead only.
    pub labels: BTreeMap<String, String>,
    /// A hash of labels, annotations and owners, which an edit changes without changing the generation.
    pub meta_hash: u64,
    /// True when it is being deleted.
    pub deleting: bool,
}

impl ChildMeta {
    /// What is held of an object, from its metadata.
    #[must_use]
    pub fn of(api_version: &str, kind: &str, meta: &ObjectMeta) -> Self {
        use std::hash::{Hash, Hasher};
        let owner = meta
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.controller == Some(true));
        let mut hasher = std::hash::DefaultHasher::new();
        meta.labels.hash(&mut hasher);
        let annotations = meta.annotations.iter().flatten();
        for annotation in annotations.filter(|(name, _)| !name.starts_with(COUNTED)) {
            annotation.hash(&mut hasher);
        }
        owner.map(|owner| &owner.uid).hash(&mut hasher);
        Self {
            key: Some(ObjectKey::new(
                api_version,
                kind,
                meta.namespace.as_deref(),
                meta.name.clone().unwrap_or_default(),
            )),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            owner_uid: owner.map(|owner| owner.uid.clone()),
            owner: owner.map(|owner| (owner.kind.clone(), owner.name.clone())),
            labels: meta
                .labels
                .iter()
                .flatten()
                .filter(|(name, _)| HELD.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            meta_hash: hasher.finish(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}

/// Something changed, as a watch told.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object of one of Fairlead's kinds.
    Own(KindName, ObjectId),
    /// An object of another kind: the metadata as it is, or as it last was.
    Other(Arc<ChildMeta>),
}

/// All that is known of the cluster.
pub struct Cache {
    /// Fairleads.
    pub fairleads: Table<Fairlead>,
    /// Classes, named `<type>.<class>`.
    pub classes: Table<ResourceClass>,
    /// Definitions, by type.
    pub definitions: Table<ResourceDefinition>,
    /// Revisions, by definition.
    pub revisions: Table<ResourceDefinitionRevision>,
    /// Environments, by target namespace.
    pub environments: Table<Environment>,
    /// Workloads.
    pub workloads: Table<ScoreWorkload>,
    /// Releases, by `environment:<application>/<name>` and `revision:<name>`.
    pub releases: Table<Release>,
    /// Instances, by `revision:<name>` and `dependency:<namespace>/<name>`.
    pub instances: Table<ResourceInstance>,
    /// MeshPolicy objects.
    pub meshpolicies: Table<fairlead_crds::mesh::MeshPolicy>,
    /// MeshAuthorization objects.
    pub meshauthorizations: Table<fairlead_crds::mesh::MeshAuthorization>,
    /// MeshTrust objects.
    pub meshtrusts: Table<fairlead_crds::mesh::MeshTrust>,
    /// Metadata of other objects, by `<group>/<kind>/<name>` within a namespace; indexed by owner uid.
    pub others: Table<ChildMeta>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            fairleads: Table::new(|_| Vec::new()),
            classes: Table::new(|_| Vec::new()),
            definitions: Table::new(|definition| vec![definition.spec.type_.clone()]),
            revisions: Table::new(|revision| vec![revision.spec.definition.clone()]),
            environments: Table::new(|environment| vec![releases::target_namespace(environment)]),
            workloads: Table::new(|_| Vec::new()),
            releases: Table::new(releases::index_release),
            instances: Table::new(releases::index_instance),
            meshpolicies: Table::new(|_| Vec::new()),
            meshauthorizations: Table::new(|_| Vec::new()),
            meshtrusts: Table::new(|_| Vec::new()),
            others: Table::new(|child| child.owner_uid.clone().into_iter().collect()),
        }
    }
}

impl Cache {
    fn other_id(key: &ObjectKey) -> ObjectId {
        ObjectId::new(
            key.namespace.clone().unwrap_or_default(),
            format!("{}/{}/{}", key.group(), key.kind, key.name),
        )
    }

    /// The metadata of an object of another kind.
    pub fn other(&self, key: &ObjectKey) -> Option<Arc<ChildMeta>> {
        self.others.by_id(&Self::other_id(key))
    }

    /// Puts in the metadata of an object of another kind.
    pub fn put_other(&self, meta: ChildMeta) -> Option<Arc<ChildMeta>> {
        let id = Self::other_id(meta.key.as_ref()?);
        self.others.put(id, Arc::new(meta))
    }

    /// Takes out an object of another kind.
    pub fn remove_other(&self, key: &ObjectKey) -> Option<Arc<ChildMeta>> {
        self.others.remove(&Self::other_id(key))
    }

    /// The namespace with this name.
    pub fn namespace(&self, name: &str) -> Option<Arc<ChildMeta>> {
        self.other(&ObjectKey::new("v1", "Namespace", None, name))
    }

    /// The objects of other kinds that the object with this uid controls and that are not being deleted.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<ChildMeta>> {
        let mut owned = self.others.with_term(uid);
        owned.retain(|child| !child.deleting);
        owned
    }
}

/// True when Fairlead made the object with these labels.
#[must_use]
pub fn is_ours(found: &BTreeMap<String, String>) -> bool {
    found
        .get(labels::MANAGED_BY)
        .is_some_and(|value| value == labels::MANAGER)
}

/// The metadata of an object given as JSON.
#[must_use]
pub fn meta_of(object: &Value) -> ObjectMeta {
    object
        .get("metadata")
        .cloned()
        .and_then(|meta| serde_json::from_value(meta).ok())
        .unwrap_or_default()
}
