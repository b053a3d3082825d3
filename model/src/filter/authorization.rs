//! Who may come in: policies over who asks, and what for ([Envoy's
//! RBAC](https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/rbac/v3/rbac.proto)).
//!
//! An expression that fails neither holds nor does not: what is decided then is what lets less through. That is where this differs from
//! Envoy, which lets a request pass a rule of denial that it cannot evaluate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use fairlead_expr::Expression;
use ipnet::IpNet;
use serde_json::{Map, Value};

use super::asked::{Asked, NAMES};
use super::metadata::{MetadataMatch, RULES, ValueMatch};
use crate::TextMatch;
use crate::route::{HeaderMatch, RequestHead};

/// What rules that are only counted come to, as filters after them learn it ([`RULES`]): behind the name that they have.
const RESULT: &str = "shadow_engine_result";
const POLICY: &str = "shadow_effective_policy_id";
const PASSES: &str = "allowed";
const REFUSED: &str = "denied";

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Authorization {
    /// What is enforced; nothing: all may.
    pub rules: Option<Rules>,
    /// What is only counted.
    pub shadow: Option<Rules>,
    /// The name under which that is counted besides.
    pub shadow_name: Option<Arc<str>>,
}

/// Policies, and what it means when one of them holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// What it means.
    pub effect: Effect,
    /// The policies by name. Without any, none holds.
    pub policies: BTreeMap<String, Policy>,
}

/// What it means when a policy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The request may pass, and no other.
    Allow,
    /// The request may not pass; all others may.
    Deny,
    /// It is counted, and every request may pass.
    Audit,
}

/// It holds when one of each list does.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What is asked for.
    pub permissions: Vec<Condition>,
    /// Who asks.
    pub principals: Vec<Condition>,
}

/// What may be true of a request or a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// It is always so.
    Any,
    /// All of these.
    All(Vec<Condition>),
    /// One of these.
    OneOf(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
    /// A header.
    Header(HeaderMatch),
    /// What HTTP/2 writes as a header.
    Pseudo(Pseudo, TextMatch),
    /// The path without its query.
    Path(TextMatch),
    /// The network of the address that was wanted.
    Destination(IpNet),
    /// The port that was wanted.
    DestinationPort(RangeInclusive<u16>),
    /// The name asked for in TLS; empty where there is none.
    ServerName(TextMatch),
    /// Who it is by one of the names in its certificate; nothing: anyone with one.
    Peer(Option<TextMatch>),
    /// The network at the other end of the connection.
    Source(IpNet),
    /// The network of the caller, as the headers that are believed say.
    Caller(IpNet),
    /// What a filter before this one learned of the request.
    Metadata(MetadataMatch),
    /// An expression.
    Expression(Expression),
}

/// What HTTP/2 writes as a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pseudo {
    /// `:method`.
    Method,
    /// `:path`, with its query.
    Path,
    /// `:authority`.
    Authority,
}

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The expression is none.
    #[error("failed to read the expression: {0}")]
    Expression(#[from] fairlead_expr::ParseError),
    /// The expression reads what there is not.
    #[error("{0:?} is not known; {known} can be read", known = NAMES.join(", "))]
    Name(String),
}

/// What is decided of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Whether it may pass.
    pub is_allowed: bool,
    /// The policy that held.
    pub policy: Option<&'a str>,
}

impl Authorization {
    /// What filters after this one learn of what its rules that are only counted come to.
    #[must_use]
    pub fn learned(&self, verdict: &Verdict<'_>) -> Value {
        let name = self.shadow_name.as_deref().unwrap_or_default();
        let result = match verdict.is_allowed {
            true => PASSES,
            false => REFUSED,
        };
        let policy = verdict.policy.map(|own| (POLICY, own));
        let all = [(RESULT, result)].into_iter().chain(policy);
        let all = all.map(|(what, own)| (format!("{name}{what}"), own.into()));
        Value::Object(all.collect::<Map<_, _>>())
    }

    /// What is known of requests that rules would let pass which are only counted, under a name.
    #[must_use]
    pub fn would_pass(shadow_name: &str) -> MetadataMatch {
        MetadataMatch {
            filter: RULES.to_owned(),
            path: vec![format!("{shadow_name}{RESULT}")],
            value: ValueMatch::Text(TextMatch::exact(PASSES)),
            invert: false,
        }
    }
}

impl Condition {
    /// Reads an expression.
    ///
    /// # Errors
    /// When it is none, or reads what there is not.
    pub fn expression(source: &str) -> Result<Self, PolicyError> {
        let expression = Expression::parse(source)?;
        for path in expression.references() {
            let first = path.segments().first().map_or("", String::as_str);
            if !NAMES.contains(&first) {
                return Err(PolicyError::Name(first.to_owned()));
            }
        }
        Ok(Self::Expression(expression))
    }

