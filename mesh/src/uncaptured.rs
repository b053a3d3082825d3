//! Pods that wait at `Init` for ever, as they came to a node before its CNI plug-in did: a network is set up once. Those whose owner
//! makes them anew are deleted as soon as the plug-in is on their node; a few at a time, and where that does not help, ever more
//! seldom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::labels::{NAME, PROXIED};
use fairlead_operator::lease::Lead;
use fairlead_plan::mesh::CAPTURE_STEP;
use fairlead_plan::rights::CNI;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::told::Told;

/// How often they are looked for.
const LOOK: Duration = Duration::from_secs(10);
/// How many are deleted at a look.
const AT_ONCE: usize = 5;
/// How long those that an owner made in their place are left alone when nothing captured them either; twice as long each time,
/// up to the longest.
const PAUSE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// With what code the step before the proxy ends where nothing captures, and never else.
const NOT_CAPTURED: i32 = 95;
/// Who makes a pod anew when it is gone, by group and kind.
const MAKERS: [(&str, &str); 5] = [
    ("apps", "DaemonSet"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("batch", "Job"),
    ("", "ReplicationController"),
];
const REASON: &str = "NotCaptured";

/// Looks for them.
pub(crate) struct Uncaptured {
    /// The cluster.
    pub(crate) client: Client,
    /// The name of this replica.
    pub(crate) identity: String,
    /// Counts them.
    pub(crate) metrics: Arc<Metrics>,
}

impl Uncaptured {
    /// Looks again and again while this replica leads.
    pub(crate) async fn follow(&self, lead: &Lead) {
        let mut rounds = Rounds::default();
        let mut said = String::new();
        while lead.holds() {
            let now = match self.look(lead, &mut rounds).await {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            if !now.is_empty() && now != said {
                tracing::warn!(
                    error = now,
                    "failed to have pods made anew that nothing captured; it is tried again"
                );
            }
            said = now;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self, lead: &Lead, rounds: &mut Rounds) -> Result<(), kube::Error> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let pending = ListParams::default()
            .labels(PROXIED)
            .fields("status.phase=Pending");
        let mut waiting = pods.list(&pending).await?.items;
        waiting.retain(waits);
        if waiting.is_empty() {
            return Ok(());
        }
        let plugins = format!("{NAME}=fairlead,app.kubernetes.io/component=cni");
        let plugins = ListParams::default().labels(&plugins);
        let plugins = pods.list(&plugins).await?.items;
        let nodes = nodes(&plugins);
        waiting.retain(|pod| nodes.contains(node(pod)));
        let mut outcome = Ok(());
        for pod in rounds.choose(&waiting, Instant::now()) {
            if !lead.holds() {
                break;
            }
            // One that is refused holds up no other.
            outcome = self.remake(pod).await.and(outcome);
        }
        outcome
    }

    /// Deletes a pod, unless it has changed since, and tells of it.
    async fn remake(&self, pod: &Pod) -> Result<(), kube::Error> {
        let Some(owner) = maker(pod) else {
            return Ok(());
        };
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let unchanged = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: pod.resource_version(),
            }),
            ..DeleteParams::default()
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        match pods.delete(&name, &unchanged).await {
            Ok(_) => {}
            // It changed, and is looked at again; or it is gone.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.metrics.remade();
        let node = node(pod);
        tracing::info!(
            %namespace, name, node, owner = owner.name,
            "deleted a pod that nothing captured, for its owner to make it anew"
        );
        let told = Told {
            type_: "Normal",
            reason: REASON,
            action: "Delete",
            note: format!(
                "nothing captured the connections of the pod, as it came to {node} before {CNI} did; now that it is there, the pod was \
                 deleted for {} {} to make it anew",
                owner.kind, owner.name
            ),
        };
        told.of(&self.client, pod, &self.identity).await
    }
}

fn node(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|own| own.node_name.as_deref());
    name.unwrap_or_default()
}

/// Who makes a pod anew when it is gone.
fn maker(pod: &Pod) -> Option<&OwnerReference> {
    let mut owners = pod.owner_references().iter();
    let owner = owners.find(|own| own.controller == Some(true))?;
    let (group, _) = owner.api_version.rsplit_once('/').unwrap_or_default();
    MAKERS
        .contains(&(group, owner.kind.as_str()))
        .then_some(owner)
}

/// Whether a pod waits because nothing captured it, and is made anew when it is gone.
fn waits(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let is_pending = status.is_some_and(|own| own.phase.as_deref() == Some("Pending"));
    let mut steps = status
        .and_then(|own| own.init_container_statuses.as_deref())
        .into_iter()
        .flatten();
    is_pending
        && pod.metadata.deletion_timestamp.is_none()
        && maker(pod).is_some()
        && steps.any(|step| step.name == CAPTURE_STEP && found_nothing(step))
}

