//! A stock Envoy as a client of the control plane: it takes whatever is compiled, and requests go where ours would send them.
//!
//! `FAIRLEAD_ENVOY` names the program of Envoy; it is found by itself where `cargo xtask tools envoy` installs it.
//! `FAIRLEAD_ENVOY_UPDATES=10000` tells it more, `FAIRLEAD_ENVOY_SEED=17` begins from another cluster.
#![allow(clippy::print_stdout, reason = "figures are printed")]

mod made;
mod process;
mod requests;
#[path = "../../../proxy/tests/support/stock.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod stock;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_mesh::compile::Compiled;
use fairlead_mesh::facts::Facts;
use fairlead_xds::Kind;
use made::Made;
use process::{Envoy, PATIENCE, Told, told};
use support::Control;
use support::place::{Place, bridge};

/// How often every run changes the cluster.
const UPDATES: u64 = 60;
/// After how many changes all that Envoy uses is looked at.
const LOOK: u64 = 10;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_compiled_is_refused() {
    if stock::is_left_out() {
        return;
    }
    let updates = number("FAIRLEAD_ENVOY_UPDATES")
        .unwrap_or(UPDATES)
        .div_ceil(2);
    let seed = number("FAIRLEAD_ENVOY_SEED").unwrap_or(0);
    let (delta, state) = tokio::join!(
        refused("DELTA_GRPC", seed, updates),
        refused("GRPC", seed + 1, updates)
    );
    let all: Vec<String> = delta.into_iter().chain(state).collect();
    println!("figure envoy_rejected_updates {}", all.len());
    let first = &all[..all.len().min(5)];
    assert!(all.is_empty(), "{}", first.join("\n"));
}

/// Tells an Envoy of a cluster that changes; gives back what it refused.
async fn refused(api: &str, seed: u64, updates: u64) -> Vec<String> {
    let control = Control::start(Duration::from_secs(3600)).await;
    let place = Place::new();
    bridge(&place.folder.join("control"), &control);
    let mut made = Made::new(seed);
    let envoy = Envoy::start(&place, 0, &control, "web", api).await;
    let mut refused = Vec::new();
    for update in 1..=updates {
        let facts = made.change();
        let compiled = control.tell(facts);
        answered(&control, &envoy, &compiled).await;
        for proxy in control.proxies.all() {
            let all = proxy.refusals.iter();
            refused.extend(all.map(|(kind, reason)| {
                format!("FAIRLEAD_ENVOY_SEED={seed} {api} update {update}: {kind:?}: {reason}")
            }));
        }
        if refused.is_empty() && (update % LOOK == 0 || update == updates) {
            uses(&control, &envoy, api, &compiled, facts).await;
        }
    }
    let counted = envoy.refused().await;
    if refused.is_empty() && counted > 0 {
        refused.push(format!(
            "{api}: {counted} by its own figures: {}",
            envoy.log()
        ));
    }
    refused
}

/// Waits until it has answered all that it was told.
async fn answered(control: &Control, envoy: &Envoy, compiled: &Arc<Compiled>) {
    let wanted = Arc::downgrade(compiled);
    let begun = Instant::now();
    while !control
        .proxies
        .all()
        .iter()
        .any(|own| own.answered.ptr_eq(&wanted))
    {
        assert!(
            begun.elapsed() < PATIENCE,
            "no answer: {:?}: {}",
            control.proxies.all(),
            envoy.log()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until it uses what it was told, and nothing else.
async fn uses(control: &Control, envoy: &Envoy, api: &str, compiled: &Compiled, facts: &Facts) {
    envoy
        .until("cluster_manager.warming_clusters", |own| own == 0)
        .await;
    envoy
        .until("listener_manager.total_listeners_warming", |own| own == 0)
        .await;
    envoy
        .until("control_plane.connected_state", |own| own == 1)
        .await;
    let expected = seen(api, told(compiled, "web"));
    let begun = Instant::now();
    loop {
        let used = seen(api, envoy.used().await);
        if used == expected {
            break;
        }
        let what = || {
            let (more, less) = (used.difference(&expected), expected.difference(&used));
            format!(
                "{api}: more: {:?}, less: {:?}: {:?}",
                more.collect::<Vec<_>>(),
                less.collect::<Vec<_>>(),
                control.proxies.all()
            )
        };
        assert!(begun.elapsed() < PATIENCE, "{}", what());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let found = envoy.endpoints().await;
    for (cluster, addresses) in made::endpoints(facts) {
        let addresses = addresses.iter();
        let addresses: BTreeSet<String> = addresses
            .map(|own| format!("{} {}", own.ip(), own.port()))
            .collect();
        assert_eq!(found.get(&cluster), Some(&addresses), "{api}: {cluster}");
    }
}

/// Without the versions that Envoy does not say: those of resources where they come all together, and that of a listener of which
/// filter chains alone changed.
fn seen(api: &str, told: Told) -> Told {
    let is_said = |kind| api == "DELTA_GRPC" && kind != Kind::Listener;
    let told = told.into_iter();
    told.map(|(kind, name, version)| match is_said(kind) {
        true => (kind, name, version),
        false => (kind, name, String::new()),
    })
    .collect()
}
