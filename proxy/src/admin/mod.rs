//! The admin interface, in Envoy's shapes, on a runtime of its own: it answers whatever the workers do.
//!
//! What changes something is POST only. It has no authentication, as Envoy's has none: it listens on localhost or a Unix
//! socket, and the configuration says where.

mod clusters;
mod config_dump;
mod select;
mod stats;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use fairlead_model::Snapshot;
use fairlead_model::tap::Tap;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::Sources;
use crate::core::Shared;
use crate::faults::Planned;
use crate::tap::View;

/// Parameters of a request.
pub(super) type Parameters = Query<BTreeMap<String, String>>;

/// Sets the level of logs; says why not.
pub type SetLevel = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the admin interface knows.
#[derive(Clone)]
pub struct Admin {
    /// What is shared with the workers.
    pub shared: Arc<Shared>,
    /// The configuration in use; nothing yet while it is empty.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where that came from.
    pub sources: watch::Receiver<Sources>,
    /// Sets the level of logs.
    pub set_level: SetLevel,
    /// The identity of the proxy in its configuration: its id and its cluster.
    pub node: (String, String),
    /// When the process began.
    pub begun: Instant,
    /// Values set by `/runtime_modify`.
    pub runtime: Arc<Mutex<BTreeMap<String, String>>>,
}

/// The interface's routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/server_info", get(server_info))
        .route("/clusters", get(clusters::clusters))
        .route("/config_dump", get(config_dump::config_dump))
        .route("/listeners", get(listeners))
        .route("/stats", get(stats::stats))
        .route("/stats/prometheus", get(stats::prometheus))
        .route("/certs", get(certs))
        .route("/faults", get(faults))
        .route("/memory", get(memory))
        .route("/runtime", get(runtime))
        .route("/runtime_modify", post(runtime_modify))
        .route("/logging", post(logging))
        .route("/tap", post(tap))
        .route(traces::PATH, post(traces::watch))
        .route("/drain_listeners", post(drain))
        .route("/quitquitquit", post(drain))
        .route(
            "/healthcheck/fail",
            post(|state: State<Admin>| health(state, true)),
        )
        .route(
            "/healthcheck/ok",
            post(|state: State<Admin>| health(state, false)),
        )
        .method_not_allowed_fallback(not_allowed)
        .fallback(unknown)
        .with_state(admin)
}

async fn not_allowed(method: axum::http::Method) -> Response {
    let wanted = if method == axum::http::Method::GET {
        "POST"
    } else {
        "GET"
    };
    let text = format!("Method {method} not allowed, {wanted} required.");
    (StatusCode::METHOD_NOT_ALLOWED, text).into_response()
}

async fn unknown() -> Response {
    let text = "invalid path. admin commands are: /certs /clusters /config_dump /drain_listeners /faults /healthcheck/fail \
        /healthcheck/ok /listeners /logging /memory /quitquitquit /ready /runtime /runtime_modify /server_info /stats \
        /stats/prometheus /tap\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

impl Admin {
    fn state(&self) -> &'static str {
        if *self.shared.draining.borrow() {
            "DRAINING"
        } else if !self.shared.has_listened(&self.snapshots.borrow()) {
            "INITIALIZING"
        } else if self.shared.is_failing.load(Ordering::Relaxed) {
            "DRAINING"
        } else {
            "LIVE"
        }
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let state = admin.state();
    let status = if state == "LIVE" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, format!("{state}\n")).into_response()
}

