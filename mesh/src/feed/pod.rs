//! What the mesh reads of a pod, and what is kept of one for that.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::facts::Probe;

/// What kubelet asks over gRPC.
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// How far a pod is.
pub(super) fn phase(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref();
    status.and_then(|status| status.phase.as_deref())
}

/// Whether a pod has ended, and its proxy with it.
pub(super) fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

/// The addresses of a pod, which nobody else has; one that ends may have given them back.
pub(super) fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network);
    let is_on_its_own = on_host != Some(true) && pod.metadata.deletion_timestamp.is_none();
    let status = pod.status.as_ref().filter(|_| is_on_its_own);
    let all = status.into_iter().flat_map(|own| own.pod_ips.iter());
    all.flatten().filter_map(|own| own.ip.parse().ok())
}

/// Whether a pod would be ready if its node were heard of. Kubelet calls a pod ready whose containers are and whose gates are open;
/// while a node is silent, the node controller takes that word back from its pods, and leaves the others.
pub(super) fn is_unheard(pod: &Pod) -> bool {
    let is = |kind: &str, status: &str| {
        let conditions = pod.status.iter().flat_map(|own| own.conditions.iter());
        let mut own = conditions.flatten().filter(|own| own.type_ == kind);
        own.any(|own| own.status == status)
    };
    let gates = pod.spec.iter().flat_map(|own| own.readiness_gates.iter());
    is("Ready", "False")
        && is("ContainersReady", "True")
        && gates.flatten().all(|own| is(&own.condition_type, "True"))
}

/// Leaves of a pod's status how far it is, where, and which of its conditions are so.
pub(super) fn standing(status: PodStatus) -> PodStatus {
    let said = |own: PodCondition| PodCondition {
        type_: own.type_,
        status: own.status,
        ..PodCondition::default()
    };
    let conditions = status.conditions;
    PodStatus {
        phase: status.phase,
        pod_ips: status.pod_ips,
        conditions: conditions.map(|all| all.into_iter().map(said).collect()),
        ..PodStatus::default()
    }
}

/// Leaves of a pod's spec who it is, where, what kubelet asks it, and what else says whether it is ready.
pub(super) fn asked(spec: PodSpec) -> PodSpec {
    let probed = |own: Container| Container {
        ports: own.ports,
        liveness_probe: own.liveness_probe,
        readiness_probe: own.readiness_probe,
        startup_probe: own.startup_probe,
        ..Container::default()
    };
    PodSpec {
        service_account_name: spec.service_account_name,
        readiness_gates: spec.readiness_gates,
        host_network: spec.host_network,
        containers: spec.containers.into_iter().map(probed).collect(),
        init_containers: spec
            .init_containers
            .map(|all| all.into_iter().map(probed).collect()),
        ..PodSpec::default()
    }
}

/// What kubelet asks over HTTP.
pub(super) fn probes(spec: &PodSpec) -> Vec<Probe> {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut found = Vec::new();
    for container in containers {
        let all = [
            &container.liveness_probe,
            &container.readiness_probe,
            &container.startup_probe,
        ];
        for own in all.into_iter().flatten() {
            let http = own.http_get.as_ref().and_then(|http| {
                let path = http.path.as_deref().unwrap_or("/");
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                Some(Probe {
                    port: number(&http.port, container)?,
                    method: "GET",
                    path: path.to_owned(),
                })
            });
            let grpc = own.grpc.as_ref().and_then(|grpc| {
                Some(Probe {
                    port: u16::try_from(grpc.port).ok()?,
                    method: "POST",
                    path: HEALTH.to_owned(),
                })
            });
            found.extend(http.into_iter().chain(grpc));
        }
    }
    found.dedup();
    found
}

/// A port of a container, by its number or its name.
fn number(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            ports
                .find(|own| own.name.as_ref() == Some(name))?
                .container_port
        }
    };
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_unheard_where_all_but_its_node_says_that_it_is_ready() {
        let is = |ready: &str, containers: &str, gate: Option<&str>| {
            let mut conditions = vec![
                json!({"type": "Ready", "status": ready}),
                json!({"type": "ContainersReady", "status": containers}),
            ];
            conditions.extend(gate.map(|status| json!({"type": "shop/warm", "status": status})));
            let own = json!({
                "metadata": {"name": "cart-x"},
                "spec": {"containers": [], "readinessGates": [{"conditionType": "shop/warm"}]},
                "status": {"conditions": conditions},
            });
            is_unheard(&serde_json::from_value(own).expect("a pod"))
        };
        assert!(is("False", "True", Some("True")));
        assert!(!is("True", "True", Some("True")));
        assert!(!is("False", "False", Some("True")));
        assert!(!is("False", "True", Some("False")));
        assert!(!is("False", "True", None));
    }

    #[test]
    fn a_pod_has_its_addresses_until_it_ends_and_none_of_its_node() {
        let of = |metadata: serde_json::Value, is_on_host: bool| {
            let own = json!({
                "metadata": metadata,
                "spec": {"containers": [], "hostNetwork": is_on_host},
                "status": {"podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd01::1"}]},
            });
            let own: Pod = serde_json::from_value(own).expect("a pod");
            addresses(&own).count()
        };
        assert_eq!(of(json!({"name": "cart-x"}), false), 2);
        assert_eq!(of(json!({"name": "cart-x"}), true), 0);
        let ends = json!({"name": "cart-x", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(of(ends, false), 0);
    }
}
