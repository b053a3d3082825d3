//! What filters do with requests, as the examples of features say.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_xds::bootstrap;
use http::{Request, StatusCode};
use http_body_util::Full;
use support::features::{example, figure};
use support::live::Live;
use support::{Endpoint, text_answer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

#[tokio::test]
async fn policies_say_who_may_come_in() {
    let endpoint = Endpoint::echo().await;
    let proxy = example("authorization.yaml", &endpoint, &[]).await;
    let asked = async |method, path, headers| proxy.send(request(method, path, headers)).await.0;
    assert_eq!(asked("GET", "/a", &[]).await.status, StatusCode::OK);
    let refused = asked("GET", "/internal/a", &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.headers["proxy-status"],
        "fairlead; error=http_request_denied"
    );
    assert_eq!(asked("PUT", "/a", &[]).await.status, StatusCode::FORBIDDEN);
    let team = [("x-team", "shop")];
    assert_eq!(asked("PUT", "/a", &team).await.status, StatusCode::OK);
    assert_eq!(
        asked("DELETE", "/healthz", &[]).await.status,
        StatusCode::OK
    );
    assert_eq!(endpoint.requests(), 3, "who is refused never gets there");
    let figure = |name: &str| figure(&proxy, &format!("http.shop.{name}"));
    assert_eq!((figure("rbac.allowed"), figure("rbac.denied")), (2, 2));
    assert_eq!(
        (figure("rbac.shadow_allowed"), figure("rbac.shadow_denied")),
        (0, 4),
        "what is only counted refuses nobody"
    );
    assert_eq!(self::figure(&proxy, "rules.stricter.shadow_denied"), 4);
    // gRPC's callers are told in trailers.
    let grpc = [("content-type", "application/grpc")];
    let refused = asked("POST", "/shop.Cart/Add", &grpc).await;
    assert_eq!(refused.status, StatusCode::OK);
    assert_eq!(refused.headers["grpc-status"], "7");
}

#[tokio::test]
async fn too_many_requests_of_one_tenant_are_refused() {
    let endpoint = Endpoint::echo().await;
    let proxy = example("rate-limit.yaml", &endpoint, &[]).await;
    let mut statuses = Vec::new();
    for _ in 0..7 {
        let (head, _) = proxy.send(request("GET", "/", &[("x-tenant", "a")])).await;
        assert_eq!(head.headers["x-ratelimit-limit"], "5");
        if head.status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(head.headers["retry-after"], "1");
            assert_eq!(head.headers["x-ratelimit-remaining"], "0");
            assert_eq!(head.headers["proxy-status"], "fairlead; error=rate_limited");
        }
        statuses.push(head.status.as_u16());
    }
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let (head, _) = proxy.send(request("GET", "/", &[("x-tenant", "b")])).await;
    assert_eq!(head.status, StatusCode::OK, "each tenant has its own");
    let (head, _) = proxy.send(request("GET", "/", &[])).await;
    assert_eq!(head.headers["x-ratelimit-limit"], "100");
    let limited = figure(&proxy, "http.shop.local_rate_limit.enforced");
    assert_eq!(
        limited,
        statuses.iter().filter(|own| **own == 429).count() as i128
    );
}

#[tokio::test]
async fn a_limit_in_all_holds() {
    let endpoint = Endpoint::echo().await;
    let bucket = "max_tokens: 100, tokens_per_fill: 50, fill_interval: 1s";
    let own = "max_tokens: 20, tokens_per_fill: 1, fill_interval: 3600s";
    let proxy = example("rate-limit.yaml", &endpoint, &[(bucket, own)]).await;
    let mut passed = 0;
    for _ in 0..50 {
        let (head, _) = proxy.send(request("GET", "/", &[])).await;
        passed += usize::from(head.status == StatusCode::OK);
    }
    assert_eq!((passed, endpoint.requests()), (20, 20));
}

