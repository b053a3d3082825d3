//! The reference page of metrics, read from the tables named `REFERENCE` in the components' sources: the components themselves
//! would take minutes to build.

use std::fmt::Write as _;
use std::path::Path;

use crate::NOTICE;

/// The components and where their tables are.
const SOURCES: &[(&str, &str)] = &[
    ("operator", "operator/src/metrics.rs"),
    ("webhook", "webhook/src/metrics.rs"),
    ("mesh", "mesh/src/metrics.rs"),
];

/// The page.
pub(crate) fn page() -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .ok_or("the crate lies two folders below the root")?;
    let mut page = format!(
        "<!-- {NOTICE} -->\n# Metrics\n\nEvery component serves its metrics at `/metrics` on port 8080, in Prometheus' text form.\n"
    );
    for (component, source) in SOURCES {
        let text = std::fs::read_to_string(root.join(source))
            .map_err(|error| format!("failed to read {source}: {error}"))?;
        let rows =
            rows(&text).ok_or_else(|| format!("{source} has no readable table REFERENCE"))?;
        // Writing into a String does not fail.
        let _ = writeln!(
            page,
            "\n## {component}\n\n| metric | type | labels | meaning |\n|---|---|---|---|"
        );
        for [name, kind, labels, help] in rows {
            let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {help} |");
        }
    }
    Ok(page)
}

/// The rows of the table: every four string literals between its name and its end.
fn rows(source: &str) -> Option<Vec<[String; 4]>> {
    let (_, after) = source.split_once("const REFERENCE")?;
    let (table, _) = after
        .split_once("= &[")
        .and_then(|(_, table)| table.split_once("];"))?;
    let words: Vec<String> = table
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    let rows: Vec<[String; 4]> = words
        .chunks(4)
        .map(|row| <[String; 4]>::try_from(row.to_vec()).ok())
        .collect::<Option<_>>()?;
    if rows.is_empty() { None } else { Some(rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read() {
        let source = "/// x\npub const REFERENCE: &[(&str, &str, &str, &str)] = &[\n    (\"a_total\", \"counter\", \"\", \"Things\"),\n];\n";
        assert_eq!(
            rows(source),
            Some(vec![
                ["a_total", "counter", "", "Things"].map(str::to_owned)
            ])
        );
        assert_eq!(rows("nothing"), None);
    }

    #[test]
    fn every_component_has_a_table() {
        let page = page().expect("the tables are there");
        for name in [
            "fairlead_reconcile_total",
            "fairlead_admission_requests_total",
        ] {
            assert!(page.contains(name), "{name} is not in:\n{page}");
        }
    }
}
