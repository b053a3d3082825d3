//! What access logs say, and headers that are made of what is known of a request.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::format::Format;
use fairlead_model::listener::{Handler, Http};
use fairlead_model::log::{
    AccessLog, Comparison, JsonFormat, LogFilter, LogLine, LogTarget, Operator,
};
use fairlead_model::route::{
    Action, HeaderChange, HeaderChanges, HeaderText, OnPresent, Route, RouteMatch,
};
use fairlead_proxy::metrics::{Stat, stats};
use http::{HeaderName, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use support::{
    Endpoint, free, http, http_to, listener, proxy, route, snapshot, tcp_proxy, text_answer, to, up,
};

fn file(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fairlead-{}-{name}.log", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn format(text: &str) -> Format {
    Format::parse(text).expect("a format")
}

fn json_log(path: &Path, members: &[(&str, &str)]) -> AccessLog {
    AccessLog {
        target: LogTarget::File(path.to_owned()),
        line: LogLine::Json {
            members: members
                .iter()
                .map(|(name, text)| ((*name).to_owned(), JsonFormat::Format(format(text))))
                .collect(),
            omit_empty: false,
        },
        filter: None,
    }
}

fn logged(mut http: Http, log: AccessLog) -> Http {
    http.logs.push(log);
    http
}

/// Waits until a file has so many lines.
async fn lines(path: &Path, count: usize) -> Vec<String> {
    for _ in 0..500 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count {
            return text.lines().map(str::to_owned).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{}: {:?}", path.display(), std::fs::read_to_string(path));
}

fn object(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

#[tokio::test]
async fn a_request_leaves_a_line_with_what_became_of_it() {
    let endpoint = Endpoint::start(|request, _| async move {
        let status = if request.uri().path() == "/bad" {
            503
        } else {
            200
        };
        let mut answer = text_answer(status, "0123456789");
        let headers = answer.headers_mut();
        headers.insert("x-kind", http::HeaderValue::from_static("own"));
        headers.insert("set-cookie", http::HeaderValue::from_static("id=secret"));
        answer
    })
    .await;
    let path = file("request");
    let log = json_log(
        &path,
        &[
            ("line", "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%"),
            ("code", "%RESPONSE_CODE%"),
            ("details", "%RESPONSE_CODE_DETAILS%"),
            ("flags", "%RESPONSE_FLAGS%"),
            ("received", "%BYTES_RECEIVED%"),
            ("sent", "%BYTES_SENT%"),
            ("agent", "%REQ(user-agent)%"),
            (
                "secret",
                "%REQ(authorization)%|%REQ(cookie)%|%RESP(set-cookie)%",
            ),
            ("kind", "%RESP(x-kind)%"),
            ("host", "%UPSTREAM_HOST%"),
            ("cluster", "%UPSTREAM_CLUSTER%"),
            ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
            ("route", "%ROUTE_NAME%"),
            ("caller", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ],
    );
    let proxy = proxy(logged(http_to(to("up")), log), up(&[endpoint.address])).await;
    let request = Request::post("/a?b=1")
        .header("host", "shop.example")
        .header("user-agent", "say \"hi\"")
        .header("authorization", "Bearer abc")
        .header("cookie", "id=abc")
        .body(Full::from(Bytes::from_static(b"hello")))
        .expect("a request");
    proxy.send(request).await;
    let line = object(&lines(&path, 1).await[0]);
    assert_eq!(
        line,
        json!({
            "line": "POST /a?b=1 HTTP/1.1",
            "code": 200,
            "details": "via_upstream",
            "flags": "-",
            "received": 5,
            "sent": 10,
            "agent": "say \"hi\"",
            "secret": "[redacted]|[redacted]|[redacted]",
            "kind": "own",
            "host": endpoint.address.to_string(),
            "cluster": "up",
            "attempts": 1,
            "route": "all",
            "caller": "127.0.0.1",
        })
    );
}

#[tokio::test]
async fn a_fault_leaves_a_line_with_its_letters() {
    let path = file("fault");
    let log = json_log(
        &path,
        &[
            ("code", "%RESPONSE_CODE%"),
            ("flags", "%RESPONSE_FLAGS%"),
            ("details", "%RESPONSE_CODE_DETAILS%"),
            ("host", "%UPSTREAM_HOST%"),
        ],
    );
    let refused = free();
    let proxy = proxy(logged(http_to(to("up")), log), up(&[refused])).await;
    assert_eq!(proxy.get("/").await.0.status, 503);
    assert_eq!(
        object(&lines(&path, 1).await[0]),
        json!({
            "code": 503,
            "flags": "UF",
            "details": "connection_refused",
            "host": refused.to_string(),
        })
    );
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_a_line() {
    let endpoint = Endpoint::start(|_, _| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        text_answer(200, "late")
    })
    .await;
    let path = file("gone");
    let log = json_log(
        &path,
        &[("code", "%RESPONSE_CODE%"), ("flags", "%RESPONSE_FLAGS%")],
    );
    let proxy = proxy(logged(http_to(to("up")), log), up(&[endpoint.address])).await;
    let _ = tokio::time::timeout(Duration::from_millis(300), proxy.get("/")).await;
    let mut stream = tokio::net::TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    use tokio::io::AsyncWriteExt;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("to send");
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    assert_eq!(
        object(&lines(&path, 1).await[0]),
        json!({"code": 0, "flags": "DC"})
    );
}

#[tokio::test]
async fn a_filter_chooses_and_a_text_is_as_it_was_written() {
    let endpoint = Endpoint::start(|request, _| async move {
        let status = request.uri().path()[1..].parse().unwrap_or(200);
        text_answer(status, "")
    })
    .await;
    let path = file("filter");
    let log = AccessLog {
        target: LogTarget::File(path.clone()),
        line: LogLine::Text {
            format: format("%RESPONSE_CODE% %TRAILER(x)% %REQ(:AUTHORITY):4%\n"),
            omit_empty: true,
        },
        filter: Some(LogFilter::Status(Comparison {
            operator: Operator::AtLeast,
            value: 500,
        })),
    };
    let proxy = proxy(logged(http_to(to("up")), log), up(&[endpoint.address])).await;
    for status in ["/200", "/500", "/404", "/502"] {
        proxy.get(status).await;
    }
    assert_eq!(lines(&path, 2).await, ["500  shop", "502  shop"]);
}

#[tokio::test]
async fn a_file_that_was_moved_is_made_anew() {
    let endpoint = Endpoint::echo().await;
    let path = file("moved");
    let log = json_log(&path, &[("path", "%REQ(:PATH)%")]);
    let proxy = proxy(logged(http_to(to("up")), log), up(&[endpoint.address])).await;
    proxy.get("/1").await;
    lines(&path, 1).await;
    let old = path.with_extension("old");
    std::fs::rename(&path, &old).expect("to move");
    proxy.shared.logs.reopen();
    proxy.get("/2").await;
    assert_eq!(object(&lines(&path, 1).await[0]), json!({"path": "/2"}));
    std::fs::remove_file(&path).expect("to remove");
    // Without being told, within a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    proxy.get("/3").await;
    assert_eq!(object(&lines(&path, 1).await[0]), json!({"path": "/3"}));
    assert_eq!(lines(&old, 1).await.len(), 1);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_no_request() {
    let endpoint = Endpoint::echo().await;
    let log = json_log(Path::new("/nowhere/at/all.log"), &[("a", "%PROTOCOL%")]);
    let proxy = proxy(logged(http_to(to("up")), log), up(&[endpoint.address])).await;
    assert_eq!(proxy.get("/").await.0.status, 200);
    proxy.shared.logs.flush(Duration::from_secs(5));
    assert_eq!(
        stats(&proxy.shared.figures).get("process.access_log_failed"),
        Some(&Stat::Number(1))
    );
}

#[tokio::test]
async fn a_connection_of_bytes_leaves_a_line_and_so_does_its_listener() {
    let endpoint = Endpoint::echo().await;
    let (path, outer) = (file("bytes"), file("listener"));
    let members = [
        ("host", "%UPSTREAM_HOST%"),
        ("cluster", "%UPSTREAM_CLUSTER%"),
        ("caller", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ("code", "%RESPONSE_CODE%"),
        ("received", "%BYTES_RECEIVED%"),
    ];
    let log = json_log(&path, &members);
    let of_listener = json_log(&outer, &[("local", "%DOWNSTREAM_LOCAL_ADDRESS%")]);
    let proxy = tcp_proxy(up(&[endpoint.address]), |listener| {
        listener.logs.push(of_listener);
        if let Handler::Tcp(tcp) = &mut listener.chains[0].handler {
            Arc::make_mut(tcp).logs.push(log);
        }
    })
    .await;
    let sent = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    proxy.raw(sent).await;
    let all: Vec<Value> = lines(&path, 2)
        .await
        .iter()
        .map(|own| object(own))
        .collect();
    // The first is of the connection that waited for the proxy to listen.
    assert!(
        all.contains(&json!({
            "host": endpoint.address.to_string(),
            "cluster": "up",
            "caller": "127.0.0.1",
            "code": 0,
            "received": sent.len(),
        })),
        "{all:?}"
    );
    assert_eq!(
        object(&lines(&outer, 2).await[1]),
        json!({"local": proxy.address.to_string()})
    );
}

fn made(name: &'static str, text: &str) -> HeaderChange {
    HeaderChange {
        name: HeaderName::from_static(name),
        value: HeaderText::Format(Box::new(format(text))),
        present: OnPresent::Replace,
        only_if_present: false,
    }
}

#[tokio::test]
async fn headers_are_made_of_what_is_known() {
    let endpoint = Endpoint::start(|request, _| async move {
        let get = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("-")
        };
        text_answer(200, &format!("{} {}", get("x-caller"), get("x-missing")))
    })
    .await;
    let own = Route {
        request_headers: HeaderChanges {
            set: vec![
                made(
                    "x-caller",
                    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%/%REQ(x-user)%/%ROUTE_NAME%",
                ),
                made("x-missing", "%REQ(x-nobody-sent)%"),
            ],
            ..HeaderChanges::default()
        },
        response_headers: HeaderChanges {
            set: vec![made(
                "x-about",
                "%RESPONSE_CODE% %UPSTREAM_HOST% %REQ(x-user)% %RESP(content-length)%",
            )],
            ..HeaderChanges::default()
        },
        ..(*route(
            "made",
            RouteMatch::default(),
            Action::Forward(Box::new(to("up"))),
        ))
        .clone()
    };
    let http = http(vec![Arc::new(own)]);
    let proxy = support::Proxy::start(|address| {
        snapshot(
            listener(address, Handler::Http(Arc::new(http)), None),
            vec![up(&[endpoint.address])],
        )
    })
    .await;
    let request = Request::get("/")
        .header("host", "shop.example")
        .header("x-user", "ann")
        .body(Full::default())
        .expect("a request");
    let (head, body) = proxy.send(request).await;
    assert_eq!(body, "127.0.0.1/ann/made -");
    assert_eq!(
        head.headers.get("x-about").map(|value| value.as_bytes()),
        Some(format!("200 {} ann {}", endpoint.address, body.len()).as_bytes())
    );
}
