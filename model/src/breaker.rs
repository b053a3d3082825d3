//! Which endpoints rest: one state machine per endpoint, closed, open or trying.
//!
//! It opens after consecutive failures, or when the success rate of a window falls below a threshold. After a pause that
//! doubles each time it lets exactly one request through; that one decides. The rules and figures are Linkerd's unified failure
//! accrual.

use std::time::Duration;

use crate::Moment;

/// How many slices a window of the success rate has.
const SLICES: usize = 10;

/// When an endpoint rests.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerSettings {
    /// After so many failures in a row; nothing: never for that.
    pub consecutive: Option<u32>,
    /// When the success rate falls.
    pub rate: Option<RateSettings>,
    /// The first pause.
    pub least_pause: Duration,
    /// The longest pause.
    pub most_pause: Duration,
    /// How much of the first pause is added at random, as a factor.
    pub jitter: f64,
    /// The greatest share of endpoints that rest at once, in percent. One endpoint alone never rests.
    pub most_resting_percent: u8,
}

/// When the success rate is too low.
#[derive(Debug, Clone, PartialEq)]
pub struct RateSettings {
    /// Below this, 0 to 1.
    pub threshold: f64,
    /// Over this time.
    pub window: Duration,
    /// With at least so many requests in it.
    pub least_requests: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            consecutive: Some(7),
            rate: Some(RateSettings {
                threshold: 0.8,
                window: Duration::from_secs(10),
                least_requests: 5,
            }),
            least_pause: Duration::from_secs(1),
            most_pause: Duration::from_secs(60),
            jitter: 0.5,
            most_resting_percent: 50,
        }
    }
}

/// What an answer means to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It went well.
    Success,
    /// It failed.
    Failure,
    /// The endpoint had too much to do: it counts for the rate, not for failures in a row, and fails a probe.
    Rejection,
}

/// Whether an endpoint may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usable {
    /// It may.
    Yes,
    /// Not before the moment.
    Until(Moment),
    /// One request may try it.
    Probe,
    /// One request is trying it.
    Probing,
}

/// The breaker of one endpoint.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    consecutive: u32,
    slices: [(u32, u32); SLICES],
    slice: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Moment, opened: u32 },
    Probing { opened: u32 },
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            consecutive: 0,
            slices: [(0, 0); SLICES],
            slice: 0,
        }
    }
}

impl Breaker {
    /// Whether the endpoint may be used.
    #[must_use]
    pub fn usable(&self, now: Moment) -> Usable {
        match self.state {
            State::Closed => Usable::Yes,
            State::Open { until, .. } if now < until => Usable::Until(until),
            State::Open { .. } => Usable::Probe,
            State::Probing { .. } => Usable::Probing,
        }
    }

    /// Whether it is closed: the endpoint is used as usual.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// A request tries an endpoint whose pause is over.
    pub fn probe(&mut self) {
        if let State::Open { opened, .. } = self.state {
            self.state = State::Probing { opened };
        }
    }

    /// A request ended without an answer of any meaning: if it was the one that tried, the next may. Says whether it was.
    pub fn unprobe(&mut self, now: Moment) -> bool {
        let State::Probing { opened } = self.state else {
            return false;
        };
        self.state = State::Open { until: now, opened };
        true
    }

    /// Takes an answer into account; `may_open` is false where too many rest already. Says whether its state changed.
    pub fn judge(
        &mut self,
        judged: Judged,
        settings: &BreakerSettings,
        may_open: bool,
        now: Moment,
        random: &mut fastrand::Rng,
    ) -> bool {
        match self.state {
            State::Probing { opened } => {
                if judged == Judged::Success {
                    *self = Self::default();
                } else {
                    self.open(opened + 1, settings, now, random);
                }
                true
            }
            // An answer to a request from before it opened.
            State::Open { .. } => false,
            State::Closed => {
                self.count(judged, settings, now);
                let opens = may_open && self.should_open(settings);
                if opens {
                    self.open(0, settings, now, random);
                }
                opens
            }
        }
    }

    fn count(&mut self, judged: Judged, settings: &BreakerSettings, now: Moment) {
        match judged {
            Judged::Success => self.consecutive = 0,
            Judged::Failure => self.consecutive = self.consecutive.saturating_add(1),
            Judged::Rejection => {}
        }
        let Some(rate) = &settings.rate else { return };
        let length = (rate.window / SLICES as u32).max(Duration::from_millis(1));
        let slice = u64::try_from(now.since(Moment::default()).as_nanos() / length.as_nanos())
            .unwrap_or(u64::MAX);
        let passed = slice.saturating_sub(self.slice);
        if passed >= SLICES as u64 {
            self.slices = [(0, 0); SLICES];
        } else {
            for step in 1..=passed {
                self.slices[place(self.slice + step)] = (0, 0);
            }
        }
        self.slice = self.slice.max(slice);
        let (successes, all) = &mut self.slices[place(self.slice)];
        *all += 1;
        *successes += u32::from(judged == Judged::Success);
    }

