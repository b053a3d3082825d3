//! Connections that the kernel brings to proxies: two network namespaces, an application in each, and proxies that nobody names.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PROXY: &str = env!("CARGO_BIN_EXE_fairlead-proxy");
/// The user that proxies run as.
const USER: &str = "2102";
const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;

/// Two namespaces joined by a link; gone when dropped, with what runs in them.
struct Place {
    near: String,
    far: String,
    folder: PathBuf,
    running: Vec<Child>,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Place {
    fn new(name: &str) -> Self {
        let number = std::process::id();
        let (near, far) = (format!("{name}-n-{number}"), format!("{name}-f-{number}"));
        let folder = std::env::temp_dir().join(format!("fairlead-{name}-{number}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        for namespace in [&near, &far] {
            run("ip", &["netns", "add", namespace]);
            run("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        }
        let link = [
            "-n", &near, "link", "add", "near", "type", "veth", "peer", "name", "far", "netns",
            &far,
        ];
        run("ip", &link);
        for (namespace, link, v4, v6) in [
            (&near, "near", "10.78.0.1/24", "fd78::1/64"),
            (&far, "far", "10.78.0.2/24", "fd78::2/64"),
        ] {
            run("ip", &["-n", namespace, "address", "add", v4, "dev", link]);
            run(
                "ip",
                &["-n", namespace, "address", "add", v6, "dev", link, "nodad"],
            );
            run("ip", &["-n", namespace, "link", "set", link, "up"]);
        }
        Self {
            near,
            far,
            folder,
            running: Vec::new(),
        }
    }

    /// Starts a proxy in a namespace.
    fn start(&mut self, namespace: &str, user: &str, name: &str, bootstrap: &Value) {
        let file = self.folder.join(name);
        std::fs::write(&file, bootstrap.to_string()).expect("a file");
        let child = within(namespace, "setpriv")
            .args(["--pdeathsig", "KILL", "--reuid", user, "--clear-groups"])
            .args([PROXY, "run", "--config"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("a proxy");
        self.running.push(child);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for namespace in [&self.near, &self.far] {
            let _ = Command::new("ip")
                .args(["netns", "delete", namespace])
                .status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn within(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .args(["--", program]);
    command
}

/// Captures, or no longer.
fn capture(namespace: &str, arguments: &[&str]) {
    let output = within(namespace, PROXY)
        .arg("capture")
        .args(arguments)
        .output()
        .expect("to run");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The answer to a request from a namespace.
fn ask(namespace: &str, to: &str) -> String {
    let mut child = within(namespace, "socat")
        .args(["-t", "0.1", "-", to])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("socat");
    let request = b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n";
    // The input stays open: whoever ends it early wants no answer.
    let mut input = child.stdin.take().expect("its input");
    let _ = input.write_all(request);
    let output = child.wait_with_output().expect("an answer");
    drop(input);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks until an answer comes.
fn answer(namespace: &str, to: &str) -> String {
    let begun = Instant::now();
    loop {
        let answer = ask(namespace, to);
        if answer.starts_with("HTTP/1.1 200") || begun.elapsed() > Duration::from_secs(10) {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// HTTP that answers itself on these ports, or sends on to where callers wanted to go; either says so in a header.
fn bootstrap(ports: &[u16], captured: Option<&str>) -> Value {
    let types = "type.googleapis.com/envoy.extensions.filters";
    let (route, mark) = match captured {
        Some(mark) => (json!({"route": {"cluster": "wanted"}}), mark),
        None => (json!({"direct_response": {"status": 200}}), "x-application"),
    };
    let mut route = route;
    route["match"] = json!({"prefix": "/"});
    route["response_headers_to_add"] = json!([{"header": {"key": mark, "value": "yes"}}]);
    let listeners: Vec<Value> = ports
        .iter()
        .map(|port| {
            json!({
                "name": format!("port-{port}"),
                "address": {"socket_address": {"address": "::", "ipv4_compat": true, "port_value": port}},
                "use_original_dst": captured.is_some(),
                "filter_chains": [{"filters": [{
                    "name": "http",
                    "typed_config": {
                        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "http",
                        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
                        "http_filters": [{
                            "name": "router",
                            "typed_config": {"@type": format!("{types}.http.router.v3.Router")},
                        }],
                    },
                }]}],
            })
        })
        .collect();
    json!({"static_resources": {
        "listeners": listeners,
        "clusters": [{"name": "wanted", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "2s"}],
    }})
}

#[test]
fn what_nobody_sends_to_a_proxy_goes_through_it() {
    assert!(
        Path::new("/usr/sbin/nft").exists(),
        "nftables is needed: `cargo xtask bootstrap` installs it"
    );
    let mut place = Place::new("capture");
    let (near, far) = (place.near.clone(), place.far.clone());
    place.start(
        &far,
        "0",
        "application",
        &bootstrap(&[8080, 9090, 9191], None),
    );
    place.start(
        &near,
        USER,
        "outbound",
        &bootstrap(&[OUTBOUND], Some("x-outbound")),
    );
    place.start(
        &far,
        USER,
        "inbound",
        &bootstrap(&[INBOUND], Some("x-inbound")),
    );
    let (plain, other) = ("TCP4:10.78.0.2:8080", "TCP4:10.78.0.2:9090");
    let seen = |to: &str| {
        let answer = answer(&near, to);
        ["x-outbound", "x-inbound", "x-application"].map(|mark| answer.contains(mark))
    };
    assert_eq!(seen(plain), [false, false, true], "nothing is captured yet");
    let v6 = "TCP6:[fd78::2]:8080";
    assert_eq!(seen(v6), [false, false, true], "nor over IPv6");
    let port = OUTBOUND.to_string();
    let outbound = ["--outbound", &port, "--exempt-uid", USER];
    capture(&near, &outbound);
    let port = INBOUND.to_string();
    let inbound = [
        "--inbound",
        &port,
        "--exempt-uid",
        USER,
        "--skip-inbound",
        "9000-9100",
    ];
    capture(&far, &inbound);
    assert_eq!(seen(plain), [true, true, true]);
    assert_eq!(seen(v6), [true, true, true], "IPv6");
    assert_eq!(seen(other), [true, false, true], "a port that is skipped");
    // To do it again changes nothing but what is asked for.
    capture(
        &near,
        &[&outbound[..], &["--skip-outbound", "8080"]].concat(),
    );
    assert_eq!(seen(plain), [false, true, true]);
    capture(
        &near,
        &[&outbound[..], &["--skip-network", "10.78.0.0/24"]].concat(),
    );
    assert_eq!(seen(plain), [false, true, true]);
    assert_eq!(seen(v6), [true, true, true], "another network");
    // Sent to the proxy itself: it would come back for ever.
    assert_eq!(ask(&far, &format!("TCP4:127.0.0.1:{INBOUND}")), "");
    capture(&far, &["--remove"]);
    capture(&far, &["--remove"]);
    assert_eq!(seen("TCP4:10.78.0.2:9191"), [false, false, true]);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (arguments, said) in [
        (&["--exempt-uid", "1"][..], "--outbound, --inbound"),
        (&["--outbound", "0", "--exempt-uid", "1"], "--outbound"),
        (&["--outbound", "1"], "--exempt-uid"),
        (
            &[
                "--outbound",
                "1",
                "--exempt-uid",
                "1",
                "--skip-outbound",
                "9-1",
            ],
            "ends before it begins",
        ),
        (
            &[
                "--outbound",
                "1",
                "--exempt-uid",
                "1",
                "--skip-network",
                "here",
            ],
            "--skip-network",
        ),
        (
            &["--outbound", "1", "--exempt-uid", "1", "--nft", "/none"],
            "/none",
        ),
    ] {
        let output = Command::new(PROXY).arg("capture").args(arguments).output();
        let output = output.expect("to run");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(said),
            "{arguments:?}: {error}"
        );
    }
}
