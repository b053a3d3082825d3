//! What an answer means: a success, a failure, or a failure worth another try. Breaking, retries and the success rate all
//! read this, so they agree.

use std::ops::RangeInclusive;

use http::HeaderMap;

use crate::route::HeaderMatch;

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The endpoint did what was asked, or said rightly that it cannot be done.
    Success,
    /// The endpoint failed.
    Failure,
    /// The endpoint failed in a way that another try may mend.
    Retryable,
}

impl Class {
    /// Whether the endpoint failed.
    #[must_use]
    pub fn is_failure(self) -> bool {
        self != Self::Success
    }

    /// Its value in figures.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure | Self::Retryable => "failure",
        }
    }
}

/// The head of an answer, and what its gRPC status is, once that is known.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The gRPC status, from the headers or the trailers.
    pub grpc: Option<u8>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// One rule: an answer that meets all its conditions has its class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassRule {
    /// HTTP statuses.
    pub status: Option<RangeInclusive<u16>>,
    /// gRPC statuses.
    pub grpc: Option<Vec<u8>>,
    /// A header of the answer.
    pub header: Option<HeaderMatch>,
    /// The class.
    pub class: Class,
}

/// The rules of a route; the first that applies counts, then the usual ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Classes {
    /// The rules.
    pub rules: Vec<ClassRule>,
}

/// gRPC statuses that are the endpoint's failure: UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, INTERNAL, UNAVAILABLE and
/// DATA_LOSS (Linkerd's default).
const GRPC_FAILURES: [u8; 6] = [2, 4, 7, 13, 14, 15];

impl Classes {
    /// The class of an answer.
    #[must_use]
    pub fn of(&self, answer: &Answer<'_>) -> Class {
        self.rules
            .iter()
            .find(|rule| rule.applies(answer))
            .map_or_else(|| usual(answer), |rule| rule.class)
    }
}

impl ClassRule {
    fn applies(&self, answer: &Answer<'_>) -> bool {
        self.status
            .as_ref()
            .is_none_or(|range| range.contains(&answer.status))
            && self
                .grpc
                .as_ref()
                .is_none_or(|codes| answer.grpc.is_some_and(|code| codes.contains(&code)))
            && self
                .header
                .as_ref()
                .is_none_or(|header| header.matches(answer.headers))
    }
}

fn usual(answer: &Answer<'_>) -> Class {
    let failed = match answer.grpc {
        Some(code) => GRPC_FAILURES.contains(&code),
        None => answer.status >= 500,
    };
    if failed {
        Class::Failure
    } else {
        Class::Success
    }
}

/// Whether an answer says that the endpoint has too much to do: 429, 503, or gRPC's RESOURCE_EXHAUSTED.
#[must_use]
pub fn is_rejection(status: u16, grpc: Option<u8>) -> bool {
    matches!(status, 429 | 503) || grpc == Some(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, grpc: Option<u8>, headers: &HeaderMap) -> Answer<'_> {
        Answer {
            status,
            grpc,
            headers,
        }
    }

    #[test]
    fn the_usual_classes() {
        let (classes, none) = (Classes::default(), HeaderMap::new());
        assert_eq!(classes.of(&answer(200, None, &none)), Class::Success);
        assert_eq!(classes.of(&answer(404, None, &none)), Class::Success);
        assert_eq!(classes.of(&answer(503, None, &none)), Class::Failure);
        assert_eq!(classes.of(&answer(200, Some(5), &none)), Class::Success);
        assert_eq!(classes.of(&answer(200, Some(14), &none)), Class::Failure);
    }

    #[test]
    fn the_first_rule_counts() {
        let none = HeaderMap::new();
        let rule = |status, grpc, class| ClassRule {
            status,
            grpc,
            header: None,
            class,
        };
        let classes = Classes {
            rules: vec![
                rule(Some(500..=500), None, Class::Success),
                rule(Some(500..=599), None, Class::Retryable),
                rule(None, Some(vec![5]), Class::Failure),
            ],
        };
        assert_eq!(classes.of(&answer(500, None, &none)), Class::Success);
        assert_eq!(classes.of(&answer(502, None, &none)), Class::Retryable);
        assert_eq!(classes.of(&answer(200, Some(5), &none)), Class::Failure);
        assert_eq!(classes.of(&answer(200, None, &none)), Class::Success);
    }
}
