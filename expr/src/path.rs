//! Paths of variables, such as `resources.db.host`.

use std::fmt;

/// The names that lead to a value in a [`Scope`](crate::Scope): at least one segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<String>);

impl Path {
    pub(crate) fn new(segments: Vec<String>) -> Self {
        Self(segments)
    }

    /// The names from the outermost inwards.
    pub fn segments(&self) -> &[String] {
        &self.0
    }

    /// Whether the first segments are `prefix`.
    pub fn starts_with(&self, prefix: &[&str]) -> bool {
        self.0.len() >= prefix.len() && self.0.iter().zip(prefix).all(|(own, wanted)| own == wanted)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            if position > 0 {
                formatter.write_str(".")?;
            }
            formatter.write_str(segment)?;
        }
        Ok(())
    }
}
