//! Live requests, as a viewer sees them.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use program::Program;
use serde_json::{Value, json};
use support::live::Live;
use support::{Endpoint, free, read};
use tokio::net::TcpStream;

const SECRET: &str = "s3cr3t";

async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("an answer")
}

/// A proxy before an endpoint that sets a secret cookie.
async fn proxy(name: &str) -> (Program, SocketAddr) {
    let endpoint = Endpoint::start(|request, _| async move {
        let body = request
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        Response::builder()
            .status(if body.is_empty() { 200 } else { 503 })
            .header("set-cookie", format!("id={SECRET}"))
            .header("x-kind", "tea")
            .body(Full::from(body))
            .expect("an answer")
    })
    .await;
    let types = "type.googleapis.com/envoy.extensions.filters";
    let socket = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let address = free();
    // A token is used where it is good, and never shown.
    let key =
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let tokens = json!({
        "@type": format!("{types}.http.jwt_authn.v3.JwtAuthentication"),
        "providers": {"one": {
            "local_jwks": {"inline_string": json!({"keys": [key]}).to_string()},
            "from_headers": [{"name": "x-jwt"}],
            "from_params": ["jwt"],
        }},
        "rules": [{"match": {"prefix": "/"}, "requires": {"allow_missing_or_failed": {}}}],
    });
    let manager = json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "shop",
        "http_filters": [
            {"name": "tokens", "typed_config": tokens},
            {"name": "router", "typed_config": {"@type": format!("{types}.http.router.v3.Router")}},
        ],
        "route_config": {"name": "shop", "virtual_hosts": [{"name": "shop", "domains": ["*"], "routes": [
            {"name": "all", "match": {"prefix": "/"}, "route": {"cluster": "tea"}},
        ]}]},
    });
    let bootstrap = json!({
        "admin": {"address": socket(free())},
        "static_resources": {
            "listeners": [{"name": "in", "address": socket(address), "filter_chains": [
                {"filters": [{"name": "http", "typed_config": manager}]},
            ]}],
            "clusters": [{"name": "tea", "load_assignment": {"cluster_name": "tea", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": socket(endpoint.address)}}]},
            ]}}],
        },
    });
    (Program::ours(name, &bootstrap).await, address)
}

fn wanted(matches: Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut wanted = json!({
        "config_id": "shop",
        "tap_config": {
            "match_config": matches,
            "output_config": {"sinks": [{"streaming_admin": {}}]},
        },
    });
    change(&mut wanted);
    wanted
}

/// Opens a view.
async fn view(proxy: &Program, wanted: &Value) -> Response<Incoming> {
    let request = Request::post("/tap")
        .header("host", "admin")
        .body(Full::from(wanted.to_string()))
        .expect("a request");
    send(proxy.admin, request).await
}

/// The next request that is shown: a line.
async fn next(view: &mut Response<Incoming>) -> Value {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let frame = tokio::time::timeout(Duration::from_secs(10), view.body_mut().frame());
        let frame = frame.await.expect("in time").expect("more").expect("whole");
        line.extend(frame.into_data().expect("data"));
    }
    // Lines that came together are one after the other.
    let first = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(first).expect("a request is a line")
}

fn request(path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "shop.example")
        .header("authorization", format!("Bearer {SECRET}"))
        .header("x-token", SECRET)
        .header("x-jwt", SECRET)
        .header("x-plain", "seen")
        .body(Full::from(body.to_owned()))
        .expect("a request")
}

fn header<'a>(message: &'a Value, name: &str) -> Option<&'a str> {
    let all = message["headers"].as_array()?;
    let found = all.iter().find(|own| own["key"] == name)?;
    found["value"].as_str()
}

