//! Live figures of the mesh, from its control plane.
//!
//! [`session`] reaches a replica, [`shown`] is what people and programs are told.

mod session;
mod shown;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::anyhow;
use clap::ValueEnum;
use fairlead_xds::figures::{By, TopRequest};
use tonic::{Code, Status};

use self::session::Session;
use self::shown::Shown;
use crate::Ended;
use crate::cluster::Target;
use crate::output::{self, Format};

/// How often is looked again.
const PAUSE: Duration = Duration::from_secs(1);
/// What clears a terminal.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// What is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// By what requests are added up.
    #[arg(value_enum, default_value_t = Of::Services)]
    of: Of,
    /// All namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Show again every second.
    #[arg(long, short)]
    watch: bool,
    /// How far back, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    window: u32,
    /// The service account that asks, as NAMESPACE/NAME; you have to be allowed to make tokens of it. The one of the installation,
    /// which sees all, where unset.
    #[arg(long)]
    account: Option<String>,
    /// The namespace of the installation.
    #[arg(long, default_value = "fairlead-system")]
    system: String,
}

/// By what requests are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    /// By the service that is called.
    Services,
    /// By the service that is called, and the route to it.
    Routes,
    /// By caller and service.
    Pairs,
    /// By the workload that calls.
    Workloads,
    /// Connections to what is no service of the mesh, by the name asked for in TLS, else by address.
    Destinations,
}

impl Of {
    fn by(self) -> By {
        match self {
            Self::Services => By::Service,
            Self::Routes => By::Route,
            Self::Pairs => By::Pair,
            Self::Workloads => By::Workload,
            Self::Destinations => By::Destination,
        }
    }
}

/// Prints the figures, once or again and again.
pub(crate) async fn top(
    target: &Target,
    format: Format,
    arguments: Arguments,
) -> anyhow::Result<Ended> {
    let (client, namespace) = target.client().await?;
    let request = TopRequest {
        seconds: arguments.window,
        by: arguments.of.by().into(),
        namespace: match arguments.all_namespaces {
            true => String::new(),
            false => namespace,
        },
    };
    let mut session = Session::open(&client, &arguments).await?;
    loop {
        let told = match session.ask(&request).await {
            // The replica ends, or the token did.
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unauthenticated) => {
                session = Session::open(&client, &arguments).await?;
                session.ask(&request).await
            }
            told => told,
        };
        let told = told.map_err(|status| refused(&status))?;
        let shown = Shown::of(&told);
        if !output::print(format, &shown)? {
            let text = output::plain(&shown.text(arguments.of, &request.namespace));
            let is_screen = arguments.watch && std::io::stdout().is_terminal();
            output::write(&format!("{}{text}", if is_screen { CLEAR } else { "" }));
        }
        if !arguments.watch {
            return Ok(Ended::Done);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn refused(status: &Status) -> anyhow::Error {
    let error = anyhow!("{}", status.message());
    match status.code() {
        Code::PermissionDenied => error.context("choose another service account with --account"),
        _ => error.context("failed to read the figures"),
    }
}
