//! Windows of time over the requests of all pairs of callers and called.
//!
//! Slots of a second for five minutes, and of thirty seconds for an hour. What is kept is bounded: a caller with too many pairs
//! loses the one it used least recently, and so do all together; how often that was is counted. Pure: time is an argument, in
//! seconds since 1970, so that slots of replicas are the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ring::Ring;
use super::sum::Sum;

/// The seconds of a fine slot, and for how long they are kept.
const FINE: (u64, u64) = (1, 300);
/// The seconds of a coarse slot, and for how long they are kept.
const COARSE: (u64, u64) = (30, 3_600);
/// The longest window, in seconds.
pub const LONGEST: u64 = COARSE.1;
/// How often is looked for what is too old, in seconds.
const SWEEP: u64 = 60;

/// Who calls: a workload of a namespace. Both are empty for whoever is not in the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The workload.
    pub workload: Arc<str>,
}

/// What is called: a port of a service, and the route to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Called {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The service.
    pub service: Arc<str>,
    /// The port; 0 where it is not known which.
    pub port: u16,
    /// The route, as the port has it; empty for what takes none.
    pub route: Arc<str>,
}

/// How many pairs are kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of all callers.
    pub altogether: usize,
    /// Of one caller.
    pub of_caller: usize,
}

impl Default for Limits {
    /// What busy pairs need is 160 MB in all.
    fn default() -> Self {
        Self {
            altogether: 4_096,
            of_caller: 512,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Windows {
    limits: Limits,
    callers: BTreeMap<Caller, BTreeMap<Called, Series>>,
    evicted: u64,
    swept: u64,
}

/// The requests of a pair.
#[derive(Debug)]
struct Series {
    fine: Ring,
    coarse: Ring,
    used: u64,
}

impl Windows {
    /// Empty ones.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.callers.values().map(BTreeMap::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// How many pairs were dropped to make room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Adds requests of a pair.
    pub fn add(&mut self, caller: &Caller, called: &Called, sum: &Sum, now: u64) {
        if self.swept + SWEEP <= now {
            self.sweep(now);
        }
        let has_it = |all: &BTreeMap<Called, Series>| all.contains_key(called);
        if !self.callers.get(caller).is_some_and(has_it) {
            self.make_room(caller);
        }
        let all = self.callers.entry(caller.clone()).or_default();
        let series = all.entry(called.clone()).or_insert_with(|| Series {
            fine: Ring::new(FINE.0, FINE.1),
            coarse: Ring::new(COARSE.0, COARSE.1),
            used: now,
        });
        series.used = series.used.max(now);
        series.fine.add(sum, now);
        series.coarse.add(sum, now);
    }

    /// What there was of each pair within the last `seconds`, and how many seconds those really are: beyond five minutes windows
    /// begin with a coarse slot.
    pub fn within(
        &self,
        seconds: u64,
        now: u64,
    ) -> (u64, impl Iterator<Item = (&Caller, &Called, Sum)>) {
        let seconds = seconds.clamp(1, LONGEST);
        let is_fine = seconds <= FINE.1;
        let first = match is_fine {
            true => (now + 1).saturating_sub(seconds),
            false => now.saturating_sub(seconds) / COARSE.0 * COARSE.0,
        };
        let pairs = self.callers.iter().flat_map(|(caller, all)| {
            let pair = move |(called, series)| (caller, called, series);
            all.iter().map(pair)
        });
        let sums = pairs.filter_map(move |(caller, called, series): (_, _, &Series)| {
            let sum = match is_fine {
                true => series.fine.since(first),
                false => series.coarse.since(first),
            };
            (sum != Sum::default()).then_some((caller, called, sum))
        });
        ((now + 1).saturating_sub(first), sums)
    }

    /// Drops pairs of which nothing is left.
    fn sweep(&mut self, now: u64) {
        self.swept = now;
        self.callers.retain(|_, all| {
            all.retain(|_, own| own.used + COARSE.1 + COARSE.0 > now);
            !all.is_empty()
        });
    }

    /// Drops the pair that was used least recently, of this caller or of all, where there is no room for another.
    fn make_room(&mut self, caller: &Caller) {
        let own = self.callers.get(caller).map_or(0, BTreeMap::len);
        let is_own = own >= self.limits.of_caller.max(1);
        if !is_own && self.len() < self.limits.altogether.max(1) {
            return;
        }
        let oldest = self
            .callers
            .iter()
            .filter(|(other, _)| !is_own || *other == caller)
            .flat_map(|(caller, all)| {
                all.iter()
                    .map(move |(called, own)| (own.used, caller, called))
            })
            .min()
            .map(|(_, caller, called)| (caller.clone(), called.clone()));
        if let Some((caller, called)) = oldest
            && let Some(all) = self.callers.get_mut(&caller)
        {
            all.remove(&called);
            if all.is_empty() {
                self.callers.remove(&caller);
            }
            self.evicted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(name: u8) -> Caller {
        Caller {
            namespace: "shop".into(),
            workload: format!("web-{name}").into(),
        }
    }

    fn called(name: u8) -> Called {
        Called {
            namespace: "shop".into(),
            service: format!("cart-{name}").into(),
            port: 80,
            route: "http1".into(),
        }
    }

    fn one() -> Sum {
        let mut sum = Sum {
            successes: 1,
            ..Sum::default()
        };
        sum.took(5.0, 1);
        sum
    }

    fn requests(windows: &Windows, seconds: u64, now: u64) -> u64 {
        let (_, sums) = windows.within(seconds, now);
        sums.map(|(.., sum)| sum.requests()).sum()
    }

    #[test]
    fn windows_are_of_fine_slots_and_then_of_coarse_ones() {
        let mut windows = Windows::default();
        let begin = 1_000_000;
        for second in 0..600 {
            windows.add(&caller(1), &called(1), &one(), begin + second);
        }
        let now = begin + 599;
        for seconds in [1, 30, 300] {
            assert_eq!(requests(&windows, seconds, now), seconds);
        }
        let (covered, _) = windows.within(301, now);
        assert_eq!(requests(&windows, 301, now), covered);
        assert!((301..=331).contains(&covered), "{covered}");
        // What is of no window any more is there no more.
        assert_eq!(requests(&windows, 300, now + 300), 0);
        assert_eq!(requests(&windows, LONGEST, now + 300), 600);
        assert_eq!(requests(&windows, LONGEST, now + LONGEST + 30), 0);
        windows.add(&caller(2), &called(2), &one(), now + LONGEST + 30);
        assert_eq!(windows.len(), 1);
        assert_eq!(windows.evicted(), 0);
    }

    #[test]
    fn who_calls_many_pushes_out_nobody_else() {
        let limits = Limits {
            altogether: 4,
            of_caller: 2,
        };
        let mut windows = Windows::new(limits);
        windows.add(&caller(1), &called(1), &one(), 1);
        for number in 0..10 {
            windows.add(&caller(2), &called(number), &one(), u64::from(number) + 2);
        }
        assert_eq!((windows.len(), windows.evicted()), (3, 8));
        let (_, sums) = windows.within(300, 12);
        let left: Vec<_> = sums
            .map(|(caller, called, _)| (caller.clone(), called.clone()))
            .collect();
        assert_eq!(
            left,
            [
                (caller(1), called(1)),
                (caller(2), called(8)),
                (caller(2), called(9)),
            ]
        );
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let mut windows = Windows::default();
        for now in [1_000, 990, 1_001] {
            windows.add(&caller(1), &called(1), &one(), now);
        }
        assert_eq!(requests(&windows, 10, 1_001), 3);
    }

    proptest! {
        /// Whatever comes when, a window has what came within it, and there is never more than there is room for.
        #[test]
        fn a_window_has_what_came_within_it(
            steps in prop::collection::vec((0..3u8, 0..3u8, 0..40u64), 1..200),
            seconds in 1..=300u64,
        ) {
            let mut windows = Windows::default();
            let mut small = Windows::new(Limits { altogether: 5, of_caller: 2 });
            let mut now = 1_000_000;
            let mut times = Vec::new();
            for (from, to, pause) in steps {
                now += pause;
                times.push(now);
                windows.add(&caller(from), &called(to), &one(), now);
                small.add(&caller(from), &called(to), &one(), now);
                prop_assert!(small.len() <= 5);
            }
            let expected = times.iter().filter(|time| **time + seconds > now).count();
            prop_assert_eq!(requests(&windows, seconds, now), expected as u64);
            let (_, sums) = small.within(seconds, now);
            let mut of_caller = BTreeMap::new();
            for (caller, ..) in sums {
                *of_caller.entry(caller).or_insert(0) += 1;
            }
            prop_assert!(of_caller.values().all(|own| *own <= 2));
        }

        /// Proxies that are connected to two replicas come to the same as with one.
        #[test]
        fn replicas_add_up_to_one(
            steps in prop::collection::vec((0..3u8, 0..3u8, 0..40u64, any::<bool>()), 1..200),
            seconds in 1..=LONGEST,
        ) {
            let mut whole = Windows::default();
            let mut parts = [Windows::default(), Windows::default()];
            let mut now = 1_000_000;
            for (from, to, pause, is_first) in steps {
                now += pause;
                whole.add(&caller(from), &called(to), &one(), now);
                parts[usize::from(is_first)].add(&caller(from), &called(to), &one(), now);
            }
            let all = |windows: &[&Windows]| {
                let mut sums: BTreeMap<(Caller, Called), Sum> = BTreeMap::new();
                for windows in windows {
                    for (caller, called, sum) in windows.within(seconds, now).1 {
                        sums.entry((caller.clone(), called.clone())).or_default().merge(&sum);
                    }
                }
                sums
            };
            prop_assert_eq!(all(&[&whole]), all(&[&parts[0], &parts[1]]));
        }
    }
}
