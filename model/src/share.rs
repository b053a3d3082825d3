//! Choice by weight.

/// The sum of weights; zero when nothing may be chosen.
pub fn sum<T>(all: &[T], weight: impl Fn(&T) -> u32) -> u64 {
    all.iter().map(|own| u64::from(weight(own))).sum()
}

/// The place of the one whose share `draw` (below the [`sum`] of weights) falls into. Weights of zero get nothing.
pub fn place<T>(all: &[T], weight: impl Fn(&T) -> u32, draw: u64) -> Option<usize> {
    let mut left = draw;
    all.iter().position(|own| {
        let weight = u64::from(weight(own));
        let found = left < weight;
        left = left.saturating_sub(weight);
        found
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Over all draws everyone gets exactly its weight, and there is no draw for which nobody is found.
        #[test]
        fn every_share_is_exact(weights in prop::collection::vec(0u32..20, 0..20)) {
            let mut had = vec![0; weights.len()];
            let sum = sum(&weights, |own| *own);
            for draw in 0..sum {
                let place = place(&weights, |own| *own, draw);
                had[place.expect("a draw below the sum")] += 1;
            }
            prop_assert_eq!(&had, &weights);
            prop_assert_eq!(place(&weights, |own| *own, sum), None);
        }

        /// Sums of the largest weights do not overflow.
        #[test]
        fn the_largest_weights_have_a_place(count in 1usize..50, draw: u64) {
            let weights = vec![u32::MAX; count];
            let sum = sum(&weights, |own| *own);
            prop_assert_eq!(sum, count as u64 * u64::from(u32::MAX));
            prop_assert!(place(&weights, |own| *own, draw % sum).is_some());
        }
    }

    #[test]
    fn shares_follow_weights() {
        let all = [("a", 1), ("b", 0), ("c", 3)];
        let weight = |own: &(&str, u32)| own.1;
        assert_eq!(sum(&all, weight), 4);
        let drawn: Vec<_> = (0..5)
            .map(|draw| place(&all, weight, draw).map(|place| all[place].0))
            .collect();
        assert_eq!(drawn, [Some("a"), Some("c"), Some("c"), Some("c"), None]);
    }
}
