//! The CNI plug-in as a container runtime calls it, in a network namespace of its own and with the rules of a real kernel; and what
//! brings it to a node, in folders that stand for the node's.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PROXY: &str = env!("CARGO_BIN_EXE_fairlead-proxy");
/// What the webhook says of a pod.
const CAPTURE: &str = r#"{"exempt":[2102],"inbound":15006,"outbound":15001,"skipInbound":["15020"],"skipNetworks":["10.9.0.0/16"],"skipOutbound":["25"]}"#;
/// A list as the bridge's plug-in comes with.
const LIST: &str = "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"pods\",\n  \"plugins\": [\n    {\"type\": \"bridge\", \"mtu\": 1500},\n    {\"type\": \"portmap\"}\n  ]\n}\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// The folders of a node, and a network namespace of a pod; gone when dropped.
struct Node {
    folder: PathBuf,
    namespace: Option<String>,
    installer: Option<Child>,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

impl Node {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fairlead-{name}-{}", std::process::id()));
        for part in ["programs", "configuration"] {
            fs::create_dir_all(folder.join(part)).expect("a folder");
        }
        Self {
            folder,
            namespace: None,
            installer: None,
        }
    }

    /// A pod's network: a link that leads nowhere, and all addresses beyond it.
    fn pod(&mut self, name: &str) -> String {
        let namespace = format!("{name}-{}", std::process::id());
        let ip = |arguments: &str| {
            let arguments: Vec<&str> = arguments.split(' ').collect();
            run("ip", &[&["-n", &namespace][..], &arguments].concat());
        };
        run("ip", &["netns", "add", &namespace]);
        self.namespace = Some(namespace.clone());
        ip("link set lo up");
        ip("link add near type veth peer name far");
        ip("address add 10.79.0.1/24 dev near");
        ip("link set near up");
        ip("link set far up");
        ip("route add default via 10.79.0.2");
        namespace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn list(&self) -> PathBuf {
        self.path("configuration/10-pods.conflist")
    }

    /// The program that installs, for this node.
    fn command(&self) -> Command {
        let mut command = Command::new(PROXY);
        command
            .arg("cni")
            .arg("--programs")
            .arg(self.path("programs"))
            .arg("--configuration")
            .arg(self.path("configuration"))
            .args(["--exempt-namespace", "kube-system,fairlead-system"]);
        command
    }

    /// Starts the installer, and waits until it can be told to end.
    fn start(&mut self) {
        let child = self.command().stderr(Stdio::piped()).spawn();
        let child = self.installer.insert(child.expect("the installer"));
        let mut log = BufReader::new(child.stderr.as_mut().expect("its log"));
        let mut line = String::new();
        log.read_line(&mut line).expect("a line");
        assert!(line.contains("kept on this node"), "{line}");
    }

    /// Tells the installer to end, and waits for it.
    fn stop(&mut self) {
        let mut child = self.installer.take().expect("it runs");
        run("kill", &["-TERM", &child.id().to_string()]);
        let status = child.wait().expect("an end");
        assert!(status.success(), "{status} {:?}", status.signal());
    }

    fn is_in_place(&self) -> bool {
        let output = self.command().arg("--check").output().expect("to run");
        output.status.success()
    }

    fn eventually(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            let list = fs::read_to_string(self.list()).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "not in time: {what}\n{list}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Calls the plug-in as a runtime does.
    fn call(&self, verb: &str, network: &str, pod: &str, configuration: &Value) -> Output {
        let mut child = Command::new(self.path("programs/fairlead-cni"))
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c0ffee")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", network)
            .env("CNI_PATH", self.path("programs"))
            .env("CNI_ARGS", pod)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the plug-in");
        let mut input = child.stdin.take().expect("its input");
        let _ = input.write_all(configuration.to_string().as_bytes());
        drop(input);
        child.wait_with_output().expect("an answer")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.installer {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(namespace) = &self.namespace {
            let _ = Command::new("ip")
                .args(["netns", "delete", namespace])
                .status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a runtime says of a pod of a namespace.
fn pod(namespace: &str) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=c0ffee"
    )
}

/// The plug-in's own configuration, as a runtime makes it of the node's: with what others made, and the pod's annotations.
fn configuration(node: &Node, annotations: &Value) -> Value {
    let list = fs::read_to_string(node.list()).expect("the list");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let mut own = list["plugins"][2].clone();
    assert_eq!(own["type"], "fairlead-cni");
    own["name"] = list["name"].clone();
    own["cniVersion"] = list["cniVersion"].clone();
    let capabilities = own["capabilities"].take();
    if capabilities["io.kubernetes.cri.pod-annotations"] == true && !annotations.is_null() {
        own["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": annotations});
    }
    own["prevResult"] = previous();
    own
}

fn previous() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": "0a:58:0a:4f:00:01", "sandbox": "/run/netns/x"}],
        "ips": [{"interface": 0, "address": "10.79.0.1/24", "gateway": "10.79.0.2"}],
        "dns": {},
        "fromAnother": {"kept": [1, 2.5, null]},
    })
}

