//! Clusters (`config.cluster.v3`).

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::balance::{Balancing, PeakEwma, Policy, SlowStart};
use fairlead_model::breaker::{BreakerSettings, RateSettings};
use fairlead_model::cluster::{Cluster, Discovery, Endpoints, UpstreamProtocol};
use fairlead_model::limits::Limits;

use crate::field::{Field, Fields, Result};
use crate::{ReadFile, endpoint, tls};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster. One that names no balancing has peak EWMA, where Envoy's has round robin.
pub(crate) fn read(field: &Field<'_>, files: ReadFile<'_>) -> Result<Cluster> {
    let fields = field.fields()?;
    let name = fields.need("name")?;
    if name.text()?.is_empty() {
        return Err(name.error("must not be empty"));
    }
    let mut cluster = Cluster::of(name.text()?, Endpoints::default());
    cluster.discovery = discovery(&fields, &cluster.name)?;
    if let Some(timeout) = fields.duration("connect_timeout")? {
        cluster.connect_timeout = timeout;
    }
    cluster.balancing = balancing(&fields)?;
    if let Some(limits) = fields.get("circuit_breakers") {
        cluster.limits = self::limits(&limits)?;
    }
    if let Some(outlier) = fields.get("outlier_detection") {
        cluster.breaker = Some(breaker(&outlier)?);
    }
    if let Some(options) = fields.get("typed_extension_protocol_options") {
        let map = options.fields()?;
        if let Some(own) = map.get(HTTP_OPTIONS) {
            protocol(&own.typed(&[HTTP_OPTIONS])?.1, &mut cluster)?;
        }
        map.finish()?;
    }
    if let Some((_, context)) = fields.extension("transport_socket", &[tls::UPSTREAM])? {
        cluster.tls = Some(tls::client(&context, files)?);
    }
    fields.ignore(&[
        "alt_stat_name",
        "metadata",
        "dns_lookup_family",
        "respect_dns_ttl",
        "per_connection_buffer_limit_bytes",
        "upstream_connection_options",
        "observability_name",
    ]);
    fields.finish()?;
    Ok(cluster)
}

fn discovery(fields: &Fields<'_>, name: &Arc<str>) -> Result<Discovery> {
    #[derive(Clone, Copy)]
    enum Kind {
        Static,
        LogicalDns,
        Eds,
    }
    let kind = match fields.get("type") {
        None => Kind::Static,
        Some(kind) => kind.one_of(&[
            ("STATIC", Kind::Static),
            ("LOGICAL_DNS", Kind::LogicalDns),
            ("EDS", Kind::Eds),
        ])?,
    };
    let assigned = || -> Result<Arc<Endpoints>> {
        Ok(Arc::new(match fields.get("load_assignment") {
            Some(assignment) => endpoint::assignment(&assignment)?.1,
            None => Endpoints::default(),
        }))
    };
    Ok(match kind {
        Kind::Static => Discovery::Static(assigned()?),
        Kind::LogicalDns => Discovery::LogicalDns(assigned()?),
        Kind::Eds => {
            let config = fields.need("eds_cluster_config")?.fields()?;
            let service = config.text("service_name")?;
            config.ignore(&["eds_config"]);
            config.finish()?;
            Discovery::Eds(if service.is_empty() {
                name.to_string()
            } else {
                service.to_owned()
            })
        }
    })
}

