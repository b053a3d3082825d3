//! Which numbers there are. This is the contract: `cargo xtask gen` writes docs/reference/proxy-metrics.md from this text.

use std::sync::Arc;

use super::Shard;
use super::cell::{Counter, Gauge, Histogram};

/// Answers by the hundreds of their status.
#[derive(Debug, Default)]
pub struct StatusCounters {
    classes: [Counter; 5],
}

impl StatusCounters {
    /// Counts a status.
    pub fn count(&self, status: u16) {
        if let Some(class) = usize::from(status / 100)
            .checked_sub(1)
            .and_then(|class| self.classes.get(class))
        {
            class.increment();
        }
    }

    /// How many of 1xx, 2xx, and so on.
    #[must_use]
    pub fn read(&self) -> [u64; 5] {
        [0, 1, 2, 3, 4].map(|class| self.classes.get(class).map_or(0, Counter::get))
    }
}

/// Numbers of a kind of shards: the name of each, its meaning, and what reads it.
type Numbers<F, N> = &'static [(&'static str, &'static str, fn(&F) -> N)];
/// Histograms of a kind of shards.
type Histograms<F> = &'static [(&'static str, &'static str, fn(&F) -> &Histogram)];

/// What reads all numbers of a kind of shards: each with its name and its meaning.
pub(super) trait Contract: Shard + Sized + 'static {
    /// What names begin with for Prometheus.
    const PREFIX: &str;
    /// The labels for Prometheus, in the order of the parts of a name.
    const LABELS: &[&str];
    /// Counters.
    const COUNTERS: Numbers<Self, u64>;
    /// Gauges.
    const GAUGES: Numbers<Self, i64>;
    /// Counts by the hundreds of a status.
    const STATUSES: Numbers<Self, [u64; 5]>;
    /// Histograms.
    const HISTOGRAMS: Histograms<Self>;
}

