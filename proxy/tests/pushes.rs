//! What a metrics service is told of the proxy's figures.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::metrics::v3::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use envoy_types::pb::envoy::service::metrics::v3::{StreamMetricsMessage, StreamMetricsResponse};
use fairlead_model::cluster::{Cluster, Endpoints};
use fairlead_proxy::metrics;
use fairlead_xds::{Sink, Sinks};
use program::Program;
use support::features::figure;
use support::{Endpoint, Proxy, free, http_to, listener, snapshot, to, up};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

/// A metrics service that keeps what it is told.
#[derive(Clone, Default)]
struct Service {
    told: Arc<Mutex<Vec<StreamMetricsMessage>>>,
    /// After how many messages a stream is broken off.
    breaks_after: Option<usize>,
    /// Whether it reads nothing.
    is_stuck: bool,
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn stream_metrics(
        &self,
        request: Request<Streaming<StreamMetricsMessage>>,
    ) -> Result<Response<StreamMetricsResponse>, Status> {
        if self.is_stuck {
            std::future::pending::<()>().await;
        }
        let mut messages = request.into_inner();
        let mut count = 0;
        while let Some(message) = messages.message().await? {
            self.told.lock().expect("what it is told").push(message);
            count += 1;
            if self.breaks_after == Some(count) {
                return Err(Status::unavailable("another one takes over"));
            }
        }
        Ok(Response::new(StreamMetricsResponse {}))
    }
}

