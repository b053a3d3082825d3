//! What the mesh does with a service and its pods, and who said so.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use fairlead_crds::labels;
use fairlead_crds::mesh::{
    AuthorizationAction, Enforcement, MeshAuthorization, MeshPolicy, TargetKind, TargetRef,
};
use fairlead_plan::Kind as _;
use fairlead_plan::mesh::{
    Caller, MeshPolicyKind, Set, covers_pod, effective, made_by, of_workload,
};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::cluster::Target;
use crate::output::{self, Format};
use crate::{Ended, Misuse};

/// The most objects of a kind that are read.
const MOST: u32 = 5000;

/// What is told of a service.
#[derive(Serialize)]
struct Told {
    service: String,
    namespace: String,
    /// Whose requests are meant: a service account; those of anybody where unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// How many of its pods there are, and how many of them have a proxy.
    pods: usize,
    proxied: usize,
    /// The fields that are set, and by whom.
    sets: Vec<Set>,
    /// What is said of the workloads of its pods alone, which goes before that.
    workloads: Vec<Workload>,
    /// Policies about it that are ignored, and why.
    ignored: BTreeMap<String, String>,
    /// The authorizations about it or its pods.
    authorizations: Vec<Authorization>,
}

/// What is said of the pods of a workload.
#[derive(Serialize)]
struct Workload {
    kind: TargetKind,
    name: String,
    sets: Vec<Set>,
}

/// Who may reach it, as one authorization says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    name: String,
    action: AuthorizationAction,
    enforcement: Enforcement,
    /// Which of what it is about that is.
    of: Vec<String>,
    /// How many requests it only counted within the last hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hour: Option<i64>,
}

/// Prints which policies count for a service.
pub(crate) async fn explain(
    target: &Target,
    format: Format,
    service: &str,
    from: Option<&str>,
) -> anyhow::Result<Ended> {
    let (client, namespace) = target.client().await?;
    let told = tell(&client, &namespace, service, from).await?;
    if !output::print(format, &told)? {
        output::write(&text(&told));
    }
    Ok(Ended::Done)
}

/// The namespace and the service account of a pod, which is named with its namespace or is of this one.
async fn caller(client: &Client, own: &str, pod: &str) -> anyhow::Result<(String, String)> {
    let (namespace, name) = pod.split_once('/').unwrap_or((own, pod));
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Some(pod) = pods.get_opt(name).await.context("failed to read the pod")? else {
        bail!(Misuse(format!("there is no pod {name} in {namespace}")));
    };
    if !pod.labels().contains_key(labels::PROXIED) {
        bail!(Misuse(format!(
            "the pod {name} in {namespace} has no proxy, so no policy counts for its requests"
        )));
    }
    let account = pod.spec.and_then(|spec| spec.service_account_name);
    let account = account.unwrap_or_else(|| "default".to_owned());
    Ok((namespace.to_owned(), account))
}

async fn tell(
    client: &Client,
    namespace: &str,
    name: &str,
    from: Option<&str>,
) -> anyhow::Result<Told> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let found = services.get_opt(name).await;
    let Some(service) = found.context("failed to read the Service")? else {
        bail!(Misuse(format!("there is no Service {name} in {namespace}")));
    };
    let all = ListParams::default().limit(MOST);
    let policies: Api<MeshPolicy> = Api::namespaced(client.clone(), namespace);
    let policies = policies.list(&all).await;
    let policies = policies.context("failed to read the MeshPolicies")?.items;
    let (valid, wrong): (Vec<&MeshPolicy>, Vec<&MeshPolicy>) = policies
        .iter()
        .partition(|own| MeshPolicyKind::validate(own).is_ok());
    let pods = pods(client, namespace, &service).await?;
    let about = About {
        namespace,
        service: name,
        workloads: workloads(&pods),
    };
    let is_about = |policy: &&&MeshPolicy| {
        let mut targets = policy.spec.target_refs.iter();
        targets.any(|target| about.has(target))
    };
    let ignored = wrong.iter().filter(is_about).map(|own| {
        let why = MeshPolicyKind::validate(own).err().unwrap_or_default();
        (own.name_any(), fairlead_plan::problem::join_invalid(&why))
    });
    let caller = match from {
        Some(pod) => Some(caller(client, namespace, pod).await?),
        None => None,
    };
    let who = caller
        .as_ref()
        .map(|(namespace, account)| Caller { namespace, account });
    let from = caller
        .as_ref()
        .map(|(namespace, account)| format!("{namespace}/{account}"));
    let of_workloads = about.workloads.iter().map(|(kind, name)| Workload {
        kind: *kind,
        name: name.clone(),
        sets: of_workload(&valid, *kind, name).sets,
    });
    Ok(Told {
        service: name.to_owned(),
        namespace: namespace.to_owned(),
        from,
        proxied: pods.iter().filter(|pod| is_proxied(pod)).count(),
        pods: pods.len(),
        sets: effective(&valid, namespace, name, who).sets,
        workloads: of_workloads.filter(|own| !own.sets.is_empty()).collect(),
        ignored: ignored.collect(),
        authorizations: authorizations(client, &about).await?,
    })
}

