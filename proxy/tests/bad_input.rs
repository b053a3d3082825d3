//! What of features is wrong in a configuration: it is refused or does nothing, is told, and live traffic goes on.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use program::Program;
use serde_json::{Value, json};
use support::live::Live;
use support::{Endpoint, free};

/// An example with its ports, and with an admin interface.
fn text<const N: usize>(name: &str, ports: [(u16, SocketAddr); N]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/proxy/features");
    let mut text = std::fs::read_to_string(folder.join(name)).expect("the example is there");
    for (from, to) in ports {
        let own = format!("port_value: {}", to.port());
        text = text.replace(&format!("port_value: {from}"), &own);
    }
    text
}

/// Waits until the log has something, and gives its line.
async fn said(program: &Program, what: &str) -> String {
    let begun = Instant::now();
    loop {
        let log = program.log();
        if let Some(line) = log.lines().find(|line| line.contains(what)) {
            return line.to_owned();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start(name: &str, text: &str, admin: SocketAddr) -> Program {
    let folder = std::env::temp_dir().join(format!("fairlead-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(folder);
    Program::text(name, text, admin).await
}

#[tokio::test]
async fn what_is_refused_while_it_runs_changes_nothing() {
    let endpoint = Endpoint::echo().await;
    let long = format!("\"'{}' == ''\"", "a".repeat(100_000));
    let expression = "request.method in ['POST', 'PUT'] && request.headers['x-team'] == 'shop'";
    for (name, from, to, what) in [
        (
            "authorization.yaml",
            expression,
            long.as_str(),
            "matcher.typed_config.text: ",
        ),
        (
            "mirror.yaml",
            "- cluster: next",
            "- cluster: shop",
            "\\\"shop\\\" has the request itself",
        ),
    ] {
        let (admin, address) = (free(), free());
        let right = text(
            name,
            [(15000, admin), (15001, address), (8080, endpoint.address)],
        );
        let program = start(&format!("refused-{name}"), &right, admin).await;
        let live = Live::start(address, "/healthz");
        assert!(right.contains(from), "{from}");
        let before = program.json("/config_dump").await;
        program.write_text(&right.replacen(from, to, 1));
        let line = said(&program, what).await;
        assert!(line.contains("the last good configuration stays"), "{line}");
        assert_eq!(program.json("/config_dump").await, before);
        live.went_well().await;
    }
}

#[test]
fn a_listener_without_a_socket_has_no_business_of_one_with_it() {
    let text = text("captured.yaml", []);
    let log = "access_log: [{ name: log, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog } }]";
    let header = "listener_filters: [{ name: header, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol } }]";
    for (more, error) in [
        (
            "use_original_dst: true",
            "use_original_dst: true for a listener, which has `bind_to_port: false`",
        ),
        (
            log,
            "access_log: a log of a listener, which has `bind_to_port: false`",
        ),
        (
            header,
            "listener_filters: a PROXY header is asked of a listener, which has `bind_to_port: false`",
        ),
    ] {
        let broken = text.replacen(
            "bind_to_port: false",
            &format!("bind_to_port: false\n      {more}"),
            1,
        );
        let said = fairlead_xds::bootstrap(&broken, &|_| Ok(Vec::new()));
        let said = said
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        let error = format!(
            "static_resources.listeners[1].{error}; say it of the listener that hands over"
        );
        assert_eq!(said, error);
    }
    let said = fairlead_xds::bootstrap(
        &text.replacen("bind_to_port: false", "bind_to_port: 0", 1),
        &|_| Ok(Vec::new()),
    );
    let said = said
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(
        said.starts_with("static_resources.listeners[1].bind_to_port: 0 is no boolean"),
        "{said}"
    );
}

#[tokio::test]
async fn a_fault_that_is_over_is_told_and_does_nothing() {
    let endpoint = Endpoint::echo().await;
    let (admin, address) = (free(), free());
    let text = text(
        "faults.yaml",
        [(15000, admin), (15001, address), (8080, endpoint.address)],
    );
    // It would break every answer off.
    let text = text
        .replacen("until: \"2099-12-31", "until: \"2020-12-31", 1)
        .replacen("{ headers: [{ name: x-chaos, string_match: { exact: reset } }], max_active_faults: 100 }", "{}", 1);
    let program = start("past-fault", &text, admin).await;
    let live = Live::start(address, "/");
    let line = said(&program, "a fault is over").await;
    let line: Value = serde_json::from_str(&line).expect("a line of JSON");
    assert_eq!(line["level"], "WARN");
    assert_eq!(
        line["fields"]["place"],
        "filter \"reset\" of the HTTP connection manager \"shop\""
    );
    let shown = program.json("/faults").await;
    let of = |filter: &str, until: &str, is_over: bool| {
        let place = format!("filter {filter:?} of the HTTP connection manager \"shop\"");
        let until = if until.is_empty() {
            Value::Null
        } else {
            json!(until)
        };
        json!({"place": place, "until": until, "is_over": is_over})
    };
    let expected = json!({"disabled": false, "active": 0, "faults": [
        of("slow", "", false),
        of("fail", "", false),
        of("reset", "2020-12-31T00:00:00Z", true),
        of("half", "2099-12-31T00:00:00Z", false),
    ]});
    assert_eq!(shown, expected);
    live.went_well().await;
}
