//! What goes wrong on purpose ([Envoy's fault
//! filter](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/fault_filter)), bounded: to some callers, to a share of
//! requests, to an end, and to so many at once.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::TextMatch;
use crate::route::HeaderMatch;
use crate::tls::Peer;

/// What goes wrong, and for whom.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Injection {
    /// Requests wait.
    pub delay: Option<Delay>,
    /// Requests are answered by the proxy.
    pub abort: Option<Abort>,
    /// Answers come slowly.
    pub pace: Option<Pace>,
    /// Answers or connections break off.
    pub breaks: Vec<(Break, u32)>,
    /// Only requests to this cluster; any where it is empty.
    pub cluster: String,
    /// Only requests with these headers.
    pub headers: Vec<HeaderMatch>,
    /// Only requests from proxies of these names (`x-envoy-downstream-service-node`); any where there is none.
    pub nodes: Vec<String>,
    /// How many may be under it at once, over all cores.
    pub most_active: Option<u32>,
    /// Only callers with one of these names in their certificates; any where there is none.
    pub callers: Vec<TextMatch>,
    /// When it ends, in seconds since 1970.
    pub until: Option<u64>,
}

/// Requests wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub by: DelayBy,
    /// The share of requests in millionths.
    pub share: u32,
}

/// How long a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelayBy {
    /// So long.
    Fixed(Duration),
    /// As long as its headers say.
    Header,
}

/// Requests are answered by the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// How.
    pub by: AbortBy,
    /// The share of requests in millionths.
    pub share: u32,
    /// The body; a usual one where it is empty.
    pub body: String,
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortBy {
    /// With this status.
    Http(StatusCode),
    /// With this gRPC status.
    Grpc(u8),
    /// As its headers say.
    Header,
}

/// Answers come slowly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// How slowly.
    pub by: PaceBy,
    /// The share of requests in millionths.
    pub share: u32,
}

/// How fast an answer comes at most, in KiB a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaceBy {
    /// So fast.
    Fixed(u64),
    /// As its request's headers say.
    Header,
}

/// How something breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The caller's connection, or its stream, before an answer.
    Connection,
    /// The answer, in the middle of its body.
    Answer,
}

/// What goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Drawn {
    /// It waits so long first.
    pub delay: Option<Duration>,
    /// It is answered so.
    pub abort: Option<AbortBy>,
    /// Its answer has at most so many bytes a second.
    pub pace: Option<u64>,
    /// It, or its answer, breaks off.
    pub breaks: Option<Break>,
}

impl Drawn {
    /// Whether nothing goes wrong.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Injection {
    /// Whether headers of a request may say what goes wrong.
    #[must_use]
    pub fn asks_headers(&self) -> bool {
        let delay = self
            .delay
            .as_ref()
            .is_some_and(|own| own.by == DelayBy::Header);
        let abort = self
            .abort
            .as_ref()
            .is_some_and(|own| own.by == AbortBy::Header);
        let pace = self
            .pace
            .as_ref()
            .is_some_and(|own| own.by == PaceBy::Header);
        delay || abort || pace
    }

    /// Whether a request to a cluster is meant, `now` seconds after 1970.
    #[must_use]
    pub fn takes(&self, headers: &HeaderMap, cluster: Option<&str>, peer: &Peer, now: u64) -> bool {
        let is_over = self.until.is_some_and(|until| now >= until);
        let is_caller = self.callers.is_empty()
            || matches!(peer, Peer::Known(id) if self.callers.iter().any(|own| own.matches(id.as_str())));
        let node = || {
            headers
                .get("x-envoy-downstream-service-node")?
                .to_str()
                .ok()
        };
        !is_over
            && is_caller
            && (self.cluster.is_empty() || cluster == Some(self.cluster.as_str()))
            && (self.nodes.is_empty()
                || node().is_some_and(|own| self.nodes.iter().any(|node| node == own)))
            && self.headers.iter().all(|own| own.matches(headers))
    }

