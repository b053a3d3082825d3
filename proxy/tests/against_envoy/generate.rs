//! Configurations and requests, made up from a seed: few names that are alike, so that much matches much.

use std::net::SocketAddr;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::filters;
use crate::tokens;
use crate::upstream::{CLUSTERS, DELAY, SCRIPT, Upstreams};

pub const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";
/// Every domain is claimed once.
const DOMAINS: [&str; 14] = [
    "a.test",
    "b.test",
    "a.b.test",
    "b.a.test",
    "ab.test",
    "*.test",
    "*.a.test",
    "*-b.test",
    "*b.test",
    "a.*",
    "a.b.*",
    "ab-*",
    "localhost",
    "*",
];
const HOSTS: [&str; 16] = [
    "a.test",
    "b.test",
    "a.b.test",
    "b.a.test",
    "ab.test",
    "A.Test",
    "c.test",
    "c.a.test",
    "a-b.test",
    "a.example",
    "a.b.example",
    "ab-c.example",
    "localhost",
    "a.test:8080",
    "c.test:80",
    "nowhere",
];
const SEGMENTS: [&str; 6] = ["a", "b", "ab", "A", "api", "v1"];
const HEADERS: [&str; 4] = ["x-a", "x-b", "x-c", "x-twice"];
const VALUES: [&str; 7] = ["1", "2", "12", "abc", "ABC", "-5", ""];
pub const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"];

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: &'static str,
    pub host: String,
    pub target: String,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: &'static str,
}

/// A configuration, and requests for it.
pub struct Plan {
    table: Value,
    filters: Vec<Value>,
    /// Whether callers are told from those who call for them.
    pub is_edge: bool,
    pub requests: Vec<Asked>,
}

/// One of some.
pub fn one<T: Copy>(random: &mut Rng, some: &[T]) -> T {
    some[random.usize(..some.len())]
}

/// Whether something that happens so often, in percent, happens.
pub fn often(random: &mut Rng, percent: u32) -> bool {
    random.u32(..100) < percent
}

impl Plan {
    pub fn new(seed: u64, requests: usize) -> Self {
        let mut random = Rng::with_seed(seed);
        Self {
            table: table(&mut random),
            filters: filters::filters(&mut random),
            is_edge: seed % 2 == 1,
            requests: (0..requests).map(|_| request(&mut random)).collect(),
        }
    }

    /// The virtual hosts that a request may have met.
    pub fn hosts_of(&self, request: &Asked) -> Vec<String> {
        let host = request
            .host
            .split(':')
            .next()
            .unwrap_or_default()
            .to_lowercase();
        let fits = |domain: &str| match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
            (Some(end), _) => host.ends_with(end),
            (_, Some(start)) => host.starts_with(start),
            _ => host == domain,
        };
        let hosts = self.table["virtual_hosts"].as_array().into_iter().flatten();
        hosts
            .filter(|own| {
                let domains = own["domains"].as_array().into_iter().flatten();
                domains.filter_map(Value::as_str).any(fits)
            })
            .map(Value::to_string)
            .collect()
    }

    /// The bootstrap of a proxy that listens at an address.
    pub fn bootstrap(&self, listen: SocketAddr, admin: SocketAddr, upstreams: &Upstreams) -> Value {
        let clusters: Vec<Value> = CLUSTERS
            .iter()
            .zip(&upstreams.addresses)
            .map(|(name, address)| cluster(name, *address))
            .collect();
        let router = json!({
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": format!("{EXTENSIONS}.filters.http.router.v3.Router"),
                "suppress_envoy_headers": true,
            },
        });
        let filters: Vec<&Value> = self.filters.iter().chain([&router]).collect();
        json!({
            "node": {"id": "a", "cluster": "a"},
            "admin": {"address": socket(admin)},
            "static_resources": {
                "listeners": [{
                    "name": "in",
                    "address": socket(listen),
                    "filter_chains": [{"filters": [{
                        "name": "http",
                        "typed_config": {
                            "@type": format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                            "stat_prefix": "in",
                            "generate_request_id": false,
                            "use_remote_address": self.is_edge,
                            "server_header_transformation": "PASS_THROUGH",
                            "route_config": self.table,
                            "http_filters": filters,
                        },
                    }]}],
                }],
                "clusters": clusters,
            },
        })
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [{"max_retries": 1000}]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": socket(address),
                "hostname": format!("{name}.endpoint"),
            }}]}],
        },
    })
}

