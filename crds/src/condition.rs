//! Conditions: the one way in which a kind tells how it is, in the terms of `metav1.Condition` and kstatus.
//!
//! Every type and every reason is named here, with what it means; the reference page of conditions is
//! generated from these tables.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One observation about an object, in the shape of `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is observed, such as Ready.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub type_: String,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// The metadata.generation that was observed.
    #[serde(default)]
    pub observed_generation: i64,
    /// When the status last changed.
    #[schemars(with = "String", extend("format" = "date-time", "maxLength" = 64))]
    pub last_transition_time: Time,
    /// A word for programs.
    #[schemars(length(min = 1, max = 63))]
    pub reason: String,
    /// A sentence for people.
    #[schemars(length(max = 4096))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It has not been found out.
    Unknown,
}

impl ConditionStatus {
    /// The name as Kubernetes spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Declares an enum of words with a documentation table.
macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($(#[doc = $doc:literal])+ $word:ident,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $doc])+ $word,)+
        }

        impl $name {
            /// Every word with what it means.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$word, concat!($($doc),+)),)+];

            /// The word with this text, if there is one.
            #[must_use]
            pub fn of(text: &str) -> Option<Self> {
                Self::ALL.iter().map(|(word, _)| *word).find(|word| word.as_str() == text)
            }

            /// The word as it is written in a status.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// The types of conditions that Fairlead's kinds carry.
    ConditionType {
        /// The spec is valid; the message of a refusal names the field, what was found and what is allowed.
        Accepted,
        /// Every object that the spec refers to exists and may be used.
        ResolvedRefs,
        /// The object and everything below it does what the spec says, for the observed generation.
        Ready,
        /// Nothing will change until somebody acts; kstatus shows the object as failed.
        Stalled,
        /// The environment runs this release.
        Active,
        /// What the driver creates exists as wanted.
        Provisioned,
        /// The namespace exists and belongs to this environment.
        NamespaceReady,
        /// At least one definition provides this class.
        Provided,
        /// Something still uses this revision, so it is kept.
        InUse,
        /// The admission webhook serves and is registered.
        WebhookReady,
        /// Another policy of the same target, which is older, sets a field that this one sets too.
        Conflicted,
        /// The control plane of the mesh serves, and pods get their proxies.
        MeshReady,
        /// One root signs, and no other is believed or about to be.
        Rotated,
        /// No proxy refused what the policy comes to.
        Programmed,
    }
}

words! {
    /// The reasons that conditions give.
    Reason {
        /// All is as it should be.
        Ok,
        /// The spec is valid.
        Valid,
        /// The spec breaks a rule that the message names.
        Invalid,
        /// Nothing has been observed yet.
        NotYetReported,
        /// The control loop is paused by the annotation fairlead.dev/paused.
        Paused,
        /// A referenced object does not exist.
        NotFound,
        /// No definition serves the request.
        NoMatch,
        /// Two definitions serve the request equally specifically.
        Ambiguous,
        /// Definitions require each other in a circle.
        Cycle,
        /// A parameter does not fit the schema of its class.
        InvalidParameters,
        /// Two requests for one shared resource ask for different parameters.
        ParametersConflict,
        /// A placeholder names something that does not exist.
        UnknownReference,
        /// A secret would end in a place that is not secret.
        SecretExposed,
        /// Something that this depends on is not ready yet.
        WaitingForDependencies,
        /// Something that was created is not ready yet.
        Progressing,
        /// Something that was created failed.
        Degraded,
        /// A newer release replaced this one.
        Superseded,
        /// The environment names another release.
        NotSelected,
        /// Nothing has been released to the environment yet.
        NoRelease,
        /// The namespace belongs to somebody else.
        NamespaceTaken,
        /// The namespace is being deleted.
        Terminating,
        /// The API server refused a write for lack of rights; the message prints the rule to add.
        MissingPermission,
        /// The API server refused an object.
        Rejected,
        /// A proxy refused what it was told.
        Refused,
        /// An object with this name exists and belongs to somebody else.
        Conflict,
        /// The API server did not answer; it is tried again.
        Unavailable,
        /// An expression failed.
        ExpressionFailed,
        /// The definition is gone; the resource keeps its revision.
        DefinitionDeleted,
        /// No environment runs this.
        NotDeployed,
        /// A release or a resource still uses this.
        Used,
        /// Nothing uses this any more.
        Unused,
        /// It is turned off.
        Disabled,
        /// No definition provides this class.
        NoDefinition,
        /// A write failed for a reason that a retry may cure.
        Failed,
        /// Something that should not happen happened; please report it.
        Bug,
    }
}