async fn server_info(State(admin): State<Admin>) -> Json<Value> {
    let uptime = format!("{}s", admin.begun.elapsed().as_secs());
    Json(json!({
        "version": format!("fairlead-proxy/{}", env!("CARGO_PKG_VERSION")),
        "state": admin.state(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "command_line_options": { "concurrency": admin.shared.cores, "mode": "Serve" },
        "node": { "id": admin.node.0, "cluster": admin.node.1, "user_agent_name": "fairlead-proxy" },
    }))
}

async fn listeners(State(admin): State<Admin>, query: Parameters) -> Response {
    let snapshot = Arc::clone(&admin.snapshots.borrow());
    if query.get("format").map(String::as_str) == Some("json") {
        let listeners: Vec<Value> = snapshot
            .listeners
            .values()
            .map(|listener| json!({ "name": listener.name, "local_address": clusters::address(&listener.address) }))
            .collect();
        return Json(json!({ "listener_statuses": listeners })).into_response();
    }
    let lines: String = snapshot
        .listeners
        .values()
        .map(|listener| format!("{}::{}\n", listener.name, listener.address))
        .collect();
    lines.into_response()
}

async fn certs(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = Arc::clone(&admin.snapshots.borrow());
    Json(json!({ "certificates": crate::tls::describe(&snapshot) }))
}

/// What goes wrong on purpose, and until when.
async fn faults(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = Arc::clone(&admin.snapshots.borrow());
    let planned = crate::faults::planned(&snapshot);
    let shown: Vec<Value> = planned.iter().map(Planned::shown).collect();
    Json(json!({
        "disabled": admin.shared.faults_off.load(Ordering::Relaxed),
        "active": admin.shared.active_faults.load(Ordering::Relaxed),
        "faults": shown,
    }))
}

async fn memory() -> Json<Value> {
    // In pages: the size, then what is resident (proc(5), statm).
    let resident = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    Json(json!({ "total_physical_bytes": (resident * 4096).to_string() }))
}

async fn runtime(State(admin): State<Admin>) -> Json<Value> {
    let values = admin
        .runtime
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let entries: serde_json::Map<String, Value> = values
        .into_iter()
        .map(|(key, value)| {
            (
                key,
                json!({ "final_value": value, "layer_values": [value] }),
            )
        })
        .collect();
    Json(json!({ "entries": entries, "layers": ["admin"] }))
}

/// The most values that may be set.
const MOST_VALUES: usize = 1_000;
/// While this is `true`, nothing goes wrong on purpose.
const FAULTS_OFF: &str = "faults.disabled";

async fn runtime_modify(State(admin): State<Admin>, query: Parameters) -> Response {
    let mut values = admin.runtime.lock().unwrap_or_else(PoisonError::into_inner);
    if query.is_empty() {
        return (
            StatusCode::BAD_REQUEST,
            "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n",
        )
            .into_response();
    }
    if values.len() + query.len() > MOST_VALUES {
        return (
            StatusCode::BAD_REQUEST,
            format!("at most {MOST_VALUES} values may be set\n"),
        )
            .into_response();
    }
    for (key, value) in &query.0 {
        if value.is_empty() {
            values.remove(key);
        } else {
            values.insert(key.clone(), value.clone());
        }
    }
    let is_off = values.get(FAULTS_OFF).is_some_and(|own| own == "true");
    admin.shared.faults_off.store(is_off, Ordering::Relaxed);
    "OK\n".into_response()
}

async fn logging(State(admin): State<Admin>, query: Parameters) -> Response {
    let Some(level) = query.get("level") else {
        return (
            StatusCode::BAD_REQUEST,
            "usage: /logging?level=<trace|debug|info|warning|error|off>\n",
        )
            .into_response();
    };
    match (admin.set_level)(level) {
        Ok(()) => format!("level: {level}\n").into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// Why nobody is shown anything.
enum Refused {
    /// It is asked for wrongly.
    Wrong(String),
    /// As many watch as may.
    Full(String),
}

impl Admin {
    /// Has somebody watch live requests.
    fn watch(&self, tap: Tap) -> Result<View, Refused> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let known: BTreeSet<&str> = snapshot.http().map(|http| http.name.as_str()).collect();
        if !tap.name.is_empty() && !known.contains(tap.name.as_str()) {
            let known: Vec<&str> = known.into_iter().collect();
            return Err(Refused::Wrong(format!(
                "config_id: {:?} is no stat_prefix of an HTTP connection manager; {} is allowed, and nothing for all",
                tap.name,
                known.join(", ")
            )));
        }
        self.shared.taps.watch(tap).map_err(Refused::Full)
    }
}

/// Shows live requests for as long as the viewer reads.
async fn tap(State(admin): State<Admin>, body: String) -> Response {
    let tap = fairlead_xds::tap(&body).map_err(|error| Refused::Wrong(error.to_string()));
    match tap.and_then(|tap| admin.watch(tap)) {
        Ok(view) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (kind, axum::body::Body::new(view)).into_response()
        }
        Err(Refused::Wrong(text)) => (StatusCode::BAD_REQUEST, text + "\n").into_response(),
        Err(Refused::Full(text)) => (StatusCode::TOO_MANY_REQUESTS, text + "\n").into_response(),
    }
}

async fn drain(State(admin): State<Admin>) -> Response {
    admin.shared.draining.send_replace(true);
    ([(header::CONTENT_TYPE, "text/plain")], "OK\n").into_response()
}

async fn health(State(admin): State<Admin>, is_failing: bool) -> Response {
    admin.shared.is_failing.store(is_failing, Ordering::Relaxed);
    "OK\n".into_response()
}

/// How long the workers may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(5);
