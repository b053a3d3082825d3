//! Who asks, by tokens: the example of the feature, with an identity provider that rotates its keys, fails and hangs.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use support::features::{example, figure};
use support::live::Live;
use support::tokens::{Issuer, keys, seconds};
use support::{Endpoint, Proxy, text_answer};

/// What an identity provider answers: a status and keys; a status of zero is no answer at all.
type Answers = Arc<Mutex<(u16, String)>>;

/// An identity provider.
struct Login {
    endpoint: Endpoint,
    answers: Answers,
}

impl Login {
    async fn start(issuers: &[&Issuer]) -> Self {
        let answers: Answers = Arc::new(Mutex::new((200, keys(issuers))));
        let own = Arc::clone(&answers);
        let endpoint = Endpoint::start(move |request, _| {
            let (status, text) = own.lock().expect("no panic").clone();
            async move {
                assert_eq!(request.uri().path(), "/keys");
                assert_eq!(request.headers()["host"], "login.shop.example");
                match status {
                    0 => std::future::pending().await,
                    status => text_answer(status, &text),
                }
            }
        })
        .await;
        Self { endpoint, answers }
    }

    fn answer(&self, status: u16, text: String) {
        *self.answers.lock().expect("no panic") = (status, text);
    }
}

/// Answers with the headers it was asked with.
async fn headers_endpoint() -> Endpoint {
    Endpoint::start(|request, _| async move {
        let mut text = format!("{}\n", request.uri());
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\n", value.to_str().unwrap_or("?"));
        }
        text_answer(200, &text)
    })
    .await
}

async fn start(endpoint: &Endpoint, login: &Login, changes: &[(&str, &str)]) -> Proxy {
    let port = format!("port_value: {}", login.endpoint.address.port());
    let mut all = vec![("port_value: 8082", port.as_str())];
    all.extend(changes);
    example("tokens.yaml", endpoint, &all).await
}

fn person() -> Value {
    json!({"iss": "https://login.shop.example", "sub": "till", "aud": "shop", "exp": seconds(300)})
}

fn program(name: &str) -> Value {
    json!({"iss": "programs", "sub": name, "aud": ["internal"]})
}

async fn ask(
    proxy: &Proxy,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    let (head, body) = proxy.send(request).await;
    (head.status, head.headers, body)
}

async fn with(proxy: &Proxy, token: &str) -> (StatusCode, String) {
    let bearer = format!("Bearer {token}");
    let (status, _, body) = ask(proxy, "GET", "/a", &[("authorization", &bearer)]).await;
    (status, body)
}

#[tokio::test]
async fn tokens_of_every_algorithm_name_their_caller() {
    let endpoint = headers_endpoint().await;
    let algorithms = ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"];
    let issuers = algorithms.map(|own| Issuer::new(own, own));
    let login = Login::start(&issuers.each_ref()).await;
    let proxy = start(&endpoint, &login, &[]).await;
    for issuer in &issuers {
        let good = issuer.token(&person());
        assert_eq!(
            with(&proxy, &good).await.0,
            StatusCode::OK,
            "{}",
            issuer.algorithm
        );
        let (body, signature) = good.rsplit_once('.').expect("three parts");
        let wrong = match signature.as_bytes()[10] {
            b'A' => "B",
            _ => "A",
        };
        let forged = format!("{body}.{}{wrong}{}", &signature[..10], &signature[11..]);
        let (status, said) = with(&proxy, &forged).await;
        let expected = (
            StatusCode::UNAUTHORIZED,
            "Jwt verification fails".to_owned(),
        );
        assert_eq!((status, said), expected, "{}", issuer.algorithm);
    }
    // Another's key of the same name.
    let stranger = Issuer::new("ES256", "ES256").token(&person());
    assert_eq!(with(&proxy, &stranger).await.1, "Jwt verification fails");
    assert_eq!(login.endpoint.requests(), 1, "one fetch serves them all");
}

