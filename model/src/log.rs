//! Access logs: which requests and connections leave a line, what it says, and where it goes.
//!
//! What comes in is a [`Facts`] of a request that ended; what goes out is a line. Values of headers that carry secrets
//! ([`SECRETS`]) are never written, whatever a format names.

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderMap;

use crate::format::{Fact, Facts, Flags, Format, HeaderKey, Value};
use crate::route::HeaderMatch;

/// Headers whose values are never written; `[redacted]` stands in their place.
pub const SECRETS: [&str; 5] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
];

/// A log.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where its lines go.
    pub target: LogTarget,
    /// What a line says.
    pub line: LogLine,
    /// Which requests leave one; all, where there is none.
    pub filter: Option<LogFilter>,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogTarget {
    /// A file, made where there is none; lines are added at its end.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub enum LogLine {
    /// A text, which ends as it says: a line break is part of it.
    Text {
        /// The text.
        format: Format,
        /// Whether what is not known is left out, not a dash.
        omit_empty: bool,
    },
    /// An object of JSON on a line of its own.
    Json {
        /// Its members.
        members: Vec<(String, JsonFormat)>,
        /// Whether what is not known is left out, not null.
        omit_empty: bool,
    },
}

/// A value of JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonFormat {
    /// A text with commands; one command alone keeps its type.
    Format(Format),
    /// A number, true, false or null, as it is.
    Plain(serde_json::Value),
    /// An object.
    Object(Vec<(String, JsonFormat)>),
    /// A list.
    List(Vec<JsonFormat>),
}

/// Which requests leave a line.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFilter {
    /// Those with such a status.
    Status(Comparison),
    /// Those that took so many milliseconds.
    Duration(Comparison),
    /// Those with one of these flags; with any, where none is given.
    Flags(Flags),
    /// Those with such a header.
    Header(HeaderMatch),
    /// So many in a million.
    Share(u32),
    /// Those with one of these gRPC statuses, or, with `exclude`, with none of them.
    Grpc {
        /// The statuses.
        statuses: Vec<u8>,
        /// Whether those with one of them are left out.
        exclude: bool,
    },
    /// Those whose trace is kept.
    Traced,
    /// Those that meet all.
    And(Vec<LogFilter>),
    /// Those that meet one.
    Or(Vec<LogFilter>),
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// How.
    pub operator: Operator,
    /// With which number.
    pub value: u64,
}

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// They are the same.
    Equal,
    /// The first is not less.
    AtLeast,
    /// The first is not more.
    AtMost,
    /// They are not the same.
    NotEqual,
}

impl Comparison {
    fn holds(self, number: u64) -> bool {
        match self.operator {
            Operator::Equal => number == self.value,
            Operator::AtLeast => number >= self.value,
            Operator::AtMost => number <= self.value,
            Operator::NotEqual => number != self.value,
        }
    }
}

/// What a filter is asked about.
#[derive(Clone, Copy)]
pub struct Ended<'a> {
    /// What is known of the request.
    pub facts: &'a dyn Facts,
    /// The headers of the request that [`AccessLog::headers`] named.
    pub headers: &'a HeaderMap,
    /// What went wrong.
    pub flags: Flags,
    /// Whether its trace is kept.
    pub is_traced: bool,
    /// A number below a million, drawn anew for each request.
    pub draw: u32,
}

impl std::fmt::Debug for Ended<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ended")
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

impl LogFilter {
    /// Whether a request leaves a line.
    #[must_use]
    pub fn takes(&self, ended: &Ended<'_>) -> bool {
        let number = |fact: &Fact| match ended.facts.value(fact) {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        };
        match self {
            Self::Status(own) => own.holds(number(&Fact::ResponseCode).unwrap_or(0)),
            Self::Duration(own) => own.holds(number(&Fact::Duration).unwrap_or(0)),
            Self::Flags(own) if own.is_empty() => !ended.flags.is_empty(),
            Self::Flags(own) => ended.flags.has_any(*own),
            Self::Header(own) => own.matches(ended.headers),
            Self::Share(share) => ended.draw < *share,
            Self::Grpc { statuses, exclude } => {
                let status = number(&Fact::GrpcStatus { is_number: true });
                let is_one = status
                    .is_some_and(|status| statuses.iter().any(|own| u64::from(*own) == status));
                is_one != *exclude
            }
            Self::Traced => ended.is_traced,
            Self::And(all) => all.iter().all(|own| own.takes(ended)),
            Self::Or(some) => some.iter().any(|own| own.takes(ended)),
        }
    }

    fn headers(&self, names: &mut Vec<HeaderKey>) {
        match self {
            Self::Header(own) => names.push(HeaderKey::Header(own.name.clone())),
            Self::And(all) | Self::Or(all) => all.iter().for_each(|own| own.headers(names)),
            _ => {}
        }
    }
}

impl AccessLog {
    /// What a line says of a request, and whether it leaves one. A text ends as its format does, an object with a line break.
    #[must_use]
    pub fn line(&self, ended: &Ended<'_>) -> Option<String> {
        if !self.filter.as_ref().is_none_or(|own| own.takes(ended)) {
            return None;
        }
        Some(match &self.line {
            LogLine::Text { format, omit_empty } => {
                format.text(ended.facts, if *omit_empty { "" } else { "-" })
            }
            LogLine::Json {
                members,
                omit_empty,
            } => {
                let mut line = object(members, ended.facts, *omit_empty).to_string();
                line.push('\n');
                line
            }
        })
    }

