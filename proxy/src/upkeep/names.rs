//! Looks names up, again and again.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_model::cluster::{AddressFamily, NameLookup};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::{Told, What};

/// The least time between two questions, whatever an answer says.
const LEAST: Duration = Duration::from_secs(1);
/// The most, so that no answer counts for ever.
const MOST: Duration = Duration::from_secs(3600);

/// Resolvers, one for all clusters with the same settings.
#[derive(Debug, Default)]
pub(super) struct Resolvers(HashMap<(AddressFamily, Vec<SocketAddr>), Arc<TokioResolver>>);

impl Resolvers {
    /// The one with these settings; nothing when none can be made now.
    pub(super) fn get(&mut self, settings: &NameLookup) -> Option<Arc<TokioResolver>> {
        let key = (settings.family, settings.servers.clone());
        if let Some(own) = self.0.get(&key) {
            return Some(Arc::clone(own));
        }
        let made = resolver(settings).ok()?;
        self.0.insert(key, Arc::clone(&made));
        Some(made)
    }
}

/// A resolver for names of clusters with these settings. It keeps no answers: how long one counts is decided here.
///
/// # Errors
/// When the system names no name servers and the settings do not either.
fn resolver(settings: &NameLookup) -> Result<Arc<TokioResolver>, NetError> {
    let own = || {
        let servers = settings.servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
                .into_iter()
                .map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
            NameServerConfig::new(server.ip(), true, connections.collect())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let mut builder = match settings.servers.is_empty() {
        false => own(),
        true => TokioResolver::builder_tokio()?,
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.ip_strategy = match settings.family {
        AddressFamily::V6First => LookupIpStrategy::Ipv6thenIpv4,
        AddressFamily::V4First => LookupIpStrategy::Ipv4thenIpv6,
        AddressFamily::V4 => LookupIpStrategy::Ipv4Only,
        AddressFamily::V6 => LookupIpStrategy::Ipv6Only,
        AddressFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    builder.build().map(Arc::new)
}

/// A resolver, as soon as there can be one.
async fn made(settings: &NameLookup, told: &Told) -> Arc<TokioResolver> {
    loop {
        match resolver(settings) {
            Ok(resolver) => return resolver,
            Err(error) => {
                tracing::error!(cluster = %told.cluster, %error, "no name can be looked up");
            }
        }
        tokio::time::sleep(settings.refresh.max(LEAST)).await;
    }
}

/// Tells the addresses of a name whenever they change. While no name server answers, the last answer counts.
pub(super) async fn follow(
    resolver: Option<Arc<TokioResolver>>,
    settings: NameLookup,
    name: String,
    told: Told,
) {
    let resolver = match resolver {
        Some(resolver) => resolver,
        None => made(&settings, &told).await,
    };
    let mut last: Option<Vec<IpAddr>> = None;
    let mut failures = 0;
    loop {
        let (found, wait) = match resolver.lookup_ip(name.as_str()).await {
            Ok(answer) => {
                let mut addresses: Vec<IpAddr> = answer.iter().collect();
                addresses.sort_unstable();
                addresses.dedup();
                let left = answer
                    .valid_until()
                    .saturating_duration_since(Instant::now());
                let wait = if settings.respects_ttl {
                    left.clamp(LEAST, MOST)
                } else {
                    settings.refresh
                };
                (Some(addresses), wait)
            }
            // The name server knows that there is none.
            Err(error) if error.is_no_records_found() => {
                tracing::warn!(cluster = %told.cluster, name, %error, "a name has no address");
                (Some(Vec::new()), settings.refresh)
            }
            Err(error) => {
                tracing::warn!(cluster = %told.cluster, name, %error, "a name cannot be looked up; its last addresses stay");
                failures += 1;
                (None, settings.pause(failures, &mut fastrand::Rng::new()))
            }
        };
        if found.is_some() {
            failures = 0;
        }
        if let Some(found) = found
            && last.as_ref() != Some(&found)
        {
            told.tell(What::Addresses(name.clone(), found.clone()));
            last = Some(found);
        }
        tokio::time::sleep(wait).await;
    }
}
