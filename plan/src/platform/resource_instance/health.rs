//! Why a workload is not ready, down to the container and its last words, with every secret that it was given masked.

use fairlead_crds::condition::Reason;
use fairlead_crds::platform::ResourceInstance;
use kube::ResourceExt;
use serde_json::Value;

use super::Seen;
use super::scope;
use super::workload::deployment_key;
use crate::live::{Live, Read};
use crate::objects;
use crate::problem::Problem;
use crate::readiness::{self, Readiness};

/// The longest last line that a message holds, in characters.
const LINE_MAX: usize = 200;
/// Secrets shorter than this are not masked: masking every `1` would hide everything and protect nothing.
const SECRET_MIN: usize = 4;

/// Reads that tell why: the pods, then the last line of the container that failed, and the secrets to mask in it.
pub(super) fn reads(object: &ResourceInstance, seen: &Seen, live: &Live) -> Vec<Read> {
    let namespace = object.namespace().unwrap_or_default();
    let mut reads = vec![Read::Pods {
        namespace: namespace.clone(),
        workload: object.spec.id.clone(),
    }];
    if let Some(cause) = live.pods(&namespace, &object.spec.id).and_then(cause)
        && let Some(log) = cause.log
    {
        reads.push(log);
        reads.extend(scope::secret_reads(seen));
    }
    reads
}

/// How the workload is.
pub(super) fn workload(object: &ResourceInstance, seen: &Seen, live: &Live) -> Result<(), Problem> {
    let Some(deployment) = live.object(&deployment_key(object)) else {
        return Err(Problem::waiting(
            Reason::Progressing,
            "the Deployment is being made",
        ));
    };
    let readiness = readiness::of(deployment);
    if readiness == Readiness::Ready {
        return Ok(());
    }
    let namespace = object.namespace().unwrap_or_default();
    if let Some(cause) = live.pods(&namespace, &object.spec.id).and_then(cause) {
        let line = cause
            .log
            .as_ref()
            .and_then(|read| live.last_log(read))
            .map(|line| masked(line, seen, live));
        let message = match line.filter(|line| !line.is_empty()) {
            Some(line) => format!("{}: {line}", cause.message),
            None => cause.message,
        };
        return Err(Problem::waiting(Reason::Degraded, message));
    }
    of_readiness("Deployment", readiness)
}

/// A readiness as the result of a health check.
pub(super) fn of_readiness(what: &str, readiness: Readiness) -> Result<(), Problem> {
    match readiness {
        Readiness::Ready => Ok(()),
        Readiness::Progressing(text) => Err(Problem::waiting(
            Reason::Progressing,
            format!("{what}: {text}"),
        )),
        Readiness::Failed(text) => Err(Problem::waiting(
            Reason::Degraded,
            format!("{what}: {text}"),
        )),
    }
}

struct Cause {
    message: String,
    log: Option<Read>,
}

/// What keeps the youngest pods from being ready, if it is a failure.
fn cause(pods: &[Value]) -> Option<Cause> {
    let mut pods: Vec<&Value> = pods
        .iter()
        .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none())
        .collect();
    pods.sort_by_key(|pod| std::cmp::Reverse(text(pod, "/metadata/creationTimestamp").to_owned()));
    pods.iter().find_map(|pod| pod_cause(pod))
}

fn pod_cause(pod: &Value) -> Option<Cause> {
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let containers = statuses
        .iter()
        .filter_map(|pointer| pod.pointer(pointer)?.as_array())
        .flatten();
    for container in containers {
        if let Some(cause) = container_cause(pod, container) {
            return Some(cause);
        }
    }
    let conditions = pod
        .pointer("/status/conditions")
        .and_then(Value::as_array)?;
    let scheduled = conditions.iter().find(|found| {
        text(found, "/type") == "PodScheduled" && text(found, "/status") == "False"
    })?;
    if text(scheduled, "/reason") == "Unschedulable" {
        return Some(Cause {
            message: format!("pod cannot be scheduled: {}", text(scheduled, "/message")),
            log: None,
        });
    }
    None
}

