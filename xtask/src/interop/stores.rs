//! PostgreSQL and Redis as TCP: real servers behind the inbound proxy, their own clients before the outbound one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Checks, near, says};
use crate::command::{capture, command};
use crate::proxies::hop::Carries;
use crate::proxies::place::FAR;
use crate::proxies::process::{Core, Process, Start, placed};

const POSTGRES: u16 = 15020;
const POSTGRES_SERVER: u16 = 5432;
const REDIS: u16 = 15021;
const REDIS_SERVER: u16 = 6379;

/// psql and pgbench.
pub(super) fn postgres(checks: &mut Checks) -> Result<()> {
    if !checks.wants("postgres") {
        return Ok(());
    }
    let data = Data::new()?;
    let _server = postgres_server(&data.0, checks.place.folder())?;
    let _pair = checks.pair("postgres", Carries::Tcp, POSTGRES, POSTGRES_SERVER, false)?;
    let port = POSTGRES.to_string();
    let client = |program: &str, arguments: &[&str]| {
        let mut client = near(program);
        client
            .env("PGCONNECT_TIMEOUT", "10")
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"])
            .args(arguments);
        client
    };
    let ask = |query: &str| client("/usr/bin/psql", &["-At", "-c", query]);
    checks.check("postgres: psql", |_| says(&mut ask("select 6 * 7"), "42"));
    checks.check("postgres: 8 MB in one answer", |_| {
        let said = capture(&mut ask("select repeat('x', 8000000)"))?;
        anyhow::ensure!(said.trim().len() == 8_000_000, "{} bytes came", said.len());
        Ok(())
    });
    checks.check(
        "postgres: pgbench, 8 clients, 200 transactions each",
        |_| {
            let bench = "/usr/bin/pgbench";
            capture(&mut client(bench, &["--initialize", "--quiet", "postgres"]))?;
            says(
                &mut client(bench, &["-c", "8", "-t", "200", "postgres"]),
                "actually processed: 1600/1600",
            )
        },
    );
    checks.check(
        "postgres: pgbench, a connection for each transaction",
        |_| {
            let words = ["-C", "-S", "-c", "4", "-t", "50", "postgres"];
            says(
                &mut client("/usr/bin/pgbench", &words),
                "actually processed: 200/200",
            )
        },
    );
    Ok(())
}

/// redis-cli and redis-benchmark.
pub(super) fn redis(checks: &mut Checks) -> Result<()> {
    if !checks.wants("redis") {
        return Ok(());
    }
    let words = ["--bind", "127.0.0.1", "--save", "", "--port"];
    let arguments = words.map(str::to_owned).into_iter();
    let server = Process::start(&Start {
        name: "redis-server",
        program: Path::new("/usr/bin/redis-server"),
        arguments: &arguments
            .chain([REDIS_SERVER.to_string()])
            .collect::<Vec<_>>(),
        namespace: FAR,
        core: Core::Load,
        folder: checks.place.folder(),
    })?;
    server.listens(REDIS_SERVER)?;
    let _pair = checks.pair("redis", Carries::Tcp, REDIS, REDIS_SERVER, false)?;
    let port = REDIS.to_string();
    let client = |program: &str, arguments: &[&str]| {
        let mut client = near(program);
        client.args(["-p", &port]).args(arguments);
        client
    };
    let cli = |arguments: &[&str]| client("/usr/bin/redis-cli", arguments);
    checks.check("redis: redis-cli", |_| {
        says(&mut cli(&["ping"]), "PONG")?;
        says(&mut cli(&["set", "where", "through"]), "OK")?;
        says(&mut cli(&["get", "where"]), "through")
    });
    checks.check("redis: a value of 8 MB", |_| {
        let script = "return string.len(redis.call('get', KEYS[1]))";
        says(&mut cli(&["setrange", "large", "7999999", "x"]), "8000000")?;
        let said = capture(&mut cli(&["get", "large"]))?;
        anyhow::ensure!(said.len() >= 8_000_000, "{} bytes came", said.len());
        says(&mut cli(&["eval", script, "1", "large"]), "8000000")
    });
    checks.check("redis: redis-benchmark, 50 clients", |_| {
        let words = ["-q", "-n", "20000", "-c", "50", "-t", "set,get,lpush"];
        says(&mut client("/usr/bin/redis-benchmark", &words), "LPUSH: ")
    });
    checks.check("redis: redis-benchmark, 16 requests in a pipeline", |_| {
        let words = ["-q", "-n", "50000", "-P", "16", "-t", "set,get"];
        says(&mut client("/usr/bin/redis-benchmark", &words), "GET: ")
    });
    Ok(())
}

/// The folder of PostgreSQL, which does not run as root and so has it outside the cache; gone when dropped.
struct Data(PathBuf);

impl Data {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join("fairlead-interop-postgres");
        // A killed run leaves it.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        capture(command("chown", ["postgres"]).arg(&folder))?;
        Ok(Self(folder))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The server as its own user, with the data of a fresh installation.
fn postgres_server(data: &Path, folder: &Path) -> Result<Process> {
    let programs = newest(Path::new("/usr/lib/postgresql"))?.join("bin");
    // A change of user takes back that it ends with this process, so that it is said once more.
    let as_user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
    let as_user = as_user.into_iter().chain(["--pdeathsig", "KILL"]);
    let setpriv = Path::new("/usr/bin/setpriv");
    let mut initdb = placed(FAR, Core::Load, setpriv);
    initdb
        .args(as_user.clone())
        .arg(programs.join("initdb"))
        .args(["--no-sync", "--auth=trust", "--username=postgres", "-D"])
        .arg(data)
        .current_dir(data);
    capture(&mut initdb)?;
    let listen = [
        "-c".to_owned(),
        "listen_addresses=127.0.0.1".to_owned(),
        "-c".to_owned(),
        format!("unix_socket_directories={}", data.display()),
        "-p".to_owned(),
        POSTGRES_SERVER.to_string(),
        "-F".to_owned(),
    ];
    let arguments: Vec<String> = as_user
        .map(str::to_owned)
        .chain([
            programs.join("postgres").display().to_string(),
            "-D".to_owned(),
            data.display().to_string(),
        ])
        .chain(listen)
        .collect();
    let server = Process::start(&Start {
        name: "postgres",
        program: setpriv,
        arguments: &arguments,
        namespace: FAR,
        core: Core::Load,
        folder,
    })?;
    server.listens(POSTGRES_SERVER)?;
    Ok(server)
}

/// The subfolder with the greatest number as its name.
fn newest(folder: &Path) -> Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .max_by_key(|path| path.file_name()?.to_str()?.parse::<u32>().ok())
        .with_context(|| format!("no version below {}", folder.display()))
}
