//! How many requests may come in, as a service counts: the example of the feature, with a service over gRPC that counts, hangs and is gone; and
//! local limits by what routes count.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use support::features::{example, figure};
use support::{Endpoint, Proxy, free, text_answer};
use tokio::net::TcpListener;
use tonic::{Response, Status};

/// A service that counts nothing: who says `x-tenant: over` is one too many.
#[derive(Clone, Default)]
struct Limits {
    asked: Arc<Mutex<Vec<RateLimitRequest>>>,
}

/// Descriptors as texts, such as `a=1,b=2`.
fn texts(request: &RateLimitRequest) -> Vec<String> {
    let of =
        |own: &envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor| {
            let entries = own
                .entries
                .iter()
                .map(|own| format!("{}={}", own.key, own.value));
            entries.collect::<Vec<_>>().join(",")
        };
    request.descriptors.iter().map(of).collect()
}

#[tonic::async_trait]
impl RateLimitService for Limits {
    async fn should_rate_limit(
        &self,
        request: tonic::Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let texts = texts(&request).join(" ");
        self.asked.lock().expect("no panic").push(request);
        if texts.contains("tenant=slow") {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        if texts.contains("tenant=error") {
            return Err(Status::internal("no"));
        }
        let code = match texts.contains("tenant=over") {
            true => Code::OverLimit,
            false => Code::Ok,
        };
        let status = |limit_remaining, per_unit, seconds| DescriptorStatus {
            code: code.into(),
            current_limit: Some(RateLimit {
                name: "words".to_owned(),
                requests_per_unit: per_unit,
                unit: 2,
            }),
            limit_remaining,
            duration_until_reset: Some(protobuf::Duration { seconds, nanos: 1 }),
            ..DescriptorStatus::default()
        };
        let header = |key: &str| HeaderValue {
            key: key.to_owned(),
            value: "yes".to_owned(),
            ..HeaderValue::default()
        };
        Ok(Response::new(RateLimitResponse {
            overall_code: match texts.contains("tenant=nothing") {
                true => 0,
                false => code.into(),
            },
            statuses: vec![status(7, 10, 3), status(2, 5, 8)],
            request_headers_to_add: vec![header("x-counted")],
            response_headers_to_add: vec![header("x-limits")],
            ..RateLimitResponse::default()
        }))
    }
}

impl Limits {
    async fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let connections = futures::stream::unfold(listener, |listener| async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            Some((Ok::<_, std::io::Error>(stream), listener))
        });
        let own = RateLimitServiceServer::new(self.clone());
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(own);
            server
                .serve_with_incoming(connections)
                .await
                .expect("it serves");
        });
        port
    }

    /// What it was asked last, and by which domain; it is asked no more.
    fn take(&self) -> Option<(String, Vec<String>)> {
        let last = std::mem::take(&mut *self.asked.lock().expect("no panic")).pop()?;
        Some((last.domain.clone(), texts(&last)))
    }
}

async fn start(endpoint: &Endpoint, port: u16, changes: &[(&str, &str)]) -> Proxy {
    let port = format!("port_value: {port}");
    let mut all = vec![("port_value: 8084", port.as_str())];
    all.extend(changes);
    example("shared-rate-limit.yaml", endpoint, &all).await
}

async fn ask(
    proxy: &Proxy,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::get(path).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    let (head, body) = proxy.send(request).await;
    (head.status, head.headers, body)
}

async fn endpoint() -> Endpoint {
    Endpoint::start(|request, _| async move {
        text_answer(200, &format!("{:?}", request.headers().get("x-counted")))
    })
    .await
}

#[tokio::test]
async fn what_is_counted_is_said_by_routes_and_hosts() {
    let (endpoint, limits) = (endpoint().await, Limits::default());
    let proxy = start(&endpoint, limits.start().await, &[]).await;
    let robot = [("x-tenant", "a"), ("user-agent", "a bot")];
    for (path, headers, expected) in [
        ("/a", &[][..], &["shop=tea,remote_address=127.0.0.1"][..]),
        (
            "/search?q=tea",
            &[("x-tenant", "a")],
            &["destination_cluster=shop,tenant=a"],
        ),
        (
            "/search?x=1&q=tea",
            &robot,
            &[
                "destination_cluster=shop,tenant=a",
                "words=tea,header_match=robot",
            ],
        ),
    ] {
        let (status, answer, body) = ask(&proxy, path, headers).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::OK, "Some(\"yes\")"),
            "{path}"
        );
        assert_eq!(answer["x-limits"], "yes");
        let expected = expected.iter().map(|own| (*own).to_owned()).collect();
        assert_eq!(limits.take(), Some(("shop".to_owned(), expected)), "{path}");
    }
    for path in ["/healthz", "/search"] {
        assert_eq!(ask(&proxy, path, &[]).await.0, StatusCode::OK);
        assert_eq!(limits.take(), None, "{path}: there is nothing to count");
    }
    let (_, headers, _) = ask(&proxy, "/a", &[]).await;
    assert_eq!(
        headers["x-ratelimit-limit"],
        "5, 10;w=60;name=\"words\", 5;w=60;name=\"words\""
    );
    assert_eq!(
        (
            &headers["x-ratelimit-remaining"],
            &headers["x-ratelimit-reset"]
        ),
        (
            &"2".parse().expect("a value"),
            &"9".parse().expect("a value")
        )
    );
    assert_eq!(figure(&proxy, "http.shop.ratelimit.ok"), 4);
}

