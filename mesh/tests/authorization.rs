//! MeshAuthorizations between two pods, through their proxies: who is let in, who is told what, and what is counted.

mod support;

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fairlead_mesh::facts::{Facts, Spoken};
use fairlead_proxy::Shared;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use support::Control;
use support::place::{Place, USER, authorized, bridge, cluster, figure, shop};

const PATIENCE: Duration = Duration::from_secs(10);

/// Two pods, web and cart, with their proxies.
struct Shop {
    control: Control,
    place: Arc<Place>,
    /// The proxy of the cart.
    far: Arc<Shared>,
    near: Arc<Shared>,
}

impl Shop {
    async fn open(facts: &Facts) -> Self {
        let control = Control::start(Duration::from_secs(3600)).await;
        control.tell(facts);
        let place = Place::new();
        let path: PathBuf = place.folder.join("control");
        bridge(&path, &control);
        place.application(8080, shop);
        let start = |place: &Place, number: usize, name: &str| {
            let address = json!({"pipe": {"path": path}});
            let bootstrap = control.bootstrap(("shop", name), &place.folder, address);
            place.proxy(number, bootstrap.to_string())
        };
        let (near, far) = (start(&place, 0, "web"), start(&place, 1, "cart"));
        Self {
            control,
            place: Arc::new(place),
            far,
            near,
        }
    }

    /// What the web is answered by the cart, once that begins with a status.
    async fn answer(&self, head: &str, status: u16) -> String {
        self.asked(&format!("{head}\r\nhost: cart"), status).await
    }

    /// The same, where the host is one of the headers.
    async fn asked(&self, head: &str, status: u16) -> String {
        let request = format!("{head}\r\nconnection: close\r\n\r\n");
        let wanted = format!("HTTP/1.1 {status}");
        let place = Arc::clone(&self.place);
        let asked = tokio::task::spawn_blocking(move || {
            let answer = place.answer("10.96.0.1:80", &request, &wanted);
            assert!(answer.starts_with(&wanted), "{answer}");
            answer
        });
        asked.await.expect("it ran")
    }