fn table(random: &mut Rng) -> Value {
    let mut domains = DOMAINS.to_vec();
    random.shuffle(&mut domains);
    let mut hosts = Vec::new();
    while let Some(first) = domains.pop() {
        let mut own = vec![first];
        if often(random, 30) {
            own.extend(domains.pop());
        }
        let routes: Vec<Value> = (0..random.usize(3..10)).map(|_| route(random)).collect();
        let mut host =
            json!({"name": format!("host-{}", hosts.len()), "domains": own, "routes": routes});
        changes(random, &mut host, 20);
        filters::overrides(random, &mut host, 10);
        hosts.push(host);
    }
    let mut table = json!({"name": "routes", "virtual_hosts": hosts});
    if often(random, 50) {
        table["ignore_port_in_host_matching"] = json!(true);
    }
    changes(random, &mut table, 30);
    filters::overrides(random, &mut table, 10);
    if often(random, 50) {
        table["most_specific_header_mutations_wins"] = json!(true);
    }
    table
}

fn route(random: &mut Rng) -> Value {
    let mut route = json!({"match": route_match(random)});
    match random.u32(..10) {
        0 | 1 => route["redirect"] = redirect(random),
        2 => {
            route["direct_response"] = json!({"status": one(random, &[200, 204, 403, 404, 503])});
            if often(random, 70) {
                route["direct_response"]["body"] = json!({"inline_string": "hello"});
            }
        }
        _ => route["route"] = forward(random),
    }
    // Where segments are matched, this proxy makes one slash of those that meet, and Envoy leaves both.
    if route["match"].get("path_separated_prefix").is_some() {
        for action in ["route", "redirect"] {
            let own = route.get_mut(action);
            if let Some(by) = own.and_then(|own| own.get_mut("prefix_rewrite")) {
                *by = json!("/new");
            }
        }
    }
    changes(random, &mut route, 25);
    filters::overrides(random, &mut route, 10);
    route
}

pub fn path(random: &mut Rng) -> String {
    let count = random.usize(1..4);
    let segments: Vec<&str> = (0..count).map(|_| one(random, &SEGMENTS)).collect();
    format!("/{}", segments.join("/"))
}

fn route_match(random: &mut Rng) -> Value {
    let mut matches = match random.u32(..10) {
        0..=2 => json!({"prefix": "/"}),
        3 | 4 => json!({"prefix": path(random)}),
        5 => json!({"path": path(random)}),
        6 | 7 => json!({"path_separated_prefix": format!("/{}", one(random, &SEGMENTS))}),
        8 => json!({"prefix": format!("/{}/", one(random, &SEGMENTS))}),
        _ => {
            json!({"safe_regex": {"regex": one(random, &["/a.*", "/[ab]/.*", "/(api|v1)(/.*)?", "/[^/]+"])}})
        }
    };
    if matches.get("safe_regex").is_none() && often(random, 15) {
        matches["case_sensitive"] = json!(false);
    }
    let count = random.usize(..3);
    let mut headers: Vec<Value> = (0..count).map(|_| header(random)).collect();
    if often(random, 20) {
        headers.push(json!({"name": ":method", "string_match": {"exact": one(random, &METHODS)}}));
    }
    if often(random, 40) {
        headers.clear();
    }
    if !headers.is_empty() {
        matches["headers"] = json!(headers);
    }
    if often(random, 20) {
        let name = one(random, &["q", "p"]);
        matches["query_parameters"] = match random.u32(..3) {
            0 => json!([{"name": name, "present_match": random.bool()}]),
            _ => json!([{"name": name, "string_match": text(random)}]),
        };
    }
    if often(random, 10) {
        let numerator = one(random, &[0, 100]);
        matches["runtime_fraction"] =
            json!({"default_value": {"numerator": numerator, "denominator": "HUNDRED"}});
    }
    if often(random, 3) {
        matches["grpc"] = json!({});
    }
    matches
}

