//! How many requests may come in ([Envoy's local rate
//! limit](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/local_rate_limit_filter)).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderName, StatusCode};
use serde_json::Value;

use super::metadata::Metadata;
use crate::Moment;
use crate::route::{Action, HeaderChanges, HeaderMatch, RequestHead, Route, VirtualHost};
use crate::tls::Peer;

/// How many requests may come in.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalRateLimit {
    /// The prefix of its figures.
    pub name: String,
    /// The status of those that may not.
    pub status: StatusCode,
    /// How many in all; nothing: no limit.
    pub bucket: Option<TokenBucket>,
    /// The share of requests that are counted, in millionths.
    pub enabled: u32,
    /// The share of those that are refused where there are too many, in millionths.
    pub enforced: u32,
    /// How many of some, and how these are told.
    pub descriptors: Vec<Descriptor>,
    /// What of a request is compared with descriptors; where there is nothing, routes and hosts say it.
    pub rules: Vec<RateRule>,
    /// Which rules of routes and hosts are meant.
    pub stage: u32,
    /// When rules of the host count.
    pub host_rates: HostRates,
    /// How many values of one descriptor have buckets of their own; the rest share one.
    pub most_values: u32,
    /// Whether requests that a descriptor counts are counted in all too.
    pub counts_all: bool,
    /// Changes to the answers to those that may not.
    pub response_headers: HeaderChanges,
    /// Whether callers are told what is left (`x-ratelimit-limit`, `x-ratelimit-remaining`, `x-ratelimit-reset`).
    pub tells: bool,
    /// Whether those that may not are told when to come back (`retry-after`).
    pub retry_after: bool,
    /// Whether gRPC's callers are told that the resource is exhausted, instead of unavailable.
    pub is_exhausted: bool,
}

/// How many requests at once, and how fast others may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// How many at once.
    pub most: u32,
    /// How many more after each interval.
    pub fill: u32,
    /// The interval.
    pub interval: Duration,
}

/// A limit for requests of which these are true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Names and values, all of them in this order; an empty value is any, and each has a bucket of its own.
    pub entries: Vec<(String, String)>,
    /// How many.
    pub bucket: TokenBucket,
}

/// What of a request makes the entries of a descriptor; none when one of them is not there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RateRule {
    /// Which filters it is for: those of this stage.
    pub stage: u32,
    /// What makes each entry.
    pub actions: Vec<RateAction>,
}

/// What a route says of what is counted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteRates {
    /// What of a request is counted.
    pub rules: Vec<RateRule>,
    /// Whether the rules of its host count beside these.
    pub includes_host: bool,
}

/// When rules of a host count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostRates {
    /// Where the route has none.
    #[default]
    Otherwise,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What of a request is counted.
#[derive(Debug)]
pub struct Counted<'a> {
    /// Its head.
    pub head: RequestHead<'a>,
    /// The caller.
    pub caller: Option<IpAddr>,
    /// Who that is.
    pub peer: &'a Peer,
    /// The cluster it would go to, where there is but one.
    pub cluster: Option<&'a str>,
    /// What filters learned of it.
    pub metadata: &'a Metadata,
}

