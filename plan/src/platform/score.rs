//! Whether a workload in the words of Score is sound by itself, and in which order its containers start.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_crds::platform::{BeforeReady, Container, Probe, ScoreSpec};
use fairlead_expr::Template;

use crate::problem::{Invalid, known};

/// Checks a workload alone.
///
/// # Errors
/// Every broken rule.
pub fn validate(name: &str, spec: &ScoreSpec) -> Result<(), Vec<Invalid>> {
    let mut broken = Vec::new();
    if name.len() > 40 || !is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        broken.push(Invalid::new("metadata.name", format!("found {name}; a DNS label of at most 40 characters that starts with a letter is needed")));
    }
    if spec.containers.is_empty() {
        broken.push(Invalid::new(
            "spec.containers",
            "found none; at least one is needed",
        ));
    }
    for (container_name, container) in &spec.containers {
        container_rules(spec, container_name, container, &mut broken);
    }
    if broken.is_empty()
        && let Err(circle) = start_order(spec)
    {
        broken.push(Invalid::new(
            "spec.containers",
            format!("before goes in a circle: {}", circle.join(" → ")),
        ));
    }
    if !spec.containers.is_empty()
        && spec
            .containers
            .values()
            .all(|container| !container.before.is_empty())
    {
        broken.push(Invalid::new(
            "spec.containers",
            "every container starts before another; at least one must be the main one",
        ));
    }
    for (port_name, _) in spec.service.iter().flat_map(|service| &service.ports) {
        if port_name.len() > 15 || !is_label(port_name) {
            broken.push(Invalid::new(
                format!("spec.service.ports.{port_name}"),
                "a name of at most 15 lower case letters, digits and dashes is needed",
            ));
        }
    }
    for resource in spec.resources.keys() {
        if resource.len() > 63 || !is_label(resource) {
            broken.push(Invalid::new(
                format!("spec.resources.{resource}"),
                "a DNS label of at most 63 characters is needed",
            ));
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        Err(broken)
    }
}

fn container_rules(spec: &ScoreSpec, name: &str, container: &Container, broken: &mut Vec<Invalid>) {
    let field = format!("spec.containers.{name}");
    if name.len() > 63 || !is_label(name) {
        broken.push(Invalid::new(
            field.clone(),
            "a DNS label of at most 63 characters is needed",
        ));
    }
    if container.image.trim().is_empty() || container.image == "." {
        broken.push(Invalid::new(
            format!("{field}.image"),
            format!(
                "found '{}'; an image with its tag or digest is needed",
                container.image
            ),
        ));
    }
    for (variable, text) in &container.variables {
        if variable.is_empty() || variable.contains('=') || variable.contains('\0') {
            broken.push(Invalid::new(
                format!("{field}.variables.{variable}"),
                "the name of a variable must not hold =",
            ));
        }
        placeholder(spec, &format!("{field}.variables.{variable}"), text, broken);
    }
    let mut targets = BTreeSet::new();
    for file in &container.files {
        let at = format!("{field}.files[{}]", file.target);
        if !targets.insert(&file.target) {
            broken.push(Invalid::new(
                at.clone(),
                "found twice; every target may stand once",
            ));
        }
        if !file.target.starts_with('/') || file.target.contains("..") {
            broken.push(Invalid::new(
                at.clone(),
                "an absolute path without .. is needed",
            ));
        }
        if file.content.is_some() == file.binary_content.is_some() {
            broken.push(Invalid::new(
                at.clone(),
                "set exactly one of content and binaryContent",
            ));
        }
        if let (Some(content), false) = (&file.content, file.no_expand) {
            placeholder(spec, &at, content, broken);
        }
    }
    for volume in &container.volumes {
        let at = format!("{field}.volumes[{}]", volume.target);
        if !targets.insert(&volume.target) {
            broken.push(Invalid::new(
                at.clone(),
                "found twice; every target may stand once",
            ));
        }
        placeholder(spec, &at, &volume.source, broken);
    }
    for (probe_name, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ] {
        if probe
            .as_ref()
            .is_some_and(|probe: &Probe| probe.http_get.is_some() == probe.exec.is_some())
        {
            broken.push(Invalid::new(
                format!("{field}.{probe_name}"),
                "set exactly one of httpGet and exec",
            ));
        }
    }
    before_rules(spec, name, container, broken);
}

fn before_rules(spec: &ScoreSpec, name: &str, container: &Container, broken: &mut Vec<Invalid>) {
    for (other, before) in &container.before {
        let at = format!("spec.containers.{name}.before.{other}");
        if !spec.containers.contains_key(other) || other == name {
            let others = spec.containers.keys().filter(|known| *known != name);
            let known = known(others.map(String::as_str));
            broken.push(Invalid::new(
                at.clone(),
                format!("there is no other container {other}; {known}"),
            ));
        }
        if before.ready == BeforeReady::Healthy && container.readiness_probe.is_none() {
            broken.push(Invalid::new(at, "ready: healthy needs a readinessProbe"));
        }
    }
    let mut kinds: Vec<bool> = container
        .before
        .values()
        .map(|before| before.ready == BeforeReady::Complete)
        .collect();
    kinds.dedup();
    if kinds.len() > 1 {
        broken.push(Invalid::new(
            format!("spec.containers.{name}.before"),
            "complete and started or healthy exclude each other",
        ));
    }
}

fn placeholder(spec: &ScoreSpec, field: &str, text: &str, broken: &mut Vec<Invalid>) {
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => {
            broken.push(Invalid::new(field, error.to_string()));
            return;
        }
    };
    for path in template.references() {
        let segments = path.segments();
        let known: Vec<&str> = match segments.first().map(String::as_str) {
            Some("metadata") => continue,
            Some("resources") => spec.resources.keys().map(String::as_str).collect(),
            _ => {
                broken.push(Invalid::new(
                    field,
                    format!(
                        "${{{path}}} names nothing that exists; there are resources and metadata"
                    ),
                ));
                continue;
            }
        };
        if segments
            .get(1)
            .is_some_and(|name| !known.contains(&name.as_str()))
        {
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            broken.push(Invalid::new(
                field,
                format!("${{{path}}} names nothing that exists; spec.resources has {known}"),
            ));
        }
    }
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// The containers that start before others, each after those that come before it.
///
/// # Errors
/// The names of a circle.
pub fn start_order(spec: &ScoreSpec) -> Result<Vec<&str>, Vec<String>> {
    let mut waits: BTreeMap<&str, BTreeSet<&str>> = spec
        .containers
        .keys()
        .map(|name| (name.as_str(), BTreeSet::new()))
        .collect();
    for (name, container) in &spec.containers {
        for other in container.before.keys() {
            if let Some(set) = waits.get_mut(other.as_str()) {
                set.insert(name);
            }
        }
    }
    let mut order: Vec<&str> = Vec::new();
    while order.len() < waits.len() {
        let next = waits
            .iter()
            .find(|(name, set)| {
                !order.contains(*name) && set.iter().all(|needed| order.contains(needed))
            })
            .map(|(name, _)| *name);
        match next {
            Some(name) => order.push(name),
            None => {
                return Err(waits
                    .keys()
                    .filter(|name| !order.contains(*name))
                    .map(|name| (*name).to_owned())
                    .collect());
            }
        }
    }
    Ok(order
        .into_iter()
        .filter(|name| !spec.containers[*name].before.is_empty())
        .collect())
}
