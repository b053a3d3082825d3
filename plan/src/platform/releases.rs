//! Which release an environment runs, and the indexes by which releases and instances are found.

use std::sync::Arc;

use fairlead_crds::labels;
use fairlead_crds::platform::{
    Environment, Release, ReleaseWorkload, ResourceInstance, WORKLOAD_TYPE,
};
use kube::ResourceExt;

use crate::cache::Cache;
use crate::names;

/// The namespace that an environment deploys into.
#[must_use]
pub fn target_namespace(environment: &Environment) -> String {
    let application = environment.namespace().unwrap_or_default();
    environment
        .spec
        .namespace
        .clone()
        .unwrap_or_else(|| format!("{application}-{}", environment.name_any()))
}

/// The index term of the releases of an environment.
#[must_use]
pub fn environment_term(application: &str, environment: &str) -> String {
    format!("environment:{application}/{environment}")
}

/// The index term of what uses a revision.
#[must_use]
pub fn revision_term(revision: &str) -> String {
    format!("revision:{revision}")
}

/// The index term of the instances that need an instance.
#[must_use]
pub fn dependency_term(namespace: &str, instance: &str) -> String {
    format!("dependency:{namespace}/{instance}")
}

pub(crate) fn index_release(release: &Release) -> Vec<String> {
    let application = release.namespace().unwrap_or_default();
    let mut terms = vec![environment_term(&application, &release.spec.environment)];
    terms.extend(
        release
            .spec
            .pins
            .iter()
            .map(|pin| revision_term(&pin.revision)),
    );
    let resolved = release.status.iter().flat_map(|status| &status.resources);
    terms.extend(
        resolved
            .filter(|resource| !resource.revision.is_empty())
            .map(|resource| revision_term(&resource.revision)),
    );
    terms.sort_unstable();
    terms.dedup();
    terms
}

/// The revisions that a release names.
pub(crate) fn revisions_of(release: &Release) -> impl Iterator<Item = &str> {
    let pinned = release.spec.pins.iter().map(|pin| pin.revision.as_str());
    let resolved = release
        .status
        .iter()
        .flat_map(|status| &status.resources)
        .map(|resource| resource.revision.as_str());
    pinned.chain(resolved.filter(|revision| !revision.is_empty()))
}

pub(crate) fn index_instance(instance: &ResourceInstance) -> Vec<String> {
    let namespace = instance.namespace().unwrap_or_default();
    let mut terms: Vec<String> = instance
        .spec
        .revision
        .iter()
        .map(|revision| revision_term(revision))
        .collect();
    terms.extend(
        instance
            .spec
            .dependencies
            .iter()
            .map(|dependency| dependency_term(&namespace, &dependency.instance)),
    );
    terms.sort_unstable();
    terms.dedup();
    terms
}

/// The releases of an environment that are not being deleted, oldest first.
///
/// Age is the creation time; those of one second are ordered by the number at the end of their names.
#[must_use]
pub fn of_environment(cache: &Cache, application: &str, environment: &str) -> Vec<Arc<Release>> {
    let mut releases = cache
        .releases
        .with_term(&environment_term(application, environment));
    releases.retain(|release| release.metadata.deletion_timestamp.is_none());
    releases.sort_by(|a, b| {
        let time = |release: &Release| {
            release
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0)
        };
        time(a)
            .cmp(&time(b))
            .then_with(|| names::natural_cmp(&a.name_any(), &b.name_any()))
    });
    releases
}

/// The release that an environment runs: the one that it names, else the newest.
#[must_use]
pub fn active(cache: &Cache, environment: &Environment) -> Option<Arc<Release>> {
    let application = environment.namespace().unwrap_or_default();
    let mut releases = of_environment(cache, &application, &environment.name_any());
    match &environment.spec.release {
        Some(name) => releases
            .into_iter()
            .find(|release| release.name_any() == *name),
        None => releases.pop(),
    }
}

/// The environment with this target namespace and these labels' application and name.
#[must_use]
pub fn environment_of_instance(
    cache: &Cache,
    instance: &ResourceInstance,
) -> Option<Arc<Environment>> {
    cache
        .environments
        .get(&instance.spec.application, &instance.spec.environment)
}

/// The name for the next release of an environment: its name and the next number that no release of the application has, of
/// whatever environment it says it is.
pub fn next_name<'a>(taken: impl IntoIterator<Item = &'a Release>, environment: &str) -> String {
    let numbers = taken.into_iter().filter_map(|release| {
        let name = release.name_any();
        let number = name.strip_prefix(environment)?.strip_prefix('-')?;
        number.parse::<u64>().ok()
    });
    format!("{environment}-{}", numbers.max().unwrap_or(0) + 1)
}

/// The content hash of workloads, which two releases share when they hold the same.
#[must_use]
pub fn content(workloads: &[ReleaseWorkload]) -> String {
    names::content_hash(&workloads, 16)
}

/// The content hash of a release.
#[must_use]
pub fn content_of(release: &Release) -> String {
    release
        .labels()
        .get(labels::CONTENT)
        .cloned()
        .unwrap_or_else(|| content(&release.spec.workloads))
}

/// The name of the instance that stands for a workload.
#[must_use]
pub fn workload_instance(workload: &str) -> String {
    names::instance(
        WORKLOAD_TYPE,
        fairlead_crds::platform::DEFAULT_CLASS,
        workload,
    )
}
