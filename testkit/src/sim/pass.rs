//! One pass over one object, as the operator's harness does it:
//! validate → observe → read → plan → apply → report → publish.

use std::time::Duration;

use fairlead_crds::{Condition, Reported, labels};
use fairlead_plan::kind::{Context, Kind};
use fairlead_plan::live::Answer;
use fairlead_plan::report::report;
use fairlead_plan::{Class, Live, Next, ObjectId, ObjectKey, Outcome, Planned, Problem, Read};
use kube::{Resource, ResourceExt};

use super::write::{Attempt, unanswered};
use super::{Crash, Key, Sim};

/// The most rounds of reads of one pass.
const ROUNDS: usize = 5;
/// The pause until the visit that happens anyway; longer than anything that is simulated.
const RESYNC: i64 = 1000 * 3600 * 1000;

/// Who writes: a pass over an object, which it read at this state.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    pub(super) key: Key,
    pub(super) object: serde_json::Value,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.key.kind.as_str(), self.key.id)
    }
}

impl Sim {
    /// Runs a pass, and puts the object into the queue again as the outcome asks.
    pub(super) fn run_pass(&mut self, key: &Key) {
        let Some(kind) = self
            .kinds
            .iter()
            .find(|kind| kind.name == key.kind)
            .copied()
        else {
            return;
        };
        self.process.take(key);
        self.depth += 1;
        let next = (kind.pass)(self, &key.id);
        self.depth -= 1;
        match next {
            Ok(next) => {
                self.process.running.remove(key);
                let pause = self.pause(key, next);
                let now = self.store.milliseconds();
                if let Some(pause) = pause {
                    self.process.add(key.clone(), now + pause);
                }
            }
            // The outermost pass starts the process anew; those that it cut ended with it.
            Err(Crash) if self.depth == 0 => self.restart(),
            Err(Crash) => self.crashed = true,
        }
    }

    /// Starts the process anew.
    pub fn restart(&mut self) {
        self.crashed = false;
        self.say("the process starts anew");
        self.process = super::Process::start(&self.store, &self.kinds);
    }

    fn pause(&mut self, key: &Key, next: Next) -> Option<i64> {
        if !matches!(next, Next::Problem(Class::Transient)) {
            self.process.succeeded(key);
        }
        Some(match next {
            Next::Never => return None,
            Next::After(pause) => i64::try_from(pause.as_millis()).unwrap_or(RESYNC),
            Next::Resync | Next::Problem(Class::Waiting | Class::Invalid) => RESYNC,
            Next::Problem(Class::Conflict) => 1000,
            Next::Problem(Class::Denied | Class::Bug) => 300_000,
            Next::Problem(Class::Transient) => {
                let doublings = self.process.failed(key).saturating_sub(1).min(9);
                (1000_i64 << doublings).min(300_000)
            }
        })
    }

    fn read(&mut self, read: &Read) -> Answer {
        match read {
            Read::Object(key) => Answer::Object(self.store.get(key).cloned()),
            Read::Pods {
                namespace,
                workload,
            } => {
                let mine = |pod: &serde_json::Value| {
                    pod.pointer("/metadata/labels")
                        .and_then(|all| all.get(labels::WORKLOAD))
                        == Some(&workload.as_str().into())
                };
                let pods = self
                    .store
                    .of_kind("Pod")
                    .filter(|(key, pod)| key.namespace.as_deref() == Some(namespace) && mine(pod));
                Answer::Pods(pods.map(|(_, pod)| pod.as_ref().clone()).collect())
            }
            Read::Instances { namespace } => {
                let all = self.store.of_kind("ResourceInstance");
                let mine = all.filter(|(key, _)| key.namespace.as_deref() == Some(namespace));
                Answer::Instances(mine.map(|(_, found)| found.as_ref().clone()).collect())
            }
            Read::LastLog { namespace, pod, .. } => {
                if let Some(line) = self.process.lines.get(read) {
                    return Answer::LastLog(line.clone());
                }
                let line = self.store.last_log(namespace, pod);
                self.process.lines.insert(read.clone(), line.clone());
                Answer::LastLog(line)
            }
        }
    }
}

