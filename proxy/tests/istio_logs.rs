//! The line that Istio has every proxy log, as text and as JSON.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use program::Program;
use serde_json::{Value, json};
use support::{Endpoint, free, text_answer};
use tokio::net::TcpStream;

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

/// `accessLogFormat` where a mesh says nothing else.
const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The same with `accessLogEncoding: JSON`.
fn members() -> Value {
    json!({
        "start_time": "%START_TIME%",
        "route_name": "%ROUTE_NAME%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "protocol": "%PROTOCOL%",
        "response_code": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%",
        "response_code_details": "%RESPONSE_CODE_DETAILS%",
        "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration": "%DURATION%",
        "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
        "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
        "user_agent": "%REQ(USER-AGENT)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "authority": "%REQ(:AUTHORITY)%",
        "upstream_host": "%UPSTREAM_HOST%",
        "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
        "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
        "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "requested_server_name": "%REQUESTED_SERVER_NAME%",
        "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn logs(text: &Path, json: &Path) -> Value {
    let log = |path: &Path, format: Value| {
        json!({
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": format!("{EXTENSIONS}.access_loggers.file.v3.FileAccessLog"),
                "path": path,
                "log_format": format,
            },
        })
    };
    json!([
        log(text, json!({"text_format_source": {"inline_string": TEXT}})),
        log(json, json!({"json_format": members()})),
    ])
}

fn cluster(name: &str, endpoint: SocketAddr, limit: u32) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_requests": limit}]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(endpoint)}}]}]},
    })
}

/// A proxy with a listener for HTTP and one for bytes that go nowhere, and what both log.
struct Bed {
    proxy: Program,
    http: SocketAddr,
    bytes: SocketAddr,
    /// Takes nobody.
    closed: SocketAddr,
    /// Lets nobody in.
    denied: SocketAddr,
    text: PathBuf,
    json: PathBuf,
}

