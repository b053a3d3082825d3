//! The next step of changing a root. Pure: what there is, what is wanted and what proxies say come in, a step and what it waits for
//! go out.
//!
//! ```text
//! Prepare ──(all connected proxies believe it)──▶ Active ──(the next signs)──▶ Retiring ──(what it signed ran out)──▶ gone
//! ```

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use super::brought::BROUGHT;
use super::{AuthorityError, Material, Slots, is_due, life};

/// How many roots are believed at once.
const MOST: usize = 4;

/// How long what takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a root is believed before it signs, at least.
    pub settle: Duration,
    /// How long one that is to replace a tainted root waits for proxies at the most.
    pub urgent: Duration,
    /// How long a pod without a connection is waited for before a root signs.
    pub absent: Duration,
    /// How long a tainted root is believed once another one signs, so that proxies get other certificates.
    pub renewal: Duration,
    /// The longest life of what a root signed, with the tolerated skew.
    pub leaf: Duration,
}

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The number of the root that signs, at least.
    pub root: u32,
    /// Roots whose key somebody else may have.
    pub tainted: BTreeSet<u32>,
    /// The authority of the user's own.
    pub brought: Option<Material>,
    /// Whether somebody else's authority is wanted, usable or not.
    pub is_brought: bool,
}

/// What proxies say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// How many are connected.
    pub connected: usize,
    /// Those that are connected and do not believe all roots.
    pub lagging: BTreeSet<String>,
    /// Those of pods that run and are not connected.
    pub absent: BTreeSet<String>,
    /// Replicas of the control plane that did not say what theirs do.
    pub silent: BTreeSet<String>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Take another issuer below the root that signs.
    Reissue,
    /// Have everybody believe another root.
    Prepare,
    /// Let the next root sign.
    Activate {
        /// Whether the one before is tainted.
        is_tainted: bool,
    },
    /// Believe this one no longer.
    Drop(u32),
}

/// A step, and what the one after it waits for.
pub type Decision = (Step, Option<String>);

/// Decides what to do next.
///
/// # Errors
/// When a certificate that is kept cannot be read.
pub fn decide(
    slots: &Slots,
    wanted: &Wanted,
    heard: &Heard,
    timing: &Timing,
    now: OffsetDateTime,
) -> Result<Decision, AuthorityError> {
    let active = slots.active();
    let is_tainted = |number: u32| wanted.tainted.contains(&number);
    if let Some(next) = slots.next() {
        let age = now - next.since;
        let is_urgent = is_tainted(active.number) && age >= timing.urgent;
        let waiting = heard.waiting(age < timing.absent);
        return Ok(match waiting {
            _ if is_tainted(next.number) => (Step::Drop(next.number), None),
            Some(waiting) if !is_urgent => (Step::Stay, Some(waiting)),
            None if age < timing.settle => (Step::Stay, Some("a moment".to_owned())),
            _ => {
                let is_tainted = is_tainted(active.number);
                (Step::Activate { is_tainted }, None)
            }
        });
    }
    if reissue(slots, wanted, now)? {
        return Ok((Step::Reissue, None));
    }
    if prepare(slots, wanted, now)? {
        let is_known = wanted.brought.as_ref().is_some_and(|brought| {
            let mut all = slots.iter();
            all.any(|slot| slot.material.root == brought.root)
        });
        return Ok(match slots.iter().count() < MOST {
            _ if wanted.is_brought && (wanted.brought.is_none() || is_known) => {
                let waiting = format!("another root in the Secret {BROUGHT}");
                (Step::Stay, Some(waiting))
            }
            true => (Step::Prepare, None),
            false => (Step::Stay, Some("older roots to retire".to_owned())),
        });
    }
    Ok(retire(slots, wanted, heard, timing, now))
}

/// Whether the root that signs gets another issuer.
fn reissue(slots: &Slots, wanted: &Wanted, now: OffsetDateTime) -> Result<bool, AuthorityError> {
    let own = &slots.active().material;
    Ok(match &wanted.brought {
        Some(brought) => brought.root == own.root && brought.issuer != own.issuer,
        None => own.root_key.is_some() && is_due(life(&own.issuer.certificate)?, now),
    })
}

/// Whether another root is needed.
fn prepare(slots: &Slots, wanted: &Wanted, now: OffsetDateTime) -> Result<bool, AuthorityError> {
    let active = slots.active();
    let own = &active.material;
    let is_other = match &wanted.brought {
        Some(brought) => brought.root != own.root,
        // Somebody else's is no longer wanted.
        None => own.root_key.is_none() && !wanted.is_brought,
    };
    let is_old = wanted.brought.is_none() && own.root_key.is_some() && is_due(own.life()?, now);
    let is_asked = active.number < wanted.root || wanted.tainted.contains(&active.number);
    Ok(is_other || is_old || is_asked)
}

/// Believes no longer what nobody needs.
fn retire(
    slots: &Slots,
    wanted: &Wanted,
    heard: &Heard,
    timing: &Timing,
    now: OffsetDateTime,
) -> Decision {
    let mut waiting = None;
    for old in slots.retiring() {
        let is_tainted = old.is_tainted || wanted.tainted.contains(&old.number);
        let age = now - old.since;
        if is_tainted {
            if age >= timing.renewal {
                return (Step::Drop(old.number), None);
            }
            waiting = Some("other certificates of proxies".to_owned());
        } else if age < timing.leaf {
            waiting = Some("what it signed to run out".to_owned());
        } else {
            match heard.waiting(true) {
                None => return (Step::Drop(old.number), None),
                Some(lagging) => waiting = Some(lagging),
            }
        }
    }
    (Step::Stay, waiting)
}

/// What there is after a step; nothing where nothing changes.
///
/// # Errors
/// When no certificate can be made.
pub fn taken(
    slots: &Slots,
    step: Step,
    brought: Option<Material>,
    trust_domain: &str,
    life: Duration,
    now: OffsetDateTime,
) -> Result<Option<Slots>, AuthorityError> {
    Ok(match step {
        Step::Stay => None,
        Step::Reissue => {
            let own = &slots.active().material;
            let next = match brought {
                Some(brought) => Some(brought),
                None => own.reissued(trust_domain, now)?,
            };
            next.map(|next| slots.reissued(next))
        }
        Step::Prepare => {
            let next = brought.map_or_else(|| Material::make(trust_domain, life, now), Ok)?;
            Some(slots.prepared(next, now))
        }
        Step::Activate { is_tainted } => Some(slots.activated(is_tainted, now)),
        Step::Drop(number) => Some(slots.without(number)),
    })
}

impl Heard {
    /// Who is waited for.
    fn waiting(&self, counts_absent: bool) -> Option<String> {
        let count = |all: &BTreeSet<String>, one: &str, more: &str| match all.len() {
            0 => None,
            1 => Some(format!("1 {one}")),
            many => Some(format!("{many} {more}")),
        };
        let silent = count(
            &self.silent,
            "replica of the control plane that does not answer",
            "replicas of the control plane that do not answer",
        );
        let lagging = count(
            &self.lagging,
            "proxy that does not believe all roots yet",
            "proxies that do not believe all roots yet",
        );
        let absent = count(
            &self.absent,
            "proxy that is not connected",
            "proxies that are not connected",
        );
        let absent = absent.filter(|_| counts_absent);
        let all: Vec<String> = [silent, lagging, absent].into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// Those that are waited for, by name.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.silent.iter().chain(&self.lagging).chain(&self.absent)
    }
}

#[cfg(test)]
mod tests;
