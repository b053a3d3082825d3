//! Endpoints with manners: threads of this process in the near namespace, beside the load. Each takes its time for an answer, so that
//! a client with some connections keeps a handful of requests waiting at each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::proxies::place::{NEAR, within};

/// How long a good answer takes.
const USUAL: Duration = Duration::from_millis(5);
/// How many answers there are for one that is late.
const SELDOM: u64 = 100;

/// How an endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// After 5 ms.
    Usual,
    /// After so long.
    Slow(Duration),
    /// 503, at once.
    Failing,
    /// After 5 ms, and every hundredth time after a second.
    SeldomLate,
}

impl Manner {
    /// How long the answer of this number takes, and its status.
    fn answer(self, number: u64) -> (Duration, &'static str) {
        let wait = match self {
            Self::Failing => return (Duration::ZERO, "503 Service Unavailable"),
            Self::Slow(wait) => wait,
            Self::SeldomLate if number % SELDOM == SELDOM - 1 => Duration::from_secs(1),
            Self::Usual | Self::SeldomLate => USUAL,
        };
        (wait, "200 OK")
    }
}

/// Answers asked of each endpoint since the last look.
pub(super) struct Endpoints {
    counts: Arc<[AtomicU64]>,
    first: u16,
}

impl Endpoints {
    /// Starts one for each manner, on ports from `first` on; they stay for as long as this process.
    pub(super) fn start(first: u16, manners: &[Manner]) -> Result<Self> {
        let counts: Arc<[AtomicU64]> = manners.iter().map(|_| AtomicU64::new(0)).collect();
        let shared = &counts;
        within(NEAR, move || {
            for (index, (manner, port)) in manners.iter().zip(first..).enumerate() {
                let (address, manner) = (SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), *manner);
                let listener = TcpListener::bind(address)
                    .with_context(|| format!("failed to listen on {address}"))?;
                let counts = Arc::clone(shared);
                std::thread::spawn(move || {
                    for connection in listener.incoming().flatten() {
                        let counts = Arc::clone(&counts);
                        std::thread::spawn(move || {
                            // A proxy that closes its connection has every right to.
                            let _ = answer(connection, &counts[index], manner);
                        });
                    }
                });
            }
            Ok(())
        })?;
        Ok(Self { counts, first })
    }

    /// Their ports.
    pub(super) fn ports(&self) -> Vec<u16> {
        (self.first..).take(self.counts.len()).collect()
    }

    /// How many requests came to each since the last call.
    pub(super) fn take(&self) -> Vec<u64> {
        let counts = self.counts.iter();
        counts
            .map(|count| count.swap(0, Ordering::Relaxed))
            .collect()
    }
}

/// HTTP/1.1 without bodies in requests, for as long as the connection stays.
fn answer(mut connection: TcpStream, count: &AtomicU64, manner: Manner) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = connection.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&part[..read]);
        while let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            head.drain(..end + 4);
            let number = count.fetch_add(1, Ordering::Relaxed);
            let (wait, status) = manner.answer(number);
            std::thread::sleep(wait);
            write!(connection, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_answers_every_request_of_a_connection_and_counts() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("its address");
        let server = std::thread::spawn(move || {
            let count = AtomicU64::new(0);
            let (connection, _) = listener.accept().expect("it connects");
            answer(connection, &count, Manner::Failing).expect("it reads and closes");
            count.into_inner()
        });
        let mut client = TcpStream::connect(address).expect("it listens");
        client
            .write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n")
            .expect("it reads");
        client.write_all(b"\r\n").expect("it reads");
        client
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
        let mut said = String::new();
        client.read_to_string(&mut said).expect("it is text");
        assert_eq!(said.matches("HTTP/1.1 503").count(), 2, "{said}");
        assert_eq!(server.join().expect("it ends"), 2);
    }

    #[test]
    fn one_of_a_hundred_is_late() {
        let late = (0..1000).filter(|number| Manner::SeldomLate.answer(*number).0 > USUAL);
        assert_eq!(late.count(), 10);
    }
}
