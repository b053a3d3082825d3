//! How answers are printed.

use std::io::Write;

use serde::Serialize;

/// Writes to standard output; where nobody reads any more, the command ends.
pub(crate) fn write(text: &str) {
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        std::process::exit(0);
    }
}

/// How to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For files.
    Yaml,
}

/// Prints a value for programs; false where people are to be answered.
pub(crate) fn print<T: Serialize>(format: Format, value: &T) -> anyhow::Result<bool> {
    match format {
        Format::Text => return Ok(false),
        Format::Json => say!("{}", serde_json::to_string_pretty(value)?),
        Format::Yaml => put!("{}", yaml(value)?),
    }
    Ok(true)
}

/// A value as YAML.
pub(crate) fn yaml<T: Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}

/// Rows as columns of equal width.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:width$}", width = widths[column]))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
