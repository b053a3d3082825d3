//! curl and nghttp: HTTP/1.1, HTTP/2 with prior knowledge, and both over TLS.

use anyhow::{Result, ensure};

use super::{Checks, near, says};
use crate::command::capture;
use crate::proxies::certificates::{Leaf, authority};
use crate::proxies::hop::{Carries, Guard};
use crate::proxies::nginx::{self, PLAIN};
use crate::proxies::place::FAR;

const PORT: u16 = 15010;
const TLS: u16 = 15011;

/// The versions as curl is asked for them, and as it names them afterwards.
const VERSIONS: [(&str, &str, &str); 4] = [
    ("http/1.1", "--http1.1", "1.1"),
    ("h2c", "--http2-prior-knowledge", "2"),
    ("https/1.1", "--http1.1", "1.1"),
    ("h2", "--http2", "2"),
];

/// Runs them all.
pub(super) fn run(checks: &mut Checks) -> Result<()> {
    if !checks.wants("curl") && !checks.wants("nghttp") {
        return Ok(());
    }
    let _upstream = nginx::start_upstream(&checks.programs, &checks.place, FAR)?;
    let _pair = checks.pair("http", Carries::Http, PORT, PLAIN, false)?;
    let front = Guard::Tls(Leaf::Server);
    let _tls = checks.outbound("https", TLS, front, PORT)?;
    let plain = format!("http://localhost:{PORT}");
    let tls = format!("https://localhost:{TLS}");
    for (index, (name, flag, version)) in VERSIONS.into_iter().enumerate() {
        let base = if index < 2 { &plain } else { &tls };
        curl(checks, name, flag, version, base);
    }
    for (name, base) in [("h2c", &plain), ("h2", &tls)] {
        checks.check(&format!("nghttp {name}: 20 streams of 1 MiB"), |_| {
            let mut nghttp = near("/usr/bin/nghttp");
            nghttp.args(["--null-out", "--stat"]);
            nghttp.args(["--multiply", "20", &format!("{base}/1m")]);
            let said = capture(&mut nghttp)?;
            let whole = said.lines().filter(|line| line.contains(" 200 "));
            ensure!(whole.count() == 20, "not 20 answers:\n{said}");
            Ok(())
        });
    }
    Ok(())
}

fn curl(checks: &mut Checks, name: &str, flag: &str, version: &str, base: &str) {
    let folder = checks.place.folder().to_owned();
    let curl = |arguments: &[&str]| {
        let mut curl = near("/usr/bin/curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "20"])
            .args(["--cacert", &authority(&folder), flag])
            .args(["--output", "/dev/null", "--write-out"])
            .arg("%{http_version} %{http_code} %{size_download} %{num_connects}\n")
            .args(arguments);
        curl
    };
    let large = format!("@{}", folder.join("1m").display());
    // curl 7.88 stops reading, window updates too, when an answer comes before all is sent.
    let up = format!("{base}/up");
    checks.check(&format!("curl {name}: GET"), |_| {
        says(&mut curl(&[base]), &format!("{version} 200 128 1"))
    });
    checks.check(&format!("curl {name}: HEAD"), |_| {
        says(&mut curl(&["--head", base]), &format!("{version} 200 "))
    });
    checks.check(&format!("curl {name}: 1 MiB down"), |_| {
        let url = format!("{base}/1m");
        says(&mut curl(&[&url]), &format!("{version} 200 1048576 1"))
    });
    checks.check(&format!("curl {name}: 1 MiB up"), |_| {
        says(
            &mut curl(&["--data-binary", &large, &up]),
            &format!("{version} 200 128 1"),
        )
    });
    checks.check(
        &format!("curl {name}: 1 MiB up in chunks, awaiting 100"),
        |_| {
            let chunked = ["--header", "transfer-encoding: chunked"];
            let mut arguments = vec!["--header", "expect: 100-continue", "--data-binary", &large];
            if version == "1.1" {
                arguments.extend(chunked);
            }
            arguments.push(&up);
            says(&mut curl(&arguments), &format!("{version} 200 128 1"))
        },
    );
    if name == "h2c" {
        // curl 7.88 fails at a second request by prior knowledge, whoever answers; nghttp makes twenty.
        return;
    }
    checks.check(
        &format!("curl {name}: a connection that is used again"),
        |_| {
            let second = format!("{base}/1k");
            says(
                &mut curl(&[base, &second, "--output", "/dev/null"]),
                &format!("{version} 200 1024 0"),
            )
        },
    );
}