#[tokio::test]
async fn who_is_refused_is_told_why_as_by_envoy() {
    let endpoint = Endpoint::echo().await;
    let issuer = Issuer::new("ES256", "a");
    let login = Login::start(&[&issuer]).await;
    let proxy = start(&endpoint, &login, &[]).await;
    let changed = |name: &str, value: Value| {
        let mut claims = person();
        claims[name] = value;
        issuer.token(&claims)
    };
    let (status, headers, body) = ask(&proxy, "GET", "/a?access=1", &[]).await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::UNAUTHORIZED, "Jwt is missing")
    );
    assert_eq!(
        headers["www-authenticate"],
        "Bearer realm=\"http://shop.example/a\""
    );
    assert_eq!(
        headers["proxy-status"],
        "fairlead; error=http_request_denied"
    );
    for (token, status, said) in [
        (changed("exp", json!(seconds(-100))), 401, "Jwt is expired"),
        (
            changed("nbf", json!(seconds(100))),
            401,
            "Jwt not yet valid",
        ),
        (
            changed("iss", json!("https://other")),
            401,
            "Jwt issuer is not configured",
        ),
        (
            changed("aud", json!("other")),
            403,
            "Audiences in Jwt are not allowed",
        ),
        (
            "abc".to_owned(),
            401,
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        (unsigned("none"), 401, "Jwt header [alg] is not supported"),
        (unsigned("HS256"), 401, "Jwt header [alg] is not supported"),
    ] {
        let bearer = format!("Bearer {token}");
        let (code, headers, body) = ask(&proxy, "GET", "/a", &[("authorization", &bearer)]).await;
        assert_eq!((code.as_u16(), body.as_str()), (status, said));
        assert_eq!(
            headers["www-authenticate"],
            "Bearer realm=\"http://shop.example/a\", error=\"invalid_token\""
        );
    }
    // Clocks may differ a little.
    assert_eq!(
        with(&proxy, &changed("exp", json!(seconds(-30)))).await.0,
        StatusCode::OK
    );
    let grpc = [("content-type", "application/grpc")];
    let (status, headers, _) = ask(&proxy, "POST", "/shop.Cart/Add", &grpc).await;
    assert_eq!(
        (status, &headers["grpc-status"]),
        (StatusCode::OK, &"16".parse().expect("a value"))
    );
    assert_eq!(headers["grpc-message"], "Jwt is missing");
    assert_eq!(endpoint.requests(), 1, "who is refused never gets there");
    let figure = |name: &str| figure(&proxy, &format!("http.shop.jwt_authn.{name}"));
    assert_eq!((figure("allowed"), figure("denied")), (1, 9));
    assert_eq!(
        (figure("jwks_fetch_success"), figure("jwks_fetch_failed")),
        (1, 0)
    );
}

/// A token that nobody signed.
fn unsigned(algorithm: &str) -> String {
    use base64::Engine as _;
    let encode =
        |own: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(own.to_string());
    format!(
        "{}.{}.",
        encode(json!({"alg": algorithm})),
        encode(person())
    )
}