#[tokio::test]
async fn what_goes_wrong_on_purpose_can_be_seen_and_ended() {
    let endpoint = Endpoint::start(|_, _| async { text_answer(200, "0123456789") }).await;
    let proxy = example("faults.yaml", &endpoint, &[]).await;
    let asked = async |how| proxy.send(request("GET", "/", &[("x-chaos", how)])).await;

    let begun = Instant::now();
    let (head, body) = asked("slow").await;
    assert_eq!((head.status, body.as_str()), (StatusCode::OK, "0123456789"));
    assert!(begun.elapsed() >= Duration::from_millis(200));

    let (head, _) = asked("fail").await;
    assert_eq!(head.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        head.headers["proxy-status"],
        "fairlead; error=fault_injected"
    );

    let raw = async |how: &str| {
        let mut stream = TcpStream::connect(proxy.address)
            .await
            .expect("a connection");
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx-chaos: {how}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("to send");
        let mut all = Vec::new();
        let ended = stream
            .read_to_end(&mut all)
            .await
            .map_err(|error| error.kind());
        (
            String::from_utf8_lossy(&all).into_owned(),
            ended.map(|_| ()),
        )
    };
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    assert_eq!(raw("reset").await, (String::new(), reset));
    let (half, _) = raw("half").await;
    assert!(
        half.contains("content-length: 10") && half.ends_with("\r\n\r\n01234"),
        "{half}"
    );

    let (head, _) = asked("none").await;
    assert_eq!(head.status, StatusCode::OK);
    for (name, count) in [
        ("fault.delays_injected", 1),
        ("fault.aborts_injected", 1),
        ("fault.breaks_injected", 2),
    ] {
        assert_eq!(
            figure(&proxy, &format!("http.shop.{name}")),
            count,
            "{name}"
        );
    }
    proxy
        .shared
        .faults_off
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let (head, _) = asked("fail").await;
    assert_eq!(head.status, StatusCode::OK);
}

#[tokio::test]
async fn a_fault_ends_when_it_is_to() {
    let endpoint = Endpoint::echo().await;
    let past = [("until: \"2099-12-31", "until: \"2020-12-31")];
    let proxy = example("faults.yaml", &endpoint, &past).await;
    let (head, _) = proxy
        .send(request("GET", "/", &[("x-chaos", "reset")]))
        .await;
    assert_eq!(head.status, StatusCode::OK);
}

#[tokio::test]
async fn only_so_much_goes_wrong_at_once() {
    let endpoint = Endpoint::echo().await;
    let most = [
        ("fixed_delay: 0.2s", "fixed_delay: 2s"),
        ("max_active_faults: 100", "max_active_faults: 1"),
    ];
    let proxy = example("faults.yaml", &endpoint, &most).await;
    let begun = Instant::now();
    let slow = || proxy.send(request("GET", "/", &[("x-chaos", "slow")]));
    let first = async {
        slow().await;
        begun.elapsed()
    };
    let second = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        slow().await;
        begun.elapsed()
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first >= Duration::from_secs(2) && second < Duration::from_secs(2));
    assert_eq!(figure(&proxy, "http.shop.fault.faults_overflow"), 1);
}

