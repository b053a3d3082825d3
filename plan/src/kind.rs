//! The shape of a kind: what its folder provides, and what the harness makes of it.

use std::fmt::Debug;
use std::time::Duration;

use fairlead_crds::Reported;
use fairlead_crds::condition::ConditionType;
use jiff::Timestamp;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::{Change, Plan};
use crate::conditions::Conditions;
use crate::live::{Live, ObjectKey, Read};
use crate::problem::{Class, Invalid, Problem};

/// A kind of object that a kind's passes write: watches, rights and pruning derive from this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Child {
    /// The API group; empty for the core one.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The resource's plural name.
    pub plural: &'static str,
}

impl Child {
    /// Such as `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// What a pass may know beside what it read.
#[derive(Clone, Debug)]
pub struct Context {
    /// The time of the pass.
    pub now: Timestamp,
    /// Fresh random bytes, from which generated values are made.
    pub entropy: [u8; 32],
    /// The operator itself.
    pub operator: Operator,
}

/// What the operator knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// The namespace that it runs in.
    pub namespace: String,
    /// The image that it runs.
    pub image: String,
    /// The pull policy of that image.
    pub image_pull_policy: String,
    /// The names of the Secrets by which that image is pulled.
    pub image_pull_secrets: Vec<String>,
    /// The image of the mesh's proxies.
    pub proxy_image: String,
    /// Its version.
    pub version: String,
    /// The certificates, in PEM, that the webhook's clients trust; none until they are made.
    pub ca_bundle: Option<String>,
}

/// The pure half of a kind. Nothing here awaits, reads a clock or fails late.
pub trait Kind: Sized + Send + Sync + 'static {
    /// The API type.
    type Object: Reported
        + Resource<DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync;
    /// The spec, checked: cannot hold an illegal value.
    type Valid: Send + Sync;
    /// What was read from the cache.
    type Seen: Send + Sync;

    /// Which kind.
    const NAME: KindName;
    /// The kinds of objects that passes write.
    const CHILDREN: &'static [Child] = &[];
    /// The conditions beside Ready, Accepted and Stalled.
    const CONDITIONS: &'static [ConditionType] = &[];
    /// The finalizer, for kinds that clean up where garbage collection cannot.
    const FINALIZER: Option<&'static str> = None;

    /// The kind's table.
    fn table(cache: &Cache) -> &Table<Self::Object>;

    /// Checks the spec alone.
    ///
    /// # Errors
    /// Every broken rule.
    fn validate(object: &Self::Object) -> Result<Self::Valid, Vec<Invalid>>;

    /// Reads what the pass needs from the cache.
    fn observe(object: &Self::Object, valid: &Self::Valid, cache: &Cache) -> Self::Seen;

    /// Further reads from the API server; asked again with the answers until it returns no new one.
    fn reads(
        _object: &Self::Object,
        _valid: &Self::Valid,
        _seen: &Self::Seen,
        _live: &Live,
    ) -> Vec<Read> {
        Vec::new()
    }

    /// Decides and builds: everything that the pass wants done.
    fn plan(
        object: &Self::Object,
        valid: &Self::Valid,
        seen: &Self::Seen,
        live: &Live,
        context: &Context,
    ) -> Plan;

    /// Reports: the kind's own status fields and conditions. `planned` is `None` when the pass ended before its plan; then
    /// fields keep what `previous` says.
    fn report(
        object: &Self::Object,
        previous: <Self::Object as Reported>::Status,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> <Self::Object as Reported>::Status;

    /// What must go before the finalizer may. Never validates.
    fn teardown(_object: &Self::Object, _cache: &Cache) -> Teardown {
        Teardown::default()
    }

    /// Reads past the cache that are made before the finalizer goes.
    fn last_look(_object: &Self::Object) -> Vec<Read> {
        Vec::new()
    }

    /// What the last look found and the cache does not show yet: the finalizer stays until it does.
    fn unseen(_object: &Self::Object, _cache: &Cache, _live: &Live) -> Option<String> {
        None
    }

    /// The objects of this kind that must be looked at because of an event, beside the object of the event itself.
    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId>;
}

/// One step of taking an object down.
#[derive(Clone, Debug, Default)]
pub struct Teardown {
    /// The writes of this step.
    pub changes: Vec<Change>,
    /// What is waited for; `None` when the finalizer may go.
    pub waiting: Option<String>,
}

/// A pass that came as far as its plan.
pub struct Planned<K: Kind> {
    /// The checked spec.
    pub valid: K::Valid,
    /// What was read from the cache.
    pub seen: K::Seen,
    /// What was read from the API server.
    pub live: Live,
    /// What was wanted.
    pub plan: Plan,
    /// The objects that a write really changed.
    pub written: Vec<ObjectKey>,
    /// The write that failed; those after it were not tried.
    pub failed: Option<Problem>,
}

/// How a pass ended.
pub enum Outcome<K: Kind> {
    /// The annotation asks to leave the object alone.
    Paused,
    /// The spec breaks rules.
    Invalid(Vec<Invalid>),
    /// A read failed.
    Unread(Problem),
    /// The plan was made, and applied as far as it says.
    Planned(Box<Planned<K>>),
}

impl<K: Kind> Outcome<K> {
    /// The problem that decides about the requeue, if any.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Paused | Self::Invalid(_) => None,
            Self::Unread(problem) => Some(problem),
            Self::Planned(planned) => planned.failed.as_ref().or(planned.plan.problem.as_ref()),
        }
    }

    /// When the plan wants to be looked at again.
    #[must_use]
    pub fn wake(&self) -> Option<Duration> {
        match self {
            Self::Planned(planned) => planned.plan.wake,
            _ => None,
        }
    }

    /// When to look at the object again.
    #[must_use]
    pub fn next(&self) -> Next {
        match (self.problem(), self.wake()) {
            _ if matches!(self, Self::Invalid(_)) => Next::Problem(Class::Invalid),
            // What is waited for may be nothing that is watched.
            (Some(problem), Some(wake)) if problem.class == Class::Waiting => Next::After(wake),
            (Some(problem), _) => Next::Problem(problem.class),
            (None, Some(wake)) => Next::After(wake),
            (None, None) => Next::Resync,
        }
    }
}

/// When to look at an object again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is gone.
    Never,
    /// After this pause.
    After(Duration),
    /// After the pause that the class of the problem asks for.
    Problem(Class),
    /// At the hourly visit.
    Resync,
}