#[tokio::test]
async fn rules_and_routes_say_which_token_is_required() {
    let endpoint = headers_endpoint().await;
    let issuer = Issuer::new("ES256", "a");
    let login = Login::start(&[&issuer]).await;
    let proxy = start(&endpoint, &login, &[]).await;
    let person = format!("Bearer {}", issuer.token(&person()));
    let janitor = format!("Bearer {}", Issuer::example().token(&program("janitor")));
    let get = async |path: &str, token: Option<&str>| {
        let headers: Vec<_> = token
            .map(|own| ("authorization", own))
            .into_iter()
            .collect();
        ask(&proxy, "GET", path, &headers).await.0.as_u16()
    };
    for (path, nobody, by_person, by_janitor) in [
        ("/healthz", 200, 200, 200),
        ("/programs/a", 401, 401, 200),
        ("/a", 401, 200, 200),
        ("/catalogue", 200, 200, 200),
    ] {
        assert_eq!(get(path, None).await, nobody, "{path}");
        assert_eq!(get(path, Some(&person)).await, by_person, "{path}");
        assert_eq!(get(path, Some(&janitor)).await, by_janitor, "{path}");
    }
    assert_eq!(
        get("/catalogue", Some("Bearer a.b.c")).await,
        401,
        "a bad token is none"
    );
    let other = json!({"iss": "programs", "aud": "outside"});
    let other = format!("Bearer {}", Issuer::example().token(&other));
    assert_eq!(get("/programs/a", Some(&other)).await, 403);
    assert_eq!(get("/a", Some(&other)).await, 200);
    // In the query, and it does not go on.
    let token = issuer.token(&json!({"iss": "https://login.shop.example", "aud": ["shop"]}));
    let (status, _, body) = ask(&proxy, "GET", &format!("/a?x=1&access_token={token}"), &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.starts_with("/a?x=1\n"), "{body}");
}

#[tokio::test]
async fn claims_go_on_and_decide_and_cannot_be_forged() {
    let endpoint = headers_endpoint().await;
    let issuer = Issuer::new("RS256", "a");
    let login = Login::start(&[&issuer]).await;
    let proxy = start(&endpoint, &login, &[]).await;
    let mut claims = person();
    claims["shop"] = json!({"tenant": 7});
    claims["groups"] = json!(["guests", "team"]);
    let member = format!("Bearer {}", issuer.token(&claims));
    claims["groups"] = json!(["guests"]);
    let guest = format!("Bearer {}", issuer.token(&claims));
    let janitor = format!("Bearer {}", Issuer::example().token(&program("janitor")));
    let other = format!("Bearer {}", Issuer::example().token(&program("other")));

    let forged = [
        ("authorization", member.as_str()),
        ("x-user", "root"),
        ("x-program", "evil"),
    ];
    let (_, _, body) = ask(&proxy, "GET", "/a", &forged).await;
    assert!(body.contains("x-user: till\nx-tenant: 7\n"), "{body}");
    assert!(!body.contains("root") && !body.contains("evil"), "{body}");
    assert!(
        !body.contains("authorization"),
        "the token stays here: {body}"
    );
    let (_, _, body) = ask(&proxy, "GET", "/healthz", &[("x-user", "root")]).await;
    assert!(!body.contains("root"), "{body}");
    let (_, _, body) = ask(&proxy, "GET", "/a", &[("authorization", &janitor)]).await;
    let payload = janitor.split('.').nth(1).expect("a payload");
    assert!(body.contains(&format!("x-program: {payload}\n")), "{body}");

    for (method, token, expected) in [
        ("PUT", &member, 200),
        ("PUT", &guest, 403),
        ("PUT", &janitor, 403),
        ("DELETE", &member, 403),
        ("DELETE", &janitor, 200),
        ("DELETE", &other, 403),
    ] {
        let (status, ..) = ask(&proxy, method, "/a", &[("authorization", token)]).await;
        assert_eq!(status.as_u16(), expected, "{method} by {token}");
    }
}

