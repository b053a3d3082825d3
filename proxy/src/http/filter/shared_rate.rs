//! How many requests may come in, as a service counts over all proxies (`envoy.service.ratelimit.v3`).

use std::fmt::Write as _;

use fairlead_model::fault::Fault;
use fairlead_model::filter::{HostRates, RateSettings, SharedRateLimit, entries, rate_rules};
use fairlead_model::route::{HeaderChange, HeaderText, OnPresent};
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};
use prost::Message;

use super::rate_limit::{LIMIT, REMAINING, RESET};
use super::{Asking, Passage, Stopped};
use crate::http::errand::ErrandError;
use crate::http::respond;

const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// How long an answer may be, in bytes.
const LONGEST: usize = 256 * 1024;
const IS_FINE: i32 = 1;
const IS_OVER: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct RateLimitRequest {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(message, repeated, tag = "2")]
    descriptors: Vec<Descriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Pair>,
}

/// A key and its value: an entry, or a header.
#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct RateLimitResponse {
    #[prost(int32, tag = "1")]
    overall_code: i32,
    #[prost(message, repeated, tag = "2")]
    statuses: Vec<Status>,
    #[prost(message, repeated, tag = "3")]
    response_headers_to_add: Vec<Pair>,
    #[prost(message, repeated, tag = "4")]
    request_headers_to_add: Vec<Pair>,
    #[prost(bytes = "vec", tag = "5")]
    raw_body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(message, optional, tag = "2")]
    current_limit: Option<CurrentLimit>,
    #[prost(uint32, tag = "3")]
    limit_remaining: u32,
    #[prost(message, optional, tag = "4")]
    duration_until_reset: Option<Duration>,
}

#[derive(Clone, PartialEq, Message)]
struct CurrentLimit {
    #[prost(uint32, tag = "1")]
    requests_per_unit: u32,
    #[prost(int32, tag = "2")]
    unit: i32,
    #[prost(string, tag = "3")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Duration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Status {
    /// How long until there is room again, in seconds, rounded up.
    fn reset(&self) -> u64 {
        self.duration_until_reset.as_ref().map_or(0, |own| {
            u64::try_from(own.seconds).unwrap_or(0) + u64::from(own.nanos > 0)
        })
    }
}

impl CurrentLimit {
    /// How long its window is, in seconds; nothing where that is not known.
    fn window(&self) -> Option<u32> {
        Some(match self.unit {
            1 => 1,
            2 => 60,
            3 => 3_600,
            4 => 86_400,
            5 => 30 * 86_400,
            6 => 365 * 86_400,
            7 => 7 * 86_400,
            _ => return None,
        })
    }
}

