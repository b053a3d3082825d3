//! The figures: printed for programs, and written for people.

use anyhow::{Context, Result};
use fairlead_e2e::root;

/// See the module.
#[derive(Default)]
pub(crate) struct Figures {
    rows: Vec<(String, f64, String)>,
}

impl Figures {
    /// Adds and prints a figure.
    pub(crate) fn add(&mut self, name: &str, value: f64, meaning: &str) {
        println!("figure {name} {value:.3}");
        self.rows.push((name.to_owned(), value, meaning.to_owned()));
    }
}

/// Writes docs/benchmarks.md.
pub(crate) fn write(figures: &Figures, releases: usize) -> Result<()> {
    let mut text = format!(
        "# Benchmarks\n\n## The operator\n\n`make bench-operator` with {releases} releases and {} resources, on a control plane without nodes (2 cores, shared by etcd, the API\nserver, the controller manager, the load and the operator). Absolute times belong to that machine; compare within the run.\n\n| figure | value | what it is |\n|---|---|---|\n",
        releases * crate::load::INSTANCES
    );
    for (name, value, meaning) in &figures.rows {
        text.push_str(&format!("| {name} | {value:.3} | {meaning} |\n"));
    }
    let path = root().join("docs/benchmarks.md");
    std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
}
