use super::*;
use crate::rng::Rng;

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "a"}, "data": {"x": value}})
}

fn store() -> Store {
    let mut store = Store::default();
    store
        .create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}))
        .expect("the store is empty");
    store
}

#[test]
fn an_apply_that_changes_nothing_keeps_the_version() {
    let mut store = store();
    let first = store.apply(&config_map("x", "1")).expect("it is sound");
    let second = store.apply(&config_map("x", "1")).expect("it is sound");
    assert_eq!(first, second);
    let third = store.apply(&config_map("x", "2")).expect("it is sound");
    assert_ne!(
        text(&first, "/metadata/resourceVersion"),
        text(&third, "/metadata/resourceVersion")
    );
}

#[test]
fn a_status_at_a_stale_version_is_a_conflict() {
    let mut store = store();
    let old = store.apply(&config_map("x", "1")).expect("it is sound");
    store.apply(&config_map("x", "2")).expect("it is sound");
    let refused = store.replace_status(
        &ObjectKey::of(&old),
        text(&old, "/metadata/resourceVersion"),
        json!({}),
    );
    assert_eq!(refused.map_err(|refused| refused.code), Err(409));
}

#[test]
fn a_missing_namespace_is_refused() {
    let mut store = Store::default();
    assert_eq!(
        store
            .create(&config_map("x", "1"))
            .map_err(|refused| refused.code),
        Err(404)
    );
}

#[test]
fn foreground_deletion_takes_what_is_owned_first() {
    let mut store = store();
    let owner = store
        .create(&config_map("owner", "1"))
        .expect("it is sound");
    let mut child = config_map("child", "1");
    child["metadata"]["ownerReferences"] =
        json!([{"uid": text(&owner, "/metadata/uid"), "controller": true}]);
    store.create(&child).expect("it is sound");
    store
        .delete(&ObjectKey::of(&owner), None, Propagation::Foreground)
        .expect("it exists");
    assert!(store.get(&ObjectKey::of(&owner)).is_some());
    let mut rng = Rng::new(1);
    while store.act(&mut rng) {}
    assert!(store.get(&ObjectKey::of(&child)).is_none());
    assert!(store.get(&ObjectKey::of(&owner)).is_none());
}

#[test]
fn the_end_of_a_namespace_takes_its_content() {
    let mut store = store();
    store.create(&config_map("x", "1")).expect("it is sound");
    let namespace = ObjectKey::new("v1", "Namespace", None, "a");
    store
        .delete(&namespace, None, Propagation::Background)
        .expect("it exists");
    assert_eq!(
        store
            .create(&config_map("y", "1"))
            .map_err(|refused| refused.code),
        Err(403)
    );
    let mut rng = Rng::new(1);
    while store.act(&mut rng) {}
    assert_eq!(store.all().count(), 0);
}
