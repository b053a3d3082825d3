//! What one proxy wants, and was told, of one kind of resources.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Heard, MOST_NAMES, Named, RequestError, Resource, View};
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
    /// What there was when it was looked at last, layer by layer; nothing where all of it has to be looked at.
    seen: Option<Vec<Arc<Named>>>,
    /// What was told and was gone when that was looked at.
    leaving: BTreeSet<Arc<str>>,
}

/// What is to be told.
pub(super) struct Looked {
    /// What is wanted, there, and was not told as it is.
    pub(super) changed: Vec<(Arc<str>, Resource)>,
    /// The names of what is wanted and never was there.
    pub(super) missing: Vec<Arc<str>>,
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

    /// Notes what is told of a resource, whose name is kept as all streams have it.
    pub(super) fn tell(&mut self, name: Arc<str>, version: Arc<str>) {
        if self.names.contains(&name) {
            self.names.replace(Arc::clone(&name));
        }
        self.told.insert(name, version);
    }

    /// Has all there is looked at again.
    pub(super) fn forget(&mut self) {
        self.seen = None;
    }

    /// Whether there may be anything that was not looked at.
    pub(super) fn is_news(&mut self, kind: Kind, view: &View) -> bool {
        !matches!(self.see(kind, view), Some(names) if names.is_empty())
    }

    /// The names of what is otherwise than it was seen the last time; nothing where it was not seen.
    fn see(&mut self, kind: Kind, view: &View) -> Option<BTreeSet<Arc<str>>> {
        let now: Vec<Arc<Named>> = view.named(kind).cloned().collect();
        let before = self.seen.take();
        let differing = before
            .filter(|own| own.len() == now.len())
            .map(|before| before.iter().zip(&now).flat_map(differing).collect());
        self.seen = Some(now);
        differing
    }

    /// Looks at what there is now.
    pub(super) fn look(&mut self, kind: Kind, view: &View) -> Looked {
        let names = match self.see(kind, view) {
            Some(names) => names,
            None => self.all(kind, view),
        };
        let (mut changed, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            let told = self.told.get(&name);
            match view.get(kind, &name) {
                Some(own) if self.wants(&name) && told != Some(&own.version) => {
                    changed.push((name, own.clone()));
                }
                Some(_) => {}
                None => match told {
                    Some(version) if !version.is_empty() => drop(self.leaving.insert(name)),
                    None if self.names.contains(&name) => missing.push(name),
                    _ => {}
                },
            }
        }
        self.note_absent(&missing);
        Looked { changed, missing }
    }

    /// The names of all that there is, was told or is wanted.
    fn all(&self, kind: Kind, view: &View) -> BTreeSet<Arc<str>> {
        let there = view.all(kind).map(|(name, _)| name);
        let there = there.filter(|name| self.wants(name));
        let names = there.chain(&self.names).chain(self.told.keys());
        names.cloned().collect()
    }

    fn wants(&self, name: &Arc<str>) -> bool {
        self.wants_all || self.names.contains(name)
    }

    /// What was told and is there no longer; each is told once.
    pub(super) fn gone(&mut self, kind: Kind, view: &View) -> Vec<Arc<str>> {
        let mut gone: Vec<Arc<str>> = std::mem::take(&mut self.leaving).into_iter().collect();
        gone.retain(|name| {
            let is_told = self.told.get(name).is_some_and(|own| !own.is_empty());
            is_told && view.get(kind, name).is_none()
        });
        for name in &gone {
            self.told.remove(name);
        }
        // What is still wanted and gone was told to be; Envoy refuses a name that is there twice.
        self.note_absent(&gone);
        gone
    }

    fn note_absent(&mut self, names: &[Arc<str>]) {
        for name in names {
            if self.names.contains(name) {
                self.told.insert(Arc::clone(name), ABSENT.into());
            }
        }
    }
}

/// The names of resources that are otherwise in one of two layers than in the other.
fn differing((before, now): (&Arc<Named>, &Arc<Named>)) -> Vec<Arc<str>> {
    let mut names = Vec::new();
    if Arc::ptr_eq(before, now) {
        return names;
    }
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (before.peek(), now.peek()) {
            (None, None) => return names,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) if Arc::ptr_eq(one, other) => Ordering::Equal,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let old = before.next_if(|_| order.is_le());
        let new = now.next_if(|_| order.is_ge());
        if old.map(|(_, own)| own) != new.map(|(_, own)| own) {
            names.extend(new.or(old).map(|(name, _)| Arc::clone(name)));
        }
    }
}