pub fn text(random: &mut Rng) -> Value {
    let value = one(random, &VALUES[..6]);
    let mut text = match random.u32(..5) {
        0 => json!({"prefix": value}),
        1 => json!({"suffix": value}),
        2 => json!({"contains": value}),
        3 => return json!({"safe_regex": {"regex": one(random, &["[0-9]+", "a.*", ".*c", ".*"])}}),
        _ => json!({"exact": value}),
    };
    if often(random, 30) {
        text["ignore_case"] = json!(true);
    }
    text
}

pub fn header(random: &mut Rng) -> Value {
    let mut header = json!({"name": one(random, &HEADERS)});
    match random.u32(..5) {
        0 => header["present_match"] = json!(random.bool()),
        1 => header["range_match"] = json!({"start": -10, "end": one(random, &[2, 5, 13])}),
        _ => header["string_match"] = text(random),
    }
    if often(random, 20) {
        header["invert_match"] = json!(true);
    }
    if often(random, 15) {
        header["treat_missing_header_as_empty"] = json!(true);
    }
    header
}

/// Changes to headers, each kind so often.
fn changes(random: &mut Rng, own: &mut Value, percent: u32) {
    for (add, remove) in [
        ("request_headers_to_add", "request_headers_to_remove"),
        ("response_headers_to_add", "response_headers_to_remove"),
    ] {
        if often(random, percent) {
            // Envoy looks at what was there before a list, and this proxy makes one change after the other.
            let mut names = HEADERS;
            random.shuffle(&mut names);
            let count = random.usize(1..3);
            let added: Vec<Value> = names[..count]
                .iter()
                .map(|name| {
                    let action = one(
                        random,
                        &[
                            "APPEND_IF_EXISTS_OR_ADD",
                            "ADD_IF_ABSENT",
                            "OVERWRITE_IF_EXISTS_OR_ADD",
                            "OVERWRITE_IF_EXISTS",
                        ],
                    );
                    let value = format!("added-{}", random.u32(..10));
                    json!({"header": {"key": name, "value": value}, "append_action": action})
                })
                .collect();
            own[add] = json!(added);
        }
        if often(random, percent / 2) {
            own[remove] = json!([one(random, &HEADERS)]);
        }
    }
}

fn redirect(random: &mut Rng) -> Value {
    let mut redirect = json!({});
    if often(random, 30) {
        redirect["host_redirect"] = json!(one(random, &["other.test", "a.test"]));
    }
    match random.u32(..4) {
        0 => redirect["https_redirect"] = json!(true),
        1 => redirect["scheme_redirect"] = json!(one(random, &["http", "https"])),
        _ => {}
    }
    if often(random, 30) {
        redirect["port_redirect"] = json!(one(random, &[80, 443, 8443]));
    }
    match random.u32(..4) {
        0 => redirect["path_redirect"] = json!(one(random, &["/new", "/new?x=1"])),
        1 => redirect["prefix_rewrite"] = json!(one(random, &["/new", "/", "/new/"])),
        2 => {
            redirect["regex_rewrite"] = json!({"pattern": {"regex": "a"}, "substitution": "<\\0>"});
        }
        _ => {}
    }
    if often(random, 20) {
        redirect["strip_query"] = json!(true);
    }
    redirect["response_code"] = json!(one(
        random,
        &[
            "MOVED_PERMANENTLY",
            "FOUND",
            "SEE_OTHER",
            "TEMPORARY_REDIRECT",
            "PERMANENT_REDIRECT"
        ]
    ));
    redirect
}

