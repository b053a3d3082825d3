//! The authority's material in a Secret: made by the first replica that finds none, read by all, its issuer renewed by whoever is
//! first. Every write is at the version that was read, so that two replicas never mix.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{Authority, AuthorityError, Material, Pair};

/// The name of the Secret.
const SECRET: &str = "fairlead-mesh-ca";
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(30);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// The names in the Secret: the certificate, and its key.
const ROOT: (&str, &str) = ("root.crt", "root.key");
const ISSUER: (&str, &str) = ("issuer.crt", "issuer.key");

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Authority(AuthorityError),
    #[error("failed to read or write the Secret {SECRET}: {source}")]
    Secret { source: Box<kube::Error> },
    #[error("the Secret {SECRET} lacks {field}")]
    Field { field: &'static str },
}

/// Where the material is kept, and for whom.
#[derive(Clone)]
pub struct Keeper {
    /// The cluster.
    pub client: Client,
    /// The namespace of the Secret.
    pub namespace: String,
    /// The trust domain.
    pub trust_domain: String,
}

/// Keeps the authority for as long as it is polled.
pub async fn keep(keeper: Keeper, current: watch::Sender<Option<Arc<Authority>>>) {
    let mut known: Option<Material> = None;
    loop {
        let pause = match keeper.look().await {
            Ok(material) if known.as_ref() == Some(&material) => LOOK,
            Ok(material) => match Authority::of(&material) {
                Ok(authority) => {
                    tracing::info!("the authority is ready");
                    current.send_replace(Some(Arc::new(authority)));
                    known = Some(material);
                    LOOK
                }
                Err(error) => {
                    tracing::error!(%error, "the authority cannot be used");
                    LOOK
                }
            },
            Err(error) => {
                tracing::warn!(%error, "failed to keep the authority; it is tried again");
                PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Keeper {
    /// Makes what is missing or due, and returns what is kept.
    async fn look(&self) -> Result<Material, KeepError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let failed = |source| KeepError::Secret {
            source: Box::new(source),
        };
        let found = api.get_opt(SECRET).await.map_err(failed)?;
        let now = OffsetDateTime::now_utc();
        let params = PostParams::default();
        let Some(found) = found else {
            let made = Material::make(&self.trust_domain, now).map_err(KeepError::Authority)?;
            let secret = secret(&made, None);
            // Whoever was first has made it.
            return match api.create(&params, &secret).await {
                Ok(_) => Ok(made),
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    material(&api.get(SECRET).await.map_err(failed)?)
                }
                Err(error) => Err(failed(error)),
            };
        };
        let known = material(&found)?;
        let renewed = known.renewed(&self.trust_domain, now);
        let Some(renewed) = renewed.map_err(KeepError::Authority)? else {
            return Ok(known);
        };
        let secret = secret(&renewed, found.metadata.resource_version);
        api.replace(SECRET, &params, &secret)
            .await
            .map_err(failed)?;
        tracing::info!("renewed the issuer of certificates");
        Ok(renewed)
    }
}

fn secret(material: &Material, version: Option<String>) -> Secret {
    let data = [(ROOT, &material.root), (ISSUER, &material.issuer)];
    let data = data.into_iter().flat_map(|((certificate, key), pair)| {
        [(certificate, &pair.certificate), (key, &pair.key)]
            .map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes())))
    });
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            resource_version: version,
            labels: Some(BTreeMap::from([(
                fairlead_crds::labels::MANAGED_BY.to_owned(),
                fairlead_crds::labels::MANAGER.to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        data: Some(data.collect()),
        ..Secret::default()
    }
}

fn material(secret: &Secret) -> Result<Material, KeepError> {
    let text = |field: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(field));
        bytes
            .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
            .ok_or(KeepError::Field { field })
    };
    let pair = |(certificate, key)| -> Result<Pair, KeepError> {
        Ok(Pair {
            certificate: text(certificate)?,
            key: text(key)?,
        })
    };
    Ok(Material {
        root: pair(ROOT)?,
        issuer: pair(ISSUER)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let made = Material::make("cluster.local", OffsetDateTime::now_utc()).expect("it is made");
        let mut kept = secret(&made, None);
        assert_eq!(material(&kept).expect("it is whole"), made);
        kept.data.as_mut().map(|data| data.remove("issuer.key"));
        let error = material(&kept).expect_err("it lacks something").to_string();
        assert_eq!(error, "the Secret fairlead-mesh-ca lacks issuer.key");
    }
}
