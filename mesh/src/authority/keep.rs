//! The roots in a Secret, which every replica follows. Every write is at the version that was read, so that two never mix.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_crds::mesh::RootPhase;
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use super::{Authority, AuthorityError, Material, Pair, Slot, Slots};

/// The name of the Secret.
pub(super) const SECRET: &str = fairlead_plan::rights::MESH_SECRETS[0];
/// The field that lists the roots.
const ROOTS: &str = "roots.json";

/// Why roots are not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    /// What is kept is none, or none can be made.
    #[error(transparent)]
    Authority(AuthorityError),
    /// The API server did not do as it was asked.
    #[error("failed to read or write the Secret {name}: {source}")]
    Secret {
        /// Its name.
        name: &'static str,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// Something is missing.
    #[error("the Secret {SECRET} lacks {field}")]
    Field {
        /// The field.
        field: String,
    },
    /// The list is none.
    #[error("the Secret {SECRET} has no list of roots in {ROOTS}: {cause}")]
    List {
        /// Why.
        cause: String,
    },
}

/// Where the roots are kept, and for whom.
#[derive(Clone)]
pub struct Keeper {
    /// The cluster.
    pub client: Client,
    /// The namespace of the Secret.
    pub namespace: String,
    /// The trust domain.
    pub trust_domain: String,
}

/// A root in the list.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    number: u32,
    phase: RootPhase,
    since: String,
    #[serde(default)]
    is_tainted: bool,
}

/// The list.
#[derive(Serialize, Deserialize)]
struct List {
    last: u32,
    roots: Vec<Listed>,
}

/// Follows the Secret for as long as it is polled.
pub async fn keep(keeper: Keeper, current: watch::Sender<Option<Arc<Authority>>>) {
    let stream = watcher::watch_object(keeper.secrets(), SECRET).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut known: Option<Slots> = None;
    while let Some(next) = stream.next().await {
        let found = match next {
            Ok(Some(secret)) => slots(&secret),
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "failed to watch the Secret {SECRET}; it is tried again");
                continue;
            }
        };
        let made = found.and_then(|found| {
            let authority = Authority::of(&found).map_err(KeepError::Authority)?;
            Ok((found, authority))
        });
        match made {
            Ok((found, _)) if known.as_ref() == Some(&found) => {}
            Ok((found, authority)) => {
                tracing::info!(root = found.active().number, "the authority is ready");
                current.send_replace(Some(Arc::new(authority)));
                known = Some(found);
            }
            Err(error) => tracing::error!(%error, "the authority cannot be used"),
        }
    }
}

impl Keeper {
    pub(super) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What is kept, and its version.
    pub(super) async fn read(&self) -> Result<Option<(Slots, Option<String>)>, KeepError> {
        let Some(found) = self.secret(SECRET).await? else {
            return Ok(None);
        };
        Ok(Some((slots(&found)?, found.metadata.resource_version)))
    }

    /// A Secret.
    pub(super) async fn secret(&self, name: &'static str) -> Result<Option<Secret>, KeepError> {
        let found = self.secrets().get_opt(name).await;
        found.map_err(|source| KeepError::Secret {
            name,
            source: Box::new(source),
        })
    }

    /// Keeps these, in the place of that version or for the first time.
    pub(super) async fn write(
        &self,
        slots: &Slots,
        version: Option<String>,
    ) -> Result<(), KeepError> {
        let params = PostParams::default();
        let secret = secret(slots, version.clone());
        let api = self.secrets();
        let written = match version {
            None => api.create(&params, &secret).await,
            Some(_) => api.replace(SECRET, &params, &secret).await,
        };
        written.map(drop).map_err(|source| KeepError::Secret {
            name: SECRET,
            source: Box::new(source),
        })
    }
}

/// A time as it is written.
pub(super) fn text(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// The names in the Secret of a root's parts: certificate and key of the root and of the issuer.
fn fields(number: u32) -> [String; 4] {
    ["root.crt", "root.key", "issuer.crt", "issuer.key"].map(|part| format!("{number}.{part}"))
}

fn secret(slots: &Slots, version: Option<String>) -> Secret {
    let mut data = BTreeMap::new();
    let mut roots = Vec::new();
    for slot in slots.iter() {
        let own = &slot.material;
        let parts = [
            Some(&own.root),
            own.root_key.as_ref(),
            Some(&own.issuer.certificate),
            Some(&own.issuer.key),
        ];
        for (name, part) in fields(slot.number).into_iter().zip(parts) {
            if let Some(part) = part {
                data.insert(name, ByteString(part.clone().into_bytes()));
            }
        }
        roots.push(Listed {
            number: slot.number,
            phase: slot.phase,
            since: text(slot.since),
            is_tainted: slot.is_tainted,
        });
    }
    let last = slots.last();
    let list = serde_json::json!(List { last, roots });
    data.insert(ROOTS.to_owned(), ByteString(list.to_string().into_bytes()));
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            resource_version: version,
            labels: Some(fairlead_crds::labels::managed()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..Secret::default()
    }
}

fn slots(secret: &Secret) -> Result<Slots, KeepError> {
    let part = |field: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(field));
        bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
    };
    let needed = |field: String| part(&field).ok_or(KeepError::Field { field });
    let wrong = |cause: String| KeepError::List { cause };
    let list: List = serde_json::from_str(&needed(ROOTS.to_owned())?)
        .map_err(|error| wrong(error.to_string()))?;
    let mut all = Vec::new();
    for listed in list.roots {
        let [root, root_key, certificate, key] = fields(listed.number);
        let since = OffsetDateTime::parse(&listed.since, &Rfc3339);
        all.push(Slot {
            number: listed.number,
            phase: listed.phase,
            since: since.map_err(|error| wrong(error.to_string()))?,
            is_tainted: listed.is_tainted,
            material: Material {
                root: needed(root)?,
                root_key: part(&root_key),
                issuer: Pair {
                    certificate: needed(certificate)?,
                    key: needed(key)?,
                },
            },
        });
    }
    Slots::of(all, list.last).map_err(KeepError::Authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).expect("a time");
        let make =
            || Material::make("cluster.local", time::Duration::days(9), now).expect("it is made");
        let brought = Material {
            root_key: None,
            ..make()
        };
        let first = Slots::first(make(), now).prepared(brought, now);
        let kept = first.activated(true, now).prepared(make(), now).without(3);
        let mut secret = secret(&kept, None);
        assert_eq!(slots(&secret).expect("it is whole"), kept);
        secret.data.as_mut().map(|data| data.remove("2.issuer.key"));
        let error = slots(&secret).expect_err("it lacks something").to_string();
        assert_eq!(error, "the Secret fairlead-mesh-ca lacks 2.issuer.key");
    }
}
