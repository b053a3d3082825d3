//! No byte of a secret reaches who watches live requests: many requests, each with secrets wherever one may stand, over connections of
//! both versions of HTTP, their bodies cut into frames anywhere.
//!
//! `FAIRLEAD_TAP_REQUESTS=1000000 cargo test --release -p fairlead-proxy --test leaks -- --nocapture` watches a million of them.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fairlead_xds::Shapes;
use fairlead_xds::raw::Raw;
use fastrand::Rng;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use program::Program;
use serde_json::{Value, json};
use support::{Endpoint, free};
use tokio::net::TcpStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// How many requests are watched where nothing is said.
const USUAL: usize = 5_000;
/// How many connections there are at once.
const CONNECTIONS: u64 = 8;
/// How many requests a connection carries.
const EACH: usize = 50;
/// What may be seen of a body; the secret comes after it.
const SHOWN: &[u8] = b"aaaaaaaaaaaaaa";
/// What may be seen of a body of gRPC: the head of a message, and the message.
const SHOWN_OF_GRPC: &[u8] = b"\0\0\0\0\x09aaaaaaaaa";
/// The content of calls of gRPC.
const GRPC: &str = "application/grpc";
/// The letters of secrets, of which nothing else has one.
const LETTERS: [u8; 2] = *b"QZ";

/// A body of frames that were cut somewhere.
struct Cut(VecDeque<Frame<Bytes>>);

impl Cut {
    /// What may be seen, then a secret, of gRPC in a message of its own; and trailers.
    fn of(random: &mut Rng, is_grpc: bool, trailers: HeaderMap) -> Self {
        let secret = secret(random);
        let length = u8::try_from(secret.len()).expect("it is short");
        let bytes = match is_grpc {
            true => [SHOWN_OF_GRPC, &[0, 0, 0, 0, length], secret.as_bytes()].concat(),
            false => [SHOWN, secret.as_bytes()].concat(),
        };
        let mut bytes = Bytes::from(bytes);
        let mut frames = VecDeque::new();
        while !bytes.is_empty() {
            frames.push_back(Frame::data(bytes.split_to(random.usize(1..=bytes.len()))));
        }
        frames.push_back(Frame::trailers(trailers));
        Self(frames)
    }
}

impl Body for Cut {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

fn secret(random: &mut Rng) -> String {
    let length = random.usize(1..40);
    (0..length)
        .map(|_| char::from(LETTERS[random.usize(0..LETTERS.len())]))
        .collect()
}

/// What a request and its answer have alike: secrets in all headers that hide them, and one header that may be seen.
fn headers(random: &mut Rng) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let names = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "cookie",
        "set-cookie",
        "set-cookie",
        "x-api-key",
        "x-token",
        "x-token",
    ];
    for name in names {
        let value = match name {
            "authorization" | "proxy-authorization" => {
                format!(
                    "{} {}",
                    ["Basic", "Bearer"][random.usize(0..2)],
                    secret(random)
                )
            }
            "cookie" | "set-cookie" => format!("id={}; jwt={}", secret(random), secret(random)),
            _ => secret(random),
        };
        headers.append(name, HeaderValue::try_from(value).expect("a value"));
    }
    headers.insert("x-plain", HeaderValue::from_static("seen"));
    headers
}

fn request(random: &mut Rng, is_h2: bool) -> Request<Cut> {
    let token = secret(random);
    let target = [
        format!("/?jwt={token}"),
        format!("/deep?a=1&jwt={token}&b=2"),
        format!("/?jwt={token}&jwt={token}&access_token={token}"),
        format!("/moved?jwt={token}"),
    ];
    let target = &target[random.usize(0..target.len())];
    let is_grpc = random.bool();
    let mut request = Request::post(match is_h2 {
        true => format!("http://shop.example{target}"),
        false => target.clone(),
    });
    if let Some(own) = request.headers_mut() {
        *own = headers(random);
        own.insert("host", HeaderValue::from_static("shop.example"));
        let token = HeaderValue::try_from(secret(random)).expect("a value");
        own.insert("x-jwt", token);
        let from = HeaderValue::try_from(format!("http://shop.example{target}")).expect("a value");
        own.insert("referer", from);
        if is_grpc {
            own.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
        }
    }
    let trailers = headers(random);
    // A body that a redirect leaves unread ends a connection of HTTP/1.1.
    let body = match !is_h2 && target.starts_with("/moved") {
        true => Cut(VecDeque::new()),
        false => Cut::of(random, is_grpc, trailers),
    };
    request.body(body).expect("a request")
}

/// An endpoint that gets the secrets, and answers with as many.
async fn endpoint() -> Endpoint {
    Endpoint::start(|request: Request<Incoming>, number| async move {
        let names = ["authorization", "cookie", "x-api-key", "x-token"];
        let came = names.map(|name| request.headers().contains_key(name));
        let kind = request.headers().get(CONTENT_TYPE).cloned();
        let body = request.into_body().collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let is_whole = came.iter().all(|came| *came) && body.len() > SHOWN.len();
        let mut random = Rng::with_seed(number as u64);
        let trailers = headers(&mut random);
        let mut response = Response::new(Cut::of(&mut random, kind.is_some(), trailers));
        *response.headers_mut() = headers(&mut random);
        response
            .headers_mut()
            .extend(kind.map(|own| (CONTENT_TYPE, own)));
        if !is_whole {
            *response.status_mut() = http::StatusCode::BAD_REQUEST;
        }
        response
    })
    .await
}

