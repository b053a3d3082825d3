//! Who was told what and when: what an operator asks when a proxy does not do what the control plane seems to say.

use std::collections::BTreeMap;

use fairlead_model::{Moment, Snapshot};
use serde_json::Value;

use super::known::Known;
use crate::Kind;

/// A version, and when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The version, as the control plane named it.
    pub version: String,
    /// When it came, on the clock that [`super::Session`] is given.
    pub at: Moment,
}

/// An update that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What would have come.
    pub stamp: Stamp,
    /// What is wrong with it: the path of a field, what was found, and what is allowed.
    pub reason: String,
    /// The resource, as far as it could be decoded; secrets are `[redacted]`.
    pub resource: Option<Value>,
}

/// What became of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// What is in use.
    pub used: Option<Stamp>,
    /// What was told last, and was right.
    pub told: Option<Stamp>,
    /// What was told after that, and was wrong.
    pub refused: Option<Refusal>,
}

/// All that a control plane told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// The version of all resources of a kind, as the last good response said; nothing from one that sends only what changed.
    pub versions: BTreeMap<Kind, String>,
    /// What became of each resource, by kind and name.
    pub entries: BTreeMap<(Kind, String), Entry>,
    /// What was told and waits for something else before it is used.
    pub waiting: Snapshot,
}

/// Notes what comes.
#[derive(Debug, Default)]
pub(super) struct Notes {
    entries: BTreeMap<(Kind, String), Entry>,
}

impl Notes {
    /// A resource came, and is right.
    pub(super) fn took(&mut self, kind: Kind, name: &str, stamp: Stamp) {
        let entry = self.entries.entry((kind, name.to_owned())).or_default();
        entry.told = Some(stamp);
        entry.refused = None;
    }

    /// A resource came, and is wrong.
    pub(super) fn refused(&mut self, kind: Kind, name: &str, refusal: Refusal) {
        let entry = self.entries.entry((kind, name.to_owned())).or_default();
        entry.refused = Some(refusal);
    }

    /// A resource is gone, or is not wanted any more.
    pub(super) fn removed(&mut self, kind: Kind, name: &str) {
        self.entries.remove(&(kind, name.to_owned()));
    }

    /// What was told is used from now on, as far as it is.
    pub(super) fn settled(&mut self, known: &Known) {
        for ((kind, name), entry) in &mut self.entries {
            if entry.used != entry.told && known.is_used(*kind, name) {
                entry.used.clone_from(&entry.told);
            }
        }
    }

    pub(super) fn entries(&self) -> BTreeMap<(Kind, String), Entry> {
        self.entries.clone()
    }
}
