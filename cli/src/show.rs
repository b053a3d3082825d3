//! `status`, `explain` and `plan`: what runs, why, and what would.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use fairlead_crds::platform::ReleaseWorkload;
use fairlead_plan::Cache;
use fairlead_plan::view::{self, EnvironmentView, State};
use kube::ResourceExt;

use crate::cluster::{Cluster, Target, find_environment};
use crate::files;
use crate::output::{self, Format};
use crate::{Ended, Misuse};

/// Shows the environments of the application as trees.
pub(crate) async fn status(
    target: &Target,
    format: Format,
    environment: Option<&str>,
    watch: bool,
) -> anyhow::Result<Ended> {
    let mut cluster = target.connect().await?;
    let mut shown = String::new();
    loop {
        let views = views(&cluster, environment)?;
        let ready = views.iter().all(|view| view.state.ready == "True");
        if !watch {
            if !output::print(format, &views)? {
                put!("{}", text(&cluster, &views));
            }
            return Ok(if ready { Ended::Done } else { Ended::NotReady });
        }
        let text = text(&cluster, &views);
        if text != shown {
            say!("{text}");
            shown = text;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.read().await?;
    }
}

fn views(cluster: &Cluster, environment: Option<&str>) -> anyhow::Result<Vec<EnvironmentView>> {
    let environments = match environment {
        Some(name) => vec![cluster.environment(name)?],
        None => cluster
            .cache
            .environments
            .in_namespace(&cluster.application),
    };
    Ok(environments
        .iter()
        .map(|environment| view::environment(&cluster.cache, environment))
        .collect())
}

fn mark(state: &State) -> &'static str {
    match state.ready {
        "True" => "✓",
        "Unknown" => "?",
        _ if state.reason == "Degraded" || state.reason == "Invalid" => "✗",
        _ => "…",
    }
}

fn text(cluster: &Cluster, views: &[EnvironmentView]) -> String {
    if views.is_empty() {
        return format!(
            "the application {} has no environments (choose the application with -n)\n",
            cluster.application
        );
    }
    let mut out = format!("application {}\n", cluster.application);
    for view in views {
        let release = view.release.as_deref().unwrap_or("nothing released");
        out.push_str(&format!(
            "{} environment {} ({}) in {}: {release}\n",
            mark(&view.state),
            view.name,
            view.type_,
            view.namespace
        ));
        if view.state.ready != "True" && !view.state.message.is_empty() {
            out.push_str(&format!("    {}\n", view.state.message));
        }
        let rows: Vec<Vec<String>> = view
            .nodes
            .iter()
            .map(|node| {
                let message = if node.state.ready == "True" {
                    String::new()
                } else {
                    node.state.message.clone()
                };
                vec![
                    format!("  {} {}", mark(&node.state), node.name),
                    node.revision.clone().unwrap_or_default(),
                    message,
                ]
            })
            .collect();
        out.push_str(&output::table(&rows));
    }
    out
}

/// Tells which definition provides a resource, and why the others do not.
pub(crate) async fn explain(
    target: &Target,
    format: Format,
    environment: &str,
    resource: &str,
) -> anyhow::Result<Ended> {
    let Some((workload, name)) = resource.split_once('.') else {
        bail!(Misuse(format!(
            "found {resource}; WORKLOAD.RESOURCE is needed, such as catalog.db"
        )));
    };
    let cluster = target.connect().await?;
    let environment = cluster.environment(environment)?;
    let found = view::explain(&cluster.cache, &environment, workload, name)
        .with_context(|| unknown_resource(&cluster, workload, name))?;
    if output::print(format, &found)? {
        return Ok(Ended::Done);
    }
    say!("{}", found.request);
    if let Some(held) = &found.held {
        say!("the running release holds {held}");
    }
    if found.candidates.is_empty() {
        say!("no ResourceDefinition is of this type");
    }
    let rows: Vec<Vec<String>> = found
        .candidates
        .iter()
        .map(|one| {
            vec![
                format!("  {}", one.definition),
                one.criterion.clone(),
                one.verdict.clone(),
            ]
        })
        .collect();
    put!("{}", output::table(&rows));
    Ok(Ended::Done)
}

fn unknown_resource(cluster: &Cluster, workload: &str, resource: &str) -> String {
    match cluster.cache.workloads.get(&cluster.application, workload) {
        None => {
            let known: Vec<String> = cluster
                .cache
                .workloads
                .in_namespace(&cluster.application)
                .iter()
                .map(|found| found.name_any())
                .collect();
            format!(
                "there is no workload {workload}; there are {}",
                known.join(", ")
            )
        }
        Some(found) => {
            let known: Vec<&str> = found
                .spec
                .score
                .resources
                .keys()
                .map(String::as_str)
                .collect();
            format!(
                "the workload {workload} has no resource {resource}; there are {}",
                known.join(", ")
            )
        }
    }
}

/// Shows what a release would do.
pub(crate) async fn plan(
    target: &Target,
    format: Format,
    environment: &str,
    paths: &[PathBuf],
    offline: bool,
) -> anyhow::Result<Ended> {
    let mut found = files::read(paths)?;
    if !found.broken.is_empty() {
        for broken in &found.broken {
            eprintln!("{}", output::plain(broken));
        }
        return Ok(Ended::Invalid);
    }
    if offline {
        let application = target
            .namespace
            .clone()
            .or_else(|| found.application(environment))
            .context("the files hold no such environment; name the application with -n")?;
        let cache = found.cache(&application);
        let workloads = described(&cache, &application);
        return show_plan(format, &cache, &application, environment, &workloads);
    }
    let cluster = target.connect().await?;
    let mut workloads = described(&cluster.cache, &cluster.application);
    for new in described(&found.cache(&cluster.application), &cluster.application) {
        workloads.retain(|old| old.name != new.name);
        workloads.push(new);
    }
    show_plan(
        format,
        &cluster.cache,
        &cluster.application,
        environment,
        &workloads,
    )
}

/// The workloads of an application, as a release would hold them.
pub(crate) fn described(cache: &Cache, application: &str) -> Vec<ReleaseWorkload> {
    let all = cache.workloads.in_namespace(application);
    all.iter()
        .map(|workload| ReleaseWorkload {
            name: workload.name_any(),
            spec: workload.spec.score.clone(),
        })
        .collect()
}

fn show_plan(
    format: Format,
    cache: &Cache,
    application: &str,
    environment: &str,
    workloads: &[ReleaseWorkload],
) -> anyhow::Result<Ended> {
    let environment = find_environment(cache, application, environment)?;
    let planned = match view::plan(cache, &environment, workloads) {
        Ok(planned) => planned,
        Err(problem) => {
            eprintln!("it would not resolve: {}", output::plain(&problem.message));
            return Ok(Ended::Invalid);
        }
    };
    if output::print(format, &planned)? {
        return Ok(Ended::Done);
    }
    let mut rows = vec![vec![
        "STEP".to_owned(),
        "RESOURCE".to_owned(),
        "REVISION".to_owned(),
        "AFTER".to_owned(),
    ]];
    rows.extend(planned.iter().map(|node| {
        vec![
            node.step.to_owned(),
            node.name.clone(),
            node.revision.clone().unwrap_or_default(),
            node.needs.join(", "),
        ]
    }));
    put!("{}", output::table(&rows));
    Ok(Ended::Done)
}
