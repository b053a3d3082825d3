//! What each program of a cluster is told: its command line and its configuration files.

use anyhow::{Context, Result};
use serde_json::json;

use super::layout::Layout;
use crate::paths::write;

/// The reference of the image that holds a pod's namespaces open.
pub(crate) const PAUSE_IMAGE: &str = "localhost/pause:lab";

/// What the API server is told of calling webhooks.
pub(crate) const ADMISSION: &str = "admission.json";

/// etcd, on the namespace's own loopback. Its data does not outlive the cluster, so nothing is synced to disk.
pub(crate) fn etcd(layout: &Layout) -> Vec<String> {
    words(&[
        "etcd",
        "--name=fairlead",
        &format!("--data-dir={}", layout.text("etcd")),
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=fairlead=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=8589934592",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=5m",
        "--log-level=warn",
    ])
}

/// The API server: real authentication and authorization, and room for many requests at once.
pub(crate) fn api_server(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.text(&format!("pki/{file}"));
    words(&[
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        &format!("--advertise-address={}", layout.node_address()),
        &format!(
            "--service-cluster-ip-range={}",
            layout.service_ranges().join(",")
        ),
        &format!("--cert-dir={}", layout.text("pki")),
        &format!("--tls-cert-file={}", pki("apiserver.crt")),
        &format!("--tls-private-key-file={}", pki("apiserver.key")),
        &format!("--client-ca-file={}", pki("ca.crt")),
        &format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        &format!(
            "--kubelet-client-certificate={}",
            pki("apiserver-kubelet-client.crt")
        ),
        &format!(
            "--kubelet-client-key={}",
            pki("apiserver-kubelet-client.key")
        ),
        // Otherwise exec and logs look the node's name up in a DNS that does not know it.
        "--kubelet-preferred-address-types=InternalIP",
        &format!(
            "--requestheader-client-ca-file={}",
            pki("front-proxy-ca.crt")
        ),
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        &format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
        &format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        &format!("--service-account-key-file={}", pki("service-accounts.pub")),
        &format!(
            "--service-account-signing-key-file={}",
            pki("service-accounts.key")
        ),
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        &format!("--admission-control-config-file={}", layout.text(ADMISSION)),
        "--enable-aggregator-routing=true",
        "--allow-privileged=true",
        "--max-requests-inflight=3000",
        "--max-mutating-requests-inflight=1500",
        "--profiling=false",
        "--shutdown-delay-duration=0s",
    ])
}

/// What the controllers beside the API server have in common: a kubeconfig of their own, and nobody to elect a leader among.
fn controller(layout: &Layout, program: &str, kubeconfig: &str) -> Vec<String> {
    let own = layout.text(kubeconfig);
    words(&[
        program,
        &format!("--kubeconfig={own}"),
        &format!("--authentication-kubeconfig={own}"),
        &format!("--authorization-kubeconfig={own}"),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
    ])
}

/// The controller manager.
pub(crate) fn controller_manager(layout: &Layout) -> Vec<String> {
    let mut all = controller(
        layout,
        "kube-controller-manager",
        "controller-manager.kubeconfig",
    );
    all.extend(words(&[
        "--use-service-account-credentials=true",
        &format!(
            "--service-account-private-key-file={}",
            layout.text("pki/service-accounts.key")
        ),
        &format!("--root-ca-file={}", layout.text("pki/ca.crt")),
        &format!("--cluster-signing-cert-file={}", layout.text("pki/ca.crt")),
        &format!("--cluster-signing-key-file={}", layout.text("pki/ca.key")),
        "--concurrent-namespace-syncs=20",
    ]));
    all
}

/// The scheduler.
pub(crate) fn scheduler(layout: &Layout) -> Vec<String> {
    controller(layout, "kube-scheduler", "scheduler.kubeconfig")
}

/// kube-proxy.
pub(crate) fn kube_proxy(layout: &Layout) -> Vec<String> {
    words(&[
        "kube-proxy",
        &format!("--config={}", layout.text("kube-proxy.json")),
    ])
}

/// The kubelet.
pub(crate) fn kubelet(layout: &Layout) -> Vec<String> {
    let mut node = vec![layout.node_address()];
    node.extend(layout.link6().map(|(_, node)| node));
    words(&[
        "kubelet",
        &format!("--kubeconfig={}", layout.text("kubelet.kubeconfig")),
        &format!("--config={}", layout.text("kubelet.json")),
        &format!("--root-dir={}", layout.text("kubelet")),
        &format!("--cert-dir={}", layout.text("kubelet/pki")),
        &format!("--hostname-override={}", layout.name),
        &format!("--node-ip={}", node.join(",")),
    ])
}

/// The provisioner of persistent volumes.
pub(crate) fn local_volumes(layout: &Layout) -> Vec<String> {
    words(&[
        "local-volumes",
        &format!("--kubeconfig={}", layout.text("local-volumes.kubeconfig")),
        &format!("--directory={}", layout.text("volumes")),
    ])
}

/// CoreDNS.
pub(crate) fn coredns(layout: &Layout) -> Vec<String> {
    words(&["-conf", &layout.text("Corefile")])
}

/// containerd.
pub(crate) fn containerd(layout: &Layout) -> Vec<String> {
    words(&["--config", &layout.text("containerd.toml")])
}

