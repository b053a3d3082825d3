//! The roots there are: one that signs, the next one that everybody learns to believe, and those that retire.

use fairlead_crds::mesh::RootPhase;
use time::OffsetDateTime;

use super::{AuthorityError, Material};

/// A root and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its number; each root has one more than the one before.
    pub number: u32,
    /// What it is for.
    pub phase: RootPhase,
    /// Since when.
    pub since: OffsetDateTime,
    /// Whether somebody else may have a key of it.
    pub is_tainted: bool,
    /// Its certificates and keys.
    pub material: Material,
}

/// All of them, by their numbers; exactly one is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    all: Vec<Slot>,
    /// The highest number that was ever given.
    last: u32,
}

impl Slots {
    /// The first root, which signs at once: nobody believes another one.
    #[must_use]
    pub fn first(material: Material, now: OffsetDateTime) -> Self {
        let all = vec![Slot {
            number: 1,
            phase: RootPhase::Active,
            since: now,
            is_tainted: false,
            material,
        }];
        Self { all, last: 1 }
    }

    /// These, as they were kept, with the highest number that was ever given.
    ///
    /// # Errors
    /// When not exactly one is active, or two have the same number.
    pub fn of(mut all: Vec<Slot>, last: u32) -> Result<Self, AuthorityError> {
        all.sort_by_key(|slot| slot.number);
        let is_twice = all.windows(2).any(|pair| pair[0].number == pair[1].number);
        let active = all.iter().filter(|slot| slot.phase == RootPhase::Active);
        if is_twice || active.count() != 1 {
            return Err(AuthorityError::Read {
                what: "the roots",
                cause: "exactly one is active, and each has a number of its own".to_owned(),
            });
        }
        let last = all.last().map_or(last, |slot| slot.number.max(last));
        Ok(Self { all, last })
    }

    /// The highest number that was ever given.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.last
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.all.iter()
    }

    /// The one that signs.
    #[must_use]
    pub fn active(&self) -> &Slot {
        let active = self.all.iter().find(|slot| slot.phase == RootPhase::Active);
        active.expect("exactly one is active")
    }

    /// The one that is about to sign.
    #[must_use]
    pub fn next(&self) -> Option<&Slot> {
        self.all
            .iter()
            .find(|slot| slot.phase == RootPhase::Prepare)
    }

    /// Those that retire, the oldest first.
    pub fn retiring(&self) -> impl Iterator<Item = &Slot> {
        self.all
            .iter()
            .filter(|slot| slot.phase == RootPhase::Retiring)
    }

    /// The one that everybody has believed for the longest time and still may.
    #[must_use]
    pub fn best_known(&self) -> &Slot {
        let mut old = self.retiring().filter(|slot| !slot.is_tainted);
        old.next().unwrap_or_else(|| self.active())
    }

    /// All roots in PEM: first the one that signs, by which proxies see that another one does.
    #[must_use]
    pub fn bundle(&self) -> String {
        let active = self.active();
        let others = self.all.iter().filter(|slot| slot.number != active.number);
        std::iter::once(active)
            .chain(others)
            .map(|slot| slot.material.root.as_str())
            .collect()
    }

    /// With another root that everybody is to believe.
    #[must_use]
    pub fn prepared(&self, material: Material, now: OffsetDateTime) -> Self {
        let (mut all, last) = (self.all.clone(), self.last + 1);
        all.push(Slot {
            number: last,
            phase: RootPhase::Prepare,
            since: now,
            is_tainted: false,
            material,
        });
        Self { all, last }
    }

    /// With the next one as the one that signs.
    #[must_use]
    pub fn activated(&self, is_tainted: bool, now: OffsetDateTime) -> Self {
        if self.next().is_none() {
            return self.clone();
        }
        let mut all = self.all.clone();
        for slot in &mut all {
            let phase = match slot.phase {
                RootPhase::Prepare => RootPhase::Active,
                RootPhase::Active => {
                    slot.is_tainted = is_tainted;
                    RootPhase::Retiring
                }
                RootPhase::Retiring => continue,
            };
            (slot.phase, slot.since) = (phase, now);
        }
        Self {
            all,
            last: self.last,
        }
    }

    /// Without one that does not sign.
    #[must_use]
    pub fn without(&self, number: u32) -> Self {
        let is_kept = |slot: &&Slot| slot.number != number || slot.phase == RootPhase::Active;
        Self {
            all: self.all.iter().filter(is_kept).cloned().collect(),
            last: self.last,
        }
    }

    /// With another issuer below the root that signs.
    #[must_use]
    pub fn reissued(&self, material: Material) -> Self {
        let mut all = self.all.clone();
        for slot in &mut all {
            if slot.phase == RootPhase::Active {
                slot.material.clone_from(&material);
            }
        }
        Self {
            all,
            last: self.last,
        }
    }
}
