//! One pass over one object, the same for every kind:
//! validate → observe → read → plan → apply → report → publish. The last two run whatever failed.

mod apply;
mod errors;
mod publish;
mod read;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::labels;
pub(crate) use fairlead_plan::Next;
use fairlead_plan::kind::{Context, Kind};
use fairlead_plan::registry::{self, Visitor};
use fairlead_plan::{Cache, Event, KindName, ObjectId, Outcome, Planned};
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use tracing::Instrument;

pub(crate) use errors::problem_of;
pub(crate) use publish::send;

use crate::world::World;

/// The most rounds of reads of one pass.
const ROUNDS: usize = 5;

/// A kind, without its type.
pub(crate) trait AnyKind: Send + Sync {
    /// Which kind.
    fn name(&self) -> KindName;
    /// All objects of the kind.
    fn ids(&self, cache: &Cache) -> Vec<ObjectId>;
    /// How many there are.
    fn count(&self, cache: &Cache) -> usize;
    /// The objects to look at because of an event.
    fn triggers(&self, event: &Event, cache: &Cache) -> Vec<ObjectId>;
    /// One pass.
    fn pass<'a>(&self, world: &'a Arc<World>, id: &'a ObjectId) -> BoxFuture<'a, Next>;
}

/// All kinds.
pub(crate) fn kinds() -> Vec<Box<dyn AnyKind>> {
    struct Collect(Vec<Box<dyn AnyKind>>);
    impl Visitor for Collect {
        fn visit<K: Kind>(&mut self) {
            self.0.push(Box::new(Typed::<K>(PhantomData)));
        }
    }
    let mut all = Collect(Vec::new());
    registry::visit(&mut all);
    all.0
}

struct Typed<K>(PhantomData<K>);

impl<K: Kind> AnyKind for Typed<K> {
    fn name(&self) -> KindName {
        K::NAME
    }

    fn ids(&self, cache: &Cache) -> Vec<ObjectId> {
        K::table(cache).ids()
    }

    fn count(&self, cache: &Cache) -> usize {
        K::table(cache).len()
    }

    fn triggers(&self, event: &Event, cache: &Cache) -> Vec<ObjectId> {
        K::triggers(event, cache)
    }

    fn pass<'a>(&self, world: &'a Arc<World>, id: &'a ObjectId) -> BoxFuture<'a, Next> {
        let trace = format!("{:016x}", rand::random::<u64>());
        let span = tracing::info_span!("pass", kind = K::NAME.as_str(), object = %id, trace);
        Box::pin(pass::<K>(world, id).instrument(span))
    }
}

async fn pass<K: Kind>(world: &Arc<World>, id: &ObjectId) -> Next {
    let Some(object) = K::table(&world.cache).by_id(id) else {
        world.let_out(&publish::key::<K>(id));
        return Next::Never;
    };
    if object.meta().deletion_timestamp.is_some() {
        return teardown::<K>(world, &object).await;
    }
    if let Some(finalizer) = K::FINALIZER
        && !object.finalizers().iter().any(|found| found == finalizer)
    {
        // The watch brings the object back with its finalizer.
        return match publish::add_finalizer::<K>(world, &object, finalizer).await {
            Ok(()) => Next::Resync,
            Err(problem) => Next::Problem(problem.class),
        };
    }
    let outcome = run::<K>(world, &object).await;
    publish::publish::<K>(world, &object, &outcome).await
}

async fn run<K: Kind>(world: &Arc<World>, object: &K::Object) -> Outcome<K> {
    if object
        .annotations()
        .get(labels::PAUSED)
        .is_some_and(|value| value == "true")
    {
        return Outcome::Paused;
    }
    let valid = match K::validate(object) {
        Ok(valid) => valid,
        Err(list) => return Outcome::Invalid(list),
    };
    let seen = K::observe(object, &valid, &world.cache);
    let mut live = fairlead_plan::Live::default();
    for _ in 0..ROUNDS {
        let wanted: Vec<_> = K::reads(object, &valid, &seen, &live)
            .into_iter()
            .filter(|read| !live.has(read))
            .collect();
        if wanted.is_empty() {
            break;
        }
        for read in wanted {
            match read::read(world, &read).await {
                Ok(answer) => live.put(read, answer),
                Err(problem) => return Outcome::Unread(problem),
            }
        }
    }
    let context = Context {
        now: Timestamp::now(),
        entropy: rand::random(),
        operator: world.operator.load().as_ref().clone(),
    };
    let plan = K::plan(object, &valid, &seen, &live, &context);
    let (written, failed) = apply::apply(world, K::NAME, &plan.changes, &live).await;
    Outcome::Planned(Box::new(Planned {
        valid,
        seen,
        live,
        plan,
        written,
        failed,
    }))
}

async fn teardown<K: Kind>(world: &Arc<World>, object: &K::Object) -> Next {
    let Some(finalizer) =
        K::FINALIZER.filter(|finalizer| object.finalizers().iter().any(|found| found == finalizer))
    else {
        return Next::Resync;
    };
    let step = K::teardown(object, &world.cache);
    let (_, failed) = apply::apply(
        world,
        K::NAME,
        &step.changes,
        &fairlead_plan::Live::default(),
    )
    .await;
    if let Some(problem) = failed {
        tracing::warn!(
            class = problem.class.as_str(),
            problem = problem.message,
            "failed to take the object down"
        );
        return Next::Problem(problem.class);
    }
    match step.waiting {
        // The watch of what is waited for wakes; the pause is a net below it.
        Some(waiting) => {
            tracing::debug!(waiting, "taking the object down");
            Next::After(Duration::from_secs(30))
        }
        None => let_go::<K>(world, object, finalizer).await,
    }
}

/// Removes the finalizer, unless a last look past the cache finds more to take down.
async fn let_go<K: Kind>(world: &Arc<World>, object: &K::Object, finalizer: &str) -> Next {
    let mut live = fairlead_plan::Live::default();
    for read in K::last_look(object) {
        match read::read(world, &read).await {
            Ok(answer) => live.put(read, answer),
            Err(problem) => return Next::Problem(problem.class),
        }
    }
    if let Some(unseen) = K::unseen(object, &world.cache, &live) {
        tracing::debug!(unseen, "the object stays for a moment");
        return Next::After(Duration::from_secs(1));
    }
    match publish::remove_finalizer::<K>(world, object, finalizer).await {
        Ok(()) => Next::Never,
        Err(problem) => Next::Problem(problem.class),
    }
}
