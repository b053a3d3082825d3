//! Which requests somebody watches live, and what of them is shown.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::TextMatch;
use crate::filter::{Asked, Condition};
use crate::log::SECRETS;
use crate::route::{HeaderMatch, RequestHead};
use crate::tls::Peer;

/// What one viewer watches.
#[derive(Debug, Clone, PartialEq)]
pub struct Tap {
    /// The HTTP of which listeners, by the prefix of its figures; all where it is empty.
    pub name: String,
    /// Which requests.
    pub matches: TapMatch,
    /// The share of them in millionths.
    pub share: u32,
    /// How much of a request's body is shown, in bytes.
    pub request_most: usize,
    /// How much of an answer's body is shown, in bytes.
    pub response_most: usize,
    /// Whether bodies are shown as text, instead of base64.
    pub is_text: bool,
    /// Only requests of callers with one of these names in their certificates; any where there is none.
    pub callers: Vec<TextMatch>,
    /// Only requests whose answer took longer.
    pub slower_than: Option<Duration>,
    /// Headers whose values are not shown, beside those that never are.
    pub redacted: Vec<HeaderName>,
}

/// What has to be so for a request to be shown.
#[derive(Debug, Clone, PartialEq)]
pub enum TapMatch {
    /// Nothing.
    Any,
    /// All of these.
    All(Vec<TapMatch>),
    /// One of these.
    OneOf(Vec<TapMatch>),
    /// Not this.
    Not(Box<TapMatch>),
    /// All of these, of the request's head.
    Request(Vec<Condition>),
    /// All of these, of the answer's head.
    Response(Vec<AnswerMatch>),
}

/// What has to be so of an answer's head.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerMatch {
    /// Its status, as text of three digits.
    Status(TextMatch),
    /// A header.
    Header(HeaderMatch),
}

/// A request and its answer, once both are over.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The request.
    pub head: RequestHead<'a>,
    /// Who asked.
    pub peer: &'a Peer,
    /// The caller.
    pub caller: Option<IpAddr>,
    /// The other end of the connection.
    pub source: Option<SocketAddr>,
    /// The answer's status.
    pub status: u16,
    /// The answer's headers.
    pub response: &'a HeaderMap,
    /// How long both took.
    pub took: Duration,
}

impl Tap {
    /// Whether a request is shown.
    #[must_use]
    pub fn takes(&self, exchange: &Exchange<'_>) -> bool {
        let is_caller = self.callers.is_empty()
            || matches!(exchange.peer, Peer::Known(id) if self.callers.iter().any(|own| own.matches(id.as_str())));
        is_caller
            && self.slower_than.is_none_or(|most| exchange.took > most)
            && self.matches.holds(exchange)
    }

    /// Whether the values of a header are not shown.
    #[must_use]
    pub fn hides(&self, name: &HeaderName) -> bool {
        SECRETS.contains(&name.as_str()) || self.redacted.contains(name)
    }
}

impl TapMatch {
    fn holds(&self, exchange: &Exchange<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::All(all) => all.iter().all(|own| own.holds(exchange)),
            Self::OneOf(some) => some.iter().any(|own| own.holds(exchange)),
            Self::Not(other) => !other.holds(exchange),
            Self::Request(all) => {
                let asked = Asked {
                    head: Some(exchange.head),
                    destination: None,
                    source: exchange.source,
                    caller: exchange.caller,
                    server_name: None,
                    peer: exchange.peer,
                    metadata: None,
                    scope: OnceCell::new(),
                };
                all.iter().all(|own| own.is_so(&asked))
            }
            Self::Response(all) => all.iter().all(|own| match own {
                AnswerMatch::Status(text) => text.matches(&exchange.status.to_string()),
                AnswerMatch::Header(header) => header.matches(exchange.response),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_request_is_shown_by_what_it_was_and_how_it_went() {
        let path = Condition::Path(TextMatch::exact("/a"));
        let failed = AnswerMatch::Status(TextMatch::Prefix {
            text: "5".to_owned(),
            ignore_case: false,
        });
        let tap = Tap {
            name: String::new(),
            matches: TapMatch::All(vec![
                TapMatch::Request(vec![path]),
                TapMatch::Response(vec![failed]),
            ]),
            share: 1_000_000,
            request_most: 0,
            response_most: 0,
            is_text: false,
            callers: vec![TextMatch::exact("spiffe://a/ns/shop/sa/till")],
            slower_than: Some(Duration::from_millis(100)),
            redacted: Vec::new(),
        };
        let headers = HeaderMap::new();
        let till = Peer::Known("spiffe://a/ns/shop/sa/till".parse().expect("an id"));
        let takes = |path, peer, status, millis| {
            tap.takes(&Exchange {
                head: RequestHead {
                    method: &Method::GET,
                    authority: "shop",
                    path,
                    query: None,
                    headers: &headers,
                },
                peer,
                caller: None,
                source: None,
                status,
                response: &headers,
                took: Duration::from_millis(millis),
            })
        };
        assert!(takes("/a", &till, 503, 101));
        assert!(!takes("/b", &till, 503, 101), "another path");
        assert!(!takes("/a", &till, 404, 101), "another status");
        assert!(!takes("/a", &till, 503, 100), "not slow enough");
        assert!(!takes("/a", &Peer::Plain, 503, 101), "another caller");
    }
}