fn said(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let error_output = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {output:?} {error_output}")
    })
}

#[track_caller]
fn refused(output: &Output, code: u32, why: &str) {
    let answer = said(output);
    assert!(!output.status.success(), "{answer}");
    let text = answer["msg"].as_str().unwrap_or_default();
    assert!(answer["code"] == code && text.contains(why), "{answer}");
}

/// Has somebody without any right find out whether connections from a namespace come to the proxy.
fn verify(namespace: &str) -> Output {
    let arguments = CAPTURE_ARGUMENTS.split(' ');
    Command::new("nsenter")
        .arg(format!("--net=/run/netns/{namespace}"))
        .args(["--", "setpriv", "--reuid=65532", "--regid=65532"])
        .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
        .args(["--no-new-privs", PROXY])
        .args(arguments)
        .env("NODE_NAME", "node-7")
        .output()
        .expect("to run")
}

const CAPTURE_ARGUMENTS: &str = "capture --outbound=15001 --inbound=15006 --exempt-uid=2102 --skip-inbound=15020 --skip-outbound=25 \
    --skip-network=10.9.0.0/16 --verify";

#[test]
fn a_pod_that_says_so_is_captured_and_others_are_left_alone() {
    let mut node = Node::new("cni");
    fs::write(node.list(), LIST).expect("a list");
    node.start();
    node.eventually("the plug-in is there", || node.is_in_place());
    let namespace = node.pod("cni");
    let network = format!("/run/netns/{namespace}");
    // Before anybody captures, a pod that relies on it does not start, and says why
    let output = verify(&namespace);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(95), "nothing is captured yet");
    for wanted in [
        "nothing captures the connections of this pod",
        "See that the DaemonSet fairlead-cni has a ready pod on node-7",
        "The mesh then makes this pod anew",
        "192.0.2.1:65535",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in {text}");
    }
    // A pod that is not of the mesh is left alone, wherever its network is
    let plain = configuration(&node, &json!({"kubernetes.io/config.source": "api"}));
    let output = node.call("ADD", "/nowhere", &pod("shop"), &plain);
    assert_eq!(said(&output), previous());
    let output = node.call("CHECK", "/nowhere", &pod("shop"), &plain);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(verify(&namespace).status.code(), Some(95));
    // One that is of it is captured, and what others made of its network is handed on
    let ours = configuration(&node, &json!({"mesh.fairlead.dev/capture": CAPTURE}));
    refused(
        &node.call("CHECK", &network, &pod("shop"), &ours),
        100,
        "failed to capture",
    );
    for _ in 0..2 {
        let output = node.call("ADD", &network, &pod("shop"), &ours);
        assert_eq!(said(&output), previous());
    }
    let output = verify(&namespace);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let output = node.call("CHECK", &network, &pod("shop"), &ours);
    assert!(output.status.success() && output.stdout.is_empty());
    let other = json!({"mesh.fairlead.dev/capture": CAPTURE.replace("15001", "15009")});
    refused(
        &node.call(
            "CHECK",
            &network,
            &pod("shop"),
            &configuration(&node, &other),
        ),
        101,
        "not captured as its annotation mesh.fairlead.dev/capture says",
    );
    for (verb, network) in [("DEL", network.as_str()), ("DEL", "/nowhere"), ("GC", "")] {
        let output = node.call(verb, network, &pod("shop"), &ours);
        assert!(output.status.success() && output.stdout.is_empty());
    }
    node.stop();
    assert!(node.is_in_place(), "who ends may come back");
}

