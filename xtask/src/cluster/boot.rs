//! Bringing a cluster up: each program as soon as what it needs answers, and ready only when seen from
//! outside as its users see it.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::layout::Layout;
use super::process::{start, started, wait_until};
use super::{cgroup, config, kubectl, network, pki, teardown};
use crate::command::{capture, command, find};
use crate::image;
use crate::paths::{lock, write};
use crate::progress::{note, step};
use crate::tools;

const PATIENCE: Duration = Duration::from_secs(90);

/// Brings the cluster up, or says that it is. What a killed run left is cleared first.
pub(crate) fn up(name: &str, control_plane_only: bool, module: &tools::Module) -> Result<()> {
    super::layout::check_name(name)?;
    require(control_plane_only)?;
    let _held = lock(&Layout::lock_file(name), &format!("changes cluster {name}"))?;
    let extent = if control_plane_only {
        "control-plane"
    } else {
        "full"
    };
    let kind = format!("{extent} {}", module.name);
    if let Some(layout) = Layout::load(name)? {
        let was = std::fs::read_to_string(layout.ready_marker()).ok();
        match (was.as_deref(), health(&layout)) {
            (Some(was), Ok(())) if was == kind => {
                note(&format!(
                    "cluster {name} is up already: KUBECONFIG={}",
                    layout.kubeconfig().display()
                ));
                return Ok(());
            }
            (Some(was), Ok(())) => {
                bail!("cluster {name} is up as {was}; take it down first to have it as {kind}")
            }
            (Some(_), Err(error)) => note(&format!(
                "cluster {name} is not well, starting it anew: {error:#}"
            )),
            (None, _) => note(&format!(
                "an unfinished start of cluster {name} is cleared away"
            )),
        }
        step(&format!("clear what is left of cluster {name}"), || {
            teardown::remove(&layout)
        })?;
    }
    let kubernetes = module.ensure()?.join("kubernetes");
    if !control_plane_only {
        tools::ensure(tools::NODE)?;
    }
    let began = Instant::now();
    let layout = Layout::create(name)?;
    boot(&layout, control_plane_only, &kubernetes)?;
    write(&layout.ready_marker(), &kind)?;
    note(&format!(
        "cluster {name} is ready after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    note(&format!(
        "export KUBECONFIG={}",
        layout.kubeconfig().display()
    ));
    Ok(())
}

/// Whether everything that was started still runs and the API server answers as ready.
pub(crate) fn health(layout: &Layout) -> Result<()> {
    let programs = started(layout);
    if programs.is_empty() {
        bail!("nothing was started");
    }
    for (name, identity) in programs {
        if !identity.alive() {
            bail!(
                "{name} has ended; {} says:\n{}",
                layout.log(&name).display(),
                super::process::tail_of(&layout.log(&name))
            );
        }
    }
    let answer = kubectl(layout, &["get", "--raw", "/readyz", "--request-timeout=5s"])?;
    if answer.trim() != "ok" {
        bail!("the API server is not ready: {answer}");
    }
    Ok(())
}

fn require(control_plane_only: bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "a cluster on this machine needs root; with a cluster of your own, set CLUSTER=current"
        );
    }
    let mut programs = vec!["ip", "nsenter", "setsid", "kubectl"];
    if !control_plane_only {
        programs.extend(["runc", "nft", "conntrack", "buildah"]);
    }
    let missing: Vec<&str> = programs
        .into_iter()
        .filter(|program| find(program).is_none())
        .collect();
    if !missing.is_empty() {
        bail!(
            "not found: {}; `cargo xtask bootstrap` installs them",
            missing.join(", ")
        );
    }
    Ok(())
}