/// Whether the step ended because nothing captures, and is not under way again.
fn found_nothing(step: &ContainerStatus) -> bool {
    let code = |state: &Option<ContainerState>| {
        let ended = state.as_ref().and_then(|own| own.terminated.as_ref());
        ended.map(|own| own.exit_code)
    };
    let is_waiting = || step.state.as_ref().is_some_and(|own| own.waiting.is_some());
    let last = code(&step.state).or_else(|| code(&step.last_state).filter(|_| is_waiting()));
    last == Some(NOT_CAPTURED)
}

/// The nodes on which the plug-in is in place: what is made there from now on is captured.
fn nodes(plugins: &[Pod]) -> BTreeSet<&str> {
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.as_ref().and_then(|own| own.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        pod.metadata.deletion_timestamp.is_none()
            && maker(pod).is_some_and(|own| own.kind == "DaemonSet" && own.name == CNI)
            && conditions.any(|own| own.type_ == "Ready" && own.status == "True")
    };
    plugins.iter().filter(is_ready).map(node).collect()
}

/// What was tried for whom, by the uids of owners.
#[derive(Debug, Default)]
struct Rounds(BTreeMap<String, Round>);

/// The pods of an owner that waited when it was tried last.
#[derive(Debug)]
struct Round {
    pods: BTreeSet<String>,
    began: Instant,
    /// How often it was tried without an end in between.
    number: u32,
}

impl Round {
    fn new(pods: &[&Pod], began: Instant, number: u32) -> Self {
        Self {
            pods: pods.iter().filter_map(|pod| pod.uid()).collect(),
            began,
            number,
        }
    }

    /// How long pods that came after those of this round are left alone.
    fn pause(&self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.number.saturating_sub(1));
        PAUSE.saturating_mul(doubled).min(LONGEST)
    }
}

