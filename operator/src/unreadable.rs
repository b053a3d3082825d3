//! Objects that cannot be read, because they are of another version than ours: their users are told by an event.
//!
//! In: what watches met. Out: one Warning for each version of an object, sent by the leader; the object keeps its older state in
//! the cache until it can be read again or is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairlead_plan::report::Note;
use fairlead_plan::{KindName, ObjectId};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio_util::sync::CancellationToken;

use crate::harness::send;
use crate::world::World;

/// How often it is looked whether there is anything to tell.
const LOOK: Duration = Duration::from_secs(2);
/// The most objects that are told of; a wrong version of ours would break all of them for one reason.
const MOST: usize = 1000;

/// An object that cannot be read.
#[derive(Clone, Debug, PartialEq)]
struct Unreadable {
    regarding: ObjectReference,
    error: String,
    told: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Unreadables {
    objects: Mutex<HashMap<(KindName, ObjectId), Unreadable>>,
}

impl Unreadables {
    /// An object was met that cannot be read.
    pub(crate) fn put(
        &self,
        kind: KindName,
        id: ObjectId,
        regarding: ObjectReference,
        error: String,
    ) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, id);
        let same = objects
            .get(&key)
            .is_some_and(|known| known.regarding.resource_version == regarding.resource_version);
        if !same && (objects.len() < MOST || objects.contains_key(&key)) {
            let told = false;
            objects.insert(
                key,
                Unreadable {
                    regarding,
                    error,
                    told,
                },
            );
        }
    }

    /// It can be read again, or is gone.
    pub(crate) fn remove(&self, kind: KindName, id: &ObjectId) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if !objects.is_empty() {
            objects.remove(&(kind, id.clone()));
        }
    }

    /// What nobody was told of yet.
    fn untold(&self) -> Vec<(ObjectReference, Note)> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = objects.values_mut().filter(|found| !found.told);
        untold
            .map(|found| {
                found.told = true;
                let note = Note {
                    warning: true,
                    reason: "Unreadable".to_owned(),
                    message: format!(
                        "the object cannot be read and is worked with as it was before: {}",
                        found.error
                    ),
                };
                (found.regarding.clone(), note)
            })
            .collect()
    }
}

/// Tells of what cannot be read until `stop`.
pub(crate) async fn tell(world: Arc<World>, stop: CancellationToken) {
    loop {
        for (regarding, note) in world.feed.unreadable.untold() {
            send(&world, regarding, &[note]).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_told_once() {
        let all = Unreadables::default();
        let put = |version: &str| {
            let regarding = ObjectReference {
                resource_version: Some(version.to_owned()),
                ..ObjectReference::default()
            };
            all.put(
                KindName::Release,
                ObjectId::new("a", "x"),
                regarding,
                "missing field `spec`".to_owned(),
            );
        };
        put("1");
        assert_eq!(all.untold().len(), 1);
        put("1");
        assert!(all.untold().is_empty());
        put("2");
        assert_eq!(all.untold().len(), 1);
        all.remove(KindName::Release, &ObjectId::new("a", "x"));
        put("2");
        assert_eq!(all.untold().len(), 1);
    }
}
