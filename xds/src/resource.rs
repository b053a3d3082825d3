//! Resources as they come over xDS, one at a time.

use std::sync::Arc;

use fairlead_model::Snapshot;
use serde_json::Value;

use crate::field::{Field, Result};
use crate::{ConfigError, Kind, ReadFile, Shapes, cluster, endpoint, listener, route, tls};

/// A resource alone, with its name.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    /// A snapshot of nothing but this resource.
    pub(crate) alone: Snapshot,
}

/// Reads the bytes of a resource; `known` is its name where the message around it says so.
pub(crate) fn decode(
    shapes: &Shapes,
    kind: Kind,
    known: Option<&str>,
    bytes: &[u8],
    read: ReadFile<'_>,
) -> std::result::Result<Named, (Option<String>, ConfigError)> {
    let value = shapes.json(kind.message(), bytes).map_err(|error| {
        let error = ConfigError {
            path: kind.plural().to_owned(),
            reason: error.to_string(),
        };
        (known.map(str::to_owned), error)
    })?;
    let name = name(known, &value);
    named(kind, known, &value, read).map_err(|error| (Some(name), error))
}

/// The name that a resource has, or that the message around it says.
fn name(known: Option<&str>, value: &Value) -> String {
    let own = ["name", "cluster_name"]
        .iter()
        .find_map(|field| value.get(field)?.as_str());
    own.or(known).unwrap_or_default().to_owned()
}

/// Reads the JSON form of a resource, with its name.
pub(crate) fn named(
    kind: Kind,
    known: Option<&str>,
    value: &Value,
    read: ReadFile<'_>,
) -> Result<Named> {
    let name = name(known, value);
    let alone = read_value(kind, &name, value, read)?;
    Ok(Named { name, alone })
}

/// Reads the JSON form of a resource.
fn read_value(kind: Kind, name: &str, value: &Value, read: ReadFile<'_>) -> Result<Snapshot> {
    let field = Field {
        value,
        path: format!("{}[{name:?}]", kind.plural()),
    };
    if name.is_empty() {
        return Err(field.error("a name is required"));
    }
    let name = name.to_owned();
    let mut alone = Snapshot::default();
    match kind {
        Kind::Cluster => {
            let cluster = cluster::read(&field, read)?;
            alone
                .clusters
                .insert(Arc::clone(&cluster.name), Arc::new(cluster));
        }
        Kind::Endpoints => {
            let (_, endpoints) = endpoint::assignment(&field, false)?;
            alone.endpoints.insert(name, Arc::new(endpoints));
        }
        Kind::Listener => {
            let listener = listener::read(&field, read)?;
            alone.listeners.insert(name, Arc::new(listener));
        }
        Kind::Routes => {
            let table = route::table(&field)?;
            alone.routes.insert(name, Arc::new(table));
        }
        Kind::Secret => {
            let (_, secret) = tls::secret(&field, read)?;
            alone.secrets.insert(name, secret);
        }
    }
    Ok(alone)
}
