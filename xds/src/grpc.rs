//! Services that the proxy calls itself over gRPC (`config.core.v3.GrpcService`): the cluster, and headers of the call.

use crate::field::{Field, Fields, Result};

/// The name of the cluster of a service: the field that has it.
pub(crate) fn cluster<'a>(service: &Fields<'a>) -> Result<Field<'a>> {
    let grpc = service.need("envoy_grpc")?.fields()?;
    let name = grpc.need("cluster_name")?;
    name.text()?;
    grpc.ignore(&["authority"]);
    grpc.finish()?;
    service.ignore(&["timeout"]);
    Ok(name)
}

/// Headers of each call.
pub(crate) fn metadata(service: &Fields<'_>) -> Result<Vec<(String, String)>> {
    let headers = service.list("initial_metadata")?;
    let one = |header: &Field<'_>| {
        let header = header.fields()?;
        let own = (
            header.need("key")?.text()?.to_ascii_lowercase(),
            header.text("value")?.to_owned(),
        );
        header.finish()?;
        Ok(own)
    };
    headers.iter().map(one).collect()
}
