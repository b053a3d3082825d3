//! What one proxy wants, and was told, of one kind of resources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Heard, MOST_NAMES, RequestError, Resource, View};
use crate::Kind;

/// The version of what a proxy was told is not there.
const ABSENT: &str = "";

/// What one proxy wants, and was told, of one kind of resources.
#[derive(Debug, Default)]
pub(super) struct Topic {
    /// Whether anything was said of it.
    pub(super) is_open: bool,
    /// Whether all there are are wanted.
    pub(super) wants_all: bool,
    /// The names that are wanted.
    pub(super) names: BTreeSet<Arc<str>>,
    /// What was told, by name.
    pub(super) told: BTreeMap<Arc<str>, Arc<str>>,
    /// The version of all, for the state of the world.
    pub(super) whole: Option<String>,
    /// The nonce of the response that was not answered yet.
    pub(super) awaited: Option<String>,
    /// Why the last response was refused.
    pub(super) refused: Option<String>,
}

impl Topic {
    /// An answer came; false where it is none to the last response.
    pub(super) fn answered(
        &mut self,
        nonce: &str,
        refusal: Option<String>,
        kind: Kind,
        heard: &mut Heard,
    ) -> bool {
        if self.awaited.as_deref() != Some(nonce) {
            // A second answer to the same response changes what is wanted alone.
            return self.awaited.is_none();
        }
        self.awaited = None;
        match &refusal {
            Some(reason) => heard.refused = Some((kind, reason.clone())),
            None => heard.accepted = Some(kind),
        }
        self.refused = refusal;
        true
    }

    /// Whether it asks for no more than it may.
    pub(super) fn check(&self) -> Result<(), RequestError> {
        match self.names.len().max(self.told.len()) > MOST_NAMES {
            true => Err(RequestError::TooMany),
            false => Ok(()),
        }
    }

    /// Wants a resource; one that is asked for again is sent again.
    pub(super) fn subscribe(&mut self, name: &str, is_again: bool) {
        let name: Arc<str> = name.into();
        if is_again {
            self.told.remove(&name);
        }
        self.names.insert(name);
    }

    /// Wants it no longer.
    pub(super) fn unsubscribe(&mut self, name: &str) {
        self.names.remove(name);
        if !self.wants_all {
            self.told.remove(name);
        }
    }

    /// Begins to wait for an answer.
    pub(super) fn await_answer(&mut self, last: &mut u64) -> String {
        *last += 1;
        let nonce = last.to_string();
        self.awaited = Some(nonce.clone());
        nonce
    }

    /// What is wanted and there, by name.
    pub(super) fn wanted(&self, kind: Kind, view: &View) -> Vec<(Arc<str>, Resource)> {
        let pair = |(name, resource): (&Arc<str>, &Resource)| (Arc::clone(name), resource.clone());
        let mut wanted: Vec<_> = if self.wants_all {
            view.all(kind).map(pair).collect()
        } else {
            let named = self.names.iter();
            named
                .filter_map(|name| Some((Arc::clone(name), view.get(kind, name)?.clone())))
                .collect()
        };
        wanted.sort_by(|one, other| one.0.cmp(&other.0));
        wanted
    }

    /// What is wanted, there, and was not told as it is.
    pub(super) fn changed(&self, kind: Kind, view: &View) -> Vec<(Arc<str>, Resource)> {
        let is_new = |name: &Arc<str>, resource: &Resource| {
            self.told
                .get(name)
                .is_none_or(|told| *told != resource.version)
        };
        let pair = |(name, resource): (&Arc<str>, &Resource)| (Arc::clone(name), resource.clone());
        if self.wants_all {
            let all = view.all(kind);
            return all
                .filter(|(name, resource)| is_new(name, resource))
                .map(pair)
                .collect();
        }
        let named = self.names.iter();
        named
            .filter_map(|name| Some((name, view.get(kind, name)?)))
            .filter(|(name, resource)| is_new(name, resource))
            .map(pair)
            .collect()
    }

    /// Of clusters that are about to be told, the names of their endpoints.
    pub(super) fn endpoints(&self, view: &View) -> BTreeSet<Arc<str>> {
        let changed = self.changed(Kind::Cluster, view).into_iter();
        changed.filter_map(|(_, own)| own.endpoints).collect()
    }

    /// What was told and is no longer there, and what was asked for and never was; each is told once.
    pub(super) fn gone(&mut self, kind: Kind, view: &View) -> Vec<String> {
        let is_there = |name: &str| view.get(kind, name).is_some();
        let mut gone: Vec<Arc<str>> = self
            .told
            .iter()
            .filter(|(name, version)| !version.is_empty() && !is_there(name))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        // What is still wanted and what never was are told in the same way, each once: Envoy refuses a name that is there twice.
        gone.extend(self.absent(is_there));
        for name in &gone {
            self.told.remove(name);
        }
        self.note_absent(&gone);
        gone.iter().map(|name| name.to_string()).collect()
    }

    /// What was asked for by name and never was there.
    pub(super) fn missing(&mut self, kind: Kind, view: &View) -> Vec<String> {
        let missing = self.absent(|name| view.get(kind, name).is_some());
        self.note_absent(&missing);
        missing.iter().map(|name| name.to_string()).collect()
    }

    fn absent(&self, is_there: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let named = self.names.iter();
        named
            .filter(|name| !self.told.contains_key(*name) && !is_there(name))
            .cloned()
            .collect()
    }

    fn note_absent(&mut self, names: &[Arc<str>]) {
        for name in names {
            if self.names.contains(name) {
                self.told.insert(Arc::clone(name), ABSENT.into());
            }
        }
    }
}
