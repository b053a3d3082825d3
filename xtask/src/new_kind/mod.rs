//! `cargo xtask new-kind AREA KIND`: everything that belongs to a kind, in a state that compiles, to be filled.
//!
//! New files come from [`templates`]; the lists that know all kinds (the definitions, the registry, the cache) get a line each.

mod templates;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::names::{plural, short, snake};
use crate::paths::{root, write};
use crate::progress::note;

/// Which kind to begin.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// The area, such as platform, delivery or ops; a new one is begun where there is none
    area: String,
    /// The kind, such as PipelineRun
    kind: String,
    /// The plural name, where it is not the kind's with an s
    #[arg(long)]
    plural: Option<String>,
    /// One for the whole cluster
    #[arg(long)]
    cluster: bool,
}

/// The names of a kind to be made.
struct Names {
    area: String,
    group: String,
    kind: String,
    snake: String,
    plural: String,
    short: String,
    namespaced: bool,
}

/// Begins a kind in this repository.
pub(crate) fn run(request: &Request) -> Result<()> {
    begin(&root(), request)?;
    note("now describe its fields, and run `cargo xtask gen`");
    note("its cases are recorded by `INSTA_UPDATE=always cargo test -p fairlead-plan`");
    Ok(())
}

/// Begins a kind in the repository at `root`.
fn begin(root: &Path, request: &Request) -> Result<()> {
    let names = names(request)?;
    let types = format!("crds/src/{}/{}.rs", names.area, names.snake);
    if root.join(&types).exists() {
        bail!("{types} exists");
    }
    area(root, &names)?;
    for (path, content) in templates::files(&names) {
        write(&root.join(&path), content)?;
        note(&format!("wrote {path}"));
    }
    for (path, private, public) in templates::members(&names) {
        let file = root.join(&path);
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {path}"))?;
        write(&file, member(&text, &private, &public))?;
        note(&format!("added a line to {path}"));
    }
    for (path, edit) in edits(&names) {
        let file = root.join(&path);
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {path}"))?;
        let changed = edit
            .apply(&text)
            .with_context(|| format!("{path} has no {:?}", edit.after))?;
        write(&file, changed)?;
        note(&format!("added a line to {path}"));
    }
    Ok(())
}

fn names(request: &Request) -> Result<Names> {
    let Request {
        area,
        kind,
        cluster,
        ..
    } = request;
    let word = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric());
    if !word(kind) || !kind.starts_with(|first: char| first.is_ascii_uppercase()) {
        bail!("a kind is written like PipelineRun, found {kind}");
    }
    if !word(area) || area.to_lowercase() != *area || area.is_empty() {
        bail!("an area is one lower-case word, found {area:?}");
    }
    Ok(Names {
        area: area.clone(),
        group: format!("{area}.fairlead.dev"),
        kind: kind.clone(),
        snake: snake(kind),
        plural: request.plural.clone().unwrap_or_else(|| plural(kind)),
        short: short(kind),
        namespaced: !cluster,
    })
}

/// Begins an area where there is none.
fn area(root: &Path, names: &Names) -> Result<()> {
    for (path, content) in templates::area(names) {
        let file = root.join(&path);
        if file.exists() {
            continue;
        }
        write(&file, content)?;
        note(&format!("wrote {path}"));
        let library = file
            .ancestors()
            .nth(2)
            .context("an area lies below src")?
            .join("lib.rs");
        let text = fs::read_to_string(&library)
            .with_context(|| format!("failed to read {}", library.display()))?;
        let declared = module(&text, &format!("pub mod {};", names.area))
            .with_context(|| format!("{} declares no module", library.display()))?;
        write(&library, declared)?;
    }
    Ok(())
}

/// Adds a module to those that a file declares, in the order of the alphabet.
fn module(text: &str, line: &str) -> Option<String> {
    let name = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
    let declares = |have: &&str| {
        (have.starts_with("mod ") || have.starts_with("pub mod ")) && have.ends_with(';')
    };
    let mut lines: Vec<&str> = text.lines().collect();
    let after = lines
        .iter()
        .rposition(|have| declares(have) && name(have) < name(line));
    let first = lines.iter().position(declares);
    lines.insert(after.map(|index| index + 1).or(first)?, line);
    Some(lines.join("\n") + "\n")
}

/// Adds a module and what is public of it to an area's.
fn member(text: &str, private: &str, public: &str) -> String {
    let begun = module(text, private).unwrap_or_else(|| {
        // An area without kinds: the modules stand between its documentation and its constants.
        let (about, rest) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
        let gap = if rest.is_empty() { "" } else { "\n" };
        format!("{about}\n\n{private}\n{gap}{rest}")
    });
    let mut lines: Vec<&str> = begun.lines().collect();
    let last = |wanted: &dyn Fn(&str) -> bool| lines.iter().rposition(|line| wanted(line));
    let uses = last(&|line| line.starts_with("pub use ") && line.ends_with(';'));
    // A list over several lines ends with its brace.
    let list = last(&|line| line == "};");
    match uses.max(list) {
        Some(index) => lines.insert(index + 1, public),
        None => {
            let modules = last(&|line| line.starts_with("mod ") || line.starts_with("pub mod "));
            let at = modules.map_or(lines.len(), |index| index + 1);
            lines.splice(at..at, ["", public]);
        }
    }
    lines.join("\n") + "\n"
}

