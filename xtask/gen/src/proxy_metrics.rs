//! The contract of the proxy's metrics, read from the text of its `figures!`: the proxy itself would take minutes to build.

use std::fmt::Write as _;
use std::path::Path;

use crate::NOTICE;

/// Where they stand.
const FAMILIES: &str = "proxy/src/metrics/families.rs";
/// Where the bounds of histograms stand.
const BOUNDS: &str = "model/src/latency.rs";

/// The sections of a family: its name in the text, the type of what it has, and the end of their names.
const SECTIONS: [(&str, &str, &str); 4] = [
    ("counters {", "counter", ""),
    ("gauges {", "gauge", ""),
    ("statuses {", "counter", "_xx"),
    ("histograms {", "histogram", ""),
];

/// The page.
pub(crate) fn page() -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .ok_or("the crate lies two folders below the root")?;
    let text = |source: &str| {
        std::fs::read_to_string(root.join(source))
            .map_err(|error| format!("failed to read {source}: {error}"))
    };
    let (families, bounds) = (text(FAMILIES)?, text(BOUNDS)?);
    let bounds = bounds_of(&bounds).ok_or_else(|| format!("{BOUNDS} has no BOUNDS"))?;
    let mut page = format!(
        "<!-- {NOTICE} -->\n# Metrics of the proxy\n\n`/stats/prometheus` of the admin interface has these, and no others: names, types, labels and buckets stay as they are within a\nmajor version. Labels are names of the configuration; of each kind there are 4,096 at the most, and the rest is counted as `other`.\nNumbers in milliseconds say so; histograms have the buckets {bounds}, where the configuration names no others.\n",
    );
    let blocks: Vec<&str> = families.split("\nfigures! {\n").skip(1).collect();
    if blocks.is_empty() {
        return Err(format!("{FAMILIES} has no figures!"));
    }
    for block in blocks {
        let own = family(block).ok_or_else(|| format!("{FAMILIES} has unreadable figures"))?;
        page.push_str(&own);
    }
    Ok(page)
}

/// The bounds of histograms.
fn bounds_of(source: &str) -> Option<String> {
    let (_, after) = source.split_once("pub const BOUNDS")?;
    let (list, _) = after.split_once("= [")?.1.split_once(']')?;
    let bounds: Vec<String> = list
        .split(',')
        .map(|bound| bound.trim().replace('_', ""))
        .filter(|bound| !bound.is_empty())
        .map(|bound| bound.trim_end_matches(".0").to_owned())
        .collect();
    Some(bounds.join(", "))
}

/// The section of the page for one family.
fn family(block: &str) -> Option<String> {
    let (meaning, rest) = block.trim_start().strip_prefix("///")?.split_once('\n')?;
    let (head, body) = rest.split_once(" {\n")?;
    let (_, head) = head.split_once('"')?;
    let (prefix, labels) = head.split_once('"')?;
    let labels: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
    let mut page = format!(
        "\n## {}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n",
        meaning.trim().trim_end_matches('.'),
    );
    for (section, kind, end) in SECTIONS {
        let (_, own) = body.split_once(section)?;
        let (own, _) = own.split_once('}')?;
        let mut help = "";
        for line in own.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("///") {
                help = text.trim();
            } else if let Some(name) = line.strip_suffix(',') {
                let class = (!end.is_empty()).then_some("envoy_response_code_class");
                let labels: Vec<&str> = class.into_iter().chain(labels.iter().copied()).collect();
                // Writing into a String does not fail.
                let _ = writeln!(
                    page,
                    "| `{prefix}_{name}{end}` | {kind} | {} | {help} |",
                    labels.join(", ")
                );
            }
        }
    }
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_read() {
        let block = "    /// Of a cluster.\n    Own \"envoy_cluster\" [\"a\", \"b\"] {\n        counters {\n            /// Things.\n            things,\n        }\n        gauges {}\n        statuses {\n            /// Answers.\n            rq,\n        }\n        histograms {}\n    }\n}\n";
        let page = family(block).expect("a family");
        assert!(
            page.contains("| `envoy_cluster_things` | counter | a, b | Things. |\n"),
            "{page}"
        );
        assert!(
            page.contains(
                "| `envoy_cluster_rq_xx` | counter | envoy_response_code_class, a, b | Answers. |\n"
            ),
            "{page}"
        );
    }

    #[test]
    fn bounds_are_read() {
        let source = "pub const BOUNDS: [f64; 3] = [\n    0.5,\n    1.0,\n    1_000.0,\n];";
        assert_eq!(bounds_of(source).as_deref(), Some("0.5, 1, 1000"));
    }
}
