//! MeshAuthorizations between two pods, through their proxies: who is let in, who is told what, and what is counted.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fairlead_mesh::facts::{Facts, Spoken};
use fairlead_proxy::Shared;
use serde_json::{Value, json};
use support::Control;
use support::place::{Place, authorized, bridge, cluster, figure, shop};

const PATIENCE: Duration = Duration::from_secs(10);

/// Two pods, web and cart, with their proxies.
struct Shop {
    control: Control,
    place: Arc<Place>,
    /// The proxy of the cart.
    far: Arc<Shared>,
    near: Arc<Shared>,
}

impl Shop {
    async fn open(facts: &Facts) -> Self {
        let control = Control::start(Duration::from_secs(3600)).await;
        control.tell(facts);
        let place = Place::new();
        let path: PathBuf = place.folder.join("control");
        bridge(&path, &control);
        place.application(8080, shop);
        let start = |place: &Place, number: usize, name: &str| {
            let address = json!({"pipe": {"path": path}});
            let bootstrap = control.bootstrap(("shop", name), &place.folder, address);
            place.proxy(number, bootstrap.to_string())
        };
        let (near, far) = (start(&place, 0, "web"), start(&place, 1, "cart"));
        Self {
            control,
            place: Arc::new(place),
            far,
            near,
        }
    }

    /// What the web is answered by the cart, once that begins with a status.
    async fn answer(&self, head: &str, status: u16) -> String {
        let request = format!("{head}\r\nhost: cart\r\nconnection: close\r\n\r\n");
        let wanted = format!("HTTP/1.1 {status}");
        let place = Arc::clone(&self.place);
        let asked = tokio::task::spawn_blocking(move || {
            let answer = place.answer("10.96.0.1:80", &request, &wanted);
            assert!(answer.starts_with(&wanted), "{answer}");
            answer
        });
        asked.await.expect("it ran")
    }

    /// Waits until a figure of the cart's proxy is at least so high.
    async fn counted(&self, name: &str, least: i128) {
        let begun = Instant::now();
        while figure(&self.far, name) < least {
            let found = figure(&self.far, name);
            assert!(begun.elapsed() < PATIENCE, "{name}: {found}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn close(self) {
        for shared in [self.near, self.far] {
            shared.draining.send_replace(true);
        }
    }
}

fn facts() -> Facts {
    cluster(&[("cart", 1, 80, 8080, Spoken::Http, true)])
}

fn cart() -> Value {
    json!([{"kind": "Service", "name": "cart"}])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_counted_lets_everybody_in_and_is_known_by_its_name() {
    let carts = json!([{"to": {"paths": ["/carts/*"]}}]);
    let watch = json!({"targetRefs": cart(), "action": "Audit", "rules": carts});
    let strict =
        json!({"targetRefs": cart(), "action": "Deny", "enforcement": "DryRun", "rules": carts});
    let all = [("watch", watch), ("strict", strict)];
    let shop = Shop::open(&authorized(facts(), &all)).await;
    shop.answer("GET / HTTP/1.1", 200).await;
    for _ in 0..3 {
        shop.answer("GET /carts/1 HTTP/1.1", 200).await;
    }
    shop.counted("rules.watch.audited", 3).await;
    shop.counted("rules.strict.shadow_denied", 3).await;
    assert_eq!(figure(&shop.far, "rules.watch.audited"), 3);
    // The control plane knows within seconds.
    let begun = Instant::now();
    let known = |name: &str| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let judged = shop
            .control
            .figures
            .judged(now.expect("it is later").as_secs());
        judged.get(&("shop".into(), name.into())).copied()
    };
    while (known("watch"), known("strict")) != (Some(3), Some(3)) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", known("watch"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shop.close();
}
