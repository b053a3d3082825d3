//! What both say of the same configuration has the same shape, and Envoy takes what this proxy says.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::free;
use crate::generate::Plan;
use crate::program::{Program, envoy_takes, is_left_out};
use crate::upstream::Upstreams;

/// The lists of each section, and the fields that their elements have.
fn shape(dump: &Value) -> BTreeSet<String> {
    let mut shape = BTreeSet::new();
    for section in dump["configs"].as_array().into_iter().flatten() {
        let kind = section["@type"].as_str().unwrap_or_default();
        for (name, value) in section.as_object().into_iter().flatten() {
            shape.insert(format!("{kind} {name}"));
            for own in value.as_array().into_iter().flatten() {
                for field in own.as_object().into_iter().flatten() {
                    shape.insert(format!("{kind} {name} {}", field.0));
                }
            }
        }
    }
    shape
}

#[tokio::test]
async fn dumps_have_the_same_shape() {
    if is_left_out() {
        return;
    }
    let upstreams = Upstreams::start().await;
    let plan = Plan::new(0, 0);
    let own = plan.bootstrap(free(), free(), &upstreams);
    let stock = plan.bootstrap(free(), free(), &upstreams);
    let (own, stock) = tokio::join!(
        Program::ours("dump-ours", &own),
        Program::envoy("dump-envoy", &stock)
    );
    for path in [
        "/config_dump?include_eds",
        "/config_dump?resource=static_clusters",
        "/config_dump?resource=static_listeners&mask=listener.name",
        "/config_dump?resource=dynamic_listeners",
        "/config_dump?mask=static_route_configs",
        "/config_dump?name_regex=red",
    ] {
        let (own, stock) = (own.json(path).await, stock.json(path).await);
        assert_eq!(shape(&own), shape(&stock), "{path}: {own:#}");
    }
}

#[tokio::test]
async fn envoy_takes_what_is_dumped() {
    if is_left_out() {
        return;
    }
    let upstreams = Upstreams::start().await;
    for seed in 0..4 {
        let plan = Plan::new(seed, 0);
        let bootstrap = plan.bootstrap(free(), free(), &upstreams);
        let proxy = Program::ours(&format!("dumped-{seed}"), &bootstrap).await;
        let dump = proxy.json("/config_dump?mask=bootstrap").await;
        let written = &dump["configs"][0]["bootstrap"];
        if let Err(said) = envoy_takes(&proxy.folder, written) {
            panic!("{said}\n{written:#}");
        }
    }
}
