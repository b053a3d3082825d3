//! TLS to endpoints.

use std::sync::Arc;

use fairlead_model::cluster::{Cluster, Endpoint, UpstreamProtocol};
use fairlead_model::tls::{ClientTls, Secret};
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;

use super::verify::Endpoints;
use super::{TlsError, alpn, material, provider, versions};

/// Makes the configuration of TLS to a cluster's endpoints; `secret` gives secrets by name.
///
/// # Errors
/// When a secret is missing or broken, or nobody is trusted.
pub fn client_config(
    tls: &ClientTls,
    secret: &dyn Fn(&str) -> Option<Secret>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider(&tls.common);
    let certificates = material::certificates(&tls.common, secret, &provider)?;
    let trust = material::trust(&tls.common, secret)?.ok_or(TlsError::NoTrust)?;
    let has_names = !trust.names.is_empty() || !tls.common.names.is_empty();
    let verifier = Endpoints::new(
        &trust,
        &tls.common.names,
        tls.follows_host || (!has_names && tls.server_name.is_some()),
        Arc::clone(&provider),
    )?;
    let rejected = |error: rustls::Error| TlsError::Rejected {
        cause: error.to_string(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(&tls.common))
        .map_err(rejected)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certificates.into_iter().next() {
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(Always(certificate))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn(&tls.common);
    config.enable_sni = tls.server_name.is_some() || tls.follows_host;
    if has_names {
        // A resumed session is not verified again, not even after a root was withdrawn.
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// How connections to a cluster's endpoints are secured.
#[derive(Debug, Clone, Default)]
pub struct ClusterTls {
    usual: Option<Secured>,
    matched: Vec<Option<Secured>>,
}

/// How a connection is secured: the configuration, and the name that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Secured {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_name: Option<ServerName<'static>>,
}

impl ClusterTls {
    /// Makes the configurations of a cluster's TLS; `secret` gives secrets by name.
    ///
    /// # Errors
    /// When a secret is missing or broken, or nobody is trusted.
    pub fn of(
        cluster: &Cluster,
        secret: &dyn Fn(&str) -> Option<Secret>,
    ) -> Result<Self, TlsError> {
        let secured = |tls: &ClientTls| -> Result<Secured, TlsError> {
            let mut config = client_config(tls, secret)?;
            let negotiates = matches!(
                cluster.protocol,
                UpstreamProtocol::Alpn | UpstreamProtocol::AsDownstream
            );
            if negotiates && config.alpn_protocols.is_empty() {
                Arc::make_mut(&mut config).alpn_protocols =
                    vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            }
            let name = tls.server_name.clone();
            Ok(Secured {
                config,
                server_name: name.and_then(|name| ServerName::try_from(name).ok()),
            })
        };
        let matched = cluster.sockets.iter();
        Ok(Self {
            usual: cluster.tls.as_ref().map(secured).transpose()?,
            matched: matched
                .map(|own| own.tls.as_ref().map(secured).transpose())
                .collect::<Result<_, _>>()?,
        })
    }

    /// How connections to an endpoint of the cluster are secured; nothing: they are not.
    pub(crate) fn at(&self, cluster: &Cluster, endpoint: &Endpoint) -> Option<&Secured> {
        let matched = cluster.socket(endpoint).and_then(|at| self.matched.get(at));
        matched.unwrap_or(&self.usual).as_ref()
    }

    /// Whether both make the same connections.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let alike = |(own, other): (&Option<Secured>, &Option<Secured>)| match (own, other) {
            (None, None) => true,
            (Some(own), Some(other)) => {
                Arc::ptr_eq(&own.config, &other.config) && own.server_name == other.server_name
            }
            _ => false,
        };
        alike((&self.usual, &other.usual))
            && self.matched.len() == other.matched.len()
            && self.matched.iter().zip(&other.matched).all(alike)
    }
}

/// The one certificate a workload has.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
