//! The file a proxy starts with: Envoy's bootstrap.

use std::sync::Arc;

use fairlead_model::Snapshot;
use fairlead_model::cluster::Address;
use fairlead_model::overload::Overload;
use serde_json::Value;

use crate::field::{ConfigError, Field, Fields, Result};
use crate::identity::Identity;
use crate::sinks::Sinks;
use crate::{ReadFile, cluster, dynamic, endpoint, identity, listener, overload, sinks, tls};

/// What a proxy starts with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bootstrap {
    /// Its own name.
    pub id: String,
    /// The name of the service it belongs to.
    pub cluster: String,
    /// Where the admin interface listens.
    pub admin: Option<Address>,
    /// Listeners, clusters and secrets that are given.
    pub snapshot: Snapshot,
    /// The bounds of latency histograms in milliseconds, where they are not the usual ones.
    pub bounds: Option<Vec<f64>>,
    /// Where the rest comes from, when not all is given.
    pub dynamic: Option<Dynamic>,
    /// How it gets its certificate, when an authority signs one for it.
    pub identity: Option<Identity>,
    /// What is given up for want of memory, where it is not the usual.
    pub overload: Option<Overload>,
    /// Whom figures are pushed to.
    pub sinks: Option<Sinks>,
    /// The files that were read.
    pub files: Vec<std::path::PathBuf>,
}

/// A control plane that is asked over the aggregated discovery service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// The cluster it is reached by.
    pub cluster: String,
    /// Whether only what changed is sent (delta), or the state of the world.
    pub is_delta: bool,
    /// Whether it is asked for listeners.
    pub listeners: bool,
    /// Whether it is asked for clusters.
    pub clusters: bool,
    /// Headers of the call.
    pub metadata: Vec<(String, String)>,
    /// Who asks: a `config.core.v3.Node`.
    pub node: Vec<u8>,
}

/// Reads a bootstrap in YAML or JSON; `read` gives the files that it names.
///
/// # Errors
/// Names the first field that is wrong, by its path.
pub fn bootstrap(text: &str, read: ReadFile<'_>) -> std::result::Result<Bootstrap, ConfigError> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| ConfigError {
        path: "bootstrap".to_owned(),
        reason: format!("failed to read YAML: {error}"),
    })?;
    let files = std::cell::RefCell::new(Vec::new());
    let noting = |path: &std::path::Path| {
        files.borrow_mut().push(path.to_owned());
        read(path)
    };
    let mut bootstrap = message(&Field::root(&value), &noting)?;
    bootstrap.files = files.into_inner();
    Ok(bootstrap)
}

fn message(field: &Field<'_>, read: ReadFile<'_>) -> Result<Bootstrap> {
    let fields = field.fields()?;
    let mut bootstrap = Bootstrap::default();
    if let Some(node) = fields.get("node") {
        let node = node.fields()?;
        bootstrap.id = node.text("id")?.to_owned();
        bootstrap.cluster = node.text("cluster")?.to_owned();
        node.ignore(&[
            "metadata",
            "locality",
            "user_agent_name",
            "user_agent_version",
        ]);
        node.finish()?;
    }
    if let Some(admin) = fields.get("admin") {
        let admin = admin.fields()?;
        bootstrap.admin = admin
            .get("address")
            .map(|address| endpoint::address(&address))
            .transpose()?;
        admin.ignore(&[
            "access_log",
            "access_log_path",
            "profile_path",
            "ignore_global_conn_limit",
        ]);
        admin.finish()?;
    }
    if let Some(stats) = fields.get("stats_config") {
        bootstrap.bounds = bounds(&stats.fields()?)?;
    }
    if let Some(resources) = fields.get("static_resources") {
        resources_of(&resources.fields()?, &mut bootstrap.snapshot, read)?;
    }
    if let Some(resources) = fields.get("dynamic_resources") {
        let node = fields.need("node")?;
        let dynamic = dynamic::read(&resources, &node, &bootstrap)?;
        bootstrap.snapshot.awaits_listeners = dynamic.listeners;
        bootstrap.dynamic = Some(dynamic);
    }
    for own in fields.list("bootstrap_extensions")? {
        let own = own.fields()?;
        own.ignore(&["name"]);
        let config = own.need("typed_config")?.typed(&[identity::IDENTITY])?.1;
        own.finish()?;
        let identity = identity::read(&config, &bootstrap)?;
        if bootstrap.identity.replace(identity).is_some() {
            return Err(config.error("there is another identity"));
        }
    }
    let may_come = bootstrap.dynamic.as_ref().is_some_and(|own| own.clusters);
    if let Some((sends, cluster)) = bootstrap.snapshot.missing_clusters().into_iter().next()
        && !may_come
    {
        return Err(fields.error_at(
            "static_resources",
            format!("{sends} to the cluster {cluster:?}, which is not among the clusters"),
        ));
    }
    if let Some(own) = fields.get("overload_manager") {
        bootstrap.overload = Some(overload::read(&own)?);
    }
    bootstrap.sinks = sinks::read(&fields, &bootstrap)?;
    fields.ignore(&["layered_runtime"]);
    fields.finish()?;
    Ok(bootstrap)
}

