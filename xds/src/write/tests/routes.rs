//! Routes, made up.

use fairlead_model::filter::RouteRates;

use super::*;

pub(super) fn changes() -> impl Strategy<Value = HeaderChanges> {
    let present = select(vec![
        (OnPresent::Append, false),
        (OnPresent::Keep, false),
        (OnPresent::Replace, false),
        (OnPresent::Replace, true),
    ]);
    let set = (name(), name(), present).prop_map(|(name, value, (present, only_if_present))| {
        HeaderChange {
            name: name.parse().expect("a name"),
            value: http::HeaderValue::from_str(&value).expect("a value").into(),
            present,
            only_if_present,
        }
    });
    let remove = name().prop_map(|name| name.parse().expect("a name"));
    (vec(remove, 0..2), vec(set, 0..2)).prop_map(|(remove, set)| HeaderChanges { remove, set })
}

pub(super) fn header() -> impl Strategy<Value = HeaderMatch> {
    let test = prop_oneof![
        any::<bool>().prop_map(HeaderTest::Present),
        text().prop_map(HeaderTest::Text),
        (any::<i64>(), any::<i64>()).prop_map(|(start, end)| HeaderTest::Range(start, end)),
    ];
    (name(), test, any::<bool>(), any::<bool>()).prop_map(
        |(name, test, invert, missing_is_empty)| HeaderMatch {
            name: name.parse().expect("a name"),
            test,
            invert,
            missing_is_empty,
        },
    )
}

pub(super) fn route_match() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        name().prop_map(|path| PathMatch::Exact(format!("/{path}"))),
        name().prop_map(|path| PathMatch::Prefix(format!("/{path}/"))),
        name().prop_map(|path| PathMatch::Segments(format!("/{path}"))),
        regex().prop_map(PathMatch::Regex),
    ];
    let test = prop_oneof![
        any::<bool>().prop_map(QueryTest::Present),
        text().prop_map(QueryTest::Text),
    ];
    let query = (name(), test).prop_map(|(name, test)| QueryMatch { name, test });
    let method = of(select(vec!["GET", "POST", "PURGE"]));
    (
        path,
        any::<bool>(),
        method,
        vec(header(), 0..3),
        vec(query, 0..3),
        any::<bool>(),
        of(0u32..=1_000_000),
    )
        .prop_map(
            |(path, ignore_case, method, headers, query, grpc, share)| RouteMatch {
                path,
                ignore_case,
                method: method.map(|own| own.parse().expect("a method")),
                headers,
                query,
                grpc,
                share,
            },
        )
}

fn rewrite(is_full: bool) -> impl Strategy<Value = PathRewrite> {
    let full = name().prop_map(|path| PathRewrite::Full(format!("/{path}")));
    let prefix = name().prop_map(|path| PathRewrite::Prefix(format!("/{path}")));
    let regex = regex().prop_map(|pattern| PathRewrite::Regex {
        pattern,
        by: r"/\0".to_owned(),
    });
    prop_oneof![
        u32::from(is_full) => full,
        1 => prefix,
        1 => regex,
    ]
}

fn hedge() -> impl Strategy<Value = Hedge> {
    let percentile = (1u8..=100, 10_000u32..1_000_000, time(), any::<bool>()).prop_map(
        |(extra, share, least, any_method)| Hedge {
            after: HedgeAfter::Percentile(share),
            extra: Some(extra),
            least,
            any_method,
        },
    );
    let each_try = Just(Hedge {
        after: HedgeAfter::Try,
        extra: None,
        least: Duration::ZERO,
        any_method: true,
    });
    prop_oneof![percentile, each_try]
}

fn retry() -> impl Strategy<Value = RetryPolicy> {
    let on = (
        any::<[bool; 7]>(),
        vec(100u16..600, 0..3),
        select(vec![vec![], vec![1u8, 14], vec![4, 8, 13], vec![14, 2, 10]]),
    )
        .prop_map(|(flags, statuses, grpc)| RetryOn {
            connect_failure: flags[0],
            refused_stream: flags[1],
            reset: flags[2],
            gateway_error: flags[3],
            server_error: flags[4],
            conflict: flags[5],
            class: flags[6],
            statuses,
            grpc,
        })
        // A policy without a condition is refused.
        .prop_map(|mut on| {
            on.reset |= on
                == RetryOn {
                    class: on.class,
                    ..RetryOn::default()
                };
            on
        });
    let budget =
        (0u8..=100, time(), 0u32..100).prop_map(|(percent, interval, least)| RetryBudget {
            percent,
            interval,
            least_per_second: f64::from(least),
        });
    (
        on,
        0u32..5,
        of(time()),
        (time(), time()),
        any::<bool>(),
        (of(budget), of(hedge())),
        0usize..100_000,
    )
        .prop_map(
            |(
                on,
                retries,
                per_try,
                (backoff_base, backoff_most),
                safe_only,
                (budget, mut hedge),
                body_most,
            )| {
                // What goes beside a try that takes too long needs to know when that is.
                hedge =
                    hedge.filter(|own: &Hedge| own.after != HedgeAfter::Try || per_try.is_some());
                RetryPolicy {
                    hedge,
                    on,
                    retries,
                    per_try,
                    backoff_base,
                    backoff_most,
                    safe_only,
                    budget,
                    body_most,
                }
            },
        )
}

