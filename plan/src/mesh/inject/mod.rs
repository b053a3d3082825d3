//! A pod as it was asked for in, the pod with its proxy out.
//!
//! The proxy is a native sidecar (KEP-753): it starts before the application's containers and ends after them. The step before it
//! brings the pod's connections to it, and is all that needs a capability. Where the node's CNI plug-in brings them, an annotation
//! tells it which, and the step needs no capability: it finds out whether they come, and ends the pod's start where they do not.
//! What is done is done anew each time, so that a pod that comes twice is no different.

mod annotations;
mod build;
#[cfg(test)]
mod tests;

pub use fairlead_crds::install::MeshCapture;
use fairlead_crds::labels;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde::Deserialize;
use serde_json::{Value, json};

pub use self::build::CAPTURE_STEP;
use self::build::{IDENTITY_VOLUME, KEY_VOLUME, PROXY, RUN_VOLUME, USER};
use super::{INBOUND_PORT, OUTBOUND_PORT, PROBE_PORT};
use crate::problem::Invalid;

/// The annotation by which Prometheus finds what to scrape.
const SCRAPE: &str = "prometheus.io/scrape";

/// The annotation that tells the node's CNI plug-in what to capture of a pod.
const CAPTURED: &str = "mesh.fairlead.dev/capture";

/// What is the same for all pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// The namespace of the control plane.
    pub system: String,
    /// The trust domain.
    pub trust_domain: String,
    /// The image of the proxy.
    pub image: String,
    /// Its pull policy; the cluster's own where empty.
    pub pull_policy: String,
    /// What brings connections to proxies.
    pub capture: MeshCapture,
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has a proxy.
    Injected(Value),
    /// It has none, and why.
    Left(String),
}

/// Gives a pod of a namespace its proxy. What this does not know of it stays as it is.
///
/// # Errors
/// Names each annotation that says nothing, and each field that would get around the proxy.
pub fn inject(
    mut pod: Value,
    namespace: &str,
    injection: &Injection,
) -> Result<Outcome, Vec<Invalid>> {
    take_out(&mut pod);
    let known = Pod::deserialize(&pod)
        .map_err(|error| vec![Invalid::new("pod", format!("found what is none: {error}"))])?;
    let spec = known.spec.unwrap_or_default();
    if let Some(why) = left(&spec) {
        return Ok(Outcome::Left(why.to_owned()));
    }
    let annotations = known.metadata.annotations.unwrap_or_default();
    let mut wrong = Vec::new();
    let valid = annotations::read(&annotations, &mut wrong);
    check(&spec, &mut wrong);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    let own = [
        build::capture(&valid, injection),
        build::proxy(&valid, namespace, account, injection),
    ];
    let containers = list(&mut pod, "initContainers");
    containers.splice(..0, own.iter().map(|own| json!(own)));
    list(&mut pod, "volumes").extend(build::volumes().iter().map(|own| json!(own)));
    pod["metadata"]["labels"][labels::PROXIED] = json!("true");
    if injection.capture == MeshCapture::Cni {
        pod["metadata"]["annotations"][CAPTURED] = json!(build::captured(&valid).to_string());
    }
    // Where the application is scraped, it stays so.
    if !annotations.contains_key(SCRAPE) {
        let annotations = &mut pod["metadata"]["annotations"];
        annotations[SCRAPE] = json!("true");
        annotations["prometheus.io/port"] = json!(PROBE_PORT.to_string());
        annotations["prometheus.io/path"] = json!("/stats/prometheus");
    }
    Ok(Outcome::Injected(pod))
}

/// Why a pod has to do without a proxy.
#[must_use]
pub fn left(spec: &PodSpec) -> Option<&'static str> {
    if spec.host_network == Some(true) {
        return Some("spec.hostNetwork: the node's network cannot be brought to a proxy");
    }
    let is_other = spec.os.as_ref().is_some_and(|os| os.name != "linux");
    is_other.then_some("spec.os.name: there are proxies for linux")
}

/// A list of the spec, which is there from now on.
fn list<'a>(pod: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let list = &mut pod["spec"][name];
    if !list.is_array() {
        *list = json!([]);
    }
    list.as_array_mut().expect("it is one")
}

/// Takes out what an injection before put in.
fn take_out(pod: &mut Value) {
    for (name, own) in [
        ("initContainers", [PROXY, CAPTURE_STEP].as_slice()),
        ("volumes", &[IDENTITY_VOLUME, RUN_VOLUME, KEY_VOLUME]),
    ] {
        let list = pod.get_mut("spec").and_then(|spec| spec.get_mut(name));
        if let Some(list) = list.and_then(Value::as_array_mut) {
            list.retain(|entry| !own.iter().any(|own| entry["name"] == **own));
        }
    }
    let annotations = pod.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(CAPTURED);
    }
}

/// Finds what would get around the proxy, or take its ports.
fn check(spec: &PodSpec, wrong: &mut Vec<Invalid>) {
    if spec
        .security_context
        .as_ref()
        .and_then(|own| own.run_as_user)
        == Some(USER)
    {
        wrong.push(Invalid::new(
            "spec.securityContext.runAsUser",
            format!("found {USER}, which only the proxy may be"),
        ));
    }
    let kinds = [
        ("containers", Some(&spec.containers)),
        ("initContainers", spec.init_containers.as_ref()),
    ];
    for (kind, containers) in kinds {
        for (place, own) in containers.into_iter().flatten().enumerate() {
            let field = format!("spec.{kind}[{place}]");
            if own
                .security_context
                .as_ref()
                .and_then(|own| own.run_as_user)
                == Some(USER)
            {
                wrong.push(Invalid::new(
                    format!("{field}.securityContext.runAsUser"),
                    format!("found {USER}, which only the proxy may be"),
                ));
            }
            for port in own.ports.iter().flatten() {
                if [OUTBOUND_PORT, INBOUND_PORT, PROBE_PORT]
                    .map(i32::from)
                    .contains(&port.container_port)
                {
                    wrong.push(Invalid::new(
                        format!("{field}.ports"),
                        format!("found {}, which the proxy listens on", port.container_port),
                    ));
                }
            }
            if own.name == PROXY || own.name == CAPTURE_STEP {
                wrong.push(Invalid::new(
                    format!("{field}.name"),
                    format!("found {}, which is the name of the mesh's own", own.name),
                ));
            }
        }
    }
}
