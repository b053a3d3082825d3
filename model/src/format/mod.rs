//! Texts made from what is known of a request: values of headers, and lines of access logs.
//!
//! Why this exists: both are written with Envoy's substitution commands (`%REQ(host)% %RESPONSE_CODE%`). A [`Format`] is parsed
//! once, when the configuration is read; what comes in for each request is a [`Facts`], asked only for what the text names.
//! What goes out is the text, or the value of a single command with its type. Commands that are not known are refused by name.

mod fact;
mod flags;
mod parse;

use std::borrow::Cow;

pub use fact::{Fact, HeaderKey, Part};
pub use flags::{Flag, Flags};
pub use parse::FormatError;

/// A value of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A number: a status, bytes, or milliseconds.
    Number(u64),
}

impl<'a> Value<'a> {
    /// A text that lives long enough.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// A text of its own.
    #[must_use]
    pub fn owned(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }
}

/// What is known of a request.
pub trait Facts {
    /// A value; nothing where it is not known.
    fn value(&self, fact: &Fact) -> Option<Value<'_>>;
}

/// A command with the most bytes of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Command {
    fact: Fact,
    most: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Command(Command),
}

/// A text with commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    source: String,
    pieces: Vec<Piece>,
}

impl Format {
    /// Reads a text; `%%` is a percent sign.
    ///
    /// # Errors
    /// Names a command that is not known or not closed, and what is allowed.
    pub fn parse(source: &str) -> Result<Self, FormatError> {
        Ok(Self {
            source: source.to_owned(),
            pieces: parse::pieces(source)?,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text without any command, where it has none.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// What the text names.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Command(command) => Some(&command.fact),
        })
    }

    /// Appends the text, with `missing` for what is not known.
    pub fn write(&self, facts: &dyn Facts, missing: &str, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Command(command) => match facts.value(&command.fact) {
                    None => out.push_str(missing),
                    Some(Value::Number(number)) => out.push_str(&number.to_string()),
                    Some(Value::Text(text)) => out.push_str(cut(&text, command.most)),
                },
            }
        }
    }

    /// The text, with `missing` for what is not known.
    #[must_use]
    pub fn text(&self, facts: &dyn Facts, missing: &str) -> String {
        let mut out = String::with_capacity(self.source.len());
        self.write(facts, missing, &mut out);
        out
    }

    /// The value of a text that is one command, with its type; a text otherwise. Nothing where that command's value is not known.
    #[must_use]
    pub fn typed<'a>(&'a self, facts: &'a dyn Facts) -> Option<Value<'a>> {
        let [Piece::Command(command)] = self.pieces.as_slice() else {
            return Some(Value::Text(Cow::Owned(self.text(facts, "-"))));
        };
        match facts.value(&command.fact)? {
            Value::Text(text) if command.most.is_some_and(|most| text.len() > most) => {
                Some(Value::owned(cut(&text, command.most)))
            }
            value => Some(value),
        }
    }
}

/// At most so many bytes, up to a whole character.
fn cut(text: &str, most: Option<usize>) -> &str {
    match most {
        Some(most) if most < text.len() => &text[..text.floor_char_boundary(most)],
        _ => text,
    }
}

/// A time in UTC as `strftime` patterns say; `since` is counted from 1970. A pattern that says nothing sensible gives nothing.
#[must_use]
pub fn time(pattern: &str, since: std::time::Duration) -> String {
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let nanoseconds = i32::try_from(since.subsec_nanos()).unwrap_or(0);
    jiff::Timestamp::new(seconds, nanoseconds)
        .ok()
        .and_then(|time| {
            let time = time.to_zoned(jiff::tz::TimeZone::UTC);
            jiff::fmt::strtime::format(pattern, &time).ok()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Some3;

    impl Facts for Some3 {
        fn value(&self, fact: &Fact) -> Option<Value<'_>> {
            match fact {
                Fact::ResponseCode => Some(Value::Number(200)),
                Fact::Protocol => Some(Value::text("HTTP/1.1")),
                Fact::Request(keys) => {
                    let names: Vec<_> = keys.iter().map(HeaderKey::as_str).collect();
                    Some(Value::owned(names.join("+")))
                }
                _ => None,
            }
        }
    }

    fn text(source: &str) -> Result<String, String> {
        Format::parse(source)
            .map(|format| format.text(&Some3, "-"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn commands_become_values() {
        for (source, expected) in [
            ("", ""),
            ("100%%", "100%"),
            ("%PROTOCOL% %RESPONSE_CODE%!", "HTTP/1.1 200!"),
            ("%REQ(X-Own?:PATH)%", "x-own+:path"),
            ("%REQ(x-own):3%", "x-o"),
            ("%RESPONSE_FLAGS%", "-"),
        ] {
            assert_eq!(text(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (source, expected) in [
            ("a %PROTOCOL", "the command at byte 2 has no closing %"),
            ("50% off", "the command at byte 2 has no closing %"),
            ("%WEIRD%", "%WEIRD% is not supported; "),
            (
                "%REQ%",
                "%REQ%: the name of a header is expected, as in %REQ(x-name)%",
            ),
            ("%REQ(a b)%", "%REQ%: \"a b\" is no name of a header"),
            (
                "%REQ(:status)%",
                "%REQ%: \":status\" is no name of a header",
            ),
            ("%PROTOCOL(x)%", "%PROTOCOL% takes nothing in parentheses"),
            (
                "%START_TIME(%K)%",
                "%START_TIME%: \"%K\" is no pattern of a time",
            ),
        ] {
            let found = text(source);
            assert!(
                found
                    .as_ref()
                    .is_err_and(|error| error.starts_with(expected)),
                "{source}: {found:?}"
            );
        }
    }

    #[test]
    fn one_command_alone_keeps_its_type() {
        let typed = |source: &str| {
            let format = Format::parse(source).expect("a format");
            match format.typed(&Some3) {
                None => "nothing".to_owned(),
                Some(Value::Number(number)) => format!("number {number}"),
                Some(Value::Text(text)) => format!("text {text}"),
            }
        };
        assert_eq!(typed("%RESPONSE_CODE%"), "number 200");
        assert_eq!(typed("%RESPONSE_CODE%%%"), "text 200%");
        assert_eq!(typed("%GRPC_STATUS%"), "nothing");
    }

    #[test]
    fn times_have_patterns() {
        let since = Duration::new(1_700_000_000, 123_456_789);
        for (pattern, expected) in [
            ("%Y-%m-%dT%H:%M:%S.%3fZ", "2023-11-14T22:13:20.123Z"),
            ("%s", "1700000000"),
            ("%d/%b/%Y:%H:%M:%S %z", "14/Nov/2023:22:13:20 +0000"),
        ] {
            assert_eq!(time(pattern, since), expected, "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(source in "[%A-Z_():?a-z0-9 -]{0,60}") {
            if let Ok(format) = Format::parse(&source) {
                let _ = format.text(&Some3, "-");
            }
        }

        #[test]
        fn a_text_with_its_percent_signs_doubled_is_itself(text in "\\PC{0,40}") {
            let format = Format::parse(&text.replace('%', "%%")).expect("no commands");
            proptest::prop_assert_eq!(format.literal(), Some(text.as_str()));
        }
    }
}
