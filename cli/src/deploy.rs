//! `deploy` and `rollback`: both make a new Release, and neither changes anything else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fairlead_crds::platform::{
    DeletionPolicy, Environment, Release, ReleaseSpec, ReleaseWorkload, ResourcePin,
};
use fairlead_plan::platform::{release_object, releases, score};
use fairlead_plan::view;
use kube::api::PostParams;
use kube::{Api, Error, ResourceExt};

use crate::cluster::{Cluster, Target};
use crate::output::{self, Format};
use crate::{Ended, Misuse};

/// How often a name is tried again when somebody else took it.
const TRIES: usize = 5;
/// How long between looks at a release that is waited for.
const PAUSE: Duration = Duration::from_millis(500);

/// What to deploy.
pub(crate) struct Request {
    /// The environment.
    pub(crate) environment: String,
    /// The workloads that change; all where empty.
    pub(crate) workloads: Vec<String>,
    /// Consent to the deletion of data.
    pub(crate) delete_data: bool,
    /// How long to wait, in seconds.
    pub(crate) wait: Option<u64>,
}

/// Releases the workloads as they are described.
pub(crate) async fn deploy(
    target: &Target,
    format: Format,
    request: Request,
) -> anyhow::Result<Ended> {
    let mut cluster = target.connect().await?;
    let environment = cluster.environment(&request.environment)?;
    let workloads = workloads(&cluster, &environment, &request.workloads)?;
    let running = releases::active(&cluster.cache, &environment);
    let content = releases::content(&workloads);
    if let Some(running) = running.as_ref().filter(|running| {
        releases::content_of(running) == content && environment.spec.release.is_none()
    }) {
        eprintln!(
            "{} runs this already, as {}; nothing to deploy",
            request.environment,
            running.name_any()
        );
        return finish(
            &mut cluster,
            format,
            &environment,
            running.name_any(),
            request.wait,
        )
        .await;
    }
    let consents =
        request.delete_data || environment.spec.deletion_policy == DeletionPolicy::Delete;
    let spec = ReleaseSpec {
        environment: request.environment.clone(),
        workloads,
        pins: Vec::new(),
        deletion_policy: if consents {
            DeletionPolicy::Delete
        } else {
            DeletionPolicy::Retain
        },
        rollback_of: None,
    };
    let name = create(&cluster, &environment, "Deploy", &spec).await?;
    eprintln!(
        "made the release {name} of {} workloads",
        spec.workloads.len()
    );
    finish(&mut cluster, format, &environment, name, request.wait).await
}

/// The described workloads; with a choice, the running release with the chosen ones replaced.
fn workloads(
    cluster: &Cluster,
    environment: &Environment,
    chosen: &[String],
) -> anyhow::Result<Vec<ReleaseWorkload>> {
    let described = cluster.cache.workloads.in_namespace(&cluster.application);
    if described.is_empty() {
        bail!(
            "the application {} has no workloads; kubectl fairlead score import makes them (choose the application with -n)",
            cluster.application
        );
    }
    let mut wanted: Vec<ReleaseWorkload> = described
        .iter()
        .map(|workload| ReleaseWorkload {
            name: workload.name_any(),
            spec: workload.spec.score.clone(),
        })
        .collect();
    if !chosen.is_empty() {
        for name in chosen {
            if !wanted.iter().any(|workload| workload.name == *name) {
                let known: Vec<&str> = wanted
                    .iter()
                    .map(|workload| workload.name.as_str())
                    .collect();
                bail!(Misuse(format!(
                    "there is no workload {name}; there are {}",
                    known.join(", ")
                )));
            }
        }
        wanted.retain(|workload| chosen.contains(&workload.name));
        let running = releases::active(&cluster.cache, environment);
        let others = running
            .iter()
            .flat_map(|running| &running.spec.workloads)
            .filter(|workload| !chosen.contains(&workload.name));
        wanted.extend(others.cloned());
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
    }
    for workload in &wanted {
        if let Err(list) = score::validate(&workload.name, &workload.spec) {
            bail!(Misuse(format!(
                "workload {}: {}",
                workload.name,
                fairlead_plan::problem::join_invalid(&list)
            )));
        }
    }
    Ok(wanted)
}

/// Releases again what ran before.
pub(crate) async fn rollback(
    target: &Target,
    format: Format,
    name: &str,
    to: Option<String>,
    wait: Option<u64>,
) -> anyhow::Result<Ended> {
    let mut cluster = target.connect().await?;
    let environment = cluster.environment(name)?;
    let old = chosen(&cluster, &environment, to)?;
    let pin = |resource: &fairlead_crds::platform::ResolvedResource| ResourcePin {
        type_: resource.type_.clone(),
        class: resource.class.clone(),
        id: resource.id.clone(),
        revision: resource.revision.clone(),
    };
    let resolved = old
        .status
        .iter()
        .flat_map(|status| &status.resources)
        .filter(|resource| !resource.revision.is_empty());
    let spec = ReleaseSpec {
        environment: name.to_owned(),
        workloads: old.spec.workloads.clone(),
        pins: resolved.map(pin).collect(),
        deletion_policy: DeletionPolicy::Retain,
        rollback_of: Some(old.name_any()),
    };
    let made = create(&cluster, &environment, "Rollback", &spec).await?;
    eprintln!("made the release {made}, which repeats {}", old.name_any());
    finish(&mut cluster, format, &environment, made, wait).await
}