fn balancing(fields: &Fields<'_>) -> Result<Balancing> {
    let mut balancing = Balancing::default();
    if let Some(policy) = fields.get("lb_policy") {
        balancing.policy = policy
            .one_of(
                &[
                    "ROUND_ROBIN",
                    "LEAST_REQUEST",
                    "RANDOM",
                    "RING_HASH",
                    "MAGLEV",
                ]
                .map(|name| (name, name)),
            )
            .map(named)?;
    }
    if let Some(own) = fields.get("least_request_lb_config") {
        let own = own.fields()?;
        if let Some(choices) = own.get("choice_count") {
            balancing.policy = Policy::LeastRequest {
                choices: u32::try_from(choices.number(2, 100)?).unwrap_or(2),
            };
        }
        balancing.slow_start = slow_start(&own)?;
        own.ignore(&["active_request_bias"]);
        own.finish()?;
    }
    if let Some(own) = fields.get("round_robin_lb_config") {
        let own = own.fields()?;
        balancing.slow_start = slow_start(&own)?;
        own.finish()?;
    }
    if let Some(own) = fields.get("ring_hash_lb_config") {
        let own = own.fields()?;
        let size = |name, usual| {
            own.get(name)
                .map_or(Ok(usual), |field| field.number(1, 8 << 20))
        };
        let (least, most) = (
            size("minimum_ring_size", 1024)?,
            size("maximum_ring_size", 8 << 20)?,
        );
        if let Some(function) = own.get("hash_function") {
            function.one_of(&[("XX_HASH", ())])?;
        }
        own.finish()?;
        balancing.policy = Policy::RingHash {
            least: u32::try_from(least).unwrap_or(1024),
            most: u32::try_from(most).unwrap_or(8 << 20),
        };
    }
    if let Some(own) = fields.get("maglev_lb_config") {
        let own = own.fields()?;
        if let Some(size) = own.get("table_size") {
            balancing.policy = Policy::Maglev {
                size: prime(&size)?,
            };
        }
        own.finish()?;
    }
    if let Some(common) = fields.get("common_lb_config") {
        let common = common.fields()?;
        if let Some(percent) = common.get("healthy_panic_threshold") {
            let percent = percent.fields()?;
            let value = percent.need("value")?;
            balancing.panic_percent = percent_of(&value)?;
            percent.finish()?;
        }
        balancing.weighted_localities = common.get("locality_weighted_lb_config").is_some();
        common.ignore(&[
            "update_merge_window",
            "ignore_new_hosts_until_first_hc",
            "close_connections_on_host_set_change",
        ]);
        common.finish()?;
    }
    if let Some(policies) = fields.get("load_balancing_policy") {
        extension(&policies, &mut balancing)?;
    }
    Ok(balancing)
}

fn named(name: &str) -> Policy {
    match name {
        "LEAST_REQUEST" => Policy::LeastRequest { choices: 2 },
        "RANDOM" => Policy::Random,
        "RING_HASH" => Policy::RingHash {
            least: 1024,
            most: 8 << 20,
        },
        "MAGLEV" => Policy::Maglev { size: 65_537 },
        _ => Policy::RoundRobin,
    }
}

/// A `load_balancing_policy`: its first policy, peak EWMA's in Envoy's contrib form among them.
fn extension(field: &Field<'_>, balancing: &mut Balancing) -> Result<()> {
    const PREFIX: &str = "envoy.extensions.load_balancing_policies";
    let fields = field.fields()?;
    let policies = fields.need("policies")?;
    let list = policies.list()?;
    fields.finish()?;
    let first = list
        .first()
        .ok_or_else(|| policies.error("at least one policy is expected"))?
        .fields()?;
    let own = first.need("typed_extension_config")?.fields()?;
    own.ignore(&["name"]);
    let types = [
        "peak_ewma.v3alpha.PeakEwma",
        "least_request.v3.LeastRequest",
        "round_robin.v3.RoundRobin",
        "random.v3.Random",
    ]
    .map(|name| format!("{PREFIX}.{name}"));
    let (kind, config) = own
        .need("typed_config")?
        .typed(&types.each_ref().map(String::as_str))?;
    let config = config.fields()?;
    balancing.policy = match kind.rsplit('.').next() {
        Some("PeakEwma") => {
            let mut ewma = PeakEwma::default();
            if let Some(decay) = config.duration("decay_time")? {
                ewma.decay = decay;
            }
            if let Some(initial) = config.duration("default_rtt")? {
                ewma.initial = initial;
            }
            config.ignore(&[
                "aggregation_interval",
                "penalty_value",
                "max_samples_per_host",
            ]);
            Policy::PeakEwma(ewma)
        }
        Some("LeastRequest") => {
            let choices = config
                .get("choice_count")
                .map_or(Ok(2), |choices| choices.number(2, 100))?;
            balancing.slow_start = slow_start(&config)?;
            Policy::LeastRequest {
                choices: u32::try_from(choices).unwrap_or(2),
            }
        }
        Some("Random") => Policy::Random,
        _ => {
            balancing.slow_start = slow_start(&config)?;
            Policy::RoundRobin
        }
    };
    config.finish()
}

fn slow_start(fields: &Fields<'_>) -> Result<Option<SlowStart>> {
    let Some(own) = fields.get("slow_start_config") else {
        return Ok(None);
    };
    let own = own.fields()?;
    let window = own.need("slow_start_window")?.duration()?;
    let aggression = match own.get("aggression") {
        Some(value) => value.fields()?.need("default_value")?.decimal()?,
        None => 1.0,
    };
    let least = match own.get("min_weight_percent") {
        Some(percent) => percent_of(&percent.fields()?.need("value")?)?,
        None => 10,
    };
    own.finish()?;
    Ok(Some(SlowStart {
        window,
        aggression,
        least_percent: least,
    }))
}

