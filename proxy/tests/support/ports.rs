//! Addresses for programs that are told where to listen.
//!
//! A port that is picked by the kernel and given up may go to any connection until the program listens there. These are below
//! the ports that the kernel picks, and each is kept for its test by a socket of the other protocol.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Mutex;

/// Below what Linux gives to connections (net.ipv4.ip_local_port_range).
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// How far the first ports of two processes are apart.
const STRIDE: u32 = 61;

/// A TCP address that nobody else gets as long as this process runs.
#[allow(dead_code, reason = "every test uses a part")]
pub fn free() -> SocketAddr {
    static KEPT: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    reserve(
        &KEPT,
        UdpSocket::bind::<SocketAddr>,
        TcpListener::bind::<SocketAddr>,
    )
}

/// The same of UDP.
#[allow(dead_code, reason = "every test uses a part")]
pub fn free_udp() -> SocketAddr {
    static KEPT: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    reserve(
        &KEPT,
        TcpListener::bind::<SocketAddr>,
        UdpSocket::bind::<SocketAddr>,
    )
}

fn reserve<K, T>(
    kept: &Mutex<Vec<K>>,
    keep: impl Fn(SocketAddr) -> io::Result<K>,
    take: impl Fn(SocketAddr) -> io::Result<T>,
) -> SocketAddr {
    let count = u32::from(PORTS.end - PORTS.start);
    let first = std::process::id().wrapping_mul(STRIDE) % count;
    for step in 0..count {
        let port = u32::from(PORTS.start) + (first + step) % count;
        let address = (Ipv4Addr::LOCALHOST, u16::try_from(port).expect("a port")).into();
        let Ok(socket) = keep(address) else { continue };
        if take(address).is_ok() {
            kept.lock().expect("nobody panicked").push(socket);
            return address;
        }
    }
    panic!("no port of {PORTS:?} is free");
}
