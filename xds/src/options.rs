//! What Envoy's resources have no field for: our own messages (`xds/proto/fairlead/mesh/v1`) in the metadata of a resource, where
//! a stock Envoy leaves them alone.

use std::time::Duration;

use fairlead_model::balance::PeakEwma;
use fairlead_model::budget::RetryBudget;
use fairlead_model::class::{Class, ClassRule};
use fairlead_model::hedge::{Hedge, HedgeAfter};
use fairlead_model::retry::RetryPolicy;
use fairlead_model::route::{Forward, Mirror};

use crate::field::{Field, Fields, Result};
use crate::route;

/// The key that they have in metadata.
pub(crate) const KEY: &str = "fairlead.mesh.v1";
/// The options of a route.
pub(crate) const ROUTE: &str = "fairlead.mesh.v1.RouteOptions";
/// The options of a cluster whose endpoints are named by requests.
pub(crate) const EGRESS: &str = "fairlead.mesh.v1.EgressOptions";
/// Our own peak EWMA.
pub(crate) const PEAK_EWMA: &str = "fairlead.mesh.v1.PeakEwma";

/// The shortest delay where nothing is said (Finagle's).
const LEAST_DELAY: Duration = Duration::from_millis(1);

/// Our own message in the metadata of a resource, which has to be of this type.
pub(crate) fn own<'a>(fields: &Fields<'a>, kind: &str) -> Result<Option<Fields<'a>>> {
    let Some(metadata) = fields.get("metadata") else {
        return Ok(None);
    };
    let metadata = metadata.fields()?;
    metadata.ignore(&["filter_metadata"]);
    let typed = metadata.get("typed_filter_metadata");
    metadata.finish()?;
    let own = typed.map(|own| own.fields()).transpose()?;
    let own = own.and_then(|own| own.get(KEY));
    own.map(|own| own.typed(&[kind])?.1.fields()).transpose()
}

/// Reads the options of a route from its metadata into what it forwards.
pub(crate) fn route(fields: &Fields<'_>, forward: &mut Forward) -> Result<()> {
    let Some(own) = self::own(fields, ROUTE)? else {
        return Ok(());
    };
    forward.classes.rules = own
        .list("response_classes")?
        .iter()
        .map(class)
        .collect::<Result<_>>()?;
    if let Some(options) = own.get("retry") {
        let policy = forward
            .retry
            .as_mut()
            .ok_or_else(|| options.error("there is no retry_policy that it could be part of"))?;
        bounds(&options, policy)?;
    }
    if let Some(options) = own.get("mirror") {
        mirror(&options, &mut forward.mirrors)?;
    }
    own.finish()
}

fn class(field: &Field<'_>) -> Result<ClassRule> {
    let fields = field.fields()?;
    let mut rule = ClassRule {
        status: None,
        grpc: None,
        header: None,
        class: fields.need("class")?.one_of(&[
            ("SUCCESS", Class::Success),
            ("FAILURE", Class::Failure),
            ("RETRYABLE", Class::Retryable),
        ])?,
    };
    if let Some(range) = fields.get("status") {
        let own = range.fields()?;
        let status = |name| -> Result<u16> {
            Ok(u16::try_from(own.need(name)?.number(100, 599)?).unwrap_or(599))
        };
        let (first, last) = (status("first")?, status("last")?);
        own.finish()?;
        if first > last {
            return Err(range.error(format!("{first} is above {last}")));
        }
        rule.status = Some(first..=last);
    }
    let grpc = statuses(&fields)?;
    rule.grpc = (!grpc.is_empty()).then_some(grpc);
    rule.header = fields
        .get("header")
        .map(|header| route::header(&header))
        .transpose()?;
    fields.finish()?;
    Ok(rule)
}

/// When a request goes to another endpoint too.
fn hedging(field: &Field<'_>, policy: &mut RetryPolicy) -> Result<()> {
    if policy.hedge.is_some() {
        return Err(field.error("the route has a hedge_policy, which says otherwise"));
    }
    let fields = field.fields()?;
    let percent = u8::try_from(fields.need("extra_load")?.number(1, 100)?).unwrap_or(100);
    let percentile = match fields.get("percentile") {
        None => (100.0 - f64::from(percent)).max(1.0),
        Some(own) => {
            let percentile = own.decimal()?;
            if !(1.0..100.0).contains(&percentile) {
                return Err(own.error(format!("{percentile} is no percentile from 1 to below 100")));
            }
            percentile
        }
    };
    policy.hedge = Some(Hedge {
        // Between 10,000 and a million.
        after: HedgeAfter::Percentile((percentile * 10_000.0).round() as u32),
        extra: Some(percent),
        least: fields.duration("least_delay")?.unwrap_or(LEAST_DELAY),
        any_method: fields.flag("any_method")?,
    });
    fields.finish()
}

/// Options of all mirrors of a route.
fn mirror(field: &Field<'_>, mirrors: &mut [Mirror]) -> Result<()> {
    if mirrors.is_empty() {
        return Err(field.error("there are no request_mirror_policies that it could be part of"));
    }
    let fields = field.fields()?;
    let (safe_only, compares) = (fields.flag("safe_only")?, fields.flag("compare")?);
    let most = fields
        .get("body_most")
        .map(|own| own.number(0, 16 << 20))
        .transpose()?;
    for mirror in mirrors {
        mirror.safe_only = safe_only;
        mirror.compares = compares;
        if let Some(most) = most {
            mirror.body_most = usize::try_from(most).unwrap_or(usize::MAX);
        }
    }
    fields.finish()
}

fn statuses(fields: &Fields<'_>) -> Result<Vec<u8>> {
    fields
        .list("grpc_statuses")?
        .iter()
        .map(|own| Ok(u8::try_from(own.number(0, 16)?).unwrap_or(2)))
        .collect()
}

fn bounds(field: &Field<'_>, policy: &mut RetryPolicy) -> Result<()> {
    let fields = field.fields()?;
    policy.safe_only = fields.flag("safe_only")?;
    policy.on.class = fields.flag("retryable_classes")?;
    policy.on.grpc.extend(statuses(&fields)?);
    if let Some(budget) = fields.get("budget") {
        let own = budget.fields()?;
        let usual = RetryBudget::default();
        let percent = own
            .get("percent")
            .map_or(Ok(0), |field| field.number(0, 100))?;
        let least = own
            .get("least_per_second")
            .map_or(Ok(0.0), |field| field.decimal())?;
        if least < 0.0 {
            return Err(budget.error(format!("least_per_second: {least} is below 0")));
        }
        policy.budget = Some(RetryBudget {
            percent: u8::try_from(percent).unwrap_or(100),
            interval: own.duration("interval")?.unwrap_or(usual.interval),
            least_per_second: least,
        });
        own.finish()?;
    }
    if let Some(own) = fields.get("hedging") {
        hedging(&own, policy)?;
    }
    fields.finish()
}

/// Reads our own peak EWMA.
pub(crate) fn peak_ewma(fields: &Fields<'_>) -> Result<PeakEwma> {
    let usual = PeakEwma::default();
    Ok(PeakEwma {
        decay: fields.duration("decay")?.unwrap_or(usual.decay),
        initial: fields.duration("initial")?.unwrap_or(usual.initial),
        penalty: fields.duration("penalty")?.unwrap_or(usual.penalty),
        most_penalty: fields
            .duration("most_penalty")?
            .unwrap_or(usual.most_penalty),
    })
}