/// One pass.
pub(super) fn pass<K: Kind>(sim: &mut Sim, id: &ObjectId) -> Result<Next, Crash> {
    let cache = std::sync::Arc::clone(&sim.process.cache);
    let Some(object) = K::table(&cache).by_id(id) else {
        return Ok(Next::Never);
    };
    let object = sim.bug.object::<K>(&object);
    let actor = Actor {
        key: Key {
            kind: K::NAME,
            id: id.clone(),
        },
        object: serde_json::to_value(&object).unwrap_or_default(),
    };
    if object.meta().deletion_timestamp.is_some() {
        return teardown::<K>(sim, &actor, &object);
    }
    if let Some(finalizer) = K::FINALIZER
        && !object.finalizers().iter().any(|found| found == finalizer)
    {
        let mut finalizers = object.finalizers().to_vec();
        finalizers.push(finalizer.to_owned());
        return finalize::<K>(sim, &actor, &object, &finalizers, Next::Resync);
    }
    let outcome = run::<K>(sim, &actor, &object)?;
    publish::<K>(sim, &actor, &object, &outcome)
}

fn key<K: Kind>(object: &K::Object) -> ObjectKey {
    ObjectKey::new(
        K::Object::api_version(&()),
        K::NAME.as_str(),
        object.namespace().as_deref(),
        object.name_any(),
    )
}

fn finalize<K: Kind>(
    sim: &mut Sim,
    actor: &Actor,
    object: &K::Object,
    finalizers: &[String],
    next: Next,
) -> Result<Next, Crash> {
    let (key, version) = (key::<K>(object), object.resource_version());
    let done = sim.request(actor, &key, |store| {
        store
            .set_finalizers(&key, version.as_deref(), finalizers)
            .map(|_| ())
    })?;
    Ok(match done {
        Ok(()) => next,
        Err(problem) if problem.reason == fairlead_crds::condition::Reason::NotFound => next,
        Err(problem) => Next::Problem(problem.class),
    })
}

fn run<K: Kind>(sim: &mut Sim, actor: &Actor, object: &K::Object) -> Result<Outcome<K>, Crash> {
    if object
        .annotations()
        .get(labels::PAUSED)
        .is_some_and(|value| value == "true")
    {
        return Ok(Outcome::Paused);
    }
    let valid = match K::validate(object) {
        Ok(valid) => valid,
        Err(list) => return Ok(Outcome::Invalid(list)),
    };
    let cache = std::sync::Arc::clone(&sim.process.cache);
    let seen = K::observe(object, &valid, &cache);
    let mut live = Live::default();
    for _ in 0..ROUNDS {
        let wanted: Vec<_> = K::reads(object, &valid, &seen, &live)
            .into_iter()
            .filter(|read| !live.has(read))
            .collect();
        if wanted.is_empty() {
            break;
        }
        for read in wanted {
            sim.cut()?;
            if sim.rng.chance(sim.faults.failed) {
                return Ok(Outcome::Unread(unanswered()));
            }
            let answer = sim.read(&read);
            live.put(read, answer);
        }
    }
    let context = Context {
        now: sim.store.now(),
        entropy: sim.rng.bytes(),
        operator: sim.operator.clone(),
    };
    let mut plan = K::plan(object, &valid, &seen, &live, &context);
    (sim.bug.changes)(&actor.object, &mut plan.changes, &context);
    let (written, failed) = sim.apply(actor, &plan.changes, &live)?;
    Ok(Outcome::Planned(Box::new(Planned {
        valid,
        seen,
        live,
        plan,
        written,
        failed,
    })))
}

