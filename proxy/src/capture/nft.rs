//! The program that gives the kernel its rules: the one of a machine, or one that brings its own libraries.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{Capture, CaptureError, TABLE};

/// `nft`, and how it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nft {
    program: PathBuf,
    /// What loads it, and the folder with its libraries; the machine's own where there is none.
    loader: Option<(PathBuf, PathBuf)>,
}

impl Nft {
    /// The program with the libraries of the machine.
    #[must_use]
    pub fn at(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            loader: None,
        }
    }

    /// The program of a folder, with all that it loads there; one that needs no loader has none there.
    #[must_use]
    pub fn within(folder: &Path) -> Self {
        let loader = folder.join(Self::LOADER);
        Self {
            program: folder.join(Self::PROGRAM),
            loader: loader.exists().then(|| (loader, folder.to_owned())),
        }
    }

    /// The names of the program and its loader in such a folder.
    pub const PROGRAM: &str = "nft";
    /// See [`Self::PROGRAM`].
    pub const LOADER: &str = "loader";

    /// Whether the program is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.program.exists()
    }

    fn command(&self) -> Command {
        match &self.loader {
            None => Command::new(&self.program),
            Some((loader, folder)) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(folder).arg(&self.program);
                command
            }
        }
    }

    /// Runs it; what it said.
    ///
    /// # Errors
    /// When it cannot be run, or does not end well.
    pub fn run(&self, arguments: &[&str], input: &str) -> Result<String, CaptureError> {
        let program = || self.program.display().to_string();
        let run = || -> io::Result<Output> {
            let mut child = self
                .command()
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut pipe) = child.stdin.take() {
                pipe.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        };
        let output = run().map_err(|source| CaptureError::Run {
            program: program(),
            source,
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(CaptureError::Refused {
            program: program(),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// Hands rules to `nft`; all of them take effect, or none.
///
/// # Errors
/// When the program cannot be run, or refuses, which it does without the right to administer the network (NET_ADMIN).
pub fn apply(nft: &Nft, rules: &str) -> Result<(), CaptureError> {
    nft.run(&["--file", "-"], rules).map(drop)
}

/// Whether this network namespace has the rules of a capture.
///
/// # Errors
/// When the program cannot be run, or refuses, which it does where there are none at all.
pub fn in_force(nft: &Nft, capture: &Capture) -> Result<bool, CaptureError> {
    let arguments: Vec<&str> = ["list", "table"]
        .into_iter()
        .chain(TABLE.split(' '))
        .collect();
    let rules = nft.run(&arguments, "")?;
    let mut ports = [capture.outbound, capture.inbound].into_iter().flatten();
    Ok(ports.all(|port| {
        let redirect = format!("redirect to :{port}");
        rules
            .lines()
            .any(|line| line.trim_end().ends_with(&redirect))
    }))
}
