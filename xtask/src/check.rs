//! What the repository promises of itself, beyond what compilers and tests see: the arrows between crates, each crate alone,
//! generated files, and that every kind has all that belongs to a kind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo_tools::{CargoTool, DENY, MACHETE};
use crate::chart;
use crate::command::capture;
use crate::generate::{self, Generated, Kind, compare};
use crate::names::snake;
use crate::paths::root;
use crate::progress::step;

/// What must not stand below a pure crate.
const EFFECTS: [&str; 6] = [
    "tokio",
    "hyper",
    "kube-client",
    "kube-runtime",
    "reqwest",
    "tonic",
];

/// The most lines a source file may have, its tests not counted.
const LINES: usize = 600;

/// The crates of our own that each pure crate may use.
const BELOW: [(&str, &[&str]); 5] = [
    ("fairlead-crds", &[]),
    ("fairlead-expr", &[]),
    ("fairlead-model", &["fairlead-expr"]),
    (
        "fairlead-plan",
        &["fairlead-crds", "fairlead-expr", "fairlead-model"],
    ),
    ("fairlead-xds", &["fairlead-expr", "fairlead-model"]),
];

/// What must not stand below the data plane, which knows no Kubernetes.
const NOT_BELOW_PROXY: [&str; 4] = ["k8s-openapi", "kube", "kube-client", "fairlead-crds"];

/// What is asked of the programs for cargo. Advisories are left out: deny.toml says why.
const TOOLS: [(&CargoTool, &[&str]); 2] = [
    (&DENY, &["check", "bans", "licenses", "sources"]),
    (&MACHETE, &[]),
];

/// Runs every check, and fails with the findings of all.
pub(crate) fn run() -> Result<()> {
    let mut failed = Vec::new();
    let mut part = |what: &str, work: &mut dyn FnMut() -> Result<()>| {
        if let Err(error) = step(what, work) {
            eprintln!("{error:#}");
            failed.push(what.to_owned());
        }
    };
    let mut generated = None;
    part("arrows between crates", &mut arrows);
    part("generate", &mut || {
        generated = Some(generate::generate()?);
        Ok(())
    });
    if let Some(generated) = &generated {
        part("generated files", &mut || compare(generated));
        part("every kind is whole", &mut || kinds(generated));
    }
    part("the chart", &mut chart::lint);
    part("sources", &mut sources);
    for (tool, arguments) in TOOLS {
        part(tool.name, &mut || {
            let mut command = Command::new(tool.ensure()?);
            capture(command.args(arguments).current_dir(root())).map(|_| ())
        });
    }
    part("each crate alone", &mut alone);
    if failed.is_empty() {
        return Ok(());
    }
    bail!("these checks failed: {}", failed.join(", "));
}

/// No pure crate has an effect below it, and the data plane knows no Kubernetes. Each is asked alone: a build of the workspace
/// unifies features, and hides a leak.
fn arrows() -> Result<()> {
    let mut found = Vec::new();
    for (package, allowed) in BELOW {
        let ours = |name: &str| name.starts_with("fairlead-") && name != package;
        found.extend(leaks(package, &|name| {
            EFFECTS.contains(&name) || ours(name) && !allowed.contains(&name)
        })?);
    }
    found.extend(leaks("fairlead-proxy", &|name| {
        NOT_BELOW_PROXY.contains(&name)
    })?);
    none(&found)
}

/// What is below a package and must not be.
fn leaks(package: &str, is_wrong: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut tree = cargo(&[
        "tree",
        "--package",
        package,
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]);
    let below = capture(&mut tree)?;
    let mut leaks: Vec<&str> = below
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| is_wrong(name))
        .collect();
    leaks.sort_unstable();
    leaks.dedup();
    Ok(leaks
        .iter()
        .map(|leak| format!("{leak} is below {package}"))
        .collect())
}

/// Every crate compiles with only the features that it asks for itself.
fn alone() -> Result<()> {
    let metadata = capture(&mut cargo(&[
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]))?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("failed to read cargo's metadata")?;
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let check = || capture(&mut cargo(&["check", "--quiet", "--package", name]));
        if let Err(error) = step(&format!("  {name}"), check) {
            found.push(format!("{name} does not compile alone:\n{error:#}"));
        }
    }
    none(&found)
}

/// Every kind has an example, a page and a case.
fn kinds(generated: &Generated) -> Result<()> {
    let examples = texts_below("examples")?;
    let mut found = Vec::new();
    for Kind { name, area } in &generated.kinds {
        let line = format!("kind: {name}");
        if !examples
            .iter()
            .any(|text| text.lines().any(|have| have.trim_end() == line))
        {
            found.push(format!("{name} has no example below examples/"));
        }
        let page = format!("docs/kinds/{}.md", name.to_lowercase());
        if !root().join(&page).is_file() {
            found.push(format!("{name} has no page {page}"));
        }
        let cases = format!("plan/src/{area}/{}/cases", snake(name));
        if !has_yaml(&root().join(&cases)) {
            found.push(format!("{name} has no case {cases}/*.yaml"));
        }
    }
    none(&found)
}

fn texts_below(folder: &str) -> Result<Vec<String>> {
    let yaml = |path: &&PathBuf| {
        path.starts_with(folder) && path.extension().is_some_and(|end| end == "yaml")
    };
    tracked()?
        .iter()
        .filter(yaml)
        .map(|path| {
            fs::read_to_string(root().join(path))
                .with_context(|| format!("failed to read {}", path.display()))
        })
        .collect()
}

fn has_yaml(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .into_iter()
        .any(|entry| entry.path().extension().is_some_and(|end| end == "yaml"))
}

/// No source file is too long, and none holds a note to do something later.
fn sources() -> Result<()> {
    // Written apart, so that this file does not find itself.
    let later = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|word| word.concat());
    let mut found = Vec::new();
    for path in tracked()? {
        let source = path.extension().is_some_and(|end| {
            ["rs", "md", "yaml", "toml", "tpl", "go", "sh"]
                .iter()
                .any(|known| end == *known)
        });
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        if !source {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
            if words.any(|word| later.iter().any(|known| known == word)) {
                found.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
        let lines = lines_of_code(&path, &text);
        if lines > LINES {
            found.push(format!(
                "{} has {lines} lines, and {LINES} are allowed",
                path.display()
            ));
        }
    }
    none(&found)
}

/// The lines of a Rust file before its tests; 0 for files that are nothing but tests.
fn lines_of_code(path: &Path, text: &str) -> usize {
    let rust = path.extension().is_some_and(|end| end == "rs");
    let tests = path
        .components()
        .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs");
    if !rust || tests {
        return 0;
    }
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .count()
}

/// The files of the repository, from its root.
fn tracked() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root());
    Ok(capture(&mut git)?.lines().map(PathBuf::from).collect())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(arguments).current_dir(root());
    cargo
}

fn none(found: &[String]) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    bail!("  {}", found.join("\n  "));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::lines_of_code;

    #[test]
    fn tests_do_not_count_as_lines() {
        let text = "a\nb\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(lines_of_code(Path::new("plan/src/a.rs"), text), 2);
        assert_eq!(lines_of_code(Path::new("plan/tests/a.rs"), text), 0);
        assert_eq!(lines_of_code(Path::new("plan/src/a/tests.rs"), text), 0);
        assert_eq!(lines_of_code(Path::new("README.md"), text), 0);
    }
}
