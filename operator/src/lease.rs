//! Leadership by a coordination/v1 Lease: one replica writes, the others stand by.
//!
//! A leader that ends cleanly gives the lease back, and another, which watches it, takes it at once; one that dies loses it after
//! [`DURATION`]. A leader that cannot renew in time stops writing before another may take over, by its own clock, and the process
//! ends, so that no state outlives the loss. Every renewal replaces the Lease at the version that was read: two cannot both succeed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, Error, ResourceExt};
use tokio::time::Instant;

/// How long a lease holds without being renewed.
pub const DURATION: Duration = Duration::from_secs(10);
/// How often a leader renews.
const RENEW: Duration = Duration::from_secs(3);
/// How often a replica that stands by looks, beside watching for the lease to be given back.
const POLL: Duration = Duration::from_secs(2);
/// How long it waits where nothing can be watched.
const PAUSE: Duration = Duration::from_secs(1);
/// How long before its end a leader stops writing.
const MARGIN: Duration = Duration::from_secs(2);

/// Tells passes whether this replica may write.
#[derive(Clone)]
pub struct Lead {
    start: Instant,
    until: Arc<AtomicU64>,
}

impl Default for Lead {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            until: Arc::default(),
        }
    }
}

impl Lead {
    fn extend(&self, from: Instant) {
        let until = (from + DURATION - MARGIN).saturating_duration_since(self.start);
        self.until.store(
            u64::try_from(until.as_millis()).unwrap_or(u64::MAX),
            Ordering::SeqCst,
        );
    }

    fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    /// True while this replica may write.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.start.elapsed() < Duration::from_millis(self.until.load(Ordering::SeqCst))
    }
}

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Renew: it is ours.
    Renew,
    /// Take it: nobody holds it, or whoever did has not renewed for its duration.
    Take,
    /// Wait.
    Wait,
}

/// Decides from the lease as it is, and how long it has been seen unchanged by our own clock.
#[must_use]
pub fn decide(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> Step {
    let Some(spec) = spec else { return Step::Take };
    match spec.holder_identity.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == identity => Step::Renew,
        Some(_) => {
            let seconds = spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok());
            if unchanged > seconds.map_or(DURATION, Duration::from_secs) {
                Step::Take
            } else {
                Step::Wait
            }
        }
    }
}

fn is_held(spec: Option<&LeaseSpec>) -> bool {
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .is_some_and(|holder| !holder.is_empty())
}

/// Holds or waits for one lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    lead: Lead,
    seen: Option<(Option<MicroTime>, Option<String>, Instant)>,
    version: Option<String>,
}

impl Candidate {
    /// A candidate for the lease `name` in a namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, lead: Lead) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lead,
            seen: None,
            version: None,
        }
    }

    /// Waits until this replica leads.
    pub async fn acquire(&mut self) {
        loop {
            let started = Instant::now();
            match tokio::time::timeout(RENEW, self.attempt()).await {
                Ok(Ok(true)) => {
                    self.lead.extend(started);
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "failed to look at the lease"),
                Err(_) => tracing::warn!("looking at the lease took too long"),
            }
            self.given_back().await;
        }
    }

    /// Waits until the lease is given back or deleted, at most [`POLL`].
    async fn given_back(&self) {
        let Some(version) = &self.version else {
            return tokio::time::sleep(PAUSE).await;
        };
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.name));
        let watching = async {
            let mut events = match self.api.watch(&params, version).await {
                Ok(events) => events.boxed(),
                Err(error) => {
                    tracing::debug!(%error, "failed to watch the lease");
                    return tokio::time::sleep(PAUSE).await;
                }
            };
            while let Some(event) = events.next().await {
                match event {
                    Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease))
                        if is_held(lease.spec.as_ref()) => {}
                    Ok(WatchEvent::Bookmark(_)) => {}
                    Ok(_) => return,
                    Err(_) => break,
                }
            }
            tokio::time::sleep(PAUSE).await;
        };
        // A watch that tells nothing is no failure.
        let _ = tokio::time::timeout(POLL, watching).await;
    }

    /// Renews until the lease is lost.
    pub async fn hold(&mut self) {
        while self.lead.holds() {
            tokio::time::sleep(RENEW).await;
            let mut pause = Duration::from_millis(200);
            while self.lead.holds() {
                let started = Instant::now();
                match tokio::time::timeout(RENEW, self.attempt()).await {
                    Ok(Ok(true)) => {
                        self.lead.extend(started);
                        break;
                    }
                    Ok(Ok(false)) => {
                        self.lead.end();
                        return;
                    }
                    Ok(Err(error)) => tracing::warn!(%error, "failed to renew the lease"),
                    Err(_) => tracing::warn!("renewing the lease took too long"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }

    /// Gives the lease back.
    pub async fn release(&mut self) {
        self.lead.end();
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return;
        }
        spec.holder_identity = None;
        if let Err(error) = self
            .api
            .replace(&self.name, &PostParams::default(), &lease)
            .await
        {
            tracing::warn!(%error, "failed to give the lease back");
        }
    }

    /// One look; true when the lease is ours.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let found = self.api.get_opt(&self.name).await?;
        self.version = found.as_ref().and_then(Lease::resource_version);
        let unchanged = self.unchanged(found.as_ref());
        let step = decide(
            found.as_ref().and_then(|lease| lease.spec.as_ref()),
            &self.identity,
            unchanged,
        );
        if step == Step::Wait {
            return Ok(false);
        }
        let wanted = self.wanted(found.clone(), step == Step::Take);
        let written = match found {
            Some(_) => {
                self.api
                    .replace(&self.name, &PostParams::default(), &wanted)
                    .await
            }
            None => self.api.create(&PostParams::default(), &wanted).await,
        };
        match written {
            Ok(_) => Ok(true),
            Err(Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn unchanged(&mut self, found: Option<&Lease>) -> Duration {
        let spec = found.and_then(|lease| lease.spec.as_ref());
        let renewed = spec.and_then(|spec| spec.renew_time.clone());
        let holder = spec.and_then(|spec| spec.holder_identity.clone());
        match &self.seen {
            Some((seen, by, since)) if *seen == renewed && *by == holder => since.elapsed(),
            _ => {
                self.seen = Some((renewed, holder, Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn wanted(&self, found: Option<Lease>, takes: bool) -> Lease {
        let now = Some(MicroTime(Timestamp::now()));
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            ..Lease::default()
        });
        let spec = lease.spec.get_or_insert_default();
        if takes {
            spec.acquire_time = now.clone();
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(i32::try_from(DURATION.as_secs()).unwrap_or(10));
        spec.renew_time = now;
        lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(10),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_free_lease_is_taken_and_a_held_one_waited_for() {
        assert_eq!(decide(None, "a", Duration::ZERO), Step::Take);
        assert_eq!(
            decide(Some(&LeaseSpec::default()), "a", Duration::ZERO),
            Step::Take
        );
        assert_eq!(
            decide(Some(&held_by("b")), "a", Duration::from_secs(9)),
            Step::Wait
        );
        assert_eq!(
            decide(Some(&held_by("b")), "a", Duration::from_secs(11)),
            Step::Take
        );
        assert_eq!(
            decide(Some(&held_by("a")), "a", Duration::ZERO),
            Step::Renew
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_stops_writing_before_another_may_take_over() {
        let lead = Lead::default();
        lead.extend(Instant::now());
        tokio::time::advance(DURATION - MARGIN - Duration::from_millis(1)).await;
        assert!(lead.holds());
        tokio::time::advance(Duration::from_millis(2)).await;
        assert!(!lead.holds());
    }
}