impl Asking<'_> {
    /// Asks whether there is room for the request.
    pub(super) async fn limit_by_service(
        &mut self,
        own: &SharedRateLimit,
        settings: Option<&RateSettings>,
        passage: &mut Passage,
    ) -> Result<(), Stopped> {
        let service = self.service;
        let (core, figures) = (&service.core, &service.figures);
        let descriptors = self.descriptors(own, settings, passage);
        if core.draw() >= own.enabled || descriptors.is_empty() {
            return Ok(());
        }
        let domain = settings.and_then(|own| own.domain.as_ref());
        let question = RateLimitRequest {
            domain: domain.unwrap_or(&own.domain).clone(),
            descriptors,
        };
        let errand = core.errands.of(&own.service, "ratelimit");
        let answer: Result<RateLimitResponse, ErrandError> = errand
            .unary(core, SHOULD_RATE_LIMIT, &question, LONGEST)
            .await;
        core.clock.now();
        let answer = match answer {
            Ok(answer) if [IS_FINE, IS_OVER].contains(&answer.overall_code) => answer,
            Ok(_) => return self.uncounted(own, "the answer is none"),
            Err(error) => return self.uncounted(own, &error.to_string()),
        };
        if own.tells {
            tell(&answer.statuses, passage);
        }
        if answer.overall_code == IS_FINE {
            figures.ratelimit_ok.increment();
            for header in added(&answer.request_headers_to_add) {
                if let HeaderText::Literal(value) = header.value {
                    self.request.headers_mut().append(header.name, value);
                }
            }
            let headers = added(&answer.response_headers_to_add);
            passage.changes.set.extend(headers);
            return Ok(());
        }
        figures.ratelimit_over_limit.increment();
        match core.draw() < own.enforced {
            true => Err(self.over(own, &answer)),
            false => Ok(()),
        }
    }

    /// What of the request is counted.
    fn descriptors(
        &self,
        own: &SharedRateLimit,
        settings: Option<&RateSettings>,
        passage: &Passage,
    ) -> Vec<Descriptor> {
        let by_route = settings.map_or(&[][..], |own| own.rules.as_slice());
        let rules = match by_route.is_empty() {
            true => own.rules.as_slice(),
            false => by_route,
        };
        let host = settings.map_or(HostRates::Otherwise, |own| own.host);
        let counted = self.counted(passage);
        let made = rate_rules(rules, own.stage, host, self.route())
            .filter_map(|rule| entries(rule, &counted));
        let pairs = |entries: Vec<(String, String)>| {
            let entries = entries.into_iter().map(|(key, value)| Pair { key, value });
            Descriptor {
                entries: entries.collect(),
            }
        };
        made.map(pairs).collect()
    }

    /// The answer to a request of which there are too many.
    fn over(&self, own: &SharedRateLimit, answer: &RateLimitResponse) -> Stopped {
        if let Some(record) = self.record {
            record.failed(Fault::RateLimited);
        }
        let mut response = respond::limited(own.status, own.is_exhausted, self.is_grpc);
        if let (false, Ok(text)) = (self.is_grpc, std::str::from_utf8(&answer.raw_body))
            && !text.is_empty()
        {
            respond::set_text(&mut response, text);
        }
        let headers = response.headers_mut();
        if own.retry_after {
            let over = answer.statuses.iter().filter(|own| own.code == IS_OVER);
            let after = over.map(Status::reset).max().unwrap_or(0);
            headers.insert(RETRY_AFTER, HeaderValue::from(after.max(1)));
        }
        for header in added(&answer.response_headers_to_add) {
            if let HeaderText::Literal(value) = header.value {
                headers.append(header.name, value);
            }
        }
        own.response_headers.apply(headers, |format, headers| {
            self.record
                .map_or_else(String::new, |own| own.response_text(format, headers))
        });
        Stopped::Answered(Box::new(response))
    }

    /// What becomes of a request that the service does not count.
    fn uncounted(&self, own: &SharedRateLimit, why: &str) -> Result<(), Stopped> {
        let figures = &self.service.figures;
        figures.ratelimit_error.increment();
        let cluster = &*own.service.cluster;
        tracing::debug!(
            cluster,
            why,
            "nobody said whether there is room for a request"
        );
        if !own.denies_on_error {
            figures.ratelimit_failure_mode_allowed.increment();
            return Ok(());
        }
        if let Some(record) = self.record {
            record.failed(Fault::RateLimited);
        }
        let response = respond::limited(own.status_on_error, own.is_exhausted, self.is_grpc);
        Err(Stopped::Answered(Box::new(response)))
    }
}

/// Headers of an answer that are headers.
fn added(all: &[Pair]) -> impl Iterator<Item = HeaderChange> {
    all.iter().filter_map(|own| {
        Some(HeaderChange {
            name: HeaderName::from_bytes(own.key.as_bytes()).ok()?,
            value: HeaderText::Literal(HeaderValue::from_str(&own.value).ok()?),
            present: OnPresent::Append,
            only_if_present: false,
        })
    })
}

/// Tells the caller what is left of the limit that has the least (draft-polli-ratelimit-headers-03).
fn tell(statuses: &[Status], passage: &mut Passage) {
    let limited = statuses
        .iter()
        .filter_map(|own| Some((own, own.current_limit.as_ref()?)));
    let Some((least, limit)) = limited.clone().min_by_key(|(own, _)| own.limit_remaining) else {
        return;
    };
    let mut text = limit.requests_per_unit.to_string();
    for (_, limit) in limited {
        let Some(window) = limit.window() else {
            continue;
        };
        // What is written into a text is always taken.
        let _ = write!(text, ", {};w={window}", limit.requests_per_unit);
        if !limit.name.is_empty() {
            let _ = write!(text, ";name=\"{}\"", limit.name);
        }
    }
    let headers = &mut passage.headers;
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(LIMIT, value);
    }
    headers.insert(REMAINING, HeaderValue::from(least.limit_remaining));
    headers.insert(RESET, HeaderValue::from(least.reset()));
}
