//! Services that are asked of requests, made up.

use fairlead_model::filter::{Check, CheckBody, CheckSettings, GrpcService};
use http::StatusCode;

use super::filters::metadata;
use super::*;

pub(super) fn service() -> impl Strategy<Value = Arc<GrpcService>> {
    (name(), of(name()), time()).prop_map(|(cluster, authority, timeout)| {
        Arc::new(GrpcService {
            cluster: cluster.into(),
            authority,
            timeout,
        })
    })
}

pub(super) fn error_status() -> impl Strategy<Value = StatusCode> {
    (400u16..600).prop_map(|own| StatusCode::from_u16(own).expect("a status"))
}

fn body() -> impl Strategy<Value = Option<CheckBody>> {
    of((1u32.., any::<bool>(), any::<bool>())).prop_map(|own| {
        own.map(|(most, is_partial, is_bytes)| CheckBody {
            most,
            is_partial,
            is_bytes,
        })
    })
}

pub(super) fn check() -> impl Strategy<Value = Check> {
    (
        (service(), error_status(), body()),
        (of(vec(text(), 1..3)), vec(text(), 0..3)),
        (0u32..=1_000_000, of(metadata())),
        any::<[bool; 5]>(),
    )
        .prop_map(
            |(
                (service, status_on_error, body),
                (headers, not_headers),
                (enabled, only_if),
                flags,
            )| Check {
                service,
                passes_on_error: flags[0],
                tells_on_error: flags[1],
                status_on_error,
                body,
                headers,
                not_headers,
                certificate: flags[2],
                server_name: flags[3],
                enabled,
                only_if,
                denies_others: flags[4],
            },
        )
}

pub(super) fn check_settings() -> impl Strategy<Value = CheckSettings> {
    let context = proptest::collection::btree_map(name(), name(), 0..3);
    (context, any::<bool>(), body()).prop_map(|(context, skips_body, body)| CheckSettings {
        context,
        skips_body,
        body,
    })
}