    fn should_open(&self, settings: &BreakerSettings) -> bool {
        if settings
            .consecutive
            .is_some_and(|most| self.consecutive >= most)
        {
            return true;
        }
        settings.rate.as_ref().is_some_and(|rate| {
            let (successes, all) = self
                .slices
                .iter()
                .fold((0, 0), |sum, slice| (sum.0 + slice.0, sum.1 + slice.1));
            all >= rate.least_requests && f64::from(successes) < rate.threshold * f64::from(all)
        })
    }

    /// `least * 2^opened` plus a random part of `least`, at most `most`.
    fn open(
        &mut self,
        opened: u32,
        settings: &BreakerSettings,
        now: Moment,
        random: &mut fastrand::Rng,
    ) {
        let pause = settings
            .least_pause
            .saturating_mul(1 << opened.min(20))
            .min(settings.most_pause)
            .saturating_add(settings.least_pause.mul_f64(settings.jitter * random.f64()))
            .min(settings.most_pause);
        self.state = State::Open {
            until: now + pause,
            opened,
        };
        self.consecutive = 0;
        self.slices = [(0, 0); SLICES];
    }
}

fn place(slice: u64) -> usize {
    usize::try_from(slice % SLICES as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::new(Duration::from_millis(milliseconds))
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_probe_decides() {
        let settings = BreakerSettings {
            jitter: 0.0,
            rate: None,
            ..BreakerSettings::default()
        };
        let mut random = fastrand::Rng::with_seed(1);
        let mut breaker = Breaker::default();
        for failure in 1..=7 {
            let changed = breaker.judge(Judged::Failure, &settings, true, at(0), &mut random);
            assert_eq!(changed, failure == 7);
        }
        assert_eq!(breaker.usable(at(999)), Usable::Until(at(1000)));
        assert_eq!(breaker.usable(at(1000)), Usable::Probe);
        breaker.probe();
        assert_eq!(breaker.usable(at(1000)), Usable::Probing);
        breaker.judge(Judged::Rejection, &settings, true, at(1000), &mut random);
        assert_eq!(breaker.usable(at(2999)), Usable::Until(at(3000)));
        breaker.probe();
        breaker.judge(Judged::Success, &settings, true, at(3000), &mut random);
        assert!(breaker.is_closed());
    }

    #[test]
    fn it_opens_when_the_rate_falls() {
        let settings = BreakerSettings {
            consecutive: None,
            ..BreakerSettings::default()
        };
        let mut random = fastrand::Rng::with_seed(1);
        let mut breaker = Breaker::default();
        let answers = [
            Judged::Failure,
            Judged::Success,
            Judged::Success,
            Judged::Success,
        ];
        for judged in answers {
            assert!(
                !breaker.judge(judged, &settings, true, at(0), &mut random),
                "too few"
            );
        }
        assert!(
            !breaker.judge(Judged::Success, &settings, true, at(0), &mut random),
            "0.8 is enough"
        );
        assert!(breaker.judge(Judged::Rejection, &settings, true, at(100), &mut random));
    }

    #[test]
    fn old_answers_are_forgotten() {
        let settings = BreakerSettings {
            consecutive: None,
            ..BreakerSettings::default()
        };
        let mut random = fastrand::Rng::with_seed(1);
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.judge(Judged::Failure, &settings, true, at(0), &mut random);
        }
        for _ in 0..4 {
            assert!(!breaker.judge(Judged::Success, &settings, true, at(10_500), &mut random));
        }
        assert!(
            !breaker.judge(Judged::Failure, &settings, true, at(10_500), &mut random),
            "four of five"
        );
    }

    #[test]
    fn it_stays_closed_where_too_many_rest() {
        let settings = BreakerSettings::default();
        let mut random = fastrand::Rng::with_seed(1);
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert!(!breaker.judge(Judged::Failure, &settings, false, at(0), &mut random));
        }
        assert!(breaker.judge(Judged::Failure, &settings, true, at(0), &mut random));
    }

    /// What a breaker that remembers every answer would say of the last one.
    fn opens(answers: &[(u64, Judged)], settings: &BreakerSettings) -> bool {
        let failures = answers
            .iter()
            .rev()
            .filter(|(_, judged)| *judged != Judged::Rejection)
            .take_while(|(_, judged)| *judged == Judged::Failure)
            .count();
        let most = settings.consecutive.map(|most| most as usize);
        let rate = settings.rate.as_ref().is_some_and(|rate| {
            let slice = |milliseconds: u64| milliseconds / (rate.window.as_millis() as u64 / 10);
            let last = answers.last().map_or(0, |(at, _)| slice(*at));
            let recent = answers.iter().filter(|(at, _)| slice(*at) + 10 > last);
            let all: Vec<bool> = recent
                .map(|(_, judged)| *judged == Judged::Success)
                .collect();
            let well = all.iter().filter(|is_well| **is_well).count();
            all.len() >= rate.least_requests as usize
                && (well as f64) < rate.threshold * all.len() as f64
        });
        most.is_some_and(|most| failures >= most) || rate
    }

    fn judged() -> impl Strategy<Value = Judged> {
        prop_oneof![
            5 => Just(Judged::Success),
            4 => Just(Judged::Failure),
            1 => Just(Judged::Rejection),
        ]
    }

    proptest! {
        /// A trace of answers: it opens just when one that remembers all of them would; then its pauses double, one request
        /// decides, and nothing of before counts.
        #[test]
        fn a_trace_is_as_remembered(
            steps in prop::collection::vec((0u64..700, judged()), 1..400),
            consecutive in prop::option::of(1u32..8),
            rate in prop::option::of((1u32..10, 0.1f64..1.0)),
            seed: u64,
        ) {
            let settings = BreakerSettings {
                consecutive,
                rate: rate.map(|(least_requests, threshold)| RateSettings {
                    threshold,
                    window: Duration::from_secs(10),
                    least_requests,
                }),
                jitter: 0.5,
                ..BreakerSettings::default()
            };
            let mut random = fastrand::Rng::with_seed(seed);
            let mut breaker = Breaker::default();
            let (mut now, mut answers, mut doublings) = (0, Vec::new(), None);
            for (pause, judged) in steps {
                now += pause;
                match breaker.usable(at(now)) {
                    Usable::Until(until) => {
                        // Late answers change nothing; the next request comes when the pause is over.
                        prop_assert!(!breaker.judge(judged, &settings, true, at(now), &mut random));
                        now += u64::try_from(until.since(at(now)).as_millis()).expect("a pause") + 1;
                        prop_assert_eq!(breaker.usable(at(now)), Usable::Probe);
                        breaker.probe();
                    }
                    Usable::Probe => breaker.probe(),
                    Usable::Yes | Usable::Probing => {}
                }
                let is_probe = breaker.usable(at(now)) == Usable::Probing;
                breaker.judge(judged, &settings, true, at(now), &mut random);
                let is_open = if is_probe {
                    judged != Judged::Success
                } else {
                    answers.push((now, judged));
                    opens(&answers, &settings)
                };
                prop_assert_eq!(breaker.is_closed(), !is_open);
                if is_open || is_probe {
                    answers.clear();
                }
                doublings = is_open.then(|| doublings.map_or(0, |own: u32| own + 1));
                if let (Usable::Until(until), Some(doublings)) = (breaker.usable(at(now)), doublings) {
                    let base = settings.least_pause * (1 << doublings.min(20));
                    let pause = until.since(at(now));
                    prop_assert!(pause >= base.min(settings.most_pause));
                    prop_assert!(pause <= (base + settings.least_pause / 2).min(settings.most_pause));
                }
            }
        }

        /// Whatever happens, a pause is within its bounds, and at most one probe is out.
        #[test]
        fn pauses_are_bounded(steps in prop::collection::vec((0u64..5000, 0u8..4), 1..300), seed: u64) {
            let settings = BreakerSettings::default();
            let mut random = fastrand::Rng::with_seed(seed);
            let mut breaker = Breaker::default();
            let mut now = 0;
            for (pause, step) in steps {
                now += pause;
                if breaker.usable(at(now)) == Usable::Probe {
                    breaker.probe();
                    prop_assert_eq!(breaker.usable(at(now)), Usable::Probing);
                }
                match step {
                    0 => { breaker.unprobe(at(now)); }
                    1 => { breaker.judge(Judged::Success, &settings, true, at(now), &mut random); }
                    2 => { breaker.judge(Judged::Failure, &settings, true, at(now), &mut random); }
                    _ => { breaker.judge(Judged::Rejection, &settings, true, at(now), &mut random); }
                }
                if let Usable::Until(until) = breaker.usable(at(now)) {
                    prop_assert!(until.since(at(now)) <= settings.most_pause);
                }
            }
        }
    }
}
