//! Proxies, endpoints and callers for tests, on real sockets.
#![allow(dead_code, reason = "every test uses a part")]

pub mod certificates;
pub mod features;
pub mod live;
mod ports;
pub mod tokens;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::Snapshot;
use fairlead_model::cluster::{Address, Cluster, Endpoints};
use fairlead_model::filter::Overrides;
use fairlead_model::listener::{Chain, ChainMatch, Handler, Http, Listener, Routes, Tcp};
use fairlead_model::route::{
    Action, Forward, HeaderChanges, Route, RouteMatch, RouteTable, VirtualHost,
};
use fairlead_model::tls::ServerTls;
use fairlead_proxy::{Shared, worker};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
#[allow(unused_imports, reason = "every test uses a part")]
pub use ports::{free, free_udp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy that runs until this is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    pub snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.draining.send_replace(true);
    }
}

impl Proxy {
    /// Starts a proxy whose listener is made by `snapshot`, and waits until it takes connections.
    pub async fn start(snapshot: impl FnOnce(SocketAddr) -> Snapshot) -> Self {
        Self::start_at(free(), snapshot).await
    }

    /// The same, at an address.
    pub async fn start_at(
        address: SocketAddr,
        snapshot: impl FnOnce(SocketAddr) -> Snapshot,
    ) -> Self {
        let shared = Shared::new(1);
        let (snapshots, mut received) = watch::channel(Arc::new(snapshot(address)));
        received.mark_changed();
        let own = Arc::clone(&shared);
        std::thread::spawn(move || worker::run(own, received));
        for _ in 0..500 {
            if TcpStream::connect(address).await.is_ok() {
                return Self {
                    address,
                    shared,
                    snapshots,
                };
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the proxy does not listen");
    }

    /// Sends a GET, and reads the answer.
    pub async fn get(&self, path: &str) -> (http::response::Parts, String) {
        let request = Request::get(path)
            .header("host", "shop.example")
            .body(Full::default())
            .expect("a request");
        self.send(request).await
    }

    /// Sends a request over HTTP/1.1 on a connection of its own, and reads the answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> (http::response::Parts, String) {
        let stream = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        read(sender.send_request(request).await.expect("an answer")).await
    }

    /// Sends a request over HTTP/2, and reads the answer with its trailers.
    pub async fn send_h2(
        &self,
        request: Request<Full<Bytes>>,
    ) -> (http::response::Parts, String, Option<http::HeaderMap>) {
        let stream = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("HTTP/2");
        tokio::spawn(connection);
        let (head, body) = sender
            .send_request(request)
            .await
            .expect("an answer")
            .into_parts();
        let body = body.collect().await.expect("a body");
        let trailers = body.trailers().cloned();
        (
            head,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            trailers,
        )
    }

    /// Sends bytes, and reads until the connection ends or nothing more comes for a while.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        stream.write_all(bytes).await.expect("to send");
        drain(&mut stream).await
    }
}

/// What a connection brings until it ends, or is silent for half a second.
pub async fn drain(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(length)) =
        tokio::time::timeout(Duration::from_millis(500), stream.read(&mut buffer)).await
    {
        if length == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// An answer whole.
pub async fn read(response: Response<Incoming>) -> (http::response::Parts, String) {
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (head, String::from_utf8_lossy(&body).into_owned())
}

/// An endpoint that answers with HTTP of either version.
pub struct Endpoint {
    pub address: SocketAddr,
    /// How many requests came.
    pub requests: Arc<AtomicUsize>,
    /// How many connections came.
    pub connections: Arc<AtomicUsize>,
}

impl Endpoint {
    /// Answers each request by `answer`, which is given the request and its number from 0.
    pub async fn start<F, A, B>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>, usize) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (requests, connections) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, taken) = (Arc::clone(&requests), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Else the end of an answer waits for the caller's word that its beginning came.
                stream.set_nodelay(true).expect("a connection");
                taken.fetch_add(1, Ordering::SeqCst);
                let (answer, count) = (answer.clone(), Arc::clone(&count));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(request, count.fetch_add(1, Ordering::SeqCst));
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            requests,
            connections,
        }
    }

    /// Answers with what it was asked: method, path, host and body.
    pub async fn echo() -> Self {
        Self::start(|request, _| async move {
            let (head, body) = request.into_parts();
            let host = head
                .headers
                .get("host")
                .and_then(|host| host.to_str().ok())
                .map(str::to_owned);
            let host = host
                .or_else(|| head.uri.authority().map(ToString::to_string))
                .unwrap_or_default();
            let body = body
                .collect()
                .await
                .map(|body| body.to_bytes())
                .unwrap_or_default();
            let text = format!(
                "{} {} {host} {}",
                head.method,
                head.uri.path_and_query().map_or("", |path| path.as_str()),
                String::from_utf8_lossy(&body)
            );
            text_answer(200, &text)
        })
        .await
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// An answer.
pub fn text_answer(status: u16, text: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::from(text.to_owned()))
        .expect("an answer")
}

