//! The carts: one Redis hash for each session, which expires when it is not used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Mutex;

use crate::config::{ConfigError, Environment};
use crate::reply::Refusal;
use crate::resolve::{Names, ResolveError};
use crate::server::{Service, ServiceError, crash_on_start, serve};

const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_PRODUCTS: usize = 50;
const MAX_QUANTITY: i64 = 99;

/// Why the carts cannot be read or written.
#[derive(Debug, Error)]
enum StoreError {
    /// No connection.
    #[error(transparent)]
    Connect(ResolveError),
    /// Redis refuses or the connection broke.
    #[error("failed to use redis: {0}")]
    Redis(String),
    /// No answer in time.
    #[error("failed to use redis: no answer within {} ms", TIMEOUT.as_millis())]
    Timeout,
}

struct Store {
    names: Names,
    host: String,
    port: u16,
    login: RedisConnectionInfo,
    keep: Duration,
    connection: Mutex<Option<MultiplexedConnection>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    product: String,
    #[serde(default = "one")]
    quantity: i64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Cart {
    /// Quantities by product.
    items: BTreeMap<String, i64>,
}

fn one() -> i64 {
    1
}

/// Serves the carts.
pub(crate) async fn run(environment: &Environment) -> Result<(), ServiceError> {
    crash_on_start(environment)?;
    let names = Names::of_system().map_err(ServiceError::Names)?;
    let store = Arc::new(Store::new(environment, names).map_err(ServiceError::Configuration)?);
    let routes = Router::new()
        .route("/carts/{session}", get(show).delete(empty))
        .route("/carts/{session}/items", axum::routing::post(add))
        .with_state(Arc::clone(&store));
    let ready = move || -> crate::server::Readiness {
        let store = Arc::clone(&store);
        Box::pin(async move { store.ping().await.map_err(|error| error.to_string()) })
    };
    serve(
        environment,
        Service {
            name: "cart",
            routes,
            ready: Box::new(ready),
        },
    )
    .await
}

impl Store {
    fn new(environment: &Environment, names: Names) -> Result<Self, ConfigError> {
        let mut login = RedisConnectionInfo::default();
        if let Some(password) = environment.get("REDIS_PASSWORD") {
            login = login.set_password(password);
        }
        Ok(Self {
            names,
            host: environment
                .require("REDIS_HOST", "the name or address of a Redis server")?
                .to_owned(),
            port: environment.parse("REDIS_PORT", 6379, "a port")?,
            login,
            keep: environment.seconds("CART_TTL_SECONDS", 86_400)?,
            connection: Mutex::new(None),
        })
    }

    /// The shared connection, made anew when there is none.
    async fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held.as_ref() {
            return Ok(connection.clone());
        }
        let stream = self
            .names
            .connect(&self.host, self.port)
            .await
            .map_err(StoreError::Connect)?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
        let opened = MultiplexedConnection::new_with_config(&self.login, stream, config);
        let opened = tokio::time::timeout(TIMEOUT, opened)
            .await
            .map_err(|_| StoreError::Timeout)?;
        let (connection, driver) = opened.map_err(|error| StoreError::Redis(error.to_string()))?;
        tokio::spawn(driver);
        *held = Some(connection.clone());
        Ok(connection)
    }

    /// Runs commands in one transaction; a failure drops the connection, so that the next call makes a new one.
    async fn run<T: redis::FromRedisValue>(&self, pipe: redis::Pipeline) -> Result<T, StoreError> {
        let mut connection = self.connection().await?;
        match tokio::time::timeout(TIMEOUT, pipe.query_async(&mut connection)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.connection.lock().await.take();
                Err(StoreError::Redis(error.to_string()))
            }
            Err(_) => {
                self.connection.lock().await.take();
                Err(StoreError::Timeout)
            }
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("PING").ignore();
        self.run(pipe).await
    }

