//! Whom the control plane lets in, and for what: who has a certificate of its own authority, who has a token, and nobody else.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fairlead_mesh::facts::Facts;
use fairlead_xds::discovery::{DELTA, STATE};
use fairlead_xds::figures::{By, TOP, TopRequest, TopResponse};
use fairlead_xds::identity::SIGN;
use fairlead_xds::metrics_service::STREAM;
use prost::Message as _;
use support::caller::{Visitor, replicas};
use support::{Control, MESH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

const LIFE: Duration = Duration::from_secs(3600);
const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const NOW: time::Duration = time::Duration::ZERO;
/// What is for proxies and programs of the mesh.
const OF_MEMBERS: [&str; 3] = [DELTA, STATE, STREAM];
/// What replicas ask each other.
const OF_REPLICAS: [&str; 3] = [
    "/fairlead.mesh.v1.Replicas/Proxies",
    "/fairlead.mesh.v1.Replicas/Judged",
    "/fairlead.mesh.v1.Replicas/Figures",
];
/// What is for service accounts.
const OF_ACCOUNTS: [&str; 2] = [SIGN, TOP];

/// How a call of an empty message is refused.
async fn refused(caller: &Visitor, path: &'static str) -> (Code, String) {
    let answer = caller.call(path, Vec::new()).await;
    let status = answer.expect_err(path);
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn who_has_no_certificate_and_no_token_is_told_nothing() {
    let control = Control::start(LIFE).await;
    let nobody = Visitor::of(&control);
    let foreign = Visitor::of(&control).with_certificate(
        &control.slots,
        "spiffe://else.where/ns/shop/sa/cart",
        NOW,
    );
    for caller in [&nobody, &foreign] {
        let certificate = "a certificate of the trust domain cluster.local is required";
        let token = "authorization: a bearer token is required";
        let members = OF_MEMBERS.map(|path| (path, certificate));
        for (path, expected) in members
            .into_iter()
            .chain(OF_ACCOUNTS.map(|path| (path, token)))
        {
            assert_eq!(
                refused(caller, path).await,
                (Code::Unauthenticated, expected.to_owned()),
                "{path}"
            );
        }
        for path in OF_REPLICAS {
            assert_eq!(refused(caller, path).await.0, Code::Unimplemented, "{path}");
        }
    }
    assert!(control.proxies.all().is_empty());
}

#[tokio::test]
async fn a_token_is_worth_a_certificate_where_its_own_pod_is() {
    let mut control = Control::start(LIFE).await;
    let key = |name: &str| ("shop".into(), name.into());
    let is_at = |control: &Control, pod: Option<&str>| {
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let places = pod.map(|pod| (local, key(pod))).into_iter().collect();
        control.tell(&Facts {
            places,
            ..Facts::default()
        });
    };
    let asked = async |control: &Control, token: &str| {
        let visitor = Visitor::of(control).with_token(token);
        refused(&visitor, SIGN).await
    };
    // It is known for the request that it lacks.
    let known = Code::InvalidArgument;
    is_at(&control, Some("cart-1"));
    assert_eq!(asked(&control, "shop/cart/cart-1").await.0, known);
    // Where nobody is known to be, addresses may be translated.
    is_at(&control, None);
    assert_eq!(asked(&control, "shop/cart/cart-1").await.0, known);
    is_at(&control, Some("till-1"));
    let said = "the token of the pod shop/cart-1 came from 127.0.0.1, where the pod shop/till-1 is";
    assert_eq!(
        asked(&control, "shop/cart/cart-1").await,
        (Code::PermissionDenied, said.to_owned())
    );
    let told = control.misuses.try_recv().expect("somebody is told");
    assert_eq!(
        (told.pod.name.as_str(), told.there),
        ("cart-1", key("till-1"))
    );
    let said = "the token was given to no pod; kubelet gives pods theirs by a projected volume";
    assert_eq!(
        asked(&control, "shop/cart/").await,
        (Code::PermissionDenied, said.to_owned())
    );
}

#[tokio::test]
async fn a_certificate_that_is_not_of_the_own_authority_ends_the_connection() {
    let control = Control::start(LIFE).await;
    let other = Control::start(LIFE).await;
    let good = Visitor::of(&control).with_certificate(&control.slots, CART, NOW);
    let answer = good.call(STREAM, Vec::new()).await;
    assert!(answer.is_ok(), "{answer:?}");
    // Whatever name it has, as another authority gives it; and one that ran out.
    for (whose, authority, id, age) in [
        ("a workload's", &other.slots, CART, NOW),
        ("a replica's", &other.slots, MESH, NOW),
        ("an old one", &control.slots, CART, 2 * time::Duration::DAY),
    ] {
        let caller = Visitor::of(&control)
            .with_certificate(authority, id, age)
            .with_token("fairlead-system/figures");
        for path in OF_MEMBERS.into_iter().chain(OF_REPLICAS).chain(OF_ACCOUNTS) {
            let answer = caller.call(path, Vec::new()).await;
            let status = answer.expect_err(path);
            let is_closed = matches!(status.code(), Code::Unavailable | Code::Unknown);
            assert!(is_closed, "{whose}, {path}: {status:?}");
        }
    }
}

#[tokio::test]
async fn what_replicas_say_is_for_replicas_alone() {
    let control = Control::start(LIFE).await;
    let caller = |id| Visitor::of(&control).with_certificate(&control.slots, id, NOW);
    let (replica, workload) = (caller(MESH), caller(CART));
    let account = Visitor::of(&control).with_token("fairlead-system/figures");
    for path in OF_REPLICAS {
        for other in [&workload, &account] {
            assert_eq!(refused(other, path).await.0, Code::Unimplemented, "{path}");
        }
        let answer = replica.call(path, Vec::new()).await;
        assert!(answer.is_ok(), "{path}: {answer:?}");
    }
    // A certificate is no token.
    for path in OF_ACCOUNTS {
        assert_eq!(refused(&replica, path).await.0, Code::Unauthenticated);
    }
}

#[tokio::test]
async fn who_stands_in_the_place_of_a_replica_is_not_believed() {
    let (control, other) = (Control::start(LIFE).await, Control::start(LIFE).await);
    control.tell(&replicas(&[control.address, other.address]));
    let request = TopRequest {
        by: By::Service.into(),
        ..TopRequest::default()
    };
    let caller = Visitor::of(&control).with_token("fairlead-system/figures");
    let answer = caller.call(TOP, request.encode_to_vec()).await;
    let told = TopResponse::decode(answer.expect("it may see all")).expect("an answer");
    assert_eq!((told.replicas, told.missing), (1, 1));
}

#[tokio::test]
async fn nothing_is_said_in_plain_text() {
    let control = Control::start(LIFE).await;
    for request in [
        "GET / HTTP/1.1\r\nhost: mesh\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(control.address)
            .await
            .expect("it is there");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it is taken");
        let mut answer = Vec::new();
        // It may be closed with what it did not read.
        let _ = stream.read_to_end(&mut answer).await;
        // A TLS alert at the most: its record begins with 21.
        assert!(
            answer.first().is_none_or(|first| *first == 21) && answer.len() <= 7,
            "{answer:?}"
        );
    }
}
