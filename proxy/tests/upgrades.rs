//! That an upgrade gets what its route gives any request: changes, a cookie, a session, its time, and a line in the log; and is sent once.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_model::format::Format;
use fairlead_model::log::{AccessLog, LogLine, LogTarget};
use fairlead_model::route::{
    Action, Affinity, AffinityBy, CookieMade, HeaderChange, HeaderChanges, HeaderText, OnPresent,
    PathMatch, PathRewrite, Route, RouteMatch, Timeouts,
};
use http::HeaderName;
use support::features::{example, figure};
use support::{Proxy, http, proxy, route, to, up};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const UPGRADE: &str = "GET /old/chat HTTP/1.1\r\nhost: a\r\nx-user: ann\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
const ANSWER: &str =
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";

const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

async fn head(stream: &mut TcpStream) -> String {
    whole_head(stream).await.expect("a head")
}

/// A head, where it comes whole.
async fn whole_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// An endpoint that notes each head, upgrades, and returns what it gets.
async fn endpoint() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    slow_endpoint(Duration::ZERO).await
}

/// The same, which upgrades after a while.
async fn slow_endpoint(wait: Duration) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                // Whoever has an answer from elsewhere meanwhile asks nothing.
                let Ok(own) = whole_head(&mut stream).await else {
                    return;
                };
                let is_upgrade = own.contains("upgrade: websocket");
                noted.lock().expect("the heads").push(own);
                if !is_upgrade {
                    let _ = stream.write_all(PLAIN.as_bytes()).await;
                    return;
                }
                tokio::time::sleep(wait).await;
                let _ = stream.write_all(ANSWER.as_bytes()).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (address, heads)
}

