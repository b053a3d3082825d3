//! A cluster takes the place of another once it is ready; until then the other one serves.

use fairlead_model::Snapshot;
use fairlead_model::cluster::{Address, Cluster, Discovery, Endpoints};
use fairlead_proxy::{Shared, upkeep};
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;

/// How soon a file that changed is surely read.
const READ: Duration = Duration::from_millis(2500);

/// An endpoint whose checks are answered after so long.
async fn slow(name: &'static str, after: Duration) -> Endpoint {
    Endpoint::start(move |request, _| async move {
        if request.uri().path() == "/well" {
            tokio::time::sleep(after).await;
        }
        text_answer(200, name)
    })
    .await
}

fn slow_check() -> Value {
    let mut own = check("http_health_check", json!({"path": "/well"}));
    own[0]["timeout"] = json!("5s");
    own
}

/// Asks until another answers than `before`, which is who answers till then.
async fn until_other(listen: SocketAddr, path: &str, before: &str, other: &str) {
    for _ in 0..500 {
        let (status, body) = get(listen, path).await;
        assert_eq!(status, 200, "{body}");
        if body == other {
            return;
        }
        assert_eq!(body, before);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{before} still answers");
}

#[tokio::test]
async fn requests_wait_for_the_first_checks() {
    let good = slow("good", Duration::from_millis(700)).await;
    let listen = free();
    let mut up = cluster("up", "STATIC", &[socket(free()), socket(good.address)]);
    up["health_checks"] = slow_check();
    let proxy = Program::ours("warm-start", &bootstrap(listen, &[up])).await;
    let asked: Vec<_> = (0..8).map(|_| tokio::spawn(get(listen, "/up"))).collect();
    for answer in asked {
        assert_eq!(answer.await.expect("an answer").0, 200, "{}", proxy.log());
    }
}

#[tokio::test]
async fn a_changed_cluster_is_used_once_it_was_checked() {
    let (old, new) = (
        slow("old", Duration::ZERO).await,
        slow("new", Duration::from_secs(2)).await,
    );
    let listen = free();
    let mut up = cluster("up", "STATIC", &[socket(old.address)]);
    let mut text = bootstrap(listen, &[up.clone()]);
    let proxy = Program::ours("warm-checks", &text).await;
    assert_eq!(get(listen, "/up").await, (200, "old".to_owned()));
    up["load_assignment"]["endpoints"] = json!([{"lb_endpoints": [
        {"endpoint": {"address": socket(free())}},
        {"endpoint": {"address": socket(new.address)}},
    ]}]);
    up["health_checks"] = slow_check();
    text["static_resources"]["clusters"] = json!([up]);
    proxy.write(&text);
    until_other(listen, "/up", "old", "new").await;
    for _ in 0..10 {
        assert_eq!(get(listen, "/up").await, (200, "new".to_owned()));
    }
}

#[tokio::test]
async fn a_changed_cluster_is_used_once_its_name_was_looked_up() {
    let answer = Arc::new(Mutex::new(Answer::Silence));
    let server = name_server(Arc::clone(&answer)).await;
    let port = endpoint_at([127, 0, 0, 1], free().port()).await.port();
    let listen = free();
    let old = Endpoint::start(|_, _| async { text_answer(200, "old") }).await;
    let before = cluster("up", "STATIC", &[socket(old.address)]);
    let mut text = bootstrap(listen, &[before]);
    let proxy = Program::ours("warm-name", &text).await;
    assert_eq!(get(listen, "/up").await, (200, "old".to_owned()));
    text["static_resources"]["clusters"] = json!([named("up", "cart.example", port, server)]);
    proxy.write(&text);
    tokio::time::sleep(READ).await;
    assert_eq!(get(listen, "/up").await, (200, "old".to_owned()));
    *answer.lock().expect("nobody panicked") = Answer::Addresses(vec![[127, 0, 0, 1]]);
    until_other(listen, "/up", "old", "127.0.0.1").await;
}

#[tokio::test]
async fn routes_go_to_a_new_cluster_once_it_is_ready() {
    let answer = Arc::new(Mutex::new(Answer::Failure));
    let server = name_server(Arc::clone(&answer)).await;
    let port = endpoint_at([127, 0, 0, 1], free().port()).await.port();
    let listen = free();
    let old = Endpoint::start(|_, _| async { text_answer(200, "old") }).await;
    let mut text = bootstrap(listen, &[cluster("up", "STATIC", &[socket(old.address)])]);
    let proxy = Program::ours("warm-route", &text).await;
    assert_eq!(get(listen, "/up").await, (200, "old".to_owned()));
    // The old cluster is gone, and the same path goes to another.
    text["static_resources"]["clusters"] = json!([named("other", "cart.example", port, server)]);
    let route =
        "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route";
    let listener = &mut text["static_resources"]["listeners"][0];
    *listener.pointer_mut(route).expect("a route") = json!({"cluster": "other"});
    proxy.write(&text);
    tokio::time::sleep(READ).await;
    assert_eq!(get(listen, "/up").await, (200, "old".to_owned()));
    *answer.lock().expect("nobody panicked") = Answer::Addresses(vec![[127, 0, 0, 1]]);
    until_other(listen, "/up", "old", "127.0.0.1").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_longer_than_15_s() {
    let told = |discovery: fn(Arc<Endpoints>) -> Discovery| {
        let mut endpoints = Endpoints::at([([127, 0, 0, 1], 1).into()]);
        endpoints.localities[0].endpoints[0].address = Address::Name("nobody.example".into(), 1);
        let mut own = Cluster::of("up", Endpoints::default());
        own.discovery = discovery(Arc::new(endpoints));
        // Nobody answers there, and no name is known.
        own.names.servers = vec![([127, 0, 0, 1], 1).into()];
        let mut snapshot = Snapshot::default();
        snapshot.clusters.insert("up".into(), Arc::new(own));
        Arc::new(snapshot)
    };
    let (old, new) = (told(Discovery::Static), told(Discovery::StrictDns));
    let (tell, given) = watch::channel(Arc::clone(&old));
    let (live, mut used) = watch::channel(Arc::default());
    tokio::spawn(upkeep::run(Shared::new(1), given, live));
    let is = |own: &Arc<Snapshot>, of: &Arc<Snapshot>| own.clusters == of.clusters;
    used.wait_for(|own| is(own, &old)).await.expect("it runs");
    let begun = Instant::now();
    tell.send_replace(Arc::clone(&new));
    used.wait_for(|own| is(own, &new)).await.expect("it runs");
    let took = begun.elapsed().as_secs();
    assert!((15..=16).contains(&took), "{took}");
}