#[tokio::test]
async fn a_viewer_sees_what_it_asked_for_and_no_secret() {
    let (proxy, address) = proxy("tap-sees").await;
    let path = json!({"name": ":path", "string_match": {"prefix": "/watched"}});
    let status = json!({"name": ":status", "string_match": {"exact": "503"}});
    let matches = json!({"and_match": {"rules": [
        {"http_request_headers_match": {"headers": [path]}},
        {"http_response_headers_match": {"headers": [status]}},
    ]}});
    let wanted = wanted(matches, |own| {
        own["tap_config"]["output_config"]["sinks"][0]["format"] = json!("JSON_BODY_AS_STRING");
        own["tap_config"]["output_config"]["max_buffered_rx_bytes"] = json!(4);
        own["tap_config"]["output_config"]["max_buffered_tx_bytes"] = json!(100);
        own["fairlead"] = json!({"redact": ["x-token"]});
    });
    let mut view = view(&proxy, &wanted).await;
    assert_eq!(view.status(), StatusCode::OK);
    read(send(address, request("/other", "body")).await).await;
    read(send(address, request("/watched", "")).await).await;
    let target = format!("/watched?a=1&jwt={SECRET}");
    read(send(address, request(&target, "a body")).await).await;
    let seen = next(&mut view).await;
    let trace = &seen["http_buffered_trace"];
    let (asked, answer) = (&trace["request"], &trace["response"]);
    assert_eq!(header(asked, ":path"), Some("/watched?a=1&jwt=[redacted]"));
    assert_eq!(header(asked, ":method"), Some("POST"));
    assert_eq!(header(asked, "x-plain"), Some("seen"));
    assert_eq!(header(asked, "authorization"), Some("[redacted]"));
    assert_eq!(header(asked, "x-jwt"), Some("[redacted]"));
    assert_eq!(
        asked["body"],
        json!({"truncated": true, "as_string": "a bo"})
    );
    assert_eq!(header(answer, ":status"), Some("503"));
    assert_eq!(header(answer, "x-kind"), Some("tea"));
    assert_eq!(header(answer, "set-cookie"), Some("[redacted]"));
    assert_eq!(
        answer["body"],
        json!({"truncated": false, "as_string": "a body"})
    );
    assert_eq!(seen["fairlead"]["cluster"], "tea");
    assert_eq!(seen["fairlead"]["route"], "all");
    assert!(!seen.to_string().contains(SECRET), "{seen}");
}

#[tokio::test]
async fn a_viewer_ends_when_it_leaves() {
    let (proxy, address) = proxy("tap-ends").await;
    let any = wanted(json!({"any_match": true}), |_| {});
    let mut views = Vec::new();
    for _ in 0..8 {
        views.push(view(&proxy, &any).await);
        assert_eq!(views[views.len() - 1].status(), StatusCode::OK);
    }
    let more = view(&proxy, &any).await;
    assert_eq!(more.status(), StatusCode::TOO_MANY_REQUESTS);
    read(send(address, request("/", "")).await).await;
    for view in &mut views {
        next(view).await;
    }
    drop(views);
    for _ in 0..500 {
        if view(&proxy, &any).await.status() == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("viewers that left are still there");
}

#[tokio::test]
async fn a_viewer_that_does_not_read_slows_nobody() {
    let (proxy, address) = proxy("tap-slow").await;
    let wanted = wanted(json!({"any_match": true}), |own| {
        own["tap_config"]["output_config"]["max_buffered_rx_bytes"] = json!(100_000);
    });
    let mut view = view(&proxy, &wanted).await;
    let live = Live::start(address, "/");
    let body = "x".repeat(50_000);
    for _ in 0..600 {
        let (head, _) = read(send(address, request("/", &body)).await).await;
        assert_eq!(head.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    live.went_well().await;
    // What could not wait is told.
    let mut lost = 0;
    for _ in 0..200 {
        lost = next(&mut view).await["fairlead"]["lost"]
            .as_u64()
            .expect("a number");
    }
    read(send(address, request("/", "")).await).await;
    while lost == 0 {
        lost = next(&mut view).await["fairlead"]["lost"]
            .as_u64()
            .expect("a number");
    }
}

#[tokio::test]
async fn a_wrong_question_is_explained() {
    let (proxy, _) = proxy("tap-wrong").await;
    let asked = async |wanted: Value| {
        let (head, text) = read(view(&proxy, &wanted).await).await;
        assert_eq!(head.status, StatusCode::BAD_REQUEST);
        text
    };
    let any = json!({"any_match": true});
    assert_eq!(
        asked(wanted(any.clone(), |own| own["config_id"] = json!("other"))).await,
        "config_id: \"other\" is no stat_prefix of an HTTP connection manager; shop is allowed, and nothing for all\n"
    );
    let streaming = |own: &mut Value| own["tap_config"]["output_config"]["streaming"] = json!(true);
    assert_eq!(
        asked(wanted(any.clone(), streaming)).await,
        "tap_config.output_config.streaming: is not supported; a request is shown once it is over\n"
    );
    let much = |own: &mut Value| {
        own["tap_config"]["output_config"]["max_buffered_rx_bytes"] = json!(1 << 30)
    };
    assert_eq!(
        asked(wanted(any, much)).await,
        "tap_config.output_config.max_buffered_rx_bytes: 1073741824 is no number from 0 to 1048576\n"
    );
}
