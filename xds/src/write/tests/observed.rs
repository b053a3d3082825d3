//! Access logs, traces and headers about callers.

use fairlead_model::edge::{CertificateDetails, CertificateMode, Edge, RequestId};
use fairlead_model::format::{Flag, Flags, Format};
use fairlead_model::log::{
    AccessLog, Comparison, JsonFormat, LogFilter, LogLine, LogTarget, Operator,
};
use fairlead_model::trace::{Tag, Tracing, Transport};

use super::*;

fn format() -> impl Strategy<Value = Format> {
    select(vec![
        "%RESPONSE_CODE%",
        "plain",
        "50%% of %REQ(x-a?:path):12%\n",
        "%START_TIME(%s)%",
    ])
    .prop_map(|source| Format::parse(source).expect("a format"))
}

fn json_format() -> impl Strategy<Value = JsonFormat> {
    let leaf = prop_oneof![
        3 => format().prop_map(JsonFormat::Format),
        1 => any::<i32>().prop_map(|own| JsonFormat::Plain(json!(i64::from(own)))),
        1 => any::<bool>().prop_map(|own| JsonFormat::Plain(json!(own))),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            members(inner.clone()).prop_map(JsonFormat::Object),
            vec(inner, 0..3).prop_map(JsonFormat::List),
        ]
    })
}

/// Members in the order that JSON's maps have.
fn members(
    own: impl Strategy<Value = JsonFormat>,
) -> impl Strategy<Value = Vec<(String, JsonFormat)>> {
    proptest::collection::btree_map(name(), own, 0..3).prop_map(|map| map.into_iter().collect())
}

fn filter() -> impl Strategy<Value = LogFilter> {
    let operator = select(vec![
        Operator::Equal,
        Operator::AtLeast,
        Operator::AtMost,
        Operator::NotEqual,
    ]);
    let comparison =
        (operator, 0u64..1000).prop_map(|(operator, value)| Comparison { operator, value });
    let flags = vec(select(Flag::ALL.to_vec()), 0..3)
        .prop_map(|all| LogFilter::Flags(all.into_iter().fold(Flags::default(), Flags::with)));
    let leaf = prop_oneof![
        comparison.clone().prop_map(LogFilter::Status),
        comparison.prop_map(LogFilter::Duration),
        flags,
        routes::header().prop_map(LogFilter::Header),
        (0u32..=1_000_000).prop_map(LogFilter::Share),
        (vec(0u8..17, 0..3), any::<bool>())
            .prop_map(|(statuses, exclude)| LogFilter::Grpc { statuses, exclude }),
        Just(LogFilter::Traced),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(LogFilter::And),
            vec(inner, 0..3).prop_map(LogFilter::Or),
        ]
    })
}

pub(super) fn logs() -> impl Strategy<Value = Vec<AccessLog>> {
    let target = prop_oneof![
        name().prop_map(|name| LogTarget::File(format!("/var/log/{name}").into())),
        Just(LogTarget::Stdout),
        Just(LogTarget::Stderr),
    ];
    let line = prop_oneof![
        (format(), any::<bool>())
            .prop_map(|(format, omit_empty)| LogLine::Text { format, omit_empty }),
        (members(json_format()), any::<bool>()).prop_map(|(members, omit_empty)| LogLine::Json {
            members,
            omit_empty,
        }),
    ];
    let log = (target, line, of(filter())).prop_map(|(target, line, filter)| AccessLog {
        target,
        line,
        filter,
    });
    vec(log, 0..2)
}

pub(super) fn edge() -> impl Strategy<Value = Option<Arc<Edge>>> {
    let mode = select(vec![
        CertificateMode::Sanitize,
        CertificateMode::ForwardOnly,
        CertificateMode::AppendForward,
        CertificateMode::SanitizeSet,
        CertificateMode::AlwaysForwardOnly,
    ]);
    let certificate =
        (mode, any::<[bool; 5]>()).prop_map(|(mode, [subject, certificate, chain, dns, uri])| {
            CertificateDetails {
                mode,
                subject,
                certificate,
                chain,
                dns,
                uri,
            }
        });
    let id = any::<[bool; 2]>().prop_map(|[preserve_external, in_response]| RequestId {
        preserve_external,
        in_response,
    });
    (any::<[bool; 3]>(), 0u32..4, of(id), of(name()), certificate).prop_map(
        |([is_first, skip_append, append_port], trusted_hops, request_id, via, certificate)| {
            let edge = Edge {
                is_first,
                trusted_hops,
                skip_append,
                append_port,
                request_id,
                via: via.map(|via| http::HeaderValue::from_str(&via).expect("a value")),
                certificate,
            };
            (edge != Edge::default()).then(|| Arc::new(edge))
        },
    )
}

/// Whose spans are of a server; a listener says otherwise for all of its own.
pub(super) fn tracing() -> impl Strategy<Value = Tracing> {
    let transport = prop_oneof![
        Just(Transport::Grpc),
        (name(), name()).prop_map(|(host, path)| Transport::Http {
            authority: format!("{host}:4318"),
            path: format!("/{path}"),
        }),
    ];
    let tag = prop_oneof![
        name().prop_map(Tag::Literal),
        (name(), of(name())).prop_map(|(name, default)| Tag::Header {
            name: name.parse().expect("a name"),
            default,
        }),
    ];
    let share = 0u32..=1_000_000;
    (
        (name(), transport, name(), any::<bool>()),
        (share.clone(), share.clone(), share),
        vec((name(), tag), 0..3),
    )
        .prop_map(
            |((cluster, transport, service, upstream_span), (random, client, overall), tags)| {
                Tracing {
                    cluster: cluster.as_str().into(),
                    transport,
                    service,
                    random,
                    client,
                    overall,
                    is_client: false,
                    upstream_span,
                    tags,
                }
            },
        )
}
