//! Whether a pod's connections come to its proxy, found out by one that may do nothing but connect.
//!
//! It stands where the proxy will stand and connects to an address that nobody has (RFC 5737, RFC 3849): only where capture is in
//! force does it meet itself. The rules of both directions are put in place at once, so that one tells of the other.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::Capture;

/// How long a connection may take, and the answer on it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Addresses that nobody has.
const NOBODY: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The exit code of one that found out that nothing captures; nothing else ends so. Linkerd's network validator has it, too.
pub const NOT_CAPTURED: u8 = 95;

/// Why capture is not known to be in force.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The proxy's place is taken.
    #[error("failed to listen on {port}, where the proxy will: {source}")]
    Listen {
        /// Which.
        port: u16,
        /// The cause.
        source: io::Error,
    },
    /// It is not.
    #[error("connections of this pod do not come to its proxy: {tried}")]
    NotCaptured {
        /// What was tried, and what came of it.
        tried: String,
    },
}

/// Finds out whether connections that begin here come to the proxy's port, which is free yet. Where all of them are to be left
/// alone there is nothing to find out.
///
/// # Errors
/// When they do not come, or the port is taken.
pub fn verify(capture: &Capture) -> Result<(), VerifyError> {
    let Some(port) = capture.outbound else {
        return Ok(());
    };
    let targets = targets(capture);
    if targets.is_empty() {
        return Ok(());
    }
    let token = fastrand::u64(..).to_be_bytes();
    let listener = listen(port).map_err(|source| VerifyError::Listen { port, source })?;
    thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            let _ = caller.write_all(&token);
        }
    });
    let mut tried = Vec::new();
    for target in targets {
        match ask(target) {
            Ok(answer) if answer == token => return Ok(()),
            Ok(_) => tried.push(format!("{target}: somebody else answers")),
            Err(error) => tried.push(format!("{target}: {error}")),
        }
    }
    Err(VerifyError::NotCaptured {
        tried: tried.join("; "),
    })
}

/// Over IPv6 and IPv4, or over IPv4 alone where a machine has no other.
fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Err(error),
        _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
    })
}

/// One address of each family that is to be captured.
fn targets(capture: &Capture) -> Vec<SocketAddr> {
    let is_skipped = |port: u16| capture.skip_outbound.iter().any(|own| own.contains(port));
    let Some(port) = (1..=u16::MAX).rev().find(|port| !is_skipped(*port)) else {
        return Vec::new();
    };
    let free = |address: &&IpAddr| {
        let mut networks = capture.skip_networks.iter();
        !networks.any(|network| network.contains(*address))
    };
    let of = |is_v4: bool| {
        NOBODY
            .iter()
            .filter(free)
            .find(|own| own.is_ipv4() == is_v4)
    };
    let both = [of(true), of(false)].into_iter().flatten();
    both.map(|address| SocketAddr::new(*address, port))
        .collect()
}

fn ask(target: SocketAddr) -> io::Result<[u8; 8]> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_alone_is_not_asked() {
        let mut capture = Capture {
            outbound: Some(15001),
            skip_outbound: vec!["60000-65535".parse().expect("ports")],
            skip_networks: vec!["192.0.2.0/24".parse().expect("a network")],
            ..Capture::default()
        };
        let shown = |capture: &Capture| -> Vec<String> {
            targets(capture).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            shown(&capture),
            ["198.51.100.1:59999", "[2001:db8::1]:59999"]
        );
        capture.skip_networks = vec!["0.0.0.0/0".parse().expect("a network")];
        assert_eq!(shown(&capture), ["[2001:db8::1]:59999"]);
        capture.skip_outbound = vec!["1-65535".parse().expect("ports")];
        assert_eq!(shown(&capture), Vec::<String>::new());
        assert!(verify(&capture).is_ok(), "there is nothing to find out");
    }
}
