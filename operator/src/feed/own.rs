//! The watch of one of Fairlead's own kinds.

use std::collections::HashSet;
use std::sync::Arc;

use fairlead_plan::kind::Kind;
use fairlead_plan::{Event, ObjectId};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};

use super::{Feed, strip};

/// Watches until the feed stops.
pub(super) async fn run<K: Kind>(feed: Arc<Feed>) {
    let api: Api<DeserializeGuard<K::Object>> = Api::all_with(feed.client.clone(), &());
    let stream = watcher(api, watcher::Config::default().page_size(200)).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listed: HashSet<ObjectId> = HashSet::new();
    let mut first = true;
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            () = feed.stop.cancelled() => return,
        };
        match next {
            None => return,
            Some(Err(error)) => {
                feed.metrics.watch_error(K::NAME.as_str());
                tracing::warn!(kind = K::NAME.as_str(), %error, "watch failed and is tried again");
            }
            Some(Ok(watcher::Event::Init)) => {
                listed.clear();
                if !first {
                    feed.metrics.restart(K::NAME.as_str());
                }
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                listed.insert(ObjectId::of(object.meta()));
                put::<K>(&feed, object);
            }
            Some(Ok(watcher::Event::InitDone)) => {
                let gone = K::table(&feed.cache)
                    .ids()
                    .into_iter()
                    .filter(|id| !listed.contains(id));
                for id in gone {
                    remove::<K>(&feed, id);
                }
                listed = HashSet::new();
                if std::mem::take(&mut first) {
                    feed.one_synced();
                }
                feed.metrics
                    .cached(K::NAME.as_str(), K::table(&feed.cache).len());
            }
            Some(Ok(watcher::Event::Apply(object))) => put::<K>(&feed, object),
            Some(Ok(watcher::Event::Delete(object))) => {
                remove::<K>(&feed, ObjectId::of(object.meta()))
            }
        }
    }
}

fn put<K: Kind>(feed: &Feed, object: DeserializeGuard<K::Object>) {
    let mut object = match object.0 {
        Ok(object) => object,
        Err(invalid) => {
            feed.metrics.invalid(K::NAME.as_str());
            let id = ObjectId::of(&invalid.metadata);
            tracing::error!(kind = K::NAME.as_str(), object = %id, error = invalid.error, "object cannot be read and is left out");
            let regarding = ObjectReference {
                api_version: Some(K::Object::api_version(&()).into_owned()),
                kind: Some(K::NAME.as_str().to_owned()),
                namespace: invalid.metadata.namespace,
                name: invalid.metadata.name,
                uid: invalid.metadata.uid,
                resource_version: invalid.metadata.resource_version,
                field_path: None,
            };
            feed.unreadable.put(K::NAME, id, regarding, invalid.error);
            return;
        }
    };
    strip(object.meta_mut());
    let id = ObjectId::of(object.meta());
    feed.unreadable.remove(K::NAME, &id);
    let version = object.meta().resource_version.clone();
    let old = K::table(&feed.cache).put(id.clone(), Arc::new(object));
    if old.is_none_or(|old| old.meta().resource_version != version) {
        feed.tell(Event::Own(K::NAME, id));
    }
}

fn remove<K: Kind>(feed: &Feed, id: ObjectId) {
    feed.unreadable.remove(K::NAME, &id);
    if K::table(&feed.cache).remove(&id).is_some() {
        feed.tell(Event::Own(K::NAME, id));
    }
}
