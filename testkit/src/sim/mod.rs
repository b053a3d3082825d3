//! The simulator: the control loops of every kind, run as the operator runs them, against a [`Store`].
//!
//! What happens next is chosen by a seed: a watch delivers an event, an event becomes work, a pass runs, a controller of
//! Kubernetes acts. Watches are late, each by as much as it happens; passes are cut by other passes; requests fail, or succeed
//! and their answer is lost; the process dies between two writes and starts anew. After every write [`Safety`] looks at what was
//! done; when everything has settled, a scenario asks whether it ended well and whether anything is still being written.
//!
//! ```text
//! Store ──journal──▶ streams ──late──▶ Cache ──events──▶ queue ──▶ pass (plan) ──writes, faults──▶ Store
//!   ▲                                                                                  │
//!   └── controllers of Kubernetes, people (the scenario)                    Safety ◀───┘
//! ```

mod bug;
mod entry;
mod pass;
mod process;
mod rest;
mod safety;
mod user;
mod write;

use fairlead_plan::kind::Operator;
use fairlead_plan::{KindName, ObjectId};

pub use bug::Bug;
use entry::Entry;
use process::Process;
use safety::Safety;
pub use user::key;

use crate::rng::Rng;
use crate::store::Store;

/// Which object a pass is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: KindName,
    /// Its namespace and name.
    pub id: ObjectId,
}

/// How often things go wrong, in a thousand writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The write is not done.
    pub failed: u32,
    /// The write is done, and the answer is lost.
    pub lost: u32,
    /// The process dies before the write.
    pub crash: u32,
    /// Something else happens before the write.
    pub cut: u32,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        failed: 0,
        lost: 0,
        crash: 0,
        cut: 0,
    };
    /// Everything goes wrong now and then.
    pub const SOME: Self = Self {
        failed: 40,
        lost: 40,
        crash: 8,
        cut: 250,
    };
}

/// Something that must never happen, with the run in which it did.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// What happened.
    pub message: String,
    /// The last steps before it.
    pub tail: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "seed {}: {}\n{}",
            self.seed,
            self.message,
            self.tail.join("\n")
        )
    }
}

impl std::error::Error for Violation {}

/// The result of everything that a scenario does.
pub type Checked<T = ()> = Result<T, Violation>;

/// The process died.
pub(crate) struct Crash;

/// How many lines a violation shows.
const TAIL: usize = 60;
/// The most steps in which everything must have settled.
const STEPS_MAX: usize = 12_000;
/// How long nothing may happen before everything has settled: longer than any pause but the hourly visit.
const QUIET: i64 = 20 * 60 * 1000;

/// See the module.
pub struct Sim {
    /// The API server.
    pub store: Store,
    /// What goes wrong.
    pub faults: Faults,
    /// A mistake that is planted.
    pub bug: Bug,
    /// One line a step.
    pub log: Vec<String>,
    seed: u64,
    rng: Rng,
    kinds: Vec<Entry>,
    process: Process,
    safety: Safety,
    operator: Operator,
    depth: usize,
    /// Requests that write, whether they changed something or not.
    requests: u64,
    weights: [usize; 4],
    violation: Option<Violation>,
    crashed: bool,
    /// The object before the last request, where that request changed it.
    effect: Option<Option<serde_json::Value>>,
}

