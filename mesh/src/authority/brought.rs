//! An authority of the user's own, as cert-manager keeps it in a Secret.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use time::OffsetDateTime;

use super::{Authority, Material, Pair, Slots, believed, certificates};

/// The name of the Secret.
pub(super) const BROUGHT: &str = fairlead_plan::rights::MESH_ISSUER;

/// The authority in a Secret, where certificates that it signs are believed; else why not.
pub(super) fn read(
    secret: Option<&Secret>,
    namespace: &str,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<Material, String> {
    let Some(secret) = secret else {
        return Err(format!("there is no Secret {BROUGHT} in {namespace}"));
    };
    let text = |field: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(field));
        let data = data.ok_or_else(|| format!("the Secret {BROUGHT} lacks {field}"))?;
        let text = String::from_utf8(data.0.clone());
        text.map_err(|_| format!("{field} of the Secret {BROUGHT} is no PEM"))
    };
    let material = Material {
        root: text("ca.crt")?,
        root_key: None,
        issuer: Pair {
            certificate: text("tls.crt")?,
            key: text("tls.key")?,
        },
    };
    let is_believed = try_out(&material, trust_domain, now);
    is_believed.map_err(|cause| format!("the Secret {BROUGHT} cannot be used: {cause}"))?;
    Ok(material)
}

/// Signs something, and sees whether it is believed.
fn try_out(material: &Material, trust_domain: &str, now: OffsetDateTime) -> Result<(), String> {
    let slots = Slots::first(material.clone(), now);
    let authority = Authority::of(&slots)
        .map_err(|_| "tls.crt and tls.key are no certificate of an authority with its key")?;
    let id = format!("spiffe://{trust_domain}/trial").parse();
    let id = id.map_err(|_| "the trust domain is none")?;
    let signed = authority.own(&id, &[], now);
    let signed = signed.map_err(|_| "tls.key does not sign")?;
    let roots = believed(&material.root).map_err(|error| format!("ca.crt: {error}"))?;
    if roots.is_empty() {
        return Err("ca.crt holds no certificate".to_owned());
    }
    let verifier = WebPkiClientVerifier::builder(roots.into())
        .build()
        .map_err(|error| format!("ca.crt: {error}"))?;
    let chain = certificates(&signed.certificate)?;
    let (leaf, chain) = chain.split_first().ok_or("tls.crt holds no certificate")?;
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier
        .verify_client_cert(leaf, chain, time)
        .map(drop)
        .map_err(|error| format!("what tls.key signs is not believed by ca.crt: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    const DOMAIN: &str = "cluster.local";

    fn made() -> Material {
        let life = time::Duration::days(10);
        Material::make(DOMAIN, life, OffsetDateTime::now_utc()).expect("an authority")
    }

    fn secret(root: &str, certificate: &str, key: &str) -> Secret {
        let data = [("ca.crt", root), ("tls.crt", certificate), ("tls.key", key)];
        let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.into())));
        Secret {
            data: Some(BTreeMap::from(data)),
            ..Secret::default()
        }
    }

    fn refusal(secret: &Secret) -> String {
        let read = read(Some(secret), "system", DOMAIN, OffsetDateTime::now_utc());
        read.expect_err("it is refused")
    }

    #[test]
    fn an_issuer_with_its_root_is_taken() {
        let own = made();
        let secret = secret(&own.root, &own.issuer.certificate, &own.issuer.key);
        let now = OffsetDateTime::now_utc();
        let taken = read(Some(&secret), "system", DOMAIN, now).expect("it is taken");
        assert_eq!((taken.root, taken.issuer), (own.root, own.issuer));
    }

    #[test]
    fn what_signs_nothing_that_is_believed_is_refused() {
        let (own, other) = (made(), made());
        let issuer = &own.issuer;
        assert_eq!(
            read(None, "system", DOMAIN, OffsetDateTime::now_utc()).expect_err("there is none"),
            "there is no Secret fairlead-mesh-issuer in system"
        );
        let another_root = refusal(&secret(&other.root, &issuer.certificate, &issuer.key));
        assert!(
            another_root.contains("is not believed by ca.crt"),
            "{another_root}"
        );
        let another_key = refusal(&secret(&own.root, &issuer.certificate, &other.issuer.key));
        assert!(another_key.contains("is not believed"), "{another_key}");
        let nonsense = refusal(&secret("a", "b", "c"));
        assert!(
            nonsense.contains("tls.crt and tls.key are no"),
            "{nonsense}"
        );
        // A leaf signs for nobody.
        let slots = Slots::first(own.clone(), OffsetDateTime::now_utc());
        let authority = Authority::of(&slots).expect("an authority");
        let id = "spiffe://cluster.local/ns/a/sa/b".parse().expect("an id");
        let leaf = authority.own(&id, &[], OffsetDateTime::now_utc());
        let leaf = leaf.expect("it is signed");
        let leaf = refusal(&secret(&own.root, &leaf.certificate, &leaf.key));
        assert!(!leaf.contains("PRIVATE KEY"), "{leaf}");
    }
}
