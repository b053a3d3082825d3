//! Tokens, made up.

use fairlead_model::filter::{
    KeySet, Keys, Places, Provider, RemoteKeys, Required, Requirement, TokenRule, Tokens,
};

use super::routes::route_match;
use super::*;

const KEY: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AQAB", "kid": "a"}]}"#;

fn keys() -> impl Strategy<Value = Keys> {
    let set = KeySet::parse(KEY, false).expect("a set");
    let remote = (
        (name(), name()),
        (time(), time(), time()),
        (any::<u32>(), time(), time()),
    );
    prop_oneof![
        Just(Keys::Local(Arc::new(set))),
        remote.prop_map(
            |((host, cluster), (timeout, life, pause), (retries, base, most))| {
                let uri = format!("https://{host}.example/keys?a=b");
                Keys::Remote(Arc::new(RemoteKeys {
                    uri: uri.parse().expect("a URI"),
                    cluster: cluster.into(),
                    timeout,
                    life,
                    pause,
                    retries,
                    backoff: (base, most),
                }))
            }
        ),
    ]
}

fn places() -> impl Strategy<Value = Places> {
    let header = (name(), prop_oneof![Just(String::new()), name()])
        .prop_map(|(name, prefix)| (name.parse().expect("a name"), prefix));
    let own = (vec(header, 0..3), vec(name(), 0..2), vec(name(), 0..2));
    own.prop_map(|(headers, parameters, cookies)| {
        let own = Places {
            headers,
            parameters,
            cookies,
        };
        match own == Places::default() {
            true => Places::usual(),
            false => own,
        }
    })
}

fn provider() -> impl Strategy<Value = Provider> {
    let header = || name().prop_map(|own| own.parse().expect("a name"));
    (
        (
            name(),
            vec(name(), 0..3),
            of(text()),
            any::<bool>(),
            of(time()),
        ),
        (keys(), places(), any::<bool>()),
        (
            of((header(), any::<bool>())),
            vec((header(), vec(name(), 1..3)), 0..2),
            1u64..86_400,
            of(name()),
            0u32..1_000,
        ),
    )
        .prop_map(
            |(
                (issuer, audiences, subjects, needs_end, longest),
                (keys, places, forwards),
                (payload_header, claims, skew, metadata, kept),
            )| Provider {
                issuer,
                audiences,
                subjects,
                needs_end,
                longest,
                keys,
                places,
                forwards,
                payload_header,
                claims,
                skew: Duration::from_secs(skew),
                metadata: metadata.map(Into::into),
                kept,
            },
        )
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let leaf = prop_oneof![
        vec(name(), 0..3).prop_map(|audiences| Requirement::Provider {
            name: "idp".to_owned(),
            audiences,
        }),
        Just(Requirement::AllowMissing),
        Just(Requirement::AllowFailed),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(Requirement::Any),
            vec(inner, 1..3).prop_map(Requirement::All),
        ]
    })
}

pub(super) fn tokens() -> impl Strategy<Value = Tokens> {
    let required = prop_oneof![
        requirement().prop_map(Required::Own),
        Just(Required::Named("one".to_owned())),
    ];
    let rule = (route_match(), of(required))
        .prop_map(|(matches, requires)| TokenRule { matches, requires });
    (
        provider(),
        requirement(),
        vec(rule, 0..3),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |(provider, named, rules, [skips_preflight, is_silent])| Tokens {
                providers: [("idp".to_owned(), provider)].into(),
                rules,
                named: [("one".to_owned(), named)].into(),
                skips_preflight,
                is_silent,
            },
        )
}
