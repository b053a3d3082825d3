//! What can be wrong, and what each kind of wrong means for retrying, metrics and conditions.

use fairlead_crds::condition::Reason;

/// One broken rule of a spec: the field, and a sentence with what was found and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// The field's path, such as `spec.containers.main.before`.
    pub field: String,
    /// What was found and what is allowed.
    pub message: String,
}

impl Invalid {
    /// A broken rule at a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// All broken rules in one sentence, bounded.
#[must_use]
pub fn join_invalid(list: &[Invalid]) -> String {
    let shown: Vec<String> = list.iter().take(8).map(ToString::to_string).collect();
    let more = list.len().saturating_sub(8);
    let text = shown.join("; ");
    if more > 0 {
        format!("{text}; and {more} more")
    } else {
        text
    }
}

/// What a failure means. The class alone decides the requeue and the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The object must be changed by its author; looked at again hourly.
    Invalid,
    /// Something else must happen first; a watch tells when.
    Waiting,
    /// Somebody wrote in between; tried again after a second.
    Conflict,
    /// A right is missing; tried again with growing pauses, as nobody tells when it is granted.
    Denied,
    /// It may work the next time; tried again with growing pauses.
    Transient,
    /// It should not happen; tried again every five minutes.
    Bug,
}

impl Class {
    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Waiting => "waiting",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Transient => "transient",
            Self::Bug => "bug",
        }
    }

    /// True where nothing changes until somebody acts.
    #[must_use]
    pub fn is_stalled(self) -> bool {
        matches!(self, Self::Invalid | Self::Denied | Self::Bug)
    }
}

/// What exists, for a message about something that does not: `there are a, b`.
pub fn known<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [] => "there are none".to_owned(),
        [only] => format!("there is {only}"),
        names => format!("there are {}", names.join(", ")),
    }
}

/// Why an object is not ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What it means.
    pub class: Class,
    /// The word for programs.
    pub reason: Reason,
    /// The sentence for people: stable, without times, versions or ids.
    pub message: String,
}

impl Problem {
    /// Something else must happen first.
    pub fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            class: Class::Waiting,
            reason,
            message: message.into(),
        }
    }

    /// The object, or something that it refers to, must be changed.
    pub fn invalid(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            class: Class::Invalid,
            reason,
            message: message.into(),
        }
    }
}
