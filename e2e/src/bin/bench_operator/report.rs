//! The figures: printed for programs, and written for people.

use std::path::PathBuf;

use anyhow::{Context, Result};

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

/// Writes the operator's section of docs/benchmarks.md to the file that `BENCH_REPORT` names, if it names one.
pub(crate) fn write(figures: &Figures, releases: usize) -> Result<()> {
    let Some(path) = std::env::var_os("BENCH_REPORT").map(PathBuf::from) else {
        return Ok(());
    };
    let mut text = format!(
        "`make bench-operator` with {releases} releases and {} resources, on a control plane without nodes (2 cores, shared by etcd, the API\nserver, the controller manager, the load and the operator). Absolute times belong to that machine; compare within the run.\n\n| figure | value | what it is |\n|---|---|---|\n",
        releases * crate::load::INSTANCES
    );
    for (name, value, meaning) in &figures.rows {
        text.push_str(&format!("| {name} | {value:.3} | {meaning} |\n"));
    }
    std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
}