    /// What goes wrong with a request that is meant; each call of `draw` gives a number below a million.
    #[must_use]
    pub fn draw(&self, headers: &HeaderMap, mut draw: impl FnMut() -> u32) -> Drawn {
        let delay = self.delay.as_ref().and_then(|own| {
            let length = match own.by {
                DelayBy::Fixed(length) => length,
                DelayBy::Header => {
                    Duration::from_millis(number(headers, "x-envoy-fault-delay-request")?)
                }
            };
            let share = share(
                headers,
                "x-envoy-fault-delay-request-percentage",
                own.share,
                self,
            );
            (draw() < share).then_some(length)
        });
        let abort = self.abort.as_ref().and_then(|own| {
            let by = match own.by {
                AbortBy::Header => asked_abort(headers)?,
                fixed => fixed,
            };
            let share = share(
                headers,
                "x-envoy-fault-abort-request-percentage",
                own.share,
                self,
            );
            (draw() < share).then_some(by)
        });
        let pace = self.pace.as_ref().and_then(|own| {
            let kilobytes = match own.by {
                PaceBy::Fixed(kilobytes) => kilobytes,
                PaceBy::Header => number(headers, "x-envoy-fault-throughput-response")?,
            };
            let name = "x-envoy-fault-throughput-response-percentage";
            let share = share(headers, name, own.share, self);
            (draw() < share && kilobytes > 0).then_some(kilobytes.saturating_mul(1024))
        });
        let breaks = self.breaks.iter().find(|(_, share)| draw() < *share);
        Drawn {
            delay,
            abort,
            pace,
            breaks: breaks.map(|(how, _)| *how),
        }
    }
}

/// A share in millionths: what a header asks in percent, and never more than what is allowed.
fn share(headers: &HeaderMap, name: &str, most: u32, of: &Injection) -> u32 {
    if !of.asks_headers() {
        return most;
    }
    number(headers, name).map_or(most, |percent| {
        u32::try_from(percent.saturating_mul(10_000)).map_or(most, |asked| asked.min(most))
    })
}

fn asked_abort(headers: &HeaderMap) -> Option<AbortBy> {
    if let Some(status) = number(headers, "x-envoy-fault-abort-request") {
        let status = u16::try_from(status)
            .ok()
            .filter(|own| (200..600).contains(own))?;
        return StatusCode::from_u16(status).ok().map(AbortBy::Http);
    }
    let grpc = number(headers, "x-envoy-fault-abort-grpc-request")?;
    u8::try_from(grpc)
        .ok()
        .filter(|own| *own <= 16)
        .map(AbortBy::Grpc)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| {
                let value = value.parse().expect("a value");
                (http::HeaderName::from_static(name), value)
            })
            .collect()
    }

    #[test]
    fn shares_are_kept() {
        let injection = Injection {
            abort: Some(Abort {
                by: AbortBy::Http(StatusCode::IM_A_TEAPOT),
                share: 250_000,
                body: String::new(),
            }),
            ..Injection::default()
        };
        let mut random = fastrand::Rng::with_seed(7);
        let hit = (0..100_000).filter(|_| {
            !injection
                .draw(&HeaderMap::new(), || random.u32(..1_000_000))
                .is_nothing()
        });
        // Four standard deviations of a binomial.
        let hit = hit.count();
        assert!((24_450..25_550).contains(&hit), "{hit}");
    }

    #[test]
    fn headers_ask_within_what_is_allowed() {
        let injection = Injection {
            delay: Some(Delay {
                by: DelayBy::Header,
                share: 500_000,
            }),
            ..Injection::default()
        };
        let asked = |percent: &str, draw: u32| {
            let headers = headers(&[
                ("x-envoy-fault-delay-request", "250"),
                ("x-envoy-fault-delay-request-percentage", percent),
            ]);
            injection.draw(&headers, || draw).delay
        };
        assert_eq!(asked("100", 499_999), Some(Duration::from_millis(250)));
        assert_eq!(
            asked("100", 500_000),
            None,
            "never more than the configured share"
        );
        assert_eq!(asked("10", 100_000), None);
        assert_eq!(injection.draw(&HeaderMap::new(), || 0).delay, None);
    }

    #[test]
    fn it_ends_and_takes_only_whom_it_names() {
        let injection = Injection {
            callers: vec![TextMatch::exact("spiffe://a/ns/shop/sa/tester")],
            until: Some(100),
            ..Injection::default()
        };
        let peer = |id: &str| Peer::Known(id.parse().expect("an id"));
        let tester = peer("spiffe://a/ns/shop/sa/tester");
        let none = HeaderMap::new();
        assert!(injection.takes(&none, None, &tester, 99));
        assert!(!injection.takes(&none, None, &tester, 100));
        assert!(!injection.takes(&none, None, &peer("spiffe://a/ns/shop/sa/till"), 99));
        assert!(!injection.takes(&none, None, &Peer::Plain, 99));
    }
}