#[test]
fn what_the_plugin_cannot_know_it_refuses() {
    let mut node = Node::new("cni-refuses");
    fs::write(node.list(), LIST).expect("a list");
    node.start();
    node.eventually("the plug-in is there", || node.is_in_place());
    let without = configuration(&node, &Value::Null);
    let add = |namespace: &str, configuration: &Value| {
        node.call("ADD", "/nowhere", &pod(namespace), configuration)
    };
    refused(
        &add("shop", &without),
        7,
        "runtimeConfig[io.kubernetes.cri.pod-annotations]: found none, so nobody knows whether the pod belongs to the mesh",
    );
    for exempt in ["kube-system", "fairlead-system"] {
        assert_eq!(said(&add(exempt, &without)), previous());
    }
    let output = node.call("ADD", "/nowhere", "", &without);
    assert_eq!(said(&output), previous(), "no pod of Kubernetes");
    let ours = configuration(&node, &json!({"mesh.fairlead.dev/capture": CAPTURE}));
    let wrong = |field: &str, value: Value| {
        let mut wrong = ours.clone();
        wrong[field] = value;
        add("shop", &wrong)
    };
    refused(
        &add("shop", &ours),
        5,
        "failed to enter the network namespace /nowhere",
    );
    refused(
        &wrong("cniVersion", json!("0.2.0")),
        1,
        "cniVersion: found \"0.2.0\", and 0.3.1, 0.4.0, 1.0.0, 1.1.0 are allowed",
    );
    refused(
        &wrong("prevResult", Value::Null),
        7,
        "prevResult: found none",
    );
    let evil = json!({"mesh.fairlead.dev/capture": "{\"nft\":\"/tmp/mine\"}"});
    refused(
        &add("shop", &configuration(&node, &evil)),
        7,
        "metadata.annotations[mesh.fairlead.dev/capture]: capture: found \"nft\"",
    );
    refused(
        &node.call("UPDATE", "/nowhere", &pod("shop"), &ours),
        4,
        "CNI_COMMAND: found \"UPDATE\", and ADD, DEL, CHECK, GC, STATUS and VERSION are allowed",
    );
    // It says which versions it speaks, and whether it can do anything
    let versions = said(&node.call("VERSION", "", "", &json!({"cniVersion": "1.1.0"})));
    assert_eq!(
        versions,
        json!({"cniVersion": "1.1.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
    );
    let output = node.call("STATUS", "", "", &ours);
    assert!(output.status.success() && output.stdout.is_empty());
    node.stop();
    let nft = node.path("programs/fairlead-cni.d/nft");
    fs::write(&nft, "no program").expect("a file");
    refused(
        &node.call("STATUS", "", "", &ours),
        50,
        "no connection can be captured on this node",
    );
}

#[test]
fn the_plugin_stays_in_place_until_it_is_taken_out() {
    let mut node = Node::new("cni-node");
    // The network's own plug-in comes later
    node.start();
    let program = node.path("programs/fairlead-cni");
    node.eventually("the program is there", || program.exists());
    assert!(!node.is_in_place());
    fs::write(node.list(), LIST).expect("a list");
    node.eventually("the plug-in is there", || node.is_in_place());
    // Others write the list anew, take the program away, or come before with a list of theirs
    fs::write(node.list(), LIST.replace("1500", "9000")).expect("a list");
    node.eventually("the plug-in is back in the list", || node.is_in_place());
    let list = fs::read_to_string(node.list()).expect("the list");
    assert!(list.contains("9000"), "{list}");
    fs::remove_file(node.path("programs/fairlead-cni")).expect("it was there");
    node.eventually("the program is back", || node.is_in_place());
    let earlier = node.path("configuration/05-other.conflist");
    fs::write(&earlier, LIST).expect("a list");
    node.eventually("the earlier list has it too", || node.is_in_place());
    // What ends comes back, and changes nothing that is right
    node.stop();
    let before = fs::read_to_string(&earlier).expect("the list");
    node.start();
    node.eventually("nothing changes", || node.is_in_place());
    node.stop();
    assert_eq!(fs::read_to_string(&earlier).expect("the list"), before);
    // Taken out, all is as it was
    let output = node.command().arg("--remove").output().expect("to run");
    assert!(output.status.success(), "{output:?}");
    assert!(!node.is_in_place());
    assert_eq!(fs::read_to_string(&earlier).expect("the list"), LIST);
    assert_eq!(
        fs::read_to_string(node.list()).expect("the list"),
        LIST.replace("1500", "9000")
    );
    let left = fs::read_dir(node.path("programs")).expect("the folder");
    assert_eq!(left.count(), 0);
}

#[test]
fn a_single_plugin_becomes_a_list_and_is_one_again() {
    let mut node = Node::new("cni-single");
    let single = node.path("configuration/10-pods.conf");
    let text = "{\"cniVersion\": \"0.3.1\", \"name\": \"pods\", \"type\": \"bridge\"}\n";
    fs::write(&single, text).expect("a file");
    node.start();
    node.eventually("the plug-in is there", || node.is_in_place());
    assert!(!single.exists() && node.list().exists());
    // Its owner brings it again
    fs::write(&single, text.replace("bridge", "macvlan")).expect("a file");
    let says = |path: &Path, wanted: &str| {
        fs::read_to_string(path).is_ok_and(|text| text.contains(wanted))
    };
    node.eventually("the list follows", || {
        says(&node.list(), "macvlan") && !single.exists()
    });
    assert!(says(&node.list(), "fairlead-cni"));
    node.stop();
    let output = node.command().arg("--remove").output().expect("to run");
    assert!(output.status.success(), "{output:?}");
    assert!(says(&single, "macvlan") && !node.list().exists());
    let left = fs::read_dir(node.path("configuration")).expect("the folder");
    assert_eq!(left.count(), 1);
    // A list that its owner has brought in the meantime stays, without the plug-in
    node.start();
    node.eventually("the plug-in is there again", || node.is_in_place());
    fs::write(node.list(), LIST).expect("a list");
    node.eventually("the owner's list has it", || node.is_in_place());
    node.stop();
    let output = node.command().arg("--remove").output().expect("to run");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(node.list()).expect("the list"), LIST);
}

#[test]
fn what_is_no_list_is_left_and_told() {
    let node = Node::new("cni-wrong");
    fs::write(node.list(), "{\"cniVersion\": \"0.2.0\", \"plugins\": []}").expect("a file");
    let mut child = node.command().stderr(Stdio::piped()).spawn().expect("it");
    let log = BufReader::new(child.stderr.take().expect("its log"));
    let told = log.lines().map_while(Result::ok).find(|line| {
        let line: Value = serde_json::from_str(line).expect("logs are JSON");
        let text = line["fields"]["message"].as_str().unwrap_or_default();
        text.contains("10-pods.conflist: cniVersion: found \"0.2.0\"")
    });
    let _ = child.kill();
    let _ = child.wait();
    assert!(told.is_some(), "it ended and told nobody");
    let output = Command::new(PROXY)
        .args(["cni", "--daemon-set", "fairlead-cni"])
        .output()
        .expect("to run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("--daemon-set") && said.contains("<namespace>/<name>"),
        "{said}"
    );
}
