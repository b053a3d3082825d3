//! The containers and volumes that a pod gets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector, Probe, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::annotations::ValidInjection;
use super::{Injection, MeshCapture};
use crate::mesh::{
    AUDIENCE, Bootstrap, CONTROL, CONTROL_PORT, INBOUND_PORT, OUTBOUND_PORT, PROBE_PORT, TRUST,
    bootstrap,
};

/// The user that the proxy runs as; its connections are not brought to itself.
pub(super) const USER: i64 = 2102;
/// The user that finds out whether connections come to the proxy: anybody else.
const VERIFIER: i64 = 65532;
/// The names of what is added.
pub(super) const PROXY: &str = "fairlead-proxy";
/// The step before the proxy, which captures or finds out whether somebody did.
pub const CAPTURE_STEP: &str = "fairlead-capture";
pub(super) const IDENTITY_VOLUME: &str = "fairlead-identity";
pub(super) const RUN_VOLUME: &str = "fairlead-run";
pub(super) const KEY_VOLUME: &str = "fairlead-key";
/// Where they are mounted, in the proxy alone.
const IDENTITY_FOLDER: &str = "/var/run/fairlead/identity";
const RUN_FOLDER: &str = "/var/run/fairlead/proxy";
const KEY_FOLDER: &str = "/var/run/fairlead/key";
/// How long a token lasts, in seconds; kubelet writes a new one at four fifths.
const TOKEN_LIFE: i64 = 3600;
/// How long a proxy may take to start, in seconds, before kubelet starts it anew.
const PATIENCE: i32 = 300;

/// The step before the proxy: it brings connections to it, or finds out whether the node does.
pub(super) fn capture(valid: &ValidInjection, injection: &Injection) -> Container {
    let mut arguments = vec![
        "capture".to_owned(),
        format!("--outbound={OUTBOUND_PORT}"),
        format!("--inbound={INBOUND_PORT}"),
        format!("--exempt-uid={USER}"),
        format!("--skip-inbound={}", skip_inbound(valid).join(",")),
    ];
    for (option, list) in [
        ("skip-outbound", &valid.skip_outbound),
        ("skip-network", &valid.skip_networks),
    ] {
        if !list.is_empty() {
            arguments.push(format!("--{option}={}", list.join(",")));
        }
    }
    let step = Container {
        resources: Some(resources(&BTreeMap::new(), &BTreeMap::new())),
        ..container(CAPTURE_STEP, injection)
    };
    match injection.capture {
        // Nothing else of the pod needs a capability.
        MeshCapture::InitContainer => Container {
            args: Some(arguments),
            security_context: Some(SecurityContext {
                capabilities: Some(Capabilities {
                    add: Some(vec!["NET_ADMIN".to_owned()]),
                    drop: Some(vec!["ALL".to_owned()]),
                }),
                run_as_non_root: Some(false),
                run_as_user: Some(0),
                run_as_group: Some(0),
                ..restricted()
            }),
            ..step
        },
        MeshCapture::Cni => {
            arguments.push("--verify".to_owned());
            Container {
                args: Some(arguments),
                env: Some(vec![of_field("NODE_NAME", "spec.nodeName")]),
                security_context: Some(unprivileged(VERIFIER)),
                // `kubectl describe pod` tells why it failed.
                termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
                ..step
            }
        }
    }
}

/// What the node's CNI plug-in captures of the pod.
pub(super) fn captured(valid: &ValidInjection) -> Value {
    json!({
        "outbound": OUTBOUND_PORT,
        "inbound": INBOUND_PORT,
        "exempt": [USER],
        "skipInbound": skip_inbound(valid),
        "skipOutbound": valid.skip_outbound,
        "skipNetworks": valid.skip_networks,
    })
}

/// The ports of the pod that are left alone: those that its annotations say, and the one where the proxy answers kubelet.
fn skip_inbound(valid: &ValidInjection) -> Vec<String> {
    let own = [PROBE_PORT.to_string()].into_iter();
    own.chain(valid.skip_inbound.iter().cloned()).collect()
}

