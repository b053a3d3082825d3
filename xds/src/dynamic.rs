//! Where resources come from that the file does not have (`dynamic_resources`): the aggregated discovery service of one control
//! plane.

use fairlead_model::cluster::Discovery;
use serde_json::json;

use crate::bootstrap::{Bootstrap, Dynamic};
use crate::field::{Field, Fields, Result};
use crate::grpc;
use crate::shapes::Shapes;

/// Who asks.
pub(crate) const NODE: &str = "envoy.config.core.v3.Node";

/// Reads `dynamic_resources`; `bootstrap` has what else the file says.
pub(crate) fn read(field: &Field<'_>, node: &Field<'_>, bootstrap: &Bootstrap) -> Result<Dynamic> {
    let fields = field.fields()?;
    let mut dynamic = Dynamic {
        listeners: is_asked(&fields, "lds_config")?,
        clusters: is_asked(&fields, "cds_config")?,
        node: node_of(node)?,
        ..Dynamic::default()
    };
    let ads = fields.need("ads_config")?.fields()?;
    dynamic.is_delta = ads
        .need("api_type")?
        .one_of(&[("GRPC", false), ("DELTA_GRPC", true)])?;
    if let Some(version) = ads.get("transport_api_version") {
        version.one_of(&[("V3", ())])?;
    }
    let services = ads.need("grpc_services")?;
    let list = services.list()?;
    let [service] = list.as_slice() else {
        return Err(services.error(format!("{} services; one is supported", list.len())));
    };
    let service = service.fields()?;
    let name = grpc::cluster(&service)?;
    dynamic.cluster = name.text()?.to_owned();
    dynamic.metadata = grpc::metadata(&service)?;
    service.finish()?;
    ads.ignore(&["set_node_on_first_message_only"]);
    ads.finish()?;
    fields.finish()?;
    match bootstrap.snapshot.clusters.get(dynamic.cluster.as_str()) {
        None => Err(name.error(format!(
            "{:?} is not among static_resources.clusters",
            dynamic.cluster
        ))),
        Some(cluster) if matches!(cluster.discovery, Discovery::Eds(_)) => Err(name.error(
            "the endpoints of a control plane cannot come from itself; STATIC or LOGICAL_DNS is expected",
        )),
        Some(_) => Ok(dynamic),
    }
}

/// Whether resources of a kind come over the aggregated service.
fn is_asked(fields: &Fields<'_>, name: &'static str) -> Result<bool> {
    let Some(field) = fields.get(name) else {
        return Ok(false);
    };
    let source = field.fields()?;
    source.need("ads")?.fields()?.finish()?;
    if let Some(version) = source.get("resource_api_version") {
        version.one_of(&[("V3", ())])?;
    }
    source.ignore(&["initial_fetch_timeout"]);
    source.finish()?;
    Ok(true)
}

/// The node as it is told to a control plane, and to whoever gets figures.
pub(crate) fn node_of(field: &Field<'_>) -> Result<Vec<u8>> {
    let fields = field.fields()?;
    if fields.text("id")?.is_empty() {
        return Err(fields.error_at(
            "id",
            "is required by a control plane and by who gets figures",
        ));
    }
    let mut node = field.value.clone();
    if let Some(map) = node.as_object_mut()
        && !map.contains_key("user_agent_name")
        && !map.contains_key("userAgentName")
    {
        map.insert("user_agent_name".to_owned(), json!("fairlead-proxy"));
        map.insert(
            "user_agent_version".to_owned(),
            json!(env!("CARGO_PKG_VERSION")),
        );
    }
    Shapes::default()
        .bytes(NODE, &node)
        .map_err(|error| field.error(error.to_string()))
}
