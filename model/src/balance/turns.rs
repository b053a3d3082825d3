//! One after the other by weight: earliest deadline first, as Envoy's weighted round robin. With equal weights it is a plain
//! round.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Whose turn it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    even: Vec<u32>,
    next: usize,
    weighted: BinaryHeap<Reverse<Turn>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Turn {
    deadline: f64,
    order: u64,
    member: u32,
    weight: f64,
}

impl Eq for Turn {}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        self.deadline
            .total_cmp(&other.deadline)
            .then(self.order.cmp(&other.order))
    }
}

impl Turns {
    /// Turns of members with weights above zero, beginning anywhere.
    pub(super) fn new(members: &[(u32, f64)], random: &mut fastrand::Rng) -> Self {
        let is_even = members
            .windows(2)
            .all(|pair| (pair[0].1 - pair[1].1).abs() < f64::EPSILON);
        if is_even {
            return Self {
                even: members.iter().map(|(member, _)| *member).collect(),
                next: if members.is_empty() {
                    0
                } else {
                    random.usize(..members.len())
                },
                weighted: BinaryHeap::new(),
            };
        }
        let turn = |(order, (member, weight)): (usize, &(u32, f64))| {
            Reverse(Turn {
                deadline: random.f64() / weight,
                order: order as u64,
                member: *member,
                weight: *weight,
            })
        };
        Self {
            even: Vec::new(),
            next: 0,
            weighted: members.iter().enumerate().map(turn).collect(),
        }
    }

    /// Whose turn it is now.
    pub(super) fn next(&mut self) -> Option<u32> {
        if !self.even.is_empty() {
            self.next = (self.next + 1) % self.even.len();
            return self.even.get(self.next).copied();
        }
        let mut first = self.weighted.peek_mut()?;
        first.0.deadline += 1.0 / first.0.weight;
        Some(first.0.member)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// After many turns each member had its share, to within one turn per member.
        #[test]
        fn everyone_gets_a_share(weights in prop::collection::vec(1u32..100, 1..20), seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let members: Vec<_> = weights.iter().enumerate().map(|(member, weight)| (member as u32, f64::from(*weight))).collect();
            let mut turns = Turns::new(&members, &mut random);
            let total: u32 = weights.iter().sum();
            let mut had = vec![0u32; weights.len()];
            for _ in 0..total * 3 {
                had[turns.next().expect("a member") as usize] += 1;
            }
            for (had, weight) in had.iter().zip(&weights) {
                prop_assert!(had.abs_diff(weight * 3) <= 2, "{had} of {weight}");
            }
        }
    }
}
