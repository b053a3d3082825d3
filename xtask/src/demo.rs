//! The main job, from nothing to a page that answers: a real cluster, Fairlead, a platform, and an application in two environments.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{capture, show_live};
use crate::install::{self, kubectl};
use crate::paths::root;
use crate::progress::{note, step};
use crate::{bootstrap, cluster, image};

/// The cluster that a developer has up.
const CLUSTER: &str = "fairlead";
/// How long the page may take to answer once all is ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sets everything up and shows it.
pub(crate) fn run() -> Result<()> {
    bootstrap::run()?;
    cluster::up(CLUSTER, false, cluster::Version::default())?;
    image::all_into(CLUSTER)?;
    let kubeconfig = cluster::kubeconfig(CLUSTER)?;
    install::install(CLUSTER, 1)?;
    let fairlead = install::command_line()?;
    let files = [
        "platform/classes.yaml",
        "platform/definitions.yaml",
        "application.yaml",
        "workloads.yaml",
    ];
    step("apply the platform and the application", || {
        for file in files {
            let path = root().join("examples/shop").join(file);
            capture(kubectl(&kubeconfig, ["apply", "--server-side", "-f"]).arg(path))?;
        }
        Ok(())
    })?;
    step(
        "release to development, by itself, and to production",
        || {
            capture(&mut kubectl(
                &kubeconfig,
                [
                    "-n",
                    "shop",
                    "wait",
                    "environment/development",
                    "--for=condition=Ready",
                    "--timeout=300s",
                ],
            ))?;
            show_live(&mut shop(
                &fairlead,
                &kubeconfig,
                &["deploy", "production", "--wait"],
            ))
        },
    )?;
    show_live(&mut shop(&fairlead, &kubeconfig, &["status"]))?;
    let address = capture(&mut kubectl(
        &kubeconfig,
        [
            "-n",
            "shop-production",
            "get",
            "service",
            "frontend",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ],
    ))?;
    let page = format!("{}:8080", address.trim());
    if cluster::makes_its_own()? {
        step("ask the shop for its page", || answers(&page))?;
        let secured = step("count what the services of the shop say in secret", || {
            secured(&kubeconfig)
        })?;
        note(&format!(
            "the proxies of shop-production made {secured} connections over mutual TLS"
        ));
    }
    note(&format!("the shop answers at http://{page}"));
    note(&format!("export KUBECONFIG={}", kubeconfig.display()));
    note(
        "kubectl get fairlead -A; kubectl describe environment -n shop production; make cluster-down ends it",
    );
    Ok(())
}

fn shop(fairlead: &Path, kubeconfig: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(fairlead);
    command
        .args(["-n", "shop"])
        .args(arguments)
        .env("KUBECONFIG", kubeconfig);
    command
}

/// How many connections over mutual TLS the proxies of the shop made, once there is one.
fn secured(kubeconfig: &Path) -> Result<u64> {
    let pods = [
        "-n",
        "shop-production",
        "get",
        "pods",
        "-l",
        "mesh.fairlead.dev/proxied",
        "-o",
        "jsonpath={.items[*].status.podIP}",
    ];
    let began = Instant::now();
    loop {
        let mut made = 0;
        for pod in capture(&mut kubectl(kubeconfig, pods))?.split_whitespace() {
            made += handshakes(&ask(&format!("{pod}:15020"), "/stats/prometheus")?);
        }
        if made > 0 {
            return Ok(made);
        }
        if began.elapsed() > PATIENCE {
            bail!("no proxy of shop-production made a connection over mutual TLS");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// How many handshakes a proxy made with those of services.
fn handshakes(figures: &str) -> u64 {
    figures
        .lines()
        .filter(|line| {
            line.starts_with("envoy_cluster_ssl_handshake") && line.contains("shop-production:")
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Waits until the page answers with success.
fn answers(page: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        match ask(page, "/") {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
            other if began.elapsed() > PATIENCE => {
                let said = other.map(|answer| answer.lines().next().unwrap_or_default().to_owned());
                bail!("the page did not answer with success: {said:?}");
            }
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

fn ask(host: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(host).context("failed to connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
