//! What policies say of a service, in the words of the traffic model.

use std::time::Duration;

use std::sync::Arc;

use fairlead_crds::mesh::{
    Algorithm, AnswerClass, Behaviour, Fault, Hedging, ResponseClass, Retries, RetryCondition,
};
use fairlead_model::balance::{PeakEwma, Policy};
use fairlead_model::breaker::BreakerSettings;
use fairlead_model::budget::RetryBudget;
use fairlead_model::class::{Class, ClassRule, Classes};
use fairlead_model::cluster::Cluster;
use fairlead_model::filter::{Abort, AbortBy, Delay, DelayBy, Filter, HttpFilter, Injection};
use fairlead_model::hedge::{Hedge, HedgeAfter};
use fairlead_model::retry::{RetryOn, RetryPolicy};
use fairlead_model::route::Forward;
use fairlead_plan::mesh::{Caller, duration, effective};
use http::StatusCode;

use crate::facts::{Facts, Key};

/// How often what was not begun is tried again where nobody says otherwise.
const RETRIES: u32 = 2;
/// The share of requests that may be hedged where nobody says otherwise, in percent.
const EXTRA_PERCENT: u8 = 2;

/// The share of one percent, in millionths.
pub(super) const PERCENT: u32 = 10_000;
/// How many requests of a proxy may be under a fault at once where nobody says otherwise.
const FAULTS: u32 = 100;

/// What the policies of its namespace come to for requests of a caller to a service.
pub(super) fn of(facts: &Facts, service: &Key, caller: Option<Caller<'_>>) -> Behaviour {
    let Some(policies) = facts.policies.get(&service.0) else {
        return Behaviour::default();
    };
    let policies: Vec<_> = policies.iter().map(AsRef::as_ref).collect();
    effective(&policies, &service.0, &service.1, caller).behaviour
}

/// A timeout as it was written, which was checked when the policy was taken.
fn read(text: Option<&String>) -> Option<Duration> {
    text.and_then(|text| duration(text))
}

/// How long a connection may be silent.
pub(super) fn idle(said: &Behaviour) -> Option<Duration> {
    read(said.timeouts.as_ref()?.idle.as_ref())
}

/// How long a request may take, all tries together.
pub(super) fn whole(said: &Behaviour) -> Option<Duration> {
    read(said.timeouts.as_ref()?.request.as_ref())
}

/// How often something is tried again at the most.
pub(super) fn attempts(said: Option<&Retries>) -> u32 {
    said.and_then(|own| own.attempts).unwrap_or(RETRIES)
}

/// What is said of how requests are carried.
pub(super) fn forward(said: &Behaviour, forward: &mut Forward) {
    forward.timeouts.request = whole(said);
    let timeouts = said.timeouts.as_ref();
    let one_try = timeouts.and_then(|own| read(own.backend_request.as_ref()));
    forward.timeouts.idle = idle(said);
    let mut retry = retries(&said.retries.clone().unwrap_or_default());
    retry.per_try = one_try;
    retry.hedge = said.hedging.as_ref().map(hedge);
    let classes = said.response_classes.iter().flatten();
    forward.classes = Classes {
        rules: classes.map(class).collect(),
    };
    let is_used = retry.retries > 0 || retry.hedge.is_some() || retry.per_try.is_some();
    forward.retry = is_used.then_some(retry);
}

fn class(said: &ResponseClass) -> ClassRule {
    let (from, to) = (said.status_from, said.status_to);
    let is_by_status = from.is_some() || to.is_some();
    ClassRule {
        status: is_by_status.then(|| from.unwrap_or(100)..=to.unwrap_or(599)),
        grpc: (!said.grpc_statuses.is_empty()).then(|| said.grpc_statuses.clone()),
        header: None,
        class: match said.class {
            AnswerClass::Success => Class::Success,
            AnswerClass::Failure => Class::Failure,
            AnswerClass::Retryable => Class::Retryable,
        },
    }
}

