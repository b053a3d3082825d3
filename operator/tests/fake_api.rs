//! The whole operator against an API server in memory: the harness, its watches, its lease and its events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_operator::metrics::Metrics;
use fairlead_operator::{Config, RunError, run_with};
use fairlead_plan::ObjectKey;
use fairlead_testkit::api::FakeApi;
use fairlead_testkit::store::{Propagation, Store};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PLATFORM: &str = "platform.fairlead.dev/v1alpha1";
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), RunError>>,
}

fn start(api: &FakeApi, identity: &str, resync_seconds: u64) -> Running {
    let config = Config {
        namespace: "fairlead-system".to_owned(),
        identity: identity.to_owned(),
        image: "fairlead:test".to_owned(),
        image_pull_policy: String::new(),
        image_pull_secrets: Vec::new(),
        proxy_image: "fairlead-proxy:test".to_owned(),
        admin: ([127, 0, 0, 1], 0).into(),
        concurrency: 4,
        resync_seconds,
    };
    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::default());
    let ended = tokio::spawn(run_with(api.client(), metrics, config, stop.clone()));
    Running { stop, ended }
}

async fn end(running: Running) {
    running.stop.cancel();
    let ended = running.ended.await.expect("the operator does not panic");
    ended.expect("the operator ends in order");
}

fn put(api: &FakeApi, object: Value) {
    api.with(|store| store.apply(&object))
        .expect("the object is sound");
}

