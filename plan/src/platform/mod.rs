//! `platform.fairlead.dev`: from a workload file to running containers and the resources they need.

mod environment;
pub mod graph;
pub mod matching;
pub mod parameters;
pub mod placeholders;
mod release;
pub mod releases;
mod resource_class;
mod resource_definition;
mod resource_definition_revision;
mod resource_instance;
pub mod score;
mod score_workload;

pub use environment::{EnvironmentKind, release_object};
pub use release::{ReleaseKind, place};
pub use resource_class::ResourceClassKind;
pub use resource_definition::{
    ResourceDefinitionKind, check_outputs as check_definition, revision_name,
};
pub use resource_definition_revision::ResourceDefinitionRevisionKind;
pub use resource_instance::ResourceInstanceKind;
pub use score_workload::ScoreWorkloadKind;