fn bounds(fields: &Fields<'_>) -> Result<Option<Vec<f64>>> {
    fields.ignore(&["stats_tags", "use_all_default_tags", "stats_matcher"]);
    let settings = fields.list("histogram_bucket_settings")?;
    fields.finish()?;
    let Some(first) = settings.first() else {
        return Ok(None);
    };
    let first = first.fields()?;
    first.ignore(&["match"]);
    let bounds = first.need("buckets")?;
    let numbers = bounds
        .list()?
        .iter()
        .map(|bound| bound.decimal())
        .collect::<Result<Vec<_>>>()?;
    first.finish()?;
    if numbers.is_empty()
        || numbers.len() > 100
        || !numbers.windows(2).all(|pair| pair[0] < pair[1])
    {
        return Err(bounds.error("1 to 100 bounds in rising order are expected"));
    }
    Ok(Some(numbers))
}

fn resources_of(fields: &Fields<'_>, snapshot: &mut Snapshot, read: ReadFile<'_>) -> Result<()> {
    for own in fields.list("listeners")? {
        let listener = listener::read(&own, read)?;
        if snapshot
            .listeners
            .insert(listener.name.clone(), Arc::new(listener))
            .is_some()
        {
            return Err(own.error("there is another listener of this name"));
        }
    }
    for own in fields.list("clusters")? {
        let cluster = cluster::read(&own, read)?;
        if snapshot
            .clusters
            .insert(Arc::clone(&cluster.name), Arc::new(cluster))
            .is_some()
        {
            return Err(own.error("there is another cluster of this name"));
        }
    }
    for own in fields.list("secrets")? {
        let (name, secret) = tls::secret(&own, read)?;
        if snapshot.secrets.insert(name, secret).is_some() {
            return Err(own.error("there is another secret of this name"));
        }
    }
    fields.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_sends_to_a_cluster_that_is_not_there_is_named() {
        const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions.filters";
        let error = |filter: Value| {
            let text = json!({"static_resources": {"listeners": [{
                "name": "in",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
                "filter_chains": [{"filters": [{"name": "own", "typed_config": filter}]}],
            }]}});
            let read = bootstrap(&text.to_string(), &|_| Ok(Vec::new()));
            read.expect_err("it is refused").to_string()
        };
        let tcp = json!({
            "@type": format!("{EXTENSIONS}.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "in",
            "cluster": "cart",
        });
        assert_eq!(
            error(tcp),
            "static_resources: the listener \"in\" sends to the cluster \"cart\", which is not among the clusters"
        );
        let traced = json!({
            "@type": format!("{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "in",
            "route_config": {"virtual_hosts": []},
            "http_filters": [{"name": "router", "typed_config": {"@type": format!("{EXTENSIONS}.http.router.v3.Router")}}],
            "tracing": {"provider": {"name": "envoy.tracers.opentelemetry", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}},
            }}},
        });
        assert_eq!(
            error(traced),
            "static_resources: the tracing of the listener \"in\" sends to the cluster \"collector\", which is not among the clusters"
        );
    }
}