#[tokio::test]
async fn an_answer_can_be_slowed_down() {
    let body = "x".repeat(40 * 1024);
    let endpoint = Endpoint::start(move |_, _| {
        let body = body.clone();
        async move { text_answer(200, &body) }
    })
    .await;
    let delay = "delay: { fixed_delay: 0.2s, percentage: { numerator: 100 } }";
    let pace =
        "response_rate_limit: { fixed_limit: { limit_kbps: 40 }, percentage: { numerator: 100 } }";
    let proxy = example("faults.yaml", &endpoint, &[(delay, pace)]).await;
    let begun = Instant::now();
    let (_, body) = proxy
        .send(request("GET", "/", &[("x-chaos", "slow")]))
        .await;
    let took = begun.elapsed();
    assert_eq!(body.len(), 40 * 1024);
    assert!(
        took > Duration::from_millis(800) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test]
async fn an_answer_may_take_longer_than_its_endpoint_and_idle_connections_have() {
    let body = "x".repeat(20 * 1024);
    let endpoint = Endpoint::start(move |_, _| {
        let body = body.clone();
        async move { text_answer(200, &body) }
    })
    .await;
    let delay = "delay: { fixed_delay: 0.2s, percentage: { numerator: 100 } }";
    let pace =
        "response_rate_limit: { fixed_limit: { limit_kbps: 8 }, percentage: { numerator: 100 } }";
    let proxy = example("faults.yaml", &endpoint, &[(delay, pace)]).await;
    let sent = proxy.send(request("GET", "/", &[("x-chaos", "slow")]));
    let (_, body) = tokio::time::timeout(Duration::from_secs(20), sent)
        .await
        .expect("it ends");
    assert_eq!(body.len(), 20 * 1024);
}

#[tokio::test]
async fn browsers_are_told_who_may_ask() {
    let endpoint = Endpoint::echo().await;
    let proxy = example("cors.yaml", &endpoint, &[]).await;
    let preflight = [
        ("origin", "https://www.shop.example"),
        ("access-control-request-method", "PUT"),
    ];
    let (head, body) = proxy.send(request("OPTIONS", "/", &preflight)).await;
    assert_eq!((head.status, body.as_str()), (StatusCode::OK, ""));
    assert_eq!(
        head.headers["access-control-allow-origin"],
        "https://www.shop.example"
    );
    assert_eq!(head.headers["access-control-allow-methods"], "GET, PUT");
    assert_eq!(endpoint.requests(), 0);
    let (head, _) = proxy.send(request("GET", "/", &preflight[..1])).await;
    assert_eq!(head.headers["access-control-allow-credentials"], "true");
    assert_eq!(head.headers["access-control-expose-headers"], "x-total");
    let (head, _) = proxy
        .send(request("GET", "/", &[("origin", "https://evil.example")]))
        .await;
    assert_eq!(head.status, StatusCode::OK);
    assert!(!head.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn connections_are_refused_before_a_byte_is_read() {
    let endpoint = Endpoint::echo().await;
    let refused = r#"
- name: access
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
    stat_prefix: access
    rules:
      action: DENY
      policies:
        local: { permissions: [{ any: true }], principals: [{ direct_remote_ip: { address_prefix: 127.0.0.0, prefix_len: 8 } }] }
"#;
    let refused = refused.trim_start().replace('\n', "\n            ");
    let filters = "        - filters:\n            - name: http";
    let with = format!("        - filters:\n            {}- name: http", refused);
    let proxy = example("cors.yaml", &endpoint, &[(filters, &with)]).await;
    assert_eq!(proxy.raw(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await, "");
    assert_eq!(endpoint.requests(), 0);
    assert!(figure(&proxy, "listener.shop.rbac.denied") > 0);
}

#[tokio::test]
async fn faults_come_as_often_as_they_are_to() {
    let endpoint = Endpoint::echo().await;
    let share = "http_status: 503, percentage: { numerator: 100 }";
    let tenth = "http_status: 503, percentage: { numerator: 10 }";
    let proxy = example("faults.yaml", &endpoint, &[(share, tenth)]).await;
    let stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .expect("HTTP");
    tokio::spawn(connection);
    let mut failed = 0;
    for _ in 0..2_000 {
        let asked = request("GET", "/", &[("x-chaos", "fail")]);
        let answer = sender.send_request(asked).await.expect("an answer");
        failed += usize::from(answer.status() == StatusCode::SERVICE_UNAVAILABLE);
        support::read(answer).await;
    }
    // Six standard deviations of a binomial: seldom enough for a test.
    assert!((120..=280).contains(&failed), "{failed}");
}

#[test]
fn a_wrong_field_of_a_filter_is_named() {
    let manager = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    for (name, from, to, error) in [
        (
            "authorization.yaml",
            "request.method in",
            "secrets.key in",
            format!(
                "{manager}.http_filters[0].typed_config.rules.policies[\"writing\"].permissions[0].matcher.typed_config.text: \"secrets\" is not known; request, source, destination, connection can be read"
            ),
        ),
        (
            "authorization.yaml",
            "action: ALLOW",
            "action: MAYBE",
            format!(
                "{manager}.http_filters[0].typed_config.rules.action: \"MAYBE\" is not supported; ALLOW, DENY, LOG is allowed"
            ),
        ),
        (
            "tokens.yaml",
            "{ provider_name: people }",
            "{ provider_name: poeple }",
            format!(
                "{manager}.http_filters[0].typed_config.rules[2].requires.requires_any.requirements[0].provider_name: \"poeple\" is not known; people, programs is allowed"
            ),
        ),
        (
            "tokens.yaml",
            "cluster: login,",
            "cluster: log-in,",
            "static_resources: a filter of the listener \"shop\" sends to the cluster \"log-in\", which is not among the clusters".to_owned(),
        ),
        (
            "external.yaml",
            "timeout: 0.5s",
            "timeout: quick",
            format!(
                "{manager}.http_filters[0].typed_config.grpc_service.timeout: \"quick\" is no duration; seconds such as \"1.5s\" are expected"
            ),
        ),
        (
            "external.yaml",
            "cluster_name: gate }",
            "cluster_name: door }",
            "static_resources: a filter of the listener \"shop\" sends to the cluster \"door\", which is not among the clusters".to_owned(),
        ),
        (
            "shared-rate-limit.yaml",
            "stage: 1",
            "stage: 11",
            format!(
                "{manager}.route_config.virtual_hosts[0].routes[1].route.rate_limits[2].stage: 11 is no number from 0 to 10"
            ),
        ),
        (
            "rate-limit.yaml",
            "max_tokens: 100",
            "max_tokens: 0",
            format!(
                "{manager}.http_filters[0].typed_config.token_bucket.max_tokens: 0 is no number from 1 to 4294967295"
            ),
        ),
        (
            "rate-limit.yaml",
            "fill_interval: 1s",
            "fill_interval: 0.001s",
            format!(
                "{manager}.http_filters[0].typed_config.token_bucket.fill_interval: 1ms is too short; 50ms or more is allowed"
            ),
        ),
        (
            "faults.yaml",
            "until: \"2099-12-31T00:00:00Z\"",
            "until: soon",
            format!(
                "{manager}.http_filters[2].typed_config.until: \"soon\" is no time; RFC 3339 such as \"2026-12-24T18:00:00Z\" is expected"
            ),
        ),
        (
            "faults.yaml",
            "fixed_delay: 0.2s",
            "header_delay: {}",
            format!(
                "{manager}.http_filters[0].typed_config: header_delay, header_abort and header_limit let any caller make things go wrong; fairlead.mesh.v1.Fault with callers allows them"
            ),
        ),
        (
            "cors.yaml",
            "allow_methods: GET, PUT",
            "allow_methods: \"G\\u0007T\"",
            format!(
                "{manager}.route_config.virtual_hosts[0].routes[0].typed_per_filter_config[\"cors\"].allow_methods: \"G\\u{{7}}T\" is no value of a header"
            ),
        ),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/proxy/features");
        let right = std::fs::read_to_string(folder.join(name)).expect("the example is there");
        let broken = right.replacen(from, to, 1);
        assert_ne!(broken, right, "{from}");
        let said = bootstrap(&broken, &|_| Ok(Vec::new()));
        assert_eq!(
            said.map(|_| ()).map_err(|error| error.to_string()),
            Err(error),
            "{to}"
        );
    }
}

#[tokio::test]
async fn a_session_stays_with_its_endpoint() {
    let named =
        |name: &'static str| Endpoint::start(move |_, _| async move { text_answer(200, name) });
    let (one, two) = (named("one").await, named("two").await);
    let port = format!("port_value: {}", two.address.port());
    let changes = [
        ("port_value: 8081", &*port),
        (
            "    - name: shop\n      load",
            "    - name: shop\n      lb_policy: ROUND_ROBIN\n      load",
        ),
    ];
    let proxy = example("session.yaml", &one, &changes).await;
    let (head, first) = proxy.send(request("GET", "/", &[])).await;
    let given = head.headers["set-cookie"]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(
        given.ends_with("; Max-Age=3600; Path=/; HttpOnly"),
        "{given}"
    );
    let cookie = given.split(';').next().expect("a cookie").to_owned();
    for _ in 0..6 {
        let (head, body) = proxy
            .send(request("GET", "/", &[("cookie", &cookie)]))
            .await;
        assert_eq!(body, first);
        assert!(
            !head.headers.contains_key("set-cookie"),
            "it has one already"
        );
    }
    // The endpoint goes: another takes over, and says so.
    let mut left = (**proxy.snapshots.borrow()).clone();
    let gone = if first == "one" {
        one.address
    } else {
        two.address
    };
    let cluster = left.clusters.values().next().expect("a cluster").clone();
    let mut cluster = (*cluster).clone();
    let stays = if gone == one.address {
        two.address
    } else {
        one.address
    };
    cluster.discovery = fairlead_model::cluster::Discovery::Static(
        fairlead_model::cluster::Endpoints::at([stays]).into(),
    );
    left.clusters.insert(cluster.name.clone(), cluster.into());
    proxy.snapshots.send_replace(left.into());
    let asked = async || {
        proxy
            .send(request("GET", "/", &[("cookie", &cookie)]))
            .await
    };
    let mut answer = asked().await;
    for _ in 0..200 {
        if answer.1 != first {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        answer = asked().await;
    }
    assert_ne!(answer.1, first);
    assert!(answer.0.headers.contains_key("set-cookie"));
    // What is no cookie of ours is none.
    let (head, _) = proxy
        .send(request("GET", "/", &[("cookie", "shop-session=x")]))
        .await;
    assert!(head.status == StatusCode::OK && head.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn a_body_may_be_so_long() {
    let endpoint = Endpoint::echo().await;
    let most = [("max_request_bytes: 1048576", "max_request_bytes: 1000")];
    let proxy = example("body-limit.yaml", &endpoint, &most).await;
    let post = |length: usize| {
        let mut post = request("POST", "/", &[]);
        *post.body_mut() = Full::from("x".repeat(length));
        post
    };
    assert_eq!(proxy.send(post(1000)).await.0.status, StatusCode::OK);
    let (head, body) = proxy.send(post(1001)).await;
    assert_eq!(
        (head.status, body.as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, "request_body_too_long")
    );
    assert_eq!(
        endpoint.requests(),
        1,
        "one that says so itself does not get there"
    );
    // One that does not say how long it is is measured.
    let chunk = format!("258\r\n{}\r\n", "x".repeat(0x258));
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    let answer = proxy.raw(chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn expressions_are_bounded_and_one_that_does_not_end_lets_less_through() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/proxy/features");
    let right = std::fs::read_to_string(folder.join("authorization.yaml")).expect("the example");
    let usual = "request.method in ['POST', 'PUT'] && request.headers['x-team'] == 'shop'";
    let deep = format!("{}true{}", "(".repeat(400), ")".repeat(400));
    let long = format!("'{}' == ''", "a".repeat(100_000));
    for (expression, said) in [(deep, "nests deeper than"), (long, "at most")] {
        let broken = right.replacen(usual, &format!("\"{expression}\""), 1);
        let error = bootstrap(&broken, &|_| Ok(Vec::new())).expect_err("refused");
        let error = error.to_string();
        let path = "rules.policies[\"writing\"].permissions[0].matcher.typed_config.text: ";
        assert!(error.contains(path) && error.contains(said), "{error}");
    }
    // Each of these goes over the list for each element of the one around it.
    let list = "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]";
    let endless = ["a", "b", "c", "d", "e", "f"]
        .iter()
        .fold("true".to_owned(), |within, name| {
            format!("{list}.all({name}, {within})")
        });
    let endless = format!("\"{endless}\"");
    let endpoint = Endpoint::echo().await;
    for effect in ["ALLOW", "DENY"] {
        let changes = [
            (usual, endless.as_str()),
            ("action: ALLOW", &format!("action: {effect}")),
        ];
        let proxy = example("authorization.yaml", &endpoint, &changes).await;
        let live = Live::start(proxy.address, "/healthz");
        for _ in 0..20 {
            let begun = Instant::now();
            let (head, _) = proxy.send(request("PUT", "/a", &[])).await;
            assert_eq!(head.status, StatusCode::FORBIDDEN, "{effect}");
            assert!(
                begun.elapsed() < Duration::from_secs(1),
                "{:?}",
                begun.elapsed()
            );
        }
        live.went_well().await;
    }
}
