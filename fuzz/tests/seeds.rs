//! Every target holds for its seeds, and for what small changes make of them.

use std::path::Path;

use fairlead_fuzz::TARGETS;

/// How many changed seeds each target is given, unless `FAIRLEAD_FUZZ_CHANGED` says so.
const CHANGED: usize = 500;

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(name);
    let entries = std::fs::read_dir(&folder).expect("a folder of seeds");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a seed"))
        .collect()
}

/// A seed with a few bytes changed, removed, repeated, or taken from another.
fn change(random: &mut fastrand::Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut own = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=own.len());
        match random.u8(..6) {
            0 if at < own.len() => own[at] = random.u8(..),
            1 if at < own.len() => own[at] ^= 1 << random.u8(..8),
            2 => own.truncate(at),
            3 => {
                let end = random.usize(at..=own.len());
                own.drain(at..end.min(at + 16));
            }
            4 => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                let part = other[from..(from + 32).min(other.len())].to_vec();
                own.splice(at..at, part);
            }
            _ => own.insert(at, random.u8(..)),
        }
    }
    own
}

#[test]
fn every_target_holds_for_its_seeds_and_what_is_like_them() {
    let asked = std::env::var("FAIRLEAD_FUZZ_CHANGED").ok();
    let changed = asked.map_or(CHANGED, |own| own.parse().expect("a number"));
    let mut random = fastrand::Rng::with_seed(7);
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        seeds.iter().for_each(|seed| target(seed));
        for _ in 0..changed {
            let changed = change(&mut random, &seeds);
            let outcome = std::panic::catch_unwind(|| target(&changed));
            assert!(
                outcome.is_ok(),
                "{name}: {:?}",
                String::from_utf8_lossy(&changed)
            );
        }
    }
}
