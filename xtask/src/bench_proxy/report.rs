//! What was measured, as tables for people and lines for programs.

use std::fmt;

use super::case::{Case, Per};
use super::measure::{Rounds, is_constant, of};
use crate::proxies::Peer;

/// One table, in Markdown that reads well in a terminal.
pub(super) struct Table {
    /// What was done.
    pub(super) title: String,
    /// The columns' names.
    pub(super) header: Vec<&'static str>,
    /// As many cells a row as there are columns.
    pub(super) rows: Vec<Vec<String>>,
}

impl fmt::Display for Table {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "**{}**\n", self.title)?;
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .chain([self.header[column].chars().count()])
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            for (index, (cell, width)) in cells.zip(&widths).enumerate() {
                if index == 0 {
                    write!(to, "| {cell:<width$} |")?;
                } else {
                    write!(to, " {cell:>width$} |")?;
                }
            }
            writeln!(to)
        };
        line(&mut self.header.iter().copied())?;
        let rules: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(index, width)| match index {
                0 => "-".repeat(*width),
                _ => format!("{}:", "-".repeat(width.saturating_sub(1))),
            })
            .collect();
        line(&mut rules.iter().map(String::as_str))?;
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

/// The table of a case.
pub(super) fn table(case: &Case, all: &[Rounds]) -> Table {
    let cost = match case.per {
        Per::Request => "CPU us/request",
        Per::Gigabyte => "CPU ms/GB",
    };
    let mut header = vec!["peer", cost, "to HAProxy", "to Envoy"];
    if is_constant(case) {
        header.extend(["cores a proxy", "p50 added us"]);
    }
    header.extend(["req/s", "p50 us", "p99 us", "p99.9 us", "MiB"]);
    let direct = of(all, Peer::Direct).and_then(|direct| direct.latency(0));
    let row = |rounds: &Rounds| {
        let beside = |peer| rounds.beside(of(all, peer)?);
        let mut row = vec![
            rounds.peer.name().to_owned(),
            shown(rounds.cost(), 1),
            shown(beside(Peer::Haproxy), 2),
            shown(beside(Peer::Envoy), 2),
        ];
        if is_constant(case) {
            let added = rounds.latency(0).zip(direct);
            row.push(shown(rounds.cores(), 3));
            row.push(shown(added.map(|(with, without)| with - without), 0));
        }
        row.push(shown(Some(rounds.rate()), 0));
        row.extend((0..3).map(|which| shown(rounds.latency(which), 0)));
        row.push(shown(
            Some(rounds.resident).filter(|_| rounds.cost().is_some()),
            1,
        ));
        row
    };
    Table {
        title: case.title.to_owned(),
        header,
        rows: all.iter().map(row).collect(),
    }
}

/// A number with so many digits after the point; `-` for none.
pub(super) fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_with_columns_in_line() {
        let table = Table {
            title: "Two".into(),
            header: vec!["peer", "us"],
            rows: vec![
                vec!["haproxy".into(), shown(Some(9.04), 1)],
                vec!["direct".into(), shown(None, 1)],
            ],
        };
        assert_eq!(
            table.to_string(),
            "**Two**\n\n| peer    |  us |\n| ------- | --: |\n| haproxy | 9.0 |\n| direct  |   - |\n"
        );
    }
}
