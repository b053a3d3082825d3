//! Writes, as the operator's harness does them, with what can go wrong.

use std::hash::{DefaultHasher, Hash, Hasher};

use fairlead_crds::condition::Reason;
use fairlead_plan::cache::{ChildMeta, meta_of};
use fairlead_plan::change::Verb;
use fairlead_plan::{Change, Class, Live, ObjectKey, Problem, Read};
use serde_json::Value;

use super::pass::Actor;
use super::process::Applied;
use super::{Crash, Sim};
use crate::store::{Propagation, Refused, Store};

/// A result within a process that may die.
pub(super) type Attempt<T, E> = Result<Result<T, E>, Crash>;

/// Why nothing was written.
enum Skipped {
    Applied,
    Failed(Problem),
}

impl Sim {
    /// Lets something else happen in the middle of a pass, or the process die.
    pub(super) fn cut(&mut self) -> Result<(), Crash> {
        if self.rng.chance(self.faults.crash) {
            self.say("the process dies");
            return Err(Crash);
        }
        while self.depth <= 2 && self.violation.is_none() && self.rng.chance(self.faults.cut) {
            self.step();
            if self.crashed {
                return Err(Crash);
            }
        }
        Ok(())
    }

    /// One request that writes, with what can go wrong.
    pub(super) fn request<T>(
        &mut self,
        actor: &Actor,
        key: &ObjectKey,
        write: impl FnOnce(&mut Store) -> Result<T, Refused>,
    ) -> Attempt<T, Problem> {
        self.cut()?;
        self.effect = None;
        self.requests += 1;
        if self.rng.chance(self.faults.failed) {
            self.say(format!(
                "{actor}: the API server does not answer a write of {key}"
            ));
            return Ok(Err(unanswered()));
        }
        let before = self.store.get(key).cloned();
        let journal = self.store.journal().len();
        let done = write(&mut self.store);
        self.effect = (journal != self.store.journal().len()).then_some(before);
        if self.rng.chance(self.faults.lost) {
            self.say(format!("{actor}: the answer to a write of {key} is lost"));
            return Ok(Err(unanswered()));
        }
        Ok(done.map_err(|refused| problem_of(&refused, key)))
    }

    /// Applies changes until one fails; returns what was really written.
    pub(super) fn apply(&mut self, actor: &Actor, changes: &[Change], live: &Live) -> Applications {
        let mut written = Vec::new();
        for change in changes {
            self.effect = None;
            let done = self.one(actor, change, live)?;
            // Only what this write did: other passes may have run before it.
            if let Some(before) = self.effect.take() {
                self.wrote(actor, change, before.as_ref());
            }
            match done {
                Ok(true) => written.push(change.key.clone()),
                Ok(false) | Err(Skipped::Applied) => {}
                Err(Skipped::Failed(problem)) => {
                    self.say(format!(
                        "{actor}: failed to write {}: {}",
                        change.key, problem.message
                    ));
                    return Ok((written, Some(problem)));
                }
            }
        }
        Ok((written, None))
    }

    fn one(&mut self, actor: &Actor, change: &Change, live: &Live) -> Attempt<bool, Skipped> {
        let key = &change.key;
        match &change.verb {
            Verb::Apply(body) => {
                self.process.ensure(&self.store, key);
                self.apply_one(actor, key, &body.0, live)
            }
            Verb::Create(body) => {
                self.process.ensure(&self.store, key);
                let done = self.request(actor, key, |store| match store.create(&body.0) {
                    Err(refused) if refused.code == 409 => Ok(false),
                    done => done.map(|_| true),
                })?;
                Ok(done.map_err(Skipped::Failed))
            }
            Verb::Delete { uid } => {
                self.process.applied.remove(key);
                let propagation = if key.kind == "ResourceInstance" {
                    Propagation::Foreground
                } else {
                    Propagation::Background
                };
                let done = self.request(actor, key, |store| {
                    match store.delete(key, Some(uid), propagation) {
                        Err(refused) if refused.code == 404 || refused.code == 409 => Ok(false),
                        done => done.map(|()| true),
                    }
                })?;
                Ok(done.map_err(Skipped::Failed))
            }
        }
    }

