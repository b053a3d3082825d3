//! The control plane under simulation: scenarios over many seeds, one of them in full, and planted mistakes that must be found.
//!
//! `FAIRLEAD_SIM_SEEDS=5000 cargo test -p fairlead-testkit` runs more seeds; `FAIRLEAD_SIM_SEED=17` runs that one alone.

mod golden;
mod planted;
mod scenarios;
mod world;

use fairlead_testkit::sim::{Checked, Faults, Sim};

type Scenario = fn(&mut Sim) -> Checked;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a scenario with many seeds; seed 0 without faults, so that what is simply wrong shows first.
fn many(scenario: Scenario) {
    let seeds = match number("FAIRLEAD_SIM_SEED") {
        Some(one) => one..one + 1,
        None => 0..number("FAIRLEAD_SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let mut sim = Sim::new(seed);
        sim.faults = if seed == 0 {
            Faults::NONE
        } else {
            Faults::SOME
        };
        if let Err(violation) = scenario(&mut sim) {
            panic!("{violation}");
        }
    }
}

/// How many seeds an ordinary test run takes: as many as take about half a minute on a quiet machine.
const SEEDS: u64 = if cfg!(debug_assertions) { 4 } else { 40 };
