//! The part of a report that is the same for every kind: it is made on every pass, above all the failed ones.

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::{ConditionStatus, Reported};
use jiff::Timestamp;
use kube::Resource;

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

/// How a status differs from the one that was published last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    None,
    /// In messages and progress only, which may be told a little later.
    Words,
    /// In something that others act on.
    Facts,
}

/// Compares a status with the one that was published last, if any was.
pub fn difference<O: Reported>(published: Option<&O::Status>, wanted: &O::Status) -> Difference {
    let Some(published) = published else {
        return Difference::Facts;
    };
    let facts = |status: &O::Status| {
        let mut facts = status.clone();
        let mut conditions = O::conditions(status).to_vec();
        for condition in &mut conditions {
            condition.message.clear();
        }
        O::stamp(&mut facts, O::observed_generation(status), conditions);
        O::forget_progress(&mut facts);
        facts
    };
    if published == wanted {
        Difference::None
    } else if facts(published) == facts(wanted) {
        Difference::Words
    } else {
        Difference::Facts
    }
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

/// Adds what was written to the event of its reason, so that a pass sends one for each reason.
fn add(notes: &mut Vec<Note>, reason: &str, message: &str) {
    match notes.iter_mut().find(|note| note.reason == reason) {
        Some(note) => {
            note.message.push_str("; ");
            note.message.push_str(message);
        }
        None => notes.push(Note {
            warning: false,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }),
    }
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
        for change in written.filter(|change| !change.note.is_empty()) {
            add(&mut notes, change.reason, &change.note);
        }
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

#[cfg(test)]
mod tests {
    use fairlead_crds::Condition;
    use fairlead_crds::platform::{Release, ReleaseStatus, ResolvedResource};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn status(reason: &str, message: &str, progress: &str) -> ReleaseStatus {
        ReleaseStatus {
            observed_generation: 1,
            progress: Some(progress.to_owned()),
            conditions: vec![Condition {
                type_: "Ready".to_owned(),
                status: ConditionStatus::False,
                observed_generation: 1,
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
                reason: reason.to_owned(),
                message: message.to_owned(),
            }],
            ..ReleaseStatus::default()
        }
    }

    #[test]
    fn only_messages_and_progress_are_words() {
        let old = status("Progressing", "a is being made", "0/3");
        let differs = |new: &ReleaseStatus| difference::<Release>(Some(&old), new);
        assert_eq!(differs(&old), Difference::None);
        assert_eq!(
            differs(&status("Progressing", "b is being made", "1/3")),
            Difference::Words
        );
        assert_eq!(
            differs(&status("Degraded", "a is being made", "0/3")),
            Difference::Facts
        );
        let recorded = ReleaseStatus {
            resources: vec![ResolvedResource::default()],
            ..old.clone()
        };
        assert_eq!(differs(&recorded), Difference::Facts);
        assert_eq!(difference::<Release>(None, &old), Difference::Facts);
    }

    #[test]
    fn a_pass_sends_one_event_for_each_reason() {
        let mut notes = Vec::new();
        add(&mut notes, "Provision", "makes a");
        add(&mut notes, "Provision", "makes b");
        add(&mut notes, "Prune", "deletes c");
        assert_eq!(notes.len(), 2);
        assert_eq!(notes[0].message, "makes a; makes b");
    }
}
