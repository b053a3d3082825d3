//! Whether a service of one's own lets requests in: the example of the feature, with a service over gRPC that answers, hangs and dies.

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::BoolValue;
use envoy_types::pb::google::rpc;
use fairlead_model::cluster::{Cluster, Endpoints, UpstreamProtocol};
use fairlead_model::filter::{Check, Filter, GrpcService, HttpFilter};
use fairlead_model::listener::Handler;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use support::certificates::{Authority, client, server};
use support::features::{example, figure};
use support::live::Live;
use support::{Endpoint, Proxy, free, http_to, listener, proxy, snapshot, text_answer, to, up};
use tokio::net::TcpListener;
use tonic::{Response, Status};

/// What a service was asked, and how it answers.
#[derive(Clone, Default)]
struct Gate {
    asked: Arc<Mutex<Vec<AttributeContext>>>,
}

fn option(
    key: &str,
    value: &str,
    append: Option<bool>,
    action: HeaderAppendAction,
) -> HeaderValueOption {
    #[allow(deprecated, reason = "services still send it")]
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        append: append.map(|value| BoolValue { value }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    }
}

#[tonic::async_trait]
impl Authorization for Gate {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        use HeaderAppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists};
        let attributes = request.into_inner().attributes.expect("attributes");
        let http = http_of(&attributes);
        let how = http.headers.get("x-how").cloned().unwrap_or_default();
        self.asked.lock().expect("no panic").push(attributes);
        let answer = match how.as_str() {
            "slow" => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                CheckResponse::default()
            }
            "error" => return Err(Status::internal("no")),
            "nothing" => CheckResponse::default(),
            "denied" => CheckResponse {
                status: Some(rpc::Status {
                    code: 7,
                    ..rpc::Status::default()
                }),
                http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
                    status: Some(HttpStatus { code: 402 }),
                    headers: vec![
                        option("x-why", "poor", None, AppendIfExistsOrAdd),
                        option("content-type", "text/html", None, AppendIfExistsOrAdd),
                        option("content-length", "1", None, AppendIfExistsOrAdd),
                    ],
                    body: "pay first".to_owned(),
                })),
                ..CheckResponse::default()
            },
            "bare" => CheckResponse {
                status: Some(rpc::Status {
                    code: 7,
                    ..rpc::Status::default()
                }),
                ..CheckResponse::default()
            },
            _ => CheckResponse {
                status: Some(rpc::Status::default()),
                http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
                    headers: vec![
                        option("x-user", "till", None, AppendIfExistsOrAdd),
                        option("x-more", "b", Some(true), AppendIfExistsOrAdd),
                        option("x-kept", "no", None, AddIfAbsent),
                        option("x-none", "no", None, OverwriteIfExists),
                        option("host", "evil.example", None, AppendIfExistsOrAdd),
                    ],
                    headers_to_remove: vec!["x-secret".to_owned(), "host".to_owned()],
                    response_headers_to_add: vec![option(
                        "x-gate",
                        "open",
                        None,
                        AppendIfExistsOrAdd,
                    )],
                    query_parameters_to_set: vec![QueryParameter {
                        key: "a".to_owned(),
                        value: "9".to_owned(),
                    }],
                    query_parameters_to_remove: vec!["b".to_owned()],
                    ..OkHttpResponse::default()
                })),
                ..CheckResponse::default()
            },
        };
        Ok(Response::new(answer))
    }
}

fn http_of(attributes: &AttributeContext) -> HttpRequest {
    let request = attributes.request.clone().expect("a request");
    request.http.expect("HTTP")
}

