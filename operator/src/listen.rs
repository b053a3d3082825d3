//! Where a component answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

/// Listens at an address; `[::]` is every address of the machine, of either family, and where it has no IPv6 those of IPv4.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if is_without_ipv6(address, &error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Whether nothing but the lack of IPv6 is in the way.
fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    is_any
        && !matches!(
            error.kind(),
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
        )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn both_families_are_answered() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let listener = listen(any).await.expect("a port is free");
        let port = listener.local_addr().expect("it listens").port();
        for address in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ] {
            TcpStream::connect(address).await.expect("it is answered");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_not_looked_for_elsewhere() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 443));
        let lacks = io::Error::from(io::ErrorKind::Unsupported);
        assert!(is_without_ipv6(any, &lacks));
        assert!(!is_without_ipv6(any, &io::ErrorKind::AddrInUse.into()));
        assert!(!is_without_ipv6(([0, 0, 0, 0], 443).into(), &lacks));
    }
}
