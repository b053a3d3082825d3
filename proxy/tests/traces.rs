//! Which spans a collector gets, and which context endpoints do.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_model::cluster::{Cluster, Endpoints};
use fairlead_model::listener::Handler;
use fairlead_model::trace::{Tag, Tracing, Transport};
use fairlead_proxy::metrics::{Stat, stats};
use fairlead_proxy::trace;
use http::Request;
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use support::{Endpoint, Proxy, http_to, listener, snapshot, text_answer, to, up};
use tonic::{Response, Status};

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0
            .lock()
            .expect("its requests")
            .push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, std::net::SocketAddr) {
        let own = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("its address");
        let service = TraceServiceServer::new(own.clone());
        let incoming = futures::stream::unfold(listener, |listener| async {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        (own, address)
    }

    /// Waits for so many spans, with the service of each.
    async fn spans(&self, count: usize) -> Vec<(String, Span)> {
        for _ in 0..500 {
            let all = spans_of(&self.0.lock().expect("its requests"));
            if all.len() >= count {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.0.lock());
    }
}

fn spans_of(requests: &[ExportTraceServiceRequest]) -> Vec<(String, Span)> {
    requests
        .iter()
        .flat_map(|request| &request.resource_spans)
        .flat_map(|of| {
            let service = of.resource.as_ref().map_or_else(String::new, |resource| {
                attribute(&resource.attributes, "service.name")
            });
            of.scope_spans
                .iter()
                .flat_map(|scope| &scope.spans)
                .map(move |span| (service.clone(), span.clone()))
        })
        .collect()
}

fn attribute(
    attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue],
    name: &str,
) -> String {
    let found = attributes.iter().find(|own| own.key == name);
    match found
        .and_then(|own| own.value.as_ref())
        .and_then(|value| value.value.as_ref())
    {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => "-".to_owned(),
    }
}

fn tracing() -> Tracing {
    Tracing {
        cluster: "collector".into(),
        transport: Transport::Grpc,
        service: "cart".to_owned(),
        random: 1_000_000,
        client: 1_000_000,
        overall: 1_000_000,
        is_client: false,
        upstream_span: false,
        tags: vec![
            ("zone".to_owned(), Tag::Literal("a".to_owned())),
            (
                "tenant".to_owned(),
                Tag::Header {
                    name: "x-tenant".parse().expect("a name"),
                    default: None,
                },
            ),
        ],
    }
}

/// Answers with the trace headers that it was given.
async fn endpoint() -> Endpoint {
    Endpoint::start(|request, _| async move {
        let mut lines: Vec<String> = request
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str().contains("b3") || name.as_str().contains("trace"))
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")))
            .collect();
        lines.sort();
        let status = if request.uri().path() == "/bad" {
            500
        } else {
            200
        };
        text_answer(status, &lines.join("\n"))
    })
    .await
}

/// A proxy whose spans go to a collector.
async fn traced(tracing: Tracing, endpoint: &Endpoint, collector: std::net::SocketAddr) -> Proxy {
    let mut http = http_to(to("up"));
    http.tracing = Some(Arc::new(tracing));
    let collector = Cluster::of("collector", Endpoints::at([collector]));
    let proxy = Proxy::start(|address| {
        let handler = Handler::Http(Arc::new(http));
        snapshot(
            listener(address, handler, None),
            vec![up(&[endpoint.address]), collector],
        )
    })
    .await;
    tokio::spawn(trace::export(
        Arc::clone(&proxy.shared),
        proxy.snapshots.subscribe(),
    ));
    proxy
}

