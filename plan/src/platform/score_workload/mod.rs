//! ScoreWorkload: tells where it runs and how it is there. Makes nothing: releases do.

use std::sync::Arc;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::platform::{
    Environment, Release, ResourceInstance, ScoreWorkload, ScoreWorkloadStatus, WORKLOAD_TYPE,
    WorkloadEnvironment,
};
use fairlead_crds::{ConditionStatus, Reported};
use kube::ResourceExt;

use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::Plan;
use crate::conditions::{self, Conditions};
use crate::kind::{Context, Kind, Planned};
use crate::live::Live;
use crate::platform::{releases, score};
use crate::problem::{Invalid, Problem};

/// See the module.
pub struct ScoreWorkloadKind;

/// One environment whose running release holds the workload.
pub struct Place {
    environment: Arc<Environment>,
    release: Arc<Release>,
    instance: Option<Arc<ResourceInstance>>,
}

impl Kind for ScoreWorkloadKind {
    type Object = ScoreWorkload;
    type Valid = ();
    type Seen = Vec<Place>;

    const NAME: KindName = KindName::ScoreWorkload;

    fn table(cache: &Cache) -> &Table<ScoreWorkload> {
        &cache.workloads
    }

    fn validate(object: &ScoreWorkload) -> Result<(), Vec<Invalid>> {
        score::validate(&object.name_any(), &object.spec.score)
    }

    fn observe(object: &ScoreWorkload, (): &(), cache: &Cache) -> Vec<Place> {
        let name = object.name_any();
        let instance = releases::workload_instance(&name);
        let place = |environment: Arc<Environment>| {
            let release = releases::active(cache, &environment)?;
            release
                .spec
                .workloads
                .iter()
                .find(|workload| workload.name == name)?;
            let instance = cache
                .instances
                .get(&releases::target_namespace(&environment), &instance);
            Some(Place {
                environment,
                release,
                instance,
            })
        };
        cache
            .environments
            .in_namespace(&object.namespace().unwrap_or_default())
            .into_iter()
            .filter_map(place)
            .collect()
    }

    fn plan(_: &ScoreWorkload, (): &(), _: &Vec<Place>, _: &Live, _: &Context) -> Plan {
        Plan::default()
    }

    fn report(
        object: &ScoreWorkload,
        mut status: ScoreWorkloadStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> ScoreWorkloadStatus {
        let Some(planned) = planned else {
            return status;
        };
        status.environments = planned
            .seen
            .iter()
            .map(|place| describe(object, place))
            .collect();
        if planned.seen.is_empty() {
            let message = "no environment runs it yet; kubectl fairlead deploy releases it";
            conditions.fail(&Problem::waiting(Reason::NotDeployed, message));
        }
        for place in &planned.seen {
            if let Err(problem) = health(place) {
                let message = format!(
                    "environment {}: {}",
                    place.environment.name_any(),
                    problem.message
                );
                conditions.fail(&Problem { message, ..problem });
            }
        }
        conditions.ready("");
        status
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        match event {
            Event::Own(KindName::ResourceInstance, id) => match cache.instances.by_id(id) {
                Some(instance) if instance.spec.type_ == WORKLOAD_TYPE => {
                    vec![ObjectId::new(&instance.spec.application, &instance.spec.id)]
                }
                _ => Vec::new(),
            },
            Event::Own(KindName::Release, id) => match cache.releases.by_id(id) {
                Some(release) => release
                    .spec
                    .workloads
                    .iter()
                    .map(|workload| ObjectId::new(&id.namespace, &workload.name))
                    .collect(),
                None => all_in(cache, &id.namespace),
            },
            Event::Own(KindName::Environment, id) => all_in(cache, &id.namespace),
            _ => Vec::new(),
        }
    }
}

fn all_in(cache: &Cache, namespace: &str) -> Vec<ObjectId> {
    cache
        .workloads
        .in_namespace(namespace)
        .iter()
        .map(|workload| ObjectId::of(&workload.metadata))
        .collect()
}

fn describe(object: &ScoreWorkload, place: &Place) -> WorkloadEnvironment {
    let name = object.name_any();
    let released = place
        .release
        .spec
        .workloads
        .iter()
        .find(|workload| workload.name == name);
    WorkloadEnvironment {
        name: place.environment.name_any(),
        release: place.release.name_any(),
        current: released.is_some_and(|workload| workload.spec == object.spec.score),
        ready: health(place).is_ok(),
    }
}

fn health(place: &Place) -> Result<(), Problem> {
    let Some(instance) = &place.instance else {
        return Err(Problem::waiting(
            Reason::Progressing,
            format!("release {} is being taken up", place.release.name_any()),
        ));
    };
    ready(instance.as_ref())
}

/// Whether an object of ours is ready for its generation, and if not, why.
pub(in crate::platform) fn ready<K>(object: &K) -> Result<(), Problem>
where
    K: Reported + kube::Resource<DynamicType = ()>,
{
    let generation = object.meta().generation.unwrap_or_default();
    let found = object
        .status()
        .and_then(|status| conditions::find(K::conditions(status), ConditionType::Ready));
    match found {
        Some(ready) if ready.observed_generation != generation => Err(Problem::waiting(
            Reason::Progressing,
            "the change has not been seen yet",
        )),
        Some(ready) if ready.status == ConditionStatus::True => Ok(()),
        Some(ready) => Err(conditions::problem_of(ready)),
        None => Err(Problem::waiting(
            Reason::Progressing,
            "it has not been looked at yet",
        )),
    }
}
