//! What the mesh does with a service, and who said so.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use fairlead_crds::labels;
use fairlead_crds::mesh::{AuthorizationAction, Enforcement, MeshAuthorization, MeshPolicy};
use fairlead_plan::Kind as _;
use fairlead_plan::mesh::{Caller, MeshPolicyKind, Set, covers, effective};
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
    /// Policies about it that are ignored, and why.
    ignored: BTreeMap<String, String>,
    /// The authorizations about it.
    authorizations: Vec<Authorization>,
}

/// Who may reach it, as one authorization says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    name: String,
    action: AuthorizationAction,
    enforcement: Enforcement,
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
    let is_about = |policy: &&&MeshPolicy| covers(&policy.spec.target_refs, namespace, name);
    let ignored = wrong.iter().filter(is_about).map(|own| {
        let why = MeshPolicyKind::validate(own).err().unwrap_or_default();
        (own.name_any(), fairlead_plan::problem::join_invalid(&why))
    });
    let pods = pods(client, namespace, &service).await?;
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
    let is_proxied = |pod: &&Pod| pod.labels().contains_key(labels::PROXIED);
    Ok(Told {
        service: name.to_owned(),
        namespace: namespace.to_owned(),
        from,
        proxied: pods.iter().filter(is_proxied).count(),
        pods: pods.len(),
        sets: effective(&valid, namespace, name, who).sets,
        ignored: ignored.collect(),
        authorizations: authorizations(client, namespace, name).await?,
    })
}

/// The authorizations about a service.
async fn authorizations(
    client: &Client,
    namespace: &str,
    service: &str,
) -> anyhow::Result<Vec<Authorization>> {
    let api: Api<MeshAuthorization> = Api::namespaced(client.clone(), namespace);
    let all = api.list(&ListParams::default().limit(MOST)).await;
    let all = all.context("failed to read the MeshAuthorizations")?;
    let about = all.items.into_iter();
    let about = about.filter(|own| covers(&own.spec.target_refs, namespace, service));
    let found = about.map(|own| Authorization {
        name: own.name_any(),
        action: own.spec.action,
        enforcement: own.spec.enforcement,
        last_hour: own.status.and_then(|status| status.last_hour),
    });
    Ok(found.collect())
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
    if told.sets.is_empty() {
        text.push_str("No MeshPolicy is about it: requests that were not begun are tried again twice, and take as long as they take.\n");
    } else {
        let mut rows = vec![
            ["FIELD", "VALUE", "POLICY", "OF"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(told.sets.iter().map(|set| {
            let value = match &set.value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            vec![
                set.field.clone(),
                value,
                set.policy.clone(),
                set.target.to_owned(),
            ]
        }));
        text.push_str(&output::table(&rows));
    }
    for (name, why) in &told.ignored {
        text.push_str(&format!("\nMeshPolicy {name} is ignored: {why}\n"));
    }
    if !told.authorizations.is_empty() {
        let head = ["AUTHORIZATION", "ACTION", "ENFORCEMENT", "LAST HOUR"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(told.authorizations.iter().map(|own| {
            vec![
                own.name.clone(),
                format!("{:?}", own.action),
                format!("{:?}", own.enforcement),
                own.last_hour.map(|own| own.to_string()).unwrap_or_default(),
            ]
        }));
        text.push('\n');
        text.push_str(&output::table(&rows));
    }
    output::plain(&text)
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
            ignored: BTreeMap::from([("odd".to_owned(), "spec: it says nothing".to_owned())]),
            authorizations: vec![Authorization {
                name: "no-tests".to_owned(),
                action: AuthorizationAction::Deny,
                enforcement: Enforcement::DryRun,
                last_hour: Some(52),
            }],
        };
        assert_eq!(
            text(&told),
            "Service cart in shop: 2 of 3 pods have a proxy\n\n\
             FIELD             VALUE  POLICY  OF\n\
             timeouts.request  2s     cart    Service\n\n\
             MeshPolicy odd is ignored: spec: it says nothing\n\n\
             AUTHORIZATION  ACTION  ENFORCEMENT  LAST HOUR\n\
             no-tests       Deny    DryRun       52\n"
        );
        told.sets.clear();
        assert!(text(&told).contains("No MeshPolicy is about it"));
    }
}
