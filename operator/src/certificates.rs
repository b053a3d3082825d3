//! The certificate authority of the webhook: made on the first start by the leader, kept in Secrets, renewed in time.
//!
//! The root (P-256) lives in the Secret `fairlead-ca` and holds for a year; a quarter before its end the next one is made beside
//! it, both are in the caBundle, and only a day later leaves are signed by the new one. Leaves hold for a day and are renewed at
//! two thirds, into the Secret `fairlead-webhook-tls`, which the webhook's pods mount and read again when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Error};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

use crate::world::World;

const ROOT_SECRET: &str = "fairlead-ca";
const LEAF_SECRET: &str = "fairlead-webhook-tls";
const ROOT_LIFE: time::Duration = time::Duration::days(365);
const LEAF_LIFE: time::Duration = time::Duration::hours(24);
/// How long a new root is only trusted before it signs.
const PREPARE: time::Duration = time::Duration::hours(24);
/// How far the clocks of others may be behind.
const SKEW: time::Duration = time::Duration::minutes(5);
/// How often the certificates are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error("failed to make a certificate: {source}")]
    Make { source: rcgen::Error },
    #[error("failed to read or write the Secret {name}: {source}")]
    Secret {
        name: &'static str,
        source: Box<Error>,
    },
}

impl From<rcgen::Error> for CertificateError {
    fn from(source: rcgen::Error) -> Self {
        Self::Make { source }
    }
}

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: String,
    key: String,
}

