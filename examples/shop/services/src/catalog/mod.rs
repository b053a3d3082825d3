//! The products, in PostgreSQL.

mod database;
mod migrations;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

pub(crate) use database::DatabaseError;
use database::{Database, Settings};

use crate::config::Environment;
use crate::reply::Refusal;
use crate::resolve::Names;
use crate::server::{Readiness, Service, ServiceError, crash_on_start, serve};

/// A product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Product {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) price_cents: i64,
}

/// A list of products.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Products {
    pub(crate) products: Vec<Product>,
}

fn open(environment: &Environment) -> Result<Database, ServiceError> {
    let settings = Settings::of_environment(environment).map_err(ServiceError::Configuration)?;
    let names = Names::of_system().map_err(ServiceError::Names)?;
    Ok(Database::new(settings, names))
}

/// Waits for the database, up to `MIGRATE_TIMEOUT_SECONDS` (120), and applies the migrations.
pub(crate) async fn migrate(environment: &Environment) -> Result<(), ServiceError> {
    let database = open(environment)?;
    let limit = environment
        .seconds("MIGRATE_TIMEOUT_SECONDS", 120)
        .map_err(ServiceError::Configuration)?;
    migrate_within(&database, limit).await
}

async fn migrate_within(database: &Database, limit: Duration) -> Result<(), ServiceError> {
    let started = Instant::now();
    loop {
        match database.migrate().await {
            Ok(applied) => {
                tracing::info!(applied, "the database is up to date");
                return Ok(());
            }
            Err(error) if started.elapsed() < limit => {
                tracing::warn!(error = %error, "waiting for the database")
            }
            Err(error) => return Err(ServiceError::Database(error)),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Applies the migrations and serves the products. The port is open meanwhile, and readiness tells how far it is.
pub(crate) async fn run(environment: &Environment) -> Result<(), ServiceError> {
    crash_on_start(environment)?;
    let database = Arc::new(open(environment)?);
    let routes = Router::new()
        .route("/products", get(list))
        .route("/products/{id}", get(show))
        .with_state(Arc::clone(&database));
    let probed = Arc::clone(&database);
    let ready = move || -> Readiness {
        let database = Arc::clone(&probed);
        Box::pin(async move { database.check().await.map_err(|error| error.to_string()) })
    };
    let migration = tokio::spawn(async move { migrate_within(&database, Duration::MAX).await });
    let served = serve(
        environment,
        Service {
            name: "catalog",
            routes,
            ready: Box::new(ready),
        },
    )
    .await;
    migration.abort();
    served
}

async fn list(State(database): State<Arc<Database>>) -> Result<Json<Products>, Refusal> {
    let products = database.products().await.map_err(Refusal::unavailable)?;
    Ok(Json(Products { products }))
}

async fn show(
    State(database): State<Arc<Database>>,
    Path(id): Path<String>,
) -> Result<Json<Product>, Refusal> {
    let product = database.product(&id).await.map_err(Refusal::unavailable)?;
    product
        .map(Json)
        .ok_or_else(|| Refusal::not_found("there is no such product"))
}
