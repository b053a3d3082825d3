//! What a control plane told, kept for a start without one: resources in their JSON form, without certificates and keys. Whom to
//! trust is no secret, though it is told as one.

use fairlead_model::cluster::Cluster;
use fairlead_model::listener::Listener;
use fairlead_model::tls::{Secret, SecretSource, TlsCommon};
use fairlead_model::{Moment, Snapshot};
use serde_json::{Value, json};

use super::{Outside, Session, Stamp};
use crate::{Kind, resource, write};

/// The kinds, in the order in which they are taken.
const KEPT: [Kind; 5] = [
    Kind::Secret,
    Kind::Cluster,
    Kind::Endpoints,
    Kind::Listener,
    Kind::Routes,
];

/// What was told up to a moment.
#[derive(Debug, Clone)]
pub struct Kept(Snapshot);

impl Kept {
    /// Resources by the plurals of their kinds. Those that have a key in themselves are left out.
    #[must_use]
    pub fn json(&self) -> Value {
        let told = &self.0;
        let clusters = told.clusters.values().filter(|own| !has_key_cluster(own));
        let listeners = told.listeners.values().filter(|own| !has_key(own));
        let mut all = json!({});
        for kind in KEPT {
            let list: Vec<Value> = match kind {
                Kind::Cluster => clusters.clone().map(|own| write::cluster(own)).collect(),
                Kind::Listener => listeners.clone().map(|own| write::listener(own)).collect(),
                Kind::Routes => told.routes.values().map(|own| write::routes(own)).collect(),
                Kind::Endpoints => {
                    let own = told.endpoints.iter();
                    own.map(|(name, own)| write::endpoints(name, own)).collect()
                }
                Kind::Secret => {
                    let own = told.secrets.iter();
                    own.map(|(name, own)| write::secret(name, own)).collect()
                }
            };
            all[kind.plural()] = json!(list);
        }
        all
    }
}

impl Session {
    /// What was told so far.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let mut told = self.known.told.clone();
        told.secrets
            .retain(|_, own| matches!(own, Secret::Trust(_)));
        Kept(told)
    }

    /// Takes what was kept, until the control plane says what there is. Says what of it is wrong, and is left out.
    pub fn restore(&mut self, kept: &Value, outside: Outside<'_>, now: Moment) -> Vec<String> {
        let mut wrong = Vec::new();
        for kind in KEPT {
            let list = kept.get(kind.plural()).and_then(Value::as_array);
            for own in list.into_iter().flatten() {
                if let Err(reason) = self.restore_one(kind, own, outside, now) {
                    wrong.push(reason);
                }
            }
        }
        self.known.is_restored |= !self.known.told.listeners.is_empty();
        self.known.wait(now);
        wrong
    }

    fn restore_one(
        &mut self,
        kind: Kind,
        own: &Value,
        outside: Outside<'_>,
        now: Moment,
    ) -> Result<(), String> {
        let read = resource::named(kind, None, own, outside.read);
        let named = read.map_err(|error| error.to_string())?;
        (outside.check)(&named.alone)?;
        self.known.take(named.alone);
        // Of no version: the control plane tells it again, or that it is gone.
        let stamp = Stamp {
            version: String::new(),
            at: now,
        };
        self.notes.took(kind, &named.name, stamp);
        if let Some(topic) = self.topics.get_mut(&kind) {
            topic.versions.insert(named.name, String::new());
        }
        Ok(())
    }
}

fn has_key_cluster(cluster: &Cluster) -> bool {
    cluster.all_tls().any(|tls| holds_key(&tls.common))
}

fn has_key(listener: &Listener) -> bool {
    let mut chains = listener.all_chains();
    chains.any(|chain| chain.tls.as_ref().is_some_and(|tls| holds_key(&tls.common)))
}

fn holds_key(common: &TlsCommon) -> bool {
    let mut own = common.certificates.iter();
    own.any(|own| matches!(own, SecretSource::Inline(Secret::Certificate(_))))
}
