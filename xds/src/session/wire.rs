//! The messages of the discovery service (`envoy.service.discovery.v3`), as far as they are used.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;

use crate::Kind;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// INVALID_ARGUMENT.
const INVALID: i32 = 3;

impl Status {
    pub(crate) fn invalid(message: String) -> Self {
        Self {
            code: INVALID,
            message,
        }
    }
}

/// `DiscoveryRequest`; the node is given as its bytes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StateRequest {
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) node: Option<Vec<u8>>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) resource_names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) response_nonce: String,
    #[prost(message, optional, tag = "6")]
    pub(crate) error_detail: Option<Status>,
}

/// `DiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StateResponse {
    #[prost(string, tag = "1")]
    pub(crate) version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<Any>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
}

/// `DeltaDiscoveryRequest`; the node is given as its bytes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeltaRequest {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(crate) node: Option<Vec<u8>>,
    #[prost(string, tag = "2")]
    pub(crate) type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) resource_names_subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) resource_names_unsubscribe: Vec<String>,
    #[prost(map = "string, string", tag = "5")]
    pub(crate) initial_resource_versions: HashMap<String, String>,
    #[prost(string, tag = "6")]
    pub(crate) response_nonce: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) error_detail: Option<Status>,
}

/// `DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeltaResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) resources: Vec<Resource>,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub(crate) removed_resources: Vec<String>,
}

/// `Resource`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Resource {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) resource: Option<Any>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
}

impl StateRequest {
    pub(crate) fn of(kind: Kind) -> Self {
        Self {
            type_url: kind.type_url(),
            ..Self::default()
        }
    }
}

impl DeltaRequest {
    pub(crate) fn of(kind: Kind) -> Self {
        Self {
            type_url: kind.type_url(),
            ..Self::default()
        }
    }
}