impl Rounds {
    /// The pods that are deleted now, of those that wait on a node with the plug-in.
    fn choose<'a>(&mut self, waiting: &'a [Pod], now: Instant) -> Vec<&'a Pod> {
        self.0
            .retain(|_, round| now.duration_since(round.began) < round.pause() * 2);
        let mut owners: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in waiting {
            if let Some(owner) = maker(pod) {
                owners.entry(&owner.uid).or_default().push(pod);
            }
        }
        let mut chosen = Vec::new();
        for (owner, pods) in owners {
            let round = self
                .0
                .entry(owner.to_owned())
                .or_insert_with(|| Round::new(&pods, now, 1));
            let is_in =
                |round: &Round, pod: &Pod| round.pods.contains(&pod.uid().unwrap_or_default());
            let has_others = pods.iter().any(|pod| !is_in(round, pod));
            if has_others && now.duration_since(round.began) >= round.pause() {
                *round = Round::new(&pods, now, round.number + 1);
            }
            chosen.extend(pods.into_iter().filter(|pod| is_in(round, pod)));
        }
        chosen.truncate(AT_ONCE);
        chosen
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod of a Deployment that waits, with what differs.
    fn pod(name: &str, patch: Value) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": name,
                "uid": name,
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web", "controller": true},
                ],
            },
            "spec": {"containers": [], "nodeName": "node-7"},
            "status": {"phase": "Pending", "initContainerStatuses": [{
                "name": "fairlead-capture", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 95}},
            }]},
        });
        json_patch(&mut pod, patch);
        serde_json::from_value(pod).expect("a pod")
    }

    fn json_patch(own: &mut Value, patch: Value) {
        match (own, patch) {
            (Value::Object(own), Value::Object(patch)) => {
                for (name, value) in patch {
                    json_patch(own.entry(name).or_insert(Value::Null), value);
                }
            }
            (own, patch) => *own = patch,
        }
    }

    fn step(state: Value, last: Value) -> Value {
        json!({"status": {"initContainerStatuses": [{
            "name": "fairlead-capture", "image": "", "imageID": "", "ready": false, "restartCount": 1, "state": state, "lastState": last,
        }]}})
    }

    fn owner(api_version: &str, kind: &str) -> Value {
        json!({"metadata": {"ownerReferences": [
            {"apiVersion": api_version, "kind": kind, "name": "web", "uid": "web", "controller": true},
        ]}})
    }

    #[test]
    fn the_code_is_that_of_the_proxy() {
        assert_eq!(
            NOT_CAPTURED,
            i32::from(fairlead_proxy::capture::NOT_CAPTURED)
        );
    }

    #[test]
    fn only_pods_that_nothing_captured_wait() {
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let waiting = || json!({"waiting": {"reason": "CrashLoopBackOff"}});
        for (patch, is_waiting) in [
            (json!({}), true),
            (step(ended(95), json!({})), true),
            // The step ended in another way, or may end well yet
            (step(ended(1), ended(95)), false),
            (step(ended(0), ended(95)), false),
            (step(waiting(), ended(1)), false),
            (step(waiting(), json!({})), false),
            (step(json!({"running": {}}), ended(95)), false),
            // It is another step, or none
            (
                json!({"status": {"initContainerStatuses": [{
                    "name": "migrate", "image": "", "imageID": "", "ready": false, "restartCount": 1, "state": ended(95),
                }]}}),
                false,
            ),
            (json!({"status": {"initContainerStatuses": null}}), false),
            // The pod is over, runs, or goes
            (json!({"status": {"phase": "Failed"}}), false),
            (json!({"status": {"phase": "Running"}}), false),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                false,
            ),
        ] {
            assert_eq!(waits(&pod("a", patch.clone())), is_waiting, "{patch}");
        }
    }

    #[test]
    fn only_pods_that_somebody_makes_anew_are_deleted() {
        for (api_version, kind, is_made) in [
            ("apps/v1", "StatefulSet", true),
            ("apps/v1", "DaemonSet", true),
            ("batch/v1", "Job", true),
            ("v1", "ReplicationController", true),
            ("v1", "Node", false),
            ("example.dev/v1", "ReplicaSet", false),
            ("tekton.dev/v1", "TaskRun", false),
        ] {
            let own = pod("a", owner(api_version, kind));
            assert_eq!(waits(&own), is_made, "{api_version} {kind}");
        }
        let mut shared = owner("apps/v1", "ReplicaSet");
        shared["metadata"]["ownerReferences"][0]["controller"] = json!(false);
        assert!(!waits(&pod("a", shared)));
        let nobody = json!({"metadata": {"ownerReferences": null}});
        assert!(!waits(&pod("a", nobody)));
    }

    #[test]
    fn a_node_has_the_plugin_once_its_pod_is_ready() {
        let plugin = |node: &str, ready: &str, patch: Value| {
            let mut own = json!({
                "metadata": {"ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "fairlead-cni", "uid": "cni", "controller": true},
                ]},
                "spec": {"nodeName": node},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
            });
            json_patch(&mut own, patch);
            pod(node, own)
        };
        let all = [
            plugin("ready", "True", json!({})),
            plugin("starting", "False", json!({})),
            plugin(
                "going",
                "True",
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            ),
            plugin("pretended", "True", owner("apps/v1", "ReplicaSet")),
        ];
        assert_eq!(nodes(&all), BTreeSet::from(["ready"]));
    }

    fn names(chosen: &[&Pod]) -> Vec<String> {
        chosen.iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn a_few_are_deleted_at_a_time_until_none_waits() {
        let mut rounds = Rounds::default();
        let now = Instant::now();
        let mut waiting: Vec<Pod> = (0..12)
            .map(|number| pod(&format!("web-{number:02}"), json!({})))
            .collect();
        for (seconds, count) in [(0, 5), (10, 5), (20, 2)] {
            let chosen = names(&rounds.choose(&waiting, now + Duration::from_secs(seconds)));
            assert_eq!(chosen.len(), count, "{chosen:?}");
            waiting.retain(|pod| !chosen.contains(&pod.name_any()));
        }
        assert!(waiting.is_empty());
    }

    #[test]
    fn an_owner_whose_pods_are_never_captured_is_tried_ever_more_seldom() {
        let mut rounds = Rounds::default();
        let start = Instant::now();
        let mut tried = Vec::new();
        // Each pod that is deleted is made anew at once, and nothing captures it either
        let mut number = 0;
        for seconds in (0..4 * 3600).step_by(10) {
            let waiting = [pod(&format!("web-{number}"), json!({}))];
            if !rounds
                .choose(&waiting, start + Duration::from_secs(seconds))
                .is_empty()
            {
                tried.push(seconds / 60);
                number += 1;
            }
        }
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181, 211]);
    }

    #[test]
    fn one_owner_does_not_hold_up_another_and_what_is_over_is_forgotten() {
        let mut rounds = Rounds::default();
        let start = Instant::now();
        let other = |name: &str| {
            let mut own = owner("apps/v1", "ReplicaSet");
            own["metadata"]["ownerReferences"][0]["uid"] = json!("other");
            pod(name, own)
        };
        assert_eq!(
            names(&rounds.choose(&[pod("web-0", json!({}))], start)),
            ["web-0"]
        );
        let later = start + Duration::from_secs(10);
        let both = [pod("web-1", json!({})), other("other-0")];
        assert_eq!(names(&rounds.choose(&both, later)), ["other-0"]);
        let day = start + Duration::from_secs(86_400);
        assert!(rounds.choose(&[], day).is_empty() && rounds.0.is_empty());
        assert_eq!(
            names(&rounds.choose(&[pod("web-2", json!({}))], day)),
            ["web-2"]
        );
    }
}
