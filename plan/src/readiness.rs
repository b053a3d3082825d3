//! Whether a live object does what its spec says, by the rules that its kind has (those of kstatus).

use serde_json::Value;

/// How a live object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does what its spec says.
    Ready,
    /// It is on its way.
    Progressing(String),
    /// It will not get there by itself.
    Failed(String),
}

impl Readiness {
    fn progressing(text: impl Into<String>) -> Self {
        Self::Progressing(text.into())
    }
}

/// How a live object is.
#[must_use]
pub fn of(object: &Value) -> Readiness {
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    let observed = object
        .pointer("/status/observedGeneration")
        .and_then(Value::as_i64);
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return Readiness::progressing("it is being deleted");
    }
    if let (Some(generation), Some(observed)) = (generation, observed)
        && observed < generation
    {
        return Readiness::progressing("its controller has not seen the change yet");
    }
    match object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
    {
        "Deployment" => deployment(object),
        "StatefulSet" => stateful_set(object),
        "DaemonSet" => counts(
            object,
            "desiredNumberScheduled",
            "updatedNumberScheduled",
            "numberAvailable",
        ),
        "Job" => job(object),
        "Pod" => conditions(object, &["Ready"]),
        "PersistentVolumeClaim" | "Service" | "ConfigMap" | "Secret" | "ServiceAccount" => {
            Readiness::Ready
        }
        _ => conditions(object, &["Ready", "Available"]),
    }
}

fn count(object: &Value, field: &str) -> i64 {
    object
        .pointer(&format!("/status/{field}"))
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

fn wanted_replicas(object: &Value) -> i64 {
    object
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1)
}

fn deployment(object: &Value) -> Readiness {
    if object.pointer("/status/observedGeneration").is_none() {
        return Readiness::progressing("its controller has not seen it yet");
    }
    if let Some(found) = condition(object, "Progressing")
        && found.get("reason").and_then(Value::as_str) == Some("ProgressDeadlineExceeded")
    {
        return Readiness::Failed("the rollout made no progress within its deadline".to_owned());
    }
    let wanted = wanted_replicas(object);
    let (updated, available, all) = (
        count(object, "updatedReplicas"),
        count(object, "availableReplicas"),
        count(object, "replicas"),
    );
    if updated < wanted {
        return Readiness::Progressing(format!("{updated} of {wanted} replicas are updated"));
    }
    if all > updated {
        return Readiness::Progressing(format!("{} old replicas are still to end", all - updated));
    }
    if available < wanted {
        return Readiness::Progressing(format!("{available} of {wanted} replicas are available"));
    }
    Readiness::Ready
}

fn stateful_set(object: &Value) -> Readiness {
    let wanted = wanted_replicas(object);
    let ready = count(object, "readyReplicas");
    if ready < wanted {
        return Readiness::Progressing(format!("{ready} of {wanted} replicas are ready"));
    }
    let revision = |field: &str| {
        object
            .pointer(&format!("/status/{field}"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if revision("currentRevision") != revision("updateRevision")
        && count(object, "updatedReplicas") < wanted
    {
        return Readiness::progressing("replicas are being updated");
    }
    Readiness::Ready
}

fn counts(object: &Value, wanted: &str, updated: &str, available: &str) -> Readiness {
    let (wanted, updated, available) = (
        count(object, wanted),
        count(object, updated),
        count(object, available),
    );
    if object.pointer("/status/observedGeneration").is_none()
        || updated < wanted
        || available < wanted
    {
        return Readiness::Progressing(format!("{available} of {wanted} are available"));
    }
    Readiness::Ready
}

fn job(object: &Value) -> Readiness {
    let holds = |type_| {
        condition(object, type_)
            .is_some_and(|found| found.get("status").and_then(Value::as_str) == Some("True"))
    };
    if holds("Failed") {
        let message = condition(object, "Failed")
            .and_then(|found| found.get("message"))
            .and_then(Value::as_str)
            .unwrap_or("it failed");
        return Readiness::Failed(message.to_owned());
    }
    if holds("Complete") {
        Readiness::Ready
    } else {
        Readiness::progressing("it has not completed yet")
    }
}

fn conditions(object: &Value, types: &[&str]) -> Readiness {
    if let Some(found) = condition(object, "Stalled")
        && found.get("status").and_then(Value::as_str) == Some("True")
    {
        return Readiness::Failed(text(found, "message"));
    }
    let Some(found) = types.iter().find_map(|type_| condition(object, type_)) else {
        return Readiness::Ready;
    };
    if found.get("status").and_then(Value::as_str) == Some("True") {
        Readiness::Ready
    } else {
        Readiness::Progressing(text(found, "message"))
    }
}

fn text(value: &Value, field: &str) -> String {
    value
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    all.iter()
        .find(|found| found.get("type").and_then(Value::as_str) == Some(type_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment_with(generation: i64, observed: i64, status: Value) -> Value {
        let mut object = json!({"kind": "Deployment", "metadata": {"generation": generation}, "spec": {"replicas": 2}, "status": status});
        object["status"]["observedGeneration"] = observed.into();
        object
    }

    #[test]
    fn a_deployment_is_not_ready_on_an_unobserved_generation() {
        let full = json!({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert!(matches!(
            of(&deployment_with(2, 1, full.clone())),
            Readiness::Progressing(_)
        ));
        assert_eq!(of(&deployment_with(2, 2, full)), Readiness::Ready);
    }

    #[test]
    fn old_replicas_keep_a_deployment_from_being_ready() {
        let status = json!({"replicas": 3, "updatedReplicas": 2, "availableReplicas": 3});
        assert_eq!(
            of(&deployment_with(1, 1, status)),
            Readiness::Progressing("1 old replicas are still to end".to_owned())
        );
    }

    #[test]
    fn a_failed_job_says_why() {
        let object = json!({"kind": "Job", "status": {"conditions": [{"type": "Failed", "status": "True", "message": "backoff limit reached"}]}});
        assert_eq!(
            of(&object),
            Readiness::Failed("backoff limit reached".to_owned())
        );
    }

    #[test]
    fn an_unknown_kind_without_conditions_is_ready() {
        assert_eq!(of(&json!({"kind": "Widget"})), Readiness::Ready);
    }
}
