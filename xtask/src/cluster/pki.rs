//! The certificates of one cluster and the kubeconfigs that carry them. Made anew by every `up`; valid for a
//! year, which no such cluster lives.

use std::net::IpAddr;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::layout::Layout;
use crate::paths::{write, write_secret};

/// The name by which the API server calls webhooks.
pub(crate) const WEBHOOK_CALLER: &str = "kube-apiserver-webhook-client";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Writes everything under `pki/` and one kubeconfig for each program that needs one.
pub(crate) fn write_all(layout: &Layout) -> Result<()> {
    let cluster = authority(layout, "ca", "fairlead-cluster")?;
    // With one authority for both the API server would refuse to start.
    let front = authority(layout, "front-proxy-ca", "fairlead-front-proxy")?;
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        &layout.name,
        "127.0.0.1",
        &layout.api_service_address(),
        &layout.node_address(),
        &layout.host_address(),
    ];
    leaf(
        layout,
        &cluster,
        "apiserver",
        "kube-apiserver",
        None,
        &names,
    )?;
    leaf(
        layout,
        &cluster,
        "kubelet",
        &format!("system:node:{}", layout.name),
        Some("system:nodes"),
        &[layout.name.as_str(), &layout.node_address()],
    )?;
    leaf(
        layout,
        &cluster,
        "apiserver-kubelet-client",
        "kube-apiserver-kubelet-client",
        Some("system:masters"),
        &[],
    )?;
    leaf(
        layout,
        &front,
        "front-proxy-client",
        "front-proxy-client",
        None,
        &[],
    )?;
    leaf(
        layout,
        &cluster,
        "apiserver-webhook-client",
        WEBHOOK_CALLER,
        None,
        &[],
    )?;
    let key = KeyPair::generate().context("failed to make the key of service accounts")?;
    write_secret(
        &layout.file("pki/service-accounts.key"),
        key.serialize_pem(),
    )?;
    write(
        &layout.file("pki/service-accounts.pub"),
        key.public_key_pem(),
    )?;

    for (file, user, group) in [
        ("kubeconfig", "kubernetes-admin", Some("system:masters")),
        (
            "controller-manager.kubeconfig",
            "system:kube-controller-manager",
            None,
        ),
        ("scheduler.kubeconfig", "system:kube-scheduler", None),
        ("kube-proxy.kubeconfig", "system:kube-proxy", None),
        (
            "coredns.kubeconfig",
            "system:coredns",
            Some("system:masters"),
        ),
        (
            "local-volumes.kubeconfig",
            "system:local-volumes",
            Some("system:masters"),
        ),
    ] {
        let (certificate, key) = issue(&cluster, user, group, &[])?;
        kubeconfig(layout, file, user, &cluster.certificate, &certificate, &key)?;
    }
    let node = format!("system:node:{}", layout.name);
    let (certificate, key) = issue(&cluster, &node, Some("system:nodes"), &[])?;
    kubeconfig(
        layout,
        "kubelet.kubeconfig",
        &node,
        &cluster.certificate,
        &certificate,
        &key,
    )
}

fn authority(layout: &Layout, file: &str, name: &str) -> Result<Authority> {
    let key = KeyPair::generate().context("failed to make a key")?;
    let mut params = params(name, None, &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.extended_key_usages.clear();
    let certificate = params
        .self_signed(&key)
        .with_context(|| format!("failed to sign {name}"))?
        .pem();
    write(&layout.file(&format!("pki/{file}.crt")), &certificate)?;
    write_secret(
        &layout.file(&format!("pki/{file}.key")),
        key.serialize_pem(),
    )?;
    Ok(Authority {
        issuer: Issuer::new(params, key),
        certificate,
    })
}

fn leaf(
    layout: &Layout,
    authority: &Authority,
    file: &str,
    name: &str,
    group: Option<&str>,
    hosts: &[&str],
) -> Result<()> {
    let (certificate, key) = issue(authority, name, group, hosts)?;
    write(&layout.file(&format!("pki/{file}.crt")), certificate)?;
    write_secret(&layout.file(&format!("pki/{file}.key")), key)
}

fn issue(
    authority: &Authority,
    name: &str,
    group: Option<&str>,
    hosts: &[&str],
) -> Result<(String, String)> {
    let key = KeyPair::generate().context("failed to make a key")?;
    let certificate = params(name, group, hosts)?
        .signed_by(&key, &authority.issuer)
        .with_context(|| format!("failed to sign {name}"))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn params(name: &str, group: Option<&str>, hosts: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    // An hour back, as clocks of containers and machines differ.
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(365);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    for host in hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(
                (*host)
                    .try_into()
                    .with_context(|| format!("failed to use the name {host}"))?,
            ),
        });
    }
    Ok(params)
}

fn kubeconfig(
    layout: &Layout,
    file: &str,
    user: &str,
    authority: &str,
    certificate: &str,
    key: &str,
) -> Result<()> {
    let context = format!("fairlead-{}", layout.name);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": {
            "server": layout.api_url(),
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        }}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
    });
    write_secret(
        &layout.file(file),
        serde_json::to_string_pretty(&config).context("failed to write a kubeconfig")?,
    )
}