impl Gate {
    /// Serves on a port.
    async fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let connections = futures::stream::unfold(listener, |listener| async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            Some((Ok::<_, std::io::Error>(stream), listener))
        });
        let own = AuthorizationServer::new(self.clone());
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(own);
            server
                .serve_with_incoming(connections)
                .await
                .expect("it serves");
        });
        port
    }

    fn last(&self) -> AttributeContext {
        let asked = self.asked.lock().expect("no panic");
        asked.last().expect("it was asked").clone()
    }

    fn count(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

/// Answers with what it was asked.
async fn echo() -> Endpoint {
    use http_body_util::BodyExt;
    Endpoint::start(|request, _| async move {
        let (head, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|own| own.to_bytes())
            .unwrap_or_default();
        let mut text = format!("{}\n", head.uri);
        for (name, value) in &head.headers {
            text += &format!("{name}: {}\n", value.to_str().unwrap_or("?"));
        }
        text += &format!(
            "body {} {}",
            body.len(),
            twox_hash::XxHash64::oneshot(0, &body)
        );
        text_answer(200, &text)
    })
    .await
}

async fn start(endpoint: &Endpoint, port: u16, changes: &[(&str, &str)]) -> Proxy {
    let port = format!("port_value: {port}");
    let mut all = vec![("port_value: 8083", port.as_str())];
    all.extend(changes);
    example("external.yaml", endpoint, &all).await
}

async fn ask(
    proxy: &Proxy,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::post(path).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("a request");
    let (head, body) = proxy.send(request).await;
    (head.status, head.headers, body)
}

#[tokio::test]
async fn who_is_let_in_is_changed_as_the_service_says() {
    let (endpoint, gate) = (echo().await, Gate::default());
    let proxy = start(&endpoint, gate.start().await, &[]).await;
    let headers = [
        ("x-secret", "s"),
        ("x-more", "a"),
        ("x-kept", "yes"),
        ("x-user", "root"),
        ("cookie", "id=1"),
    ];
    let (status, answer, text) = ask(&proxy, "/a?a=1&b=2&c=3", &headers, "tea").await;
    assert_eq!(
        (status, &answer["x-gate"]),
        (StatusCode::OK, &"open".parse().expect("a value"))
    );
    assert!(text.starts_with("/a?c=3&a=9\n"), "{text}");
    for expected in [
        "x-user: till\n",
        "x-more: a\n",
        "x-more: b\n",
        "x-kept: yes\n",
        "host: shop.example\n",
        "body 3 ",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    for gone in ["x-secret", "root", "x-none", "evil"] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    let asked = gate.last();
    let http = http_of(&asked);
    assert_eq!(
        (
            http.method.as_str(),
            http.path.as_str(),
            http.host.as_str(),
            http.scheme.as_str()
        ),
        ("POST", "/a?a=1&b=2&c=3", "shop.example", "http")
    );
    assert_eq!(
        (http.body.as_str(), http.size, http.protocol.as_str()),
        ("tea", 3, "HTTP/1.1")
    );
    assert_eq!(http.headers["x-secret"], "s");
    assert_eq!(http.headers[":authority"], "shop.example");
    assert!(
        !http.headers.contains_key("cookie"),
        "it is not to be shown"
    );
    let source = asked.source.expect("a source");
    assert!(source.address.is_some() && source.certificate.is_empty());
    let context = |own: &[(&str, &str)]| -> HashMap<String, String> {
        own.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    assert_eq!(asked.context_extensions, context(&[("shop", "tea")]));

    let (status, ..) = ask(&proxy, "/upload", &[], "tea").await;
    assert_eq!(status, StatusCode::OK);
    let asked = gate.last();
    assert_eq!(
        asked.context_extensions,
        context(&[("part", "upload"), ("shop", "tea")])
    );
    assert_eq!(http_of(&asked).body, "");
    let before = gate.count();
    assert_eq!(ask(&proxy, "/healthz", &[], "").await.0, StatusCode::OK);
    assert_eq!(gate.count(), before, "it is not asked there");
    let figure = |name: &str| figure(&proxy, &format!("http.shop.ext_authz.{name}"));
    assert_eq!((figure("ok"), figure("denied"), figure("error")), (2, 0, 0));
}

#[tokio::test]
async fn long_bodies_are_shown_in_part_and_go_on_whole() {
    let (endpoint, gate) = (echo().await, Gate::default());
    let proxy = start(&endpoint, gate.start().await, &[]).await;
    for length in [1_024, 1_025, 100_000, 3_000_000] {
        let body: Vec<u8> = (0..length)
            .map(|own: u32| b'a' + (own % 25) as u8)
            .collect();
        let hash = twox_hash::XxHash64::oneshot(0, &body);
        let (status, _, text) = ask(&proxy, "/a", &[], body.clone()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            text.ends_with(&format!("body {length} {hash}")),
            "{length}: {text}"
        );
        let http = http_of(&gate.last());
        assert_eq!(http.body.as_bytes(), &body[..1_024]);
        assert_eq!(
            http.headers["x-envoy-auth-partial-body"],
            (length > 1_024).to_string()
        );
    }
    let whole = [("allow_partial_message: true", "pack_as_bytes: true")];
    let proxy = start(&endpoint, gate.start().await, &whole).await;
    let (status, headers, _) = ask(&proxy, "/a", &[], vec![b'a'; 1_025]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        headers["proxy-status"],
        "fairlead; error=request_body_too_long"
    );
    let (status, ..) = ask(&proxy, "/a", &[], vec![0xff; 1_024]).await;
    assert_eq!(
        (status, http_of(&gate.last()).raw_body),
        (StatusCode::OK, vec![0xff; 1_024])
    );
}

#[tokio::test]
async fn who_is_not_let_in_gets_the_answer_of_the_service() {
    let (endpoint, gate) = (echo().await, Gate::default());
    let proxy = start(&endpoint, gate.start().await, &[]).await;
    let (status, headers, body) = ask(&proxy, "/a", &[("x-how", "denied")], "").await;
    assert_eq!((status.as_u16(), body.as_str()), (402, "pay first"));
    assert_eq!(
        (&headers["x-why"], &headers["content-type"]),
        (
            &"poor".parse().expect("a value"),
            &"text/html".parse().expect("a value")
        )
    );
    let (status, _, body) = ask(&proxy, "/a", &[("x-how", "bare")], "").await;
    assert_eq!((status.as_u16(), body.as_str()), (403, ""));
    let grpc = [("x-how", "denied"), ("content-type", "application/grpc")];
    let (status, headers, _) = ask(&proxy, "/shop.Cart/Add", &grpc, "").await;
    assert_eq!(
        (status, headers.contains_key("grpc-status")),
        (StatusCode::OK, true)
    );
    assert_eq!(endpoint.requests(), 0, "who is refused never gets there");
    assert_eq!(figure(&proxy, "http.shop.ext_authz.denied"), 3);
}

#[tokio::test]
async fn a_service_that_fails_hangs_or_is_gone_stalls_nobody() {
    let (endpoint, gate) = (echo().await, Gate::default());
    let strict = start(&endpoint, gate.start().await, &[]).await;
    let passing = [(
        "status_on_error: { code: ServiceUnavailable }",
        "failure_mode_allow: true\n                      failure_mode_allow_header_add: true",
    )];
    let lax = start(&endpoint, gate.start().await, &passing).await;
    for how in ["slow", "error", "nothing"] {
        let begun = Instant::now();
        let (status, headers, _) = ask(&strict, "/a", &[("x-how", how)], "").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{how}");
        assert_eq!(
            headers["proxy-status"],
            "fairlead; error=http_request_denied"
        );
        let (status, _, text) = ask(&lax, "/a", &[("x-how", how)], "tea").await;
        assert_eq!(status, StatusCode::OK, "{how}");
        assert!(
            text.contains("x-envoy-auth-failure-mode-allowed: true\n"),
            "{text}"
        );
        assert!(text.contains("body 3 "), "{text}");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{how}: {:?}",
            begun.elapsed()
        );
    }
    let of = |name: &str| figure(&strict, &format!("http.shop.ext_authz.{name}"));
    assert_eq!((of("error"), of("timeout")), (3, 1));
    assert_eq!(figure(&lax, "http.shop.ext_authz.failure_mode_allowed"), 3);

    // Nobody listens; something that speaks no HTTP/2 does; or somebody who never says anything.
    let garbage = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let ports = [
        free().port(),
        garbage.local_addr().expect("its address").port(),
        silent.local_addr().expect("its address").port(),
    ];
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = garbage.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-nobody\r\n").await;
        }
    });
    for port in ports {
        let begun = Instant::now();
        let proxy = start(&endpoint, port, &[]).await;
        let (status, ..) = ask(&proxy, "/a", &[], "").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(ask(&proxy, "/healthz", &[], "").await.0, StatusCode::OK);
    }
    drop(silent);
}

