//! The connection to PostgreSQL: by address, with timeouts, made anew when it broke.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls, Row};

use super::Product;
use super::migrations::MIGRATIONS;
use crate::config::{ConfigError, Environment};
use crate::resolve::{Names, ResolveError};

const TIMEOUT: Duration = Duration::from_secs(3);
/// Any number that nothing else locks.
const MIGRATION_LOCK: i64 = 0x5348_4f50;

/// Why the database cannot be used.
#[derive(Debug, Error)]
pub(crate) enum DatabaseError {
    /// No connection.
    #[error(transparent)]
    Connect(ResolveError),
    /// The database refuses the login or a statement.
    #[error("failed to use the database: {0}")]
    Refused(String),
    /// No answer in time.
    #[error("failed to use the database: no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The database is not migrated yet.
    #[error("the database has {found} of {wanted} migrations")]
    Behind {
        /// How many are applied.
        found: i64,
        /// How many there are.
        wanted: usize,
    },
}

/// Where the database is and how to log in.
pub(super) struct Settings {
    host: String,
    port: u16,
    config: Config,
}

impl Settings {
    /// From `DATABASE_URL`, or else `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD` and `PGDATABASE`.
    pub(super) fn of_environment(environment: &Environment) -> Result<Self, ConfigError> {
        match environment.get("DATABASE_URL") {
            Some(url) => Self::of_url(url),
            None => Self::of_parts(environment),
        }
    }

    fn of_url(url: &str) -> Result<Self, ConfigError> {
        let invalid = || ConfigError::Invalid {
            variable: "DATABASE_URL",
            wanted: "a URL such as postgres://user:password@host:5432/database",
        };
        let config: Config = url.parse().map_err(|_| invalid())?;
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            _ => return Err(invalid()),
        };
        Ok(Self {
            host,
            port: config.get_ports().first().copied().unwrap_or(5432),
            config,
        })
    }

    fn of_parts(environment: &Environment) -> Result<Self, ConfigError> {
        let host = environment.require(
            "PGHOST",
            "the name or address of a PostgreSQL server (or set DATABASE_URL)",
        )?;
        let user = environment.require("PGUSER", "a user of the database")?;
        let mut config = Config::new();
        config
            .user(user)
            .dbname(environment.get("PGDATABASE").unwrap_or(user));
        if let Some(password) = environment.get("PGPASSWORD") {
            config.password(password);
        }
        Ok(Self {
            host: host.to_owned(),
            port: environment.parse("PGPORT", 5432, "a port")?,
            config,
        })
    }
}

/// The products' database.
pub(super) struct Database {
    settings: Settings,
    names: Names,
    client: Mutex<Option<Arc<Client>>>,
}

fn refused(error: &tokio_postgres::Error) -> DatabaseError {
    let reason = error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned());
    DatabaseError::Refused(reason)
}

impl Database {
    pub(super) fn new(mut settings: Settings, names: Names) -> Self {
        settings.config.application_name("shop-catalog");
        Self {
            settings,
            names,
            client: Mutex::new(None),
        }
    }