/// Keeps the certificates for as long as it is polled; calls `changed` when the bundle did.
pub(crate) async fn keep(world: Arc<World>, namespace: String, changed: impl Fn() + Send) {
    let api: Api<Secret> = Api::namespaced(world.client.clone(), &namespace);
    loop {
        match ensure(&api, &namespace).await {
            Ok(bundle) => {
                let operator = world.operator.load();
                if operator.ca_bundle.as_ref() != Some(&bundle) {
                    let mut next = operator.as_ref().clone();
                    next.ca_bundle = Some(bundle);
                    world.operator.store(Arc::new(next));
                    changed();
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => {
                tracing::warn!(%error, "failed to keep the certificates; it is tried again");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

/// Makes what is missing or due and returns the bundle of roots.
async fn ensure(api: &Api<Secret>, namespace: &str) -> Result<String, CertificateError> {
    let now = OffsetDateTime::now_utc();
    let found = get(api, ROOT_SECRET).await?;
    let mut roots = roots_of(found.as_ref());
    let wanted = rotate(&roots, now)?;
    if wanted != roots {
        put(api, ROOT_SECRET, found, root_data(&wanted)).await?;
        roots = wanted;
    }
    let found = get(api, LEAF_SECRET).await?;
    let signer = signer(&roots, now);
    let leaf = found
        .as_ref()
        .and_then(|secret| pair(secret, "tls.crt", "tls.key"));
    if leaf.as_ref().is_none_or(|leaf| is_due(leaf, signer, now)) {
        let leaf = leaf_for(signer, namespace, now)?;
        let data = BTreeMap::from([
            ("tls.crt".to_owned(), leaf.certificate),
            ("tls.key".to_owned(), leaf.key),
        ]);
        put(api, LEAF_SECRET, found, data).await?;
        tracing::info!("renewed the webhook's certificate");
    }
    Ok(roots.iter().map(|root| root.certificate.as_str()).collect())
}

async fn get(api: &Api<Secret>, name: &'static str) -> Result<Option<Secret>, CertificateError> {
    api.get_opt(name)
        .await
        .map_err(|source| CertificateError::Secret {
            name,
            source: Box::new(source),
        })
}

/// Creates or replaces a Secret at the version that was read, so that two writers never mix.
async fn put(
    api: &Api<Secret>,
    name: &'static str,
    found: Option<Secret>,
    data: BTreeMap<String, String>,
) -> Result<(), CertificateError> {
    let exists = found.is_some();
    let mut secret = found.unwrap_or_default();
    secret.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        resource_version: secret.metadata.resource_version,
        labels: Some(fairlead_crds::labels::managed()),
        ..ObjectMeta::default()
    };
    secret.data = Some(
        data.into_iter()
            .map(|(key, value)| (key, ByteString(value.into_bytes())))
            .collect(),
    );
    let params = PostParams::default();
    let written = if exists {
        api.replace(name, &params, &secret).await
    } else {
        api.create(&params, &secret).await
    };
    written
        .map(|_| ())
        .map_err(|source| CertificateError::Secret {
            name,
            source: Box::new(source),
        })
}

fn pair(secret: &Secret, certificate: &str, key: &str) -> Option<Pair> {
    let text = |name: &str| {
        let bytes = secret.data.as_ref()?.get(name)?;
        String::from_utf8(bytes.0.clone()).ok()
    };
    Some(Pair {
        certificate: text(certificate)?,
        key: text(key)?,
    })
}

/// The roots of the Secret: the one that signs first, then the next.
fn roots_of(secret: Option<&Secret>) -> Vec<Pair> {
    let Some(secret) = secret else {
        return Vec::new();
    };
    [("ca.crt", "ca.key"), ("next.crt", "next.key")]
        .into_iter()
        .filter_map(|(certificate, key)| pair(secret, certificate, key))
        .collect()
}

fn root_data(roots: &[Pair]) -> BTreeMap<String, String> {
    let names = [("ca.crt", "ca.key"), ("next.crt", "next.key")];
    roots
        .iter()
        .zip(names)
        .flat_map(|(root, (certificate, key))| {
            [
                (certificate.to_owned(), root.certificate.clone()),
                (key.to_owned(), root.key.clone()),
            ]
        })
        .collect()
}

/// The roots as they should be: expired ones gone, the next one made in time.
fn rotate(roots: &[Pair], now: OffsetDateTime) -> Result<Vec<Pair>, CertificateError> {
    let mut kept: Vec<Pair> = roots
        .iter()
        .filter(|root| validity(root).is_some_and(|(_, end)| end > now))
        .cloned()
        .collect();
    kept.truncate(2);
    let last_end = kept.last().and_then(validity).map(|(_, end)| end);
    if last_end.is_none_or(|end| end - now < ROOT_LIFE / 4) {
        if kept.len() == 2 {
            kept.remove(0);
        }
        kept.push(new_root(now)?);
    }
    Ok(kept)
}

/// The root that signs: the newest that has been trusted for long enough, else the oldest.
fn signer(roots: &[Pair], now: OffsetDateTime) -> &Pair {
    let ready = roots
        .iter()
        .rev()
        .find(|root| validity(root).is_some_and(|(start, _)| now - start >= PREPARE + SKEW));
    ready.unwrap_or(&roots[0])
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.certificate)
    }
}

fn validity(pair: &Pair) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let (_, pem) = parse_x509_pem(pair.certificate.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some((
        certificate.validity().not_before.to_datetime(),
        certificate.validity().not_after.to_datetime(),
    ))
}

/// True where two thirds of a leaf's life are over, or another root signs by now.
fn is_due(leaf: &Pair, signer: &Pair, now: OffsetDateTime) -> bool {
    let Some((start, end)) = validity(leaf) else {
        return true;
    };
    let issued = parse_x509_pem(leaf.certificate.as_bytes())
        .ok()
        .and_then(|(_, pem)| {
            let root = parse_x509_pem(signer.certificate.as_bytes()).ok()?.1;
            let root = root.parse_x509().ok()?;
            Some(pem.parse_x509().ok()?.issuer().to_string() == root.subject().to_string())
        });
    issued != Some(true) || now >= start + (end - start) * 2 / 3
}

fn new_root(now: OffsetDateTime) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "fairlead");
    name.push(
        DnType::CommonName,
        format!("fairlead webhook root {}", now.unix_timestamp()),
    );
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - SKEW;
    params.not_after = now + ROOT_LIFE;
    let certificate = params.self_signed(&key)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn leaf_for(root: &Pair, namespace: &str, now: OffsetDateTime) -> Result<Pair, CertificateError> {
    let issuer = Issuer::from_ca_cert_pem(&root.certificate, KeyPair::from_pem(&root.key)?)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let service = "fairlead-webhook";
    let names = [
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
    ];
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, service);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = now - SKEW;
    params.not_after = now + LEAF_LIFE;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_made_once_and_the_next_one_in_time() {
        let start = OffsetDateTime::now_utc();
        let first = rotate(&[], start).expect("a root can be made");
        assert_eq!(first.len(), 1);
        assert_eq!(
            rotate(&first, start + time::Duration::days(200)).expect("nothing is made"),
            first
        );
        let later = start + time::Duration::days(300);
        let two = rotate(&first, later).expect("the next root can be made");
        assert_eq!((two.len(), &two[0]), (2, &first[0]));
        assert_eq!(
            signer(&two, later),
            &first[0],
            "a root that is not trusted everywhere yet must not sign"
        );
        assert_eq!(signer(&two, later + PREPARE), &two[1]);
        let end = start + time::Duration::days(366);
        assert_eq!(rotate(&two, end).expect("the old root goes"), two[1..]);
    }

    #[test]
    fn a_leaf_is_renewed_at_two_thirds_and_when_the_root_changes() {
        let now = OffsetDateTime::now_utc();
        let root = new_root(now).expect("a root can be made");
        let leaf = leaf_for(&root, "fairlead-system", now).expect("a leaf can be made");
        assert!(!is_due(&leaf, &root, now + time::Duration::hours(15)));
        assert!(is_due(&leaf, &root, now + time::Duration::hours(17)));
        let other = new_root(now + time::Duration::seconds(5)).expect("a root can be made");
        assert!(is_due(&leaf, &other, now));
    }
}