fn classes() -> impl Strategy<Value = Classes> {
    let class = select(vec![Class::Success, Class::Failure, Class::Retryable]);
    let status = of((100u16..300, 300u16..600).prop_map(|(first, last)| first..=last));
    let rule = (status, of(vec(0u8..=16, 1..3)), of(header()), class).prop_map(
        |(status, grpc, header, class)| ClassRule {
            status,
            grpc,
            header,
            class,
        },
    );
    vec(rule, 0..3).prop_map(|rules| Classes { rules })
}

fn forward() -> impl Strategy<Value = Forward> {
    let own = (
        name(),
        1u32..100,
        changes(),
        changes(),
        filters::overrides(),
    );
    let weighted = own.prop_map(
        |(name, weight, request_headers, response_headers, filters)| WeightedCluster {
            name: name.as_str().into(),
            weight,
            request_headers,
            response_headers,
            filters,
        },
    );
    let host = prop_oneof![
        name().prop_map(HostRewrite::Literal),
        Just(HostRewrite::Endpoint),
    ];
    let by = prop_oneof![
        name().prop_map(AffinityBy::Header),
        (name(), of((name(), 0u64..100, vec((name(), name()), 0..2)))).prop_map(|(name, made)| {
            AffinityBy::Cookie {
                name,
                made: made.map(|(path, seconds, attributes)| CookieMade {
                    life: std::time::Duration::from_secs(seconds),
                    path: format!("/{path}"),
                    attributes,
                }),
            }
        },),
        name().prop_map(AffinityBy::Query),
        Just(AffinityBy::SourceAddress),
    ];
    let affinity = (by, any::<bool>()).prop_map(|(by, terminal)| Affinity { by, terminal });
    (
        (
            vec(weighted, 1..3),
            of(rewrite(true)),
            of(host),
            of(time()),
            of(time()),
        ),
        (
            of(retry()),
            classes(),
            vec(affinity, 0..3),
            labels(),
            vec(name(), 0..2),
            (mirrors(), filters::rate_rules(0..2).boxed(), any::<bool>()),
        ),
    )
        .prop_map(
            |(
                (clusters, rewrite, host, request, grpc_longest),
                (retry, classes, affinity, subset, upgrades, (mirrors, rules, includes_host)),
            )| Forward {
                clusters,
                rewrite,
                host,
                timeouts: Timeouts {
                    request,
                    grpc_longest,
                    idle: request,
                    stream: grpc_longest,
                },
                retry,
                classes,
                affinity,
                subset,
                upgrades,
                mirrors,
                rates: RouteRates {
                    rules,
                    includes_host,
                },
            },
        )
}

fn mirrors() -> impl Strategy<Value = Vec<Mirror>> {
    let one = (name(), 0u32..=1_000_000, any::<bool>());
    (vec(one, 0..3), any::<[bool; 2]>(), 0usize..100_000).prop_map(
        |(all, [safe_only, compares], body_most)| {
            let of = |(name, share, keeps_host): (String, u32, bool)| Mirror {
                cluster: format!("dark-{name}").into(),
                share,
                keeps_host,
                safe_only,
                body_most,
                compares,
            };
            all.into_iter().map(of).collect()
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let status = select(vec![301u16, 302, 303, 307, 308])
        .prop_map(|code| http::StatusCode::from_u16(code).expect("a status"));
    let redirect = (
        status,
        of(select(vec!["http".to_owned(), "https".to_owned()])),
        of(name()),
        of(1u16..),
        of(rewrite(true)),
        any::<bool>(),
    )
        .prop_map(|(status, scheme, host, port, path, strip_query)| Redirect {
            status,
            scheme,
            host,
            port,
            path,
            strip_query,
        });
    let respond = (200u16..600, "[a-z]{0,9}").prop_map(|(code, body)| Action::Respond {
        status: http::StatusCode::from_u16(code).expect("a status"),
        body,
    });
    prop_oneof![
        4 => forward().prop_map(|own| Action::Forward(Box::new(own))),
        1 => redirect.prop_map(Action::Redirect),
        1 => respond,
    ]
}

pub(super) fn table() -> impl Strategy<Value = RouteTable> {
    let route = (
        name(),
        route_match(),
        action(),
        changes(),
        changes(),
        filters::overrides(),
    )
        .prop_map(
            |(name, matches, action, request_headers, response_headers, filters)| {
                Arc::new(Route {
                    name,
                    matches,
                    action,
                    request_headers,
                    response_headers,
                    filters,
                })
            },
        );
    let host = (
        vec(route, 0..3),
        changes(),
        changes(),
        filters::overrides(),
        filters::rate_rules(0..2).boxed(),
    );
    let own = (changes(), changes(), any::<bool>(), filters::overrides()).prop_map(
        |(request_headers, response_headers, most_exact_wins, filters)| TableChanges {
            request_headers,
            response_headers,
            most_exact_wins,
            filters,
        },
    );
    (name(), vec(host, 0..3), any::<bool>(), own).prop_map(|(name, hosts, ignore_port, own)| {
        let hosts = (0..)
            .zip(hosts)
            .map(
                |(number, (routes, request_headers, response_headers, filters, rates))| {
                    VirtualHost {
                        rates,
                        table: Arc::default(),
                        name: format!("host-{number}"),
                        domains: vec![format!("{number}.example"), format!("*.{number}.example")],
                        routes,
                        request_headers,
                        response_headers,
                        filters,
                    }
                },
            )
            .collect();
        RouteTable::new(&name, hosts, ignore_port)
            .expect("no domain is claimed twice")
            .changing(own)
    })
}
