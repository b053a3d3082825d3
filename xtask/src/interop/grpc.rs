//! gRPC's own tests between implementations: every case that needs no account of a cloud, but for
//! `pick_first_unary`, as gRPC's server in Go names no server in its answers and so fails it without a proxy too.

use anyhow::Result;

use super::{Checks, near};
use crate::command::capture;
use crate::proxies::hop::Carries;
use crate::proxies::place::FAR;
use crate::proxies::process::{Core, Process, Start};
use crate::tools::GRPC_INTEROP;

const PORT: u16 = 15000;
const SERVER: u16 = 9003;

const CASES: [&str; 19] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "orca_per_rpc",
    "orca_oob",
    "rpc_soak",
    "channel_soak",
    "soak_of_many_threads",
];

/// Runs them all.
pub(super) fn run(checks: &mut Checks) -> Result<()> {
    if !checks.wants("grpc") {
        return Ok(());
    }
    let programs = GRPC_INTEROP.ensure()?;
    let server = Process::start(&Start {
        name: "grpc-server",
        program: &programs.join("server"),
        arguments: &[format!("--port={SERVER}")],
        namespace: FAR,
        core: Core::Load,
        folder: checks.place.folder(),
    })?;
    server.listens(SERVER)?;
    let _pair = checks.pair("grpc", Carries::Http, PORT, SERVER, true)?;
    for case in CASES {
        checks.check(&format!("grpc: {case}"), |_| {
            let mut client = near(&programs.join("client").to_string_lossy());
            client.args(["--server_host=127.0.0.1", &format!("--server_port={PORT}")]);
            if case == "soak_of_many_threads" {
                client.args(["--test_case=rpc_soak", "--soak_num_threads=8"]);
                client.args(["--soak_iterations=200", "--soak_overall_timeout_seconds=60"]);
            } else {
                // The cases of load reports look for them in this balancer.
                let orca =
                    r#"{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}"#;
                if case.starts_with("orca") {
                    client.arg(format!("--service_config_json={orca}"));
                }
                client.arg(format!("--test_case={case}"));
            }
            capture(&mut client).map(drop)
        });
    }
    Ok(())
}
