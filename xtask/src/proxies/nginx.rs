//! A hop as nginx's configuration, and nginx as the upstream behind all proxies.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::certificates::{Leaf, authority};
use super::hop::{Carries, Guard, Hop};
use super::install::Programs;
use super::place::{FAR, NEAR, Place};
use super::process::{Core, Process, Start};
use crate::paths::write;

/// The port that answers HTTP/1.1, in both namespaces.
pub(crate) const PLAIN: u16 = 9000;
/// The port that answers HTTP/2 with prior knowledge.
pub(crate) const HTTP2: u16 = 9001;

/// A file of this name in the run's folder is the body of `/1m`.
const LARGE: &str = "1m";

/// The words after the program's name.
pub(crate) fn arguments(folder: &Path, file: &Path) -> Vec<String> {
    let words = ["-p".to_owned(), folder.display().to_string()];
    let configuration = ["-c".to_owned(), file.display().to_string()];
    let log = ["-e".to_owned(), "stderr".to_owned()];
    words.into_iter().chain(configuration).chain(log).collect()
}

/// Starts the upstream in both namespaces, on the core of the load.
pub(crate) fn start_upstreams(programs: &Programs, place: &Place) -> Result<Vec<Process>> {
    let started = [NEAR, FAR].map(|namespace| start_upstream(programs, place, namespace));
    started.into_iter().collect()
}

/// The same, in one namespace.
pub(crate) fn start_upstream(
    programs: &Programs,
    place: &Place,
    namespace: &str,
) -> Result<Process> {
    let folder = place.folder();
    let file = folder.join("upstream.conf");
    write(&file, upstream(folder))?;
    write(&folder.join(LARGE), vec![b'x'; 1 << 20])?;
    let process = Process::start(&Start {
        name: &format!("upstream-{namespace}"),
        program: &programs.nginx,
        arguments: &arguments(folder, &file),
        namespace,
        core: Core::Load,
        folder,
    })?;
    process.listens(PLAIN)?;
    Ok(process)
}

/// 128 bytes at `/`, 1 KiB at `/1k` and 1 MiB at `/1m`; and whatever is posted is answered, at `/up` once all of it came.
fn upstream(folder: &Path) -> String {
    let body = |length: usize| "x".repeat(length);
    format!(
        "{}http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    http2_max_concurrent_streams 1000;
    server {{
        listen 0.0.0.0:{PLAIN};
        listen 0.0.0.0:{HTTP2} http2;
        client_max_body_size 0;
        default_type text/plain;
        location / {{ return 200 \"{}\"; }}
        location = /up {{ proxy_pass http://127.0.0.1:{PLAIN}/; }}
        location = /1k {{ return 200 \"{}\"; }}
        location = /{LARGE} {{ root {}; }}
    }}
}}
",
        head(),
        body(128),
        body(1024),
        folder.display()
    )
}

/// The whole file of a proxy.
pub(crate) fn proxy(hop: &Hop, folder: &Path) -> String {
    let mut servers = String::new();
    for upstream in &hop.upstreams {
        // Writing into a String cannot fail.
        let _ = write!(servers, "server {upstream}; ");
    }
    let (listens, guards) = front(hop, folder);
    let back = back(hop, folder);
    match hop.carries {
        Carries::Http | Carries::Http2 => format!(
            "{}http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    upstream back {{ least_conn; {servers} keepalive 64; keepalive_requests 1000000000; keepalive_timeout 1h; }}
    server {{
        listen {}{listens};
        {guards}
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_max_temp_file_size 0;
            {back}
        }}
    }}
}}
",
            head(),
            hop.listen
        ),
        Carries::Tcp => format!(
            "{}stream {{
    upstream back {{ least_conn; {servers} }}
    server {{
        listen {}{listens};
        {guards}
        {back}
    }}
}}
",
            head(),
            hop.listen
        ),
    }
}

/// What follows the address of `listen`, and the lines of its TLS.
fn front(hop: &Hop, folder: &Path) -> (String, String) {
    let own = |leaf: Leaf| {
        format!(
            "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;",
            leaf.certificate(folder),
            leaf.key(folder)
        )
    };
    let http2 = match hop.carries {
        Carries::Http | Carries::Http2 => " http2",
        Carries::Tcp => "",
    };
    match hop.front {
        Guard::Open if hop.carries == Carries::Http2 => (http2.to_owned(), String::new()),
        Guard::Open => (String::new(), String::new()),
        Guard::Tls(leaf) => (format!(" ssl{http2}"), own(leaf)),
        Guard::Mutual(leaf, _) => (
            // It speaks no HTTP/2 to an upstream, so a pair of it speaks HTTP/1.1.
            " ssl".to_owned(),
            format!(
                "{} ssl_verify_client on; ssl_client_certificate {};",
                own(leaf),
                authority(folder)
            ),
        ),
    }
}

fn back(hop: &Hop, folder: &Path) -> String {
    let verify = format!(
        "proxy_ssl_verify on; proxy_ssl_trusted_certificate {}; proxy_ssl_name localhost; proxy_ssl_protocols TLSv1.3;",
        authority(folder)
    );
    let on = match hop.carries {
        Carries::Http | Carries::Http2 => "",
        Carries::Tcp => "proxy_ssl on; ",
    };
    let scheme = match (hop.carries, hop.back) {
        (Carries::Tcp, _) => "",
        (_, Guard::Open) => "http://",
        (_, _) => "https://",
    };
    let tls = match hop.back {
        Guard::Open => String::new(),
        Guard::Tls(_) => format!("{on}{verify}"),
        Guard::Mutual(own, _) => format!(
            "{on}{verify} proxy_ssl_certificate {}; proxy_ssl_certificate_key {};",
            own.certificate(folder),
            own.key(folder)
        ),
    };
    format!("proxy_pass {scheme}back; {tls}")
}

/// One process in the foreground (at its end nginx deletes its pid file, which therefore is one of its folder), with the module for TCP where Debian keeps it apart.
fn head() -> String {
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load = if Path::new(module).exists() {
        format!("load_module {module};\n")
    } else {
        String::new()
    };
    format!(
        "{load}daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 11000; }}
"
    )
}
