//! Filters of HTTP, made up.

use fairlead_model::filter::{
    Abort, AbortBy, Authorization, Break, Condition, Cors, Delay, DelayBy, Descriptor, Effect,
    Filter, HostRates, HttpFilter, Injection, LocalRateLimit, MetadataMatch, Mutation, Mutations,
    Override, Overrides, Pace, PaceBy, Policy as AccessPolicy, Pseudo, QueryChange, RateAction,
    RateRule, RateSettings, Rules, Session, SharedRateLimit, TokenBucket, ValueMatch,
};
use http::{HeaderValue, StatusCode};

use super::listeners::network;
use super::routes::{changes, header};
use super::services::{check, check_settings, error_status, service};
use super::tokens::tokens;
use super::*;

fn share() -> impl Strategy<Value = u32> {
    0u32..=1_000_000
}

fn value() -> impl Strategy<Value = ValueMatch> {
    let leaf = prop_oneof![
        Just(ValueMatch::Null),
        (-1_000i32..1_000).prop_map(|own| ValueMatch::Number(f64::from(own) / 4.0)),
        (0i32..10, 10i32..20).prop_map(|(from, to)| ValueMatch::Range(from.into(), to.into())),
        text().prop_map(ValueMatch::Text),
        any::<bool>().prop_map(ValueMatch::Flag),
        any::<bool>().prop_map(ValueMatch::Present),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|own| ValueMatch::Has(Box::new(own))),
            vec(inner, 2..3).prop_map(ValueMatch::OneOf),
        ]
    })
}

pub(super) fn metadata() -> impl Strategy<Value = MetadataMatch> {
    (name(), vec(name(), 1..3), value(), any::<bool>()).prop_map(|(filter, path, value, invert)| {
        MetadataMatch {
            filter,
            path,
            value,
            invert,
        }
    })
}

fn condition(is_permission: bool, is_of_connection: bool) -> BoxedStrategy<Condition> {
    let pseudo = select(vec![Pseudo::Method, Pseudo::Path, Pseudo::Authority]);
    let common = prop_oneof![
        Just(Condition::Any),
        header().prop_map(Condition::Header),
        (pseudo, text()).prop_map(|(pseudo, text)| Condition::Pseudo(pseudo, text)),
        text().prop_map(Condition::Path),
        metadata().prop_map(Condition::Metadata),
    ];
    let common = match is_of_connection {
        true => Just(Condition::Any).boxed(),
        false => common.boxed(),
    };
    let own = match is_permission {
        true => prop_oneof![
            network().prop_map(Condition::Destination),
            (0u16..60_000, 0u16..5_000)
                .prop_map(|(first, more)| Condition::DestinationPort(first..=first + more)),
            text().prop_map(Condition::ServerName),
            select(vec!["source.namespace in ['a']", "destination.port > 80"])
                .prop_map(|own| Condition::expression(own).expect("an expression")),
        ]
        .boxed(),
        false => prop_oneof![
            of(text()).prop_map(Condition::Peer),
            network().prop_map(Condition::Source),
            network().prop_map(Condition::Caller),
        ]
        .boxed(),
    };
    prop_oneof![common, own]
        .prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 1..3).prop_map(Condition::All),
                vec(inner.clone(), 1..3).prop_map(Condition::OneOf),
                inner.prop_map(|own| Condition::Not(Box::new(own))),
            ]
        })
        .boxed()
}

pub(super) fn authorization(is_of_connection: bool) -> impl Strategy<Value = Authorization> {
    let some = |is_permission| vec(condition(is_permission, is_of_connection), 1..3);
    let policy = (some(true), some(false)).prop_map(|(permissions, principals)| AccessPolicy {
        permissions,
        principals,
    });
    let effect = select(vec![Effect::Allow, Effect::Deny, Effect::Audit]);
    let policies = proptest::collection::btree_map(name(), policy, 0..3);
    let rules = (effect, policies)
        .prop_map(|(effect, policies)| Rules { effect, policies })
        .boxed();
    let shadow_name = of(name().prop_map(Into::into));
    (of(rules.clone()), of(rules), shadow_name).prop_map(|(rules, shadow, shadow_name)| {
        Authorization {
            rules,
            shadow,
            shadow_name,
        }
    })
}

