//! TLS contexts and secrets, made up.

use super::*;

pub(super) fn names() -> impl Strategy<Value = Vec<NameMatch>> {
    let kind = select(vec![NameKind::Uri, NameKind::Dns]);
    vec(
        (kind, text()).prop_map(|(kind, text)| NameMatch { kind, text }),
        0..3,
    )
}

/// A certificate with one of these keys.
pub(super) fn certificate(keys: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Secret> {
    (bytes(), keys)
        .prop_map(|(chain, key)| Secret::Certificate(Arc::new(Certificate { chain, key })))
}

pub(super) fn trust() -> impl Strategy<Value = Secret> {
    // The system's own stand in no resource; here there are none.
    let roots = proptest::prop_oneof![
        3 => bytes().prop_map(|roots| (roots, false)),
        1 => Just((Vec::new(), true)),
    ];
    (roots, vec((name(), bytes()), 0..3), names()).prop_map(
        |((roots, is_system), domains, names)| {
            Secret::Trust(Arc::new(Trust {
                roots,
                is_system,
                domains,
                names,
            }))
        },
    )
}

pub(super) fn tls() -> impl Strategy<Value = TlsCommon> {
    // A key that stands in another resource is not written out.
    let shown = Just(REDACTED.to_vec());
    let certificates = prop_oneof![
        vec(
            certificate(shown.boxed()).prop_map(SecretSource::Inline),
            1..3
        ),
        vec(name().prop_map(SecretSource::Named), 1..3),
    ];
    let trust = prop_oneof![
        trust().prop_map(|own| (SecretSource::Inline(own), Vec::new())),
        (name(), names()).prop_map(|(name, names)| (SecretSource::Named(name), names)),
    ];
    let lowest = select(vec![Version::V1_2, Version::V1_3]);
    (
        certificates,
        trust,
        vec(name(), 0..3),
        lowest,
        any::<bool>(),
    )
        .prop_map(
            |(certificates, (trust, names), alpn, lowest, fips)| TlsCommon {
                certificates,
                trust: Some(trust),
                names,
                alpn,
                lowest,
                fips,
            },
        )
}
