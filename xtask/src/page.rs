//! docs/benchmarks.md, one section of which is replaced by whoever measured it.

use std::fs;

use anyhow::{Context, Result};

use crate::paths::{root, write};

/// Replaces what follows a heading of the second level, or adds the section at the end.
pub(crate) fn replace(heading: &str, section: &str) -> Result<()> {
    let path = root().join("docs/benchmarks.md");
    let page =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    write(&path, replaced(&page, heading, section))
}

fn replaced(page: &str, heading: &str, section: &str) -> String {
    let mut kept = String::new();
    let (mut within, mut found) = (false, false);
    let fresh = format!("{heading}\n\n{}\n", section.trim_end());
    for line in page.lines() {
        if line.starts_with("## ") {
            if within {
                kept.push('\n');
            }
            within = line == heading;
            if within {
                found = true;
                kept.push_str(&fresh);
            }
        }
        if !within {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    if found {
        return kept;
    }
    format!("{}\n\n{fresh}", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn only_the_section_of_that_heading_is_replaced() {
        let page = "# All\n\n## One\n\nold\nolder\n\n## Two\n\nkept\n";
        let fresh = replaced(page, "## One", "new\n\n");
        assert_eq!(fresh, "# All\n\n## One\n\nnew\n\n## Two\n\nkept\n");
        assert_eq!(replaced(&fresh, "## One", "new"), fresh, "twice is once");
    }

    #[test]
    fn a_section_that_is_not_there_is_added() {
        let fresh = replaced("# All\n\n## One\n\nkept\n", "## Two", "new");
        assert_eq!(fresh, "# All\n\n## One\n\nkept\n\n## Two\n\nnew\n");
    }
}