/// What of a request makes one entry.
#[derive(Debug, Clone, PartialEq)]
pub enum RateAction {
    /// A header.
    Header {
        /// Its name.
        name: HeaderName,
        /// The name of the entry.
        key: String,
        /// Whether a request without it has no such entry, rather than none at all.
        skips: bool,
    },
    /// A parameter of the query.
    Query {
        /// Its name.
        name: String,
        /// The name of the entry.
        key: String,
        /// Whether a request without it has no such entry, rather than none at all.
        skips: bool,
    },
    /// The caller's address (`remote_address`).
    Address,
    /// The caller's network (`masked_remote_address`).
    Network {
        /// How long the prefix of IPv4 is, in bits.
        v4: u8,
        /// How long the prefix of IPv6 is, in bits.
        v6: u8,
    },
    /// A value that is given.
    Fixed {
        /// The name of the entry.
        key: String,
        /// Its value.
        value: String,
    },
    /// A value that is given where headers are so.
    Headers {
        /// The name of the entry.
        key: String,
        /// Its value.
        value: String,
        /// Whether they have to be so, rather than not.
        expected: bool,
        /// The headers.
        headers: Vec<HeaderMatch>,
    },
    /// Who the caller is by its certificate.
    Caller {
        /// The name of the entry.
        key: String,
    },
    /// The cluster that the request goes to, where its route has but one (`destination_cluster`).
    Cluster,
    /// What a filter before this one learned of the request.
    Learned {
        /// The name of the entry.
        key: String,
        /// The filter's kind.
        filter: String,
        /// The names on the way to the value.
        path: Vec<String>,
        /// Its value where nothing was learned; empty: none.
        usual: String,
        /// Whether a request without it has no such entry, rather than none at all.
        skips: bool,
    },
}

/// What was taken of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// One.
    Token(Left),
    /// There was none; the first one comes after this time.
    Nothing(Duration, Left),
}

/// What a bucket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How many it holds when full.
    pub most: u32,
    /// How many are left.
    pub tokens: u32,
    /// When it is full again.
    pub full: Duration,
}

/// A bucket that fills evenly, over all cores, as one number: when it will be full (the generic cell rate algorithm, ITU-T I.371).
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl TokenBucket {
    /// Nanoseconds from one token to the next.
    fn step(&self) -> u64 {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        (interval / u64::from(self.fill.max(1))).max(1)
    }
}

impl Bucket {
    /// Takes one token.
    pub fn take(&self, of: &TokenBucket, now: Moment) -> Taken {
        let step = of.step();
        let now = u64::try_from(now.since(Moment::default()).as_nanos()).unwrap_or(u64::MAX);
        let room = step.saturating_mul(u64::from(of.most));
        let left = |full: u64| Left {
            most: of.most,
            tokens: u32::try_from(room.saturating_sub(full.saturating_sub(now)) / step)
                .unwrap_or(u32::MAX),
            full: Duration::from_nanos(full.saturating_sub(now)),
        };
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
                let next = full.max(now).saturating_add(step);
                (next - now <= room).then_some(next)
            });
        match taken {
            Ok(full) => Taken::Token(left(full.max(now).saturating_add(step))),
            Err(full) => {
                let missing = full.max(now).saturating_add(step) - now - room;
                Taken::Nothing(Duration::from_nanos(missing), left(full))
            }
        }
    }

    /// Whether nothing was taken that did not come back: a new one is the same.
    #[must_use]
    pub fn is_full(&self, now: Moment) -> bool {
        let full = Duration::from_nanos(self.0.load(Ordering::Relaxed));
        Moment::new(full) <= now
    }
}

/// The rules by which a request is counted in a stage: the filter's own where it has any, else those of its route and its host.
pub fn rate_rules<'a>(
    own: &'a [RateRule],
    stage: u32,
    host_rates: HostRates,
    way: Option<(&'a VirtualHost, &'a Route)>,
) -> impl Iterator<Item = &'a RateRule> {
    let way = way.filter(|_| own.is_empty());
    let is_of_stage = move |rule: &&RateRule| rule.stage == stage;
    let of_route = way.and_then(|(_, route)| match &route.action {
        Action::Forward(forward) => Some(&forward.rates),
        _ => None,
    });
    let route = of_route.map_or(&[][..], |rates| rates.rules.as_slice());
    let has_none = !route.iter().any(|rule| is_of_stage(&rule));
    let takes_host = match host_rates {
        HostRates::Always => true,
        HostRates::Otherwise => has_none || of_route.is_some_and(|rates| rates.includes_host),
        HostRates::Never => false,
    };
    let host = way.filter(|_| takes_host);
    let host = host.map_or(&[][..], |(host, _)| host.rates.as_slice());
    let all = route.iter().chain(host).filter(is_of_stage);
    own.iter().chain(all)
}

