//! Regular expressions and text matches with bounds.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// The longest pattern, in bytes.
const MAX_SOURCE: usize = 1024;
/// The largest compiled pattern, in bytes.
const MAX_COMPILED: usize = 256 * 1024;

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is too long to be compiled for every proxy.
    #[error("a regular expression of {length} bytes is too long; {MAX_SOURCE} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It is no regular expression, or one that grows too large.
    #[error("failed to read the regular expression: {cause}")]
    Invalid {
        /// What the parser says.
        cause: String,
    },
}

/// A regular expression that matches a whole text, in time linear in the text (RE2 syntax, as Envoy's).
#[derive(Clone)]
pub struct Pattern {
    source: String,
    whole: Regex,
    part: Regex,
}

impl Pattern {
    /// Compiles `source`.
    ///
    /// # Errors
    /// When it is too long, grows too large, or is no regular expression.
    pub fn parse(source: &str) -> Result<Self, PatternError> {
        if source.len() > MAX_SOURCE {
            return Err(PatternError::TooLong {
                length: source.len(),
            });
        }
        let compile = |text: &str| {
            RegexBuilder::new(text)
                .size_limit(MAX_COMPILED)
                .dfa_size_limit(MAX_COMPILED)
                .build()
                .map_err(|error| PatternError::Invalid {
                    cause: error.to_string(),
                })
        };
        Ok(Self {
            part: compile(source)?,
            whole: compile(&format!("^(?:{source})$"))?,
            source: source.to_owned(),
        })
    }

    /// The text it was made from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether all of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.whole.is_match(text)
    }

    /// `text` with each match replaced; `\1` to `\9` in `by` are the groups, `\0` the match (RE2's rewrite syntax).
    #[must_use]
    pub fn replace(&self, text: &str, by: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut end = 0;
        for captures in self.part.captures_iter(text) {
            let Some(whole) = captures.get(0) else {
                continue;
            };
            replaced.push_str(&text[end..whole.start()]);
            let mut characters = by.chars();
            while let Some(character) = characters.next() {
                match (character, character == '\\') {
                    (_, true) => match characters.next() {
                        Some(digit @ '0'..='9') => {
                            let group = digit as usize - '0' as usize;
                            replaced
                                .push_str(captures.get(group).map_or("", |group| group.as_str()));
                        }
                        Some(other) => replaced.push(other),
                        None => {}
                    },
                    (other, false) => replaced.push(other),
                }
            }
            end = whole.end();
        }
        replaced.push_str(&text[end..]);
        replaced
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "/{}/", self.source)
    }
}

/// How a text is compared. An empty `Contains`, `Prefix` or `Suffix` matches every text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    /// It is this text.
    Exact {
        /// The text.
        text: String,
        /// Whether ASCII letters of either case are the same.
        ignore_case: bool,
    },
    /// It begins so.
    Prefix {
        /// The beginning.
        text: String,
        /// Whether ASCII letters of either case are the same.
        ignore_case: bool,
    },
    /// It ends so.
    Suffix {
        /// The end.
        text: String,
        /// Whether ASCII letters of either case are the same.
        ignore_case: bool,
    },
    /// It has this in it.
    Contains {
        /// The part.
        text: String,
        /// Whether ASCII letters of either case are the same.
        ignore_case: bool,
    },
    /// All of it matches a regular expression.
    Regex(Pattern),
}

impl TextMatch {
    /// A match of exactly `text`.
    #[must_use]
    pub fn exact(text: &str) -> Self {
        Self::Exact {
            text: text.to_owned(),
            ignore_case: false,
        }
    }

    /// A match of what begins with `text`.
    #[must_use]
    pub fn prefix(text: &str) -> Self {
        Self::Prefix {
            text: text.to_owned(),
            ignore_case: false,
        }
    }

    /// Whether `value` matches.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let value = value.as_bytes();
        match self {
            Self::Exact { text, ignore_case } => same(value, text.as_bytes(), *ignore_case),
            Self::Prefix { text, ignore_case } => value
                .get(..text.len())
                .is_some_and(|start| same(start, text.as_bytes(), *ignore_case)),
            Self::Suffix { text, ignore_case } => value
                .len()
                .checked_sub(text.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|end| same(end, text.as_bytes(), *ignore_case)),
            Self::Contains { text, ignore_case } => {
                text.is_empty()
                    || value
                        .windows(text.len())
                        .any(|part| same(part, text.as_bytes(), *ignore_case))
            }
            Self::Regex(pattern) => {
                std::str::from_utf8(value).is_ok_and(|value| pattern.matches(value))
            }
        }
    }
}

fn same(left: &[u8], right: &[u8], ignore_case: bool) -> bool {
    if ignore_case {
        left.eq_ignore_ascii_case(right)
    } else {
        left == right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_text() {
        let pattern = Pattern::parse("/a|/b").expect("a pattern");
        assert!(pattern.matches("/a"));
        assert!(pattern.matches("/b"));
        assert!(!pattern.matches("/ab"));
    }

    #[test]
    fn a_pattern_that_grows_too_large_is_refused() {
        let error = Pattern::parse("(a{1000}){1000}").expect_err("too large");
        assert!(error.to_string().contains("size limit"), "{error}");
        assert!(Pattern::parse(&"a".repeat(2000)).is_err());
    }

    #[test]
    fn a_rewrite_uses_groups() {
        let pattern = Pattern::parse("^/service/([^/]+)(/.*)$").expect("a pattern");
        assert_eq!(
            pattern.replace("/service/foo/v1/api", r"\2/instance/\1"),
            "/v1/api/instance/foo"
        );
        assert_eq!(pattern.replace("/other", r"\1"), "/other");
    }

    #[test]
    fn case_is_ignored_where_asked() {
        let sensitive = TextMatch::Prefix {
            text: "/Foo".to_owned(),
            ignore_case: false,
        };
        let either = TextMatch::Prefix {
            text: "/Foo".to_owned(),
            ignore_case: true,
        };
        assert!(!sensitive.matches("/foo/bar"));
        assert!(either.matches("/foo/bar"));
        let suffix = TextMatch::Suffix {
            text: "bar".to_owned(),
            ignore_case: false,
        };
        assert!(suffix.matches("/foo/bar") && !suffix.matches("ar"));
        let contains = TextMatch::Contains {
            text: "OO".to_owned(),
            ignore_case: true,
        };
        assert!(contains.matches("/foo/bar") && !contains.matches("/fo"));
    }
}
