//! Whom rules know callers as, by what their certificates say.

mod support;

use std::sync::Arc;

use fairlead_model::TextMatch;
use fairlead_model::cluster::UpstreamProtocol;
use fairlead_model::filter::{Authorization, Condition, Effect, Filter, HttpFilter, Policy, Rules};
use fairlead_model::listener::Handler;
use http::StatusCode;
use rcgen::{DistinguishedName, DnType, SanType};
use support::certificates::{Authority, client, server};
use support::{Endpoint, Proxy, http_to, listener, proxy, snapshot, to, up};

const SERVICE: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// Lets in who has one of these names.
fn only(names: &[&str]) -> HttpFilter {
    let name = |own: &&str| Condition::Peer(Some(TextMatch::exact(own)));
    let policy = Policy {
        permissions: vec![Condition::Any],
        principals: names.iter().map(name).collect(),
    };
    HttpFilter {
        name: "access".to_owned(),
        is_disabled: false,
        filter: Filter::Authorization(Arc::new(Authorization {
            rules: Some(Rules {
                effect: Effect::Allow,
                policies: [("named".to_owned(), policy)].into(),
            }),
            shadow: None,
            shadow_name: None,
        })),
    }
}

#[tokio::test]
async fn callers_are_known_by_the_names_of_their_certificates() {
    let (endpoint, authority) = (Endpoint::echo().await, Authority::default());
    // What a certificate says, who is let in, and whether that is its caller.
    let dns = || {
        vec![SanType::DnsName(
            "web.shop.example".try_into().expect("a name"),
        )]
    };
    let uri = |text: &str| SanType::URI(text.try_into().expect("a URI"));
    let https = "https://shop.example/web";
    let both = || [vec![uri(https)], dns()].concat();
    let subject = "CN=web,O=Shop";
    let cases: [(Vec<SanType>, &str, bool); 10] = [
        (vec![uri(CALLER)], CALLER, true),
        (
            [vec![uri(CALLER)], dns()].concat(),
            "web.shop.example",
            false,
        ),
        (vec![uri(CALLER)], subject, false),
        (both(), https, true),
        (both(), "web.shop.example", true),
        (dns(), "web.shop.example", true),
        (dns(), "cart.shop.example", false),
        (dns(), subject, true),
        (Vec::new(), subject, true),
        (Vec::new(), "CN=cart,O=Shop", false),
    ];
    for (names, wanted, is_let_in) in cases {
        let tls = server(
            authority.issue(&[SERVICE], |_| {}),
            authority.trust(&[], &[]),
        );
        let mut http = http_to(to("up"));
        http.filters.push(only(&["nobody", wanted]));
        let inner = Proxy::start(|address| {
            let listener = listener(address, Handler::Http(Arc::new(http)), Some(tls));
            snapshot(listener, vec![up(&[endpoint.address])])
        })
        .await;
        let own = authority.issue(&[], |params| {
            params.subject_alt_names.clone_from(&names);
            params.distinguished_name = DistinguishedName::new();
            params
                .distinguished_name
                .push(DnType::OrganizationName, "Shop");
            params.distinguished_name.push(DnType::CommonName, "web");
        });
        let mut cluster = up(&[inner.address]);
        cluster.protocol = UpstreamProtocol::Http2;
        cluster.tls = Some(client(own, authority.trust(&[], &[SERVICE])));
        let outer = proxy(http_to(to("up")), cluster).await;
        let expected = match is_let_in {
            true => StatusCode::OK,
            false => StatusCode::FORBIDDEN,
        };
        let (head, _) = outer.get("/").await;
        assert_eq!(head.status, expected, "{wanted} of {names:?}");
    }
}
