//! The change of roots by the replica that leads: it asks all others what their proxies believe, takes one step at a time, and notes
//! in MeshTrust how far it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::mesh::{AuthoritySource, MeshTrust, MeshTrustSpec};
use fairlead_operator::lease::Lead;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::watch;
use x509_parser::pem::parse_x509_pem;

use super::brought::{self, BROUGHT};
use super::keep::{KeepError, Keeper, text};
use super::steps::{Heard, Timing, Wanted, decide, taken};
use super::{LEAF_LIFE, Material, SKEW, Slots};
use crate::facts::Facts;
use crate::serve::Replicas;

/// How often what there is is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often while something changes.
const BUSY: Duration = Duration::from_secs(1);
/// How many proxies that lag are named.
const NAMED: usize = 10;
/// The name of the one MeshTrust.
const NAME: &str = "fairlead";

/// How long what takes in a cluster.
const TIMING: Timing = Timing {
    settle: time::Duration::seconds(5),
    urgent: time::Duration::minutes(2),
    absent: time::Duration::minutes(5),
    // Until kubelet has brought the bundle to every pod, and proxies have asked for another certificate.
    renewal: time::Duration::minutes(5),
    leaf: time::Duration::new(LEAF_LIFE.as_secs() as i64, 0).saturating_add(SKEW),
};

/// Changes roots.
pub(crate) struct Change {
    /// Where roots are kept.
    pub(crate) keeper: Keeper,
    /// The cluster.
    pub(crate) facts: watch::Receiver<Option<Arc<Facts>>>,
    /// The replicas.
    pub(crate) replicas: Replicas,
}

/// What was noted last.
#[derive(Default)]
struct Noted {
    /// Whether there is a place for it.
    is_there: bool,
    status: Value,
}

impl Change {
    /// Takes one step after the other while this replica leads.
    pub(crate) async fn follow(&self, lead: &Lead) {
        let mut noted = Noted::default();
        while lead.holds() {
            let pause = match self.look(&mut noted).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "failed to look after the authority; it is tried again");
                    BUSY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes a step where one is due; how long until the next look.
    async fn look(&self, noted: &mut Noted) -> Result<Duration, KeepError> {
        let now = OffsetDateTime::now_utc();
        let facts = self.facts.borrow().clone();
        let known = facts.as_ref().and_then(|facts| facts.trust.clone());
        let spec = known.as_ref().map(|own| own.spec.clone());
        let spec = spec.unwrap_or_default();
        let life = time::Duration::days(i64::from(spec.root_days));
        let domain = &self.keeper.trust_domain;
        let Some((slots, version)) = self.keeper.read().await? else {
            let first = Material::make(domain, life, now).map_err(KeepError::Authority)?;
            self.keeper.write(&Slots::first(first, now), None).await?;
            tracing::info!("made the first root");
            return Ok(Duration::ZERO);
        };
        // Roots change only once the cluster is known: what is wanted is part of it.
        let Some(facts) = facts else { return Ok(BUSY) };
        let (wanted, problem) = self.wanted(&spec, now).await?;
        let is_changing = slots.iter().count() > 1;
        let heard = match is_changing {
            true => self.replicas.hear(&slots.bundle(), &facts).await,
            false => Heard::default(),
        };
        let decided = decide(&slots, &wanted, &heard, &TIMING, now);
        let (step, waiting) = decided.map_err(KeepError::Authority)?;
        let next = taken(&slots, step, wanted.brought, domain, life, now);
        if let Some(next) = next.map_err(KeepError::Authority)? {
            self.keeper.write(&next, version).await?;
            tracing::info!(?step, root = next.active().number, "changed the roots");
            return Ok(Duration::ZERO);
        }
        let status = status(&slots, is_changing.then_some(&heard), waiting, problem);
        noted.is_there |= known.is_some();
        self.note(status, noted).await;
        Ok(if is_changing { BUSY } else { LOOK })
    }

    async fn wanted(
        &self,
        spec: &MeshTrustSpec,
        now: OffsetDateTime,
    ) -> Result<(Wanted, Option<String>), KeepError> {
        let mut wanted = Wanted {
            root: spec.root,
            tainted: spec.tainted.iter().copied().collect(),
            brought: None,
            is_brought: spec.authority == AuthoritySource::Secret,
        };
        if !wanted.is_brought {
            return Ok((wanted, None));
        }
        let secret = self.keeper.secret(BROUGHT).await?;
        let (namespace, domain) = (&self.keeper.namespace, &self.keeper.trust_domain);
        Ok(
            match brought::read(secret.as_ref(), namespace, domain, now) {
                Ok(material) => {
                    wanted.brought = Some(material);
                    (wanted, None)
                }
                Err(problem) => (wanted, Some(problem)),
            },
        )
    }

    /// Notes how far it is, where that is not what was noted last.
    async fn note(&self, status: Value, noted: &mut Noted) {
        let api: Api<MeshTrust> = Api::all(self.keeper.client.clone());
        if !noted.is_there {
            let own = MeshTrust::new(NAME, MeshTrustSpec::default());
            match api.create(&PostParams::default(), &own).await {
                Ok(_) => noted.is_there = true,
                Err(kube::Error::Api(status)) if status.code == 409 => noted.is_there = true,
                Err(error) => tracing::warn!(%error, "failed to make the MeshTrust {NAME}"),
            }
        }
        if noted.status == status {
            return;
        }
        let params = PatchParams::default();
        let patch = Patch::Merge(json!({"status": status}));
        match api.patch_status(NAME, &params, &patch).await {
            Ok(_) => noted.status = status,
            Err(error) => tracing::warn!(%error, "failed to note the state of roots"),
        }
    }
}

/// What is noted; what there is not is taken away.
fn status(
    slots: &Slots,
    heard: Option<&Heard>,
    waiting: Option<String>,
    problem: Option<String>,
) -> Value {
    let roots: BTreeMap<u32, Value> = slots
        .iter()
        .map(|slot| {
            let end = slot.material.life().map(|(_, end)| text(end));
            let root = json!({
                "number": slot.number,
                "phase": slot.phase,
                "fingerprint": fingerprint(&slot.material.root),
                "notAfter": end.unwrap_or_default(),
            });
            (slot.number, root)
        })
        .collect();
    let active = slots.active().number;
    let lagging: Vec<&String> = heard
        .iter()
        .flat_map(|own| own.names())
        .take(NAMED)
        .collect();
    json!({
        "root": active,
        "notAfter": roots.get(&active).map(|root| root["notAfter"].clone()),
        "roots": roots.into_values().collect::<Vec<_>>(),
        "proxies": heard.map(|own| own.connected),
        "lagging": (!lagging.is_empty()).then_some(lagging),
        "waiting": waiting,
        "problem": problem,
    })
}

/// The SHA-256 of a certificate in PEM.
fn fingerprint(certificate: &str) -> String {
    let pem = parse_x509_pem(certificate.as_bytes());
    let digest = pem.map(|(_, pem)| Sha256::digest(&pem.contents));
    let bytes = digest.iter().flatten();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