    /// What its lines and its filter name.
    #[must_use]
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        match &self.line {
            LogLine::Text { format, .. } => facts.extend(format.facts().cloned()),
            LogLine::Json { members, .. } => {
                members.iter().for_each(|(_, own)| own.facts(&mut facts));
            }
        }
        if let Some(filter) = &self.filter {
            let mut names = Vec::new();
            filter.headers(&mut names);
            facts.push(Fact::Request(names));
        }
        facts
    }
}

impl JsonFormat {
    fn facts(&self, facts: &mut Vec<Fact>) {
        match self {
            Self::Format(format) => facts.extend(format.facts().cloned()),
            Self::Plain(_) => {}
            Self::Object(members) => members.iter().for_each(|(_, own)| own.facts(facts)),
            Self::List(all) => all.iter().for_each(|own| own.facts(facts)),
        }
    }

    fn value(&self, facts: &dyn Facts, omit_empty: bool) -> serde_json::Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Format(format) => match format.typed(facts) {
                None => serde_json::Value::Null,
                Some(Value::Number(number)) => number.into(),
                Some(Value::Text(text)) => text.into_owned().into(),
            },
            Self::Object(members) => object(members, facts, omit_empty),
            Self::List(all) => all
                .iter()
                .map(|own| own.value(facts, omit_empty))
                .collect::<Vec<_>>()
                .into(),
        }
    }
}

fn object(
    members: &[(String, JsonFormat)],
    facts: &dyn Facts,
    omit_empty: bool,
) -> serde_json::Value {
    members
        .iter()
        .map(|(name, own)| (name, own.value(facts, omit_empty)))
        .filter(|(_, value)| !(omit_empty && value.is_null()))
        .map(|(name, value)| (name.clone(), value))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Logs that share what they are told of.
pub type AccessLogs = Vec<Arc<AccessLog>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Flag;

    struct Known;

    impl Facts for Known {
        fn value(&self, fact: &Fact) -> Option<Value<'_>> {
            match fact {
                Fact::ResponseCode => Some(Value::Number(503)),
                Fact::Duration => Some(Value::Number(12)),
                Fact::RouteName => Some(Value::text("a \"b\"")),
                _ => None,
            }
        }
    }

    fn format(source: &str) -> JsonFormat {
        JsonFormat::Format(Format::parse(source).expect("a format"))
    }

    fn ended(headers: &HeaderMap) -> Ended<'_> {
        Ended {
            facts: &Known,
            headers,
            flags: Flags::default().with(Flag::NoRoute),
            is_traced: false,
            draw: 500_000,
        }
    }

    #[test]
    fn an_object_keeps_types() {
        let mut log = AccessLog {
            target: LogTarget::Stdout,
            line: LogLine::Json {
                members: vec![
                    ("code".to_owned(), format("%RESPONSE_CODE%")),
                    (
                        "nested".to_owned(),
                        JsonFormat::Object(vec![
                            ("route".to_owned(), format("%ROUTE_NAME%")),
                            ("host".to_owned(), format("%UPSTREAM_HOST%")),
                        ]),
                    ),
                    ("text".to_owned(), format("%RESPONSE_CODE% %UPSTREAM_HOST%")),
                ],
                omit_empty: false,
            },
            filter: None,
        };
        let headers = HeaderMap::new();
        assert_eq!(
            log.line(&ended(&headers)).as_deref(),
            Some(
                "{\"code\":503,\"nested\":{\"host\":null,\"route\":\"a \\\"b\\\"\"},\"text\":\"503 -\"}\n"
            )
        );
        if let LogLine::Json { omit_empty, .. } = &mut log.line {
            *omit_empty = true;
        }
        assert_eq!(
            log.line(&ended(&headers)).as_deref(),
            Some("{\"code\":503,\"nested\":{\"route\":\"a \\\"b\\\"\"},\"text\":\"503 -\"}\n")
        );
    }

    #[test]
    fn filters_choose() {
        let headers = HeaderMap::new();
        let compare = |operator, value| Comparison { operator, value };
        let none = Flags::default();
        for (filter, expected) in [
            (LogFilter::Status(compare(Operator::AtLeast, 500)), true),
            (LogFilter::Status(compare(Operator::AtMost, 500)), false),
            (LogFilter::Duration(compare(Operator::Equal, 12)), true),
            (LogFilter::Duration(compare(Operator::NotEqual, 12)), false),
            (LogFilter::Flags(none), true),
            (LogFilter::Flags(none.with(Flag::NoRoute)), true),
            (LogFilter::Flags(none.with(Flag::NoCluster)), false),
            (LogFilter::Share(500_001), true),
            (LogFilter::Share(500_000), false),
            (
                LogFilter::Grpc {
                    statuses: vec![0],
                    exclude: true,
                },
                true,
            ),
            (
                LogFilter::And(vec![LogFilter::Share(0), LogFilter::Flags(none)]),
                false,
            ),
            (
                LogFilter::Or(vec![LogFilter::Share(0), LogFilter::Flags(none)]),
                true,
            ),
        ] {
            assert_eq!(filter.takes(&ended(&headers)), expected, "{filter:?}");
        }
    }
}
