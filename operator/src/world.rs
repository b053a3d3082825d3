//! What passes share: the client, the cache, what was applied, and the names of resources.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use fairlead_crds::condition::Reason;
use fairlead_plan::kind::Operator;
use fairlead_plan::{Cache, ObjectKey, Problem, Read};
use kube::Client;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::discovery::{self, Scope};
use kube::{Api, Error};
use tokio::time::Instant;

use crate::feed::Feed;
use crate::harness::problem_of;
use crate::lease::Lead;
use crate::metrics::Metrics;

/// The most last lines of containers that are remembered.
const LINES_MAX: usize = 1000;

/// What was applied last to an object, and how the object was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// A hash of what was wanted.
    pub(crate) wanted: u64,
    /// How the object was in the cache when it was applied; empty where it was not there.
    pub(crate) before: String,
    /// How the object was after it was applied.
    pub(crate) after: String,
}

/// See the module.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) cache: Arc<Cache>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) identity: String,
    pub(crate) lead: Lead,
    pub(crate) operator: ArcSwap<Operator>,
    resources: Mutex<HashMap<(String, String), (ApiResource, Scope)>>,
    applied: Mutex<HashMap<ObjectKey, Applied>>,
    lines: Mutex<HashMap<Read, Option<String>>>,
    held_back: Mutex<HashMap<ObjectKey, Instant>>,
}

impl World {
    pub(crate) fn new(
        client: Client,
        cache: Arc<Cache>,
        feed: Arc<Feed>,
        metrics: Arc<Metrics>,
        identity: String,
        lead: Lead,
        operator: Operator,
    ) -> Self {
        Self {
            client,
            cache,
            feed,
            metrics,
            identity,
            lead,
            operator: ArcSwap::from_pointee(operator),
            resources: Mutex::default(),
            applied: Mutex::default(),
            lines: Mutex::default(),
            held_back: Mutex::default(),
        }
    }

    /// The API for objects like `key`.
    pub(crate) async fn api(
        &self,
        key: &ObjectKey,
    ) -> Result<(Api<DynamicObject>, ApiResource), Problem> {
        let (resource, scope) = self.resource(key).await?;
        let api = match (&scope, &key.namespace) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
            (Scope::Cluster, None) => Api::all_with(self.client.clone(), &resource),
            (Scope::Cluster, Some(_)) => {
                let message = format!(
                    "{} is cluster-scoped, and definitions make objects in the environment's namespace only",
                    key.kind
                );
                return Err(Problem::invalid(Reason::Rejected, message));
            }
            (Scope::Namespaced, None) => {
                return Err(Problem::invalid(
                    Reason::Rejected,
                    format!("{} needs a namespace", key.kind),
                ));
            }
        };
        Ok((api, resource))
    }

    async fn resource(&self, key: &ObjectKey) -> Result<(ApiResource, Scope), Problem> {
        let name = (key.api_version.clone(), key.kind.clone());
        if let Some(found) = self
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&name)
        {
            return Ok(found.clone());
        }
        let version = key.api_version.rsplit('/').next().unwrap_or_default();
        let gvk = GroupVersionKind::gvk(key.group(), version, &key.kind);
        let found =
            discovery::pinned_kind(&self.client, &gvk)
                .await
                .map_err(|error| match &error {
                    Error::Api(status) if status.code == 404 => unknown_kind(key),
                    Error::Discovery(_) => unknown_kind(key),
                    _ => problem_of(&error, key, None),
                })?;
        let found = (found.0, found.1.scope);
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, found.clone());
        Ok(found)
    }

    /// Asks for the kind of an object anew next time: it may have been made again with another scope or plural.
    pub(crate) fn forget_kind(&self, key: &ObjectKey) {
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(key.api_version.clone(), key.kind.clone()));
    }

    /// The problem that an answer to a write is.
    pub(crate) fn refused(
        &self,
        error: &Error,
        key: &ObjectKey,
        resource: &ApiResource,
    ) -> Problem {
        if matches!(error, Error::Api(status) if status.code == 404) {
            self.forget_kind(key);
        }
        problem_of(error, key, Some(resource))
    }

    pub(crate) fn applied(&self, key: &ObjectKey) -> Option<Applied> {
        self.applied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    pub(crate) fn remember(&self, key: &ObjectKey, applied: Applied) {
        self.applied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), applied);
    }

    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.applied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    /// How long the status of an object is still held back; `None` once it was for all of `pause`.
    pub(crate) fn hold_back(&self, key: &ObjectKey, pause: Duration) -> Option<Duration> {
        let mut held = self
            .held_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let since = *held.entry(key.clone()).or_insert_with(Instant::now);
        Some(pause.saturating_sub(since.elapsed())).filter(|rest| !rest.is_zero())
    }

    /// Ends the holding back of an object's status.
    pub(crate) fn let_out(&self, key: &ObjectKey) {
        self.held_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    pub(crate) fn line(&self, read: &Read) -> Option<Option<String>> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(read)
            .cloned()
    }

    pub(crate) fn remember_line(&self, read: &Read, line: Option<String>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_MAX {
            lines.clear();
        }
        lines.insert(read.clone(), line);
    }
}

fn unknown_kind(key: &ObjectKey) -> Problem {
    Problem {
        class: fairlead_plan::Class::Transient,
        reason: Reason::Rejected,
        message: format!(
            "the cluster has no kind {} in {}",
            key.kind, key.api_version
        ),
    }
}