impl Sim {
    /// An empty cluster with a running control plane.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let operator = Operator {
            namespace: "fairlead-system".to_owned(),
            image: "fairlead:test".to_owned(),
            image_pull_policy: "Never".to_owned(),
            image_pull_secrets: Vec::new(),
            proxy_image: "fairlead-proxy:test".to_owned(),
            version: "0.0.0".to_owned(),
            ca_bundle: Some("-----BEGIN CERTIFICATE-----".to_owned()),
        };
        let store = Store::default();
        let kinds = entry::all();
        let process = Process::start(&store, &kinds);
        Self {
            store,
            faults: Faults::NONE,
            bug: Bug::default(),
            log: Vec::new(),
            seed,
            rng: Rng::new(seed),
            kinds,
            process,
            safety: Safety::default(),
            operator,
            depth: 0,
            requests: 0,
            weights: [1; 4],
            violation: None,
            crashed: false,
            effect: None,
        }
    }

    /// One thing happens; false when nothing is left to do now.
    fn step(&mut self) -> bool {
        self.process.receive(&self.store);
        if self.rng.chance(50) {
            self.weights = std::array::from_fn(|_| 1 + self.rng.below(8));
            self.process.stall(&mut self.rng);
        }
        self.store.advance(10);
        let due = self.process.due(self.store.milliseconds());
        let ready = [
            self.process.has_undelivered(),
            self.process.has_events(),
            !due.is_empty(),
            true,
        ];
        let mut order: Vec<usize> = (0..4).filter(|index| ready[*index]).collect();
        while !order.is_empty() {
            let index = self.draw(&mut order);
            let done = match index {
                0 => {
                    let kinds = self.kinds.clone();
                    self.process.deliver(&kinds, &mut self.rng)
                }
                1 => self.handle_event(),
                2 => {
                    let key = due[self.rng.below(due.len())].clone();
                    self.run_pass(&key);
                    true
                }
                _ => self.store.act(&mut self.rng),
            };
            if done {
                return true;
            }
        }
        false
    }

    /// Takes one of the kinds of steps, by their weights.
    fn draw(&mut self, order: &mut Vec<usize>) -> usize {
        let total: usize = order.iter().map(|index| self.weights[*index]).sum();
        let mut at = self.rng.below(total);
        let mut position = 0;
        while position + 1 < order.len() && at >= self.weights[order[position]] {
            at -= self.weights[order[position]];
            position += 1;
        }
        order.remove(position)
    }

    /// Turns the next event into work.
    fn handle_event(&mut self) -> bool {
        let Some(event) = self.process.next_event() else {
            return false;
        };
        let now = self.store.milliseconds();
        if let fairlead_plan::Event::Own(kind, id) = &event {
            self.process.add(
                Key {
                    kind: *kind,
                    id: id.clone(),
                },
                now,
            );
        }
        for kind in self.kinds.clone() {
            if (self.bug.drops_trigger)(kind.name, &event) {
                continue;
            }
            for id in (kind.triggers)(&event, &self.process.cache) {
                self.process.add(
                    Key {
                        kind: kind.name,
                        id,
                    },
                    now + 50,
                );
            }
        }
        true
    }

    /// Runs steps until nothing is due for long.
    fn run_until_quiet(&mut self) -> Checked {
        let mut quiet_since = self.store.milliseconds();
        for _ in 0..STEPS_MAX {
            let (journal, requests) = (self.store.journal().len(), self.requests);
            let busy = self.step();
            self.check()?;
            let changed = journal != self.store.journal().len() || requests != self.requests;
            if changed || self.process.is_behind() {
                quiet_since = self.store.milliseconds();
            }
            if !busy {
                let next = self.process.next_due().unwrap_or(i64::MAX);
                if next.min(self.store.milliseconds() + QUIET) - quiet_since >= QUIET {
                    return Ok(());
                }
                self.store
                    .advance((next - self.store.milliseconds()).max(1));
            }
        }
        Err(self.violate(format!("nothing settled in {STEPS_MAX} steps")))
    }

    fn check(&mut self) -> Checked {
        self.violation.take().map_or(Ok(()), Err)
    }

    fn violate(&self, message: impl Into<String>) -> Violation {
        let tail = self.log[self.log.len().saturating_sub(TAIL)..].to_vec();
        Violation {
            seed: self.seed,
            message: message.into(),
            tail,
        }
    }

    fn say(&mut self, line: impl AsRef<str>) {
        let seconds = self.store.milliseconds() / 1000;
        self.log.push(format!("{seconds:>5}s {}", line.as_ref()));
    }
}