/// Answers of a service that are none: a head, and a body that goes on like this for so many times.
fn garbage() -> Vec<(&'static str, Vec<u8>, usize)> {
    let framed = |length: u32, bytes: &[u8]| [&[0], &length.to_be_bytes()[..], bytes].concat();
    vec![
        ("text/html", b"<html>".to_vec(), 1),
        ("application/grpc", Vec::new(), 0),
        ("application/grpc", b"\0\0".to_vec(), 1),
        ("application/grpc", framed(7, b"garbage"), 1),
        ("application/grpc", framed(2, &[0x0a, 0x7f]), 1),
        // Compressed, though nobody asked for that.
        ("application/grpc", [&[1][..], &[0, 0, 0, 0]].concat(), 1),
        // Longer than it is, and than anything may be.
        ("application/grpc", framed(100, b"short"), 1),
        ("application/grpc", framed(u32::MAX, b"long"), 1),
        (
            "application/grpc",
            framed(u32::MAX, &[0; 10_000]),
            usize::MAX,
        ),
        ("application/grpc", framed(0, &[]), usize::MAX),
    ]
}

#[tokio::test]
async fn a_service_that_answers_garbage_stalls_nobody() {
    let endpoint = echo().await;
    for (kind, body, times) in garbage() {
        let (of_answer, kind) = (body.clone(), kind.to_owned());
        let service = Endpoint::start(move |_, _| {
            let body = Endless(Bytes::from(of_answer.clone()), times);
            let answer = http::Response::builder().header("content-type", &kind);
            async move { answer.body(body).expect("an answer") }
        })
        .await;
        let proxy = start(&endpoint, service.address.port(), &[]).await;
        let live = Live::start(proxy.address, "/healthz");
        let what = format!("{:?} {times} times", &body[..body.len().min(20)]);
        for _ in 0..3 {
            let begun = Instant::now();
            let (status, ..) = ask(&proxy, "/a", &[], "").await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{what}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{what}");
        }
        assert_eq!(figure(&proxy, "http.shop.ext_authz.error"), 3, "{what}");
        live.went_well().await;
    }
}

