//! Who a proxy says it is (`config.core.v3.Node`), as far as it is used.

use std::collections::BTreeMap;

use prost::Message;

use super::RequestError;
use crate::options::KEY;

/// Who a proxy says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// What it says to us alone: the texts under `fairlead.mesh.v1` in its metadata, by their names.
    pub said: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<Struct>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`, where it is a text or a message.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, optional, tag = "3")]
    text: Option<String>,
    #[prost(message, optional, tag = "5")]
    fields: Option<Struct>,
}

/// Reads it, where a request has one.
pub(super) fn read(bytes: Option<&[u8]>) -> Result<Option<Node>, RequestError> {
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let own = Wire::decode(bytes).map_err(|error| RequestError::Decode {
        cause: error.to_string(),
    })?;
    let said = own
        .metadata
        .and_then(|mut metadata| metadata.fields.remove(KEY)?.fields);
    let said = said.into_iter().flat_map(|own| own.fields);
    Ok(Some(Node {
        id: own.id,
        said: said
            .filter_map(|(name, value)| Some((name, value.text?)))
            .collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_us_is_read_and_all_else_left_alone() {
        let text = |text: &str| Value {
            text: Some(text.to_owned()),
            fields: None,
        };
        let fields = |all: &[(&str, Value)]| {
            let all = all.iter();
            Struct {
                fields: all
                    .map(|(name, own)| ((*name).to_owned(), own.clone()))
                    .collect(),
            }
        };
        let nothing = Value {
            text: None,
            fields: None,
        };
        let own = fields(&[("key_file", text("/key.pem")), ("number", nothing)]);
        let own = Value {
            text: None,
            fields: Some(own),
        };
        let message = Wire {
            id: "web-1.shop".to_owned(),
            metadata: Some(fields(&[(KEY, own), ("other", text("else"))])),
        };
        let node = read(Some(&message.encode_to_vec()));
        let expected = Node {
            id: "web-1.shop".to_owned(),
            said: BTreeMap::from([("key_file".to_owned(), "/key.pem".to_owned())]),
        };
        assert_eq!(node, Ok(Some(expected)));
        assert!(read(Some(&[0xff])).is_err());
        assert_eq!(read(None), Ok(None));
    }
}