fn namespaces(api: &FakeApi) {
    for name in ["default", "fairlead-system", "shop"] {
        put(
            api,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
    }
}

fn environment(api: &FakeApi) {
    put(
        api,
        json!({
            "apiVersion": PLATFORM, "kind": "Environment",
            "metadata": {"name": "dev", "namespace": "shop"}, "spec": {"type": "development"},
        }),
    );
}

/// An application with an environment, a type that is written down, and a release of one workload that needs it.
fn application(api: &FakeApi) {
    namespaces(api);
    put(
        api,
        json!({
            "apiVersion": PLATFORM, "kind": "ResourceClass", "metadata": {"name": "store.default"},
            "spec": {"type": "store", "class": "default", "description": "A store.", "outputs": [{"name": "host"}]},
        }),
    );
    put(
        api,
        json!({
            "apiVersion": PLATFORM, "kind": "ResourceDefinition", "metadata": {"name": "store"},
            "spec": {"type": "store", "driver": "Static", "criteria": [{}], "outputs": [{"name": "host", "value": "store.example"}]},
        }),
    );
    environment(api);
    release(api, 1, json!({"store": {"type": "store"}}));
}

fn release(api: &FakeApi, number: u32, resources: Value) {
    put(
        api,
        json!({
            "apiVersion": PLATFORM, "kind": "Release", "metadata": {"name": format!("dev-{number}"), "namespace": "shop"},
            "spec": {"environment": "dev", "workloads": [{"name": "web", "spec": {
                "containers": {"main": {"image": "web:1"}}, "resources": resources,
            }}]},
        }),
    );
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn platform(kind: &str, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(PLATFORM, kind, Some(namespace), name)
}

fn deployment() -> ObjectKey {
    ObjectKey::new("apps/v1", "Deployment", Some("shop-dev"), "web")
}

fn exists(api: &FakeApi, key: &ObjectKey) -> bool {
    api.with(|store| store.get(key).is_some())
}

/// The reason of an object's Ready.
fn reason(api: &FakeApi, key: &ObjectKey) -> String {
    let of = |store: &mut Store| {
        let found = store.get(key)?.pointer("/status/conditions/0/reason")?;
        found.as_str().map(str::to_owned)
    };
    api.with(of).unwrap_or_default()
}

fn instances(api: &FakeApi) -> Vec<ObjectKey> {
    api.with(|store| {
        let all = store.of_kind("ResourceInstance");
        all.map(|(key, _)| key.clone()).collect()
    })
}

/// The codes of the answers to writes of a path.
fn answers(api: &FakeApi, method: &str, path: &str) -> Vec<String> {
    let writes = api.writes().into_iter();
    writes
        .filter(|line| line.starts_with(method) && line.contains(path))
        .filter_map(|line| line.rsplit(' ').next().map(str::to_owned))
        .collect()
}

/// Waits until nothing but the lease was written for a while, longer than words are held back.
async fn rest(api: &FakeApi) {
    let (mut last, mut since) = (0, Instant::now());
    let began = Instant::now();
    while since.elapsed() < Duration::from_secs(6) {
        let writes = api.writes();
        assert!(
            began.elapsed() < PATIENCE * 2,
            "it does not come to rest: {:?}",
            &writes[writes.len().saturating_sub(12)..]
        );
        let count = writes.iter().filter(|l| !l.contains("/leases")).count();
        if count != last {
            (last, since) = (count, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_release_comes_up_and_later_passes_write_nothing() {
    let api = FakeApi::default();
    application(&api);
    // A resync each second: at rest, six of them write nothing.
    let running = start(&api, "a", 1);
    eventually("the Deployment is there", || exists(&api, &deployment())).await;
    rest(&api).await;
    assert!(
        !answers(&api, "POST", "/events").is_empty(),
        "no event was sent"
    );
    let refused = api.writes().into_iter().find(|line| line.ends_with(" 422"));
    assert_eq!(refused, None);
    let applied = answers(&api, "PATCH", "/deployments/web").len();
    // When somebody else changes what was applied, it is put back.
    api.with(|store| {
        store.edit(&deployment(), |object| {
            object["spec"]["replicas"] = 7.into()
        })
    })
    .expect("the Deployment can be edited");
    eventually("the Deployment is applied again", || {
        answers(&api, "PATCH", "/deployments/web").len() > applied
    })
    .await;
    end(running).await;
}

#[tokio::test]
async fn failures_are_tried_again_until_they_pass() {
    let api = FakeApi::default();
    application(&api);
    for code in [429, 500, 409, 404] {
        api.fail(Method::PATCH, "/deployments/web", code, "not now");
    }
    api.fail(Method::PUT, "/releases/dev-1/status", 409, "changed");
    let running = start(&api, "a", 3600);
    eventually("the Deployment is there in the end", || {
        exists(&api, &deployment())
    })
    .await;
    let codes = answers(&api, "PATCH", "/deployments/web");
    assert_eq!(codes[..5], ["429", "500", "409", "404", "200"]);
    // A kind that was not found is asked for anew: it may have been made again.
    assert!(
        api.reads("/apis/apps/v1") >= 2,
        "the kind is not looked up again"
    );
    end(running).await;
}

#[tokio::test]
async fn a_missing_right_is_told_by_the_object() {
    let api = FakeApi::default();
    application(&api);
    let message = "deployments.apps is forbidden: User \"x\" cannot patch resource";
    for _ in 0..100 {
        api.fail(Method::PATCH, "/deployments/web", 403, message);
    }
    let running = start(&api, "a", 3600);
    eventually("the rule to add is told", || {
        let all = instances(&api);
        all.iter()
            .any(|key| reason(&api, key) == "MissingPermission")
    })
    .await;
    assert_eq!(instances(&api).len(), 2);
    end(running).await;
}

#[tokio::test]
async fn what_is_not_needed_goes_and_what_is_paused_is_left_alone() {
    let api = FakeApi::default();
    application(&api);
    let running = start(&api, "a", 3600);
    eventually("both instances are there", || instances(&api).len() == 2).await;
    let first = platform("Release", "shop", "dev-1");
    release(&api, 2, json!({}));
    eventually("the first release is superseded", || {
        reason(&api, &first) == "Superseded"
    })
    .await;
    let pause = |object: &mut Value| {
        object["metadata"]["annotations"] = json!({"fairlead.dev/paused": "true"});
    };
    api.with(|store| store.edit(&first, pause))
        .expect("the release can be annotated");
    eventually("the pause is told", || reason(&api, &first) == "Paused").await;
    end(running).await;
}

#[tokio::test]
async fn an_environment_is_held_until_it_is_taken_down() {
    let api = FakeApi::default();
    namespaces(&api);
    environment(&api);
    let key = platform("Environment", "shop", "dev");
    let running = start(&api, "a", 3600);
    eventually("the environment is reported", || {
        !reason(&api, &key).is_empty()
    })
    .await;
    let namespace = ObjectKey::new("v1", "Namespace", None, "shop-dev");
    eventually("its namespace is there", || exists(&api, &namespace)).await;
    api.with(|store| store.delete(&key, None, Propagation::Background))
        .expect("the environment can be deleted");
    assert!(exists(&api, &key), "no finalizer holds it");
    eventually("its namespace is deleted", || {
        !answers(&api, "DELETE", "/namespaces/shop-dev").is_empty()
    })
    .await;
    end(running).await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_told_of_once() {
    let api = FakeApi::default();
    application(&api);
    let running = start(&api, "a", 3600);
    let key = platform("Release", "shop", "dev-1");
    eventually("the release is reported", || !reason(&api, &key).is_empty()).await;
    api.with(|store| store.put_as_is(&key, |object| object["spec"] = json!({"environment": 7})));
    let told = || {
        api.with(|store| {
            let events = store.of_kind("Event");
            events
                .filter(|(_, event)| event["reason"] == "Unreadable")
                .count()
        })
    };
    eventually("its user is told", || told() == 1).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(told(), 1);
    end(running).await;
}

#[tokio::test]
async fn a_lease_that_is_given_back_is_taken_at_once() {
    let api = FakeApi::default();
    namespaces(&api);
    let lease = ObjectKey::new(
        "coordination.k8s.io/v1",
        "Lease",
        Some("fairlead-system"),
        "fairlead-operator",
    );
    let holder = || {
        let of = |store: &mut Store| {
            let holder = store.get(&lease)?.pointer("/spec/holderIdentity")?;
            holder.as_str().map(str::to_owned)
        };
        api.with(of).unwrap_or_default()
    };
    let first = start(&api, "a", 3600);
    eventually("a leads", || holder() == "a").await;
    let second = start(&api, "b", 3600);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(holder(), "a");
    let began = Instant::now();
    end(first).await;
    eventually("b leads", || holder() == "b").await;
    assert!(
        began.elapsed() < Duration::from_millis(700),
        "it took {:?}",
        began.elapsed()
    );
    end(second).await;
}