fn chosen(
    cluster: &Cluster,
    environment: &Environment,
    to: Option<String>,
) -> anyhow::Result<Arc<Release>> {
    let name = environment.name_any();
    let all = releases::of_environment(&cluster.cache, &cluster.application, &name);
    let names = || {
        all.iter()
            .map(|release| release.name_any())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match to {
        Some(to) => all
            .iter()
            .find(|release| release.name_any() == to)
            .cloned()
            .with_context(|| format!("there is no release {to} of {name}; there are {}", names())),
        None => {
            let running = releases::active(&cluster.cache, environment)
                .with_context(|| format!("{name} runs nothing that could be rolled back"))?;
            // A rollback of a rollback goes further back: what the running release repeats is skipped as well.
            let content = releases::content_of(&running);
            let before = all
                .iter()
                .rev()
                .skip_while(|release| release.uid() != running.uid())
                .find(|release| releases::content_of(release) != content);
            before.cloned().with_context(|| {
                format!(
                    "{name} has no other release to go back to; there are {}",
                    names()
                )
            })
        }
    }
}

/// Creates the release under the next free name.
async fn create(
    cluster: &Cluster,
    environment: &Environment,
    origin: &str,
    spec: &ReleaseSpec,
) -> anyhow::Result<String> {
    if let Some(pinned) = &environment.spec.release {
        eprintln!(
            "note: spec.release of the environment names {pinned}, so a new release does not run until that is changed"
        );
    }
    let api: Api<Release> = Api::namespaced(cluster.client.clone(), &cluster.application);
    let mut existing = cluster.cache.releases.in_namespace(&cluster.application);
    let content = releases::content(&spec.workloads);
    for _ in 0..TRIES {
        let name = releases::next_name(existing.iter().map(Arc::as_ref), &environment.name_any());
        let object: Release =
            serde_json::from_value(release_object(environment, &name, &content, origin, spec))?;
        match api.create(&PostParams::default(), &object).await {
            Ok(made) => return Ok(made.name_any()),
            Err(Error::Api(status)) if status.reason == "AlreadyExists" => {
                existing.push(Arc::new(object))
            }
            Err(Error::Api(status)) => {
                bail!("the API server refused the release: {}", status.message)
            }
            Err(error) => return Err(error).context("failed to make the release"),
        }
    }
    bail!("others make releases at the same time; try again")
}

/// Waits where asked to, and answers.
async fn finish(
    cluster: &mut Cluster,
    format: Format,
    environment: &Environment,
    release: String,
    wait: Option<u64>,
) -> anyhow::Result<Ended> {
    let Some(seconds) = wait else {
        output::print(format, &serde_json::json!({"release": release}))?;
        return Ok(Ended::Done);
    };
    if let Some(pinned) = environment
        .spec
        .release
        .as_ref()
        .filter(|pinned| **pinned != release)
    {
        eprintln!("{release} does not run while spec.release names {pinned}; not waiting for it");
        return Ok(Ended::NotReady);
    }
    let started = Instant::now();
    let mut told = String::new();
    loop {
        let over = started.elapsed() > Duration::from_secs(seconds);
        match cluster.read().await {
            Ok(()) => {}
            // An API server that restarts does not end the wait.
            Err(error) if !over => {
                tell(&mut told, format!("{error:#}; it is tried again"));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        }
        let found = cluster
            .cache
            .releases
            .get(&cluster.application, &release)
            .with_context(|| format!("the release {release} is gone"))?;
        let state = view::state(found.as_ref());
        if state.ready == "True" && runs(cluster, environment, &release) {
            if !output::print(
                format,
                &serde_json::json!({"release": release, "ready": true}),
            )? {
                say!("{release} is ready in {}", environment.name_any());
            }
            return Ok(Ended::Done);
        }
        let progress = found
            .status
            .as_ref()
            .and_then(|status| status.progress.clone())
            .unwrap_or_default();
        if over {
            eprintln!(
                "{release} is not ready after {seconds} s: {}",
                output::plain(&state.message)
            );
            output::print(
                format,
                &serde_json::json!({"release": release, "ready": false}),
            )?;
            return Ok(Ended::NotReady);
        }
        let line = format!("{progress} {}", state.message).trim().to_owned();
        tell(&mut told, line);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says how it goes, unless that was said last.
fn tell(told: &mut String, line: String) {
    if line != *told {
        eprintln!("{}", output::plain(&line));
        *told = line;
    }
}

/// True when the environment says that it runs the release and is ready, as `status` will say next.
fn runs(cluster: &Cluster, environment: &Environment, release: &str) -> bool {
    let found = cluster
        .cache
        .environments
        .get(&cluster.application, &environment.name_any());
    found.is_some_and(|found| {
        let status = found.status.as_ref();
        let running = status.and_then(|status| status.release.as_deref());
        running == Some(release) && view::state(found.as_ref()).ready == "True"
    })
}