    /// The shared connection, made anew when there is none or it broke.
    async fn client(&self) -> Result<Arc<Client>, DatabaseError> {
        let mut held = self.client.lock().await;
        if let Some(client) = held.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.connect().await?);
        *held = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn connect(&self) -> Result<Client, DatabaseError> {
        let Settings { host, port, config } = &self.settings;
        let stream = self
            .names
            .connect(host, *port)
            .await
            .map_err(DatabaseError::Connect)?;
        let opened = tokio::time::timeout(TIMEOUT, config.connect_raw(stream, NoTls)).await;
        let (client, connection) = opened
            .map_err(|_| DatabaseError::Timeout)?
            .map_err(|error| refused(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = %error, "the connection to the database broke");
            }
        });
        Ok(client)
    }

    /// Waits for an answer; without one the connection is given up.
    async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DatabaseError> {
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(result) => result.map_err(|error| refused(&error)),
            Err(_) => {
                self.client.lock().await.take();
                Err(DatabaseError::Timeout)
            }
        }
    }

    /// All products by name.
    pub(super) async fn products(&self) -> Result<Vec<Product>, DatabaseError> {
        let client = self.client().await?;
        let statement =
            "SELECT id, name, description, price_cents FROM products ORDER BY name LIMIT 500";
        let rows = self.within(client.query(statement, &[])).await?;
        rows.iter().map(product).collect()
    }

    /// One product.
    pub(super) async fn product(&self, id: &str) -> Result<Option<Product>, DatabaseError> {
        let client = self.client().await?;
        let statement = "SELECT id, name, description, price_cents FROM products WHERE id = $1";
        let row = self.within(client.query_opt(statement, &[&id])).await?;
        row.as_ref().map(product).transpose()
    }

    /// Whether the database answers and has every migration.
    pub(super) async fn check(&self) -> Result<(), DatabaseError> {
        let client = self.client().await?;
        let statement = "SELECT count(*) FROM schema_migrations";
        let row = self.within(client.query_one(statement, &[])).await?;
        let found: i64 = row.try_get(0).map_err(|error| refused(&error))?;
        if found < MIGRATIONS.len() as i64 {
            return Err(DatabaseError::Behind {
                found,
                wanted: MIGRATIONS.len(),
            });
        }
        Ok(())
    }

    /// Applies the migrations that are missing, over a connection of their own; several may try at once. Returns how
    /// many were applied.
    pub(super) async fn migrate(&self) -> Result<usize, DatabaseError> {
        let mut client = self.connect().await?;
        // No timeout: another one may hold the lock while it migrates.
        let transaction = client
            .transaction()
            .await
            .map_err(|error| refused(&error))?;
        let lock = transaction
            .execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])
            .await;
        lock.map_err(|error| refused(&error))?;
        let table = "CREATE TABLE IF NOT EXISTS schema_migrations
            (version bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";
        transaction
            .batch_execute(table)
            .await
            .map_err(|error| refused(&error))?;
        let highest = transaction
            .query_one(
                "SELECT coalesce(max(version), 0) FROM schema_migrations",
                &[],
            )
            .await;
        let highest: i64 = highest
            .and_then(|row| row.try_get(0))
            .map_err(|error| refused(&error))?;
        let missing = MIGRATIONS
            .iter()
            .zip(1_i64..)
            .filter(|(_, version)| *version > highest);
        let mut applied = 0;
        for (statement, version) in missing {
            transaction
                .batch_execute(statement)
                .await
                .map_err(|error| refused(&error))?;
            let insert = "INSERT INTO schema_migrations (version) VALUES ($1)";
            transaction
                .execute(insert, &[&version])
                .await
                .map_err(|error| refused(&error))?;
            applied += 1;
        }
        transaction
            .commit()
            .await
            .map_err(|error| refused(&error))?;
        Ok(applied)
    }
}

fn product(row: &Row) -> Result<Product, DatabaseError> {
    let read = || {
        Ok(Product {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            description: row.try_get(2)?,
            price_cents: row.try_get(3)?,
        })
    };
    read().map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_from_a_url_or_from_parts() {
        let url = Environment::of(&[("DATABASE_URL", "postgres://u:secret@db.shop:5433/d")]);
        let settings = Settings::of_environment(&url).expect("a valid URL");
        assert_eq!((settings.host.as_str(), settings.port), ("db.shop", 5433));
        let parts = Environment::of(&[("PGHOST", "db"), ("PGUSER", "u"), ("PGPASSWORD", "secret")]);
        let settings = Settings::of_environment(&parts).expect("valid parts");
        assert_eq!((settings.host.as_str(), settings.port), ("db", 5432));
        assert_eq!(settings.config.get_dbname(), Some("u"));
    }

    #[test]
    fn wrong_settings_name_the_variable() {
        let error = |variables: &[(&str, &str)]| match Settings::of_environment(&Environment::of(
            variables,
        )) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(error(&[]).starts_with("PGHOST is not set"));
        assert!(error(&[("PGHOST", "db")]).starts_with("PGUSER is not set"));
        assert!(
            error(&[("PGHOST", "db"), ("PGUSER", "u"), ("PGPORT", "x")])
                .starts_with("PGPORT is invalid")
        );
        let wrong = error(&[("DATABASE_URL", "postgres://u:secret@:x")]);
        assert!(
            wrong.starts_with("DATABASE_URL is invalid") && !wrong.contains("secret"),
            "{wrong}"
        );
    }
}