#[tokio::test]
async fn an_upgrade_is_a_request_of_its_route() {
    let (address, heads) = endpoint().await;
    let mut forward = to("up");
    forward.upgrades = vec!["websocket".to_owned()];
    forward.rewrite = Some(PathRewrite::Prefix("/new".to_owned()));
    forward.timeouts = Timeouts {
        idle: Some(Duration::from_millis(300)),
        ..Timeouts::default()
    };
    forward.affinity = vec![Affinity {
        by: AffinityBy::Cookie {
            name: "shard".to_owned(),
            made: Some(CookieMade {
                life: Duration::ZERO,
                path: "/".to_owned(),
                attributes: Vec::new(),
            }),
        },
        terminal: true,
    }];
    let made = Format::parse("for %REQ(x-user)%").expect("a format");
    let own = Route {
        request_headers: HeaderChanges {
            set: vec![HeaderChange {
                name: HeaderName::from_static("x-made"),
                value: HeaderText::Format(Box::new(made)),
                present: OnPresent::Replace,
                only_if_present: false,
            }],
            ..HeaderChanges::default()
        },
        ..(*route(
            "chat",
            RouteMatch {
                path: PathMatch::Segments("/old".to_owned()),
                ..RouteMatch::default()
            },
            Action::Forward(Box::new(forward)),
        ))
        .clone()
    };
    let log = std::env::temp_dir().join(format!("fairlead-{}-chat.log", std::process::id()));
    let _ = std::fs::remove_file(&log);
    let mut http = http(vec![Arc::new(own)]);
    http.logs = vec![AccessLog {
        target: LogTarget::File(log.clone()),
        line: LogLine::Text {
            format: Format::parse(
                "%RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST%\n",
            )
            .expect("a format"),
            omit_empty: false,
        },
        filter: None,
    }];
    let proxy = proxy(http, up(&[address])).await;
    let mut stream = TcpStream::connect(proxy.address).await.expect("a proxy");
    stream.write_all(UPGRADE.as_bytes()).await.expect("to send");
    let answer = head(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 101") && answer.contains("set-cookie: shard="),
        "{answer}"
    );
    stream.write_all(b"hello").await.expect("to send");
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.expect("an echo");
    assert_eq!(&back, b"hello");
    // Nothing moves any more: the tunnel ends, and leaves its line.
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await;
    assert!(ended.is_ok_and(|read| read.is_err()));
    let seen = heads.lock().expect("the heads").remove(0);
    assert!(
        seen.starts_with("GET /new/chat HTTP/1.1\r\n") && seen.contains("x-made: for ann\r\n"),
        "{seen}"
    );
    for _ in 0..300 {
        if std::fs::metadata(&log).is_ok_and(|own| own.len() > 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let line = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(line, format!("101 5 5 {address}\n"));
}

/// An example before both endpoints, with its route changed so.
async fn leaving(name: &str, endpoints: [SocketAddr; 2], route: (&str, &str)) -> Proxy {
    let ports = endpoints.map(|own| format!("port_value: {}", own.port()));
    let changes = [
        ("port_value: 8080", &*ports[0]),
        ("port_value: 8081", &*ports[1]),
        route,
        (
            "    - name: shop\n      load",
            "    - name: shop\n      lb_policy: ROUND_ROBIN\n      load",
        ),
    ];
    example(name, &support::Endpoint::echo().await, &changes).await
}

/// Asks for an upgrade with this cookie; the connection, the answer, and the cookie that comes with it.
async fn upgrade(proxy: &Proxy, cookie: &str) -> (TcpStream, String, Option<String>) {
    let mut stream = TcpStream::connect(proxy.address).await.expect("a proxy");
    let asked = UPGRADE.replace("x-user: ann", &format!("cookie: {cookie}"));
    stream.write_all(asked.as_bytes()).await.expect("to send");
    let answer = head(&mut stream).await;
    let given = answer
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .and_then(|own| own.split(';').next())
        .map(str::to_owned);
    (stream, answer, given)
}

#[tokio::test]
async fn a_session_holds_for_upgrades() {
    let (one, two) = (endpoint().await, endpoint().await);
    let route = (
        "route: { cluster: shop }",
        "route: { cluster: shop, upgrade_configs: [{ upgrade_type: websocket }, { upgrade_type: CONNECT }] }",
    );
    let proxy = leaving("session.yaml", [one.0, two.0], route).await;
    let (_stream, answer, given) = upgrade(&proxy, "a=b").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let cookie = given.expect("a cookie");
    assert!(cookie.starts_with("shop-session="), "{cookie}");
    for _ in 0..5 {
        let (_stream, answer, given) = upgrade(&proxy, &cookie).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        assert_eq!(given, None, "it has one already");
    }
    // So it does for tunnels and for requests.
    let mut stream = TcpStream::connect(proxy.address).await.expect("a proxy");
    let connect = format!("CONNECT tea:1 HTTP/1.1\r\nhost: tea:1\r\ncookie: {cookie}\r\n\r\n");
    stream.write_all(connect.as_bytes()).await.expect("to send");
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let plain =
        format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n");
    stream.write_all(plain.as_bytes()).await.expect("to send");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    let answer = proxy.raw(plain.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let counts = [&one.1, &two.1].map(|own| own.lock().expect("the heads").len());
    assert!(counts == [8, 0] || counts == [0, 8], "{counts:?}");
}

#[tokio::test]
async fn an_upgrade_is_sent_once_however_late_it_is() {
    let late = Duration::from_millis(500);
    let (one, two) = (slow_endpoint(late).await, slow_endpoint(late).await);
    let route = (
        "cluster: shop\n                            retry_policy",
        "cluster: shop\n                            upgrade_configs: [{ upgrade_type: websocket }]\n                            retry_policy",
    );
    let proxy = leaving("hedging.yaml", [one.0, two.0], route).await;
    // Answers take next to no time, so that an upgrade is far later than any of them.
    for _ in 0..150 {
        let (answer, _) = proxy.get("/").await;
        assert_eq!(answer.status, 200);
    }
    let hedged = || figure(&proxy, "cluster.shop.upstream_rq_hedge");
    let before = hedged();
    for _ in 0..3 {
        let (mut stream, answer, _) = upgrade(&proxy, "a=b").await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        stream.write_all(b"hello").await.expect("to send");
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.expect("an echo");
    }
    let heads = [one.1, two.1].map(|own| own.lock().expect("the heads").clone());
    let all = heads.iter().flatten();
    let upgrades = all.filter(|own| own.contains("upgrade: websocket"));
    assert_eq!(upgrades.count(), 3);
    assert_eq!(hedged(), before);
}
