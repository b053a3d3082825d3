//! Services that are asked whether a request may come in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::mesh::{External, OnFailure};
use fairlead_model::TextMatch;
use fairlead_model::filter::{
    Authorization, Check, Condition, Effect, Filter, GrpcService, HttpFilter, Policy, Rules,
};
use fairlead_plan::mesh::duration;
use http::StatusCode;

use crate::compile::{names, outbound};
use crate::facts::{Facts, Key};

/// How long an answer may take where nobody says otherwise.
const PATIENCE: Duration = Duration::from_millis(200);

/// What asks a service of a namespace, for an authorization; nothing where it is not there and all may pass then.
pub(super) fn filter(
    facts: &Facts,
    namespace: &Arc<str>,
    name: &str,
    own: &External,
) -> Option<HttpFilter> {
    let key: Key = (Arc::clone(namespace), own.service.name.as_str().into());
    let filter = match outbound::http2_cluster(facts, &key, own.service.port) {
        Some(cluster) => Filter::Check(Arc::new(check(&key, &cluster, own))),
        None if own.on_failure == OnFailure::Allow => return None,
        // Nobody answers.
        None => Filter::Authorization(Arc::new(nobody())),
    };
    Some(HttpFilter {
        name: format!("external/{name}"),
        is_disabled: false,
        filter,
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
        denies_others: false,
    }
}

/// Lets nobody in.
fn nobody() -> Authorization {
    let all = Policy {
        permissions: vec![Condition::Any],
        principals: vec![Condition::Any],
    };
    Authorization {
        rules: Some(Rules {
            effect: Effect::Deny,
            policies: BTreeMap::from([("nobody answers".to_owned(), all)]),
        }),
        ..Authorization::default()
    }
}