async fn proxy() -> (Program, SocketAddr) {
    let endpoint = endpoint().await;
    let types = "type.googleapis.com/envoy.extensions";
    let socket = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let address = free();
    let key =
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let provider = |from: Value| {
        let mut provider = from;
        provider["local_jwks"] =
            json!({"inline_string": json!({"keys": [key.clone()]}).to_string()});
        provider
    };
    let tokens = json!({
        "@type": format!("{types}.filters.http.jwt_authn.v3.JwtAuthentication"),
        "providers": {
            "usual": provider(json!({})),
            "own": provider(json!({"from_headers": [{"name": "x-jwt"}], "from_params": ["jwt"], "from_cookies": ["jwt"]})),
        },
        "rules": [{"match": {"prefix": "/"}, "requires": {"allow_missing_or_failed": {}}}],
    });
    let manager = json!({
        "@type": format!("{types}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "shop",
        "http_filters": [
            {"name": "tokens", "typed_config": tokens},
            {"name": "router", "typed_config": {"@type": format!("{types}.filters.http.router.v3.Router")}},
        ],
        "route_config": {"name": "shop", "virtual_hosts": [{"name": "shop", "domains": ["*"], "routes": [
            {"name": "moved", "match": {"prefix": "/moved"}, "redirect": {"https_redirect": true}},
            {"name": "all", "match": {"prefix": "/"}, "route": {"cluster": "tea"}},
        ]}]},
    });
    let options = format!("{types}.upstreams.http.v3.HttpProtocolOptions");
    let bootstrap = json!({
        "admin": {"address": socket(free())},
        "static_resources": {
            "listeners": [{"name": "in", "address": socket(address), "filter_chains": [
                {"filters": [{"name": "http", "typed_config": manager}]},
            ]}],
            "clusters": [{
                "name": "tea",
                "load_assignment": {"cluster_name": "tea", "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": socket(endpoint.address)}}]},
                ]},
                // So that trailers travel.
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": options, "explicit_http_config": {"http2_protocol_options": {}},
                }},
            }],
        },
    });
    (Program::ours("leaks", &bootstrap).await, address)
}

/// What a viewer asks for.
fn wanted() -> Value {
    json!({
        "config_id": "shop",
        "tap_config": {
            "match_config": {"any_match": true},
            "output_config": {
                "max_buffered_rx_bytes": SHOWN.len(),
                "max_buffered_tx_bytes": SHOWN.len(),
            },
        },
        "fairlead": {"redact": ["x-token"]},
    })
}

/// Live requests, as one form of a view brings them.
enum View {
    /// In lines, and what came of the next one.
    Lines(Incoming, Vec<u8>),
    /// In messages of gRPC.
    Messages(Streaming<Bytes>, Box<Shapes>),
}

impl View {
    /// The next requests, each as a line of JSON.
    async fn more(&mut self) -> Vec<String> {
        match self {
            Self::Lines(view, line) => {
                let frame = view.frame().await.expect("more").expect("whole");
                line.extend(frame.into_data().expect("data"));
                let end = line.iter().rposition(|own| *own == b'\n');
                let whole: Vec<u8> = line.drain(..end.map_or(0, |end| end + 1)).collect();
                let text = String::from_utf8_lossy(&whole);
                text.lines().map(str::to_owned).collect()
            }
            Self::Messages(view, shapes) => {
                let message = view.message().await.expect("no failure").expect("more");
                let shown = shapes.json("fairlead.mesh.v1.Trace", &message);
                vec![shown.expect("a trace").to_string()]
            }
        }
    }
}

/// Opens a view over gRPC.
async fn grpc_view(proxy: &Program) -> View {
    let shapes = Shapes::default();
    let request = shapes.bytes("fairlead.mesh.v1.WatchRequest", &wanted());
    let request = tonic::Request::new(Bytes::from(request.expect("a request")));
    let channel = Channel::from_shared(format!("http://{}", proxy.admin)).expect("an address");
    let mut client = tonic::client::Grpc::new(channel.connect().await.expect("a connection"));
    client.ready().await.expect("a connection");
    let path = PathAndQuery::from_static("/fairlead.mesh.v1.Tap/Watch");
    let answer = client.server_streaming(request, path, Raw).await;
    View::Messages(answer.expect("a view").into_inner(), Box::new(shapes))
}

/// Opens a view with bodies in this form.
async fn view(proxy: &Program, format: &str) -> View {
    let mut wanted = wanted();
    wanted["tap_config"]["output_config"]["sinks"] =
        json!([{"streaming_admin": {}, "format": format}]);
    let stream = TcpStream::connect(proxy.admin).await.expect("a connection");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let request = Request::post("/tap")
        .header("host", "admin")
        .body(Full::<Bytes>::from(wanted.to_string()))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    View::Lines(response.into_body(), Vec::new())
}

