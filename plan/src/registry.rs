//! All kinds, a line each.

use crate::install::FairleadKind;
use crate::kind::Kind;
use crate::platform::{
    EnvironmentKind, ReleaseKind, ResourceClassKind, ResourceDefinitionKind,
    ResourceDefinitionRevisionKind, ResourceInstanceKind, ScoreWorkloadKind,
};

/// Something to be done for every kind.
pub trait Visitor {
    /// Does it for one kind.
    fn visit<K: Kind>(&mut self);
}

/// Visits every kind.
pub fn visit(visitor: &mut impl Visitor) {
    visitor.visit::<FairleadKind>();
    visitor.visit::<ResourceClassKind>();
    visitor.visit::<ResourceDefinitionKind>();
    visitor.visit::<ResourceDefinitionRevisionKind>();
    visitor.visit::<EnvironmentKind>();
    visitor.visit::<ScoreWorkloadKind>();
    visitor.visit::<ReleaseKind>();
    visitor.visit::<ResourceInstanceKind>();
    visitor.visit::<crate::mesh::MeshPolicyKind>();
    visitor.visit::<crate::mesh::MeshAuthorizationKind>();
    visitor.visit::<crate::mesh::MeshTrustKind>();
}
