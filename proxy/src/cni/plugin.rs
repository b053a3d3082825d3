//! What the container runtime calls: a verb in the environment, a configuration at standard input, an answer at standard output.
//!
//! <https://www.cni.dev/docs/spec/>, 1.1. Nothing outlives a pod's network, so that DEL and GC have nothing to do.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Map, Value, json};

use super::{ANNOTATIONS, CAPTURE, PLUGIN, TOOLS, VERSIONS, check_version};
use crate::capture::{self, Capture, CaptureError, Nft};

/// nft of a machine whose plug-in has none beside it.
const NFT: &str = "/usr/sbin/nft";

/// Why the runtime is refused; it tries again, and the pod waits.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It speaks another version.
    #[error("cniVersion: {0}")]
    Version(String),
    /// The environment lacks something.
    #[error("{name}: {problem}")]
    Environment {
        /// Which variable.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Something cannot be read or written.
    #[error("failed to {action}: {source}")]
    Io {
        /// What was to be done.
        action: String,
        /// The cause.
        source: io::Error,
    },
    /// The configuration is no JSON.
    #[error("the configuration at standard input: {0}")]
    Decode(serde_json::Error),
    /// The configuration, or an annotation, says nothing.
    #[error("{field}: {problem}")]
    Configuration {
        /// Which field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The rules are not in place.
    #[error("failed to capture the connections of the pod: {0}")]
    Capture(CaptureError),
    /// They are not as the pod says.
    #[error("the connections of the pod are not captured as its annotation {CAPTURE} says")]
    NotInForce,
    /// Nothing could be captured.
    #[error("no connection can be captured on this node: {0}")]
    Unavailable(CaptureError),
}

impl PluginError {
    /// The code that the interface has for it; from 100 on, the plug-in's own.
    fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment { .. } => 4,
            Self::Io { .. } => 5,
            Self::Decode(_) => 6,
            Self::Configuration { .. } => 7,
            Self::Unavailable(_) => 50,
            Self::Capture(_) => 100,
            Self::NotInForce => 101,
        }
    }
}

/// Whether a program was called as the plug-in is.
#[must_use]
pub fn is_called(program: Option<&OsStr>) -> bool {
    let name = program.and_then(|own| Path::new(own).file_name());
    name.is_some_and(|name| name == PLUGIN)
}