fn prime(field: &Field<'_>) -> Result<u32> {
    let size = u32::try_from(field.number(2, 5_000_011)?).unwrap_or(65_537);
    let is_prime = (2..)
        .take_while(|divisor| divisor * divisor <= size)
        .all(|divisor| size % divisor != 0);
    if is_prime {
        Ok(size)
    } else {
        Err(field.error(format!("{size} is no prime number")))
    }
}

fn percent_of(field: &Field<'_>) -> Result<u8> {
    let percent = field.decimal()?;
    if !(0.0..=100.0).contains(&percent) {
        return Err(field.error(format!("{percent} is no percentage from 0 to 100")));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 to 100"
    )]
    Ok(percent.round() as u8)
}

fn limits(field: &Field<'_>) -> Result<Limits> {
    let fields = field.fields()?;
    let mut limits = Limits::default();
    for own in fields.list("thresholds")? {
        let own = own.fields()?;
        if let Some(priority) = own.get("priority") {
            priority.one_of(&[("DEFAULT", ())])?;
        }
        let limit = |name, usual| own.get(name).map_or(Ok(usual), |field| field.number32());
        limits = Limits {
            connections: limit("max_connections", limits.connections)?,
            pending: limit("max_pending_requests", limits.pending)?,
            requests: limit("max_requests", limits.requests)?,
            retries: limit("max_retries", limits.retries)?,
        };
        own.ignore(&["track_remaining"]);
        own.finish()?;
    }
    fields.finish()?;
    Ok(limits)
}

fn breaker(field: &Field<'_>) -> Result<BreakerSettings> {
    let fields = field.fields()?;
    let number = |name, usual: u32| fields.get(name).map_or(Ok(usual), |field| field.number32());
    let consecutive = number("consecutive_5xx", 5)?;
    let percent = fields
        .get("max_ejection_percent")
        .map_or(Ok(10), |field| field.number(0, 100))?;
    let base = fields
        .duration("base_ejection_time")?
        .unwrap_or(Duration::from_secs(30));
    let most = fields
        .duration("max_ejection_time")?
        .unwrap_or(Duration::from_secs(300).max(base));
    let rate = match number("enforcing_failure_percentage", 0)? {
        0 => None,
        _ => Some(RateSettings {
            threshold: 1.0
                - f64::from(number("failure_percentage_threshold", 85)?.min(100)) / 100.0,
            window: fields
                .duration("interval")?
                .unwrap_or(Duration::from_secs(10)),
            least_requests: number("failure_percentage_request_volume", 50)?,
        }),
    };
    fields.ignore(&[
        "interval",
        "enforcing_consecutive_5xx",
        "enforcing_success_rate",
        "success_rate_minimum_hosts",
        "success_rate_request_volume",
        "success_rate_stdev_factor",
        "consecutive_gateway_failure",
        "enforcing_consecutive_gateway_failure",
        "failure_percentage_minimum_hosts",
        "failure_percentage_threshold",
        "failure_percentage_request_volume",
        "max_ejection_time_jitter",
    ]);
    fields.finish()?;
    Ok(BreakerSettings {
        consecutive: (consecutive > 0).then_some(consecutive),
        rate,
        least_pause: base,
        most_pause: most,
        jitter: 0.5,
        most_resting_percent: u8::try_from(percent).unwrap_or(10),
    })
}

fn protocol(field: &Field<'_>, cluster: &mut Cluster) -> Result<()> {
    let fields = field.fields()?;
    if let Some(explicit) = fields.get("explicit_http_config") {
        let explicit = explicit.fields()?;
        if explicit.get("http2_protocol_options").is_some() {
            cluster.protocol = UpstreamProtocol::Http2;
        } else {
            explicit.need("http_protocol_options")?;
            cluster.protocol = UpstreamProtocol::Http1;
        }
        explicit.finish()?;
    } else if fields.get("auto_config").is_some() {
        cluster.protocol = UpstreamProtocol::Alpn;
    } else if fields.get("use_downstream_protocol_config").is_some() {
        cluster.protocol = UpstreamProtocol::AsDownstream;
    }
    if let Some(common) = fields.get("common_http_protocol_options") {
        let common = common.fields()?;
        if let Some(idle) = common.duration("idle_timeout")? {
            cluster.idle_timeout = (!idle.is_zero()).then_some(idle);
        }
        cluster.requests_per_connection = common
            .get("max_requests_per_connection")
            .map(|field| field.number32())
            .transpose()?
            .filter(|most| *most > 0);
        common.finish()?;
    }
    fields.finish()
}
