//! `/config_dump`: what the proxy was told and what it made of that, in Envoy's shapes
//! (<https://www.envoyproxy.io/docs/envoy/latest/api-v3/admin/v3/config_dump.proto>).
//!
//! What stands in the file and what a control plane told are kept apart. Every resource is written from what is in use, so that
//! what is shown is what counts, usual values included. Private keys and values of metadata are `[redacted]`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fairlead_model::Snapshot;
use fairlead_model::cluster::{Cluster, Discovery, Endpoints};
use fairlead_model::listener::{Handler, Listener, Routes};
use fairlead_xds::write;
use fairlead_xds::{Entry, Kind, Refusal};
use serde_json::{Map, Value, json};

use super::select::{Select, SelectError};
use super::{Admin, Parameters};
use crate::config::{Sources, Told};

pub(super) async fn config_dump(State(admin): State<Admin>, query: Parameters) -> Response {
    let refuse = |error: SelectError| {
        let status = match &error {
            SelectError::NotFound { .. } => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        (status, format!("{error}\n")).into_response()
    };
    let select = match Select::of(&query) {
        Ok(select) => select,
        Err(error) => return refuse(error),
    };
    let dump = Dump {
        snapshot: Arc::clone(&admin.snapshots.borrow()),
        sources: admin.sources.borrow().clone(),
    };
    match select.apply(dump.sections(query.contains_key("include_eds"))) {
        Ok(value) => {
            let text = serde_json::to_string_pretty(&value).unwrap_or_default();
            ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
        }
        Err(error) => refuse(error),
    }
}

/// What there is to show.
struct Dump {
    snapshot: Arc<Snapshot>,
    sources: Sources,
}

/// A message within an `Any`.
fn any(kind: Kind, mut message: Value) -> Value {
    if let Some(map) = message.as_object_mut() {
        map.insert("@type".to_owned(), json!(kind.type_url()));
    }
    message
}

/// A section with those of its lists that have something.
fn section(name: &str, fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let says_something = |value: &Value| match value {
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        other => !other.is_null(),
    };
    let mut map: Map<String, Value> = fields
        .into_iter()
        .filter(|(_, value)| says_something(value))
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    map.insert(
        "@type".to_owned(),
        json!(format!("type.googleapis.com/envoy.admin.v3.{name}")),
    );
    Value::Object(map)
}

/// A time of day in milliseconds.
fn time(time: SystemTime) -> Value {
    jiff::Timestamp::try_from(time).map_or(Value::Null, |time| json!(format!("{time:.3}")))
}

impl Dump {
    fn sections(&self, with_endpoints: bool) -> Vec<Value> {
        let bootstrap = section(
            "BootstrapConfigDump",
            [
                ("bootstrap", write::bootstrap(&self.sources.file)),
                ("last_updated", time(self.sources.read)),
            ],
        );
        let mut sections = vec![bootstrap, self.clusters()];
        if with_endpoints {
            sections.push(self.endpoints());
        }
        sections.extend([
            self.listeners(),
            section("ScopedRoutesConfigDump", []),
            self.routes(),
            self.secrets(),
        ]);
        sections
    }

    fn given(&self) -> &Snapshot {
        &self.sources.file.snapshot
    }

    fn version(&self, kind: Kind) -> Value {
        let told = self.sources.told.as_ref();
        json!(told.and_then(|told| told.ledger.versions.get(&kind)))
    }

    /// Something of the file, under the name that its section has for it.
    fn fixed(&self, field: &str, own: Value) -> Value {
        json!({field: own, "last_updated": time(self.sources.read)})
    }

    /// What became of the resources of a kind that a control plane told, by name.
    fn told(&self, kind: Kind) -> impl Iterator<Item = (&str, &Told, &Entry)> {
        self.sources.told.iter().flat_map(move |told| {
            let own = told.ledger.entries.iter();
            own.filter(move |((of, _), _)| *of == kind)
                .map(move |((_, name), entry)| (name.as_str(), told, entry))
        })
    }

    /// Resources of a kind that a control plane told: those in use, and those that wait. `used` and `waiting` write one as its
    /// section has it.
    fn dynamic(
        &self,
        kind: Kind,
        used: impl Fn(&str) -> Option<Value>,
        waiting: impl Fn(&str) -> Option<Value>,
    ) -> (Vec<Value>, Vec<Value>) {
        let (mut active, mut warming) = (Vec::new(), Vec::new());
        for (name, told, entry) in self.told(kind) {
            let error = entry.refused.as_ref();
            let error = error.map(|own| refusal(kind, told, own));
            let is_active = entry.used.is_some();
            if let (Some(stamp), Some(own)) = (&entry.used, used(name)) {
                // Of what goes on since the next is not ready, only the next one's version is known.
                let is_held = kind == Kind::Cluster && self.snapshot.waiting.contains_key(name);
                let stamp = (!is_held).then_some((told, &stamp.version, stamp.at));
                active.push(stamped(own, stamp, error.clone()));
            }
            let (stamp, own) = match (&entry.told, waiting(name)) {
                (Some(stamp), Some(own)) => (Some((told, &stamp.version, stamp.at)), own),
                _ if is_active => continue,
                _ => (None, only_named(kind, name)),
            };
            warming.push(stamped(own, stamp, error.filter(|_| !is_active)));
        }
        (active, warming)
    }

    fn clusters(&self) -> Value {
        let fixed: Vec<Value> = self
            .given()
            .clusters
            .values()
            .map(|own| self.fixed("cluster", any(Kind::Cluster, write::cluster(own))))
            .collect();
        let shown = |own: &Cluster| json!({"cluster": any(Kind::Cluster, write::cluster(own))});
        let (active, warming) = self.dynamic(
            Kind::Cluster,
            |name| self.snapshot.clusters.get(name).map(|own| shown(own)),
            |name| {
                let held = self.snapshot.waiting.get(name);
                let told = || self.waiting()?.clusters.get(name);
                held.or_else(told).map(|own| shown(own))
            },
        );
        section(
            "ClustersConfigDump",
            [
                ("version_info", self.version(Kind::Cluster)),
                ("static_clusters", json!(fixed)),
                ("dynamic_active_clusters", json!(active)),
                ("dynamic_warming_clusters", json!(warming)),
            ],
        )
    }

    fn endpoints(&self) -> Value {
        let own = |name: &str, endpoints: &Endpoints| {
            any(Kind::Endpoints, write::endpoints(name, endpoints))
        };
        let fixed: Vec<Value> = self
            .snapshot
            .clusters
            .values()
            .filter(|cluster| !matches!(cluster.discovery, Discovery::Eds(_)))
            .filter_map(|cluster| {
                let endpoints = self.snapshot.endpoints(cluster)?;
                Some(json!({"endpoint_config": own(&cluster.name, &endpoints)}))
            })
            .collect();
        let of = |snapshot: &Snapshot, name: &str| {
            let endpoints = snapshot.endpoints.get(name)?;
            Some(json!({"endpoint_config": own(name, endpoints)}))
        };
        let (mut all, warming) = self.dynamic(
            Kind::Endpoints,
            |name| of(&self.snapshot, name),
            |name| of(self.waiting()?, name),
        );
        all.extend(warming);
        section(
            "EndpointsConfigDump",
            [
                ("static_endpoint_configs", json!(fixed)),
                ("dynamic_endpoint_configs", json!(all)),
            ],
        )
    }

    fn listeners(&self) -> Value {
        let own = |listener: &Listener| any(Kind::Listener, write::listener(listener));
        let fixed: Vec<Value> = self
            .given()
            .listeners
            .values()
            .map(|listener| self.fixed("listener", own(listener)))
            .collect();
        // A listener has its states side by side.
        let mut dynamic = Vec::new();
        for (name, told, entry) in self.told(Kind::Listener) {
            let mut value = json!({"name": name});
            if let (Some(stamp), Some(used)) = (&entry.used, self.snapshot.listeners.get(name)) {
                let stamp = Some((told, &stamp.version, stamp.at));
                value["active_state"] = stamped(json!({"listener": own(used)}), stamp, None);
            }
            let waiting = self.waiting().and_then(|own| own.listeners.get(name));
            if let (Some(stamp), Some(waiting)) = (&entry.told, waiting) {
                let stamp = Some((told, &stamp.version, stamp.at));
                value["warming_state"] = stamped(json!({"listener": own(waiting)}), stamp, None);
            }
            if let Some(refused) = &entry.refused {
                value["error_state"] = refusal(Kind::Listener, told, refused);
            }
            dynamic.push(value);
        }
        section(
            "ListenersConfigDump",
            [
                ("version_info", self.version(Kind::Listener)),
                ("static_listeners", json!(fixed)),
                ("dynamic_listeners", json!(dynamic)),
            ],
        )
    }

    fn routes(&self) -> Value {
        let inline = self.given().listeners.values().flat_map(|listener| {
            let chains = listener.all_chains();
            chains.filter_map(|chain| match &chain.handler {
                Handler::Http(http) => match &http.routes {
                    Routes::Inline(table) => Some(table),
                    Routes::Named(_) => None,
                },
                Handler::Tcp(_) | Handler::Udp(_) => None,
            })
        });
        let fixed: Vec<Value> = inline
            .map(|table| self.fixed("route_config", any(Kind::Routes, write::routes(table))))
            .collect();
        let of = |snapshot: &Snapshot, name: &str| {
            let table = snapshot.routes.get(name)?;
            Some(json!({"route_config": any(Kind::Routes, write::routes(table))}))
        };
        let (mut all, warming) = self.dynamic(
            Kind::Routes,
            |name| of(&self.snapshot, name),
            |name| of(self.waiting()?, name),
        );
        all.extend(warming);
        section(
            "RoutesConfigDump",
            [
                ("static_route_configs", json!(fixed)),
                ("dynamic_route_configs", json!(all)),
            ],
        )
    }

    fn secrets(&self) -> Value {
        let fixed: Vec<Value> = self
            .given()
            .secrets
            .iter()
            .map(|(name, own)| {
                let mut value = self.fixed("secret", any(Kind::Secret, write::secret(name, own)));
                value["name"] = json!(name);
                value
            })
            .collect();
        let of = |snapshot: &Snapshot, name: &str| {
            let own = any(
                Kind::Secret,
                write::secret(name, snapshot.secrets.get(name)?),
            );
            Some(json!({"name": name, "secret": own}))
        };
        let (active, mut warming) = self.dynamic(
            Kind::Secret,
            |name| of(&self.snapshot, name),
            |name| of(self.waiting()?, name),
        );
        // Those that are waited for, and of which nothing came.
        let told: BTreeSet<&str> = self.told(Kind::Secret).map(|(name, ..)| name).collect();
        let wanted = self
            .snapshot
            .wanted_secrets()
            .into_iter()
            .chain(
                self.waiting()
                    .into_iter()
                    .flat_map(Snapshot::wanted_secrets),
            )
            .collect::<BTreeSet<_>>();
        warming.extend(
            wanted
                .into_iter()
                .filter(|name| !told.contains(name) && !self.given().secrets.contains_key(*name))
                .map(|name| only_named(Kind::Secret, name)),
        );
        section(
            "SecretsConfigDump",
            [
                ("static_secrets", json!(fixed)),
                ("dynamic_active_secrets", json!(active)),
                ("dynamic_warming_secrets", json!(warming)),
            ],
        )
    }

    fn waiting(&self) -> Option<&Snapshot> {
        Some(&self.sources.told.as_ref()?.ledger.waiting)
    }
}

/// A resource of which nothing but the name is known.
fn only_named(kind: Kind, name: &str) -> Value {
    match kind {
        Kind::Cluster => json!({"cluster": any(kind, json!({"name": name}))}),
        Kind::Endpoints => json!({"endpoint_config": any(kind, json!({"cluster_name": name}))}),
        Kind::Routes => json!({"route_config": any(kind, json!({"name": name}))}),
        Kind::Listener | Kind::Secret => json!({"name": name}),
    }
}

/// A resource with the version and the time that it came with, and why an update of it was refused.
fn stamped(
    mut own: Value,
    stamp: Option<(&Told, &String, fairlead_model::Moment)>,
    error: Option<Value>,
) -> Value {
    if let Some((told, version, at)) = stamp {
        own["version_info"] = json!(version);
        own["last_updated"] = time(told.time(at));
    }
    if let Some(error) = error {
        own["error_state"] = error;
    }
    own
}

/// An `UpdateFailureState`.
fn refusal(kind: Kind, told: &Told, own: &Refusal) -> Value {
    let mut state = json!({
        "details": own.reason,
        "version_info": own.stamp.version,
        "last_update_attempt": time(told.time(own.stamp.at)),
    });
    if let Some(resource) = &own.resource {
        state["failed_configuration"] = any(kind, resource.clone());
    }
    state
}