/// A line to be put where a list ends.
struct Edit {
    /// Where the list begins.
    after: &'static str,
    /// What ends the list.
    before: &'static str,
    /// What to put there.
    line: String,
}

impl Edit {
    fn apply(&self, text: &str) -> Option<String> {
        let start = text.find(self.after)?;
        let end = start + self.after.len();
        let end = end + text[end..].find(self.before)?;
        Some(format!("{}{}{}", &text[..end], self.line, &text[end..]))
    }
}

fn edits(names: &Names) -> Vec<(String, Edit)> {
    let Names {
        area, kind, plural, ..
    } = names;
    let edit = |path: &str, after: &'static str, before: &'static str, line: String| {
        (
            path.to_owned(),
            Edit {
                after,
                before,
                line,
            },
        )
    };
    let cache = "plan/src/cache/mod.rs";
    vec![
        edit(
            "crds/src/lib.rs",
            "pub fn all()",
            "    ]\n",
            format!("        {area}::{kind}::crd(),\n"),
        ),
        edit(
            "plan/src/registry.rs",
            "pub fn visit(",
            "}\n",
            format!("    visitor.visit::<crate::{area}::{kind}Kind>();\n"),
        ),
        edit(
            cache,
            "pub enum KindName {",
            "}\n",
            format!("    /// [`fairlead_crds::{area}::{kind}`].\n    {kind},\n"),
        ),
        edit(
            cache,
            "pub fn as_str(self)",
            "        }\n",
            format!("            Self::{kind} => \"{kind}\",\n"),
        ),
        edit(
            cache,
            "pub struct Cache {",
            "    /// Metadata of other objects",
            format!(
                "    /// {kind} objects.\n    pub {plural}: Table<fairlead_crds::{area}::{kind}>,\n"
            ),
        ),
        edit(
            cache,
            "impl Default for Cache {",
            "            others:",
            format!("            {plural}: Table::new(|_| Vec::new()),\n"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;
    use crate::command::capture;

    /// A copy of the repository's own files, removed when dropped.
    struct Copy(PathBuf);

    impl Drop for Copy {
        fn drop(&mut self) {
            // What remains lies in the system's folder for what may go.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn copy() -> Copy {
        let copy =
            Copy(std::env::temp_dir().join(format!("fairlead-new-kind-{}", std::process::id())));
        let mut git = Command::new("git");
        git.args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root());
        for path in capture(&mut git).expect("git lists the files").lines() {
            let wanted = ["rs", "toml", "lock", "md"]
                .iter()
                .any(|end| path.ends_with(&format!(".{end}")));
            let Ok(content) = fs::read(root().join(path)) else {
                continue;
            };
            if wanted {
                write(&copy.0.join(path), content).expect("the copy is written");
            }
        }
        copy
    }

    fn request(area: &str, kind: &str) -> Request {
        Request {
            area: area.to_owned(),
            kind: kind.to_owned(),
            plural: None,
            cluster: false,
        }
    }

    #[test]
    fn new_kinds_compile_in_an_old_area_and_in_a_new_one() {
        let copy = copy();
        begin(&copy.0, &request("platform", "SampleQuota")).expect("a kind in an old area");
        begin(&copy.0, &request("sampling", "SampleRun")).expect("a kind in a new area");
        let again = begin(&copy.0, &request("platform", "SampleQuota"));
        assert!(again.is_err_and(|error| error.to_string().contains("exists")));
        for path in [
            "docs/kinds/samplequota.md",
            "examples/sampling/samplerun.yaml",
            "plan/src/sampling/sample_run/cases/minimal.yaml",
        ] {
            assert!(copy.0.join(path).is_file(), "{path} was not written");
        }
        let target = std::env::current_exe().expect("a test has a file");
        let target = target
            .ancestors()
            .nth(3)
            .expect("a test lies in target/debug/deps");
        let mut check = Command::new("cargo");
        check
            .args([
                "check",
                "--quiet",
                "--offline",
                "--package",
                "fairlead-plan",
            ])
            .current_dir(&copy.0)
            .env("CARGO_TARGET_DIR", target);
        if let Err(error) = capture(&mut check) {
            panic!("what was written does not compile:\n{error:#}");
        }
    }

    #[test]
    fn modules_stay_in_order() {
        let text = "//! A.\n\nmod alpha;\npub mod gamma;\n\npub use alpha::A;\n";
        let wanted = "//! A.\n\nmod alpha;\nmod beta;\npub mod gamma;\n\npub use alpha::A;\n";
        assert_eq!(module(text, "mod beta;").as_deref(), Some(wanted));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        assert!(names(&request("platform", "lower")).is_err());
        assert!(names(&request("Plat/form", "Kind")).is_err());
    }
}