    /// Whether it is so; what cannot be evaluated is not.
    #[must_use]
    pub fn is_so(&self, asked: &Asked<'_>) -> bool {
        self.holds(asked).unwrap_or(false)
    }

    /// Whether it is so; nothing where an expression fails.
    fn holds(&self, asked: &Asked<'_>) -> Option<bool> {
        let head = asked.head.as_ref();
        let within = |network: &IpNet, address: Option<IpAddr>| {
            Some(address.is_some_and(|address| network.contains(&address.to_canonical())))
        };
        match self {
            Self::Any => Some(true),
            Self::All(all) => all_hold(all, asked),
            Self::OneOf(some) => one_holds(some, asked),
            Self::Not(other) => other.holds(asked).map(|holds| !holds),
            Self::Header(header) => Some(head.is_some_and(|head| header.matches(head.headers))),
            Self::Pseudo(pseudo, text) => Some(head.is_some_and(|head| pseudo.matches(head, text))),
            Self::Path(text) => Some(head.is_some_and(|head| text.matches(head.path))),
            Self::Destination(network) => within(network, asked.destination.map(|own| own.ip())),
            Self::DestinationPort(ports) => {
                let port = asked.destination.map(|own| own.port());
                Some(port.is_some_and(|port| ports.contains(&port)))
            }
            Self::ServerName(text) => Some(text.matches(asked.server_name.unwrap_or(""))),
            Self::Peer(None) => Some(asked.peer.is_certified()),
            Self::Peer(Some(name)) => Some(asked.peer.names().any(|own| name.matches(own))),
            Self::Source(network) => within(network, asked.source.map(|own| own.ip())),
            Self::Caller(network) => within(network, asked.caller),
            Self::Metadata(own) => {
                Some(asked.metadata.is_some_and(|metadata| own.matches(metadata)))
            }
            Self::Expression(expression) => expression.evaluate_bool(asked.scope()).ok(),
        }
    }
}

/// Whether all hold: what does not counts more than what fails.
fn all_hold(all: &[Condition], asked: &Asked<'_>) -> Option<bool> {
    let mut holds = Some(true);
    for condition in all {
        match condition.holds(asked) {
            Some(false) => return Some(false),
            Some(true) => {}
            None => holds = None,
        }
    }
    holds
}

/// Whether one holds: what does counts more than what fails.
fn one_holds(some: &[Condition], asked: &Asked<'_>) -> Option<bool> {
    let mut holds = Some(false);
    for condition in some {
        match condition.holds(asked) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => holds = None,
        }
    }
    holds
}

impl Pseudo {
    fn matches(self, head: &RequestHead<'_>, text: &TextMatch) -> bool {
        match (self, head.query) {
            (Self::Method, _) => text.matches(head.method.as_str()),
            (Self::Authority, _) => text.matches(head.authority),
            (Self::Path, None) => text.matches(head.path),
            (Self::Path, Some(query)) => text.matches(&format!("{}?{query}", head.path)),
        }
    }
}

impl Policy {
    fn holds(&self, asked: &Asked<'_>) -> Option<bool> {
        match one_holds(&self.permissions, asked) {
            Some(false) => Some(false),
            what => match one_holds(&self.principals, asked) {
                Some(true) => what,
                who => who,
            },
        }
    }
}

