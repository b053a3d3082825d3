//! Messages as protocol buffers, and as the JSON form that is read and written everywhere else.
//!
//! Descriptors of the messages that are supported, made by `cargo xtask gen`, say how.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value as Dynamic,
};
use serde_json::{Map, Value, json};

/// The descriptors, made by `cargo xtask gen`.
const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

/// Why a message cannot be turned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The message is none of those that are supported.
    #[error("the message {name} is not known")]
    Unknown {
        /// Its full name.
        name: String,
    },
    /// The bytes are no such message.
    #[error("failed to decode {name}: {cause}")]
    Bytes {
        /// Its full name.
        name: String,
        /// Why.
        cause: String,
    },
    /// The JSON is no such message.
    #[error("failed to encode {name}: {cause}")]
    Json {
        /// Its full name.
        name: String,
        /// Why.
        cause: String,
    },
}

/// The shapes of all messages that are supported.
#[derive(Debug, Clone)]
pub struct Shapes {
    pool: DescriptorPool,
}

impl Default for Shapes {
    fn default() -> Self {
        let pool =
            DescriptorPool::decode(DESCRIPTORS).expect("the generated descriptors are whole");
        Self { pool }
    }
}

impl Shapes {
    /// The JSON form of a message, with the names of fields as in Envoy's documentation. Fields newer than the descriptors are
    /// left out, as Envoy does.
    ///
    /// # Errors
    /// When the message is not known, or the bytes are none.
    pub fn json(&self, name: &str, bytes: &[u8]) -> Result<Value, ShapeError> {
        let wrong = |cause: prost_reflect::prost::DecodeError| ShapeError::Bytes {
            name: name.to_owned(),
            cause: cause.to_string(),
        };
        let message = DynamicMessage::decode(self.descriptor(name)?, bytes).map_err(wrong)?;
        self.message(&message)
    }

    /// A message of this JSON form.
    ///
    /// # Errors
    /// When the message is not known, or the JSON is none of it.
    pub fn bytes(&self, name: &str, value: &Value) -> Result<Vec<u8>, ShapeError> {
        DynamicMessage::deserialize(self.descriptor(name)?, value)
            .map(|message| message.encode_to_vec())
            .map_err(|error| ShapeError::Json {
                name: name.to_owned(),
                cause: error.to_string(),
            })
    }

    fn descriptor(&self, name: &str) -> Result<prost_reflect::MessageDescriptor, ShapeError> {
        self.pool
            .get_message_by_name(name)
            .ok_or_else(|| ShapeError::Unknown {
                name: name.to_owned(),
            })
    }

    fn message(&self, message: &DynamicMessage) -> Result<Value, ShapeError> {
        match message.descriptor().full_name() {
            "google.protobuf.Any" => return self.any(message),
            "google.protobuf.Duration" => return Ok(duration(message)),
            "google.protobuf.Struct" | "google.protobuf.ListValue" | "google.protobuf.Value" => {
                return serde_json::to_value(message).map_err(|error| ShapeError::Bytes {
                    name: message.descriptor().full_name().to_owned(),
                    cause: error.to_string(),
                });
            }
            "google.protobuf.BoolValue"
            | "google.protobuf.BytesValue"
            | "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int32Value"
            | "google.protobuf.Int64Value"
            | "google.protobuf.StringValue"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.UInt64Value" => {
                let field = message.descriptor().get_field(1);
                return field.map_or(Ok(Value::Null), |field| {
                    self.value(&message.get_field(&field), &field.kind())
                });
            }
            _ => {}
        }
        let mut map = Map::new();
        for (field, value) in message.fields() {
            map.insert(field.name().to_owned(), self.field(&field, value)?);
        }
        Ok(Value::Object(map))
    }

    fn field(&self, field: &FieldDescriptor, value: &Dynamic) -> Result<Value, ShapeError> {
        let kind = field.kind();
        match value {
            Dynamic::List(list) => list
                .iter()
                .map(|own| self.value(own, &kind))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Dynamic::Map(entries) => {
                let kind = match &kind {
                    Kind::Message(entry) => entry.map_entry_value_field().kind(),
                    other => other.clone(),
                };
                entries
                    .iter()
                    .map(|(key, own)| Ok((text_of(key), self.value(own, &kind)?)))
                    .collect::<Result<Map<_, _>, _>>()
                    .map(Value::Object)
            }
            single => self.value(single, &kind),
        }
    }

    fn value(&self, value: &Dynamic, kind: &Kind) -> Result<Value, ShapeError> {
        Ok(match value {
            Dynamic::Bool(own) => json!(own),
            Dynamic::I32(own) => json!(own),
            Dynamic::U32(own) => json!(own),
            Dynamic::I64(own) => json!(own),
            Dynamic::U64(own) => json!(own),
            Dynamic::F32(own) => json!(own),
            Dynamic::F64(own) => json!(own),
            Dynamic::String(own) => json!(own),
            Dynamic::Bytes(own) => json!(BASE64.encode(own)),
            Dynamic::EnumNumber(number) => kind
                .as_enum()
                .and_then(|own| own.get_value(*number))
                .map_or(json!(number), |own| json!(own.name())),
            Dynamic::Message(own) => self.message(own)?,
            Dynamic::List(_) | Dynamic::Map(_) => Value::Null,
        })
    }

    /// What an `Any` holds, with its type; of a type that is not known, the type alone, which no reader accepts.
    fn any(&self, message: &DynamicMessage) -> Result<Value, ShapeError> {
        let part = |name: &str| message.get_field_by_name(name);
        let (url, bytes) = (part("type_url"), part("value"));
        let url = url.as_deref().and_then(Dynamic::as_str).unwrap_or_default();
        let name = url.rsplit('/').next().unwrap_or(url);
        let mut value = match bytes.as_deref().and_then(Dynamic::as_bytes) {
            Some(bytes) if self.pool.get_message_by_name(name).is_some() => {
                self.json(name, bytes)?
            }
            _ => json!({}),
        };
        if let Some(map) = value.as_object_mut() {
            map.insert("@type".to_owned(), json!(url));
        }
        Ok(value)
    }
}

