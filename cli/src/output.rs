//! How answers are printed.

use std::io::{ErrorKind, Write};

use serde::Serialize;

/// Writes to standard output; where nobody reads any more, the command ends.
pub(crate) fn write(text: &str) {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("error: failed to write to standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// Text that a terminal only shows: messages quote the last lines of containers, which may hold commands to the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\n' => letter,
            '\t' => ' ',
            letter if letter.is_control() => char::REPLACEMENT_CHARACTER,
            letter => letter,
        })
        .collect()
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
        Format::Json => write(&format!("{}\n", serde_json::to_string_pretty(value)?)),
        Format::Yaml => write(&yaml(value)?),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_by_a_message() {
        assert_eq!(plain("a\u{1b}[2Jb\tc\nd\r"), "a\u{fffd}[2Jb c\nd\u{fffd}");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [row(["✓ a", "x"]), row(["… long", ""])];
        assert_eq!(table(&rows), "✓ a     x\n… long\n");
    }
}