fn forward(random: &mut Rng) -> Value {
    let mut forward = if often(random, 40) {
        let (first, second) = (one(random, &CLUSTERS), one(random, &CLUSTERS));
        let mut clusters = [
            json!({"name": first, "weight": 0}),
            json!({"name": second, "weight": 100}),
        ];
        random.shuffle(&mut clusters);
        for own in &mut clusters {
            changes(random, own, 20);
            filters::overrides(random, own, 20);
        }
        json!({"weighted_clusters": {"clusters": clusters}})
    } else {
        json!({"cluster": one(random, &CLUSTERS)})
    };
    match random.u32(..6) {
        0 => forward["prefix_rewrite"] = json!(one(random, &["/", "/new", "/new/"])),
        1 => {
            let (regex, by) = one(
                random,
                &[
                    ("^/([^/]+)/(.*)$", "/\\2/\\1"),
                    ("a", "x"),
                    ("/v1/", "/"),
                    ("b+", "<\\0>"),
                ],
            );
            forward["regex_rewrite"] = json!({"pattern": {"regex": regex}, "substitution": by});
        }
        _ => {}
    }
    match random.u32(..6) {
        0 => forward["host_rewrite_literal"] = json!("rewritten.test"),
        1 => forward["auto_host_rewrite"] = json!(true),
        _ => {}
    }
    if often(random, 20) {
        forward["timeout"] = json!("1s");
    }
    if often(random, 35) {
        let mut retry = json!({
            "retry_on": one(random, &["5xx", "gateway-error", "retriable-4xx", "retriable-status-codes", "reset,connect-failure"]),
            "retriable_status_codes": [418],
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
        });
        if often(random, 70) {
            retry["num_retries"] = json!(random.u32(..4));
        }
        forward["retry_policy"] = retry;
    }
    forward
}

fn request(random: &mut Rng) -> Asked {
    let method = one(
        random,
        &[
            "GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS",
        ],
    );
    let mut target = match random.u32(..10) {
        0 => "/".to_owned(),
        1 => path(random) + "/",
        _ => path(random),
    };
    if often(random, 35) {
        let value = one(random, &VALUES);
        target += &match random.u32(..4) {
            0 => format!("?q={value}&p=1"),
            1 => format!("?p={value}&q=abc"),
            2 => "?q".to_owned(),
            _ => format!("?z=1&q={value}"),
        };
    }
    let mut headers = Vec::new();
    for _ in 0..random.usize(..4) {
        headers.push((one(random, &HEADERS), one(random, &VALUES)));
    }
    if often(random, 60) {
        headers.push(tokens::header(random));
    }
    if method == "OPTIONS" || often(random, 20) {
        headers.push((
            "origin",
            one(random, &["http://a.test", "http://b.example", "null"]),
        ));
    }
    if method == "OPTIONS" && often(random, 70) {
        headers.push(("access-control-request-method", "PUT"));
    }
    if often(random, 15) {
        headers.push((
            "x-forwarded-for",
            one(random, &["192.0.2.1", "192.0.2.1, 198.51.100.7"]),
        ));
    }
    if often(random, 5) {
        headers.push(("x-forwarded-proto", one(random, &["http", "https"])));
    }
    if often(random, 30) {
        headers.push((
            SCRIPT,
            one(
                random,
                &[
                    "500",
                    "503,200",
                    "502,503,504,200",
                    "409,200",
                    "418,200",
                    "404",
                    "504,504,204",
                    "201",
                ],
            ),
        ));
    }
    if often(random, 1) {
        headers.push((DELAY, "2000"));
    }
    Asked {
        method,
        host: one(random, &HOSTS).to_owned(),
        target,
        headers,
        body: if matches!(method, "POST" | "PUT") {
            "body"
        } else {
            ""
        },
    }
}
