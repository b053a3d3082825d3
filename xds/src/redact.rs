//! Keeps what nobody is to see out of resources that are shown as they came, since they could not be read.

use serde_json::{Value, json};

/// What stands in the place of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

/// Fields whose content nobody is to see, wherever they stand.
const SECRET: [&str; 6] = [
    "generic_secret",
    "keys",
    "password",
    "pkcs12",
    "private_key",
    "session_ticket_keys",
];

/// Puts `[redacted]` in the place of secrets; names of files stay.
pub(crate) fn redact(value: &mut Value) {
    walk(value, false);
}

fn walk(value: &mut Value, is_secret: bool) {
    match value {
        Value::Object(map) => {
            for (name, own) in map.iter_mut() {
                let is_secret = is_secret || SECRET.contains(&name.as_str());
                if is_secret && own.is_string() && name.starts_with("inline_") {
                    *own = json!(REDACTED);
                } else {
                    walk(own, is_secret);
                }
            }
            // What stands there is no base64.
            if let Some(own) = map.remove("inline_bytes") {
                let is_redacted = own == json!(REDACTED);
                let name = if is_redacted {
                    "inline_string"
                } else {
                    "inline_bytes"
                };
                map.insert(name.to_owned(), own);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|own| walk(own, is_secret)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_shown_and_names_of_files_are() {
        let mut value = json!({"tls_certificates": [
            {"certificate_chain": {"inline_string": "a"}, "private_key": {"inline_string": "b"}},
            {"certificate_chain": {"inline_bytes": "YQ=="}, "private_key": {"inline_bytes": "Yg=="}},
            {"private_key": {"filename": "c"}, "password": {"inline_string": "d"}},
        ]});
        redact(&mut value);
        let hidden = json!({"inline_string": "[redacted]"});
        assert_eq!(
            value,
            json!({"tls_certificates": [
                {"certificate_chain": {"inline_string": "a"}, "private_key": hidden},
                {"certificate_chain": {"inline_bytes": "YQ=="}, "private_key": hidden},
                {"private_key": {"filename": "c"}, "password": hidden},
            ]})
        );
    }
}
