//! Live requests as a stream of gRPC.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_xds::Shapes;
use fairlead_xds::raw::Raw;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use program::Program;
use serde_json::{Value, json};
use support::{Endpoint, free, read};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const SECRET: &str = "s3cr3t";

/// A proxy before an endpoint that answers with what it gets.
async fn proxy() -> (Program, SocketAddr) {
    let endpoint = Endpoint::start(|request, _| async move {
        let body = request.into_body().collect().await.expect("a body");
        Response::builder()
            .header("set-cookie", format!("id={SECRET}"))
            .body(Full::from(body.to_bytes()))
            .expect("an answer")
    })
    .await;
    let address = free();
    let port = |own: SocketAddr| format!("port_value: {}", own.port());
    let changes = [
        ("port_value: 15001", port(address)),
        ("port_value: 8080", port(endpoint.address)),
        ("port_value: 8081", port(endpoint.address)),
    ];
    (Program::example("session.yaml", &changes).await, address)
}

/// A viewer's client.
async fn client(proxy: &Program) -> tonic::client::Grpc<Channel> {
    let channel = Channel::from_shared(format!("http://{}", proxy.admin)).expect("an address");
    tonic::client::Grpc::new(channel.connect().await.expect("a connection"))
}

/// Opens a view.
async fn watch(
    client: &mut tonic::client::Grpc<Channel>,
    wanted: &Value,
) -> Result<Streaming<Bytes>, Status> {
    let bytes = Shapes::default().bytes("fairlead.mesh.v1.WatchRequest", wanted);
    let request = tonic::Request::new(Bytes::from(bytes.expect("a request")));
    client.ready().await.expect("a connection");
    let path = http::uri::PathAndQuery::from_static("/fairlead.mesh.v1.Tap/Watch");
    let answer = client.server_streaming(request, path, Raw).await?;
    Ok(answer.into_inner())
}

/// The next request that is shown.
async fn next(view: &mut Streaming<Bytes>) -> Value {
    let message = tokio::time::timeout(Duration::from_secs(10), view.message()).await;
    let message = message
        .expect("in time")
        .expect("no failure")
        .expect("more");
    let shown = Shapes::default().json("fairlead.mesh.v1.Trace", &message);
    shown.expect("a trace")
}

async fn send(to: SocketAddr, path: &str, kind: &str, body: impl Into<Bytes>) {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    let request = Request::post(path)
        .header("host", "shop.example")
        .header("authorization", format!("Bearer {SECRET}"))
        .header("x-token", SECRET)
        .header("content-type", kind)
        .body(Full::new(body.into()))
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(read(answer).await.0.status, 200);
}

fn any() -> Value {
    json!({"config_id": "shop", "tap_config": {"match_config": {"any_match": true}}})
}

fn header<'a>(message: &'a Value, name: &str) -> Option<&'a str> {
    let all = message["headers"].as_array()?;
    let found = all.iter().find(|own| own["key"] == name)?;
    found["value"].as_str()
}