impl Drop for Bed {
    fn drop(&mut self) {
        for path in [&self.text, &self.json] {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn bed(endpoint: SocketAddr, nobody: SocketAddr) -> Bed {
    let file = |kind: &str| {
        let path =
            std::env::temp_dir().join(format!("fairlead-{}-istio.{kind}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    };
    let (text, json, http, bytes) = (file("text"), file("json"), free(), free());
    let (closed, denied) = (free(), free());
    let routes: Vec<Value> = ["up", "down", "full"]
        .map(|name| json!({"name": format!("to-{name}"), "match": {"prefix": format!("/{name}")}, "route": {"cluster": name, "prefix_rewrite": "/other"}}))
        .into();
    let filter = |name: &str, kind: &str, mut config: Value| {
        config["@type"] = json!(format!("{EXTENSIONS}.filters.network.{kind}"));
        config["stat_prefix"] = json!(name);
        config["access_log"] = logs(&text, &json);
        json!([{"filters": [{"name": name, "typed_config": config}]}])
    };
    let manager = filter(
        "http",
        "http_connection_manager.v3.HttpConnectionManager",
        json!({
            "use_remote_address": true,
            "preserve_external_request_id": true,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [{
                "name": "router",
                "typed_config": {"@type": format!("{EXTENSIONS}.filters.http.router.v3.Router")},
            }],
        }),
    );
    let tcp = filter("tcp", "tcp_proxy.v3.TcpProxy", json!({"cluster": "down"}));
    let mut guarded = tcp.clone();
    let rules = json!({
        "@type": format!("{EXTENSIONS}.filters.network.rbac.v3.RBAC"),
        "stat_prefix": "guard",
        "rules": {"action": "DENY", "policies": {"no one": {"permissions": [{"any": true}], "principals": [{"any": true}]}}},
    });
    let filters = guarded[0]["filters"].as_array_mut().expect("filters");
    filters.insert(0, json!({"name": "rbac", "typed_config": rules}));
    let mut elsewhere = tcp.clone();
    elsewhere[0]["filter_chain_match"] = json!({"destination_port": 1});
    let bootstrap = json!({
        "node": {"id": "a", "cluster": "a"},
        "admin": {"address": socket(free())},
        "static_resources": {
            "clusters": [cluster("up", endpoint, 9), cluster("down", nobody, 9), cluster("full", endpoint, 0)],
            "listeners": [
                {"name": "http", "address": socket(http), "filter_chains": manager},
                {"name": "bytes", "address": socket(bytes), "filter_chains": tcp},
                {"name": "closed", "address": socket(closed), "filter_chains": elsewhere, "access_log": logs(&text, &json)},
                {"name": "denied", "address": socket(denied), "filter_chains": guarded},
            ],
        },
    });
    let proxy = Program::ours("istio", &bootstrap).await;
    Bed {
        proxy,
        http,
        bytes,
        closed,
        denied,
        text,
        json,
    }
}

impl Bed {
    /// Asks, and gives the line of text and that of JSON, and the port that was asked from.
    async fn ask(&self, path: &str, number: usize) -> (Vec<String>, Value, String) {
        let stream = TcpStream::connect(self.http).await.expect("a proxy");
        let own = stream.local_addr().expect("an address").to_string();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        let request = Request::post(path)
            .header("host", "shop.example")
            .header("user-agent", "test/1")
            .header("x-request-id", "e8d7ab71-2a0b-4c5e-9f3e-000000000001")
            .body(Full::<Bytes>::from("12345"))
            .expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert!(
            !answer
                .headers()
                .contains_key("x-envoy-upstream-service-time")
        );
        support::read(answer).await;
        let (words, object) = self.lines(number).await;
        (words, object, own)
    }

    /// The lines of this number: the words of the text, and the object.
    async fn lines(&self, number: usize) -> (Vec<String>, Value) {
        for _ in 0..500 {
            let [text, json] = [&self.text, &self.json]
                .map(|path| std::fs::read_to_string(path).unwrap_or_default());
            if let (Some(text), Some(json)) = (text.lines().nth(number), json.lines().nth(number)) {
                let object = serde_json::from_str(json).expect("JSON");
                return (words(text), object);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("there is no line {number}: {}", self.proxy.log());
    }
}

/// The words of a line; what stands in quotes is one.
fn words(line: &str) -> Vec<String> {
    line.split('"')
        .enumerate()
        .flat_map(|(place, part)| match place % 2 {
            1 => vec![part.to_owned()],
            _ => part.split_whitespace().map(str::to_owned).collect(),
        })
        .collect()
}

/// A word that is a time in milliseconds below this.
fn is_time(word: &Value, least: u64) {
    let time = word.as_u64().or_else(|| word.as_str()?.parse().ok());
    assert!(
        time.is_some_and(|time| (least..5000).contains(&time)),
        "{word}"
    );
}

#[tokio::test]
async fn the_usual_lines_of_istio_say_what_was() {
    let endpoint = Endpoint::start(|_, _| async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        text_answer(200, "ok")
    })
    .await;
    let nobody = free();
    let bed = bed(endpoint.address, nobody).await;
    let up = endpoint.address.to_string();

    let (text, object, own) = bed.ask("/up/a?b=c", 0).await;
    let id = "e8d7ab71-2a0b-4c5e-9f3e-000000000001";
    let here = object["upstream_local_address"]
        .as_str()
        .expect("an address")
        .to_owned();
    assert!(
        here.starts_with("127.0.0.1:") && here != up && here != own,
        "{here}"
    );
    is_time(&object["duration"], 30);
    is_time(&object["upstream_service_time"], 30);
    for place in [9, 10] {
        is_time(&json!(text[place]), 30);
    }
    let listener = bed.http.to_string();
    let expected = [
        "POST /up/a?b=c HTTP/1.1",
        "200",
        "-",
        "via_upstream",
        "-",
        "-",
        "5",
        "2",
    ];
    assert_eq!(text[1..9], expected);
    let expected = [
        "127.0.0.1",
        "test/1",
        id,
        "shop.example",
        &up,
        "up",
        &here,
        &listener,
        &own,
        "-",
        "to-up",
    ];
    assert_eq!(text[11..], expected);
    let expected = json!({
        "start_time": object["start_time"], "duration": object["duration"],
        "upstream_service_time": object["upstream_service_time"],
        "route_name": "to-up", "method": "POST", "path": "/up/a?b=c", "protocol": "HTTP/1.1",
        "response_code": 200, "response_flags": "-", "response_code_details": "via_upstream",
        "connection_termination_details": null, "upstream_transport_failure_reason": null,
        "bytes_received": 5, "bytes_sent": 2, "x_forwarded_for": "127.0.0.1", "user_agent": "test/1",
        "request_id": id, "authority": "shop.example", "upstream_host": up, "upstream_cluster": "up",
        "upstream_local_address": here, "downstream_local_address": listener,
        "downstream_remote_address": own, "requested_server_name": null,
    });
    assert_eq!(object, expected);

    let (text, object, _) = bed.ask("/down", 1).await;
    assert_eq!(text[2..4], ["503", "UF"]);
    assert_eq!(text[6], "Connection refused (os error 111)");
    assert_eq!(object["upstream_transport_failure_reason"], json!(text[6]));
    assert_eq!(object["upstream_host"], json!(nobody.to_string()));
    assert_eq!(object["upstream_local_address"], Value::Null);
    assert_eq!(object["upstream_service_time"], Value::Null);

    let (text, object, _) = bed.ask("/full", 2).await;
    assert_eq!(text[2..5], ["503", "UO", "connection_limit_reached"]);
    assert_eq!(object["response_flags"], "UO");

    let mut stream = TcpStream::connect(bed.bytes).await.expect("a proxy");
    support::drain(&mut stream).await;
    let (text, object) = bed.lines(3).await;
    assert_eq!(text[1..5], ["- - -", "0", "UF", "connection_refused"]);
    assert_eq!(
        object["upstream_transport_failure_reason"],
        "Connection refused (os error 111)"
    );
    assert_eq!(object["upstream_cluster"], "down");

    for (number, listener, details) in [
        (4, bed.closed, "filter_chain_not_found"),
        (5, bed.denied, "rbac_access_denied_matched_policy[no_one]"),
    ] {
        let mut stream = TcpStream::connect(listener).await.expect("a proxy");
        support::drain(&mut stream).await;
        let (text, object) = bed.lines(number).await;
        assert_eq!(text[5], details, "{text:?}");
        assert_eq!(object["connection_termination_details"], details);
    }
}