/// A duration in seconds: `1.5s`.
fn duration(message: &DynamicMessage) -> Value {
    let part = |name: &str| message.get_field_by_name(name);
    let seconds = part("seconds")
        .as_deref()
        .and_then(Dynamic::as_i64)
        .unwrap_or_default();
    let nanoseconds = part("nanos")
        .as_deref()
        .and_then(Dynamic::as_i32)
        .unwrap_or_default();
    let sign = if seconds < 0 || nanoseconds < 0 {
        "-"
    } else {
        ""
    };
    let (seconds, nanoseconds) = (seconds.unsigned_abs(), nanoseconds.unsigned_abs());
    let fraction = format!("{nanoseconds:09}");
    match fraction.trim_end_matches('0') {
        "" => json!(format!("{sign}{seconds}s")),
        fraction => json!(format!("{sign}{seconds}.{fraction}s")),
    }
}

fn text_of(key: &MapKey) -> String {
    match key {
        MapKey::Bool(own) => own.to_string(),
        MapKey::I32(own) => own.to_string(),
        MapKey::I64(own) => own.to_string(),
        MapKey::U32(own) => own.to_string(),
        MapKey::U64(own) => own.to_string(),
        MapKey::String(own) => own.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_the_same_in_either_form() {
        let shapes = Shapes::default();
        let cluster = json!({
            "name": "cart",
            "type": "EDS",
            "eds_cluster_config": {"service_name": "cart.shop", "eds_config": {"ads": {}}},
            "connect_timeout": "0.25s",
            "circuit_breakers": {"thresholds": [{"max_requests": 0}]},
            "common_lb_config": {"healthy_panic_threshold": {"value": 50.0}},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 100}},
                },
            },
            "metadata": {"filter_metadata": {"envoy.lb": {"version": "1", "weights": [1.0, true, null]}}},
        });
        let name = "envoy.config.cluster.v3.Cluster";
        let bytes = shapes.bytes(name, &cluster).expect("a cluster");
        assert_eq!(shapes.json(name, &bytes), Ok(cluster));
    }

    #[test]
    fn what_is_not_supported_keeps_its_name() {
        let shapes = Shapes::default();
        let name = "envoy.config.listener.v3.Listener";
        let listener = json!({
            "udp_listener_config": {},
            "filter_chains": [{"filters": [{"typed_config": {"@type": "type.googleapis.com/a.Filter"}}]}],
        });
        let bytes = [
            shapes
                .bytes(name, &json!({"udp_listener_config": {}}))
                .expect("a listener"),
            // filter_chains[0].filters[0].typed_config.type_url
            b"\x1a\x26\x1a\x24\x22\x22\x0a\x1ctype.googleapis.com/a.Filter\x12\x02\x01\x02"
                .to_vec(),
        ]
        .concat();
        assert_eq!(shapes.json(name, &bytes), Ok(listener));
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let shapes = Shapes::default();
        assert!(matches!(
            shapes.json("envoy.config.cluster.v3.Cluster", &[0x0a, 0xff]),
            Err(ShapeError::Bytes { .. })
        ));
    }
}
