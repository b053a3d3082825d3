//! Looks at the memory of the process, and has workers give something up before there is none left.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use fairlead_model::overload::{Overload, Shed};

use crate::Shared;

const REQUESTS: u8 = 1;
const CONNECTIONS: u8 = 2;
const KEEP_ALIVE: u8 = 4;

/// What is given up now, for every worker to see.
#[derive(Debug, Default)]
pub struct Pressure(AtomicU8);

impl Pressure {
    /// Gives this up from now on.
    pub fn set(&self, shed: Shed) {
        let bits = [
            (shed.requests, REQUESTS),
            (shed.connections, CONNECTIONS),
            (shed.keep_alive, KEEP_ALIVE),
        ];
        let bits = bits
            .into_iter()
            .filter_map(|(is_shed, bit)| is_shed.then_some(bit))
            .sum();
        self.0.store(bits, Ordering::Relaxed);
    }

    /// What is given up now.
    #[must_use]
    pub fn get(&self) -> Shed {
        let bits = self.0.load(Ordering::Relaxed);
        Shed {
            requests: bits & REQUESTS != 0,
            connections: bits & CONNECTIONS != 0,
            keep_alive: bits & KEEP_ALIVE != 0,
        }
    }
}

/// Looks at the memory for as long as the process runs. Without a limit, given or of the container, memory is only counted.
pub async fn watch(shared: Arc<Shared>, settings: Overload) {
    let figures = shared.figures.process();
    let mut ticks = tokio::time::interval(settings.refresh);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let limit = settings.limit.or_else(of_container);
    figures.memory_limit_bytes.set(limit.map_or(0, signed));
    loop {
        ticks.tick().await;
        let Some(used) = used() else {
            tracing::warn!("failed to read how much memory is in use; nothing is given up for it");
            return;
        };
        figures.memory_bytes.set(signed(used));
        let Some(limit) = limit else {
            continue;
        };
        let shed = settings.decide(used, limit);
        if shed != shared.pressure.get() {
            tracing::warn!(
                used,
                limit,
                requests = shed.requests,
                connections = shed.connections,
                keep_alive = shed.keep_alive,
                "what is given up for want of memory changed"
            );
            shared.pressure.set(shed);
        }
        figures.overloaded.set(i64::from(shed.requests));
    }
}

/// The memory of this process, in bytes.
fn used() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The memory that the container may have, in bytes: of its control group, of either version.
fn of_container() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups
        .lines()
        .flat_map(places)
        .filter_map(|place| std::fs::read_to_string(place).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        // The first version says "none" by a number that no machine has.
        .filter(|limit| *limit < 1 << 60)
        .min()
}

/// Where the limit of a group may stand: in a container the group is at the root.
fn places(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let path = path.trim_start_matches('/');
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        own if own.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let root = PathBuf::from(root);
    vec![root.join(path).join(file), root.join(file)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_looked_for_in_both_versions() {
        let texts = |line: &str| {
            places(line)
                .iter()
                .map(|place| place.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            texts("0::/kubepods/pod1"),
            [
                "/sys/fs/cgroup/kubepods/pod1/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            texts("4:memory:/docker/a"),
            [
                "/sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert!(texts("3:cpuset:/").is_empty() && texts("nonsense").is_empty());
    }

    #[test]
    fn this_process_has_memory() {
        assert!(used().is_some_and(|used| used > 100_000));
    }
}