    async fn read(&self, session: &str) -> Result<Cart, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HGETALL").arg(key(session));
        let (items,): (BTreeMap<String, i64>,) = self.run(pipe).await?;
        Ok(Cart { items })
    }

    async fn write(&self, session: &str, item: &Item, quantity: i64) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("HSET")
            .arg(key(session))
            .arg(&item.product)
            .arg(quantity)
            .ignore();
        pipe.cmd("EXPIRE")
            .arg(key(session))
            .arg(self.keep.as_secs())
            .ignore();
        self.run(pipe).await
    }

    async fn remove(&self, session: &str) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("DEL").arg(key(session)).ignore();
        self.run(pipe).await
    }
}

fn key(session: &str) -> String {
    format!("cart:{session}")
}

fn check_session(session: &str) -> Result<(), Refusal> {
    let valid =
        (16..=64).contains(&session.len()) && session.bytes().all(|byte| byte.is_ascii_hexdigit());
    if valid {
        Ok(())
    } else {
        Err(Refusal::invalid("a session is 16 to 64 hexadecimal digits"))
    }
}

/// The new quantity of the item.
fn added(cart: &Cart, item: &Item) -> Result<i64, Refusal> {
    let named = (1..=64).contains(&item.product.len())
        && item
            .product
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !named {
        return Err(Refusal::invalid(
            "a product is 1 to 64 letters, digits and dashes",
        ));
    }
    if !(1..=MAX_QUANTITY).contains(&item.quantity) {
        return Err(Refusal::invalid("quantity is from 1 to 99"));
    }
    let held = cart.items.get(&item.product);
    if held.is_none() && cart.items.len() >= MAX_PRODUCTS {
        return Err(Refusal::invalid("the cart is full"));
    }
    Ok(held
        .map_or(0, |held| *held)
        .saturating_add(item.quantity)
        .min(MAX_QUANTITY))
}

async fn show(
    State(store): State<Arc<Store>>,
    Path(session): Path<String>,
) -> Result<Json<Cart>, Refusal> {
    check_session(&session)?;
    store
        .read(&session)
        .await
        .map(Json)
        .map_err(Refusal::unavailable)
}

async fn add(
    State(store): State<Arc<Store>>,
    Path(session): Path<String>,
    Json(item): Json<Item>,
) -> Result<Json<Cart>, Refusal> {
    check_session(&session)?;
    let mut cart = store.read(&session).await.map_err(Refusal::unavailable)?;
    let quantity = added(&cart, &item)?;
    store
        .write(&session, &item, quantity)
        .await
        .map_err(Refusal::unavailable)?;
    cart.items.insert(item.product, quantity);
    Ok(Json(cart))
}

async fn empty(
    State(store): State<Arc<Store>>,
    Path(session): Path<String>,
) -> Result<StatusCode, Refusal> {
    check_session(&session)?;
    store.remove(&session).await.map_err(Refusal::unavailable)?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(product: &str, quantity: i64) -> Item {
        Item {
            product: product.to_owned(),
            quantity,
        }
    }

    #[test]
    fn quantities_add_up_within_bounds() {
        let mut cart = Cart {
            items: BTreeMap::from([("rope".to_owned(), 98)]),
        };
        assert_eq!(added(&cart, &item("rope", 1)).ok(), Some(99));
        assert_eq!(added(&cart, &item("rope", 50)).ok(), Some(99));
        assert_eq!(added(&cart, &item("buoy", 2)).ok(), Some(2));
        for wrong in [
            item("rope", 0),
            item("rope", 100),
            item("", 1),
            item("a b", 1),
        ] {
            assert!(added(&cart, &wrong).is_err(), "{wrong:?}");
        }
        cart.items
            .extend((0..MAX_PRODUCTS).map(|number| (number.to_string(), 1)));
        assert!(added(&cart, &item("buoy", 2)).is_err());
        assert!(added(&cart, &item("rope", 1)).is_ok());
    }

    #[test]
    fn sessions_are_checked() {
        assert!(check_session("0123456789abcdef").is_ok());
        assert!(check_session("0123456789abcde*").is_err());
        assert!(check_session("0").is_err());
    }
}