/// What a viewer saw.
#[derive(Debug, Default)]
struct Seen {
    requests: usize,
    lost: u64,
    /// The first lines in which something of a secret stands.
    leaks: Vec<String>,
}

/// Watches so many requests, and tells how many were seen so far; bodies have to look like one of these.
async fn watch(mut view: View, bodies: [&str; 3], most: usize, count: Arc<AtomicUsize>) -> Seen {
    let mut seen = Seen::default();
    while seen.requests < most {
        let more = tokio::time::timeout(Duration::from_secs(60), view.more());
        for line in more.await.expect("in time") {
            seen.take(&line, bodies);
        }
        count.store(seen.requests, Ordering::Relaxed);
    }
    count.store(usize::MAX, Ordering::Relaxed);
    seen
}

impl Seen {
    fn take(&mut self, line: &str, bodies: [&str; 3]) {
        self.requests += 1;
        assert!(line.contains(r#""value":"seen""#), "{line}");
        let is_leak = line.bytes().any(|byte| LETTERS.contains(&byte));
        // A body that was not read at all, as with a redirect, is not shown.
        let mut shown = line.split(r#""as_"#).skip(1);
        let is_other = shown.any(|own| {
            let shown = own.split('"').nth(2).unwrap_or_default();
            !shown.is_empty() && !bodies.contains(&shown)
        });
        if (is_leak || is_other) && self.leaks.len() < 5 {
            self.leaks.push(line.to_owned());
        }
        if let Some((_, lost)) = line.split_once(r#""lost":"#) {
            let end = lost.find(|own: char| !own.is_ascii_digit()).unwrap_or(0);
            self.lost = lost[..end].parse().expect("a number");
        }
    }
}

/// Asks until all viewers have seen enough.
async fn ask(address: SocketAddr, worker: u64, counts: [Arc<AtomicUsize>; 3]) {
    let mut random = Rng::with_seed(worker);
    let is_over = || {
        let mut all = counts.iter();
        all.all(|count| count.load(Ordering::Relaxed) == usize::MAX)
    };
    let is_h2 = worker.is_multiple_of(2);
    while !is_over() {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a connection");
        let io = TokioIo::new(stream);
        if is_h2 {
            let made = http2::handshake(TokioExecutor::new(), io).await;
            let (mut sender, connection) = made.expect("HTTP/2");
            tokio::spawn(connection);
            for _ in 0..EACH {
                let answer = sender.send_request(request(&mut random, true)).await;
                read(answer.expect("an answer")).await;
            }
        } else {
            let (mut sender, connection) = http1::handshake(io).await.expect("HTTP");
            tokio::spawn(connection);
            for _ in 0..EACH {
                sender.ready().await.expect("it goes on");
                let answer = sender.send_request(request(&mut random, false)).await;
                read(answer.expect("an answer")).await;
            }
        }
    }
}

async fn read(response: Response<Incoming>) {
    let status = response.status();
    assert!(status == 200 || status == 301, "{status}");
    let _ = response.into_body().collect().await;
}

#[expect(clippy::print_stdout, reason = "figures are for programs to read")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_a_secret_reaches_a_viewer() {
    let most = std::env::var("FAIRLEAD_TAP_REQUESTS").ok();
    let most = most.map_or(USUAL, |own| own.parse().expect("a number of requests"));
    let (proxy, address) = proxy().await;
    let counts = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    // A body, one of gRPC, and the message in that.
    let text = [
        "aaaaaaaaaaaaaa",
        r"\u0000\u0000\u0000\u0000\taaaaaaaaa",
        "aaaaaaaaa",
    ];
    let bytes = [
        "YWFhYWFhYWFhYWFhYWE=",
        "AAAAAAlhYWFhYWFhYWE=",
        "YWFhYWFhYWFh",
    ];
    let forms = [
        (view(&proxy, "JSON_BODY_AS_STRING").await, text),
        (view(&proxy, "JSON_BODY_AS_BYTES").await, bytes),
        (grpc_view(&proxy).await, bytes),
    ];
    let mut viewers = Vec::new();
    for ((view, bodies), count) in forms.into_iter().zip(&counts) {
        viewers.push(tokio::spawn(watch(view, bodies, most, Arc::clone(count))));
    }
    let workers = (0..CONNECTIONS).map(|own| tokio::spawn(ask(address, own, counts.clone())));
    let workers: Vec<_> = workers.collect();
    let mut all = Vec::new();
    for viewer in viewers {
        all.push(viewer.await.expect("it watches"));
    }
    for worker in workers {
        worker.await.expect("it asks");
    }
    let leaks: Vec<&String> = all.iter().flat_map(|own| &own.leaks).collect();
    let watched: usize = all.iter().map(|own| own.requests).sum();
    let lost: u64 = all.iter().map(|own| own.lost).sum();
    println!("figure tap_requests_watched {watched}");
    println!("figure tap_requests_lost {lost}");
    println!("figure tap_leaks {}", leaks.len());
    assert!(leaks.is_empty(), "{leaks:#?}");
}
