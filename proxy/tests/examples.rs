//! The files under `examples/proxy` are configurations, and every broken one names its field.

use std::path::Path;

use fairlead_xds::bootstrap;

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/proxy")
        .join(name);
    std::fs::read_to_string(path).expect("the example is there")
}

#[test]
fn examples_are_right() {
    for (name, files) in [("inbound.yaml", 3), ("outbound.yaml", 3)] {
        let read = bootstrap(&example(name), &|_| Ok(b"pem".to_vec()))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.files.len(), files, "{name}");
        assert_eq!(
            (read.snapshot.listeners.len(), read.snapshot.clusters.len()),
            (1, 1),
            "{name}"
        );
        assert!(read.admin.is_some(), "{name}");
    }
}

#[test]
fn a_wrong_field_is_named() {
    let outbound = example("outbound.yaml");
    let cluster = "static_resources.clusters[0]";
    let action = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route";
    for (from, to, error) in [
        ("connect_timeout: 1s", "connect_timeout: soon", format!("{cluster}.connect_timeout: \"soon\" is no duration; seconds such as \"1.5s\" are expected")),
        ("port_value: 15006", "port_value: 70000", format!("{cluster}.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value: 70000 is no number from 0 to 65535")),
        ("max_ejection_percent: 50", "max_ejection_percent: 150", format!("{cluster}.outlier_detection.max_ejection_percent: 150 is no number from 0 to 100")),
        ("num_retries: 2", "num_retries: -2", format!("{action}.retry_policy.num_retries: -2 is no number from 0 to 4294967295")),
        ("cluster: cart\n                            timeout", "cluster: crat\n                            timeout", "static_resources: the routes \"outbound\" send to the cluster \"crat\", which is not among the clusters".to_owned()),
        ("san_type: URI", "san_type: EMAIL", format!("{cluster}.transport_socket.typed_config.common_tls_context.validation_context.match_typed_subject_alt_names[0].san_type: \"EMAIL\" is not supported; URI, DNS is allowed")),
        ("stat_prefix: outbound", "stat_prefix: 7", "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.stat_prefix: 7 is no text".to_owned()),
        ("domains: [\"*\"]", "domains: [\"a*b\"]", "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config: virtual_hosts[0].domains[0]: \"a*b\" is no domain; \"*\" may stand at one end".to_owned()),
    ] {
        let broken = outbound.replacen(from, to, 1);
        assert_ne!(broken, outbound, "{from}");
        let said = bootstrap(&broken, &|_| Ok(b"pem".to_vec())).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(said, Err(error), "{to}");
    }
}

#[test]
fn an_unknown_field_is_refused() {
    let broken = example("inbound.yaml").replacen("stat_prefix", "stat_prefx", 1);
    let error = bootstrap(&broken, &|_| Ok(b"pem".to_vec()))
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("typed_config.stat_prefx: is not a supported field; ")
            && error.contains("stat_prefix"),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let missing = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let error = bootstrap(&example("inbound.yaml"), &missing)
        .expect_err("refused")
        .to_string();
    assert!(error.ends_with("tls_certificates[0].certificate_chain.filename: failed to read \"cart.pem\": entity not found"), "{error}");
}
