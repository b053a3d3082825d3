//! Capture where pods may not administer their network: by a plug-in of the container network interface (CNI), which the node runs
//! when it sets up a pod's network, behind the plug-in that makes it.
//!
//! The pod says by an annotation what is to be captured; the container runtime hands annotations to plug-ins that ask for them, so
//! nobody has to be asked on the way, and there is no credential on the node. [`plugin`] is what the runtime calls; [`install`]
//! brings it to the node and keeps it there; [`conflist`] is how it is written into the node's configuration; [`daemon_set`] tells
//! an upgrade from the end.

pub mod conflist;
pub mod daemon_set;
pub mod install;
pub mod plugin;

/// The name of the plug-in, and of its program.
pub const PLUGIN: &str = "fairlead-cni";
/// The folder beside it with nft and all that it loads.
const TOOLS: &str = "fairlead-cni.d";
/// By which a runtime (containerd, CRI-O) hands over the annotations of a pod.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
/// The annotation that says what is captured, as [`crate::capture::Capture::parse`] reads it.
pub const CAPTURE: &str = "mesh.fairlead.dev/capture";
/// The versions of the interface that are spoken; before them, plug-ins were not told what others had done.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Whether a version of the interface is spoken; else what to say of it.
fn check_version(found: &str) -> Result<(), String> {
    if VERSIONS.contains(&found) {
        return Ok(());
    }
    let allowed = VERSIONS.join(", ");
    Err(format!("found {found:?}, and {allowed} are allowed"))
}
