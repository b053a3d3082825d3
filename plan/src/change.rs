//! What a pass wants done: data, complete before the first write.

use std::time::Duration;

use serde_json::Value;

use crate::live::ObjectKey;
use crate::problem::Problem;

/// Everything that one pass over one object wants done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The writes, in the order in which they are done.
    pub changes: Vec<Change>,
    /// Why the object is not ready although nothing failed, if so.
    pub problem: Option<Problem>,
    /// When to look again if nothing happens before; the harness' hourly visit where unset.
    pub wake: Option<Duration>,
}

impl Plan {
    /// A plan that does nothing because of a problem.
    #[must_use]
    pub fn blocked(problem: Problem) -> Self {
        Self {
            problem: Some(problem),
            ..Self::default()
        }
    }
}

/// One write.
#[derive(Clone, Debug)]
pub struct Change {
    /// What to do.
    pub verb: Verb,
    /// The object that is written.
    pub key: ObjectKey,
    /// A word for events: why, such as `Provision` or `Prune`.
    pub reason: &'static str,
    /// A sentence for people.
    pub note: String,
}

/// What to do with an object.
#[derive(Clone, Debug)]
pub enum Verb {
    /// Server-side apply of the fields given.
    Apply(Body),
    /// Create it, and leave it as it is where it exists.
    Create(Body),
    /// Delete it, with what it owns first, if it still has this uid.
    Delete {
        /// The uid that is meant.
        uid: String,
    },
}

/// An object to write. Its `Debug` form names it and shows nothing of its content, which may be secret.
#[derive(Clone, PartialEq)]
pub struct Body(pub Value);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.0.get("kind").and_then(Value::as_str).unwrap_or("?");
        let name = self
            .0
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or("?");
        write!(f, "{kind} {name}")
    }
}

impl Change {
    /// A server-side apply of an object.
    pub fn apply(object: Value, reason: &'static str, note: impl Into<String>) -> Self {
        Self {
            key: ObjectKey::of(&object),
            verb: Verb::Apply(Body(object)),
            reason,
            note: note.into(),
        }
    }

    /// A creation that leaves an existing object alone.
    pub fn create(object: Value, reason: &'static str, note: impl Into<String>) -> Self {
        Self {
            key: ObjectKey::of(&object),
            verb: Verb::Create(Body(object)),
            reason,
            note: note.into(),
        }
    }

    /// A deletion of the object with this uid.
    pub fn delete(
        key: ObjectKey,
        uid: impl Into<String>,
        reason: &'static str,
        note: impl Into<String>,
    ) -> Self {
        Self {
            key,
            verb: Verb::Delete { uid: uid.into() },
            reason,
            note: note.into(),
        }
    }
}
