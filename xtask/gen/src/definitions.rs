//! The custom resource definitions, a file each: for `kubectl apply`, and again for the chart.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::{NOTICE, yaml};

/// Adds the files of all definitions.
pub(crate) fn write(
    crds: &[CustomResourceDefinition],
    files: &mut BTreeMap<String, String>,
) -> Result<(), serde_json::Error> {
    for crd in crds {
        let mut value = serde_json::to_value(crd)?;
        // The API server writes the status; an empty one in a file would be a difference for ever.
        if let Value::Object(map) = &mut value {
            map.remove("status");
        }
        let text = format!("# {NOTICE}\n{}", yaml::document(&value));
        let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        files.insert(format!("manifests/chart/crds/{name}"), text.clone());
        files.insert(format!("manifests/crds/{name}"), text);
    }
    Ok(())
}