fn teardown<K: Kind>(sim: &mut Sim, actor: &Actor, object: &K::Object) -> Result<Next, Crash> {
    let Some(finalizer) =
        K::FINALIZER.filter(|finalizer| object.finalizers().iter().any(|found| found == finalizer))
    else {
        return Ok(Next::Resync);
    };
    let cache = std::sync::Arc::clone(&sim.process.cache);
    let step = K::teardown(object, &cache);
    let (_, failed) = sim.apply(actor, &step.changes, &Live::default())?;
    if let Some(problem) = failed {
        return Ok(Next::Problem(problem.class));
    }
    if step.waiting.is_some() {
        return Ok(Next::After(Duration::from_secs(30)));
    }
    let mut live = Live::default();
    for read in K::last_look(object) {
        let answer = sim.read(&read);
        live.put(read, answer);
    }
    if K::unseen(object, &cache, &live).is_some() {
        return Ok(Next::After(Duration::from_secs(1)));
    }
    sim.say(format!("{actor}: lets the object go"));
    let rest: Vec<String> = object
        .finalizers()
        .iter()
        .filter(|found| *found != finalizer)
        .cloned()
        .collect();
    finalize::<K>(sim, actor, object, &rest, Next::Never)
}

fn publish<K: Kind>(
    sim: &mut Sim,
    actor: &Actor,
    object: &K::Object,
    outcome: &Outcome<K>,
) -> Result<Next, Crash> {
    let report = report::<K>(object, outcome, sim.store.now());
    if object.status() != Some(&report.status) {
        match write_status::<K>(sim, actor, object, &report.status)? {
            Ok(()) => {
                for note in &report.events {
                    sim.told(actor, &note.message);
                }
            }
            Err(problem) if problem.class == Class::Conflict => {
                return Ok(Next::After(Duration::from_millis(300)));
            }
            Err(problem) => return Ok(Next::Problem(problem.class)),
        }
    }
    Ok(outcome.next())
}

fn write_status<K: Kind>(
    sim: &mut Sim,
    actor: &Actor,
    object: &K::Object,
    status: &<K::Object as Reported>::Status,
) -> Attempt<(), Problem> {
    let (key, version) = (
        key::<K>(object),
        object.resource_version().unwrap_or_default(),
    );
    let body = serde_json::to_value(status).unwrap_or_default();
    let before = sim.store.get(&key).cloned();
    let done = sim.request(actor, &key, |store| {
        store.replace_status(&key, &version, body).map(|_| ())
    })?;
    let line = describe(
        object
            .status()
            .map(<K::Object as Reported>::conditions)
            .unwrap_or_default(),
        <K::Object as Reported>::conditions(status),
    );
    match &done {
        Ok(()) => sim.say(format!("{actor}: status {line}")),
        Err(problem) => sim.say(format!("{actor}: status not written: {}", problem.message)),
    }
    sim.status_written(actor, before.as_ref(), &key);
    Ok(match done {
        Err(problem) if problem.reason == fairlead_crds::condition::Reason::NotFound => Ok(()),
        done => done,
    })
}

/// The conditions that changed.
fn describe(old: &[Condition], new: &[Condition]) -> String {
    let changed = new.iter().filter(|new| {
        let old = old.iter().find(|old| old.type_ == new.type_);
        old.is_none_or(|old| {
            (old.status, &old.reason, &old.message) != (new.status, &new.reason, &new.message)
        })
    });
    let shown: Vec<String> = changed
        .filter(|new| {
            new.reason != "NotYetReported" && !(new.type_ == "Stalled" && new.reason == "Ok")
        })
        .map(|new| {
            let message = if new.message.is_empty() {
                String::new()
            } else {
                format!(" ({})", new.message)
            };
            format!(
                "{}={} {}{message}",
                new.type_,
                new.status.as_str(),
                new.reason
            )
        })
        .collect();
    if shown.is_empty() {
        "fields only".to_owned()
    } else {
        shown.join(", ")
    }
}
