//! How many requests may come in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairlead_model::Moment;
use fairlead_model::fault::Fault;
use fairlead_model::filter::{
    Bucket, Counted, Left, LocalRateLimit, Taken, TokenBucket, entries, rate_rules,
};
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};

use super::{Asking, Passage, Stopped};
use crate::core::Core;
use crate::http::respond;

pub(super) const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(super) const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// How often buckets that are full again are looked for, where there is no room for another.
const SWEEP: Duration = Duration::from_secs(1);

/// The buckets of all rate limits, by the addresses of their settings, which each of them keeps.
#[derive(Debug, Default)]
pub(crate) struct Limiters(Mutex<HashMap<usize, Arc<Limiter>>>);

/// The buckets of one rate limit, over all cores.
#[derive(Debug)]
pub(crate) struct Limiter {
    settings: Arc<LocalRateLimit>,
    all: Bucket,
    each: Vec<Values>,
}

/// The buckets of one descriptor.
#[derive(Debug, Default)]
struct Values {
    own: Mutex<Own>,
    /// Of values that have none of their own.
    rest: Bucket,
    hasher: RandomState,
}

/// Buckets by a hash of their values: what callers send is not kept.
#[derive(Debug, Default)]
struct Own {
    buckets: HashMap<u64, Bucket>,
    swept: Moment,
}

impl Limiters {
    /// The buckets of a rate limit; those whose settings nobody has any more are forgotten.
    fn of(&self, settings: &Arc<LocalRateLimit>) -> Arc<Limiter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::as_ptr(settings) as usize;
        if let Some(known) = all.get(&key) {
            return Arc::clone(known);
        }
        all.retain(|_, own| Arc::strong_count(&own.settings) > 1);
        let limiter = Arc::new(Limiter {
            settings: Arc::clone(settings),
            all: Bucket::default(),
            each: settings
                .descriptors
                .iter()
                .map(|_| Values::default())
                .collect(),
        });
        all.insert(key, Arc::clone(&limiter));
        limiter
    }
}

/// The buckets that a worker has found, so that it need not look for them again.
#[derive(Debug, Default)]
pub(crate) struct Found(RefCell<HashMap<usize, Arc<Limiter>>>);

impl Found {
    fn of(&self, core: &Core, settings: &Arc<LocalRateLimit>) -> Arc<Limiter> {
        let mut found = self.0.borrow_mut();
        let key = Arc::as_ptr(settings) as usize;
        let limiter = found
            .entry(key)
            .or_insert_with(|| core.shared.limiters.of(settings));
        Arc::clone(limiter)
    }

    /// Forgets what was found by old settings.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

impl Limiter {
    /// Takes a token of every bucket that a request with these entries counts for; the least that is left of any.
    fn take(&self, made: &[Vec<(String, String)>], now: Moment) -> Option<Taken> {
        let settings = &*self.settings;
        let mut least: Option<Left> = None;
        let mut is_counted = false;
        for (descriptor, values) in settings.descriptors.iter().zip(&self.each) {
            for entries in made.iter().filter(|entries| descriptor.takes(entries)) {
                is_counted = true;
                let most = settings.most_values as usize;
                let taken = match descriptor.is_by_value() {
                    true => values.take(entries, &descriptor.bucket, most, now),
                    false => values.rest.take(&descriptor.bucket, now),
                };
                match taken {
                    Taken::Nothing(..) => return Some(taken),
                    Taken::Token(left) => least = Some(lesser(least, left)),
                }
            }
        }
        if let Some(bucket) = &settings.bucket
            && (!is_counted || settings.counts_all)
        {
            match self.all.take(bucket, now) {
                taken @ Taken::Nothing(..) => return Some(taken),
                Taken::Token(left) => least = Some(lesser(least, left)),
            }
        }
        least.map(Taken::Token)
    }
}

fn lesser(known: Option<Left>, left: Left) -> Left {
    known
        .filter(|known| known.tokens <= left.tokens)
        .unwrap_or(left)
}

impl Values {
    fn take(
        &self,
        entries: &[(String, String)],
        bucket: &TokenBucket,
        most: usize,
        now: Moment,
    ) -> Taken {
        let key = self.hasher.hash_one(entries);
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = own.buckets.get(&key) {
            return known.take(bucket, now);
        }
        if own.buckets.len() >= most && now.since(own.swept) >= SWEEP {
            own.swept = now;
            own.buckets.retain(|_, own| !own.is_full(now));
        }
        if own.buckets.len() >= most {
            return self.rest.take(bucket, now);
        }
        own.buckets.entry(key).or_default().take(bucket, now)
    }
}

impl Asking<'_> {
    /// What of the request is counted.
    pub(super) fn counted<'a>(&'a self, passage: &'a Passage) -> Counted<'a> {
        Counted {
            head: self.head(),
            caller: self.caller.or(self.connection.source.map(|own| own.ip())),
            peer: &self.connection.peer,
            cluster: self.cluster(),
            metadata: &passage.metadata,
        }
    }

