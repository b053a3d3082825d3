//! The example application: a shop of three services that use PostgreSQL and Redis for real.
//!
//! Why this exists: canaries, meshes, alerts and rollbacks have to be shown on something that has dependencies, speaks
//! HTTP between its parts, restarts cleanly, and fails on request. `shop frontend` renders the page, `shop catalog`
//! keeps the products in PostgreSQL, `shop cart` keeps the carts in Redis. Every service listens on `LISTEN`
//! (`0.0.0.0:8080`) and answers `/healthz`, `/readyz`, `/metrics` and `/faults`.

mod cart;
mod catalog;
mod client;
mod config;
mod faults;
mod frontend;
mod load;
mod metrics;
mod reply;
mod resolve;
mod server;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "shop",
    version,
    about = "The example application: a shop of three services"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the page (CATALOG_URL, CART_URL)
    Frontend,
    /// Serve the products (PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE or DATABASE_URL)
    Catalog,
    /// Serve the carts (REDIS_HOST, REDIS_PORT, REDIS_PASSWORD)
    Cart,
    /// Wait for the database and apply the migrations
    Migrate,
    /// Send requests at a steady rate and print a summary
    Load(load::LoadArguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Load(arguments) = arguments.command {
        return load::run(arguments).await;
    }
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
                tracing_subscriber::EnvFilter::new(
                    "info,tokio_postgres=warn,hickory_resolver=error,hickory_net=error",
                )
            }),
        )
        .init();
    let environment = config::Environment::of_process();
    let outcome = match arguments.command {
        Command::Frontend => frontend::run(&environment).await,
        Command::Catalog => catalog::run(&environment).await,
        Command::Cart => cart::run(&environment).await,
        Command::Migrate => catalog::migrate(&environment).await,
        Command::Load(_) => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "stopped");
            ExitCode::FAILURE
        }
    }
}
