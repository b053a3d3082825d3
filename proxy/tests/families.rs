//! IPv4 and IPv6 on one listener.

mod support;

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use fairlead_model::cluster::Address;
use fairlead_model::listener::Handler;
use support::{Endpoint, Proxy, drain, free, http_to, listener, snapshot, to, up};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The answer to a request at an address; nothing where nobody listens.
async fn ask(to: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    let request = b"GET /tea HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    Some(drain(&mut stream).await)
}

#[tokio::test]
async fn a_listener_of_ipv6_takes_ipv4_where_it_says_so() {
    let endpoint = Endpoint::echo().await;
    let any = |port: u16| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let settings = |port: u16, takes_ipv4: bool| {
        let http = http_to(to("up"));
        let mut own = listener(any(port), Handler::Http(http.into()), None);
        own.address = Address::Socket(any(port));
        own.takes_ipv4 = takes_ipv4;
        snapshot(own, vec![up(&[endpoint.address])])
    };
    let port = free().port();
    let v4 = SocketAddr::from(([127, 0, 0, 1], port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let proxy = Proxy::start_at(v6, |_| settings(port, false)).await;
    let answered = |own: Option<String>| own.is_some_and(|own| own.contains("GET /tea"));
    assert!(answered(ask(v6).await), "IPv6");
    assert!(ask(v4).await.is_none(), "IPv4 was not asked for");
    // It is told otherwise while it runs.
    proxy.snapshots.send_replace(settings(port, true).into());
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while !answered(ask(v4).await) {
        assert!(std::time::Instant::now() < until, "IPv4");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(answered(ask(v6).await), "IPv6 still");
}
