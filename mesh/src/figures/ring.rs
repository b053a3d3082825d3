//! Requests of one kind by time: as many slots of one length as there are, the oldest of which go.

use std::collections::VecDeque;

use super::sum::{BUCKETS, Sum};

/// Slots in which there were requests.
#[derive(Debug)]
pub(super) struct Ring {
    /// How many seconds a slot has.
    step: u64,
    /// How many slots are kept.
    most: u64,
    slots: VecDeque<Slot>,
}

/// Requests of a slot, in a quarter of the memory of what [`Sum`] would need: there are many.
#[derive(Debug, Clone, Default)]
struct Slot {
    number: u64,
    successes: u32,
    failures: u32,
    latency: [u32; BUCKETS],
}

impl Slot {
    fn merge(&mut self, sum: &Sum) {
        let add = |own: &mut u32, more: u64| {
            *own = own.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        };
        add(&mut self.successes, sum.successes);
        add(&mut self.failures, sum.failures);
        for (own, more) in self.latency.iter_mut().zip(sum.latency) {
            add(own, more);
        }
    }

    fn sum(&self) -> Sum {
        Sum {
            successes: self.successes.into(),
            failures: self.failures.into(),
            latency: self.latency.map(u64::from),
        }
    }
}

impl Ring {
    /// Slots of `step` seconds for `seconds` in all.
    pub(super) fn new(step: u64, seconds: u64) -> Self {
        Self {
            step,
            // The one that is under way comes on top of those that are whole.
            most: seconds / step + 1,
            slots: VecDeque::new(),
        }
    }

    /// Adds requests of now, in seconds. A clock that went back does not bring earlier slots back.
    pub(super) fn add(&mut self, sum: &Sum, now: u64) {
        let now = now / self.step;
        let number = self.slots.back().map_or(now, |last| last.number.max(now));
        while self
            .slots
            .front()
            .is_some_and(|first| first.number + self.most <= number)
        {
            self.slots.pop_front();
        }
        if self.slots.back().is_none_or(|last| last.number != number) {
            self.slots.push_back(Slot {
                number,
                ..Slot::default()
            });
        }
        if let Some(last) = self.slots.back_mut() {
            last.merge(sum);
        }
    }

    /// What there was since a second, from the beginning of its slot on.
    pub(super) fn since(&self, second: u64) -> Sum {
        let first = second / self.step;
        let found = self.slots.iter().rev();
        let mut sum = Sum::default();
        for slot in found.take_while(|slot| slot.number >= first) {
            sum.merge(&slot.sum());
        }
        sum
    }
}
