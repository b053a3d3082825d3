//! Short ways to make Fairlead's objects: `class("postgres").stateful().output("host").done()`.

mod platform;
mod shop;

pub use platform::{Build, class, definition, environment, namespace, release, workload};
pub use shop::{fairlead, platform, redis_definition, shop};