#[tokio::test]
async fn keys_rotate_and_the_last_good_ones_count() {
    let endpoint = Endpoint::echo().await;
    let [first, second] = ["a", "b"].map(|id| Issuer::new("ES256", id));
    let login = Login::start(&[&first]).await;
    let short = [("cache_duration: 300s", "cache_duration: 0.1s")];
    let proxy = start(&endpoint, &login, &short).await;
    let old = first.token(&person());
    assert_eq!(with(&proxy, &old).await.0, StatusCode::OK);
    // While keys cannot be fetched, or are none, the last ones count.
    for (status, text) in [
        (500, keys(&[&second])),
        (200, "{}".to_owned()),
        (200, "x".repeat(2 << 20)),
    ] {
        let before = login.endpoint.requests();
        login.answer(status, text);
        until(|| login.endpoint.requests() >= before + 2).await;
        assert_eq!(with(&proxy, &old).await.0, StatusCode::OK, "{status}");
    }
    assert!(figure(&proxy, "http.shop.jwt_authn.jwks_fetch_failed") >= 3);
    // A key that is gone counts no longer, though its token was known to be good.
    login.answer(200, keys(&[&second]));
    let new = second.token(&person());
    let begun = Instant::now();
    while with(&proxy, &new).await.0 != StatusCode::OK {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, said) = with(&proxy, &old).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(said, "Jwks doesn't have key to match kid or alg from Jwt");
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it is never so");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_needs_it_and_a_flood_of_them_is_bounded() {
    let endpoint = Endpoint::echo().await;
    let [first, second] = ["a", "b"].map(|id| Issuer::new("ES256", id));
    let login = Login::start(&[&first]).await;
    let proxy = start(&endpoint, &login, &[]).await;
    assert_eq!(
        with(&proxy, &first.token(&person())).await.0,
        StatusCode::OK
    );
    login.answer(200, keys(&[&first, &second]));
    assert_eq!(
        with(&proxy, &second.token(&person())).await.0,
        StatusCode::OK
    );
    assert_eq!(login.endpoint.requests(), 2);
    for number in 0..50 {
        let unknown = Issuer::new("ES256", &format!("unknown-{number}"));
        let (status, said) = with(&proxy, &unknown.token(&person())).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(said, "Jwks doesn't have key to match kid or alg from Jwt");
    }
    assert_eq!(
        login.endpoint.requests(),
        2,
        "not more often than every 10 s"
    );
}

