//! How clusters are balanced: `lb_policy` with its configurations, or a `load_balancing_policy`.

use fairlead_model::balance::{Balancing, PeakEwma, Policy, SlowStart};

use crate::field::{Field, Fields, Result};
use crate::options;

/// Peak EWMA of Envoy's contrib extensions.
const CONTRIB_EWMA: &str = "envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma";
/// Envoy's least request.
pub(crate) const LEAST_REQUEST: &str =
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
/// Envoy's round robin.
pub(crate) const ROUND_ROBIN: &str =
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
/// Envoy's random choice.
pub(crate) const RANDOM: &str = "envoy.extensions.load_balancing_policies.random.v3.Random";
/// Envoy's ring hash.
pub(crate) const RING_HASH: &str = "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash";
/// Envoy's maglev.
pub(crate) const MAGLEV: &str = "envoy.extensions.load_balancing_policies.maglev.v3.Maglev";
const POLICIES: [&str; 7] = [
    options::PEAK_EWMA,
    CONTRIB_EWMA,
    LEAST_REQUEST,
    ROUND_ROBIN,
    RANDOM,
    RING_HASH,
    MAGLEV,
];

/// Points of a ring, as Envoy has them.
const SMALLEST_RING: u32 = 1024;
const LARGEST_RING: u32 = 8 << 20;
/// The size of a table, as Envoy has it.
const TABLE: u32 = 65_537;

/// How a cluster is balanced. One that names no policy has peak EWMA, where Envoy's has round robin; one whose endpoints are what
/// callers want to reach (`is_original`) has nothing to balance.
pub(crate) fn read(fields: &Fields<'_>, is_original: bool) -> Result<Balancing> {
    let mut balancing = Balancing::default();
    if is_original {
        fields
            .need("lb_policy")?
            .one_of(&[("CLUSTER_PROVIDED", ())])?;
    } else if let Some(policy) = fields.get("lb_policy") {
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
        balancing.policy = ring(&own)?;
        own.finish()?;
    }
    if let Some(own) = fields.get("maglev_lb_config") {
        let own = own.fields()?;
        balancing.policy = maglev(&own)?;
        own.finish()?;
    }
    if let Some(common) = fields.get("common_lb_config") {
        let common = common.fields()?;
        if let Some(percent) = common.get("healthy_panic_threshold") {
            balancing.panic_percent = percent_of(&percent)?;
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
            least: SMALLEST_RING,
            most: LARGEST_RING,
        },
        "MAGLEV" => Policy::Maglev { size: TABLE },
        _ => Policy::RoundRobin,
    }
}

/// A `load_balancing_policy`: the first of its policies that is known.
fn extension(field: &Field<'_>, balancing: &mut Balancing) -> Result<()> {
    let fields = field.fields()?;
    let policies = fields.need("policies")?;
    fields.finish()?;
    let mut refusal = None;
    for policy in policies.list()? {
        let policy = policy.fields()?;
        let own = policy.need("typed_extension_config")?.fields()?;
        policy.finish()?;
        own.ignore(&["name"]);
        let config = own.need("typed_config")?;
        own.finish()?;
        match config.typed(&POLICIES) {
            Ok((kind, config)) => return typed(&kind, &config, balancing),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| policies.error("at least one policy is expected")))
}

fn typed(kind: &str, field: &Field<'_>, balancing: &mut Balancing) -> Result<()> {
    let config = field.fields()?;
    balancing.policy = match kind {
        options::PEAK_EWMA => {
            balancing.weighted_localities |= config.flag("weighted_localities")?;
            Policy::PeakEwma(options::peak_ewma(&config)?)
        }
        CONTRIB_EWMA => Policy::PeakEwma(contrib_ewma(&config)?),
        LEAST_REQUEST => {
            let choices = config
                .get("choice_count")
                .map_or(Ok(2), |choices| choices.number(2, 100))?;
            config.ignore(&["active_request_bias"]);
            balancing.slow_start = slow_start(&config)?;
            Policy::LeastRequest {
                choices: u32::try_from(choices).unwrap_or(2),
            }
        }
        RING_HASH => ring(&config)?,
        MAGLEV => maglev(&config)?,
        RANDOM => Policy::Random,
        _ => {
            balancing.slow_start = slow_start(&config)?;
            Policy::RoundRobin
        }
    };
    if let Some(locality) = config.get("locality_lb_config") {
        let locality = locality.fields()?;
        balancing.weighted_localities |= locality.get("locality_weighted_lb_config").is_some();
        locality.finish()?;
    }
    // Policies by hash have it without the message around it.
    balancing.weighted_localities |= config.get("locality_weighted_lb_config").is_some();
    config.finish()
}

/// Peak EWMA of Envoy's contrib extensions.
fn contrib_ewma(fields: &Fields<'_>) -> Result<PeakEwma> {
    let usual = PeakEwma::default();
    fields.ignore(&[
        "aggregation_interval",
        "penalty_value",
        "max_samples_per_host",
    ]);
    Ok(PeakEwma {
        decay: fields.duration("decay_time")?.unwrap_or(usual.decay),
        initial: fields.duration("default_rtt")?.unwrap_or(usual.initial),
        ..usual
    })
}

fn ring(fields: &Fields<'_>) -> Result<Policy> {
    let size = |name, usual: u32| -> Result<u32> {
        let size = fields.get(name).map_or(Ok(u64::from(usual)), |field| {
            field.number(1, u64::from(LARGEST_RING))
        })?;
        Ok(u32::try_from(size).unwrap_or(usual))
    };
    if let Some(function) = fields.get("hash_function") {
        function.one_of(&[("XX_HASH", ()), ("DEFAULT_HASH", ())])?;
    }
    Ok(Policy::RingHash {
        least: size("minimum_ring_size", SMALLEST_RING)?,
        most: size("maximum_ring_size", LARGEST_RING)?,
    })
}

fn maglev(fields: &Fields<'_>) -> Result<Policy> {
    let size = fields.get("table_size");
    Ok(Policy::Maglev {
        size: size.map_or(Ok(TABLE), |size| prime(&size))?,
    })
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
        Some(percent) => percent_of(&percent)?,
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

/// A `Percent`.
fn percent_of(field: &Field<'_>) -> Result<u8> {
    let fields = field.fields()?;
    let percent = fields.get("value").map_or(Ok(0.0), |own| own.decimal())?;
    fields.finish()?;
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
