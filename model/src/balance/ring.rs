//! Consistent hashing: a ring of points, and Maglev's table. Hashes are xxHash64, as Envoy's.

use twox_hash::XxHash64;

/// The most points of a ring.
const MOST_POINTS: usize = 8 * 1024 * 1024;

/// The hash of a value that keeps a caller with an endpoint.
#[must_use]
pub fn hash_of(value: &[u8]) -> u64 {
    XxHash64::oneshot(0, value)
}

/// Points of members on a ring.
#[derive(Debug, Clone, Default)]
pub(super) struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// A ring of members with their keys and their shares of 1; the one with the least share has at least one point.
    pub(super) fn new(members: &[(u32, &str, f64)], least: u32, most: u32) -> Self {
        let smallest = members
            .iter()
            .map(|(_, _, share)| *share)
            .fold(1.0, f64::min);
        if members.is_empty() || smallest <= 0.0 {
            return Self::default();
        }
        let scale = ((smallest * f64::from(least)).ceil() / smallest).min(f64::from(most));
        let mut points = Vec::new();
        let (mut wanted, mut made) = (0.0, 0.0);
        for (member, key, share) in members {
            wanted += scale * share;
            let mut number = 0;
            while made < wanted && points.len() < MOST_POINTS {
                points.push((hash_of(format!("{key}_{number}").as_bytes()), *member));
                number += 1;
                made += 1.0;
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The member whose point comes next.
    pub(super) fn at(&self, hash: u64) -> Option<u32> {
        let index = self.points.partition_point(|(point, _)| *point < hash);
        self.points
            .get(index)
            .or(self.points.first())
            .map(|(_, member)| *member)
    }
}

/// Maglev's table.
#[derive(Debug, Clone, Default)]
pub(super) struct Maglev {
    table: Vec<u32>,
}

impl Maglev {
    /// A table of members with their keys and weights.
    pub(super) fn new(members: &[(u32, &str, f64)], size: u32) -> Self {
        const EMPTY: u32 = u32::MAX;
        let heaviest = members
            .iter()
            .map(|(_, _, weight)| *weight)
            .fold(0.0, f64::max);
        if members.is_empty() || heaviest <= 0.0 || size < 2 {
            return Self::default();
        }
        let size = u64::from(size);
        let mut builders: Vec<_> = members
            .iter()
            .map(|(member, key, weight)| Builder {
                member: *member,
                offset: XxHash64::oneshot(0, key.as_bytes()) % size,
                skip: XxHash64::oneshot(1, key.as_bytes()) % (size - 1) + 1,
                next: 0,
                weight: *weight / heaviest,
                due: 0.0,
            })
            .collect();
        let mut table = vec![EMPTY; usize::try_from(size).unwrap_or(0)];
        let mut left = table.len();
        let mut round = 1.0;
        while left > 0 {
            for builder in &mut builders {
                // A lighter member sits rounds out.
                if round * builder.weight < builder.due {
                    continue;
                }
                builder.due += 1.0;
                let place = loop {
                    let place =
                        usize::try_from((builder.offset + builder.skip * builder.next) % size)
                            .unwrap_or(0);
                    builder.next += 1;
                    if table.get(place) == Some(&EMPTY) {
                        break place;
                    }
                };
                table[place] = builder.member;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            round += 1.0;
        }
        Self { table }
    }

    /// The member at a hash.
    pub(super) fn at(&self, hash: u64) -> Option<u32> {
        let size = u64::try_from(self.table.len())
            .ok()
            .filter(|size| *size > 0)?;
        self.table.get(usize::try_from(hash % size).ok()?).copied()
    }
}

struct Builder {
    member: u32,
    offset: u64,
    skip: u64,
    next: u64,
    weight: f64,
    due: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(keys: &[String]) -> Vec<(u32, &str, f64)> {
        keys.iter()
            .enumerate()
            .map(|(index, key)| (index as u32, key.as_str(), 1.0 / keys.len() as f64))
            .collect()
    }

    fn keys(count: usize) -> Vec<String> {
        (0..count)
            .map(|index| format!("10.0.0.{index}:80"))
            .collect()
    }

    #[test]
    fn losing_one_member_moves_few_callers() {
        let (all, fewer) = (keys(10), keys(9));
        let rings = [
            Ring::new(&members(&all), 1024, 8 << 20),
            Ring::new(&members(&fewer), 1024, 8 << 20),
        ];
        let tables = [
            Maglev::new(&members(&all), 65537),
            Maglev::new(&members(&fewer), 65537),
        ];
        let moved = |at: &dyn Fn(usize, u64) -> Option<u32>| {
            (0..10_000u64)
                .map(|value| hash_of(&value.to_le_bytes()))
                .filter(|hash| at(0, *hash) != Some(9) && at(0, *hash) != at(1, *hash))
                .count()
        };
        // The others get a few more points, since the least share has to have its own.
        assert!(moved(&|index, hash| rings[index].at(hash)) < 1500);
        assert!(moved(&|index, hash| tables[index].at(hash)) < 500);
    }

    #[test]
    fn members_get_their_weights() {
        let keys = keys(3);
        let weighted: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(index, key)| (index as u32, key.as_str(), [1.0, 2.0, 5.0][index]))
            .collect();
        let table = Maglev::new(&weighted, 65537);
        let mut had = [0u32; 3];
        for member in &table.table {
            had[*member as usize] += 1;
        }
        for (had, weight) in had.iter().zip([1.0, 2.0, 5.0]) {
            assert!(
                (f64::from(*had) / 65537.0 - weight / 8.0).abs() < 0.005,
                "{had} of {weight}"
            );
        }
    }

    #[test]
    fn nothing_is_at_an_empty_ring() {
        assert_eq!(Ring::new(&[], 1024, 1024).at(1), None);
        assert_eq!(Maglev::new(&[], 65537).at(1), None);
    }
}
