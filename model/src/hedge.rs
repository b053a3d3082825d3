//! Speculative tries: where an answer is late, the request goes to another endpoint too, and the first answer counts
//! ([The Tail at Scale](https://research.google/pubs/the-tail-at-scale/), Dean and Barroso; the delay is Finagle's
//! `BackupRequestFilter`'s).

use std::time::Duration;

use crate::Moment;

/// How often the delay is found anew.
const PERIOD: Duration = Duration::from_secs(3);
/// How many answers have to be known before a delay is believed.
const LEAST_KNOWN: u64 = 20;
/// Buckets for each doubling of latency: a delay is at most a sixteenth too long.
const STEPS: usize = 16;
/// How many doublings of a microsecond there are buckets for: more than an hour.
const DOUBLINGS: usize = 33;

/// When a request goes to another endpoint too.
#[derive(Debug, Clone, PartialEq)]
pub struct Hedge {
    /// After which time.
    pub after: HedgeAfter,
    /// The share of requests that may, in percent; nothing: as many as want to.
    pub extra: Option<u8>,
    /// The shortest time.
    pub least: Duration,
    /// Whether requests that change something may, too; else only those that may be repeated (RFC 9110 9.2.2).
    pub any_method: bool,
}

/// After which time a request goes to another endpoint too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    /// After the limit of one try, which then does not end it.
    Try,
    /// After as long as this share of answers takes, in millionths.
    Percentile(u32),
}

/// How long the answers of a route took, and the delay that follows.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: Vec<u64>,
    known: u64,
    since: Moment,
    delay: Option<Duration>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: vec![0; STEPS * DOUBLINGS],
            known: 0,
            since: Moment::default(),
            delay: None,
        }
    }
}

impl Latencies {
    /// An answer took so long.
    pub fn observe(&mut self, took: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(took)) {
            *count += 1;
            self.known += 1;
        }
    }

    /// As long as this share of answers takes, in millionths; nothing while too few are known. It is found anew every 3 s, and what
    /// was known before then counts half.
    pub fn delay(&mut self, percentile: u32, now: Moment) -> Option<Duration> {
        let is_due = now.since(self.since) >= PERIOD || self.delay.is_none();
        if is_due && self.known >= LEAST_KNOWN {
            self.delay = Some(self.quantile(percentile));
            self.since = now;
            self.known = 0;
            for count in &mut self.counts {
                *count /= 2;
                self.known += *count;
            }
        }
        self.delay
    }

    fn quantile(&self, percentile: u32) -> Duration {
        let rank = (u128::from(self.known) * u128::from(percentile)).div_ceil(1_000_000);
        let mut sum = 0;
        let place = self.counts.iter().position(|count| {
            sum += u128::from(*count);
            sum >= rank
        });
        end(place.unwrap_or(self.counts.len() - 1))
    }
}

/// The bucket of a latency: its highest bit, and the four bits after that.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = micros.ilog2() as usize;
    let step = match doubling {
        0..4 => (micros << (4 - doubling)) as usize,
        _ => usize::try_from(micros >> (doubling - 4)).unwrap_or(0),
    } - STEPS;
    (doubling * STEPS + step).min(STEPS * DOUBLINGS - 1)
}

/// The longest latency in a bucket.
fn end(bucket: usize) -> Duration {
    let (doubling, step) = (bucket / STEPS, bucket % STEPS);
    let micros = ((STEPS + step + 1) as u64) << doubling;
    Duration::from_nanos((micros * 1000) >> 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_delay_follows_what_is_usual() {
        let mut latencies = Latencies::default();
        let at = |seconds| Moment::new(Duration::from_secs(seconds));
        for _ in 0..19 {
            latencies.observe(millis(10));
        }
        assert_eq!(latencies.delay(950_000, at(1)), None, "too few are known");
        for number in 0..1000 {
            latencies.observe(millis(if number % 100 == 0 { 1000 } else { 10 }));
        }
        let delay = latencies.delay(980_000, at(1)).expect("a delay");
        assert!((millis(10)..millis(11)).contains(&delay), "{delay:?}");
        for _ in 0..5000 {
            latencies.observe(millis(50));
        }
        assert_eq!(latencies.delay(980_000, at(3)), Some(delay), "not yet");
        let delay = latencies.delay(980_000, at(4)).expect("a delay");
        assert!((millis(50)..millis(54)).contains(&delay), "{delay:?}");
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_latencies(micros in 1u64..4_000_000_000) {
            let took = Duration::from_micros(micros);
            let end = end(bucket(took));
            prop_assert!(end > took, "{:?} {:?}", end, took);
            prop_assert!(end.as_nanos() <= took.as_nanos() * 17 / 16 + 1, "{:?} {:?}", end, took);
        }
    }
}
