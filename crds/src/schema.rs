//! Pieces of schemas that several kinds share, and the last step of every custom resource definition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::{Schema, SchemaGenerator, json_schema};

/// The pattern of a DNS label that starts with a letter or digit.
pub const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// The pattern of a DNS subdomain.
pub const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// The pattern of a duration as the Gateway API writes them (GEP-2257).
pub const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// Any JSON object.
#[must_use]
pub fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Any JSON value.
#[must_use]
pub fn any_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// Puts the root of a definition in order: `metadata` is described, and `status` is never required.
#[must_use]
pub fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        if let Some(description) = root
            .properties
            .as_ref()
            .and_then(|all| all.get("spec"))
            .and_then(|spec| spec.description.clone())
        {
            root.description = Some(description);
        }
        if let Some(status) = root
            .properties
            .as_mut()
            .and_then(|all| all.get_mut("status"))
        {
            status.nullable = None;
        }
    }
    crd
}