/// The entries that a rule makes of a request; nothing where one of them is not there.
#[must_use]
pub fn entries(rule: &RateRule, counted: &Counted<'_>) -> Option<Vec<(String, String)>> {
    let mut made = Vec::with_capacity(rule.actions.len());
    for action in &rule.actions {
        match action.entry(counted) {
            Some(entry) => made.push(entry),
            None if action.skips() => {}
            None => return None,
        }
    }
    (!made.is_empty()).then_some(made)
}

impl RateAction {
    fn skips(&self) -> bool {
        matches!(
            self,
            Self::Header { skips: true, .. }
                | Self::Query { skips: true, .. }
                | Self::Learned { skips: true, .. }
        )
    }

    fn entry(&self, counted: &Counted<'_>) -> Option<(String, String)> {
        let head = &counted.head;
        Some(match self {
            Self::Header { name, key, .. } => (
                key.clone(),
                head.headers.get(name)?.to_str().ok()?.to_owned(),
            ),
            Self::Query { name, key, .. } => {
                let value = head.query?.split('&').find_map(|own| {
                    let (own, value) = own.split_once('=').unwrap_or((own, ""));
                    (own == name).then_some(value)
                });
                (key.clone(), value?.to_owned())
            }
            Self::Address => ("remote_address".to_owned(), counted.caller?.to_string()),
            Self::Network { v4, v6 } => {
                let caller = counted.caller?;
                let bits = if caller.is_ipv4() { *v4 } else { *v6 };
                let network = ipnet::IpNet::new(caller, bits).ok()?.trunc();
                ("masked_remote_address".to_owned(), network.to_string())
            }
            Self::Fixed { key, value } => (key.clone(), value.clone()),
            Self::Headers {
                key,
                value,
                expected,
                headers,
            } => {
                let are_so = headers.iter().all(|own| own.matches(head.headers));
                (are_so == *expected).then(|| (key.clone(), value.clone()))?
            }
            Self::Caller { key } => match counted.peer {
                Peer::Known(id) => (key.clone(), id.to_string()),
                _ => return None,
            },
            Self::Cluster => (
                "destination_cluster".to_owned(),
                counted.cluster?.to_owned(),
            ),
            Self::Learned {
                key,
                filter,
                path,
                usual,
                ..
            } => {
                let text = match counted.metadata.get(filter, path) {
                    Some(Value::String(text)) => text.clone(),
                    Some(own @ (Value::Number(_) | Value::Bool(_))) => own.to_string(),
                    _ => usual.clone(),
                };
                (!text.is_empty()).then(|| (key.clone(), text))?
            }
        })
    }
}

impl Descriptor {
    /// Whether these entries are meant.
    #[must_use]
    pub fn takes(&self, entries: &[(String, String)]) -> bool {
        self.entries.len() == entries.len()
            && self
                .entries
                .iter()
                .zip(entries)
                .all(|(own, made)| own.0 == made.0 && (own.1.is_empty() || own.1 == made.1))
    }

