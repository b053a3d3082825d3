//! Who is asked at all: priorities by how well they are, localities by weight, and everyone when too few are well. The rules are
//! Envoy's (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority>).

use super::ring::{Maglev, Ring};
use super::turns::Turns;
use super::{Balancing, Policy};

/// One member of a cluster when the tiers are made.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) slot: u32,
    pub(super) key: String,
    pub(super) priority: u32,
    pub(super) locality: u32,
    pub(super) locality_weight: Option<u32>,
    pub(super) weight: f64,
    pub(super) is_well: bool,
}

/// The members that may be asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Tiers {
    /// Groups with the end of their share, in hundredths of a percent; the last ends at 10,000.
    groups: Vec<(u32, Group)>,
}

/// Members among which one is chosen.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    pub(super) members: Vec<u32>,
    pub(super) is_even: bool,
    pub(super) turns: Turns,
    pub(super) ring: Ring,
    pub(super) maglev: Maglev,
}

/// Shares are of this.
const WHOLE: u32 = 10_000;

impl Tiers {
    pub(super) fn new(
        members: &[Member],
        balancing: &Balancing,
        overprovisioning: u32,
        random: &mut fastrand::Rng,
    ) -> Self {
        let mut priorities: Vec<u32> = members.iter().map(|member| member.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let of = |priority: u32| -> Vec<&Member> {
            members
                .iter()
                .filter(|member| member.priority == priority)
                .collect()
        };
        let health: Vec<u32> = priorities
            .iter()
            .map(|priority| percent_well(&of(*priority), overprovisioning))
            .collect();
        let total = health.iter().sum::<u32>().min(100);
        let mut tiers = Self::default();
        let mut end = 0;
        for ((priority, share), own_health) in priorities.iter().zip(shares(&health)).zip(&health) {
            if share == 0 {
                continue;
            }
            let all = of(*priority);
            let well: Vec<&Member> = all
                .iter()
                .copied()
                .filter(|member| member.is_well)
                .collect();
            let well_percent = well.len() * 100 / all.len().max(1);
            let panics = well.is_empty()
                || (total < 100
                    && *own_health < 100
                    && well_percent < usize::from(balancing.panic_percent));
            let asked = if panics { all } else { well };
            for (part, group) in by_locality(&asked, balancing, random) {
                let width = share * part / WHOLE;
                if width > 0 {
                    end += width;
                    tiers.groups.push((end, group));
                }
            }
        }
        if let Some((last, _)) = tiers.groups.last_mut() {
            *last = WHOLE;
        }
        tiers
    }

    /// The group that a draw falls into.
    pub(super) fn group(&mut self, random: &mut fastrand::Rng) -> Option<&mut Group> {
        let draw = if self.groups.len() > 1 {
            random.u32(..WHOLE)
        } else {
            0
        };
        self.groups
            .iter_mut()
            .find(|(end, _)| draw < *end)
            .map(|(_, group)| group)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().map(|(_, group)| group)
    }
}

/// How much of a priority's traffic it can take, in percent.
fn percent_well(members: &[&Member], overprovisioning: u32) -> u32 {
    let well = members.iter().filter(|member| member.is_well).count();
    let percent = well * overprovisioning.max(100) as usize / members.len().max(1);
    u32::try_from(percent.min(100)).unwrap_or(100)
}

/// The share of each priority, in hundredths of a percent: the first takes what it can, the next what is left. When all
/// together cannot take everything, they share in proportion; when none is well, the first gets all.
fn shares(health: &[u32]) -> Vec<u32> {
    let total = health.iter().sum::<u32>().min(100);
    if total == 0 {
        return (0..health.len())
            .map(|index| if index == 0 { WHOLE } else { 0 })
            .collect();
    }
    let mut left = WHOLE;
    health
        .iter()
        .map(|health| {
            let share = (health * WHOLE / total).min(left);
            left -= share;
            share
        })
        .collect()
}

/// Groups with their shares of `WHOLE`.
fn by_locality(
    members: &[&Member],
    balancing: &Balancing,
    random: &mut fastrand::Rng,
) -> Vec<(u32, Group)> {
    let weights_given = members
        .iter()
        .any(|member| member.locality_weight.is_some());
    if !balancing.weighted_localities || !weights_given {
        return vec![(WHOLE, Group::new(members, balancing, random))];
    }
    let mut localities: Vec<(u32, u32)> = members
        .iter()
        .map(|member| (member.locality, member.locality_weight.unwrap_or(0)))
        .collect();
    localities.sort_unstable();
    localities.dedup();
    let total: u64 = localities
        .iter()
        .map(|(_, weight)| u64::from(*weight))
        .sum();
    if total == 0 {
        return vec![(WHOLE, Group::new(members, balancing, random))];
    }
    localities
        .into_iter()
        .filter(|(_, weight)| *weight > 0)
        .map(|(locality, weight)| {
            let own: Vec<_> = members
                .iter()
                .copied()
                .filter(|member| member.locality == locality)
                .collect();
            let share = u64::from(weight) * u64::from(WHOLE) / total;
            (
                u32::try_from(share).unwrap_or(WHOLE),
                Group::new(&own, balancing, random),
            )
        })
        .collect()
}

impl Group {
    fn new(members: &[&Member], balancing: &Balancing, random: &mut fastrand::Rng) -> Self {
        let total: f64 = members.iter().map(|member| member.weight).sum();
        let keyed = || -> Vec<(u32, &str, f64)> {
            members
                .iter()
                .map(|member| {
                    (
                        member.slot,
                        member.key.as_str(),
                        member.weight / total.max(f64::MIN_POSITIVE),
                    )
                })
                .collect()
        };
        let weighted: Vec<_> = members
            .iter()
            .map(|member| (member.slot, member.weight))
            .collect();
        let mut group = Self {
            members: members.iter().map(|member| member.slot).collect(),
            is_even: weighted
                .windows(2)
                .all(|pair| (pair[0].1 - pair[1].1).abs() < f64::EPSILON),
            ..Self::default()
        };
        match balancing.policy {
            Policy::RoundRobin => group.turns = Turns::new(&weighted, random),
            Policy::Random if !group.is_even => group.turns = Turns::new(&weighted, random),
            Policy::RingHash { least, most } => group.ring = Ring::new(&keyed(), least, most),
            Policy::Maglev { size } => group.maglev = Maglev::new(&keyed(), size),
            _ => {}
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(slot: u32, priority: u32, is_well: bool) -> Member {
        Member {
            slot,
            key: format!("10.0.0.{slot}:80"),
            priority,
            locality: priority,
            locality_weight: None,
            weight: 1.0,
            is_well,
        }
    }

    fn drawn(members: &[Member], balancing: &Balancing) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut tiers = Tiers::new(members, balancing, 140, &mut random);
        let mut had = vec![0u32; members.len()];
        for _ in 0..20_000 {
            let group = tiers.group(&mut random).expect("a group");
            let share = &group.members;
            had[share[random.usize(..share.len())] as usize] += 1;
        }
        had.into_iter()
            .map(|had| f64::from(had) / 20_000.0)
            .collect()
    }

    fn priority(members: &[Member], drawn: &[f64], priority: u32) -> f64 {
        members
            .iter()
            .zip(drawn)
            .filter(|(member, _)| member.priority == priority)
            .map(|(_, drawn)| drawn)
            .sum()
    }

    #[test]
    fn the_next_priority_takes_what_the_first_cannot() {
        let balancing = Balancing::default();
        // 5 of 10 are well: 70 percent stay.
        let members: Vec<_> = (0..20)
            .map(|slot| member(slot, slot / 10, slot >= 5))
            .collect();
        let had = drawn(&members, &balancing);
        assert!((priority(&members, &had, 0) - 0.7).abs() < 0.02);
        assert!(had[..5].iter().all(|share| *share == 0.0));
        // 8 of 10 are well: with 140 percent, they take all.
        let members: Vec<_> = (0..20)
            .map(|slot| member(slot, slot / 10, slot >= 2))
            .collect();
        assert!((priority(&members, &drawn(&members, &balancing), 0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn everyone_is_asked_when_too_few_are_well() {
        let members: Vec<_> = (0..10).map(|slot| member(slot, 0, slot < 2)).collect();
        assert!(
            drawn(&members, &Balancing::default())
                .iter()
                .all(|share| *share > 0.05)
        );
        let calm = Balancing {
            panic_percent: 0,
            ..Balancing::default()
        };
        assert!(
            drawn(&members, &calm)[2..]
                .iter()
                .all(|share| *share == 0.0)
        );
        let none: Vec<_> = (0..4).map(|slot| member(slot, 0, false)).collect();
        assert!(
            drawn(&none, &calm).iter().all(|share| *share > 0.1),
            "better any than none"
        );
    }

    #[test]
    fn localities_share_by_weight() {
        let balancing = Balancing {
            weighted_localities: true,
            ..Balancing::default()
        };
        let members: Vec<_> = (0..4)
            .map(|slot| Member {
                locality: slot / 2,
                locality_weight: Some(if slot < 2 { 1 } else { 3 }),
                ..member(slot, 0, true)
            })
            .collect();
        let had = drawn(&members, &balancing);
        assert!((had[0] + had[1] - 0.25).abs() < 0.02);
    }
}