/// A route to a cluster.
pub fn to(cluster: &str) -> Forward {
    Forward::to(cluster)
}

/// A route that takes what `matches`.
pub fn route(name: &str, matches: RouteMatch, action: Action) -> Arc<Route> {
    Arc::new(Route {
        name: name.to_owned(),
        matches,
        action,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        filters: Overrides::new(),
    })
}

/// HTTP with these routes for every host.
pub fn http(routes: Vec<Arc<Route>>) -> Http {
    let host = VirtualHost {
        rates: Vec::new(),
        table: Arc::default(),
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        filters: Overrides::new(),
    };
    let table = RouteTable::new("routes", vec![host], false).expect("a table");
    Http::routed("in", Routes::Inline(Arc::new(table)))
}

/// HTTP that sends everything to the cluster `up` in this way.
pub fn http_to(forward: Forward) -> Http {
    http(vec![route(
        "all",
        RouteMatch::default(),
        Action::Forward(Box::new(forward)),
    )])
}

/// A cluster `up` of endpoints.
pub fn up(endpoints: &[SocketAddr]) -> Cluster {
    Cluster::of("up", Endpoints::at(endpoints.iter().copied()))
}

/// A listener at an address.
pub fn listener(address: SocketAddr, handler: Handler, tls: Option<ServerTls>) -> Listener {
    Listener {
        name: "in".to_owned(),
        address: Address::Socket(address),
        takes_ipv4: false,
        binds: true,
        original_destination: false,
        hands_over: false,
        proxy_protocol: false,
        detect: None,
        chains: vec![Chain {
            name: "all".to_owned(),
            matches: ChainMatch::default(),
            tls,
            access: Vec::new(),
            handler,
        }],
        default_chain: None,
        buffer_bytes: 1 << 20,
        logs: Vec::new(),
    }
}

/// A snapshot with one listener and these clusters.
pub fn snapshot(listener: Listener, clusters: Vec<Cluster>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot
        .listeners
        .insert(listener.name.clone(), Arc::new(listener));
    for cluster in clusters {
        snapshot
            .clusters
            .insert(Arc::clone(&cluster.name), Arc::new(cluster));
    }
    snapshot
}

/// A proxy that speaks HTTP in this way to a cluster.
pub async fn proxy(http: Http, cluster: Cluster) -> Proxy {
    Proxy::start(|address| {
        snapshot(
            listener(address, Handler::Http(Arc::new(http)), None),
            vec![cluster],
        )
    })
    .await
}

/// A proxy of bytes to a cluster.
pub async fn tcp_proxy(cluster: Cluster, change: impl FnOnce(&mut Listener)) -> Proxy {
    let tcp = Tcp {
        by_server_name: None,
        name: "tcp".to_owned(),
        clusters: vec![(Arc::clone(&cluster.name), 1)],
        idle: None,
        tunnel: None,
        logs: Vec::new(),
    };
    Proxy::start(|address| {
        let mut listener = listener(address, Handler::Tcp(Arc::new(tcp)), None);
        change(&mut listener);
        snapshot(listener, vec![cluster])
    })
    .await
}
