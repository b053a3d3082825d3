//! The part of a report that is the same for every kind: it is made on every pass, above all the failed ones.

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::{ConditionStatus, Reported};
use jiff::Timestamp;
use kube::Resource;

use crate::change::Verb;
use crate::conditions::{self, Conditions};
use crate::kind::{Kind, Outcome};
use crate::problem::{Class, Problem, join_invalid};

/// What a pass tells.
pub struct Report<S> {
    /// The status to write.
    pub status: S,
    /// The events to send.
    pub events: Vec<Note>,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// True for what somebody should look at.
    pub warning: bool,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// Makes the report of a pass.
pub fn report<K: Kind>(
    object: &K::Object,
    outcome: &Outcome<K>,
    now: Timestamp,
) -> Report<<K::Object as Reported>::Status> {
    let previous = object.status().cloned().unwrap_or_default();
    let generation = object.meta().generation.unwrap_or_default();
    let old = <K::Object as Reported>::conditions(&previous).to_vec();
    let mut built = Conditions::new(K::CONDITIONS);
    let mut observed = generation;
    let planned = match outcome {
        Outcome::Paused => {
            built.set(
                ConditionType::Ready,
                ConditionStatus::Unknown,
                Reason::Paused,
                "paused by the annotation fairlead.dev/paused",
            );
            observed = <K::Object as Reported>::observed_generation(&previous);
            None
        }
        Outcome::Invalid(list) => {
            let message = join_invalid(list);
            built.no(ConditionType::Accepted, Reason::Invalid, message.clone());
            built.fail(&Problem::invalid(Reason::Invalid, message));
            None
        }
        Outcome::Unread(problem) => {
            built.yes(ConditionType::Accepted, Reason::Valid, "");
            built.fail(problem);
            observed = <K::Object as Reported>::observed_generation(&previous);
            None
        }
        Outcome::Planned(planned) => {
            built.yes(ConditionType::Accepted, Reason::Valid, "");
            if let Some(problem) = planned.failed.as_ref().or(planned.plan.problem.as_ref()) {
                built.fail(problem);
                if problem.class == Class::Transient || problem.class == Class::Conflict {
                    observed = <K::Object as Reported>::observed_generation(&previous);
                }
            }
            Some(planned.as_ref())
        }
    };
    let mut status = K::report(object, previous, planned, &mut built);
    let finished = built.finish(&old, generation, now);
    let events = events::<K>(&old, &finished, outcome);
    <K::Object as Reported>::stamp(&mut status, observed, finished);
    Report { status, events }
}

fn events<K: Kind>(
    old: &[fairlead_crds::Condition],
    new: &[fairlead_crds::Condition],
    outcome: &Outcome<K>,
) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Outcome::Planned(planned) = outcome {
        let written = planned
            .plan
            .changes
            .iter()
            .filter(|change| planned.written.contains(&change.key));
        notes.extend(
            written
                .filter(|change| !matches!(&change.verb, Verb::Apply(_)) || !change.note.is_empty())
                .map(|change| Note {
                    warning: false,
                    reason: change.reason.to_owned(),
                    message: change.note.clone(),
                }),
        );
    }
    let Some(ready) = conditions::find(new, ConditionType::Ready) else {
        return notes;
    };
    let before = conditions::find(old, ConditionType::Ready);
    let same =
        before.is_some_and(|before| before.status == ready.status && before.reason == ready.reason);
    let quiet = [
        Reason::NotYetReported,
        Reason::WaitingForDependencies,
        Reason::Progressing,
    ];
    if !same && !quiet.iter().any(|reason| reason.as_str() == ready.reason) {
        let is_ready = ready.status == ConditionStatus::True;
        notes.push(Note {
            warning: !is_ready
                && ready.reason != Reason::Paused.as_str()
                && ready.reason != Reason::Superseded.as_str(),
            reason: if is_ready {
                "Ready".to_owned()
            } else {
                ready.reason.clone()
            },
            message: if is_ready && ready.message.is_empty() {
                "ready".to_owned()
            } else {
                ready.message.clone()
            },
        });
    }
    notes
}
