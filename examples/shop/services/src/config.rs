//! Configuration: environment variables only, and errors that name the variable but never show a secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use thiserror::Error;

/// Why the configuration is unusable.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ConfigError {
    /// A variable is not set.
    #[error("{variable} is not set: {wanted}")]
    Missing {
        /// Its name.
        variable: &'static str,
        /// What belongs there.
        wanted: &'static str,
    },
    /// A variable has an unusable value, which is not shown.
    #[error("{variable} is invalid: expected {wanted}")]
    Invalid {
        /// Its name.
        variable: &'static str,
        /// What belongs there.
        wanted: &'static str,
    },
}

/// The environment variables at start.
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            variables: std::env::vars_os().filter_map(unicode).collect(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        Self {
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// The value; an empty one counts as not set.
    pub(crate) fn get(&self, variable: &str) -> Option<&str> {
        self.variables
            .get(variable)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The value, which has to be there.
    pub(crate) fn require(
        &self,
        variable: &'static str,
        wanted: &'static str,
    ) -> Result<&str, ConfigError> {
        self.get(variable)
            .ok_or(ConfigError::Missing { variable, wanted })
    }

    /// The parsed value, or the default when it is not set.
    pub(crate) fn parse<T: FromStr>(
        &self,
        variable: &'static str,
        default: T,
        wanted: &'static str,
    ) -> Result<T, ConfigError> {
        match self.get(variable) {
            Some(value) => value
                .parse()
                .map_err(|_| ConfigError::Invalid { variable, wanted }),
            None => Ok(default),
        }
    }

    /// A whole number of seconds.
    pub(crate) fn seconds(
        &self,
        variable: &'static str,
        default: u64,
    ) -> Result<Duration, ConfigError> {
        self.parse(variable, default, "a number of seconds")
            .map(Duration::from_secs)
    }

    /// The base of a service's URLs, such as `http://catalog:8080`, without a slash at the end.
    pub(crate) fn url(&self, variable: &'static str) -> Result<String, ConfigError> {
        let wanted = "a URL such as http://catalog:8080";
        let value = self.require(variable, wanted)?.trim_end_matches('/');
        match value.parse::<Uri>() {
            Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => {
                Ok(value.to_owned())
            }
            _ => Err(ConfigError::Invalid { variable, wanted }),
        }
    }

    /// Where to listen: `LISTEN`, an address with a port or a port alone.
    pub(crate) fn listen(&self) -> Result<SocketAddr, ConfigError> {
        let value = self.get("LISTEN").unwrap_or("8080");
        let address = match value.parse::<u16>() {
            Ok(port) => Some(SocketAddr::from(([0, 0, 0, 0], port))),
            Err(_) => value.parse().ok(),
        };
        address.ok_or(ConfigError::Invalid {
            variable: "LISTEN",
            wanted: "a port or an address such as 0.0.0.0:8080",
        })
    }

    /// The version to show: `VERSION`.
    pub(crate) fn version(&self) -> String {
        self.get("VERSION").unwrap_or("dev").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_variable_and_hide_the_value() {
        let environment = Environment::of(&[("CART_URL", "https://secret@x"), ("PGPORT", "many")]);
        assert_eq!(
            environment
                .url("CATALOG_URL")
                .map_err(|error| error.to_string()),
            Err("CATALOG_URL is not set: a URL such as http://catalog:8080".to_owned())
        );
        let error = environment
            .url("CART_URL")
            .expect_err("https is not spoken");
        assert_eq!(
            error.to_string(),
            "CART_URL is invalid: expected a URL such as http://catalog:8080"
        );
        assert!(environment.parse("PGPORT", 5432_u16, "a port").is_err());
    }

    #[test]
    fn listen_takes_a_port_or_an_address() {
        let listen = |value| {
            Environment::of(&[("LISTEN", value)])
                .listen()
                .map(|address| address.to_string())
        };
        assert_eq!(listen(""), Ok("0.0.0.0:8080".to_owned()));
        assert_eq!(listen("9000"), Ok("0.0.0.0:9000".to_owned()));
        assert_eq!(listen("127.0.0.1:1"), Ok("127.0.0.1:1".to_owned()));
        assert!(listen("x").is_err());
    }
}
