//! Who asks for live figures is told what all replicas know, and nothing of what is not to be seen.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairlead_mesh::figures::{Called, Caller, Sum};
use fairlead_xds::figures::{By, TOP, TopRequest, TopResponse};
use prost::Message as _;
use support::Control;
use support::caller::{Visitor, replicas};
use tonic::{Code, Status};

const LIFE: Duration = Duration::from_secs(3600);

async fn top(control: &Control, token: &str, request: TopRequest) -> Result<TopResponse, Status> {
    let caller = Visitor::of(control).with_token(token);
    let answer = caller.call(TOP, request.encode_to_vec()).await?;
    Ok(TopResponse::decode(answer).expect("an answer"))
}

fn request(by: By, namespace: &str) -> TopRequest {
    TopRequest {
        seconds: 0,
        by: by.into(),
        namespace: namespace.to_owned(),
    }
}

/// Rows as text: caller, service and route, successes, failures.
fn rows(told: &TopResponse) -> Vec<String> {
    let text = |row: &fairlead_xds::figures::Row| {
        let pair = &row.pair;
        let (caller, called) = (
            format!("{}/{}", pair.caller_namespace, pair.caller),
            format!("{}/{}:{}", pair.namespace, pair.service, pair.port),
        );
        let route = &pair.route;
        let route = if route.is_empty() {
            ""
        } else {
            &format!(" {route}")
        };
        format!(
            "{caller} {called}{route} {} {}",
            row.successes, row.failures
        )
    };
    told.rows.iter().map(text).collect()
}

/// Lets a replica know of requests over HTTP/1.1: by the caller's namespace and the service's, successes and failures.
fn count(control: &Control, from: &str, to: &str, ends: (u64, u64)) {
    count_on(control, "http1", from, to, ends);
}

/// Lets a replica know of requests that took a route.
fn count_on(
    control: &Control,
    route: &str,
    from: &str,
    to: &str,
    (successes, failures): (u64, u64),
) {
    let mut sum = Sum {
        successes,
        failures,
        ..Sum::default()
    };
    sum.took(10.0, successes + failures);
    let caller = Caller {
        namespace: from.into(),
        workload: "web".into(),
    };
    let called = Called {
        namespace: to.into(),
        service: "cart".into(),
        port: 80,
        route: route.into(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is later").as_secs();
    control
        .figures
        .add(&BTreeMap::from([((caller, called), sum)]), now);
}

#[tokio::test]
async fn all_replicas_are_added_up() {
    let near = Control::start(LIFE).await;
    let far = Control::with(near.slots.clone(), LIFE).await;
    near.tell(&replicas(&[near.address, far.address]));
    count(&near, "shop", "shop", (3, 0));
    count(&far, "shop", "shop", (1, 2));
    count(&far, "bank", "shop", (4, 0));
    count_on(&far, "http2", "shop", "shop", (0, 1));
    count_on(&near, "http2", "bank", "shop", (2, 0));
    count_on(&far, "", "shop", "", (5, 1));
    let told = top(&near, "shop/viewer", request(By::Destination, "shop")).await;
    assert_eq!(
        rows(&told.expect("it may see the shop")),
        ["shop/web /cart:80 5 1"]
    );
    let told = top(&near, "shop/viewer", request(By::Service, "shop")).await;
    let told = told.expect("it may see the shop");
    assert_eq!(rows(&told), ["/ shop/cart:80 10 3"]);
    assert_eq!((told.seconds, told.replicas, told.missing), (30, 2, 0));
    let p50 = told.rows[0].p50.expect("times are known");
    assert!((5.0..=10.0).contains(&p50), "{p50}");

    let told = top(&near, "shop/viewer", request(By::Route, "shop")).await;
    assert_eq!(
        rows(&told.expect("it may see the shop")),
        ["/ shop/cart:80 http1 8 2", "/ shop/cart:80 http2 2 1"]
    );

    // What one of them knows alone is said to be not all.
    let gone = SocketAddr::from(([127, 0, 0, 1], 1));
    near.tell(&replicas(&[near.address, gone]));
    let told = top(&near, "shop/viewer", request(By::Pair, "shop")).await;
    let told = told.expect("it may see the shop");
    assert_eq!(
        rows(&told),
        ["bank/web shop/cart:80 2 0", "shop/web shop/cart:80 3 0"]
    );
    assert_eq!((told.replicas, told.missing), (1, 1));
}

#[tokio::test]
async fn nobody_sees_what_is_of_others() {
    let control = Control::start(LIFE).await;
    count(&control, "shop", "shop", (1, 0));
    count(&control, "shop", "bank", (2, 0));
    count(&control, "bank", "bank", (3, 0));
    count(&control, "mail", "mail", (4, 0));
    let all = |by| request(by, "");
    for (token, asked, expected) in [
        ("bank/viewer", all(By::Service), vec!["/ bank/cart:80 5 0"]),
        (
            "bank/viewer",
            all(By::Route),
            vec!["/ bank/cart:80 http1 5 0"],
        ),
        ("bank/viewer", all(By::Workload), vec!["bank/web /:0 3 0"]),
        (
            "bank/viewer",
            all(By::Pair),
            vec!["bank/web bank/cart:80 3 0", "shop/web bank/cart:80 2 0"],
        ),
        (
            "fairlead-system/figures",
            all(By::Workload),
            vec!["bank/web /:0 3 0", "mail/web /:0 4 0", "shop/web /:0 3 0"],
        ),
    ] {
        let told = top(&control, token, asked).await;
        assert_eq!(rows(&told.expect("it may see some")), expected, "{token}");
    }
    for (token, namespace, code, message) in [
        (
            "bank/viewer",
            "shop",
            Code::PermissionDenied,
            "the service account bank/viewer may not get services in shop",
        ),
        (
            "else/viewer",
            "",
            Code::PermissionDenied,
            "the service account else/viewer may not get services in any namespace",
        ),
        (
            "nonsense",
            "shop",
            Code::Unauthenticated,
            "the token is not valid for figures.mesh.fairlead.dev",
        ),
    ] {
        let told = top(&control, token, request(By::Service, namespace)).await;
        let status = told.expect_err("it is refused");
        assert_eq!((status.code(), status.message()), (code, message));
    }
}

#[tokio::test]
async fn nonsense_is_refused_with_what_is_allowed() {
    let control = Control::start(LIFE).await;
    let long = TopRequest {
        seconds: 3601,
        ..TopRequest::default()
    };
    let odd = TopRequest {
        by: 7,
        ..TopRequest::default()
    };
    for (request, expected) in [
        (long, "seconds: found 3601; at most 3600 is allowed"),
        (
            odd,
            "by: found 7; SERVICE, PAIR, WORKLOAD, DESTINATION or ROUTE is allowed",
        ),
    ] {
        let status = top(&control, "fairlead-system/figures", request).await;
        let status = status.expect_err("it is refused");
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, expected)
        );
    }
}
