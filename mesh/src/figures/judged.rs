//! How many requests rules that are only counted would have refused, or fit, within the last hour: by the MeshAuthorization.
//!
//! Counted by the minute, for those alone that the caller knows of, so that what is kept is bounded by how many there are.

use std::collections::{BTreeMap, VecDeque};

use crate::facts::Key;

/// The seconds of a slot.
const SLOT: u64 = 60;
/// For how long they are kept, in slots: an hour.
const SLOTS: u64 = 60;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Judged(BTreeMap<Key, VecDeque<(u64, u64)>>);

impl Judged {
    /// Adds some of now, in seconds since 1970.
    pub(super) fn add(&mut self, authorization: &Key, count: u64, now: u64) {
        let now = now / SLOT;
        let slots = self.0.entry(authorization.clone()).or_default();
        match slots.back_mut() {
            // A clock that went back does not bring earlier slots back.
            Some((slot, own)) if *slot >= now => *own = own.saturating_add(count),
            _ => slots.push_back((now, count)),
        }
        while slots.front().is_some_and(|(slot, _)| slot + SLOTS <= now) {
            slots.pop_front();
        }
    }

    /// What there was within the last hour; what has nothing left is forgotten.
    pub(super) fn within(&mut self, now: u64) -> BTreeMap<Key, u64> {
        let now = now / SLOT;
        let is_fresh = |slot: u64| slot + SLOTS > now;
        self.0
            .retain(|_, slots| slots.back().is_some_and(|(slot, _)| is_fresh(*slot)));
        let sum = |slots: &VecDeque<(u64, u64)>| {
            let fresh = slots.iter().filter(|(slot, _)| is_fresh(*slot));
            fresh.fold(0u64, |sum, (_, own)| sum.saturating_add(*own))
        };
        let all = self.0.iter();
        all.map(|(key, slots)| (key.clone(), sum(slots))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_an_hour_is_forgotten() {
        let cart: Key = ("shop".into(), "cart".into());
        let mut judged = Judged::default();
        judged.add(&cart, 3, 0);
        judged.add(&cart, 4, 30);
        judged.add(&cart, 5, 1_800);
        // A clock that went back.
        judged.add(&cart, 1, 60);
        let within = |judged: &mut Judged, now| judged.within(now).get(&cart).copied();
        assert_eq!(within(&mut judged, 1_800), Some(13));
        assert_eq!(within(&mut judged, 3_600), Some(6));
        assert_eq!(within(&mut judged, 5_400), None);
        assert!(judged.0.is_empty());
    }
}
