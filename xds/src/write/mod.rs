//! The model's types as Envoy's resources, in their JSON form: what a control plane tells, and what an operator is shown. Reading
//! what was written gives the same again, but for private keys: only [`secret_with_key`] has them. [`crate::Shapes::bytes`] makes protocol buffers of it.

mod access_log;
mod bootstrap;
mod check;
mod cluster;
mod egress;
mod endpoint;
mod filter;
mod headers;
mod health;
mod listener;
mod manager;
mod matching;
mod mutation;
mod route;
mod tls;
mod token;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::field::{LARGEST_WHOLE, TYPED_STRUCT};

pub use bootstrap::bootstrap;
pub use cluster::cluster;
pub use endpoint::endpoints;
pub use listener::{api_listener, listener};
pub use route::routes;
pub use tls::{secret, secret_with_key};

/// A duration in seconds: `1.5s`.
fn duration(duration: Duration) -> Value {
    let fraction = format!("{:09}", duration.subsec_nanos());
    match fraction.trim_end_matches('0') {
        "" => json!(format!("{}s", duration.as_secs())),
        fraction => json!(format!("{}.{fraction}s", duration.as_secs())),
    }
}

/// A limit, where nothing is no limit.
fn limit(limit: Option<Duration>) -> Value {
    duration(limit.unwrap_or_default())
}

/// A share in millionths.
fn share(millionths: u32) -> Value {
    json!({"numerator": millionths, "denominator": "MILLION"})
}

/// A message within an `Any`.
fn any(name: &str, mut message: Value) -> Value {
    if let Some(map) = message.as_object_mut() {
        map.insert(
            "@type".to_owned(),
            json!(format!("type.googleapis.com/{name}")),
        );
    }
    message
}

/// A message of our own within an `Any`, as a `TypedStruct`: a stock Envoy, which does not know its type, could not show the
/// resource that it is in (`/config_dump`) otherwise.
fn own(name: &str, mut message: Value) -> Value {
    exact(&mut message);
    let url = format!("type.googleapis.com/{name}");
    any(TYPED_STRUCT, json!({"type_url": url, "value": message}))
}

/// Whole numbers that no decimal one is as text, as JSON may have them.
fn exact(value: &mut Value) {
    match value {
        Value::Number(own) => {
            let whole = own.as_i128().map(i128::unsigned_abs);
            if whole.is_some_and(|own| own > u128::from(LARGEST_WHOLE)) {
                *value = json!(own.to_string());
            }
        }
        Value::Array(all) => all.iter_mut().for_each(exact),
        Value::Object(all) => all.values_mut().for_each(exact),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// A named extension.
fn extension(name: &str, kind: &str, message: Value) -> Value {
    json!({"name": name, "typed_config": any(kind, message)})
}

/// Where resources come from that have a name.
fn source() -> Value {
    json!({"ads": {}, "resource_api_version": "V3"})
}

/// The fields of a message; those that say nothing are left out.
#[derive(Debug, Default)]
struct Message(Map<String, Value>);

impl Message {
    fn with(mut self, name: &str, value: Value) -> Self {
        let says_nothing = match &value {
            Value::Null => true,
            Value::Bool(own) => !own,
            Value::String(own) => own.is_empty(),
            Value::Array(own) => own.is_empty(),
            Value::Number(_) | Value::Object(_) => false,
        };
        if !says_nothing {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}