fn injection() -> impl Strategy<Value = Injection> {
    let delay = prop_oneof![
        3 => time().prop_map(DelayBy::Fixed),
        1 => Just(DelayBy::Header),
    ];
    let abort = prop_oneof![
        2 => (200u16..600).prop_map(|own| AbortBy::Http(StatusCode::from_u16(own).expect("a status"))),
        1 => (0u8..=16).prop_map(AbortBy::Grpc),
        1 => Just(AbortBy::Header),
    ];
    let pace = prop_oneof![
        3 => (1u64..10_000).prop_map(PaceBy::Fixed),
        1 => Just(PaceBy::Header),
    ];
    let breaks = (of(share()), of(share())).prop_map(|(connection, answer)| {
        let all = [(Break::Connection, connection), (Break::Answer, answer)];
        all.into_iter()
            .filter_map(|(how, share)| Some((how, share?)))
            .collect::<Vec<_>>()
    });
    (
        (
            of((delay, share()).prop_map(|(by, share)| Delay { by, share })),
            of(
                (abort, share(), "[a-z]{0,9}").prop_map(|(by, share, body)| Abort {
                    by,
                    share,
                    body,
                }),
            ),
            of((pace, share()).prop_map(|(by, share)| Pace { by, share })),
            breaks,
        ),
        (
            prop_oneof![Just(String::new()), name()],
            vec(header(), 0..2),
            vec(name(), 0..2),
            of(any::<u32>()),
        ),
        (vec(text(), 0..2), of(0u64..4_000_000_000)),
    )
        .prop_map(
            |((delay, abort, pace, breaks), (cluster, headers, nodes, most_active), own)| {
                let (callers, until) = own;
                Injection {
                    delay,
                    abort,
                    pace,
                    breaks,
                    cluster,
                    headers,
                    nodes,
                    most_active,
                    callers,
                    until,
                }
            },
        )
        // What headers control needs callers.
        .prop_map(|mut own| {
            if own.asks_headers() && own.callers.is_empty() {
                own.callers.push(TextMatch::exact("spiffe://a/b"));
            }
            own
        })
}

fn bucket() -> impl Strategy<Value = TokenBucket> {
    (1u32.., 1u32.., 50u64..100_000).prop_map(|(most, fill, millis)| TokenBucket {
        most,
        fill,
        interval: Duration::from_millis(millis),
    })
}

fn rate_action() -> impl Strategy<Value = RateAction> {
    prop_oneof![
        (name(), name(), any::<bool>()).prop_map(|(name, key, skips)| RateAction::Header {
            name: name.parse().expect("a name"),
            key,
            skips,
        }),
        (name(), name(), any::<bool>()).prop_map(|(name, key, skips)| RateAction::Query {
            name,
            key,
            skips
        }),
        Just(RateAction::Address),
        (0u8..=32, 0u8..=128).prop_map(|(v4, v6)| RateAction::Network { v4, v6 }),
        (name(), name()).prop_map(|(key, value)| RateAction::Fixed { key, value }),
        (name(), name(), any::<bool>(), vec(header(), 1..3)).prop_map(
            |(key, value, expected, headers)| RateAction::Headers {
                key,
                value,
                expected,
                headers
            }
        ),
        name().prop_map(|key| RateAction::Caller { key }),
        Just(RateAction::Cluster),
        (name(), name(), vec(name(), 1..3), name(), any::<bool>()).prop_map(
            |(key, filter, path, usual, skips)| RateAction::Learned {
                key,
                filter,
                path,
                usual,
                skips,
            }
        ),
    ]
}

