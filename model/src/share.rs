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
    use super::*;

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
