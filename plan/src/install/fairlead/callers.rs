//! Whom the webhook answers: the ConfigMap with the authorities of its callers, and what is wrong with it.

use fairlead_crds::condition::Reason;
use fairlead_crds::install::Fairlead;

use crate::live::{Live, ObjectKey};
use crate::problem::Problem;

/// Where the setting is.
const FIELD: &str = "spec.components.webhook.callers";
/// By which a certificate in PEM begins (RFC 7468).
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The ConfigMap with the authorities, where callers are asked for a certificate.
pub(super) fn authorities(object: &Fairlead) -> Option<ObjectKey> {
    let callers = object.spec.components.webhook.callers.as_ref()?;
    let namespace = Some(object.spec.namespace.as_str());
    Some(ObjectKey::new(
        "v1",
        "ConfigMap",
        namespace,
        &callers.config_map,
    ))
}

/// Whether the authorities are there; the webhook does not start without them.
pub(super) fn check(object: &Fairlead, live: &Live) -> Result<(), Problem> {
    let callers = object.spec.components.webhook.callers.as_ref();
    let (Some(key), Some(callers)) = (authorities(object), callers) else {
        return Ok(());
    };
    let fail = |field: &str, found: String| {
        let message = format!("{FIELD}.{field}: {found}");
        Err(Problem::waiting(Reason::NotFound, message))
    };
    let (name, namespace) = (&callers.config_map, &object.spec.namespace);
    let Some(found) = live.object(&key) else {
        let found = format!("there is no ConfigMap {name} in {namespace}");
        return fail("configMap", found);
    };
    match found["data"][&callers.key].as_str() {
        Some(text) if text.contains(CERTIFICATE) => Ok(()),
        Some(_) => {
            let found = format!(
                "{} of the ConfigMap {name} holds no certificate in PEM",
                callers.key
            );
            fail("key", found)
        }
        None => fail(
            "key",
            format!("the ConfigMap {name} has no {}", callers.key),
        ),
    }
}
