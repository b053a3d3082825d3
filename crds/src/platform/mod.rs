//! `platform.fairlead.dev`: what an application needs, how it is provided, and what runs where.

mod environment;
mod release;
mod resource_class;
mod resource_definition;
mod resource_definition_revision;
mod resource_instance;
mod score;
mod score_workload;

pub use environment::{DeployMode, Environment, EnvironmentSpec, EnvironmentStatus, Pin};
pub use release::{
    DeletionPolicy, Release, ReleaseSpec, ReleaseStatus, ReleaseWorkload, ResolvedResource,
    ResourcePin,
};
pub use resource_class::{ClassOutput, ResourceClass, ResourceClassSpec, ResourceClassStatus};
pub use resource_definition::{
    Criterion, Driver, GeneratedValue, ManifestTemplate, Output, RequiredResource,
    ResourceDefinition, ResourceDefinitionSpec, ResourceDefinitionStatus, SecretKeySource,
};
pub use resource_definition_revision::{
    ResourceDefinitionRevision, ResourceDefinitionRevisionSpec, ResourceDefinitionRevisionStatus,
};
pub use resource_instance::{
    Dependency, DependencyScope, ObjectReference, ResourceInstance, ResourceInstanceSpec,
    ResourceInstanceStatus, SecretOutputs, WorkloadNode,
};
pub use score::{
    Before, BeforeReady, Container, ContainerResources, Exec, File, HttpGet, HttpHeader, Probe,
    Protocol, Quantities, ResourceMetadata, ResourceRequest, Scheme, ScoreMetadata, ScoreSpec,
    Service, ServicePort, Volume,
};
pub use score_workload::{
    ScoreWorkload, ScoreWorkloadSpec, ScoreWorkloadStatus, WorkloadEnvironment,
};

/// The API group of this area.
pub const GROUP: &str = "platform.fairlead.dev";

/// The class of a request that names none.
pub const DEFAULT_CLASS: &str = "default";

/// The type of the node that stands for a workload in a release's graph.
pub const WORKLOAD_TYPE: &str = "workload";
