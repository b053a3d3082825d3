//! What people do, and what must come of it.

mod environments;
mod failures;
mod releases;
mod resources;
