//! The same configuration and the same requests for this proxy and for Envoy: what reaches an endpoint and what comes back is the
//! same, but for what docs/proxy/configuration.md says.
//!
//! `FAIRLEAD_ENVOY` names the program of Envoy; it is found by itself where `cargo xtask tools envoy` installs it.
//! `FAIRLEAD_ENVOY_SEEDS=50` tries more configurations, `FAIRLEAD_ENVOY_SEED=17` that one alone.

mod ask;
mod dumps;
mod examples;
mod filters;
mod generate;
#[path = "../support/tokens.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod issuers;
#[path = "../support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod tokens;
mod upstream;

use std::fmt::Write as _;
use std::sync::Arc;

use ask::{Caller, Outcome};
use generate::Plan;
use program::{Program, free, is_left_out};
use upstream::Upstreams;

/// Configurations that every run tries.
const SEEDS: u64 = 8;
/// Requests of each.
const REQUESTS: usize = 600;
/// Differences that are shown.
const SHOWN: usize = 5;
/// Requests at the same time.
const CALLERS: usize = 8;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_do_the_same() {
    if is_left_out() {
        return;
    }
    let seeds = match number("FAIRLEAD_ENVOY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FAIRLEAD_ENVOY_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        compare(seed).await;
    }
}

/// Asks both proxies the same, and fails when they differ.
async fn compare(seed: u64) {
    let upstreams = Upstreams::start().await;
    let plan = Arc::new(Plan::new(seed, REQUESTS));
    let (ours, envoys) = (free(), free());
    let (own, stock) = (
        plan.bootstrap(ours, free(), &upstreams),
        plan.bootstrap(envoys, free(), &upstreams),
    );
    let names = (format!("ours-{seed}"), format!("envoy-{seed}"));
    let (_own, _stock) = tokio::join!(
        Program::ours(&names.0, &own),
        Program::envoy(&names.1, &stock)
    );
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let (plan, upstreams) = (Arc::clone(&plan), upstreams.clone());
            tokio::spawn(async move {
                let is_h2 = number % 4 == 3;
                let mut ours = Caller::new("ours", ours, is_h2, upstreams.clone());
                let mut envoys = Caller::new("envoy", envoys, is_h2, upstreams);
                let mut differences = Vec::new();
                for (index, request) in plan.requests.iter().enumerate() {
                    if index % CALLERS != number {
                        continue;
                    }
                    let (own, stock) =
                        tokio::join!(ours.ask(index, request), envoys.ask(index, request));
                    let (own, stock) = documented(plan.is_edge, own, stock);
                    if own != stock {
                        differences.push((index, own, stock));
                    }
                }
                differences
            })
        })
        .collect();
    let mut differences = Vec::new();
    for caller in callers {
        differences.extend(caller.await.expect("a caller"));
    }
    differences.sort_by_key(|(index, ..)| *index);
    assert!(
        differences.is_empty(),
        "{}",
        said(seed, &plan, &differences)
    );
}

/// Both outcomes without what is documented to differ.
fn documented(is_edge: bool, mut own: Outcome, mut stock: Outcome) -> (Outcome, Outcome) {
    for outcome in [&mut own, &mut stock] {
        // Nothing follows the head of an answer to HEAD, however it would have been framed.
        outcome.headers.remove("transfer-encoding");
        // How a connection goes on is between it and its caller.
        outcome.headers.remove("connection");
        outcome.headers.remove("date");
        if outcome.body.is_empty() {
            outcome.headers.remove("content-length");
        }
        for seen in &mut outcome.tries {
            // Envoy tells endpoints the scheme of the caller though nobody asked for it.
            if !is_edge {
                seen.headers.remove("x-forwarded-proto");
            }
            // An empty body of OPTIONS has a length for Envoy.
            if seen.method == "OPTIONS" && seen.body.is_empty() {
                seen.headers.remove("content-length");
            }
            seen.headers.remove("x-envoy-external-address");
            // Envoy puts an address of this machine in the place of a caller's on it.
            for value in seen
                .headers
                .get_mut("x-forwarded-for")
                .into_iter()
                .flatten()
            {
                if is_edge {
                    let end = value.rfind(',').unwrap_or(0);
                    value.truncate(end);
                }
            }
        }
    }
    // What a caller is asked for says the path without its query, which may have a token.
    for value in stock
        .headers
        .get_mut("www-authenticate")
        .into_iter()
        .flatten()
    {
        if let (Some(query), Some(end)) = (value.find('?'), value.rfind(", error")) {
            value.replace_range(query..end - 1, "");
        } else if let Some(query) = value.find('?') {
            value.replace_range(query..value.len() - 1, "");
        }
    }
    // An answer that this proxy made because of a fault says which.
    let fault = own.headers.remove("proxy-status");
    if fault.is_some_and(|own_fault| own_fault.iter().any(|one| one.ends_with(&own.body))) {
        for outcome in [&mut own, &mut stock] {
            outcome.body.clear();
            outcome.headers.remove("content-type");
            outcome.headers.remove("content-length");
        }
    }
    (own, stock)
}

/// The first differences, with the routes that may have been taken.
fn said(seed: u64, plan: &Plan, differences: &[(usize, Outcome, Outcome)]) -> String {
    let mut text = format!(
        "FAIRLEAD_ENVOY_SEED={seed}: {} of {} requests differ\n",
        differences.len(),
        plan.requests.len()
    );
    for (index, own, stock) in differences.iter().take(SHOWN) {
        let request = &plan.requests[*index];
        let _ = writeln!(text, "\n{request:?}");
        let _ = writeln!(text, "ours:  {own:?}\nEnvoy: {stock:?}");
        for host in plan.hosts_of(request) {
            let _ = writeln!(text, "{host}");
        }
    }
    text
}
