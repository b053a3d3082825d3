//! Whether a service of one's own lets a request in ([Envoy's external
//! authorization](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_authz_filter)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::LEVELS;
use super::metadata::{Metadata, MetadataMatch};
use crate::TextMatch;

/// A service that is asked over gRPC.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcService {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// The host that is asked for; nothing: the cluster's name.
    pub authority: Option<String>,
    /// How long its answer may take.
    pub timeout: Duration,
}

/// A service that lets requests in.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Who is asked.
    pub service: Arc<GrpcService>,
    /// Whether a request passes where there is no answer.
    pub passes_on_error: bool,
    /// Whether the endpoint is told that (`x-envoy-auth-failure-mode-allowed`).
    pub tells_on_error: bool,
    /// The status where there is no answer, and that lets nobody in.
    pub status_on_error: StatusCode,
    /// How much of a request's body the service gets.
    pub body: Option<CheckBody>,
    /// The headers that it gets; nothing: all.
    pub headers: Option<Vec<TextMatch>>,
    /// The headers that it does not get.
    pub not_headers: Vec<TextMatch>,
    /// Whether it gets the caller's certificate.
    pub certificate: bool,
    /// Whether it gets the name that was asked for in TLS.
    pub server_name: bool,
    /// The share of requests that are asked for, in millionths.
    pub enabled: u32,
    /// What has to be known of those that are asked for; nothing: anything may.
    pub only_if: Option<MetadataMatch>,
    /// Whether those that are not asked for are refused.
    pub denies_others: bool,
}

/// How much of a body a service gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckBody {
    /// How much, in bytes.
    pub most: u32,
    /// Whether the beginning of a longer one is enough; else that is refused.
    pub is_partial: bool,
    /// Whether it comes as bytes, rather than as text.
    pub is_bytes: bool,
}

/// What a table, a host, a route or a cluster of it says of the questions to a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckSettings {
    /// What the service is told besides.
    pub context: BTreeMap<String, String>,
    /// Whether it gets no bodies.
    pub skips_body: bool,
    /// How much of a body it gets, in the place of what the filter says.
    pub body: Option<CheckBody>,
}

impl Check {
    /// Whether the service is asked of a request of which this is known; `draw` is below a million.
    #[must_use]
    pub fn is_for(&self, metadata: &Metadata, draw: u32) -> bool {
        let own = self.only_if.as_ref();
        draw < self.enabled && own.is_none_or(|own| own.matches(metadata))
    }

    /// Whether the service gets a header of this name.
    #[must_use]
    pub fn shows(&self, name: &str) -> bool {
        let is_one = |all: &[TextMatch]| all.iter().any(|own| own.matches(name));
        self.headers.as_deref().is_none_or(is_one) && !is_one(&self.not_headers)
    }

    /// How much of a body the service gets; the most exact of `settings` comes first.
    #[must_use]
    pub fn body_for(&self, settings: [Option<&CheckSettings>; LEVELS]) -> Option<CheckBody> {
        match settings.into_iter().flatten().next() {
            Some(own) if own.skips_body => None,
            Some(own) => own.body.or(self.body),
            None => self.body,
        }
    }
}
