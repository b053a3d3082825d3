//! Who a caller is by a token: the issuers of all authorizations about a pod together, and where their keys are.

use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::mesh::{Issuer, MeshAuthorization};
use fairlead_model::TextMatch;
use fairlead_model::cluster::{Address, Cluster, Discovery, Endpoint, Endpoints, Locality};
use fairlead_model::filter::{
    Filter, HttpFilter, KeySet, Keys, Places, Provider, RemoteKeys, Required, Requirement,
    TokenRule, Tokens,
};
use fairlead_model::route::RouteMatch;
use fairlead_model::tls::{
    ClientTls, NameKind, NameMatch, Secret, SecretSource, TlsCommon, Trust, Version,
};
use fairlead_plan::mesh::keys_host;

/// The name of the filter.
const NAME: &str = "tokens";
/// How long a fetch of keys may take, and until when they count.
const FETCH: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// How long after a fetch that failed the next one is made.
const PAUSE: Duration = Duration::from_secs(1);
/// By how much clocks may differ.
const SKEW: Duration = Duration::from_secs(60);

/// Issuers, each with the name by which its tokens are known, and how its keys are found; those that are the same have one name.
pub(super) struct Issuers<'a>(Vec<(String, &'a Issuer, Keys)>);

impl<'a> Issuers<'a> {
    pub(super) fn of(all: &[&'a MeshAuthorization]) -> Self {
        let mut found = Self(Vec::new());
        for own in all {
            let name = own.metadata.name.as_deref().unwrap_or_default();
            let issuers = own.spec.jwt.iter().flat_map(|jwt| &jwt.issuers);
            for (place, issuer) in issuers.enumerate() {
                let name = format!("{name}[{place}]");
                if found.name_of(issuer).is_none()
                    && let Some(keys) = keys(&name, issuer)
                {
                    found.0.push((name, issuer, keys));
                }
            }
        }
        found
    }

    /// The name by which an issuer's tokens are known; nothing where its keys are none.
    pub(super) fn name_of(&self, issuer: &Issuer) -> Option<&str> {
        let mut all = self.0.iter();
        let (name, ..) = all.find(|(_, own, _)| *own == issuer)?;
        Some(name)
    }

    /// The filter that finds out whose tokens these are; of `demanded` issuers one has to be there, where there are any.
    pub(super) fn filter(&self, demanded: &[&Issuer]) -> Option<HttpFilter> {
        if self.0.is_empty() {
            return None;
        }
        let providers = self.0.iter();
        let providers =
            providers.map(|(name, own, keys)| (name.clone(), provider(name, own, keys)));
        let mut wanted: Vec<&str> = demanded
            .iter()
            .filter_map(|own| self.name_of(own))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let wanted = wanted.into_iter().map(|name| Requirement::Provider {
            name: name.to_owned(),
            audiences: Vec::new(),
        });
        let mut wanted: Vec<Requirement> = wanted.collect();
        // Envoy refuses a choice of one.
        let demanded = match wanted.len() {
            0 | 1 => wanted.pop(),
            _ => Some(Requirement::Any(wanted)),
        };
        // All that are good are used, whoever is demanded.
        let requirement = match demanded {
            None => Requirement::AllowFailed,
            Some(own) => Requirement::All(vec![own, Requirement::AllowFailed]),
        };
        let tokens = Tokens {
            providers: providers.collect(),
            rules: vec![TokenRule {
                matches: RouteMatch::default(),
                requires: Some(Required::Own(requirement)),
            }],
            ..Tokens::default()
        };
        Some(HttpFilter {
            name: NAME.to_owned(),
            is_disabled: false,
            filter: Filter::Tokens(Arc::new(tokens)),
        })
    }

    /// The clusters that have keys.
    pub(super) fn clusters(&self) -> Vec<Cluster> {
        let all = self.0.iter();
        let remote = all.filter_map(|(_, issuer, keys)| match keys {
            Keys::Remote(remote) => cluster(issuer, &remote.cluster),
            Keys::Local(_) => None,
        });
        remote.collect()
    }
}

/// How an issuer's keys are found; nothing where what it says of them is none.
fn keys(name: &str, issuer: &Issuer) -> Option<Keys> {
    if let Some(text) = &issuer.jwks.inline {
        return KeySet::parse(text, false)
            .ok()
            .map(|own| Keys::Local(Arc::new(own)));
    }
    let uri = issuer.jwks.uri.as_deref()?;
    keys_host(uri).ok()?;
    issuer.jwks.ca.as_deref()?;
    Some(Keys::Remote(Arc::new(RemoteKeys {
        uri: uri.parse().ok()?,
        cluster: format!("keys/{name}").into(),
        timeout: FETCH.0,
        life: FETCH.1,
        pause: PAUSE,
        retries: 1,
        backoff: (PAUSE, PAUSE * 10),
    })))
}

fn provider(name: &str, own: &Issuer, keys: &Keys) -> Provider {
    Provider {
        issuer: own.issuer.clone(),
        audiences: own.audiences.clone(),
        subjects: None,
        needs_end: false,
        longest: None,
        keys: keys.clone(),
        places: Places::usual(),
        // Nothing of the application changes.
        forwards: true,
        payload_header: None,
        claims: Vec::new(),
        skew: SKEW,
        metadata: Some(name.into()),
        kept: 0,
    }
}

/// Where keys are fetched, over TLS, from a host that has to be who it is called.
fn cluster(issuer: &Issuer, name: &str) -> Option<Cluster> {
    let (host, port) = keys_host(issuer.jwks.uri.as_deref()?).ok()?;
    let roots = issuer.jwks.ca.as_deref()?;
    let endpoint = Endpoint {
        address: Address::Name(host.to_owned(), port),
        ..Endpoint::at(([0, 0, 0, 0], port).into())
    };
    let endpoints = Endpoints {
        localities: vec![Locality {
            endpoints: vec![endpoint],
            ..Locality::default()
        }],
        ..Endpoints::default()
    };
    // A certificate may be for all names of the domain.
    let wide = host
        .split_once('.')
        .map(|(_, domain)| format!("*.{domain}"));
    let names = [Some(host.to_owned()), wide].into_iter().flatten();
    let names = names.map(|text| NameMatch {
        kind: NameKind::Dns,
        text: TextMatch::Exact {
            text,
            ignore_case: true,
        },
    });
    let trust = Trust {
        roots: roots.into(),
        ..Trust::default()
    };
    Some(Cluster {
        discovery: Discovery::LogicalDns(Arc::new(endpoints)),
        tls: Some(ClientTls {
            common: TlsCommon {
                trust: Some(SecretSource::Inline(Secret::Trust(Arc::new(trust)))),
                names: names.collect(),
                lowest: Version::V1_2,
                ..TlsCommon::default()
            },
            server_name: Some(host.to_owned()),
            follows_host: false,
        }),
        ..Cluster::of(name, Endpoints::default())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the filter of an authorization with these issuers requires, where all of them are demanded.
    fn required(issuers: &[&str]) -> Option<Requirement> {
        let keys = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        ]});
        let issuers = issuers
            .iter()
            .map(|own| json!({"issuer": own, "jwks": {"inline": keys.to_string()}}));
        let authorization: MeshAuthorization = serde_json::from_value(json!({
            "apiVersion": "mesh.fairlead.dev/v1alpha1",
            "kind": "MeshAuthorization",
            "metadata": {"name": "own", "namespace": "shop"},
            "spec": {
                "targetRefs": [{"kind": "Service", "name": "cart"}],
                "jwt": {"issuers": issuers.collect::<Vec<_>>()},
            },
        }))
        .expect("an authorization");
        let all = [&authorization];
        let found = Issuers::of(&all);
        let demanded = authorization.spec.jwt.iter().flat_map(|own| &own.issuers);
        let filter = found.filter(&demanded.collect::<Vec<_>>())?;
        let Filter::Tokens(tokens) = &filter.filter else {
            return None;
        };
        match tokens.rules.first()?.requires.clone()? {
            Required::Own(requirement) => Some(requirement),
            Required::Named(_) => None,
        }
    }

    #[test]
    fn one_issuer_is_no_choice() {
        let provider = |name: &str| Requirement::Provider {
            name: name.to_owned(),
            audiences: Vec::new(),
        };
        let with = |own| Requirement::All(vec![own, Requirement::AllowFailed]);
        assert_eq!(required(&["one"]), Some(with(provider("own[0]"))));
        let both = Requirement::Any(vec![provider("own[0]"), provider("own[1]")]);
        assert_eq!(required(&["one", "two"]), Some(with(both)));
    }
}