fn container_cause(pod: &Value, container: &Value) -> Option<Cause> {
    let name = text(container, "/name");
    let waiting = text(container, "/state/waiting/reason");
    let restarts = container
        .get("restartCount")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let log = |previous: bool| {
        Some(Read::LastLog {
            namespace: text(pod, "/metadata/namespace").to_owned(),
            pod: text(pod, "/metadata/name").to_owned(),
            container: name.to_owned(),
            previous,
            restarts,
        })
    };
    let ended = |pointer: &str| {
        container
            .pointer(pointer)
            .filter(|ended| ended.get("exitCode").and_then(Value::as_i64) != Some(0))
    };
    let exit = |ended: &Value| {
        let code = ended
            .get("exitCode")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let reason = text(ended, "/reason");
        if reason.is_empty() || reason == "Error" {
            format!("exit code {code}")
        } else {
            format!("{reason}, exit code {code}")
        }
    };
    match waiting {
        "CrashLoopBackOff" => {
            let ended = ended("/lastState/terminated");
            let code = ended
                .map(|ended| format!(", {}", exit(ended)))
                .unwrap_or_default();
            Some(Cause {
                message: format!("container {name}: CrashLoopBackOff{code}"),
                log: log(false),
            })
        }
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
            Some(Cause {
                message: format!(
                    "container {name}: {waiting}: image {}",
                    text(container, "/image")
                ),
                log: None,
            })
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(Cause {
                message: format!(
                    "container {name}: {waiting}: {}",
                    shortened(text(container, "/state/waiting/message"))
                ),
                log: None,
            })
        }
        _ => {
            if let Some(ended) = ended("/state/terminated") {
                return Some(Cause {
                    message: format!("container {name}: {}", exit(ended)),
                    log: log(false),
                });
            }
            let ended = ended("/lastState/terminated")
                .filter(|_| container.get("ready").and_then(Value::as_bool) == Some(false))?;
            Some(Cause {
                message: format!("container {name}: restarted after {}", exit(ended)),
                log: log(true),
            })
        }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn shortened(line: &str) -> String {
    let clean: String = line.trim().chars().filter(|c| !c.is_control()).collect();
    if clean.chars().count() <= LINE_MAX {
        clean
    } else {
        clean.chars().take(LINE_MAX).chain(['…']).collect()
    }
}

/// A line with the values of the workload's secrets replaced.
fn masked(line: &str, seen: &Seen, live: &Live) -> String {
    let mut values: Vec<String> = Vec::new();
    for found in seen
        .dependencies
        .iter()
        .filter_map(|(_, found)| found.as_deref())
    {
        let Some(secret) = scope::secret_of(found).and_then(|key| live.object(&key)) else {
            continue;
        };
        values
            .extend(scope::secret_keys(found).filter_map(|key| objects::secret_value(secret, key)));
    }
    mask(line, values)
}

fn mask(line: &str, mut values: Vec<String>) -> String {
    values.retain(|value| value.len() >= SECRET_MIN);
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let masked = values.iter().fold(line.to_owned(), |line, value| {
        line.replace(value.as_str(), "***")
    });
    shortened(&masked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_crashing_container_tells_its_exit_code() {
        let pods = [json!({
            "metadata": {"name": "cart-1", "namespace": "shop-staging"},
            "status": {"containerStatuses": [{
                "name": "main", "restartCount": 3, "ready": false,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
            }]},
        })];
        let found = cause(&pods).expect("a crash is a cause");
        assert_eq!(
            found.message,
            "container main: CrashLoopBackOff, exit code 1"
        );
        assert!(matches!(found.log, Some(Read::LastLog { restarts: 3, .. })));
    }

    #[test]
    fn a_pod_that_starts_is_no_cause() {
        let pods = [
            json!({"status": {"containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]}}),
        ];
        assert!(cause(&pods).is_none());
    }

    #[test]
    fn secrets_are_masked_before_the_line_is_cut() {
        let secret = "hunter2-hunter2".to_owned();
        let line = format!("{}{secret}", "x".repeat(LINE_MAX - 5));
        assert!(!mask(&line, vec![secret]).contains("hunter2"));
    }
}
