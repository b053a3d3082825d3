//! The examples of features, with a proxy that runs them.

use std::path::Path;

use fairlead_proxy::metrics::{Stat, stats};
use fairlead_xds::bootstrap;

use super::{Endpoint, Proxy};

/// A proxy that runs an example, changed so, before an endpoint.
pub async fn example(name: &str, endpoint: &Endpoint, changes: &[(&str, &str)]) -> Proxy {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/proxy/features");
    let mut text = std::fs::read_to_string(folder.join(name)).expect("the example is there");
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in {name}");
        text = text.replacen(from, to, 1);
    }
    let port = endpoint.address.port().to_string();
    text = text.replace("port_value: 8080", &format!("port_value: {port}"));
    Proxy::start(|address| {
        let text = text.replace(
            "port_value: 15001",
            &format!("port_value: {}", address.port()),
        );
        let read = bootstrap(&text, &|_| Ok(Vec::new()));
        read.unwrap_or_else(|error| panic!("{name}: {error}"))
            .snapshot
    })
    .await
}

/// A number of the proxy's.
pub fn figure(proxy: &Proxy, name: &str) -> i128 {
    match stats(&proxy.shared.figures).get(name) {
        Some(Stat::Number(number)) => *number,
        other => panic!("{name}: {other:?}"),
    }
}