/// Does what the runtime says, and answers it.
#[must_use]
pub fn main() -> ExitCode {
    let mut text = String::new();
    let read = io::stdin().read_to_string(&mut text);
    let read = read.map_err(|source| PluginError::Io {
        action: "read the configuration at standard input".to_owned(),
        source,
    });
    let answer = read.and_then(|_| answer(&text));
    let (answer, code) = match answer {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => (Some(refusal(&text, &error)), ExitCode::FAILURE),
    };
    let written = answer.map_or(Ok(()), |answer| {
        io::stdout().write_all(answer.to_string().as_bytes())
    });
    match written {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// An error as the interface has it, in the version of the configuration where that is spoken.
fn refusal(text: &str, error: &PluginError) -> Value {
    let asked: Option<Value> = serde_json::from_str(text).ok();
    let asked = asked.as_ref().and_then(|own| own["cniVersion"].as_str());
    let version = asked.filter(|own| check_version(own).is_ok());
    json!({
        "cniVersion": version.unwrap_or(VERSIONS[VERSIONS.len() - 1]),
        "code": error.code(),
        "msg": format!("{PLUGIN}: {error}"),
    })
}

/// What to say to the runtime, if anything.
fn answer(text: &str) -> Result<Option<Value>, PluginError> {
    let verb = variable("CNI_COMMAND")?;
    match verb.as_str() {
        "ADD" => add(&Configuration::parse(text)?).map(Some),
        "CHECK" => check(&Configuration::parse(text)?).map(|()| None),
        "DEL" | "GC" => Ok(None),
        "STATUS" => {
            let said = nft()?.run(&["--version"], "");
            said.map(|_| None).map_err(PluginError::Unavailable)
        }
        "VERSION" => {
            let latest = VERSIONS[VERSIONS.len() - 1];
            let versions = json!({"cniVersion": latest, "supportedVersions": VERSIONS});
            Ok(Some(versions))
        }
        other => Err(PluginError::Environment {
            name: "CNI_COMMAND",
            problem: format!(
                "found {other:?}, and ADD, DEL, CHECK, GC, STATUS and VERSION are allowed"
            ),
        }),
    }
}

/// Captures what the pod wants captured; what others made is handed on as it is.
fn add(configuration: &Configuration) -> Result<Value, PluginError> {
    let previous = configuration.previous()?;
    if let Some(capture) = configuration.wanted()? {
        let nft = nft()?;
        enter()?;
        capture::apply(&nft, &capture.rules()).map_err(PluginError::Capture)?;
    }
    Ok(previous.clone())
}

fn check(configuration: &Configuration) -> Result<(), PluginError> {
    configuration.previous()?;
    let Some(capture) = configuration.wanted()? else {
        return Ok(());
    };
    let nft = nft()?;
    enter()?;
    match capture::in_force(&nft, &capture).map_err(PluginError::Capture)? {
        true => Ok(()),
        false => Err(PluginError::NotInForce),
    }
}

fn variable(name: &'static str) -> Result<String, PluginError> {
    std::env::var(name).map_err(|_| PluginError::Environment {
        name,
        problem: "found nothing; the container runtime that calls this program sets it".to_owned(),
    })
}

/// What the runtime says of the pod in `CNI_ARGS`.
fn argument(name: &str) -> Option<String> {
    let all = std::env::var("CNI_ARGS").ok()?;
    let mut pairs = all.split(';').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(own, _)| *own == name)?;
    Some(found.1.to_owned()).filter(|value| !value.is_empty())
}

/// nft beside this program, or the machine's.
fn nft() -> Result<Nft, PluginError> {
    let own = std::env::current_exe().map_err(|source| PluginError::Io {
        action: "find this program's own file".to_owned(),
        source,
    })?;
    let beside = Nft::within(&own.with_file_name(TOOLS));
    Ok(match beside.exists() {
        true => beside,
        false => Nft::at(Path::new(NFT)),
    })
}

/// Enters the network namespace of the pod.
fn enter() -> Result<(), PluginError> {
    let path = PathBuf::from(variable("CNI_NETNS")?);
    let failed = |source| PluginError::Io {
        action: format!("enter the network namespace {}", path.display()),
        source,
    };
    let file = File::open(&path).map_err(failed)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| failed(error.into()))
}

/// What the runtime says.
struct Configuration(Map<String, Value>);

impl Configuration {
    fn parse(text: &str) -> Result<Self, PluginError> {
        let fields: Map<String, Value> = serde_json::from_str(text).map_err(PluginError::Decode)?;
        let version = fields.get("cniVersion").and_then(Value::as_str);
        check_version(version.unwrap_or_default()).map_err(PluginError::Version)?;
        Ok(Self(fields))
    }

    /// What the plug-ins before this one made.
    fn previous(&self) -> Result<&Value, PluginError> {
        let found = self.0.get("prevResult").filter(|found| found.is_object());
        found.ok_or_else(|| PluginError::Configuration {
            field: "prevResult".to_owned(),
            problem: format!(
                "found none; {PLUGIN} stands in a list behind the plug-in that makes the network"
            ),
        })
    }

    /// What is to be captured of the pod; nothing of one that is not of the mesh.
    fn wanted(&self) -> Result<Option<Capture>, PluginError> {
        let Some(namespace) = argument("K8S_POD_NAMESPACE") else {
            // No pod of Kubernetes: none that was injected.
            return Ok(None);
        };
        let exempt = self.0.get("exemptNamespaces").and_then(Value::as_array);
        if exempt.is_some_and(|list| list.iter().any(|own| *own == *namespace)) {
            return Ok(None);
        }
        let handed = self.0.get("runtimeConfig");
        let Some(annotations) = handed.and_then(|handed| handed.get(ANNOTATIONS)) else {
            return Err(PluginError::Configuration {
                field: format!("runtimeConfig[{ANNOTATIONS}]"),
                problem: format!(
                    "found none, so nobody knows whether the pod belongs to the mesh; containerd and CRI-O hand it over where the \
                     entry of {PLUGIN} in the node's CNI configuration has \"capabilities\": {{\"{ANNOTATIONS}\": true}}"
                ),
            });
        };
        let Some(wanted) = annotations.get(CAPTURE) else {
            return Ok(None);
        };
        let text = wanted.as_str().unwrap_or_default();
        let parsed = Capture::parse(text).map_err(|error| PluginError::Configuration {
            field: format!("metadata.annotations[{CAPTURE}]"),
            problem: error.to_string(),
        });
        parsed.map(Some)
    }
}