    /// Whether each value has a bucket of its own.
    #[must_use]
    pub fn is_by_value(&self) -> bool {
        self.entries.iter().any(|(_, value)| value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::Overrides;
    use crate::route::{Forward, RouteMatch};

    fn at(millis: u64) -> Moment {
        Moment::new(Duration::from_millis(millis))
    }

    fn is_taken(taken: Taken) -> bool {
        matches!(taken, Taken::Token(_))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let of = TokenBucket {
            most: 5,
            fill: 10,
            interval: Duration::from_secs(1),
        };
        let bucket = Bucket::default();
        let first: Vec<_> = (0..6).map(|_| bucket.take(&of, at(1000))).collect();
        assert_eq!(first.iter().filter(|own| is_taken(**own)).count(), 5);
        assert_eq!(
            first[0],
            Taken::Token(Left {
                most: 5,
                tokens: 4,
                full: Duration::from_millis(100)
            })
        );
        let Taken::Nothing(after, left) = first[5] else {
            panic!("a sixth");
        };
        assert_eq!((after, left.tokens), (Duration::from_millis(100), 0));
        assert!(!is_taken(bucket.take(&of, at(1099))));
        assert!(is_taken(bucket.take(&of, at(1100))));
        assert!(!bucket.is_full(at(1500)) && bucket.is_full(at(1600)));
    }

    #[test]
    fn cores_that_take_at_once_get_each_token_once() {
        let of = TokenBucket {
            most: 10_000,
            fill: 1,
            interval: Duration::from_secs(3_600),
        };
        for round in 0..20 {
            let bucket = Bucket::default();
            let now = at(1 + round);
            let given: usize = std::thread::scope(|scope| {
                let take = || {
                    (0..5_000)
                        .filter(|_| is_taken(bucket.take(&of, now)))
                        .count()
                };
                let cores: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
                let given = cores.into_iter().map(|core| core.join().expect("no panic"));
                given.sum()
            });
            assert_eq!(given, 10_000);
        }
    }

    #[test]
    fn rules_of_the_filter_come_before_those_of_the_route_and_its_host() {
        let rule = |stage, value: &str| RateRule {
            stage,
            actions: vec![RateAction::Fixed {
                key: "k".to_owned(),
                value: value.to_owned(),
            }],
        };
        let host = VirtualHost {
            rates: vec![rule(0, "host"), rule(1, "host-1")],
            ..VirtualHost::default()
        };
        let route = |rules: Vec<RateRule>, includes_host| {
            let mut forward = Forward::to("a");
            forward.rates = RouteRates {
                rules,
                includes_host,
            };
            Route {
                name: String::new(),
                matches: RouteMatch::default(),
                action: Action::Forward(Box::new(forward)),
                request_headers: HeaderChanges::default(),
                response_headers: HeaderChanges::default(),
                filters: Overrides::new(),
            }
        };
        let (bare, full) = (
            route(Vec::new(), false),
            route(vec![rule(0, "route")], false),
        );
        let both = route(vec![rule(0, "route")], true);
        let own = [rule(0, "own")];
        use HostRates::{Always, Never, Otherwise};
        for (own, stage, rates, route, expected) in [
            (&own[..], 0, Always, &both, &["own"][..]),
            (&[], 0, Otherwise, &full, &["route"]),
            (&[], 0, Otherwise, &bare, &["host"]),
            (&[], 0, Otherwise, &both, &["route", "host"]),
            (&[], 1, Otherwise, &full, &["host-1"]),
            (&[], 0, Always, &full, &["route", "host"]),
            (&[], 0, Never, &bare, &[]),
        ] {
            let found: Vec<_> = rate_rules(own, stage, rates, Some((&host, route)))
                .map(|rule| match &rule.actions[0] {
                    RateAction::Fixed { value, .. } => value.as_str(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(found, expected, "stage {stage}, {rates:?}");
        }
        assert_eq!(rate_rules(&[], 0, Always, None).count(), 0);
    }

    proptest! {
        #[test]
        fn a_bucket_never_gives_more_than_it_may(
            most in 1u32..50,
            fill in 1u32..100,
            millis in 1u64..2000,
            steps in proptest::collection::vec(0u64..200, 1..400),
        ) {
            let of = TokenBucket { most, fill, interval: Duration::from_millis(millis) };
            let bucket = Bucket::default();
            let (mut now, mut given) = (0u64, 0u64);
            for step in steps {
                now += step;
                given += u64::from(is_taken(bucket.take(&of, at(now))));
                let allowed = u64::from(most) as f64 + (now as f64) * f64::from(fill) / (millis as f64);
                prop_assert!(given as f64 <= allowed + 1e-3 * allowed + 1e-6, "{} of {}", given, allowed);
            }
        }
    }
}