#[tokio::test]
async fn viewers_see_what_they_asked_for_as_messages() {
    let (proxy, address) = proxy().await;
    let (mut one, mut other) = (client(&proxy).await, client(&proxy).await);
    let path = json!({"name": ":path", "string_match": {"prefix": "/shop.Cart/"}});
    let wanted = json!({
        "config_id": "shop",
        "tap_config": {
            "match": {"http_request_headers_match": {"headers": [path]}},
            "output_config": {"max_buffered_rx_bytes": 12, "max_buffered_tx_bytes": 100},
        },
        "fairlead": {"redact": ["x-token"]},
    });
    let mut calls = watch(&mut one, &wanted).await.expect("a view");
    let mut all = watch(&mut other, &any()).await.expect("a view");
    send(address, "/other", "text/plain", "a body").await;
    let body = b"\0\0\0\0\x02hi\x01\0\0\0\x05abcde";
    send(address, "/shop.Cart/Add", "application/grpc", &body[..]).await;

    let first = next(&mut all).await;
    assert_eq!(
        header(&first["http_buffered_trace"]["request"], ":path"),
        Some("/other")
    );
    assert_eq!(
        first["http_buffered_trace"]["request"]["body"].get("as_bytes"),
        None
    );
    let second = next(&mut all).await;
    let seen = next(&mut calls).await;
    let (asked, answer) = (
        &seen["http_buffered_trace"]["request"],
        &seen["http_buffered_trace"]["response"],
    );
    for message in [asked, &second["http_buffered_trace"]["request"]] {
        assert_eq!(header(message, ":path"), Some("/shop.Cart/Add"));
        assert_eq!(header(message, "authorization"), Some("[redacted]"));
    }
    assert!(!seen.to_string().contains(SECRET), "{seen}");
    assert_eq!(header(answer, ":status"), Some("200"));
    assert_eq!(header(answer, "set-cookie"), Some("[redacted]"));
    // Of the request no more than was asked for, and how long each message is all the same.
    assert_eq!(asked["body"]["truncated"], true);
    assert_eq!(
        asked["body"]["grpc_messages"],
        json!([{"length": 2, "as_bytes": "aGk="}, {"compressed": true, "length": 5}])
    );
    assert_eq!(
        answer["body"]["grpc_messages"],
        json!([{"length": 2, "as_bytes": "aGk="}, {"compressed": true, "length": 5, "as_bytes": "YWJjZGU="}])
    );
    assert_eq!(seen["fairlead"]["cluster"], "shop");
    assert_eq!(seen["fairlead"]["route"], "all");
}

#[tokio::test]
async fn a_view_ends_with_its_call() {
    let (proxy, address) = proxy().await;
    let mut client = client(&proxy).await;
    let mut views = Vec::new();
    for _ in 0..8 {
        views.push(watch(&mut client, &any()).await.expect("a view"));
    }
    let more = watch(&mut client, &any())
        .await
        .expect_err("there are eight");
    assert_eq!(more.code(), Code::ResourceExhausted, "{more}");
    send(address, "/", "text/plain", "").await;
    for view in &mut views {
        next(view).await;
    }
    drop(views);
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(refused) = watch(&mut client, &any()).await {
        assert!(Instant::now() < until, "{refused}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_viewer_that_does_not_read_slows_nobody() {
    let (proxy, address) = proxy().await;
    let mut client = client(&proxy).await;
    let mut wanted = any();
    wanted["tap_config"]["output_config"] = json!({"max_buffered_rx_bytes": 100_000});
    let mut view = watch(&mut client, &wanted).await.expect("a view");
    let body = "x".repeat(50_000);
    for _ in 0..600 {
        send(address, "/", "text/plain", body.clone()).await;
    }
    // What could not wait is told, once there is room again.
    let mut lost = Value::Null;
    for _ in 0..200 {
        lost = next(&mut view).await["fairlead"]["lost"].clone();
    }
    send(address, "/", "text/plain", "").await;
    while lost.is_null() {
        lost = next(&mut view).await["fairlead"]["lost"].clone();
    }
    assert!(lost.as_u64() > Some(100), "{lost}");
}

#[tokio::test]
async fn a_wrong_question_is_explained() {
    let (proxy, _) = proxy().await;
    let mut client = client(&proxy).await;
    for (change, said) in [
        (
            json!({"config_id": "other"}),
            "config_id: \"other\" is no stat_prefix of an HTTP connection manager; shop is allowed, and nothing for all",
        ),
        (
            json!({"tap_config": {"match_config": {"any_match": true}, "output_config": {"streaming": true}}}),
            "tap_config.output_config.streaming: is not supported; a request is shown once it is over",
        ),
        (
            json!({"fairlead": {"redact": ["no name"]}}),
            "fairlead.redact[0]: ",
        ),
    ] {
        let mut wanted = any();
        for (name, value) in change.as_object().expect("a change") {
            wanted[name] = value.clone();
        }
        let refused = watch(&mut client, &wanted).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(said), "{refused}");
    }
}
