//! The kinds of resources that come over xDS.

/// A kind of resource. The order is the one in which they are asked for: what others refer to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
    /// SDS.
    Secret,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Routes,
        Self::Secret,
    ];

    /// The full name of its message.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::Routes => "envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// Its type, as it stands in requests.
    #[must_use]
    pub fn type_url(self) -> String {
        format!("type.googleapis.com/{}", self.message())
    }

    /// The kind of a type.
    #[must_use]
    pub fn of(type_url: &str) -> Option<Self> {
        let name = type_url.rsplit('/').next()?;
        Self::ALL.into_iter().find(|kind| kind.message() == name)
    }

    /// What its resources are called together, for paths of fields.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Cluster => "clusters",
            Self::Endpoints => "endpoints",
            Self::Listener => "listeners",
            Self::Routes => "route_configurations",
            Self::Secret => "secrets",
        }
    }

    /// Whether all there are come without being named.
    pub(crate) fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}