/// Writes the configuration files of all programs.
pub(crate) fn write_files(layout: &Layout) -> Result<()> {
    for folder in ["tmp", "volumes", "pod-logs", "kubelet", "cni-programs"] {
        let folder = layout.file(folder);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
    }
    write(&layout.file(ADMISSION), pretty(&admission_file(layout))?)?;
    write(
        &layout.file("webhooks.kubeconfig"),
        pretty(&webhooks_file(layout))?,
    )?;
    write(&layout.file("containerd.toml"), containerd_file(layout))?;
    write(
        &layout.file("cni/10-pods.conflist"),
        pretty(&cni_file(layout))?,
    )?;
    write(&layout.file("kubelet.json"), pretty(&kubelet_file(layout))?)?;
    write(
        &layout.file("kube-proxy.json"),
        pretty(&kube_proxy_file(layout))?,
    )?;
    write(
        &layout.file("resolv.conf"),
        format!("nameserver {}\n", layout.dns_address()),
    )?;
    write(&layout.file("Corefile"), corefile(layout))?;
    write(&layout.file("objects.json"), pretty(&objects(layout))?)
}

/// Has webhooks called with a certificate, which they may ask for.
fn admission_file(layout: &Layout) -> serde_json::Value {
    let plugin = |name: &str| {
        json!({"name": name, "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": layout.text("webhooks.kubeconfig"),
        }})
    };
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [plugin("ValidatingAdmissionWebhook"), plugin("MutatingAdmissionWebhook")],
    })
}

/// By which certificate webhooks are called; a user's name says which, and `*` is all.
fn webhooks_file(layout: &Layout) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "users": [{"name": "*", "user": {
            "client-certificate": layout.text("pki/apiserver-webhook-client.crt"),
            "client-key": layout.text("pki/apiserver-webhook-client.key"),
        }}],
    })
}

fn containerd_file(layout: &Layout) -> String {
    format!(
        r#"version = 3
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  # Where root lacks CAP_SYS_RESOURCE, runc may not lower a score: every pod would fail.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
  Root = "{runc}"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni", "{programs}"]
  conf_dir = "{cni}"
"#,
        root = layout.text("containerd/root"),
        state = layout.text("containerd/state"),
        socket = layout.containerd_socket().display(),
        opt = layout.text("containerd/opt"),
        runc = layout.text("containerd/runc"),
        programs = layout.text("cni-programs"),
        cni = layout.text("cni"),
    )
}

/// No address translation: the machine has a route to pods, so their own addresses reach it and come back.
fn cni_file(layout: &Layout) -> serde_json::Value {
    let ranges = layout.pod_ranges().into_iter();
    let routes = ["0.0.0.0/0", "::/0"].into_iter().take(ranges.len());
    json!({
        "cniVersion": "1.0.0",
        "name": layout.network(),
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": true,
                "hairpinMode": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": layout.text("cni/addresses"),
                    "ranges": ranges.map(|own| json!([{"subnet": own}])).collect::<Vec<_>>(),
                    "routes": routes.map(|own| json!({"dst": own})).collect::<Vec<_>>(),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet_file(layout: &Layout) -> serde_json::Value {
    let threshold = |share: &str| json!({"memory.available": "100Mi", "nodefs.available": share, "imagefs.available": share, "nodefs.inodesFree": share});
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": layout.text("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": layout.text("pki/kubelet.crt"),
        "tlsPrivateKeyFile": layout.text("pki/kubelet.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.cgroup()),
        // Both versions' hierarchies are mounted on some machines; version 1 then counts.
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "containerRuntimeEndpoint": format!("unix://{}", layout.containerd_socket().display()),
        "clusterDomain": "cluster.local",
        "clusterDNS": [layout.dns_address()],
        "resolvConf": layout.text("resolv.conf"),
        "podLogsDir": layout.text("pod-logs"),
        "volumePluginDir": layout.text("kubelet/volume-plugins"),
        "evictionHard": threshold("1%"),
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": false,
        "maxPods": 250,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "eventRecordQPS": 0,
        "healthzBindAddress": "127.0.0.1",
        "enableServer": true,
        "makeIPTablesUtilChains": false,
    })
}

/// The conntrack limits of the machine are left alone, as it may not write them.
fn kube_proxy_file(layout: &Layout) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": layout.text("kube-proxy.kubeconfig"), "qps": 200, "burst": 400},
        "hostnameOverride": layout.name,
        "clusterCIDR": layout.pod_ranges().join(","),
        "mode": "nftables",
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    })
}

/// Answers for the cluster's own names, and says at once that it knows no other: there is nobody to ask.
fn corefile(layout: &Layout) -> String {
    format!(
        r#"cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {address}
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
}}
.:53 {{
    bind {address}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"#,
        address = layout.node_address(),
        kubeconfig = layout.text("coredns.kubeconfig"),
    )
}

/// The Service of CoreDNS, which runs beside the node's programs rather than in a pod, and the default class
/// of volumes.
fn objects(layout: &Layout) -> serde_json::Value {
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/service-name": "kube-dns"});
    let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]);
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
                "spec": {"clusterIP": layout.dns_address(), "ports": ports},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [layout.node_address()], "conditions": {"ready": true}}],
                "ports": ports,
            },
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": "local",
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "fairlead.dev/local-volumes",
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "Immediate",
            },
        ],
    })
}

fn pretty(value: &serde_json::Value) -> Result<String> {
    serde_json::to_string_pretty(value).context("failed to write JSON")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
