//! Shares and matches of routes, as the mesh writes them: no policy says them, so what is told here is made by hand, in plain text.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use fairlead_model::cluster::{Cluster, Discovery, Endpoint, Endpoints, Locality};
use fairlead_model::listener::{Http, Routes};
use fairlead_model::route::{
    Action, Forward, HeaderChanges, PathMatch, Route, RouteMatch, RouteTable, VirtualHost,
    WeightedCluster,
};
use fairlead_xds::raw::Raw;
use fairlead_xds::serve::{Dialect, Resource, Resources, Stream, View};
use fairlead_xds::{Kind, Shapes, write};
use futures::Stream as Answers;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use crate::program::{Client, Server, is_left_out};
use crate::{answered, calls, is_about, until};

const STATE: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// A control plane that tells everybody the same.
#[derive(Clone)]
struct Plain(View);

impl StreamingService<Bytes> for Plain {
    type Response = Bytes;
    type ResponseStream = std::pin::Pin<Box<dyn Answers<Item = Result<Bytes, Status>> + Send>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (view, mut requests) = (self.0.clone(), request.into_inner());
        let (sender, mut receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut told = Stream::new(Dialect::State);
            while let Ok(Some(request)) = requests.message().await {
                let heard = told.take(&request).expect("a request");
                assert_eq!(heard.refused, None);
                for response in told.tell(&view) {
                    let _ = sender.send(Ok(response.into())).await;
                }
            }
        });
        let answers = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        Box::pin(async move { Ok(Response::new(Box::pin(answers) as Self::ResponseStream)) })
    }
}

async fn serve(view: View) -> SocketAddr {
    let answer = |State(plain): State<Plain>, request: http::Request<Body>| async move {
        Grpc::new(Raw).streaming(plain, request).await
    };
    let router = Router::new().route(STATE, post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let serving = axum::serve(listener, router.with_state(Plain(view)));
    tokio::spawn(std::future::IntoFuture::into_future(serving));
    address
}

/// A service whose method Admin goes to one cluster, and all else by shares to two.
fn view(servers: &[(&'static str, &Server)]) -> View {
    let (shapes, mut all) = (Shapes::default(), Resources::default());
    let mut put = |kind, name: &str, value| {
        let resource = Resource::of(&shapes, kind, &value).expect("it is one");
        all.put(kind, name, resource);
    };
    for (name, server) in servers {
        let cluster = Cluster {
            discovery: Discovery::Eds((*name).to_owned()),
            ..Cluster::of(name, Endpoints::default())
        };
        put(Kind::Cluster, name, write::cluster(&cluster));
        let locality = Locality {
            weight: Some(1),
            endpoints: vec![Endpoint::at(server.address)],
            ..Locality::default()
        };
        let endpoints = Endpoints {
            localities: vec![locality],
            ..Endpoints::default()
        };
        put(Kind::Endpoints, name, write::endpoints(name, &endpoints));
    }
    let route = |path: PathMatch, forward: Forward| {
        Arc::new(Route {
            name: String::new(),
            matches: RouteMatch {
                path,
                ..RouteMatch::default()
            },
            action: Action::Forward(Box::new(forward)),
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            filters: Default::default(),
        })
    };
    let shared = |name: &str, weight| WeightedCluster {
        weight,
        ..WeightedCluster::only(name)
    };
    let rest = Forward {
        clusters: vec![shared("most", 80), shared("few", 20)],
        ..Forward::to("most")
    };
    let admin = PathMatch::Exact("/shop.Cart/Admin".into());
    let host = VirtualHost {
        name: "cart".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![
            route(admin, Forward::to("admin")),
            route(RouteMatch::default().path, rest),
        ],
        ..VirtualHost::default()
    };
    let table = RouteTable::new("cart", vec![host], false).expect("routes");
    let http = Http::routed("cart", Routes::Inline(Arc::new(table)));
    put(Kind::Listener, "cart", write::api_listener("cart", &http));
    View::of(vec![Arc::new(all)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_shared_and_methods_go_where_routes_say() {
    if is_left_out() {
        return;
    }
    let names = ["most", "few", "admin"];
    let servers = names.map(Server::start);
    let servers: Vec<_> = names.into_iter().zip(&servers).collect();
    let address = serve(view(&servers)).await;
    let own = json!({
        "xds_servers": [{
            "server_uri": address.to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {"id": "web"},
    });
    let file = std::env::temp_dir().join(format!("fairlead-grpc-routes-{}", std::process::id()));
    std::fs::write(&file, own.to_string()).expect("a file");
    let mut client = Client::start("xds:///cart", "plain", &file);
    let some = json!({"method": "/shop.Cart/Get", "count": 20});
    until(&mut client, &some, |own| own.answers.len() == 2);
    let ended = client.call("Get", calls());
    assert!(ended.codes.is_empty(), "{ended:?}");
    assert!(is_about(answered(&ended, "few"), calls(), 0.2), "{ended:?}");
    let ended = client.call("Admin", 20);
    assert_eq!(answered(&ended, "admin"), 20, "{ended:?}");
    std::fs::remove_file(&file).expect("it is ours");
}