fn is_proxied(pod: &Pod) -> bool {
    pod.labels().contains_key(labels::PROXIED)
}

/// What made those pods that have a proxy.
fn workloads(pods: &[Pod]) -> BTreeSet<(TargetKind, String)> {
    let proxied = pods.iter().filter(|pod| is_proxied(pod));
    let made = proxied.filter_map(|pod| {
        let name = pod.name_any();
        let (kind, name) = made_by(pod.labels(), &name)?;
        Some((kind, name.to_owned()))
    });
    made.collect()
}

/// What policies may be about that count for a service and its pods.
struct About<'a> {
    namespace: &'a str,
    service: &'a str,
    workloads: BTreeSet<(TargetKind, String)>,
}

impl About<'_> {
    fn has(&self, target: &TargetRef) -> bool {
        let own = std::slice::from_ref(target);
        let workloads = self.workloads.iter();
        let mut workloads = workloads.map(|(kind, name)| Some((*kind, name.as_str())));
        let has = |workload| covers_pod(own, self.namespace, &[self.service], workload);
        has(None) || workloads.any(has)
    }
}

/// What something is about, as it is told.
fn of(kind: TargetKind, name: &str) -> String {
    match kind.is_workload() {
        true => format!("{} {name}", kind.as_str()),
        false => kind.as_str().to_owned(),
    }
}

/// The authorizations about a service or its pods.
async fn authorizations(client: &Client, about: &About<'_>) -> anyhow::Result<Vec<Authorization>> {
    let api: Api<MeshAuthorization> = Api::namespaced(client.clone(), about.namespace);
    let all = api.list(&ListParams::default().limit(MOST)).await;
    let all = all.context("failed to read the MeshAuthorizations")?;
    let found = all.items.into_iter().map(|own| {
        let targets = own.spec.target_refs.iter();
        let targets = targets.filter(|target| about.has(target));
        Authorization {
            name: own.name_any(),
            action: own.spec.action,
            enforcement: own.spec.enforcement,
            of: targets.map(|own| of(own.kind, &own.name)).collect(),
            last_hour: own.status.and_then(|status| status.last_hour),
        }
    });
    Ok(found.filter(|own| !own.of.is_empty()).collect())
}

/// The pods that a service selects; none where it selects none itself.
async fn pods(client: &Client, namespace: &str, service: &Service) -> anyhow::Result<Vec<Pod>> {
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
        return Ok(Vec::new());
    };
    let labels: Vec<String> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = api
        .list(&ListParams::default().limit(MOST).labels(&labels.join(",")))
        .await;
    Ok(list.context("failed to read the pods")?.items)
}

