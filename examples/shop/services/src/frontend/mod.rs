//! The page: products and the cart, rendered here, kept by the other two services.
//!
//! Without the catalog there is nothing to show, so its failure is an error (502). Without the cart the products still
//! can be shown, so the page says that the cart is away.

mod page;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::catalog::Products;
use crate::client::Caller;
use crate::config::{ConfigError, Environment};
use crate::resolve::Names;
use crate::server::{Readiness, Service, ServiceError, crash_on_start, serve};
use crate::trace::Trace;

const COOKIE_NAME: &str = "shop-session";

#[derive(Debug, Deserialize)]
struct Cart {
    items: BTreeMap<String, i64>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    product: String,
}

struct Shop {
    caller: Caller,
    catalog: String,
    cart: String,
    version: String,
}

/// Serves the page.
pub(crate) async fn run(environment: &Environment) -> Result<(), ServiceError> {
    crash_on_start(environment)?;
    let shop = Arc::new(Shop::new(environment)?);
    let routes = Router::new()
        .route("/", get(show))
        .route("/cart", post(add))
        .route("/cart/clear", post(clear))
        .with_state(Arc::clone(&shop));
    let ready = move || -> Readiness {
        let shop = Arc::clone(&shop);
        Box::pin(async move { shop.check().await })
    };
    serve(
        environment,
        Service {
            name: "frontend",
            routes,
            ready: Box::new(ready),
        },
    )
    .await
}

impl Shop {
    fn new(environment: &Environment) -> Result<Self, ServiceError> {
        let configuration = |error: ConfigError| ServiceError::Configuration(error);
        let timeout = environment
            .parse("CALL_TIMEOUT_MS", 2000, "a number of milliseconds")
            .map_err(configuration)?;
        let names = Names::of_system().map_err(ServiceError::Names)?;
        Ok(Self {
            caller: Caller::new(names, Duration::from_millis(timeout)),
            catalog: environment.url("CATALOG_URL").map_err(configuration)?,
            cart: environment.url("CART_URL").map_err(configuration)?,
            version: environment.version(),
        })
    }

    /// Whether the other services can be reached. They are asked whether they live, not whether they are ready: else
    /// one database would take down every page that could still say so.
    async fn check(&self) -> Result<(), String> {
        for base in [&self.catalog, &self.cart] {
            let answer = self
                .caller
                .send(Method::GET, base, "/healthz", &Trace::default(), None)
                .await;
            match answer {
                Ok(answer) if answer.status.is_success() => {}
                Ok(answer) => return Err(format!("{base} answered {}", answer.status)),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    async fn cart_of(&self, session: &str, trace: &Trace) -> Option<BTreeMap<String, i64>> {
        let path = format!("/carts/{session}");
        match self
            .caller
            .json::<Cart>(Method::GET, &self.cart, &path, trace, None)
            .await
        {
            Ok(cart) => Some(cart.items),
            Err(error) => {
                tracing::warn!(error = %error, trace = trace.id(), "the cart does not answer");
                None
            }
        }
    }
}

/// The session of a request, or `None` when it has no usable one.
fn session_of(headers: &HeaderMap) -> Option<String> {
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| {
            *name == COOKIE_NAME
                && value.len() == 32
                && value.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
        .map(|(_, value)| value.to_owned())
}

/// The session of a request or a new one, and the header that keeps it.
fn session(headers: &HeaderMap) -> (String, [(http::HeaderName, String); 1]) {
    let session = session_of(headers).unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    let cookie = format!("{COOKIE_NAME}={session}; Path=/; HttpOnly; SameSite=Lax; Max-Age=86400");
    (session, [(SET_COOKIE, cookie)])
}

async fn show(
    State(shop): State<Arc<Shop>>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
) -> Response {
    let (session, cookie) = session(&headers);
    let products =
        shop.caller
            .json::<Products>(Method::GET, &shop.catalog, "/products", &trace, None);
    let (products, cart) = tokio::join!(products, shop.cart_of(&session, &trace));
    match products {
        Ok(products) => (
            cookie,
            Html(page::shop(&products.products, cart.as_ref(), &shop.version)),
        )
            .into_response(),
        Err(error) => {
            tracing::warn!(error = %error, trace = trace.id(), "the catalog does not answer");
            let page = page::failure(
                "The catalog does not answer. Please try again.",
                &shop.version,
            );
            (StatusCode::BAD_GATEWAY, Html(page)).into_response()
        }
    }
}

async fn add(
    State(shop): State<Arc<Shop>>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
    Form(choice): Form<Choice>,
) -> Response {
    let (session, cookie) = session(&headers);
    let path = format!("/carts/{session}/items");
    let item = json!({"product": choice.product});
    let answer = shop
        .caller
        .json::<Value>(Method::POST, &shop.cart, &path, &trace, Some(item))
        .await;
    changed(answer.map(|_| ()), &trace, &shop, cookie)
}

async fn clear(
    State(shop): State<Arc<Shop>>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
) -> Response {
    let (session, cookie) = session(&headers);
    let path = format!("/carts/{session}");
    let answer = shop
        .caller
        .send(Method::DELETE, &shop.cart, &path, &trace, None)
        .await;
    let answer = answer.and_then(|answer| match answer.status {
        status if status.is_success() => Ok(()),
        status => Err(crate::client::CallError::Status {
            url: shop.cart.clone(),
            status,
        }),
    });
    changed(answer, &trace, &shop, cookie)
}

fn changed(
    answer: Result<(), crate::client::CallError>,
    trace: &Trace,
    shop: &Shop,
    cookie: [(http::HeaderName, String); 1],
) -> Response {
    match answer {
        Ok(()) => (cookie, Redirect::to("/")).into_response(),
        Err(error) => {
            tracing::warn!(error = %error, trace = trace.id(), "the cart does not change");
            let page = page::failure("The cart does not answer. Please try again.", &shop.version);
            (StatusCode::BAD_GATEWAY, Html(page)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_session_is_kept_and_a_forged_one_is_not() {
        let mut headers = HeaderMap::new();
        assert_eq!(session_of(&headers), None);
        let known = "0123456789abcdef0123456789abcdef";
        let cookie = format!("a=b; {COOKIE_NAME}={known}");
        headers.insert(COOKIE, HeaderValue::from_str(&cookie).expect("plain ASCII"));
        assert_eq!(session_of(&headers).as_deref(), Some(known));
        assert_eq!(session(&headers).0, known);
        headers.insert(
            COOKIE,
            HeaderValue::from_static("shop-session=../../faults"),
        );
        assert_eq!(session_of(&headers), None);
        assert_eq!(session(&headers).0.len(), 32);
    }
}
