//! Services that are asked whether a request may come in.

use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::mesh::{External, OnFailure};
use fairlead_model::TextMatch;
use fairlead_model::filter::{
    Authorization, Check, Effect, Filter, GrpcService, HttpFilter, Rules,
};
use fairlead_plan::mesh::duration;
use http::StatusCode;

use crate::compile::{names, outbound};
use crate::facts::{Facts, Key};

/// How long an answer may take where nobody says otherwise.
const PATIENCE: Duration = Duration::from_millis(200);

/// What asks a service.
pub(super) struct Asking {
    /// What finds out whether the service is asked; nothing where nobody is.
    pub(super) fits: Option<HttpFilter>,
    /// What asks it.
    pub(super) asks: HttpFilter,
}

/// What asks a service of a namespace about requests that the rules of an authorization fit; nothing where there can be none, or
/// where the service is not there and all may pass then.
pub(super) fn asking(
    facts: &Facts,
    namespace: &Arc<str>,
    name: &str,
    own: &External,
    rules: Rules,
) -> Option<Asking> {
    if rules.policies.is_empty() {
        return None;
    }
    let name = format!("external/{name}");
    let named = |name: String, filter: Filter| HttpFilter {
        name,
        is_disabled: false,
        filter,
    };
    let key: Key = (Arc::clone(namespace), own.service.name.as_str().into());
    let (fits, asks) = match outbound::http2_cluster(facts, &key, own.service.port) {
        Some(cluster) => {
            let check = Check {
                only_if: Some(Authorization::would_pass(&name)),
                ..check(&key, &cluster, own)
            };
            let fits = Authorization {
                shadow: Some(rules),
                shadow_name: Some(name.as_str().into()),
                ..Authorization::default()
            };
            let fits = Filter::Authorization(Arc::new(fits));
            let fits = named(format!("authorization/{name}"), fits);
            (Some(fits), Filter::Check(Arc::new(check)))
        }
        None if own.on_failure == OnFailure::Allow => return None,
        // Nobody answers.
        None => (None, Filter::Authorization(Arc::new(refused(rules)))),
    };
    Some(Asking {
        fits,
        asks: named(name, asks),
    })
}

fn check(service: &Key, cluster: &str, own: &External) -> Check {
    let headers = own.headers.iter().map(|text| TextMatch::Exact {
        text: text.clone(),
        ignore_case: true,
    });
    let timeout = own.timeout.as_deref().and_then(duration);
    Check {
        service: Arc::new(GrpcService {
            cluster: cluster.into(),
            authority: Some(names::port(&service.0, &service.1, own.service.port)),
            timeout: timeout.unwrap_or(PATIENCE),
        }),
        passes_on_error: own.on_failure == OnFailure::Allow,
        tells_on_error: false,
        status_on_error: StatusCode::SERVICE_UNAVAILABLE,
        body: None,
        headers: (!own.headers.is_empty()).then(|| headers.collect()),
        not_headers: Vec::new(),
        certificate: false,
        server_name: false,
        enabled: 1_000_000,
        only_if: None,
        denies_others: false,
    }
}

/// Refuses what rules fit.
fn refused(rules: Rules) -> Authorization {
    let effect = Effect::Deny;
    Authorization {
        rules: Some(Rules { effect, ..rules }),
        ..Authorization::default()
    }
}