/// A body that says the same so many times.
struct Endless(Bytes, usize);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let more = self.1.checked_sub(1).map(|left| {
            self.1 = left;
            Ok(hyper::body::Frame::data(self.0.clone()))
        });
        std::task::Poll::Ready(more)
    }
}

#[tokio::test]
async fn the_service_is_told_who_asks() {
    const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/web";
    const SERVICE: &str = "spiffe://cluster.local/ns/shop/sa/cart";
    let (endpoint, gate, authority) = (echo().await, Gate::default(), Authority::default());
    let port = gate.start().await;
    let tls = server(
        authority.issue(&[SERVICE], |_| {}),
        authority.trust(&[], &[CALLER]),
    );
    let mut http = http_to(to("up"));
    http.filters.push(HttpFilter {
        name: "gate".to_owned(),
        is_disabled: false,
        filter: Filter::Check(Arc::new(Check {
            service: Arc::new(GrpcService {
                cluster: "gate".into(),
                authority: None,
                timeout: Duration::from_secs(5),
            }),
            passes_on_error: false,
            tells_on_error: false,
            status_on_error: StatusCode::FORBIDDEN,
            body: None,
            headers: None,
            not_headers: Vec::new(),
            certificate: true,
            server_name: true,
            enabled: 1_000_000,
            only_if: None,
            denies_others: false,
        })),
    });
    let inner = Proxy::start(|address| {
        let mut own = Cluster::of("gate", Endpoints::at([([127, 0, 0, 1], port).into()]));
        own.protocol = UpstreamProtocol::Http2;
        let listener = listener(address, Handler::Http(Arc::new(http)), Some(tls));
        snapshot(listener, vec![up(&[endpoint.address]), own])
    })
    .await;
    let mut cluster = up(&[inner.address]);
    cluster.protocol = UpstreamProtocol::Http2;
    cluster.tls = Some(client(
        authority.issue(&[CALLER], |_| {}),
        authority.trust(&[], &[SERVICE]),
    ));
    let outer = proxy(http_to(to("up")), cluster).await;
    assert_eq!(outer.get("/a").await.0.status, StatusCode::OK);
    let asked = gate.last();
    let (source, destination) = (asked.source.clone(), asked.destination.clone());
    let source = source.expect("a source");
    assert_eq!(source.principal, CALLER);
    assert!(
        source
            .certificate
            .starts_with("-----BEGIN%20CERTIFICATE-----%0A"),
        "{}",
        source.certificate
    );
    assert_eq!(destination.expect("a destination").principal, SERVICE);
    assert_eq!(http_of(&asked).protocol, "HTTP/2");
}
