//! What the API server refuses, and how it says so: by the schema's own rules and by the webhook.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fairlead_e2e::mesh::service_address;
use fairlead_e2e::{Cluster, SYSTEM, documents, get, program, samples};
use k8s_openapi::ByteString;
use kube::api::ListParams;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const WEBHOOK: &str = "fairlead-webhook";

async fn refused(cluster: &Cluster, object: &Value, parts: &[&str]) -> Result<()> {
    let message = cluster.refusal(object).await?;
    for part in parts {
        ensure!(
            message.contains(part),
            "the refusal does not say {part:?}: {message}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn two_definitions_that_serve_the_same_are_refused_with_both_named() -> Result<()> {
    let cluster = Cluster::connect().await?;
    cluster
        .apply_one(&samples::class("adm-amb", "default", false))
        .await?;
    cluster
        .apply_one(&samples::definition(
            "adm-amb-one",
            "adm-amb",
            json!([{"application": "a"}]),
        ))
        .await?;
    let second = samples::definition(
        "adm-amb-two",
        "adm-amb",
        json!([{"class": "default", "application": "a"}]),
    );
    // The webhook's cache may be a moment behind.
    cluster
        .eventually("the second definition is refused", async || {
            match cluster.refusal(&second).await {
                Ok(message) => Ok(message.contains("adm-amb-one").then_some(())),
                Err(_) => {
                    let api = cluster.platform("ResourceDefinition", "").await?;
                    api.delete("adm-amb-two", &Default::default()).await?;
                    Ok(None)
                }
            }
        })
        .await
}

#[tokio::test]
async fn specs_that_break_a_rule_are_refused_with_the_field() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("adm-specs").await?;
    cluster
        .apply_one(&samples::class("adm-spec", "default", false))
        .await?;
    let workload = |variables: Value, resources: Value| {
        samples::workload(&application, "web", variables, resources)
    };
    refused(
        &cluster,
        &workload(json!({"A": "${resources.db.host}"}), json!({})),
        &[
            "spec.containers.main.variables.A",
            "spec.resources has none",
        ],
    )
    .await?;
    refused(
        &cluster,
        &workload(json!({"A": "${1 +}"}), json!({})),
        &["spec.containers.main.variables.A"],
    )
    .await?;
    let mut circle = workload(json!({}), json!({}));
    circle["spec"]["containers"]["main"]["before"] = json!({"other": {"ready": "started"}});
    circle["spec"]["containers"]["other"] =
        json!({"image": "a", "before": {"main": {"ready": "started"}}});
    refused(&cluster, &circle, &["before goes in a circle"]).await?;
    let mut long = workload(json!({}), json!({}));
    long["metadata"]["name"] = "x".repeat(41).into();
    refused(&cluster, &long, &["at most 40 characters"]).await?;
    let mut environment = samples::environment(&application, "dev", "Manual");
    environment["spec"]["namespace"] = application.clone().into();
    refused(
        &cluster,
        &environment,
        &["spec.namespace", "an environment needs one of its own"],
    )
    .await?;
    let mut class = samples::class("adm-other", "default", false);
    class["metadata"]["name"] = "wrong".into();
    refused(
        &cluster,
        &class,
        &["metadata.name must be <spec.type>.<spec.class>"],
    )
    .await?;
    let mut secret = samples::definition("adm-secret", "adm-spec", json!([{}]));
    secret["spec"]["outputs"][0]["value"] = "${generated.password}".into();
    refused(
        &cluster,
        &secret,
        &["spec.outputs[host]", "does not mark the output secret"],
    )
    .await?;
    let mut unknown = samples::definition("adm-unknown", "adm-spec", json!([{}]));
    unknown["spec"]["manifests"][0]["object"]["data"]["size"] = "${resources.other.host}".into();
    refused(
        &cluster,
        &unknown,
        &[
            "spec.manifests[config].object.data.size",
            "names nothing that exists",
        ],
    )
    .await?;
    let fairlead = json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "Fairlead", "metadata": {"name": "second"}, "spec": {}});
    refused(&cluster, &fairlead, &["metadata.name must be fairlead"]).await
}

#[tokio::test]
async fn a_secret_in_a_plain_place_is_refused() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("adm-secret").await?;
    cluster
        .apply_one(&samples::class("adm-sec", "default", false))
        .await?;
    let mut workload = samples::workload(
        &application,
        "web",
        json!({}),
        json!({"db": {"type": "adm-sec"}}),
    );
    workload["spec"]["metadata"] = json!({"annotations": {"note": "${resources.db.password}"}});
    cluster
        .eventually("the annotation is refused", async || {
            match cluster.refusal(&workload).await {
                Ok(message) => Ok(message
                    .contains("is secret and may stand in variables and files only")
                    .then_some(())),
                Err(_) => Ok(None),
            }
        })
        .await
}

