//! One connection to the first of several addresses that takes it: happy eyeballs
//! ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305), section 5).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// How long an address has for itself before the next one is tried beside it.
const ALONE: Duration = Duration::from_millis(250);

/// Connects to one of these addresses, the first one preferred; the last failure counts.
pub(super) async fn dial(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut rest = addresses.iter();
    let mut tries = FuturesUnordered::new();
    let mut failure = io::Error::other("the name has no address");
    loop {
        if let Some(next) = rest.next() {
            tries.push(TcpStream::connect(SocketAddr::new(*next, port)));
        }
        let is_last = rest.as_slice().is_empty();
        tokio::select! {
            tried = tries.next() => match tried {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => failure = error,
                None => return Err(failure),
            },
            () = sleep(ALONE), if !is_last => {}
        }
    }
}
