//! The [`Store`] behind the API server's HTTP interface, for a `kube::Client` in the same process: discovery, list, watch, get,
//! create, replace, server-side apply, merge of finalizers, status and delete, with selectors, conflicts, and answers that fail on
//! demand. What was asked is kept, so that tests can count it.

mod path;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use fairlead_plan::ObjectKey;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use self::path::{Asked, Served};
use crate::store::{Propagation, Refused, Store, text};

/// Where versions begin: the version of a store that holds nothing.
const FIRST: usize = 100;

/// A failure to answer with: the method and a part of the path, and the code.
struct Fault {
    method: Method,
    path: String,
    code: u16,
    message: String,
}

/// See the module.
#[derive(Clone)]
pub struct FakeApi {
    store: Arc<Mutex<Store>>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    asked: Arc<Mutex<Vec<String>>>,
    changed: watch::Sender<usize>,
}

impl Default for FakeApi {
    fn default() -> Self {
        Self {
            store: Arc::default(),
            faults: Arc::default(),
            asked: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeApi {
    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Looks at the objects, or changes them past the interface.
    pub fn with<T>(&self, f: impl FnOnce(&mut Store) -> T) -> T {
        let result = f(&mut lock(&self.store));
        self.tell();
        result
    }

    /// Answers the next requests of a method whose path holds `path` with a failure, each once.
    pub fn fail(&self, method: Method, path: &str, code: u16, message: &str) {
        lock(&self.faults).push_back(Fault {
            method,
            path: path.to_owned(),
            code,
            message: message.to_owned(),
        });
    }

    /// The requests so far that were no reads, as `METHOD path code`.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        let mut writes = lock(&self.asked).clone();
        writes.retain(|line| !line.starts_with("GET"));
        writes
    }

    /// How often a path was read.
    #[must_use]
    pub fn reads(&self, path: &str) -> usize {
        let line = format!("GET {path} ");
        let asked = lock(&self.asked);
        asked.iter().filter(|one| one.starts_with(&line)).count()
    }

    fn tell(&self) {
        let length = lock(&self.store).journal().len();
        self.changed.send_replace(length);
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = Query::of(parts.uri.query().unwrap_or_default());
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => Bytes::new(),
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if query.watch
            && let Some(Asked::Many(served, namespace)) = path::parse(&path)
        {
            return self.watch(served, namespace, query);
        }
        let fault = {
            let mut faults = lock(&self.faults);
            let found = faults
                .iter()
                .position(|fault| fault.method == parts.method && path.contains(&fault.path));
            found.and_then(|index| faults.remove(index))
        };
        let answer = match fault {
            Some(fault) => Err(Refused {
                code: fault.code,
                message: fault.message,
            }),
            None => self.handle(&parts.method, &path, &query, &body),
        };
        self.tell();
        let (code, body) = match answer {
            Ok(body) => (200, body),
            Err(refused) => (refused.code, failure(&refused)),
        };
        lock(&self.asked).push(format!("{} {path} {code}", parts.method));
        respond(code, Body::from(body.to_string()))
    }

    fn handle(
        &self,
        method: &Method,
        path: &str,
        query: &Query,
        body: &Value,
    ) -> Result<Value, Refused> {
        let missing = || refused(404, "the server could not find the requested resource");
        match (method.as_str(), path::parse(path).ok_or_else(missing)?) {
            ("GET", Asked::Kinds(version)) => path::discovery(&version).ok_or_else(missing),
            ("GET", Asked::Many(served, namespace)) => {
                Ok(self.list(&served, namespace.as_deref(), query))
            }
            ("GET", Asked::One(key, None)) => {
                let found = lock(&self.store).get(&key).cloned();
                found.ok_or_else(|| refused(404, &format!("{key} not found")))
            }
            ("POST", Asked::Many(served, namespace)) => {
                self.create(&served, namespace, body.clone())
            }
            ("PUT" | "PATCH", Asked::One(key, part)) => {
                self.change(method, &key, part.as_deref(), query, body)
            }
            ("DELETE", Asked::One(key, None)) => {
                let propagation = match text(body, "/propagationPolicy") {
                    "Foreground" => Propagation::Foreground,
                    _ => Propagation::Background,
                };
                let uid = body.pointer("/preconditions/uid").and_then(Value::as_str);
                lock(&self.store).delete(&key, uid, propagation)?;
                Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            _ => Err(refused(405, "the method is not allowed")),
        }
    }

    fn create(
        &self,
        served: &Served,
        namespace: Option<String>,
        mut body: Value,
    ) -> Result<Value, Refused> {
        body["apiVersion"] = served.api_version.clone().into();
        body["kind"] = served.kind.clone().into();
        if let Some(namespace) = namespace {
            body["metadata"]["namespace"] = namespace.into();
        }
        for field in ["name", "generateName"] {
            let name = text(&body["metadata"], &format!("/{field}"));
            if !name.is_empty() && !is_subdomain(name.trim_end_matches('-')) {
                return Err(refused(
                    422,
                    &format!("metadata.{field}: {name} is no name"),
                ));
            }
        }
        lock(&self.store).create(&body)
    }

    fn change(
        &self,
        method: &Method,
        key: &ObjectKey,
        part: Option<&str>,
        query: &Query,
        body: &Value,
    ) -> Result<Value, Refused> {
        let version = body
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str);
        let mut store = lock(&self.store);
        if method == Method::PATCH && query.applies {
            return store.apply(body);
        }
        if method == Method::PATCH {
            let finalizers = body.pointer("/metadata/finalizers").cloned();
            let finalizers = finalizers.and_then(|list| serde_json::from_value(list).ok());
            let finalizers: Vec<String> = finalizers.unwrap_or_default();
            return store.set_finalizers(key, version, &finalizers);
        }
        if part == Some("status") {
            return store.replace_status(key, version.unwrap_or_default(), body["status"].clone());
        }
        let found = store
            .get(key)
            .ok_or_else(|| refused(404, &format!("{key} not found")))?;
        if version.is_some_and(|version| version != text(found, "/metadata/resourceVersion")) {
            return Err(refused(409, "the object has been modified"));
        }
        store.edit(key, |object| object["spec"] = body["spec"].clone())
    }

    fn list(&self, served: &Served, namespace: Option<&str>, query: &Query) -> Value {
        let store = lock(&self.store);
        let items: Vec<&Value> = store
            .of_kind(&served.kind)
            .filter(|(key, object)| query.wants(key, namespace, object))
            .map(|(_, object)| object.as_ref())
            .collect();
        json!({
            "apiVersion": served.api_version, "kind": format!("{}List", served.kind),
            "metadata": {"resourceVersion": (FIRST + store.journal().len()).to_string()}, "items": items,
        })
    }

    /// Everything that happens to a kind from a version on.
    fn watch(&self, served: Served, namespace: Option<String>, query: Query) -> Response<Body> {
        let state = (self.clone(), query.version.saturating_sub(FIRST));
        let changed = self.changed.subscribe();
        let events = stream::unfold((state, changed), move |((api, mut at), mut changed)| {
            let (served, namespace, query) = (served.clone(), namespace.clone(), query.clone());
            async move {
                loop {
                    changed.borrow_and_update();
                    let mut text = String::new();
                    {
                        let store = lock(&api.store);
                        for written in &store.journal()[at.min(store.journal().len())..] {
                            if written.key.kind == served.kind
                                && query.wants(&written.key, namespace.as_deref(), &written.object)
                            {
                                let type_ = if written.deleted {
                                    "DELETED"
                                } else {
                                    "MODIFIED"
                                };
                                let event =
                                    json!({"type": type_, "object": written.object.as_ref()});
                                text.push_str(&event.to_string());
                                text.push('\n');
                            }
                        }
                        at = store.journal().len();
                    }
                    if !text.is_empty() {
                        let frame = Ok::<_, Infallible>(Bytes::from(text));
                        return Some((frame, ((api, at), changed)));
                    }
                    changed.changed().await.ok()?;
                }
            }
        });
        respond(200, Body::from_stream(events))
    }
}

/// What a query asks for.
#[derive(Clone, Default)]
struct Query {
    watch: bool,
    applies: bool,
    version: usize,
    labels: Vec<(String, Option<String>)>,
    name: Option<String>,
}

impl Query {
    fn of(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = value
                .replace("%2F", "/")
                .replace("%3D", "=")
                .replace("%2C", ",");
            match name {
                "watch" => query.watch = value == "true",
                "fieldManager" => query.applies = true,
                "resourceVersion" => query.version = value.parse().unwrap_or_default(),
                "labelSelector" => {
                    let label = |wanted: &str| match wanted.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (wanted.to_owned(), None),
                    };
                    query.labels = value.split(',').map(label).collect();
                }
                "fieldSelector" => {
                    query.name = value.strip_prefix("metadata.name=").map(str::to_owned);
                }
                _ => {}
            }
        }
        query
    }

    fn wants(&self, key: &ObjectKey, namespace: Option<&str>, object: &Value) -> bool {
        let labelled = |(name, value): &(String, Option<String>)| {
            let found = object
                .pointer("/metadata/labels")
                .and_then(|labels| labels.get(name));
            match value {
                Some(value) => found.and_then(Value::as_str) == Some(value.as_str()),
                None => found.is_some(),
            }
        };
        namespace.is_none_or(|namespace| key.namespace.as_deref() == Some(namespace))
            && self.name.as_ref().is_none_or(|name| *name == key.name)
            && self.labels.iter().all(labelled)
    }
}

fn is_subdomain(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let sound = |part: &str| {
        !part.is_empty()
            && part.chars().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(sound)
}

fn refused(code: u16, message: &str) -> Refused {
    Refused {
        code,
        message: message.to_owned(),
    }
}

fn failure(refused: &Refused) -> Value {
    let reason = match refused.code {
        404 => "NotFound",
        409 if refused.message == "AlreadyExists" => "AlreadyExists",
        409 => "Conflict",
        _ => "Failure",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": refused.message, "reason": reason, "code": refused.code})
}

fn respond(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}