#[tokio::test]
async fn a_release_cannot_be_edited_and_an_object_of_a_megabyte_is_answered() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("adm-release").await?;
    cluster
        .apply_one(&samples::environment(&application, "dev", "Manual"))
        .await?;
    let workload = samples::workload(&application, "web", json!({}), json!({}));
    let release = |name: &str, image: &str| {
        let mut spec = workload["spec"].clone();
        spec["containers"]["main"]["image"] = image.into();
        json!({
            "apiVersion": "platform.fairlead.dev/v1alpha1",
            "kind": "Release",
            "metadata": {"name": name, "namespace": application},
            "spec": {"environment": "dev", "workloads": [{"name": "web", "spec": spec}]},
        })
    };
    cluster
        .apply_one(&release("dev-1", "localhost/shop:dev"))
        .await?;
    refused(
        &cluster,
        &release("dev-1", "localhost/shop:other"),
        &["a release cannot be changed"],
    )
    .await?;
    let mut large = workload.clone();
    large["spec"]["containers"]["main"]["files"] = json!(
        (0..5)
            .map(|n| json!({"target": format!("/data/{n}"), "content": "x".repeat(250_000)}))
            .collect::<Vec<_>>()
    );
    // Above what a placeholder text may have: refused by the rule, not by a time-out or a crash.
    refused(&cluster, &large, &["spec.containers.main.files"]).await
}

/// A certificate and its key, in PEM.
type Identity = (Vec<u8>, Vec<u8>);

/// What the webhook answers a client on this machine that shows such a certificate; nothing where it is not let in.
async fn ask(cluster: &Cluster, identity: Option<Identity>) -> Result<Option<String>> {
    let api = cluster.api(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        None,
    );
    let own = api.await?.get(WEBHOOK).await?;
    let bundle = &own.data["webhooks"][0]["clientConfig"]["caBundle"];
    let bundle: ByteString = serde_json::from_value(bundle.clone())?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&bundle.0) {
        roots.add(root?)?;
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
        }
    };
    let address = service_address(cluster, SYSTEM, WEBHOOK).await?;
    let stream = TcpStream::connect((address, 443)).await?;
    let name = ServerName::try_from(format!("{WEBHOOK}.{SYSTEM}.svc"))?;
    let exchange = async {
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await?;
        let request = "POST /validate HTTP/1.1\r\nhost: webhook\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    Ok(exchange.await.ok().filter(|answer| !answer.is_empty()))
}

/// The certificate by which these tests are the cluster's administrator.
fn administrator() -> Result<Identity> {
    let text = std::fs::read_to_string(program("KUBECONFIG")?);
    let all = documents(&text.context("failed to read the kubeconfig")?)?;
    let own = &all.first().context("the kubeconfig is empty")?["users"][0]["user"];
    let data = |name: &str| -> Result<Vec<u8>> {
        let found = own[name].clone();
        let bytes: ByteString = serde_json::from_value(found)
            .with_context(|| format!("the kubeconfig has no {name}"))?;
        Ok(bytes.0)
    };
    Ok((data("client-certificate-data")?, data("client-key-data")?))
}

/// How many connections the webhook refused so far.
async fn refusals(cluster: &Cluster) -> Result<u64> {
    let pods = cluster.api("v1", "Pod", Some(SYSTEM)).await?;
    let list = ListParams::default().labels("app.kubernetes.io/component=webhook");
    let mut all = 0;
    for pod in pods.list(&list).await?.items {
        let address = pod.data["status"]["podIP"].as_str().unwrap_or_default();
        let (status, text) = get(address, 8080, "/metrics").await?;
        ensure!(status == 200, "{status}: {text}");
        let mut lines = text.lines();
        let count =
            lines.find_map(|line| line.strip_prefix("fairlead_admission_refused_callers_total "));
        all += count.context("the refusals are counted")?.parse::<u64>()?;
    }
    Ok(all)
}

#[tokio::test]
async fn only_the_api_server_is_answered() -> Result<()> {
    let cluster = Cluster::connect().await?;
    // Given an installation that says by which name the API server calls
    let installation = cluster
        .api("fairlead.dev/v1alpha1", "Fairlead", None)
        .await?;
    let own = installation.get("fairlead").await?;
    let callers = &own.data["spec"]["components"]["webhook"]["callers"];
    let name = callers["names"][0].as_str().with_context(|| {
        format!("install with components.webhook.callers, for an API server that shows a certificate; found {callers}")
    })?;
    cluster.ready(&installation, "fairlead").await?;
    let before = refusals(&cluster).await?;
    // When somebody else asks: without a certificate, with one of the cluster's authority for another name, with one of the right
    // name by another authority
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate()?;
    let other = (
        params.self_signed(&key)?.pem().into_bytes(),
        key.serialize_pem().into_bytes(),
    );
    let all = [None, Some(administrator()?), Some(other)];
    let count = u64::try_from(all.len())?;
    for identity in all {
        let answer = ask(&cluster, identity).await?;
        // Then it is not answered
        ensure!(answer.is_none(), "{answer:?}");
    }
    let now = refusals(&cluster).await?;
    ensure!(now >= before + count, "{now} were refused, {before} before");
    // And the API server is
    let mut environment = samples::environment("default", "adm-callers", "Manual");
    environment["spec"]["namespace"] = "default".into();
    refused(
        &cluster,
        &environment,
        &["spec.namespace", "an environment needs one of its own"],
    )
    .await
}