pub(super) fn rate_rules(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<RateRule>> {
    let rule = (0u32..=10, vec(rate_action(), 1..3))
        .prop_map(|(stage, actions)| RateRule { stage, actions });
    vec(rule, range)
}

fn host_rates() -> impl Strategy<Value = HostRates> {
    select(vec![
        HostRates::Otherwise,
        HostRates::Always,
        HostRates::Never,
    ])
}

fn added() -> impl Strategy<Value = HeaderChanges> {
    changes().prop_map(|mut own| {
        own.remove.clear();
        own
    })
}

fn shared_rate_limit() -> impl Strategy<Value = SharedRateLimit> {
    (
        (service(), name(), 0u32..=10, rate_rules(0..3)),
        (error_status(), error_status(), share(), share()),
        (added(), any::<[bool; 4]>()),
    )
        .prop_map(
            |(
                (service, domain, stage, rules),
                (status_on_error, status, enabled, enforced),
                (response_headers, flags),
            )| SharedRateLimit {
                service,
                domain,
                stage,
                rules,
                denies_on_error: flags[0],
                status_on_error,
                status,
                enabled,
                enforced,
                response_headers,
                tells: flags[1],
                retry_after: flags[2],
                is_exhausted: flags[3],
            },
        )
}

fn rate_settings() -> impl Strategy<Value = RateSettings> {
    (host_rates(), rate_rules(0..2), of(name())).prop_map(|(host, rules, domain)| RateSettings {
        host,
        rules,
        domain,
    })
}

fn rate_limit() -> impl Strategy<Value = LocalRateLimit> {
    let entry = (name(), prop_oneof![Just(String::new()), name()]);
    let descriptor =
        (vec(entry, 1..3), bucket()).prop_map(|(entries, bucket)| Descriptor { entries, bucket });
    (
        (name(), 400u16..600, of(bucket()), share(), share()),
        (
            vec(descriptor, 0..3),
            (rate_rules(0..3), 0u32..=10, host_rates()),
            1u32..1_000_000,
        ),
        (added(), any::<[bool; 4]>()),
    )
        .prop_map(
            |(
                (name, status, bucket, enabled, enforced),
                (descriptors, (rules, stage, host_rates), most_values),
                (response_headers, flags),
            )| {
                LocalRateLimit {
                    name,
                    status: StatusCode::from_u16(status).expect("a status"),
                    counts_all: bucket.is_some() && flags[0],
                    bucket,
                    enabled,
                    enforced,
                    descriptors,
                    rules,
                    stage,
                    host_rates,
                    most_values,
                    response_headers,
                    tells: flags[1],
                    retry_after: flags[2],
                    is_exhausted: flags[3],
                }
            },
        )
}

fn cors() -> impl Strategy<Value = Cors> {
    let value = || of(name().prop_map(|own| HeaderValue::from_str(&own).expect("a value")));
    (
        vec(text(), 0..3),
        (value(), value(), value(), value()),
        any::<[Option<bool>; 3]>(),
        share(),
    )
        .prop_map(
            |(origins, (methods, headers, exposes, life), flags, enabled)| Cors {
                origins,
                methods,
                headers,
                exposes,
                life,
                credentials: flags[0],
                private_network: flags[1],
                forwards_others: flags[2],
                enabled,
            },
        )
}

fn session() -> impl Strategy<Value = Session> {
    (name(), name(), 0u64..100, vec((name(), name()), 0..2)).prop_map(
        |(cookie, path, seconds, attributes)| Session {
            cookie,
            made: CookieMade {
                life: Duration::from_secs(seconds),
                path: format!("/{path}"),
                attributes,
            },
        },
    )
}

pub(super) fn mutations() -> impl Strategy<Value = Mutations> {
    let present = || select(vec![OnPresent::Append, OnPresent::Keep, OnPresent::Replace]);
    let set =
        (name(), name(), present(), any::<bool>()).prop_map(|(name, value, present, flag)| {
            QueryChange::Set {
                name,
                value,
                only_if_present: flag && present == OnPresent::Replace,
                present,
            }
        });
    let query = prop_oneof![name().prop_map(QueryChange::Remove), set];
    // One group after the other only where the first sets something and the next begins with a removal.
    let headers = || {
        vec(changes(), 0..3).prop_map(|groups| {
            let is_both = |own: &HeaderChanges| !own.set.is_empty() && !own.remove.is_empty();
            groups.into_iter().filter(is_both).collect()
        })
    };
    (headers(), vec(query, 0..3), headers()).prop_map(|(request, query, response)| Mutations {
        request,
        query,
        response,
    })
}

fn filter(cors: BoxedStrategy<Cors>) -> impl Strategy<Value = Filter> {
    prop_oneof![
        authorization(false)
            .prop_map(|own| Filter::Authorization(Arc::new(own)))
            .boxed(),
        injection()
            .prop_map(|own| Filter::Injection(Arc::new(own)))
            .boxed(),
        (1u32..).prop_map(Filter::BodyLimit),
        session().prop_map(|own| Filter::Session(Arc::new(own))),
        rate_limit()
            .prop_map(|own| Filter::RateLimit(Arc::new(own)))
            .boxed(),
        cors.prop_map(|own| Filter::Cors(Arc::new(own))).boxed(),
    ]
}

pub(super) fn filters() -> BoxedStrategy<Vec<HttpFilter>> {
    // What is allowed to other origins stands with routes, and neither tokens nor services do.
    let names = clusters::cache().prop_map(|own| Filter::Names(Arc::new(own)));
    let filter = prop_oneof![
        4 => filter(Just(Cors::default()).boxed()).boxed(),
        1 => shared_rate_limit().prop_map(|own| Filter::SharedRateLimit(Arc::new(own))).boxed(),
        1 => check().prop_map(|own| Filter::Check(Arc::new(own))).boxed(),
        1 => tokens().prop_map(|own| Filter::Tokens(Arc::new(own))).boxed(),
        1 => names.boxed(),
        1 => (mutations(), any::<bool>())
            .prop_map(|(own, most_specific_wins)| {
                Filter::Mutation(Arc::new(Mutation {
                    own: Arc::new(own),
                    most_specific_wins,
                }))
            })
            .boxed(),
    ];
    let own = (filter, any::<bool>());
    let all = vec(own, 0..3);
    all.prop_map(|all| {
        (0..)
            .zip(all)
            .map(|(number, (filter, is_disabled))| HttpFilter {
                name: format!("filter-{number}"),
                is_disabled,
                filter,
            })
            .collect()
    })
    .boxed()
}

pub(super) fn overrides() -> BoxedStrategy<Overrides> {
    let own = prop_oneof![
        Just(Override::Disabled),
        name().prop_map(Override::Requires),
        rate_settings().prop_map(|own| Override::Rates(Arc::new(own))),
        check_settings().prop_map(|own| Override::Checks(Arc::new(own))),
        mutations().prop_map(|own| Override::Mutations(Arc::new(own))),
        filter(cors().boxed()).prop_map(Override::Other),
    ];
    proptest::collection::btree_map(name(), own, 0..2).boxed()
}