#[tokio::test]
async fn one_too_many_is_refused() {
    let (endpoint, limits) = (endpoint().await, Limits::default());
    let proxy = start(&endpoint, limits.start().await, &[]).await;
    let (status, headers, body) = ask(&proxy, "/search", &[("x-tenant", "over")]).await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "rate_limited")
    );
    assert_eq!(headers["proxy-status"], "fairlead; error=rate_limited");
    assert_eq!(
        (&headers["retry-after"], &headers["x-limits"]),
        (
            &"9".parse().expect("a value"),
            &"yes".parse().expect("a value")
        )
    );
    assert_eq!(headers["x-ratelimit-remaining"], "2");
    assert_eq!(endpoint.requests(), 0, "who is refused never gets there");
    assert_eq!(figure(&proxy, "http.shop.ratelimit.over_limit"), 1);
    let other = [(
        "domain: shop",
        "domain: shop\n                      rate_limited_status: { code: ServiceUnavailable }\n                      rate_limited_as_resource_exhausted: true",
    )];
    let proxy = start(&endpoint, limits.start().await, &other).await;
    let over = [("x-tenant", "over"), ("content-type", "application/grpc")];
    assert_eq!(
        ask(&proxy, "/search", &over[..1]).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(ask(&proxy, "/search", &over).await.1["grpc-status"], "8");
}

#[tokio::test]
async fn a_service_that_fails_hangs_or_is_gone_stalls_nobody() {
    let (endpoint, limits) = (endpoint().await, Limits::default());
    let lax = start(&endpoint, limits.start().await, &[]).await;
    let deny = [(
        "domain: shop",
        "domain: shop\n                      failure_mode_deny: true",
    )];
    let strict = start(&endpoint, limits.start().await, &deny).await;
    for tenant in ["slow", "error", "nothing"] {
        let begun = Instant::now();
        let tenant = [("x-tenant", tenant)];
        assert_eq!(
            ask(&lax, "/search", &tenant).await.0,
            StatusCode::OK,
            "{tenant:?}"
        );
        let (status, ..) = ask(&strict, "/search", &tenant).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{tenant:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{tenant:?}: {:?}",
            begun.elapsed()
        );
    }
    assert_eq!(figure(&lax, "http.shop.ratelimit.failure_mode_allowed"), 3);
    assert_eq!(figure(&strict, "http.shop.ratelimit.error"), 3);
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    for port in [
        free().port(),
        silent.local_addr().expect("its address").port(),
    ] {
        let proxy = start(&endpoint, port, &[]).await;
        let begun = Instant::now();
        for _ in 0..5 {
            assert_eq!(ask(&proxy, "/a", &[]).await.0, StatusCode::OK);
        }
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn local_limits_count_what_routes_say() {
    let endpoint = endpoint().await;
    let of_filter = "                      rate_limits:
                        - actions:
                            - request_headers: { header_name: x-tenant, descriptor_key: tenant }
";
    let of_route = "route:
                            cluster: shop
                            rate_limits: [{ actions: [{ request_headers: { header_name: x-tenant, descriptor_key: tenant } }] }]";
    let changes = [(of_filter, ""), ("route: { cluster: shop }", of_route)];
    let proxy = example("rate-limit.yaml", &endpoint, &changes).await;
    let mut passed = 0;
    for _ in 0..7 {
        let (status, ..) = ask(&proxy, "/", &[("x-tenant", "a")]).await;
        passed += usize::from(status == StatusCode::OK);
    }
    assert!((5..7).contains(&passed), "{passed}");
    assert_eq!(
        ask(&proxy, "/", &[("x-tenant", "b")]).await.0,
        StatusCode::OK
    );
}