fn text(told: &Told) -> String {
    let mut text = format!(
        "Service {} in {}: {} of {} pods have a proxy",
        told.service, told.namespace, told.proxied, told.pods
    );
    if let Some(from) = &told.from {
        text.push_str(&format!("\nRequests of the service account {from}"));
    }
    text.push_str("\n\n");
    if told.sets.is_empty() && told.workloads.is_empty() {
        text.push_str("No MeshPolicy is about it: requests that were not begun are tried again twice, and take as long as they take.\n");
    } else {
        let mut rows = vec![
            ["FIELD", "VALUE", "POLICY", "OF"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(told.sets.iter().map(|set| row(set, set.target)));
        for own in &told.workloads {
            let of = of(own.kind, &own.name);
            rows.extend(own.sets.iter().map(|set| row(set, &of)));
        }
        text.push_str(&output::table(&rows));
    }
    for (name, why) in &told.ignored {
        text.push_str(&format!("\nMeshPolicy {name} is ignored: {why}\n"));
    }
    if !told.authorizations.is_empty() {
        text.push('\n');
        text.push_str(&output::table(&who(&told.authorizations)));
    }
    output::plain(&text)
}

/// A field that is set, and of what.
fn row(set: &Set, of: &str) -> Vec<String> {
    let value = match &set.value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    vec![set.field.clone(), value, set.policy.clone(), of.to_owned()]
}

/// Who may come in, as a table.
fn who(all: &[Authorization]) -> Vec<Vec<String>> {
    let head = ["AUTHORIZATION", "ACTION", "ENFORCEMENT", "OF", "LAST HOUR"];
    let rows = all.iter().map(|own| {
        vec![
            own.name.clone(),
            format!("{:?}", own.action),
            format!("{:?}", own.enforcement),
            own.of.join(", "),
            own.last_hour.map(|own| own.to_string()).unwrap_or_default(),
        ]
    });
    [head.map(str::to_owned).to_vec()]
        .into_iter()
        .chain(rows)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_is_told_with_who_set_it() {
        let mut told = Told {
            service: "cart".to_owned(),
            namespace: "shop".to_owned(),
            from: None,
            pods: 3,
            proxied: 2,
            sets: vec![Set {
                field: "timeouts.request".to_owned(),
                value: json!("2s"),
                policy: "cart".to_owned(),
                target: "Service",
            }],
            workloads: vec![Workload {
                kind: TargetKind::Deployment,
                name: "cart".to_owned(),
                sets: vec![Set {
                    field: "inbound".to_owned(),
                    value: json!("Strict"),
                    policy: "pods".to_owned(),
                    target: "Deployment",
                }],
            }],
            ignored: BTreeMap::from([("odd".to_owned(), "spec: it says nothing".to_owned())]),
            authorizations: vec![Authorization {
                name: "no-tests".to_owned(),
                action: AuthorizationAction::Deny,
                enforcement: Enforcement::DryRun,
                of: vec!["Service".to_owned(), "Deployment cart".to_owned()],
                last_hour: Some(52),
            }],
        };
        assert_eq!(
            text(&told),
            "Service cart in shop: 2 of 3 pods have a proxy\n\n\
             FIELD             VALUE   POLICY  OF\n\
             timeouts.request  2s      cart    Service\n\
             inbound           Strict  pods    Deployment cart\n\n\
             MeshPolicy odd is ignored: spec: it says nothing\n\n\
             AUTHORIZATION  ACTION  ENFORCEMENT  OF                        LAST HOUR\n\
             no-tests       Deny    DryRun       Service, Deployment cart  52\n"
        );
        told.sets.clear();
        assert!(!text(&told).contains("No MeshPolicy"), "of a workload");
        told.workloads.clear();
        assert!(text(&told).contains("No MeshPolicy is about it"));
    }

    #[test]
    fn what_is_about_a_workload_is_about_the_services_of_its_pods() {
        let pod = |name: &str, labels: serde_json::Value| -> Pod {
            let pod = json!({"metadata": {"name": name, "labels": labels}});
            serde_json::from_value(pod).expect("a pod")
        };
        let proxied = json!({labels::PROXIED: "true", "pod-template-hash": "6c9c5f7d7"});
        let pods = [
            pod("cart-6c9c5f7d7-x2x8q", proxied.clone()),
            pod("cart-6c9c5f7d7-bbbbb", proxied),
            // Nobody keeps to anything for one without a proxy.
            pod(
                "db-0",
                json!({"controller-revision-hash": "db-1", "statefulset.kubernetes.io/pod-name": "db-0"}),
            ),
        ];
        let about = About {
            namespace: "shop",
            service: "cart",
            workloads: workloads(&pods),
        };
        for (kind, name, expected) in [
            (TargetKind::Deployment, "cart", true),
            (TargetKind::Service, "cart", true),
            (TargetKind::Namespace, "shop", true),
            (TargetKind::Deployment, "till", false),
            (TargetKind::DaemonSet, "cart", false),
            (TargetKind::StatefulSet, "db", false),
            (TargetKind::Service, "till", false),
        ] {
            let target = TargetRef {
                kind,
                name: name.to_owned(),
            };
            assert_eq!(about.has(&target), expected, "{}", of(kind, name));
        }
    }
}
