//! `/stats` as text or JSON, and for Prometheus.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fairlead_model::Pattern;
use serde_json::{Value, json};

use super::{Admin, Parameters};
use crate::metrics::{self, Stat};

/// The quantiles of a summary.
const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

pub(super) async fn stats(State(admin): State<Admin>, query: Parameters) -> Response {
    let format = query.get("format").map_or("text", String::as_str);
    if format == "prometheus" {
        return prometheus(State(admin)).await;
    }
    let filter = match query
        .get("filter")
        .map(|filter| Pattern::parse(&format!(".*(?:{filter}).*")))
        .transpose()
    {
        Ok(filter) => filter,
        Err(error) => {
            return (StatusCode::BAD_REQUEST, format!("filter: {error}\n")).into_response();
        }
    };
    let used_only = query.contains_key("usedonly");
    let mut all = metrics::stats(&admin.shared.figures);
    all.retain(|name, stat| {
        filter.as_ref().is_none_or(|filter| filter.matches(name)) && (!used_only || is_used(stat))
    });
    match format {
        "json" => {
            let numbers = all.iter().filter_map(|(name, stat)| match stat {
                Stat::Number(number) => Some(
                    json!({ "name": name, "value": i64::try_from(*number).unwrap_or(i64::MAX) }),
                ),
                Stat::Spread { .. } => None,
            });
            let spreads: Vec<Value> = all
                .iter()
                .filter_map(|(name, stat)| quantiles(name, stat))
                .collect();
            let mut stats: Vec<Value> = numbers.collect();
            stats.push(json!({ "histograms": {
                "supported_quantiles": QUANTILES.map(|quantile| quantile * 100.0),
                "computed_quantiles": spreads,
            } }));
            axum::Json(json!({ "stats": stats })).into_response()
        }
        "text" => {
            let lines: String = all
                .iter()
                .map(|(name, stat)| match stat {
                    Stat::Number(number) => format!("{name}: {number}\n"),
                    Stat::Spread { .. } => match summary(stat) {
                        Some(values) => {
                            let parts: Vec<String> = QUANTILES
                                .iter()
                                .zip(values)
                                .map(|(quantile, value)| format!("P{}({value})", quantile * 100.0))
                                .collect();
                            format!("{name}: {}\n", parts.join(" "))
                        }
                        None => format!("{name}: No recorded values\n"),
                    },
                })
                .collect();
            lines.into_response()
        }
        other => (
            StatusCode::BAD_REQUEST,
            format!("format: {other:?} is unknown; text, json and prometheus are known\n"),
        )
            .into_response(),
    }
}

pub(super) async fn prometheus(State(admin): State<Admin>) -> Response {
    let text = metrics::prometheus(&admin.shared.figures);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn is_used(stat: &Stat) -> bool {
    match stat {
        Stat::Number(number) => *number != 0,
        Stat::Spread { buckets, .. } => buckets.iter().any(|bucket| *bucket > 0),
    }
}

fn quantiles(name: &str, stat: &Stat) -> Option<Value> {
    let Stat::Spread { .. } = stat else {
        return None;
    };
    let values: Vec<Value> = match summary(stat) {
        Some(values) => values
            .map(|value| json!({ "interval": null, "cumulative": value }))
            .to_vec(),
        None => vec![json!({ "interval": null, "cumulative": null }); QUANTILES.len()],
    };
    Some(json!({ "name": name, "values": values }))
}

/// The quantiles of a spread, even within a bucket; nothing when nothing was counted.
fn summary(stat: &Stat) -> Option<[f64; 10]> {
    let Stat::Spread {
        bounds, buckets, ..
    } = stat
    else {
        return None;
    };
    let count: u64 = buckets.iter().sum();
    if count == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts for display")]
    let of = |quantile: f64| {
        let wanted = quantile * count as f64;
        let mut before = 0.0;
        for (index, bucket) in buckets.iter().enumerate() {
            let bucket = *bucket as f64;
            let lower = index
                .checked_sub(1)
                .and_then(|index| bounds.get(index))
                .copied()
                .unwrap_or(0.0);
            let upper = bounds.get(index).copied().unwrap_or(lower);
            if bucket > 0.0 && before + bucket >= wanted {
                return lower + (upper - lower) * ((wanted - before) / bucket).clamp(0.0, 1.0);
            }
            before += bucket;
        }
        bounds.last().copied().unwrap_or(0.0)
    };
    Some(QUANTILES.map(|quantile| (of(quantile) * 1000.0).round() / 1000.0))
}
