//! Changes of heads and queries, as the example has them.

mod support;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::Endpoint;
use support::features::example;

/// An endpoint that says what it was asked, and by what it was made.
async fn endpoint() -> Endpoint {
    Endpoint::start(|request, _| async move {
        let header = |name: &str| {
            let all = request.headers().get_all(name).iter();
            let all: Vec<_> = all
                .map(|own| String::from_utf8_lossy(own.as_bytes()))
                .collect();
            all.join(",")
        };
        let text = format!(
            "{} edge={} internal={}",
            request.uri(),
            header("x-edge"),
            header("x-internal")
        );
        Response::builder()
            .header("x-powered-by", "tea")
            .header("x-version", "0")
            .body(Full::from(text))
            .expect("an answer")
    })
    .await
}

fn request(target: &str) -> Request<Full<Bytes>> {
    Request::get(target)
        .header("host", "shop.example")
        .header("x-internal", "secret")
        .header("x-edge", "made up")
        .body(Full::default())
        .expect("a request")
}

#[tokio::test]
async fn requests_queries_and_answers_are_changed() {
    let endpoint = endpoint().await;
    let proxy = example("mutations.yaml", &endpoint, &[]).await;
    for (target, asked) in [
        ("/a?utm_source=mail", "/a?version=1"),
        (
            "/a?x=%26&utm_source=b&utm_sources=c&version",
            "/a?x=%26&utm_sources=c&version",
        ),
        ("/a", "/a?version=1"),
        ("/new?version=7&x&version=8", "/new?version=2&x"),
        ("/new", "/new?version=2"),
    ] {
        let (head, body) = proxy.send(request(target)).await;
        assert_eq!(body, format!("{asked} edge=yes internal="), "{target}");
        assert!(!head.headers.contains_key("x-powered-by"), "{target}");
        let versions: Vec<_> = head.headers.get_all("x-version").iter().collect();
        let is_new = target.starts_with("/new");
        assert_eq!(versions, ["0", "2"][..1 + usize::from(is_new)], "{target}");
    }
    assert_eq!(endpoint.requests(), 5);
}

#[tokio::test]
async fn a_route_may_end_it() {
    let endpoint = endpoint().await;
    let own = "\"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute
                              mutations:
                                query_parameter_mutations:
                                  - append: { record: { key: version, value: \"2\" }, action: OVERWRITE_IF_EXISTS_OR_ADD }
                                response_mutations:
                                  - append: { header: { key: x-version, value: \"2\" } }";
    let off = "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig
                              disabled: true";
    let proxy = example("mutations.yaml", &endpoint, &[(own, off)]).await;
    let (head, body) = proxy.send(request("/new?utm_source=a")).await;
    assert_eq!(body, "/new?utm_source=a edge=made up internal=secret");
    assert!(head.headers.contains_key("x-powered-by"));
}

#[test]
fn what_cannot_be_changed_so_is_refused() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path.join("../examples/proxy/features/mutations.yaml"));
    let text = text.expect("the example is there");
    let config = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.mutations";
    for (from, to, error) in [
        (
            "- remove: x-internal",
            "- remove: no name",
            format!("{config}.request_mutations[0].remove: \"no name\" is no name of a header"),
        ),
        (
            "value: \"yes\"",
            "value: \"%REQ(x-a)%\"",
            format!(
                "{config}.request_mutations[1].append: header.value: a value that is made for each request is not supported here"
            ),
        ),
        (
            "- remove: utm_source",
            "- remove: utm&source",
            format!(
                "{config}.query_parameter_mutations[0].remove: \"utm&source\" is no part of a query"
            ),
        ),
        (
            "- remove: utm_source",
            "- {}",
            format!("{config}.query_parameter_mutations[0]: either remove or append is expected"),
        ),
        (
            "value: \"1\"",
            "value: \"%REQ(a)%\"",
            format!(
                "{config}.query_parameter_mutations[1].append.record.value: \"%REQ(a)%\" is no part of a query"
            ),
        ),
        (
            "action: ADD_IF_ABSENT",
            "action: MAYBE",
            format!(
                "{config}.query_parameter_mutations[1].append.action: \"MAYBE\" is not supported; APPEND_IF_EXISTS_OR_ADD, ADD_IF_ABSENT, "
            ),
        ),
        (
            "response_mutations:",
            "response_trailers_mutations:",
            format!("{config}.response_trailers_mutations: is not a supported field; "),
        ),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        let said = fairlead_xds::bootstrap(&broken, &|_| Ok(Vec::new()));
        let said = said
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(said.starts_with(&error), "{to}: {said}");
    }
}
