//! What is allowed to other origins (`extensions.filters.http.cors.v3.CorsPolicy`).

use fairlead_model::filter::Cors;
use http::HeaderValue;

use crate::field::{Field, Result};
use crate::matching;

/// A `CorsPolicy`.
pub(crate) fn read(field: &Field<'_>) -> Result<Cors> {
    let fields = field.fields()?;
    let value = |name: &'static str| -> Result<Option<HeaderValue>> {
        match fields.text(name)? {
            "" => Ok(None),
            text => HeaderValue::from_str(text)
                .map(Some)
                .map_err(|_| fields.error_at(name, format!("{text:?} is no value of a header"))),
        }
    };
    let flag = |name| fields.get(name).map(|own| own.flag()).transpose();
    let cors = Cors {
        origins: fields
            .list("allow_origin_string_match")?
            .iter()
            .map(matching::text)
            .collect::<Result<_>>()?,
        methods: value("allow_methods")?,
        headers: value("allow_headers")?,
        exposes: value("expose_headers")?,
        life: value("max_age")?,
        credentials: flag("allow_credentials")?,
        private_network: flag("allow_private_network_access")?,
        forwards_others: flag("forward_not_matching_preflights")?,
        enabled: fields
            .get("filter_enabled")
            .map_or(Ok(1_000_000), |own| own.runtime_share())?,
    };
    fields.finish()?;
    Ok(cors)
}
