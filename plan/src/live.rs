//! Reads that a cache cannot answer: objects whose content only one pass needs, pods and the last words of a container.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::problem::Problem;

/// Which object: its API version, kind, namespace (none for cluster-scoped ones) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// None for cluster-scoped objects.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// A key.
    pub fn new(
        api_version: impl Into<String>,
        kind: impl Into<String>,
        namespace: Option<&str>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespace.map(str::to_owned),
            name: name.into(),
        }
    }

    /// The key of an object as JSON; parts that it lacks are empty.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let namespace = Some(text("/metadata/namespace")).filter(|namespace| !namespace.is_empty());
        Self {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            namespace,
            name: text("/metadata/name"),
        }
    }

    /// The API group; empty for the core one.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// One read from the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Read {
    /// One object.
    Object(ObjectKey),
    /// The pods of a workload, by the label [`fairlead_crds::labels::WORKLOAD`].
    Pods {
        /// The namespace.
        namespace: String,
        /// The workload.
        workload: String,
    },
    /// The resources of an environment's namespace, past the cache.
    Instances {
        /// The namespace.
        namespace: String,
    },
    /// The last line that a container wrote.
    LastLog {
        /// The namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// Of the run before the current one.
        previous: bool,
        /// How often the container has started; a cached line is good while this is the same.
        restarts: i64,
    },
}

/// What a read gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The object, if it exists.
    Object(Option<Value>),
    /// The pods.
    Pods(Vec<Value>),
    /// The resources.
    Instances(Vec<Value>),
    /// The line, if there is one.
    LastLog(Option<String>),
}

/// The answers to the reads of a pass. `Debug` is not derived on purpose where it would print secrets: see [`Live::fmt`].
#[derive(Clone, Default, PartialEq)]
pub struct Live {
    answers: BTreeMap<Read, Answer>,
    /// A read that failed, which ends the pass.
    pub problem: Option<Problem>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.answers.keys()).finish()
    }
}

impl Live {
    /// Remembers an answer.
    pub fn put(&mut self, read: Read, answer: Answer) {
        self.answers.insert(read, answer);
    }

    /// True when the read has been answered.
    #[must_use]
    pub fn has(&self, read: &Read) -> bool {
        self.answers.contains_key(read)
    }

    /// The object with this key, if it was read and exists.
    #[must_use]
    pub fn object(&self, key: &ObjectKey) -> Option<&Value> {
        match self.answers.get(&Read::Object(key.clone())) {
            Some(Answer::Object(object)) => object.as_ref(),
            _ => None,
        }
    }

    /// The pods of a workload, if they were read.
    #[must_use]
    pub fn pods(&self, namespace: &str, workload: &str) -> Option<&[Value]> {
        let read = Read::Pods {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
        };
        match self.answers.get(&read) {
            Some(Answer::Pods(pods)) => Some(pods),
            _ => None,
        }
    }

    /// The resources of a namespace, if they were read.
    #[must_use]
    pub fn instances(&self, namespace: &str) -> Option<&[Value]> {
        let read = Read::Instances {
            namespace: namespace.to_owned(),
        };
        match self.answers.get(&read) {
            Some(Answer::Instances(instances)) => Some(instances),
            _ => None,
        }
    }

    /// The last line of a container, if it was read and there is one.
    #[must_use]
    pub fn last_log(&self, read: &Read) -> Option<&str> {
        match self.answers.get(read) {
            Some(Answer::LastLog(line)) => line.as_deref(),
            _ => None,
        }
    }
}
