//! `fairlead.dev`: the installation of Fairlead itself.

mod fairlead;

pub use fairlead::FairleadKind;
