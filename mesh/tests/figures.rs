//! Who asks for live figures is told what all replicas know, and nothing of what is not to be seen.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fairlead_mesh::facts::{Endpoint, Facts, Slice};
use fairlead_mesh::figures::{Called, Caller, Sum};
use fairlead_xds::figures::{By, TOP, TopRequest, TopResponse};
use fairlead_xds::raw::Raw;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use support::{Control, SYSTEM};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint as Target};
use tonic::{Code, Request, Status};

const LIFE: Duration = Duration::from_secs(3600);

/// Makes a call of somebody without a certificate, with a token where one is given.
async fn call(
    control: &Control,
    path: &'static str,
    token: Option<&str>,
    message: Vec<u8>,
) -> Result<Bytes, Status> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(control.slots.bundle().as_bytes()) {
        roots.add(root.expect("a certificate")).expect("a root");
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (config, address) = (TlsConnector::from(Arc::new(config)), control.address);
    let open = tower::service_fn(move |_| {
        let config = config.clone();
        async move {
            let name = ServerName::try_from("fairlead-mesh.fairlead-system.svc").expect("a name");
            let stream = TcpStream::connect(address).await?;
            config.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let channel: Channel = Target::from_static("http://mesh")
        .connect_with_connector(open)
        .await
        .expect("it is there");
    let mut request = Request::new(Bytes::from(message));
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", bearer);
    }
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("it is there");
    let path = PathAndQuery::from_static(path);
    grpc.unary(request, path, Raw)
        .await
        .map(tonic::Response::into_inner)
}

async fn top(control: &Control, token: &str, request: TopRequest) -> Result<TopResponse, Status> {
    let answer = call(control, TOP, Some(token), request.encode_to_vec()).await?;
    Ok(TopResponse::decode(answer).expect("an answer"))
}

fn request(by: By, namespace: &str) -> TopRequest {
    TopRequest {
        seconds: 0,
        by: by.into(),
        namespace: namespace.to_owned(),
    }
}

/// Rows as text: caller, service, successes, failures.
fn rows(told: &TopResponse) -> Vec<String> {
    let text = |row: &fairlead_xds::figures::Row| {
        let pair = &row.pair;
        format!(
            "{}/{} {}/{}:{} {} {}",
            pair.caller_namespace,
            pair.caller,
            pair.namespace,
            pair.service,
            pair.port,
            row.successes,
            row.failures
        )
    };
    told.rows.iter().map(text).collect()
}

/// Lets a replica know of requests: by the caller's namespace and the service's, successes and failures.
fn count(control: &Control, from: &str, to: &str, (successes, failures): (u64, u64)) {
    let mut sum = Sum {
        successes,
        failures,
        ..Sum::default()
    };
    sum.took(10.0, successes + failures);
    let caller = Caller {
        namespace: from.into(),
        workload: "web".into(),
    };
    let called = Called {
        namespace: to.into(),
        service: "cart".into(),
        port: 80,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is later").as_secs();
    control
        .figures
        .add(&BTreeMap::from([((caller, called), sum)]), now);
}

/// The endpoints of the control plane.
fn replicas(addresses: &[SocketAddr]) -> Facts {
    let mut facts = Facts::default();
    let slices = facts
        .slices
        .entry((SYSTEM.into(), "fairlead-mesh".into()))
        .or_default();
    for address in addresses {
        let slice = Slice {
            ports: vec![("grpc".into(), address.port())],
            endpoints: vec![Endpoint {
                address: address.ip(),
                is_ready: true,
                zone: "".into(),
                pod: None,
            }],
        };
        slices.insert(address.to_string().into(), Arc::new(slice));
    }
    facts
}

#[tokio::test]
async fn all_replicas_are_added_up() {
    let near = Control::start(LIFE).await;
    let far = Control::with(near.slots.clone(), LIFE).await;
    near.tell(&replicas(&[near.address, far.address]));
    count(&near, "shop", "shop", (3, 0));
    count(&far, "shop", "shop", (1, 2));
    count(&far, "bank", "shop", (4, 0));
    count(&far, "shop", "", (5, 1));
    let told = top(&near, "shop/viewer", request(By::Destination, "shop")).await;
    assert_eq!(
        rows(&told.expect("it may see the shop")),
        ["shop/web /cart:80 5 1"]
    );
    let told = top(&near, "shop/viewer", request(By::Service, "shop")).await;
    let told = told.expect("it may see the shop");
    assert_eq!(rows(&told), ["/ shop/cart:80 8 2"]);
    assert_eq!((told.seconds, told.replicas, told.missing), (30, 2, 0));
    let p50 = told.rows[0].p50.expect("times are known");
    assert!((5.0..=10.0).contains(&p50), "{p50}");

    // What one of them knows alone is said to be not all.
    let gone = SocketAddr::from(([127, 0, 0, 1], 1));
    near.tell(&replicas(&[near.address, gone]));
    let told = top(&near, "shop/viewer", request(By::Pair, "shop")).await;
    let told = told.expect("it may see the shop");
    assert_eq!(rows(&told), ["shop/web shop/cart:80 3 0"]);
    assert_eq!((told.replicas, told.missing), (1, 1));
}

#[tokio::test]
async fn nobody_sees_what_is_of_others() {
    let control = Control::start(LIFE).await;
    count(&control, "shop", "shop", (1, 0));
    count(&control, "shop", "bank", (2, 0));
    count(&control, "bank", "bank", (3, 0));
    count(&control, "mail", "mail", (4, 0));
    let all = |by| request(by, "");
    for (token, asked, expected) in [
        ("bank/viewer", all(By::Service), vec!["/ bank/cart:80 5 0"]),
        ("bank/viewer", all(By::Workload), vec!["bank/web /:0 3 0"]),
        (
            "bank/viewer",
            all(By::Pair),
            vec!["bank/web bank/cart:80 3 0", "shop/web bank/cart:80 2 0"],
        ),
        (
            "fairlead-system/figures",
            all(By::Workload),
            vec!["bank/web /:0 3 0", "mail/web /:0 4 0", "shop/web /:0 3 0"],
        ),
    ] {
        let told = top(&control, token, asked).await;
        assert_eq!(rows(&told.expect("it may see some")), expected, "{token}");
    }
    for (token, namespace, code, message) in [
        (
            "bank/viewer",
            "shop",
            Code::PermissionDenied,
            "the service account bank/viewer may not get services in shop",
        ),
        (
            "else/viewer",
            "",
            Code::PermissionDenied,
            "the service account else/viewer may not get services in any namespace",
        ),
        (
            "nonsense",
            "shop",
            Code::Unauthenticated,
            "the token is not valid for figures.mesh.fairlead.dev",
        ),
    ] {
        let told = top(&control, token, request(By::Service, namespace)).await;
        let status = told.expect_err("it is refused");
        assert_eq!((status.code(), status.message()), (code, message));
    }
    let none = call(&control, TOP, None, Vec::new()).await;
    assert_eq!(
        none.expect_err("it has no token").code(),
        Code::Unauthenticated
    );
    // What a replica has is for replicas, not for whoever has a token.
    let part = "/fairlead.mesh.v1.Replicas/Figures";
    let part = call(&control, part, Some("fairlead-system/figures"), Vec::new()).await;
    assert_eq!(
        part.expect_err("it is no replica").code(),
        Code::Unimplemented
    );
}

#[tokio::test]
async fn nonsense_is_refused_with_what_is_allowed() {
    let control = Control::start(LIFE).await;
    let long = TopRequest {
        seconds: 3601,
        ..TopRequest::default()
    };
    let odd = TopRequest {
        by: 7,
        ..TopRequest::default()
    };
    for (request, expected) in [
        (long, "seconds: found 3601; at most 3600 is allowed"),
        (
            odd,
            "by: found 7; SERVICE, PAIR, WORKLOAD or DESTINATION is allowed",
        ),
    ] {
        let status = top(&control, "fairlead-system/figures", request).await;
        let status = status.expect_err("it is refused");
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, expected)
        );
    }
}
