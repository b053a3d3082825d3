//! `/clusters`: what every endpoint does, added up over the workers.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fairlead_model::cluster::{Address, Checked, Health};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Admin, PATIENCE, Parameters};
use crate::worker::{Ask, ClusterState, EndpointState};

pub(super) async fn clusters(State(admin): State<Admin>, query: Parameters) -> Response {
    let states = gather(&admin).await;
    if query.get("format").map(String::as_str) == Some("json") {
        let clusters: Vec<Value> = states.values().map(cluster).collect();
        return Json(json!({ "cluster_statuses": clusters })).into_response();
    }
    states
        .values()
        .map(text)
        .collect::<String>()
        .into_response()
}

/// Asks every worker, and adds up what they say of the same endpoint.
async fn gather(admin: &Admin) -> BTreeMap<String, ClusterState> {
    let mut all: BTreeMap<String, ClusterState> = BTreeMap::new();
    for worker in admin.shared.workers() {
        let (reply, answer) = oneshot::channel();
        if worker.send(Ask::Clusters(reply)).is_err() {
            continue;
        }
        let Ok(Ok(states)) = tokio::time::timeout(PATIENCE, answer).await else {
            continue;
        };
        for state in states {
            match all.get_mut(&state.name) {
                None => drop(all.insert(state.name.clone(), state)),
                Some(known) => merge(known, &state),
            }
        }
    }
    all
}

fn merge(known: &mut ClusterState, more: &ClusterState) {
    for endpoint in &mut known.endpoints {
        if let Some(own) = more
            .endpoints
            .iter()
            .find(|own| own.address == endpoint.address)
        {
            endpoint.running += own.running;
            endpoint.rests |= own.rests;
            endpoint.latency = endpoint.latency.max(own.latency);
        }
    }
}

fn cluster(state: &ClusterState) -> Value {
    json!({
        "name": state.name,
        "observability_name": state.name,
        "host_statuses": state.endpoints.iter().map(host).collect::<Vec<_>>(),
        "circuit_breakers": { "thresholds": [{
            "max_connections": state.limits.connections,
            "max_pending_requests": state.limits.pending,
            "max_requests": state.limits.requests,
            "max_retries": state.limits.retries,
        }] },
    })
}

fn host(state: &EndpointState) -> Value {
    let health = match state.health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
    };
    let mut health_status = json!({ "eds_health_status": health });
    if state.rests {
        health_status["failed_outlier_check"] = json!(true);
    }
    if matches!(state.checked, Checked::Failed | Checked::Pending) {
        health_status["failed_active_health_check"] = json!(true);
    }
    if state.checked == Checked::Pending {
        health_status["pending_active_hc"] = json!(true);
    }
    json!({
        "address": address(&state.address),
        "hostname": state.hostname,
        "stats": [
            { "type": "GAUGE", "name": "rq_active", "value": state.running.to_string() },
            { "type": "GAUGE", "name": "latency_ewma_us", "value": format!("{:.0}", state.latency * 1e6) },
        ],
        "health_status": health_status,
        "weight": state.weight,
    })
}

fn text(state: &ClusterState) -> String {
    let (name, limits) = (&state.name, state.limits);
    let mut text = format!(
        "{name}::observability_name::{name}\n{name}::default_priority::max_connections::{}\n\
         {name}::default_priority::max_pending_requests::{}\n{name}::default_priority::max_requests::{}\n\
         {name}::default_priority::max_retries::{}\n",
        limits.connections, limits.pending, limits.requests, limits.retries
    );
    for endpoint in &state.endpoints {
        let flags = flags(endpoint);
        let at = &endpoint.address;
        text.push_str(&format!(
            "{name}::{at}::rq_active::{}\n{name}::{at}::latency_ewma_us::{:.0}\n{name}::{at}::hostname::{}\n\
             {name}::{at}::health_flags::{flags}\n{name}::{at}::weight::{}\n",
            endpoint.running,
            endpoint.latency * 1e6,
            endpoint.hostname,
            endpoint.weight
        ));
    }
    text
}

/// All that speaks against an endpoint, by Envoy's names.
fn flags(state: &EndpointState) -> String {
    let flags: String = [
        (
            matches!(state.checked, Checked::Failed | Checked::Pending),
            "/failed_active_hc",
        ),
        (state.rests, "/failed_outlier_check"),
        (state.health == Health::Unhealthy, "/failed_eds_health"),
        (state.health == Health::Degraded, "/degraded_eds_health"),
        (state.checked == Checked::Pending, "/pending_active_hc"),
    ]
    .into_iter()
    .filter_map(|(is_so, flag)| is_so.then_some(flag))
    .collect();
    match flags.as_str() {
        "" => "healthy".to_owned(),
        _ => flags,
    }
}

/// An address as Envoy writes it.
pub(super) fn address(address: &Address) -> Value {
    match address {
        Address::Socket(socket) => {
            json!({ "socket_address": { "address": socket.ip(), "port_value": socket.port() } })
        }
        Address::Name(name, port) => {
            json!({ "socket_address": { "address": name, "port_value": port } })
        }
        Address::Path(path) => json!({ "pipe": { "path": path } }),
    }
}