async fn get(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = Request::get(path).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::default()).expect("a request");
    proxy.send(request).await.1
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_request_becomes_a_span_of_its_callers_trace() {
    let (collector, address) = Collector::start().await;
    let endpoint = endpoint().await;
    let proxy = traced(tracing(), &endpoint, address).await;
    let seen = get(
        &proxy,
        "/a?b=c",
        &[
            ("traceparent", PARENT),
            ("tracestate", "own=1"),
            ("x-tenant", "blue"),
        ],
    )
    .await;
    let (service, span) = collector.spans(1).await.remove(0);
    assert_eq!(service, "cart");
    assert_eq!(span.name, "GET all");
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(hex(&span.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(hex(&span.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(
        seen,
        format!(
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01\ntracestate: own=1",
            hex(&span.span_id)
        )
    );
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    for (name, expected) in [
        ("http.method", "GET"),
        ("http.url", "http://shop.example/a?b=c"),
        ("http.status_code", "200"),
        ("upstream_cluster", "up"),
        ("zone", "a"),
        ("tenant", "blue"),
    ] {
        assert_eq!(attribute(&span.attributes, name), expected, "{name}");
    }
    assert_eq!(span.status, None);
}

#[tokio::test]
async fn b3_is_spoken_to_whom_speaks_it_and_a_failure_is_one() {
    let (collector, address) = Collector::start().await;
    let endpoint = endpoint().await;
    let own = Tracing {
        upstream_span: true,
        ..tracing()
    };
    let proxy = traced(own, &endpoint, address).await;
    let seen = get(
        &proxy,
        "/bad",
        &[
            ("x-b3-traceid", "a3ce929d0e0e4736"),
            ("x-b3-spanid", "00f067aa0ba902b7"),
            ("x-b3-sampled", "1"),
        ],
    )
    .await;
    let spans = collector.spans(2).await;
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let (egress, ingress) = (&spans[0].1, &spans[1].1);
    assert_eq!(egress.parent_span_id, ingress.span_id);
    assert!(
        seen.contains(&format!("x-b3-spanid: {}", hex(&egress.span_id)))
            && seen.contains("x-b3-traceid: 0000000000000000a3ce929d0e0e4736")
            && seen.contains("x-b3-parentspanid: 00f067aa0ba902b7")
            && seen.contains("traceparent: 00-"),
        "{seen}"
    );
    assert_eq!(ingress.status.as_ref().map(|status| status.code), Some(2));
}

#[tokio::test]
async fn only_a_share_is_traced_and_who_decided_is_heard() {
    let (collector, address) = Collector::start().await;
    let endpoint = endpoint().await;
    let own = Tracing {
        random: 0,
        ..tracing()
    };
    let proxy = traced(own, &endpoint, address).await;
    for _ in 0..20 {
        assert!(get(&proxy, "/", &[]).await.ends_with("-00"), "not sampled");
    }
    get(
        &proxy,
        "/",
        &[("traceparent", &PARENT.replace("-01", "-00"))],
    )
    .await;
    get(&proxy, "/", &[("traceparent", PARENT)]).await;
    get(&proxy, "/", &[("x-client-trace-id", "1")]).await;
    assert_eq!(collector.spans(2).await.len(), 2);
}

#[tokio::test]
async fn spans_are_posted_over_http_too() {
    let got: Arc<Mutex<Vec<ExportTraceServiceRequest>>> = Arc::default();
    let kept = Arc::clone(&got);
    let collector = Endpoint::start(move |request, _| {
        let kept = Arc::clone(&kept);
        async move {
            assert_eq!(request.uri().path(), "/v1/traces");
            let body = request.into_body().collect().await.expect("a body");
            let message = ExportTraceServiceRequest::decode(body.to_bytes()).expect("a message");
            kept.lock().expect("requests").push(message);
            text_answer(200, "")
        }
    })
    .await;
    let endpoint = endpoint().await;
    let own = Tracing {
        transport: Transport::Http {
            authority: "collector".to_owned(),
            path: "/v1/traces".to_owned(),
        },
        ..tracing()
    };
    let proxy = traced(own, &endpoint, collector.address).await;
    get(&proxy, "/", &[]).await;
    proxy.shared.spans.flush(Duration::from_secs(5)).await;
    assert_eq!(spans_of(&got.lock().expect("requests")).len(), 1);
}

#[tokio::test]
async fn a_dead_collector_stops_no_request() {
    let endpoint = endpoint().await;
    let proxy = traced(tracing(), &endpoint, support::free()).await;
    for _ in 0..50 {
        get(&proxy, "/", &[]).await;
    }
    proxy.shared.spans.flush(Duration::from_secs(10)).await;
    let number = |name: &str| stats(&proxy.shared.figures).get(name).cloned();
    assert_eq!(number("process.spans_failed"), Some(Stat::Number(50)));
    assert_eq!(number("process.spans_sent"), Some(Stat::Number(0)));
}