    /// Waits until a figure of the cart's proxy is at least so high.
    async fn counted(&self, name: &str, least: i128) {
        let begun = Instant::now();
        while figure(&self.far, name) < least {
            let found = figure(&self.far, name);
            assert!(begun.elapsed() < PATIENCE, "{name}: {found}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn close(self) {
        for shared in [self.near, self.far] {
            shared.draining.send_replace(true);
        }
    }
}

fn facts() -> Facts {
    cluster(&[("cart", 1, 80, 8080, Spoken::Http, true)])
}

fn cart() -> Value {
    json!([{"kind": "Service", "name": "cart"}])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_counted_lets_everybody_in_and_is_known_by_its_name() {
    let carts = json!([{"to": {"paths": ["/carts/*"]}}]);
    let watch = json!({"targetRefs": cart(), "action": "Audit", "rules": carts});
    let strict =
        json!({"targetRefs": cart(), "action": "Deny", "enforcement": "DryRun", "rules": carts});
    let all = [("watch", watch), ("strict", strict)];
    let shop = Shop::open(&authorized(facts(), &all)).await;
    shop.answer("GET / HTTP/1.1", 200).await;
    for _ in 0..3 {
        shop.answer("GET /carts/1 HTTP/1.1", 200).await;
    }
    shop.counted("rules.watch.audited", 3).await;
    shop.counted("rules.strict.shadow_denied", 3).await;
    assert_eq!(figure(&shop.far, "rules.watch.audited"), 3);
    // The control plane knows within seconds.
    let begun = Instant::now();
    let known = |name: &str| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let judged = shop
            .control
            .figures
            .judged(now.expect("it is later").as_secs());
        judged.get(&("shop".into(), name.into())).copied()
    };
    while (known("watch"), known("strict")) != (Some(3), Some(3)) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", known("watch"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shop.close();
}

/// Who says so is the janitor, of the issuer programs, for internal; signed with the key of RFC 8037.
const JANITOR: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6Im9uZSJ9.eyJpc3MiOiJwcm9ncmFtcyIsInN1YiI6Imphbml0b3IiLCJhdWQiOiJpbnRlcm5hbCJ9.l7SisXRaZJS-12yBPeh7fDQQEv2zJnWnZHpPe5D_S9LxDUwnVbVfHR7G8ADnPdvYBqP2PtXsTHYFbfpL830gAA";
const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn with_token(head: &str, token: &str) -> String {
    format!("{head}\r\nauthorization: Bearer {token}")
}

/// An authorization of programs, whose keys are found so.
fn programs(jwks: Value, rules: Value) -> Value {
    json!({
        "targetRefs": cart(),
        "jwt": {"issuers": [{"issuer": "programs", "audiences": ["internal"], "jwks": jwks}]},
        "rules": rules,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_token_is_told_so_and_who_has_one_comes_in_by_what_it_says() {
    let rules = json!([
        {"claims": [{"path": ["sub"], "values": ["janitor"]}], "to": {"methods": ["GET"]}},
        {"from": {"principals": ["programs/jan*"]}, "to": {"paths": ["/rooms/*"]}},
    ]);
    let spec = programs(json!({"inline": KEYS}), rules);
    let shop = Shop::open(&authorized(facts(), &[("people", spec)])).await;
    shop.answer("GET / HTTP/1.1", 401).await;
    shop.answer(&with_token("GET / HTTP/1.1", JANITOR), 200)
        .await;
    shop.answer(&with_token("DELETE / HTTP/1.1", JANITOR), 403)
        .await;
    shop.answer(&with_token("DELETE /rooms/1 HTTP/1.1", JANITOR), 200)
        .await;
    let broken = format!("{}A", &JANITOR[..JANITOR.len() - 1]).replace("l7Si", "l7Sj");
    shop.answer(&with_token("GET / HTTP/1.1", &broken), 401)
        .await;

    // Where somebody comes in without a token, who has none is only refused.
    let spec = programs(json!({"inline": KEYS}), json!([{}]));
    let own = json!({"targetRefs": cart(), "rules": [{"from": {"serviceAccounts": ["shop/web"]}, "to": {"paths": ["/web"]}}]});
    let both = [("people", spec), ("web", own)];
    shop.control.tell(&authorized(facts(), &both));
    shop.answer("GET / HTTP/1.1", 403).await;
    shop.answer("GET /web HTTP/1.1", 200).await;
    shop.answer(&with_token("GET / HTTP/1.1", JANITOR), 200)
        .await;
    shop.close();
}

/// Answers one request over TLS with the keys.
fn keys(config: &Arc<rustls::ServerConfig>, mut stream: TcpStream) -> io::Result<()> {
    let connection = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream_of_tls = rustls::StreamOwned::new(connection, &mut stream);
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut part = [0; 1024];
        match stream_of_tls.read(&mut part)? {
            0 => return Ok(()),
            read => asked.extend_from_slice(&part[..read]),
        }
    }
    let length = KEYS.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{KEYS}");
    stream_of_tls.write_all(head.as_bytes())?;
    stream_of_tls.conn.send_close_notify();
    stream_of_tls.flush()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_fetched_from_whom_the_authorization_trusts() {
    let shop = Shop::open(&facts()).await;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into(),
        )
        .expect("a configuration");
    let config = Arc::new(config);
    shop.place
        .application(8443, move |stream| keys(&config, stream));
    let jwks = json!({"uri": "https://localhost:8443/keys", "ca": made.cert.pem()});
    let spec = programs(jwks, json!([{}]));
    shop.control.tell(&authorized(facts(), &[("people", spec)]));
    shop.answer("GET / HTTP/1.1", 401).await;
    shop.answer(&with_token("GET / HTTP/1.1", JANITOR), 200)
        .await;
    shop.close();
}

/// Lets in who asks for `/open`, and nobody else, as a service of external authorization.
async fn gate(body: axum::body::Bytes) -> axum::response::Response {
    let is_open = body.windows(5).any(|part| part == b"/open");
    let shows = |header: &[u8]| body.windows(header.len()).any(|part| part == header);
    assert!(
        shows(b"x-user") && !shows(b"x-secret"),
        "only what is named"
    );
    let code: &[u8] = if is_open {
        &[0x0a, 0]
    } else {
        &[0x0a, 2, 0x08, 7]
    };
    let length = u8::try_from(code.len()).expect("it is short");
    let message = [&[0, 0, 0, 0, length], code].concat();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let body = http_body_util::Full::from(message).with_trailers(async move { Some(Ok(trailers)) });
    http::Response::builder()
        .header("content-type", "application/grpc")
        .body(axum::body::Body::new(body))
        .expect("a response")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_ones_own_is_asked_over_mutual_tls() {
    let mut facts = cluster(&[
        ("cart", 1, 80, 8080, Spoken::Http, true),
        ("gate", 9, 9000, 9000, Spoken::Http2, true),
    ]);
    // It runs in the other pod.
    let slices = facts.slices.get_mut(&("shop".into(), "gate".into()));
    let slice = slices
        .and_then(|own| own.get_mut("s"))
        .expect("it is there");
    let endpoint = &mut Arc::make_mut(slice).endpoints[0];
    endpoint.address = [10, 79, 0, 1].into();
    endpoint.pod = Some(("shop".into(), "web-1".into()));
    let spec = json!({
        "targetRefs": cart(),
        "rules": [{"from": {"serviceAccounts": ["shop/web"]}, "to": {"paths": ["/open", "/closed"]}}],
        "external": {"service": {"name": "gate", "port": 9000}, "timeout": "5s", "headers": ["x-user"]},
    });
    // Of what another lets in, nobody is asked.
    let free = json!({"targetRefs": cart(), "rules": [{"to": {"paths": ["/free"]}}]});
    let told = |spec: &Value| {
        let all = [("free", free.clone()), ("gated", spec.clone())];
        authorized(facts.clone(), &all)
    };
    let shop = Shop::open(&told(&spec)).await;
    // Nobody answers yet.
    shop.answer("GET /open HTTP/1.1\r\nx-user: jane", 503).await;
    shop.answer("GET /free HTTP/1.1", 200).await;
    shop.answer("GET /other HTTP/1.1", 403).await;
    let listener = shop.place.inside(0, USER, || {
        let listener = std::net::TcpListener::bind("0.0.0.0:9000").expect("a port");
        listener.set_nonblocking(true).expect("it may be asked");
        listener
    });
    let listener = listener.join().expect("it ran");
    let listener = tokio::net::TcpListener::from_std(listener).expect("it is bound");
    let path = "/envoy.service.auth.v3.Authorization/Check";
    let router = axum::Router::new().route(path, axum::routing::post(gate));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let asked = |path: &str| format!("GET {path} HTTP/1.1\r\nx-user: jane\r\nx-secret: x");
    shop.answer(&asked("/open"), 200).await;
    shop.answer(&asked("/closed"), 403).await;
    shop.answer("GET /free HTTP/1.1", 200).await;
    let handshakes = figure(&shop.far, "cluster.gate.shop:9000/http2.ssl.handshake");
    assert!(handshakes > 0, "{handshakes}");
    // Where it is gone, what is said about that counts.
    let mut open = spec;
    open["external"]["service"]["port"] = json!(9001);
    shop.control.tell(&told(&open));
    shop.answer(&asked("/open"), 403).await;
    shop.answer("GET /free HTTP/1.1", 200).await;
    open["external"]["onFailure"] = json!("Allow");
    shop.control.tell(&told(&open));
    shop.answer(&asked("/closed"), 200).await;
    shop.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_look_at_hosts_headers_and_conditions() {
    let rules = json!([
        {"to": {"hosts": ["cart"], "headers": [{"name": "x-team", "values": ["shop", "dev-*"]}]}},
        {"to": {"hosts": ["*.shop.example"]}},
        {"condition": "request.headers['x-level'] == '3' && source.service_account == 'web'"},
    ]);
    let spec = json!({"targetRefs": cart(), "rules": rules});
    let shop = Shop::open(&authorized(facts(), &[("cart", spec)])).await;
    shop.answer("GET / HTTP/1.1", 403).await;
    for head in ["x-team: shop", "x-team: dev-1", "x-level: 3"] {
        shop.answer(&format!("GET / HTTP/1.1\r\n{head}"), 200).await;
    }
    for head in ["x-team: dev", "x-team: shopper", "x-level: 4"] {
        shop.answer(&format!("GET / HTTP/1.1\r\n{head}"), 403).await;
    }
    for (host, status) in [
        ("WWW.Shop.Example:80", 200),
        ("shop.example", 403),
        ("wwwXshop.example", 403),
        ("cart:8080", 403),
    ] {
        shop.asked(&format!("GET / HTTP/1.1\r\nhost: {host}"), status)
            .await;
    }
    shop.close();
}