/// The proxy.
pub(super) fn proxy(
    valid: &ValidInjection,
    namespace: &str,
    account: &str,
    injection: &Injection,
) -> Container {
    let token = format!("{IDENTITY_FOLDER}/token");
    let roots = format!("{IDENTITY_FOLDER}/{}", TRUST.1);
    let admin = format!("{RUN_FOLDER}/admin.sock");
    let control = format!("{CONTROL}.{}.svc", injection.system);
    let text = bootstrap(&Bootstrap {
        trust_domain: &injection.trust_domain,
        system: &injection.system,
        namespace,
        account,
        // A pod of a ReplicaSet has no name yet; kubelet puts it here.
        pod: "$(POD_NAME)",
        control: json!({"socket_address": {"address": control, "port_value": CONTROL_PORT}}),
        token: &token,
        roots: &roots,
        admin: &admin,
    });
    let mut environment = vec![of_field("POD_NAME", "metadata.name")];
    environment.extend(valid.log.iter().map(|levels| EnvVar {
        name: "RUST_LOG".to_owned(),
        value: Some(levels.clone()),
        ..EnvVar::default()
    }));
    Container {
        args: Some(vec![
            "run".to_owned(),
            format!("--cores={}", valid.cores.unwrap_or(1)),
            format!("--keep={RUN_FOLDER}/kept"),
            format!("--keep-identity={KEY_FOLDER}"),
            format!("--config-yaml={text}"),
        ]),
        env: Some(environment),
        ports: Some(vec![ContainerPort {
            name: Some("mesh-probes".to_owned()),
            container_port: PROBE_PORT.into(),
            ..ContainerPort::default()
        }]),
        resources: Some(resources(&valid.requests, &valid.limits)),
        restart_policy: Some("Always".to_owned()),
        security_context: Some(unprivileged(USER)),
        startup_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/ready".to_owned()),
                port: IntOrString::Int(PROBE_PORT.into()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(1),
            failure_threshold: Some(PATIENCE),
            ..Probe::default()
        }),
        volume_mounts: Some(vec![
            mount(IDENTITY_VOLUME, IDENTITY_FOLDER, true),
            mount(RUN_VOLUME, RUN_FOLDER, false),
            mount(KEY_VOLUME, KEY_FOLDER, false),
        ]),
        ..container(PROXY, injection)
    }
}

fn container(name: &str, injection: &Injection) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(injection.image.clone()),
        image_pull_policy: Some(injection.pull_policy.clone()).filter(|policy| !policy.is_empty()),
        ..Container::default()
    }
}

/// A variable that kubelet fills with a field of the pod.
fn of_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// A user that may do nothing.
fn unprivileged(user: i64) -> SecurityContext {
    SecurityContext {
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        run_as_non_root: Some(true),
        run_as_user: Some(user),
        run_as_group: Some(user),
        ..restricted()
    }
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

fn resources(
    requests: &BTreeMap<String, Quantity>,
    limits: &BTreeMap<String, Quantity>,
) -> ResourceRequirements {
    let with = |usual: &[(&str, &str)], own: &BTreeMap<String, Quantity>| {
        let usual = usual
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned())));
        Some(usual.chain(own.clone()).collect())
    };
    ResourceRequirements {
        requests: with(&[("cpu", "10m"), ("memory", "32Mi")], requests),
        limits: with(&[("memory", "256Mi")], limits),
        ..ResourceRequirements::default()
    }
}

fn mount(name: &str, path: &str, is_read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(is_read_only),
        ..VolumeMount::default()
    }
}

/// The token by which the proxy proves whose it is, with whom to trust; and a folder for its admin interface and for what it
/// was told.
pub(super) fn volumes() -> [Volume; 3] {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(AUDIENCE.to_owned()),
            expiration_seconds: Some(TOKEN_LIFE),
            path: "token".to_owned(),
            ..ServiceAccountTokenProjection::default()
        }),
        ..VolumeProjection::default()
    };
    let trust = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: TRUST.0.to_owned(),
            items: Some(vec![KeyToPath {
                key: TRUST.1.to_owned(),
                path: TRUST.1.to_owned(),
                ..KeyToPath::default()
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    [
        Volume {
            name: IDENTITY_VOLUME.to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![token, trust]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: RUN_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("64Mi".to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: KEY_VOLUME.to_owned(),
            // The key is on no disk.
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity("1Mi".to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        },
    ]
}
