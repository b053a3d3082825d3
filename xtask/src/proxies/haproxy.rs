//! A hop as HAProxy's configuration. It has no field for a SPIFFE id, so the other side is verified by the authority alone.

use std::fmt::Write as _;
use std::path::Path;

use super::certificates::{Leaf, authority};
use super::hop::{Carries, Guard, Hop};

/// The whole file.
pub(crate) fn configuration(hop: &Hop, folder: &Path) -> String {
    let (mode, protocols) = match hop.carries {
        Carries::Http => ("http", " alpn h2,http/1.1"),
        Carries::Http2 => ("http", " alpn h2"),
        Carries::Tcp => ("tcp", ""),
    };
    let ca = authority(folder);
    let crt = |leaf: Leaf| format!(" ssl crt {}", leaf.both(folder));
    let front = match hop.front {
        Guard::Open if hop.carries == Carries::Http2 => " proto h2".to_owned(),
        Guard::Open => String::new(),
        Guard::Tls(own) => format!("{}{protocols}", crt(own)),
        Guard::Mutual(own, _) => format!("{} ca-file {ca} verify required{protocols}", crt(own)),
    };
    let mut back = match hop.back {
        Guard::Open => String::new(),
        Guard::Tls(_) => format!(" ssl ca-file {ca} verify required"),
        Guard::Mutual(own, _) => format!("{} ca-file {ca} verify required", crt(own)),
    };
    if hop.http2 {
        if !matches!(hop.back, Guard::Open) {
            back.push_str(" alpn h2");
        }
        back.push_str(" proto h2");
    }
    let mut text = format!(
        "global
    nbthread 1
    maxconn 11000
    no strict-limits
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    mode {mode}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend front
    bind {}{front}
    default_backend back
backend back
    balance leastconn
",
        hop.listen
    );
    if hop.carries.is_http() {
        text.push_str("    http-reuse always\n");
    }
    for (index, upstream) in hop.upstreams.iter().enumerate() {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "    server s{index} {upstream}{back}");
    }
    text
}