    /// Says whether there is room for the request.
    pub(super) fn limit(
        &self,
        own: &Arc<LocalRateLimit>,
        passage: &mut Passage,
    ) -> Result<(), Stopped> {
        let core = &self.service.core;
        if core.draw() >= own.enabled {
            return Ok(());
        }
        let figures = &self.service.figures;
        figures.local_rate_limit_enabled.increment();
        let counted = self.counted(passage);
        let made: Vec<_> = rate_rules(&own.rules, own.stage, own.host_rates, self.route())
            .filter_map(|rule| entries(rule, &counted))
            .collect();
        let limiter = core.limiters.of(core, own);
        let (left, after) = match limiter.take(&made, core.clock.now()) {
            None => return Ok(()),
            Some(Taken::Token(left)) => (left, None),
            Some(Taken::Nothing(after, left)) => (left, Some(after)),
        };
        if own.tells {
            tell(left, passage);
        }
        let Some(after) = after else {
            figures.local_rate_limit_ok.increment();
            return Ok(());
        };
        figures.local_rate_limit_rate_limited.increment();
        if core.draw() >= own.enforced {
            return Ok(());
        }
        figures.local_rate_limit_enforced.increment();
        if let Some(record) = self.record {
            record.failed(Fault::RateLimited);
        }
        let mut response = respond::limited(own.status, own.is_exhausted, self.is_grpc);
        let headers = response.headers_mut();
        if own.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole(after).max(1)));
        }
        own.response_headers.apply(headers, |format, headers| {
            self.record
                .map_or_else(String::new, |own| own.response_text(format, headers))
        });
        Err(Stopped::Answered(Box::new(response)))
    }
}

fn tell(left: Left, passage: &mut Passage) {
    let known = passage
        .headers
        .get(&REMAINING)
        .and_then(|own| own.to_str().ok()?.parse::<u32>().ok());
    if known.is_some_and(|known| known <= left.tokens) {
        return;
    }
    let headers = &mut passage.headers;
    headers.insert(LIMIT, HeaderValue::from(left.most));
    headers.insert(REMAINING, HeaderValue::from(left.tokens));
    headers.insert(RESET, HeaderValue::from(whole(left.full)));
}

/// Seconds, rounded up.
fn whole(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use fairlead_model::filter::{Descriptor, HostRates, RateAction, RateRule};
    use fairlead_model::route::HeaderChanges;
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_flood_of_values_is_bounded_and_slows_nobody_known() {
        let bucket = TokenBucket {
            most: 2,
            fill: 1,
            interval: Duration::from_secs(10),
        };
        let settings = Arc::new(LocalRateLimit {
            name: String::new(),
            status: StatusCode::TOO_MANY_REQUESTS,
            bucket: None,
            enabled: 1_000_000,
            enforced: 1_000_000,
            descriptors: vec![Descriptor {
                entries: vec![("caller".to_owned(), String::new())],
                bucket,
            }],
            rules: vec![RateRule {
                stage: 0,
                actions: vec![RateAction::Address],
            }],
            stage: 0,
            host_rates: HostRates::Otherwise,
            most_values: 100,
            counts_all: false,
            response_headers: HeaderChanges::default(),
            tells: false,
            retry_after: false,
            is_exhausted: false,
        });
        let limiters = Limiters::default();
        let limiter = limiters.of(&settings);
        assert!(
            Arc::ptr_eq(&limiter, &limiters.of(&settings)),
            "one for all cores"
        );
        let at = |seconds| Moment::new(Duration::from_secs(seconds));
        let take = |value: &str, now| {
            let made = [vec![("caller".to_owned(), value.to_owned())]];
            matches!(limiter.take(&made, now), Some(Taken::Token(_)))
        };
        assert!(take("known", at(100)));
        let flood = (0..10_000).filter(|own| take(&format!("evil-{own}"), at(100)));
        // 99 have buckets of their own, and all others share one.
        assert_eq!(flood.count(), 99 + 2);
        assert!(take("known", at(100)) && !take("known", at(100)));
        let count = || limiter.each[0].own.lock().expect("no panic").buckets.len();
        assert_eq!(count(), 100);
        // When buckets are full again, there is room.
        assert!(take("new", at(200)) && count() == 1);
    }
}