fn boot(layout: &Layout, control_plane_only: bool, kubernetes: &Path) -> Result<()> {
    step("network, certificates, configuration", || {
        cgroup::create(layout)?;
        network::create(layout)?;
        pki::write_all(layout)?;
        config::write_files(layout)
    })?;
    start(layout, "etcd", kubernetes, &config::etcd(layout))?;
    start(
        layout,
        "kube-apiserver",
        kubernetes,
        &config::api_server(layout),
    )?;
    if !control_plane_only {
        start_runtime(layout)?;
    }
    step("etcd and API server", || {
        wait_until(
            layout,
            "the API server is ready",
            PATIENCE,
            &["kube-apiserver", "etcd"],
            || kubectl(layout, &["get", "--raw", "/readyz", "--request-timeout=2s"]).is_ok(),
        )
    })?;
    start(
        layout,
        "kube-controller-manager",
        kubernetes,
        &config::controller_manager(layout),
    )?;
    if !control_plane_only {
        start_node(layout, kubernetes)?;
    }
    step("service accounts", || {
        wait_until(
            layout,
            "a service account is made",
            PATIENCE,
            &["kube-controller-manager"],
            || kubectl(layout, &["get", "serviceaccount", "default"]).is_ok(),
        )
    })?;
    if control_plane_only {
        return Ok(());
    }
    step("node", || {
        wait_until(
            layout,
            "the node is ready",
            PATIENCE,
            &["kubelet", "containerd"],
            || node_ready(layout),
        )
    })?;
    step("names by DNS through a Service address", || {
        wait_until(
            layout,
            "DNS answers",
            PATIENCE,
            &["coredns", "kube-proxy"],
            || dns_answers(layout),
        )
    })
}

/// containerd, and the one image that every pod needs.
fn start_runtime(layout: &Layout) -> Result<()> {
    let containerd = tools::CONTAINERD.ensure()?;
    start(
        layout,
        "containerd",
        &containerd.join("containerd"),
        &config::containerd(layout),
    )?;
    let pause = image::pause()?;
    step("containerd", || {
        wait_until(
            layout,
            "containerd answers",
            PATIENCE,
            &["containerd"],
            || ctr(layout, &["version"]).is_ok(),
        )?;
        import(layout, &pause)
    })
}

fn start_node(layout: &Layout, kubernetes: &Path) -> Result<()> {
    start(layout, "kubelet", kubernetes, &config::kubelet(layout))?;
    start(
        layout,
        "kube-proxy",
        kubernetes,
        &config::kube_proxy(layout),
    )?;
    start(
        layout,
        "kube-scheduler",
        kubernetes,
        &config::scheduler(layout),
    )?;
    start(
        layout,
        "local-volumes",
        kubernetes,
        &config::local_volumes(layout),
    )?;
    start(
        layout,
        "coredns",
        &tools::COREDNS.ensure()?.join("coredns"),
        &config::coredns(layout),
    )?;
    kubectl(
        layout,
        &["apply", "--server-side", "-f", &layout.text("objects.json")],
    )
    .map(drop)
}

/// Ready, and open for pods: the taint of a node that is not ready goes a moment later.
fn node_ready(layout: &Layout) -> bool {
    let path = r#"{range .status.conditions[?(@.type=="Ready")]}{.status}{end} {.spec.taints}"#;
    kubectl(
        layout,
        &[
            "get",
            "node",
            &layout.name,
            "-o",
            &format!("jsonpath={path}"),
        ],
    )
    .is_ok_and(|answer| answer.trim() == "True")
}

/// Loads an image file into the node.
pub(crate) fn import(layout: &Layout, file: &Path) -> Result<()> {
    ctr(layout, &["images", "import", &file.to_string_lossy()]).map(drop)
}

fn ctr(layout: &Layout, arguments: &[&str]) -> Result<String> {
    let program = tools::CONTAINERD.ensure()?.join("ctr");
    let mut ctr = command(
        &program.to_string_lossy(),
        ["--namespace", "k8s.io", "--address"],
    );
    ctr.arg(layout.containerd_socket()).args(arguments);
    capture(&mut ctr)
}

/// Asks for the API server's name at the Service address of DNS: by that kube-proxy works as well.
pub(crate) fn dns_answers(layout: &Layout) -> bool {
    ask(layout).unwrap_or(false)
}

fn ask(layout: &Layout) -> Result<bool> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("failed to open a socket")?;
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .context("failed to set a timeout")?;
    // RFC 1035: a header with one question, recursion desired; then name, type A, class IN.
    let mut query = vec![0xfa, 0x1e, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        query.push(u8::try_from(label.len()).context("a label of DNS has at most 63 bytes")?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket
        .send_to(&query, (layout.dns_address().as_str(), 53))
        .context("failed to send")?;
    let mut answer = [0; 512];
    let (length, _) = socket.recv_from(&mut answer).context("failed to receive")?;
    // The same identifier, no error, and at least one answer.
    Ok(length > 12 && answer[..2] == query[..2] && answer[3] & 0x0f == 0 && answer[7] > 0)
}
