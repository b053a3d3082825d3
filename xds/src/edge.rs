//! What endpoints are told of callers: fields of the HTTP connection manager.

use fairlead_model::edge::{CertificateDetails, CertificateMode, Edge, RequestId};
use http::HeaderValue;

use crate::field::{Fields, Result};

/// The rules for headers about callers; nothing where ids are not wanted and nothing else is asked.
pub(crate) fn read(fields: &Fields<'_>) -> Result<Option<Edge>> {
    let mut edge = Edge {
        is_first: fields.flag("use_remote_address")?,
        trusted_hops: fields
            .get("xff_num_trusted_hops")
            .map_or(Ok(0), |hops| hops.number(0, 64))
            .map(|hops| u32::try_from(hops).unwrap_or(0))?,
        skip_append: fields.flag("skip_xff_append")?,
        append_port: fields.flag("append_x_forwarded_port")?,
        request_id: None,
        via: None,
        certificate: certificate(fields)?,
    };
    let own = RequestId {
        preserve_external: fields.flag("preserve_external_request_id")?,
        in_response: fields.flag("always_set_request_id_in_response")?,
    };
    // Envoy makes ids unless told not to.
    if fields
        .get("generate_request_id")
        .map_or(Ok(true), |own| own.flag())?
    {
        edge.request_id = Some(own);
    } else if own.in_response {
        return Err(fields.error_at(
            "always_set_request_id_in_response",
            "true needs generate_request_id",
        ));
    }
    if let Some(via) = fields.get("via") {
        let text = via.text()?;
        let value = HeaderValue::from_str(text)
            .map_err(|_| via.error(format!("{text:?} is no value of a header")))?;
        edge.via = (!text.is_empty()).then_some(value);
    }
    Ok((edge != Edge::default()).then_some(edge))
}

fn certificate(fields: &Fields<'_>) -> Result<CertificateDetails> {
    let mut details = CertificateDetails::default();
    if let Some(mode) = fields.get("forward_client_cert_details") {
        details.mode = mode.one_of(&[
            ("SANITIZE", CertificateMode::Sanitize),
            ("FORWARD_ONLY", CertificateMode::ForwardOnly),
            ("APPEND_FORWARD", CertificateMode::AppendForward),
            ("SANITIZE_SET", CertificateMode::SanitizeSet),
            ("ALWAYS_FORWARD_ONLY", CertificateMode::AlwaysForwardOnly),
        ])?;
    }
    if let Some(own) = fields.get("set_current_client_cert_details") {
        let own = own.fields()?;
        details.subject = own.flag("subject")?;
        details.certificate = own.flag("cert")?;
        details.chain = own.flag("chain")?;
        details.dns = own.flag("dns")?;
        details.uri = own.flag("uri")?;
        own.finish()?;
    }
    Ok(details)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::field::Field;

    fn of(value: Value) -> std::result::Result<Option<Edge>, String> {
        Field::root(&value)
            .fields()
            .and_then(|fields| read(&fields))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn ids_are_made_unless_told_not_to() {
        let usual = of(json!({})).expect("rules").expect("ids");
        assert_eq!(usual.request_id, Some(RequestId::default()));
        assert_eq!(of(json!({"generate_request_id": false})), Ok(None));
        let first = of(json!({
            "generate_request_id": false,
            "use_remote_address": true,
            "xff_num_trusted_hops": 1,
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"uri": true},
            "via": "edge",
        }))
        .expect("rules")
        .expect("an edge");
        assert!(first.is_first && first.certificate.uri && first.trusted_hops == 1);
    }

    #[test]
    fn what_is_wrong_has_a_path() {
        for (value, expected) in [
            (
                json!({"set_current_client_cert_details": {"chains": true}}),
                "set_current_client_cert_details.chains: is not a supported field; ",
            ),
            (
                json!({"generate_request_id": false, "always_set_request_id_in_response": true}),
                "always_set_request_id_in_response: true needs generate_request_id",
            ),
            (
                json!({"via": "a\nb"}),
                "via: \"a\\nb\" is no value of a header",
            ),
        ] {
            let found = of(value);
            assert!(
                found
                    .as_ref()
                    .is_err_and(|error| error.starts_with(expected)),
                "{found:?}"
            );
        }
    }
}
