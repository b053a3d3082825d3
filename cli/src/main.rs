//! `kubectl fairlead`: what developers and operators ask of Fairlead from a terminal.
//!
//! `lint` and `plan` run the operator's own code, without a cluster if asked to. Exit codes: 0 done, 1 failed, 2 wrong use or
//! invalid input, 3 not ready.

/// Answers people with some text. A reader that has gone, such as `head`, ends the command.
macro_rules! put {
    ($($text:tt)*) => { $crate::output::write(&$crate::output::plain(&format!($($text)*))) };
}

/// Answers with a line.
macro_rules! say {
    ($($text:tt)*) => { put!("{}\n", format_args!($($text)*)) };
}

mod cluster;
mod deploy;
mod files;
mod mesh;
mod output;
mod score;
mod show;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::output::Format;

/// Fairlead from the terminal: what runs, why, and what comes next.
#[derive(Parser)]
#[command(name = "kubectl-fairlead", bin_name = "kubectl fairlead", version)]
struct Arguments {
    /// The application: the namespace of its environments and workloads.
    #[arg(long, short, global = true)]
    namespace: Option<String>,
    /// The context of the kubeconfig.
    #[arg(long, global = true)]
    context: Option<String>,
    /// How to answer.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Work with Score files.
    Score {
        #[command(subcommand)]
        command: ScoreCommand,
    },
    /// Release the workloads of the application to an environment.
    Deploy {
        /// The environment.
        environment: String,
        /// Only these workloads change; the others stay as the running release has them.
        #[arg(long = "workload", short)]
        workloads: Vec<String>,
        /// Consent to the deletion of stateful resources that are no longer needed, with their data.
        #[arg(long)]
        delete_data: bool,
        /// Wait until the release is ready, at most so many seconds.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300")]
        wait: Option<u64>,
    },
    /// Release again what an environment ran before.
    Rollback {
        /// The environment.
        environment: String,
        /// The release to repeat; the one before the running one where unset.
        #[arg(long)]
        to: Option<String>,
        /// Wait until the release is ready, at most so many seconds.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300")]
        wait: Option<u64>,
    },
    /// Show what runs and why it is not ready; exits with 3 while anything is not.
    Status {
        /// The environment; all of the application where unset.
        environment: Option<String>,
        /// Show again whenever it changes.
        #[arg(long, short)]
        watch: bool,
    },
    /// Tell which definition provides a resource, and why the others do not.
    Explain {
        /// The environment.
        environment: String,
        /// The resource, as WORKLOAD.RESOURCE.
        resource: String,
    },
    /// Show what a release would do, without doing it.
    Plan {
        /// The environment.
        environment: String,
        /// Files or folders with workloads, and with --offline also classes, definitions and environments.
        #[arg(long = "file", short)]
        files: Vec<PathBuf>,
        /// Use nothing but the files.
        #[arg(long)]
        offline: bool,
    },
    /// Look at the mesh.
    Mesh {
        #[command(subcommand)]
        command: MeshCommand,
    },
    /// Show how many requests there are in the mesh, how they end and how long they take.
    Top(top::Arguments),
    /// Check files as admission does, without a cluster.
    Lint {
        /// Files or folders with Score files or Fairlead's objects.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print a completion script.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum ScoreCommand {
    /// Turn Score files into workloads of the application, and apply them unless -o yaml or -o json is given.
    Import {
        /// The Score files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The image for containers whose image is "." in the file.
        #[arg(long)]
        image: Option<String>,
    },
}

#[derive(Subcommand)]
enum MeshCommand {
    /// Tell which policies count for a Service and its pods, field by field, and which authorizations do.
    Explain {
        /// The Service.
        service: String,
        /// The pod whose requests are meant, as POD or NAMESPACE/POD; those of anybody where unset.
        #[arg(long, value_name = "POD")]
        from: Option<String>,
    },
}

/// Why a command ended, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It is done.
    Done,
    /// The input is invalid.
    Invalid,
    /// Something is not ready.
    NotReady,
}

/// Wrong use that only shows once the command runs, or input that is invalid.
#[derive(Debug)]
struct Misuse(String);

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// The exit code of an error.
fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<Misuse>() { 2 } else { 1 }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("error: failed to choose the TLS provider");
        return ExitCode::from(1);
    }
    match run(arguments).await {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Invalid) => ExitCode::from(2),
        Ok(Ended::NotReady) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {}", output::plain(&format!("{error:#}")));
            ExitCode::from(code_of(&error))
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let target = cluster::Target {
        namespace: arguments.namespace,
        context: arguments.context,
    };
    let format = arguments.output;
    match arguments.command {
        Command::Score {
            command: ScoreCommand::Import { files, image },
        } => score::import(&target, format, &files, image.as_deref()).await,
        Command::Deploy {
            environment,
            workloads,
            delete_data,
            wait,
        } => {
            let request = deploy::Request {
                environment,
                workloads,
                delete_data,
                wait,
            };
            deploy::deploy(&target, format, request).await
        }
        Command::Rollback {
            environment,
            to,
            wait,
        } => deploy::rollback(&target, format, &environment, to, wait).await,
        Command::Status { environment, watch } => {
            show::status(&target, format, environment.as_deref(), watch).await
        }
        Command::Explain {
            environment,
            resource,
        } => show::explain(&target, format, &environment, &resource).await,
        Command::Plan {
            environment,
            files,
            offline,
        } => show::plan(&target, format, &environment, &files, offline).await,
        Command::Mesh {
            command: MeshCommand::Explain { service, from },
        } => mesh::explain(&target, format, &service, from.as_deref()).await,
        Command::Top(arguments) => top::top(&target, format, arguments).await,
        Command::Lint { files } => files::lint(format, &files),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "kubectl-fairlead", &mut script);
            output::write(&String::from_utf8(script)?);
            Ok(Ended::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn invalid_input_has_an_exit_code_of_its_own() {
        let misuse = anyhow::Error::new(Misuse("x".to_owned()));
        assert_eq!(code_of(&misuse), 2);
        assert_eq!(code_of(&anyhow::anyhow!("x")), 1);
    }
}
