//! The cluster's network namespace and its link to the machine. Nothing of the cluster touches the machine's
//! own network but one interface and the routes over it.

use std::path::Path;

use anyhow::Result;

use super::layout::Layout;
use crate::command::{capture, command};

/// Makes the namespace, the link, addresses on both ends and routes: host to pods and Services, namespace to
/// everything through the host.
pub(crate) fn create(layout: &Layout) -> Result<()> {
    let namespace = layout.namespace();
    let (outer, inner) = layout.links();
    let (host, node) = (layout.host_address(), layout.node_address());
    ip(&["netns", "add", &namespace])?;
    ip(&[
        "link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &namespace,
    ])?;
    ip(&["address", "add", &format!("{host}/24"), "dev", &outer])?;
    ip(&["link", "set", &outer, "up"])?;
    for range in [layout.pod_range(), layout.service_range()] {
        ip(&["route", "add", &range, "via", &node, "dev", &outer])?;
    }
    let within = |arguments: &[&str]| ip(&[&["-n", namespace.as_str()], arguments].concat());
    within(&["link", "set", "lo", "up"])?;
    within(&["address", "add", &format!("{node}/24"), "dev", &inner])?;
    within(&["link", "set", &inner, "up"])?;
    within(&["route", "add", "default", "via", &host])?;
    let mut forward = "echo 1 > /proc/sys/net/ipv4/ip_forward".to_owned();
    if let Some((host, node)) = layout.link6() {
        let (own, other) = (format!("{host}/64"), format!("{node}/64"));
        ip(&["address", "add", &own, "dev", &outer, "nodad"])?;
        within(&["address", "add", &other, "dev", &inner, "nodad"])?;
        let ranges = [layout.pod_ranges(), layout.service_ranges()].concat();
        for range in ranges.iter().filter(|range| range.contains(':')) {
            ip(&["-6", "route", "add", range, "via", &node, "dev", &outer])?;
        }
        within(&["-6", "route", "add", "default", "via", &host])?;
        forward.push_str(" && echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    }
    // nsenter without a mount namespace of its own: /proc/sys/net shows the namespace of whoever opens it.
    capture(&mut command(
        "nsenter",
        [
            &format!("--net=/run/netns/{namespace}"),
            "--",
            "sh",
            "-c",
            &forward,
        ],
    ))?;
    Ok(())
}

/// Removes the namespace with all that is in it, and the link should it have outlived it.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    let (outer, _) = layout.links();
    if Path::new("/run/netns").join(layout.namespace()).exists() {
        ip(&["netns", "delete", &layout.namespace()])?;
    }
    // A namespace is taken down in the background, so the link may go away between look and removal.
    if exists(layout) {
        let _ = ip(&["link", "delete", &outer]);
    }
    Ok(())
}

/// Whether the machine's end of the link is there.
pub(crate) fn exists(layout: &Layout) -> bool {
    Path::new("/sys/class/net").join(layout.links().0).exists()
}

fn ip(arguments: &[&str]) -> Result<()> {
    capture(&mut command("ip", arguments)).map(drop)
}
