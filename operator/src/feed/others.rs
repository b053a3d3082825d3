//! The watch of the metadata of a kind that is not Fairlead's own.

use std::collections::HashSet;
use std::sync::Arc;

use fairlead_plan::cache::ChildMeta;
use fairlead_plan::{Event, ObjectKey};
use futures::StreamExt;
use kube::Api;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};

use super::{Feed, strip};

/// Watches until the feed stops. `counts`: the process is ready only once this watch has listed.
pub(super) async fn run(
    feed: Arc<Feed>,
    resource: ApiResource,
    selector: Option<String>,
    counts: bool,
) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(feed.client.clone(), &resource);
    let mut config = watcher::Config::default().page_size(500);
    if let Some(selector) = &selector {
        config = config.labels(selector);
    }
    let stream = watcher(api, config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listed: HashSet<ObjectKey> = HashSet::new();
    let mut known: HashSet<ObjectKey> = HashSet::new();
    let mut first = true;
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            () = feed.stop.cancelled() => return,
        };
        match next {
            None => return,
            Some(Err(error)) => {
                feed.metrics.watch_error(&resource.kind);
                tracing::warn!(kind = resource.kind, group = resource.group, %error, "watch failed and is tried again");
            }
            Some(Ok(watcher::Event::Init)) => {
                listed.clear();
                if !first {
                    feed.metrics.restart(&resource.kind);
                }
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                let key = put(&feed, &resource, object);
                known.insert(key.clone());
                listed.insert(key);
            }
            Some(Ok(watcher::Event::InitDone)) => {
                for key in known.iter().filter(|key| !listed.contains(*key)) {
                    remove(&feed, key);
                }
                known = std::mem::take(&mut listed);
                if std::mem::take(&mut first) && counts {
                    feed.one_synced();
                }
            }
            Some(Ok(watcher::Event::Apply(object))) => {
                known.insert(put(&feed, &resource, object));
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                let key = key(&resource, &object);
                known.remove(&key);
                remove(&feed, &key);
            }
        }
    }
}

fn key(resource: &ApiResource, object: &PartialObjectMeta<DynamicObject>) -> ObjectKey {
    let meta = &object.metadata;
    ObjectKey::new(
        resource.api_version.clone(),
        resource.kind.clone(),
        meta.namespace.as_deref(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn put(
    feed: &Feed,
    resource: &ApiResource,
    mut object: PartialObjectMeta<DynamicObject>,
) -> ObjectKey {
    strip(&mut object.metadata);
    let key = key(resource, &object);
    let meta = ChildMeta::of(&resource.api_version, &resource.kind, &object.metadata);
    let version = meta.resource_version.clone();
    let old = feed.cache.put_other(meta);
    if old.is_none_or(|old| old.resource_version != version)
        && let Some(meta) = feed.cache.other(&key)
    {
        feed.tell(Event::Other(meta));
    }
    key
}

fn remove(feed: &Feed, key: &ObjectKey) {
    if let Some(old) = feed.cache.remove_other(key) {
        feed.tell(Event::Other(old));
    }
}