impl Rules {
    /// What is decided.
    #[must_use]
    pub fn decide(&self, asked: &Asked<'_>) -> Verdict<'_> {
        let is_denial = self.effect == Effect::Deny;
        let policy = self
            .policies
            .iter()
            .find(|(_, policy)| policy.holds(asked).unwrap_or(is_denial))
            .map(|(name, _)| name.as_str());
        Verdict {
            is_allowed: match self.effect {
                Effect::Allow => policy.is_some(),
                Effect::Deny => policy.is_none(),
                Effect::Audit => true,
            },
            policy,
        }
    }

    /// Whether a condition needs a request.
    #[must_use]
    pub fn needs_request(&self) -> bool {
        fn needs(condition: &Condition) -> bool {
            match condition {
                Condition::All(own) | Condition::OneOf(own) => own.iter().any(needs),
                Condition::Not(own) => needs(own),
                Condition::Header(_)
                | Condition::Pseudo(..)
                | Condition::Path(_)
                | Condition::Metadata(_) => true,
                Condition::Expression(own) => own
                    .references()
                    .iter()
                    .any(|path| path.starts_with(&["request"])),
                _ => false,
            }
        }
        self.policies.values().any(|policy| {
            let mut own = policy.permissions.iter().chain(&policy.principals);
            own.any(needs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;

    use http::{HeaderMap, Method};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::filter::metadata::Metadata;
    use crate::tls::Peer;

    /// What the requests of these tests differ in.
    #[derive(Debug, Clone)]
    struct Case {
        method: &'static str,
        path: &'static str,
        peer: &'static str,
        port: u16,
        source: [u8; 4],
    }

    impl Case {
        fn decide(&self, rules: &Rules) -> bool {
            let method: Method = self.method.parse().expect("a method");
            let headers = HeaderMap::new();
            let peer = match self.peer {
                "" => Peer::Plain,
                id => Peer::Known(id.parse().expect("an id")),
            };
            let asked = Asked {
                head: Some(RequestHead {
                    method: &method,
                    authority: "shop.example",
                    path: self.path,
                    query: None,
                    headers: &headers,
                }),
                destination: Some(([10, 0, 0, 1], self.port).into()),
                source: Some((self.source, 1234).into()),
                caller: None,
                server_name: None,
                peer: &peer,
                metadata: None,
                scope: OnceCell::new(),
            };
            rules.decide(&asked).is_allowed
        }
    }

    fn expression(text: &str) -> Condition {
        Condition::expression(text).expect("an expression")
    }

    fn rules(effect: Effect, permission: Condition, principal: Condition) -> Rules {
        let policy = Policy {
            permissions: vec![permission],
            principals: vec![principal],
        };
        Rules {
            effect,
            policies: [("one".to_owned(), policy)].into(),
        }
    }

    const CASE: Case = Case {
        method: "GET",
        path: "/a",
        peer: "spiffe://a/ns/shop/sa/till",
        port: 80,
        source: [10, 1, 2, 3],
    };

    #[test]
    fn an_expression_that_fails_lets_less_through() {
        let broken = expression("request.headers.missing == 'x'");
        let allow = rules(Effect::Allow, broken.clone(), Condition::Any);
        let deny = rules(Effect::Deny, broken.clone(), Condition::Any);
        assert!(!CASE.decide(&allow) && !CASE.decide(&deny));
        let not = Condition::Not(Box::new(broken));
        let allow = rules(Effect::Allow, not.clone(), Condition::Any);
        let deny = rules(Effect::Deny, not, Condition::Any);
        assert!(!CASE.decide(&allow) && !CASE.decide(&deny));
    }

    #[test]
    fn expressions_read_who_asks_and_what_for() {
        for (text, holds) in [
            (
                "source.namespace == 'shop' && source.service_account == 'till'",
                true,
            ),
            ("source.identity.startsWith('spiffe://a/')", true),
            (
                "source.address == '10.1.2.3' && destination.port == 80",
                true,
            ),
            (
                "request.method == 'GET' && request.path.startsWith('/a')",
                true,
            ),
            ("connection.mtls && request.host == 'shop.example'", true),
            ("source.namespace == 'bank'", false),
        ] {
            let allow = rules(Effect::Allow, expression(text), Condition::Any);
            assert_eq!(CASE.decide(&allow), holds, "{text}");
        }
        assert_eq!(
            Condition::expression("env.secret == ''"),
            Err(PolicyError::Name("env".to_owned()))
        );
        let without = Case { peer: "", ..CASE };
        let allow = rules(
            Effect::Allow,
            expression("source.identity == ''"),
            Condition::Any,
        );
        assert!(
            without.decide(&allow),
            "a caller without a name has an empty one"
        );
    }

    #[test]
    fn what_is_only_counted_is_learned_under_its_name() {
        let own = Authorization {
            shadow_name: Some("cart/".into()),
            ..Authorization::default()
        };
        for (is_allowed, policy, expected) in [
            (
                true,
                Some("one"),
                json!({"cart/shadow_engine_result": "allowed", "cart/shadow_effective_policy_id": "one"}),
            ),
            (false, None, json!({"cart/shadow_engine_result": "denied"})),
        ] {
            let learned = own.learned(&Verdict { is_allowed, policy });
            assert_eq!(learned, expected);
            let mut metadata = Metadata::default();
            metadata.learn(RULES, None, Arc::new(learned));
            let matches = |name| Authorization::would_pass(name).matches(&metadata);
            assert_eq!((matches("cart/"), matches("")), (is_allowed, false));
        }
    }

    #[test]
    fn without_a_policy_nobody_is_allowed_and_nobody_denied() {
        let empty = |effect| Rules {
            effect,
            policies: BTreeMap::new(),
        };
        assert!(!CASE.decide(&empty(Effect::Allow)));
        assert!(CASE.decide(&empty(Effect::Deny)));
        assert!(CASE.decide(&empty(Effect::Audit)));
    }

    /// A condition as one line of text, and the second evaluator: it finds out every part first, and then counts.
    fn naive(condition: &Condition, case: &Case) -> bool {
        match condition {
            Condition::Any => true,
            Condition::All(all) => {
                let held = all.iter().map(|own| naive(own, case));
                held.filter(|held| *held).count() == all.len()
            }
            Condition::OneOf(all) => {
                let held = all.iter().map(|own| naive(own, case));
                held.filter(|held| *held).count() > 0
            }
            Condition::Not(own) => !naive(own, case),
            Condition::Pseudo(Pseudo::Method, TextMatch::Exact { text, .. }) => {
                *text == case.method
            }
            Condition::Path(TextMatch::Prefix { text, .. }) => case.path.starts_with(text.as_str()),
            Condition::Peer(None) => !case.peer.is_empty(),
            Condition::Peer(Some(TextMatch::Exact { text, .. })) => *text == case.peer,
            Condition::DestinationPort(ports) => ports.contains(&case.port),
            Condition::Source(network) => {
                let address: IpAddr = case.source.into();
                network.contains(&address)
            }
            Condition::Expression(own) => own.source().contains(&format!("'{}'", case.method)),
            other => panic!("{other:?} is not made"),
        }
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let leaf = prop_oneof![
            Just(Condition::Any),
            proptest::sample::select(vec!["GET", "PUT"])
                .prop_map(|own| Condition::Pseudo(Pseudo::Method, TextMatch::exact(own))),
            proptest::sample::select(vec!["/a", "/a/b", "/"]).prop_map(|own| {
                Condition::Path(TextMatch::Prefix {
                    text: own.to_owned(),
                    ignore_case: false,
                })
            }),
            proptest::option::of(peer()).prop_map(|own| Condition::Peer(own.map(TextMatch::exact))),
            (70u16..90, 0u16..15)
                .prop_map(|(from, more)| { Condition::DestinationPort(from..=from + more) }),
            (8u8..32).prop_map(|bits| {
                let network = IpNet::new([10, 1, 2, 3].into(), bits);
                Condition::Source(network.expect("a network"))
            }),
            proptest::sample::select(vec!["request.method in ['GET']", "request.method == 'PUT'"])
                .prop_map(expression),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let some = || proptest::collection::vec(inner.clone(), 1..4);
            prop_oneof![
                some().prop_map(Condition::All),
                some().prop_map(Condition::OneOf),
                inner.clone().prop_map(|own| Condition::Not(Box::new(own))),
            ]
        })
    }

    fn peer() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "spiffe://a/ns/shop/sa/till",
            "spiffe://a/ns/shop/sa/cart",
        ])
    }

    fn case() -> impl Strategy<Value = Case> {
        (
            proptest::sample::select(vec!["GET", "PUT"]),
            proptest::sample::select(vec!["/a", "/a/b", "/c"]),
            prop_oneof![Just(""), peer()],
            75u16..90,
            any::<[u8; 2]>(),
        )
            .prop_map(|(method, path, peer, port, [third, last])| Case {
                method,
                path,
                peer,
                port,
                source: [10, 1, third % 4, last % 8],
            })
    }

    proptest! {
        #[test]
        fn a_second_evaluator_decides_the_same(
            policies in proptest::collection::btree_map(
                "[a-c]",
                (
                    proptest::collection::vec(condition(), 1..4),
                    proptest::collection::vec(condition(), 1..4),
                ),
                0..3,
            ),
            effect in proptest::sample::select(vec![Effect::Allow, Effect::Deny, Effect::Audit]),
            cases in proptest::collection::vec(case(), 1..12),
        ) {
            let policies: BTreeMap<_, _> = policies
                .into_iter()
                .map(|(name, (permissions, principals))| (name, Policy { permissions, principals }))
                .collect();
            let rules = Rules { effect, policies };
            for case in cases {
                let held = rules.policies.values().filter(|policy| {
                    policy.permissions.iter().any(|own| naive(own, &case))
                        && policy.principals.iter().any(|own| naive(own, &case))
                });
                let held = held.count() > 0;
                let allowed = match effect {
                    Effect::Allow => held,
                    Effect::Deny => !held,
                    Effect::Audit => true,
                };
                prop_assert_eq!(case.decide(&rules), allowed, "{:?}", case);
            }
        }
    }
}
