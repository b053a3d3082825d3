//! `fairlead.dev`: the installation of Fairlead itself.

mod fairlead;

pub use fairlead::{
    Component, ComponentResources, Components, Fairlead, FairleadSpec, FairleadStatus,
    HighAvailability, MeshCapture, MeshComponent, MeshState,
};

/// The API group of this area.
pub const GROUP: &str = "fairlead.dev";
