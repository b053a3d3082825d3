//! Mistakes to plant, to see that the simulator finds them.

use fairlead_plan::kind::{Context, Kind};
use fairlead_plan::{Change, Event, KindName};
use serde_json::Value;

/// A mistake: functions that stand between a kind and what runs it. Nothing is wrong by default.
#[derive(Clone, Copy)]
pub struct Bug {
    /// Changes the object before its pass sees it.
    pub seen: Option<fn(&mut Value)>,
    /// Changes what a pass over an object wants.
    pub changes: fn(&Value, &mut Vec<Change>, &Context),
    /// True where a kind overlooks an event.
    pub drops_trigger: fn(KindName, &Event) -> bool,
}

impl Default for Bug {
    fn default() -> Self {
        Self {
            seen: None,
            changes: |_, _, _| {},
            drops_trigger: |_, _| false,
        }
    }
}

impl Bug {
    pub(super) fn object<K: Kind>(&self, object: &K::Object) -> K::Object {
        let Some(seen) = self.seen else {
            return object.clone();
        };
        let mut value = serde_json::to_value(object).unwrap_or_default();
        seen(&mut value);
        serde_json::from_value(value).unwrap_or_else(|_| object.clone())
    }
}
