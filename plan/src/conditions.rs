//! Builds the conditions of a status: each with reason, generation and stable message, its transition time carried over.

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::{Condition, ConditionStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::problem::Problem;

/// The longest message of a condition, in characters.
pub const MESSAGE_MAX: usize = 1024;

/// The conditions of one report.
pub struct Conditions {
    wanted: Vec<(ConditionType, ConditionStatus, Reason, String)>,
    problem: Option<Problem>,
}

impl Conditions {
    /// Conditions that all are yet unknown: Ready, Accepted, Stalled and those of the kind.
    #[must_use]
    pub fn new(own: &[ConditionType]) -> Self {
        let mut wanted = Vec::with_capacity(own.len() + 3);
        for type_ in [ConditionType::Ready, ConditionType::Accepted]
            .iter()
            .chain(own)
        {
            wanted.push((
                *type_,
                ConditionStatus::Unknown,
                Reason::NotYetReported,
                String::new(),
            ));
        }
        wanted.push((
            ConditionType::Stalled,
            ConditionStatus::False,
            Reason::Ok,
            String::new(),
        ));
        Self {
            wanted,
            problem: None,
        }
    }

    /// Sets one condition.
    pub fn set(
        &mut self,
        type_: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<String>,
    ) {
        let row = (type_, status, reason, bounded(message.into()));
        match self.wanted.iter_mut().find(|(have, ..)| *have == type_) {
            Some(have) => *have = row,
            None => self.wanted.push(row),
        }
    }

    /// Sets a condition that holds.
    pub fn yes(&mut self, type_: ConditionType, reason: Reason, message: impl Into<String>) {
        self.set(type_, ConditionStatus::True, reason, message);
    }

    /// Sets a condition that does not hold.
    pub fn no(&mut self, type_: ConditionType, reason: Reason, message: impl Into<String>) {
        self.set(type_, ConditionStatus::False, reason, message);
    }

    /// Sets Ready to false, and Stalled where nothing changes until somebody acts. The first problem of a pass stays.
    pub fn fail(&mut self, problem: &Problem) {
        if self.problem.is_some() {
            return;
        }
        self.no(
            ConditionType::Ready,
            problem.reason,
            problem.message.clone(),
        );
        if problem.class.is_stalled() {
            self.yes(
                ConditionType::Stalled,
                problem.reason,
                problem.message.clone(),
            );
        }
        self.problem = Some(problem.clone());
    }

    /// Sets Ready to true unless a problem was set.
    pub fn ready(&mut self, message: impl Into<String>) {
        if self.problem.is_none() {
            self.yes(ConditionType::Ready, Reason::Ok, message);
        }
    }

    /// The problem that Ready tells of.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// The conditions to write: transition times carried over from `previous` where the status is the same.
    #[must_use]
    pub fn finish(self, previous: &[Condition], generation: i64, now: Timestamp) -> Vec<Condition> {
        let build =
            |(type_, status, reason, message): (ConditionType, ConditionStatus, Reason, String)| {
                let old = previous
                    .iter()
                    .find(|old| old.type_ == type_.as_str() && old.status == status);
                Condition {
                    type_: type_.as_str().to_owned(),
                    status,
                    observed_generation: generation,
                    last_transition_time: old
                        .map_or(Time(now), |old| old.last_transition_time.clone()),
                    reason: reason.as_str().to_owned(),
                    message,
                }
            };
        self.wanted.into_iter().map(build).collect()
    }
}

/// The condition of a type within a list.
#[must_use]
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
}

/// True when a condition holds for this generation.
#[must_use]
pub fn holds(conditions: &[Condition], type_: ConditionType, generation: i64) -> bool {
    find(conditions, type_).is_some_and(|found| {
        found.status == ConditionStatus::True && found.observed_generation == generation
    })
}

/// The problem that a condition of something else tells of.
#[must_use]
pub fn problem_of(found: &Condition) -> Problem {
    let reason = Reason::of(&found.reason).unwrap_or(Reason::Progressing);
    Problem::waiting(reason, found.message.clone())
}

/// A message cut to [`MESSAGE_MAX`] characters.
#[must_use]
pub fn bounded(message: String) -> String {
    if message.chars().count() <= MESSAGE_MAX {
        return message;
    }
    let mut cut: String = message.chars().take(MESSAGE_MAX - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_again_by_its_text() {
        for (reason, _) in Reason::ALL {
            assert_eq!(Reason::of(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::of("NoSuchReason"), None);
    }
}