impl Service {
    async fn start(self, address: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .expect("the port");
        let incoming = futures::stream::unfold(listener, |listener| async {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(MetricsServiceServer::new(self.clone()))
                .serve_with_incoming(incoming),
        );
        self
    }

    /// The values of a figure, one for each message that has it, with its labels.
    fn values(&self, name: &str) -> Vec<(String, f64)> {
        let told = self.told.lock().expect("what it is told");
        let families = told.iter().flat_map(|message| &message.envoy_metrics);
        families
            .filter(|family| family.name() == name)
            .flat_map(|family| &family.metric)
            .map(|metric| {
                let labels: Vec<&str> = metric.label.iter().map(|own| own.value()).collect();
                let number = metric.counter.as_ref().map(|own| own.value());
                let number = number.or(metric.gauge.as_ref().map(|own| own.value()));
                let spread = metric.histogram.as_ref();
                let count = spread.map(|own| own.sample_count() as f64);
                (labels.join(","), number.or(count).unwrap_or(f64::NAN))
            })
            .collect()
    }

    /// Waits until the values of a figure add up to this.
    async fn adds_up(&self, name: &str, to: f64) {
        for _ in 0..1000 {
            let sum: f64 = self.values(name).iter().map(|(_, own)| own).sum();
            if (sum - to).abs() < 0.5 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name}: {:?}", self.values(name));
    }
}

fn sinks(are_deltas: bool) -> Sinks {
    Sinks {
        interval: Duration::from_millis(50),
        node: vec![0x0a, 2, b'm', b'e'],
        all: vec![Sink {
            cluster: "mesh".to_owned(),
            metadata: Vec::new(),
            are_deltas,
            has_labels: true,
        }],
    }
}

/// A proxy that pushes its figures to an address, until what is given back says that it has ended.
async fn pushing(sinks: Sinks, service: SocketAddr) -> (Proxy, watch::Sender<bool>) {
    let endpoint = Endpoint::echo().await;
    let proxy = Proxy::start(|address| {
        let handler = fairlead_model::listener::Handler::Http(Arc::new(http_to(to("up"))));
        let mesh = Cluster::of("mesh", Endpoints::at([service]));
        snapshot(
            listener(address, handler, None),
            vec![up(&[endpoint.address]), mesh],
        )
    })
    .await;
    let has_ended = watch::Sender::new(false);
    tokio::spawn(metrics::push(
        Arc::clone(&proxy.shared),
        sinks,
        proxy.snapshots.subscribe(),
        has_ended.subscribe(),
    ));
    (proxy, has_ended)
}

#[tokio::test]
async fn a_service_is_told_whose_figures_they_are_and_what_changed() {
    let address = free();
    let service = Service::default().start(address).await;
    let (proxy, has_ended) = pushing(sinks(true), address).await;
    for _ in 0..3 {
        proxy.get("/").await;
    }
    service.adds_up("cluster.upstream_rq_total", 3.0).await;
    service.adds_up("cluster.upstream_rq_xx", 3.0).await;
    service.adds_up("cluster.upstream_rq_time", 3.0).await;
    service.adds_up("route.success", 3.0).await;
    assert_eq!(service.values("cluster.upstream_rq_xx")[0].0, "2,up");
    assert_eq!(service.values("route.success")[0].0, "all,up");
    let messages = service.told.lock().expect("what it is told").len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // What nobody asked for changes nothing, but connections that end.
    let later = service.told.lock().expect("what it is told").len();
    assert!(later <= messages + 2, "{messages} {later}");
    proxy.get("/").await;
    has_ended.send_replace(true);
    service.adds_up("cluster.upstream_rq_total", 4.0).await;
    let told = service.told.lock().expect("what it is told");
    let nodes: Vec<Option<&str>> = told
        .iter()
        .map(|own| Some(own.identifier.as_ref()?.node.as_ref()?.id.as_str()))
        .collect();
    assert_eq!(nodes[0], Some("me"));
    assert!(nodes[1..].iter().all(Option::is_none), "{nodes:?}");
}

#[tokio::test]
async fn another_stream_goes_on_where_the_last_one_ended() {
    let address = free();
    let service = Service {
        breaks_after: Some(2),
        ..Service::default()
    }
    .start(address)
    .await;
    let (proxy, _has_ended) = pushing(sinks(true), address).await;
    for _ in 0..4 {
        proxy.get("/").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    service.adds_up("cluster.upstream_rq_total", 4.0).await;
    let told = service.told.lock().expect("what it is told");
    let streams = told.iter().filter(|own| own.identifier.is_some()).count();
    assert!(streams > 1, "{streams}");
    drop(told);
    assert!(figure(&proxy, "process.pushes_failed") > 0);
}

#[tokio::test]
async fn a_service_that_comes_late_is_told_what_there_was() {
    let address = free();
    let (proxy, _has_ended) = pushing(sinks(false), address).await;
    for _ in 0..5 {
        proxy.get("/").await;
    }
    let service = Service::default().start(address).await;
    service.adds_up("cluster.upstream_rq_total", 5.0).await;
}

#[tokio::test]
async fn one_that_reads_nothing_slows_nobody() {
    let address = free();
    Service {
        is_stuck: true,
        ..Service::default()
    }
    .start(address)
    .await;
    let (proxy, _has_ended) = pushing(sinks(true), address).await;
    let begun = Instant::now();
    for _ in 0..200 {
        assert_eq!(proxy.get("/").await.0.status, 200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    // The window of one stream, and no more, is all that was handed over.
    assert!(figure(&proxy, "process.pushes_sent") < 200);
}

#[tokio::test]
async fn the_example_pushes_and_the_last_figures_come_with_the_end() {
    let (address, port) = (free(), free());
    let service = Service::default().start(address).await;
    let at = |address: SocketAddr| format!("port_value: {}", address.port());
    let changes = [
        ("port_value: 15010", at(address)),
        ("port_value: 15001", at(port)),
    ];
    let mut program = Program::example("figures.yaml", &changes).await;
    service.adds_up("listener.downstream_cx_total", 0.0).await;
    let _ = tokio::net::TcpStream::connect(port)
        .await
        .expect("a connection");
    program.stop().await;
    service.adds_up("listener.downstream_cx_total", 1.0).await;
    let told = service.told.lock().expect("what it is told");
    let first = told[0].identifier.as_ref().and_then(|own| own.node.clone());
    let node = first.expect("a node");
    assert_eq!(
        (node.id.as_str(), node.cluster.as_str()),
        ("shop-1", "shop")
    );
    assert_eq!(node.user_agent_name, "fairlead-proxy");
}