/// Makes a shard of named numbers, and what reads them all.
macro_rules! figures {
    ($(#[$doc:meta])* $name:ident $prefix:literal [$($label:literal),*] {
        counters { $($(#[doc = $counter_doc:literal])* $counter:ident,)* }
        gauges { $($(#[doc = $gauge_doc:literal])* $gauge:ident,)* }
        statuses { $($(#[doc = $status_doc:literal])* $status:ident,)* }
        histograms { $($(#[doc = $histogram_doc:literal])* $histogram:ident,)* }
    }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            $($(#[doc = $counter_doc])* pub $counter: Counter,)*
            $($(#[doc = $gauge_doc])* pub $gauge: Gauge,)*
            $($(#[doc = $status_doc])* pub $status: StatusCounters,)*
            $($(#[doc = $histogram_doc])* pub $histogram: Histogram,)*
        }

        impl Contract for $name {
            const PREFIX: &str = $prefix;
            const LABELS: &[&str] = &[$($label),*];
            const COUNTERS: Numbers<Self, u64> =
                &[$((stringify!($counter), concat!($($counter_doc),*), |figures| figures.$counter.get()),)*];
            const GAUGES: Numbers<Self, i64> =
                &[$((stringify!($gauge), concat!($($gauge_doc),*), |figures| figures.$gauge.get()),)*];
            const STATUSES: Numbers<Self, [u64; 5]> =
                &[$((stringify!($status), concat!($($status_doc),*), |figures| figures.$status.read()),)*];
            const HISTOGRAMS: Histograms<Self> =
                &[$((stringify!($histogram), concat!($($histogram_doc),*), |figures| &figures.$histogram),)*];
        }

        impl Shard for $name {
            fn new(_bounds: &Arc<[f64]>) -> Self {
                Self {
                    $($counter: Counter::default(),)*
                    $($gauge: Gauge::default(),)*
                    $($status: StatusCounters::default(),)*
                    $($histogram: Histogram::new(_bounds),)*
                }
            }
        }
    };
}

figures! {
    /// Of a cluster, as a worker uses it.
    ClusterFigures "envoy_cluster" ["envoy_cluster_name"] {
        counters {
            /// Connections made.
            upstream_cx_total,
            /// HTTP/1.1 connections made.
            upstream_cx_http1_total,
            /// HTTP/2 connections made.
            upstream_cx_http2_total,
            /// Connections that could not be made.
            upstream_cx_connect_fail,
            /// Connections that took too long to be made.
            upstream_cx_connect_timeout,
            /// Connections that a limit left no room for.
            upstream_cx_overflow,
            /// Connections that ended.
            upstream_cx_destroy,
            /// Bytes received by what is no HTTP.
            upstream_cx_rx_bytes_total,
            /// Bytes sent by what is no HTTP.
            upstream_cx_tx_bytes_total,
            /// Requests sent, every try counted.
            upstream_rq_total,
            /// Requests that took too long.
            upstream_rq_timeout,
            /// Tries that took too long.
            upstream_rq_per_try_timeout,
            /// Requests that had to wait for a connection.
            upstream_rq_pending_total,
            /// Requests that were refused for a limit on waiting or running ones.
            upstream_rq_pending_overflow,
            /// Requests that waited for a connection and got none.
            upstream_rq_pending_failure_eject,
            /// Tries after the first.
            upstream_rq_retry,
            /// Tries after the first that went well.
            upstream_rq_retry_success,
            /// Tries that went beside another whose answer was late.
            upstream_rq_hedge,
            /// Tries beside another whose answer was taken.
            upstream_rq_hedge_won,
            /// Tries beside another that a limit or a budget refused.
            upstream_rq_hedge_overflow,
            /// Tries that a limit or a budget refused.
            upstream_rq_retry_overflow,
            /// Requests that the endpoint reset.
            upstream_rq_rx_reset,
            /// Requests that this proxy reset.
            upstream_rq_tx_reset,
            /// Requests without an endpoint.
            upstream_cx_none_healthy,
            /// Endpoints that began to rest.
            outlier_detection_ejections_total,
            /// TLS handshakes that failed.
            ssl_connection_error,
            /// TLS handshakes that went well.
            ssl_handshake,
            /// Updates of endpoints.
            update_success,
            /// Checks of endpoints.
            health_check_attempt,
            /// Checks that passed.
            health_check_success,
            /// Checks that failed.
            health_check_failure,
            /// Checks that failed since there was no answer.
            health_check_network_failure,
        }
        gauges {
            /// Endpoints that pass their checks.
            health_check_healthy,
            /// Connections open.
            upstream_cx_active,
            /// Requests running.
            upstream_rq_active,
            /// Requests that wait for a connection.
            upstream_rq_pending_active,
            /// Endpoints.
            membership_total,
            /// Endpoints that are well.
            membership_healthy,
            /// Endpoints that rest.
            outlier_detection_ejections_active,
        }
        statuses {
            /// Answers by the hundreds of their status.
            upstream_rq,
        }
        histograms {
            /// From the end of a request's head to the end of its answer, in milliseconds.
            upstream_rq_time,
            /// How long connections took to be made, in milliseconds.
            upstream_cx_connect_ms,
        }
    }
}

figures! {
    /// Of the HTTP of a listener.
    HttpFigures "envoy_http" ["envoy_http_conn_manager_prefix"] {
        counters {
            /// Connections taken.
            downstream_cx_total,
            /// HTTP/1.1 connections taken.
            downstream_cx_http1_total,
            /// HTTP/2 connections taken.
            downstream_cx_http2_total,
            /// Connections that ended.
            downstream_cx_destroy,
            /// Connections that broke the protocol.
            downstream_cx_protocol_error,
            /// Connections ended since they were idle.
            downstream_cx_idle_timeout,
            /// Connections ended since they were to be drained.
            downstream_cx_drain_close,
            /// Connections ended since their life was over.
            downstream_cx_max_duration_reached,
            /// Requests.
            downstream_rq_total,
            /// HTTP/1.1 requests.
            downstream_rq_http1_total,
            /// HTTP/2 requests.
            downstream_rq_http2_total,
            /// Requests whose caller went away.
            downstream_rq_rx_reset,
            /// Requests whose head took too long.
            downstream_rq_header_timeout,
            /// Requests that took too long.
            downstream_rq_timeout,
            /// Requests of which nothing moved for too long.
            downstream_rq_idle_timeout,
            /// Requests refused since too much was to do.
            downstream_rq_overload_close,
            /// Requests without a route.
            no_route,
            /// Requests to an unknown cluster.
            no_cluster,
            /// Requests that were sent elsewhere.
            rq_redirect,
            /// Requests that the proxy answered as it was told.
            rq_direct_response,
            /// Requests that authorization lets pass.
            rbac_allowed,
            /// Requests that authorization refuses.
            rbac_denied,
            /// Requests that rules which are only counted would let pass.
            rbac_shadow_allowed,
            /// Requests that rules which are only counted would refuse.
            rbac_shadow_denied,
            /// Requests that a service lets in.
            ext_authz_ok,
            /// Requests that a service does not let in.
            ext_authz_denied,
            /// Requests of which a service says nothing.
            ext_authz_error,
            /// Those of them for which time was over.
            ext_authz_timeout,
            /// Those of them that passed.
            ext_authz_failure_mode_allowed,
            /// Requests that no service was asked about.
            ext_authz_disabled,
            /// Requests whose tokens are as they have to be.
            jwt_authn_allowed,
            /// Requests whose tokens are not.
            jwt_authn_denied,
            /// Questions of browsers that need no token.
            jwt_authn_cors_preflight_bypassed,
            /// Fetches of keys that went well.
            jwt_authn_jwks_fetch_success,
            /// Fetches of keys that failed.
            jwt_authn_jwks_fetch_failed,
            /// Tokens that were known to be good.
            jwt_authn_jwt_cache_hit,
            /// Tokens that were not known.
            jwt_authn_jwt_cache_miss,
            /// Requests from other origins that are allowed.
            cors_origin_valid,
            /// Requests from other origins that are not allowed.
            cors_origin_invalid,
            /// Requests that a local rate limit looked at.
            local_rate_limit_enabled,
            /// Requests for which there was room.
            local_rate_limit_ok,
            /// Requests for which there was no room.
            local_rate_limit_rate_limited,
            /// Requests that were refused since there was no room.
            local_rate_limit_enforced,
            /// Requests for which a service has room.
            ratelimit_ok,
            /// Requests for which a service has none.
            ratelimit_over_limit,
            /// Requests that a service did not count.
            ratelimit_error,
            /// Those of them that passed.
            ratelimit_failure_mode_allowed,
            /// Requests that were delayed on purpose.
            fault_delays_injected,
            /// Requests that were answered on purpose.
            fault_aborts_injected,
            /// Answers that were slowed down on purpose.
            fault_response_rl_injected,
            /// Connections and answers that were broken off on purpose.
            fault_breaks_injected,
            /// Faults on purpose that were left out, since as many ran as may.
            fault_faults_overflow,
        }
        gauges {
            /// Connections open.
            downstream_cx_active,
            /// Connections open that changed to another protocol.
            downstream_cx_upgrades_active,
            /// Requests running.
            downstream_rq_active,
            /// Faults on purpose that run.
            fault_active_faults,
        }
        statuses {
            /// Answers by the hundreds of their status.
            downstream_rq,
        }
        histograms {
            /// From a request's head to the end of its answer, in milliseconds.
            downstream_rq_time,
        }
    }
}

figures! {
    /// Of a listener, whatever is spoken on it.
    ListenerFigures "envoy_listener" ["envoy_listener_address"] {
        counters {
            /// Connections taken.
            downstream_cx_total,
            /// Connections that ended.
            downstream_cx_destroy,
            /// Connections refused since too much was to do.
            downstream_cx_overload_reject,
            /// Connections whose first bytes took too long, so that they are opaque.
            downstream_pre_cx_timeout,
            /// Connections that no chain takes.
            no_filter_chain_match,
            /// TLS handshakes that went well.
            ssl_handshake,
            /// TLS handshakes that failed.
            ssl_connection_error,
            /// TLS handshakes without a certificate of the caller's.
            ssl_no_certificate,
            /// Connections in a circle.
            loops_refused,
            /// Broken PROXY headers.
            proxy_protocol_error,
            /// Connections that authorization lets in.
            rbac_allowed,
            /// Connections that authorization refuses.
            rbac_denied,
            /// Connections that rules which are only counted would let in.
            rbac_shadow_allowed,
            /// Connections that rules which are only counted would refuse.
            rbac_shadow_denied,
        }
        gauges {
            /// Connections open.
            downstream_cx_active,
        }
        statuses {}
        histograms {}
    }
}

figures! {
    /// Of the datagrams of a listener.
    UdpFigures "envoy_udp" ["envoy_udp_prefix"] {
        counters {
            /// Sessions begun.
            downstream_sess_total,
            /// Datagrams of callers.
            downstream_sess_rx_datagrams,
            /// Bytes of callers' datagrams.
            downstream_sess_rx_bytes,
            /// Datagrams of callers that could not be received.
            downstream_sess_rx_errors,
            /// Datagrams of callers that were dropped: there was no endpoint or no room.
            downstream_sess_rx_datagrams_dropped,
            /// Datagrams to an unknown cluster.
            downstream_sess_no_route,
            /// Answers passed on.
            downstream_sess_tx_datagrams,
            /// Bytes of answers.
            downstream_sess_tx_bytes,
            /// Answers that could not be sent at once, and were dropped.
            downstream_sess_tx_errors,
            /// Sessions that ended since nobody was at their endpoint.
            upstream_sess_errors,
            /// Sessions that ended since nothing came.
            idle_timeout,
        }
        gauges {
            /// Sessions.
            downstream_sess_active,
        }
        statuses {}
        histograms {}
    }
}

figures! {
    /// Of what a route sends to a cluster.
    RouteFigures "fairlead_route" ["route", "cluster"] {
        counters {
            /// Requests that succeeded, by the route's classes.
            success,
            /// Requests that failed: by the route's classes, or since no endpoint answered.
            failure,
            /// Bytes of request bodies.
            request_bytes,
            /// Bytes of answer bodies.
            response_bytes,
            /// Requests that were copied.
            mirrored,
            /// Copies that were left out, since the body was too long.
            mirror_dropped,
            /// Copies without a whole answer.
            mirror_failed,
            /// Answers to copies with the live answer's status.
            mirror_status_same,
            /// Answers to copies with another status than the live answer's.
            mirror_status_different,
            /// Answers to copies with the live answer's body.
            mirror_body_same,
            /// Answers to copies with another body than the live answer's.
            mirror_body_different,
        }
        gauges {}
        statuses {
            /// Answers by the hundreds of their status.
            responses,
        }
        histograms {
            /// From a request's head to the end of its answer, in milliseconds.
            latency_ms,
        }
    }
}

figures! {
    /// Of rules that are only counted, by the name that they have.
    RuleFigures "fairlead_rules" ["policy"] {
        counters {
            /// Requests, and connections that carry none, that they would let pass.
            shadow_allowed,
            /// Requests, and connections that carry none, that they would refuse.
            shadow_denied,
            /// Requests, and connections that carry none, that one of them fits which are there to be logged.
            audited,
        }
        gauges {}
        statuses {}
        histograms {}
    }
}

figures! {
    /// Of names that requests bring along, by the name of their cache.
    NameFigures "envoy_dns_cache" ["envoy_dns_cache_name"] {
        counters {
            /// Names that were asked for.
            dns_query_attempt,
            /// Answers with an address.
            dns_query_success,
            /// Questions without an answer, or with one that there is no address.
            dns_query_failure,
            /// Names that are remembered.
            host_added,
            /// Names that were forgotten.
            host_removed,
            /// Names for which there was no room.
            host_overflow,
            /// Answers with other addresses than the one before.
            host_address_changed,
        }
        gauges {
            /// Names.
            num_hosts,
        }
        statuses {}
        histograms {}
    }
}

figures! {
    /// Of what goes out to one host, once it was reached.
    DestinationFigures "fairlead_destination" ["cluster", "destination"] {
        counters {
            /// Connections made.
            connections,
            /// Connections that could not be made.
            connections_failed,
            /// Requests sent, every try counted, and, where names are looked up, connections that carry no HTTP.
            requests,
        }
        gauges {}
        statuses {}
        histograms {}
    }
}

figures! {
    /// Of the process itself.
    ProcessFigures "fairlead_process" ["component"] {
        counters {
            /// Lines handed over to access logs.
            access_log_lines,
            /// Lines of access logs that were dropped, since too many waited.
            access_log_dropped,
            /// Lines of access logs that could not be written.
            access_log_failed,
            /// Spans handed over to be sent.
            spans,
            /// Spans that were dropped, since too many waited.
            spans_dropped,
            /// Spans that a collector took.
            spans_sent,
            /// Spans that no collector took.
            spans_failed,
            /// Messages of figures that were sent to a metrics service.
            pushes_sent,
            /// Calls of a metrics service that failed or ended.
            pushes_failed,
        }
        gauges {
            /// Memory in use, in bytes.
            memory_bytes,
            /// Memory that may be used, in bytes.
            memory_limit_bytes,
            /// Whether requests are refused since too little memory is left: 1 or 0.
            overloaded,
        }
        statuses {}
        histograms {}
    }
}
