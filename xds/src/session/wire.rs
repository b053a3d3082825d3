//! The messages of the discovery service (`envoy.service.discovery.v3`), as far as they are used.

use std::collections::HashMap;

use prost::Message;

use crate::Kind;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

/// INVALID_ARGUMENT.
const INVALID: i32 = 3;

impl Status {
    pub(super) fn invalid(message: String) -> Self {
        Self {
            code: INVALID,
            message,
        }
    }
}

/// `DiscoveryRequest`; the node is given as its bytes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StateRequest {
    #[prost(string, tag = "1")]
    pub(super) version_info: String,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(super) node: Option<Vec<u8>>,
    #[prost(string, repeated, tag = "3")]
    pub(super) resource_names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) response_nonce: String,
    #[prost(message, optional, tag = "6")]
    pub(super) error_detail: Option<Status>,
}

/// `DiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StateResponse {
    #[prost(string, tag = "1")]
    pub(super) version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<Any>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) nonce: String,
}

/// `DeltaDiscoveryRequest`; the node is given as its bytes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeltaRequest {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(super) node: Option<Vec<u8>>,
    #[prost(string, tag = "2")]
    pub(super) type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) resource_names_subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(super) resource_names_unsubscribe: Vec<String>,
    #[prost(map = "string, string", tag = "5")]
    pub(super) initial_resource_versions: HashMap<String, String>,
    #[prost(string, tag = "6")]
    pub(super) response_nonce: String,
    #[prost(message, optional, tag = "7")]
    pub(super) error_detail: Option<Status>,
}

/// `DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeltaResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<Resource>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub(super) removed_resources: Vec<String>,
}

/// `Resource`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(message, optional, tag = "2")]
    pub(super) resource: Option<Any>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
}

impl StateRequest {
    pub(super) fn of(kind: Kind) -> Self {
        Self {
            type_url: kind.type_url(),
            ..Self::default()
        }
    }
}

impl DeltaRequest {
    pub(super) fn of(kind: Kind) -> Self {
        Self {
            type_url: kind.type_url(),
            ..Self::default()
        }
    }
}
