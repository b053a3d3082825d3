//! A kind without its type: a row of functions.

use std::sync::Arc;

use fairlead_plan::kind::Kind;
use fairlead_plan::registry::{self, Visitor};
use fairlead_plan::{Cache, Event, KindName, Next, ObjectId};
use kube::Resource;
use serde_json::Value;

use super::pass;
use super::{Crash, Sim};

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) name: KindName,
    pub(super) ids: fn(&Cache) -> Vec<ObjectId>,
    pub(super) put: fn(&Cache, &Value) -> Option<ObjectId>,
    pub(super) remove: fn(&Cache, &ObjectId) -> bool,
    pub(super) triggers: fn(&Event, &Cache) -> Vec<ObjectId>,
    pub(super) pass: fn(&mut Sim, &ObjectId) -> Result<Next, Crash>,
}

/// All kinds.
pub(super) fn all() -> Vec<Entry> {
    struct Collect(Vec<Entry>);
    impl Visitor for Collect {
        fn visit<K: Kind>(&mut self) {
            self.0.push(Entry {
                name: K::NAME,
                ids: |cache| K::table(cache).ids(),
                put: put::<K>,
                remove: |cache, id| K::table(cache).remove(id).is_some(),
                triggers: K::triggers,
                pass: pass::pass::<K>,
            });
        }
    }
    let mut all = Collect(Vec::new());
    registry::visit(&mut all);
    all.0
}

/// Puts an object in; its id, unless it is there at the same version.
fn put<K: Kind>(cache: &Cache, object: &Value) -> Option<ObjectId> {
    let object: K::Object = serde_json::from_value(object.clone()).ok()?;
    let id = ObjectId::of(object.meta());
    let version = object.meta().resource_version.clone();
    let old = K::table(cache).put(id.clone(), Arc::new(object));
    old.is_none_or(|old| old.meta().resource_version != version)
        .then_some(id)
}