    fn apply_one(
        &mut self,
        actor: &Actor,
        key: &ObjectKey,
        body: &Value,
        live: &Live,
    ) -> Attempt<bool, Skipped> {
        let cached = self.process.cache.other(key);
        let before = cached.as_deref().map(state).unwrap_or_default();
        let wanted = hash(body);
        if let Some(applied) = self.process.applied.get(key)
            && applied.wanted == wanted
            && !before.is_empty()
            && (applied.after == before || applied.before == before)
        {
            return Ok(Err(Skipped::Applied));
        }
        let unread = cached.is_none()
            && body.pointer("/metadata/ownerReferences").is_some()
            && !live.has(&Read::Object(key.clone()));
        let found = match live.object(key) {
            Some(found) => Some(found.clone()),
            None if unread => self.store.get(key).cloned(),
            None => None,
        };
        let version = found
            .as_ref()
            .and_then(|found| meta_of(found).resource_version);
        let version = version.or_else(|| {
            cached
                .as_ref()
                .map(|cached| cached.resource_version.clone())
        });
        if let Some(found) = &found
            && let Err(problem) = check_owner(key, body, found)
        {
            return Ok(Err(Skipped::Failed(problem)));
        }
        let after = match self.request(actor, key, |store| store.apply(body))? {
            Ok(after) => after,
            Err(problem) => return Ok(Err(Skipped::Failed(problem))),
        };
        let meta = ChildMeta::of(&key.api_version, &key.kind, &meta_of(&after));
        let changed = version.as_ref() != Some(&meta.resource_version);
        self.process.applied.insert(
            key.clone(),
            Applied {
                wanted,
                before,
                after: state(&meta),
            },
        );
        Ok(Ok(changed))
    }
}

/// The problem of a request that was not answered.
pub(super) fn unanswered() -> Problem {
    Problem {
        class: Class::Transient,
        reason: Reason::Unavailable,
        message: "the API server did not answer; it is tried again".to_owned(),
    }
}

/// What was written, and the problem at which it ended.
type Applications = Result<(Vec<ObjectKey>, Option<Problem>), Crash>;

fn state(meta: &ChildMeta) -> String {
    if meta.generation > 0 {
        return format!("{}/{}/{:x}", meta.uid, meta.generation, meta.meta_hash);
    }
    format!("{}/{}", meta.uid, meta.resource_version)
}

fn hash(body: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.to_string().hash(&mut hasher);
    hasher.finish()
}

fn check_owner(key: &ObjectKey, wanted: &Value, found: &Value) -> Result<(), Problem> {
    let controller = |object: &Value| {
        let owners = meta_of(object).owner_references.unwrap_or_default();
        owners
            .into_iter()
            .find(|owner| owner.controller == Some(true))
    };
    let Some(owner) = controller(wanted) else {
        return Ok(());
    };
    if controller(found).is_some_and(|other| other.uid == owner.uid) {
        return Ok(());
    }
    Err(Problem {
        class: Class::Denied,
        reason: Reason::Conflict,
        message: format!("{key} exists and is not taken over"),
    })
}

/// What a refusal means, as the operator reads it.
fn problem_of(refused: &Refused, key: &ObjectKey) -> Problem {
    let message = &refused.message;
    let problem = |class, reason, message| Problem {
        class,
        reason,
        message,
    };
    match refused.code {
        403 => problem(
            Class::Transient,
            Reason::Terminating,
            format!("{key}: its namespace is being deleted"),
        ),
        404 => problem(
            Class::Transient,
            Reason::NotFound,
            format!("{key}: {message}"),
        ),
        409 => problem(
            Class::Conflict,
            Reason::Conflict,
            format!("{key} changed in between; it is tried again"),
        ),
        _ => problem(
            Class::Invalid,
            Reason::Rejected,
            format!("{key}: {message}"),
        ),
    }
}