/// When what goes wrong on purpose ends, in seconds since 1970; nothing where nothing does.
pub(super) fn fault_end(said: &Behaviour) -> Option<u64> {
    // One that ends at no time is not begun.
    let until = fairlead_plan::mesh::fault_end(said)?;
    Some(u64::try_from(until.as_second()).unwrap_or(0))
}

/// What goes wrong on purpose with requests.
pub(super) fn fault(said: &Behaviour) -> Option<HttpFilter> {
    let Fault {
        delay,
        abort,
        max_active,
        ..
    } = said.fault.as_ref()?;
    let delay = delay.as_ref().and_then(|own| {
        Some(Delay {
            by: DelayBy::Fixed(duration(&own.by)?),
            share: u32::from(own.percent) * PERCENT,
        })
    });
    let abort = abort.as_ref().and_then(|own| {
        Some(Abort {
            by: AbortBy::Http(StatusCode::from_u16(own.status).ok()?),
            share: u32::from(own.percent) * PERCENT,
            body: String::new(),
        })
    });
    let injection = Injection {
        delay,
        abort,
        until: Some(fault_end(said)?),
        most_active: Some(max_active.unwrap_or(FAULTS)),
        ..Injection::default()
    };
    Some(HttpFilter {
        name: "fault".to_owned(),
        is_disabled: false,
        filter: Filter::Injection(Arc::new(injection)),
    })
}

fn retries(said: &Retries) -> RetryPolicy {
    use RetryCondition::{ConnectFailure, GatewayError, RefusedStream, Reset, ServerError};
    // What surely was not begun may go elsewhere.
    let usual = [ConnectFailure, RefusedStream];
    let on = said.retry_on.as_deref().unwrap_or(&usual);
    let budget = said.budget_percent.map(|percent| RetryBudget {
        percent,
        ..RetryBudget::default()
    });
    let policy = RetryPolicy::default();
    RetryPolicy {
        on: RetryOn {
            connect_failure: on.contains(&ConnectFailure),
            refused_stream: on.contains(&RefusedStream),
            reset: on.contains(&Reset),
            gateway_error: on.contains(&GatewayError),
            server_error: on.contains(&ServerError),
            ..RetryOn::default()
        },
        retries: attempts(Some(said)),
        budget: budget.or(policy.budget),
        ..policy
    }
}

fn hedge(said: &Hedging) -> Hedge {
    Hedge {
        after: HedgeAfter::Percentile(u32::from(said.after_percentile) * PERCENT),
        extra: Some(said.extra_percent.unwrap_or(EXTRA_PERCENT)),
        least: Duration::ZERO,
        any_method: false,
    }
}

/// What is said of a service's endpoints.
pub(super) fn cluster(said: &Behaviour, cluster: &mut Cluster) {
    if let Some(own) = &said.circuit_breaker {
        let limits = &mut cluster.limits;
        limits.connections = own.max_connections.unwrap_or(limits.connections);
        limits.requests = own.max_requests.unwrap_or(limits.requests);
        limits.pending = own.max_pending_requests.unwrap_or(limits.pending);
        if let Some(consecutive) = own.consecutive_failures {
            let usual = BreakerSettings::default();
            cluster.breaker = Some(BreakerSettings {
                consecutive: Some(consecutive),
                rate: None,
                most_resting_percent: own
                    .max_resting_percent
                    .unwrap_or(usual.most_resting_percent),
                ..usual
            });
        }
    }
    let algorithm = said.load_balancer.as_ref().and_then(|own| own.algorithm);
    cluster.balancing.policy = match algorithm {
        None | Some(Algorithm::LeastLatency) => Policy::PeakEwma(PeakEwma::default()),
        Some(Algorithm::LeastRequest) => Policy::LeastRequest { choices: 2 },
        Some(Algorithm::RoundRobin) => Policy::RoundRobin,
        Some(Algorithm::Random) => Policy::Random,
    };
}