#[tokio::test]
async fn an_identity_provider_that_hangs_stalls_nobody_else() {
    let endpoint = Endpoint::echo().await;
    let issuer = Issuer::new("ES256", "a");
    let login = Login::start(&[&issuer]).await;
    login.answer(0, String::new());
    let proxy = start(&endpoint, &login, &[("timeout: 2s", "timeout: 1s")]).await;
    let live = Live::start(proxy.address, "/healthz");
    let begun = Instant::now();
    let janitor = Issuer::example().token(&program("janitor"));
    assert_eq!(with(&proxy, &janitor).await.0, StatusCode::OK);
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    let (status, said) = with(&proxy, &issuer.token(&person())).await;
    assert_eq!(
        (status.as_u16(), said.as_str()),
        (401, "Jwks remote fetch is failed")
    );
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    // It comes back by itself.
    login.answer(200, keys(&[&issuer]));
    let token = issuer.token(&person());
    while with(&proxy, &token).await.0 != StatusCode::OK {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    live.went_well().await;
}

#[tokio::test]
async fn as_many_keys_as_may_be_and_more_stall_nobody() {
    let endpoint = Endpoint::echo().await;
    let issuer = Issuer::new("RS256", "a");
    let login = Login::start(&[&issuer]).await;
    let short = [("cache_duration: 300s", "cache_duration: 0.1s")];
    let proxy = start(&endpoint, &login, &short).await;
    let live = Live::start(proxy.address, "/healthz");
    let token = issuer.token(&person());
    assert_eq!(with(&proxy, &token).await.0, StatusCode::OK);
    let set: Value = serde_json::from_str(&keys(&[&issuer])).expect("keys");
    let many = |count: usize| json!({"keys": vec![set["keys"][0].clone(); count]}).to_string();
    // A thousand are allowed; more are not, and neither is more than 1 MiB, or what nests without end.
    for (text, is_good) in [
        (many(1_000), true),
        (many(1_001), false),
        (format!("{}{}", many(1), " ".repeat(1 << 20)), false),
        ("[".repeat(1 << 19), false),
    ] {
        let of = |name: &str| figure(&proxy, &format!("http.shop.jwt_authn.jwks_fetch_{name}"));
        login.answer(200, text);
        let before = (of("success"), of("failed"));
        // One may have been under way.
        until(|| match is_good {
            true => of("success") >= before.0 + 2,
            false => of("failed") >= before.1 + 2,
        })
        .await;
        assert_eq!(with(&proxy, &token).await.0, StatusCode::OK);
    }
    live.went_well().await;
}

#[tokio::test]
async fn one_fetch_serves_all_cores_and_a_token_is_checked_once_on_each() {
    let endpoint = Endpoint::echo().await;
    let issuer = Issuer::new("RS256", "a");
    let login = Login::start(&[&issuer]).await;
    let proxy = start(&endpoint, &login, &[]).await;
    let (shared, mut snapshots) = (Arc::clone(&proxy.shared), proxy.snapshots.subscribe());
    snapshots.mark_changed();
    std::thread::spawn(move || fairlead_proxy::worker::run(shared, snapshots));
    let token = issuer.token(&person());
    let served = AtomicUsize::new(0);
    let asked = (0..40).map(|_| async {
        assert_eq!(with(&proxy, &token).await.0, StatusCode::OK);
        served.fetch_add(1, Ordering::SeqCst)
    });
    futures::future::join_all(asked).await;
    let figure = |name: &str| figure(&proxy, &format!("http.shop.jwt_authn.{name}"));
    // Those that came while the first was still waiting for keys are checked as well.
    for _ in 0..40 {
        assert_eq!(with(&proxy, &token).await.0, StatusCode::OK);
    }
    assert!(figure("jwt_cache_hit") >= 38, "{}", figure("jwt_cache_hit"));
    assert_eq!(figure("jwt_cache_hit") + figure("jwt_cache_miss"), 80);
    assert_eq!(login.endpoint.requests(), 1);
}

#[tokio::test]
async fn no_token_is_shown() {
    let endpoint = Endpoint::start(|_, _| async { Response::new(Full::default()) }).await;
    let issuer = Issuer::new("ES256", "a");
    let login = Login::start(&[&issuer]).await;
    let folder = std::env::temp_dir().join(format!("fairlead-tokens-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("log");
    let log = format!(
        r#"stat_prefix: shop
                access_log:
                  - name: envoy.access_loggers.file
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
                      path: {}
                      log_format: {{ json_format: {{ path: "%REQ(:PATH)%", token: "%REQ(X-TOKEN)%", other: "%REQ(X-OTHER)%", bearer: "%REQ(AUTHORIZATION)%" }} }}"#,
        path.display()
    );
    let places = "from_headers: [{ name: x-token }]\n                          from_params: [token]\n                          payload_in_metadata: people";
    let changes = [
        ("stat_prefix: shop", log.as_str()),
        ("payload_in_metadata: people", places),
    ];
    let proxy = start(&endpoint, &login, &changes).await;
    let token = issuer.token(&person());
    let headers = [("x-token", token.as_str()), ("x-other", "seen")];
    assert_eq!(ask(&proxy, "GET", "/a", &headers).await.0, StatusCode::OK);
    let target = format!("/a?x=1&token={token}&y=2");
    assert_eq!(
        ask(&proxy, "GET", &target, &[("authorization", &token)])
            .await
            .0,
        StatusCode::OK
    );
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    until(|| read().lines().count() >= 2).await;
    let text = read();
    let lines: Vec<Value> = text
        .lines()
        .map(|own| serde_json::from_str(own).expect("JSON"))
        .collect();
    assert!(!text.contains(&token) && !text.contains("eyJ"), "{text}");
    assert_eq!(
        (&lines[0]["token"], &lines[0]["other"]),
        (&json!("[redacted]"), &json!("seen"))
    );
    assert_eq!(lines[1]["path"], "/a?x=1&token=[redacted]&y=2");
    std::fs::remove_dir_all(&folder).expect("to clean up");
}
