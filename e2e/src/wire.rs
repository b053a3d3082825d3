//! What goes over the node's network, as anybody on the node sees it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

/// All protocols (`ETH_P_ALL`), as the network writes it.
const ALL: u16 = 0x0003_u16.to_be();

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// HTTP in plain text: from, and to.
    pub plain: BTreeSet<(IpAddr, IpAddr)>,
    /// Records of TLS: from, and to.
    pub secured: BTreeSet<(IpAddr, IpAddr)>,
}

impl Seen {
    /// Whether each of two sent TLS to the other.
    #[must_use]
    pub fn is_secured(&self, one: impl Into<IpAddr>, other: impl Into<IpAddr>) -> bool {
        let both = both_ways(one.into(), other.into());
        both.iter().all(|pair| self.secured.contains(pair))
    }

    /// Whether either of two sent HTTP in plain text to the other.
    #[must_use]
    pub fn is_plain(&self, one: impl Into<IpAddr>, other: impl Into<IpAddr>) -> bool {
        let both = both_ways(one.into(), other.into());
        both.iter().any(|pair| self.plain.contains(pair))
    }

    /// Whether somebody sent HTTP in plain text to an address.
    #[must_use]
    pub fn is_plain_to(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        self.plain.iter().any(|(_, to)| *to == address)
    }
}

fn both_ways(one: IpAddr, other: IpAddr) -> [(IpAddr, IpAddr); 2] {
    [(one, other), (other, one)]
}

/// A look at all interfaces of the node, until it is dropped.
pub struct Wire {
    seen: Arc<Mutex<Seen>>,
    ends: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

impl Wire {
    /// Begins to look, in the network namespace of the lab's node.
    ///
    /// # Errors
    /// When this process may not.
    pub fn tap() -> Result<Self> {
        let cluster = std::env::var("FAIRLEAD_CLUSTER").context("FAIRLEAD_CLUSTER is not set")?;
        let opening = std::thread::spawn(move || open(&cluster));
        let opened = opening.join();
        let mut socket = opened.map_err(|_| anyhow!("failed to look for the node"))??;
        let own = Self {
            seen: Arc::default(),
            ends: Arc::default(),
        };
        let (seen, ends) = (Arc::clone(&own.seen), Arc::clone(&own.ends));
        std::thread::spawn(move || {
            let mut frame = vec![0; 65536];
            while !ends.load(Ordering::Relaxed) {
                if let Ok(length) = socket.read(&mut frame) {
                    look(&frame[..length], &seen);
                }
            }
        });
        Ok(own)
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A socket of the node's network: it stays there whichever thread reads it.
fn open(cluster: &str) -> Result<Socket> {
    let path = format!("/run/netns/fairlead-{cluster}");
    let node = File::open(&path).with_context(|| format!("failed to open {path}"))?;
    move_into_link_name_space(node.as_fd(), Some(LinkNameSpaceType::Network))
        .context("failed to enter the node's network")?;
    let protocol = Some(Protocol::from(i32::from(ALL)));
    let socket = Socket::new(Domain::PACKET, Type::RAW, protocol);
    let socket = socket.context("failed to open a packet socket")?;
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .context("failed to bound the wait")?;
    Ok(socket)
}

/// The network's protocol of TCP.
const TCP: u8 = 6;

/// Looks into a frame of Ethernet with TCP in it, over IPv4 or IPv6 without extensions.
fn look(frame: &[u8], seen: &Mutex<Seen>) -> Option<()> {
    let packet = frame.get(14..)?;
    let (pair, tcp): ((IpAddr, IpAddr), _) = match frame[12..14] {
        [0x08, 0x00] if *packet.get(9)? == TCP => {
            let address = |from: usize| {
                let bytes: [u8; 4] = packet.get(from..from + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(bytes).into())
            };
            let pair = (address(12)?, address(16)?);
            (pair, packet.get(usize::from(packet[0] & 15) * 4..)?)
        }
        [0x86, 0xdd] if *packet.get(6)? == TCP => {
            let address = |from: usize| {
                let bytes: [u8; 16] = packet.get(from..from + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            };
            ((address(8)?, address(24)?), packet.get(40..)?)
        }
        _ => return None,
    };
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    let is_plain =
        payload.starts_with(b"PRI * HTTP/2") || payload.windows(8).any(|part| part == b"HTTP/1.1");
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if is_plain {
        seen.plain.insert(pair);
    } else if matches!(payload, [20..=23, 3, ..]) {
        seen.secured.insert(pair);
    }
    Some(())
}
