//! The authority that says who is who: a root, an issuer that it signed, and leaves for workloads.
//!
//! The root is in every proxy's bundle and signs nothing but issuers; the issuer signs leaves of a day. Only the key of a request
//! is taken over: the name is the one that its sender proved, and everything else is the authority's own.

mod brought;
mod change;
mod keep;
mod pem;
mod slots;
mod steps;

use std::time::Duration;

use fairlead_model::identity::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

pub(crate) use change::Change;
pub use keep::{Keeper, keep};
pub(crate) use pem::{believed, certificates};
pub use slots::{Slot, Slots};
pub use steps::{Decision, Heard, Step, Timing, Wanted, decide, taken};

/// How long an issuer lives; the next one is made when two thirds are over.
const ISSUER_LIFE: time::Duration = time::Duration::days(365);
/// How long a leaf lives.
pub const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How far the clocks of others may be behind.
const SKEW: time::Duration = time::Duration::minutes(5);
/// The largest request, in bytes.
const MOST_REQUEST: usize = 16 << 10;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate cannot be made, or what is kept is none.
    #[error("failed to make a certificate: {source}")]
    Make {
        /// The cause.
        source: rcgen::Error,
    },
    /// What is kept cannot be read.
    #[error("failed to read {what}: {cause}")]
    Read {
        /// Of what.
        what: &'static str,
        /// The cause.
        cause: String,
    },
}

impl From<rcgen::Error> for AuthorityError {
    fn from(source: rcgen::Error) -> Self {
        Self::Make { source }
    }
}

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// It is none, or was not signed by its own key.
    #[error("the request is no PKCS #10 request that its own key signed")]
    Request,
    /// It asks for another name than the sender's, or for more.
    #[error("the request is for {found}, and {allowed} alone is allowed")]
    Name {
        /// What it asks for.
        found: String,
        /// What it may ask for.
        allowed: String,
    },
    /// The authority failed.
    #[error("the authority failed to sign")]
    Failed,
}

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.certificate)
    }
}

impl Pair {
    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, AuthorityError> {
        let key = KeyPair::from_pem(&self.key)?;
        Ok(Issuer::from_ca_cert_pem(&self.certificate, key)?)
    }
}

/// When a certificate's life begins and ends.
type Life = (OffsetDateTime, OffsetDateTime);

/// The life of a certificate in PEM.
fn life(certificate: &str) -> Result<Life, AuthorityError> {
    let wrong = |cause: String| AuthorityError::Read {
        what: "a certificate",
        cause,
    };
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())
        .map_err(|error| wrong(error.to_string()))?;
    let certificate = pem.parse_x509().map_err(|error| wrong(error.to_string()))?;
    let validity = certificate.validity();
    Ok((
        validity.not_before.to_datetime(),
        validity.not_after.to_datetime(),
    ))
}

/// Whether two thirds of a life are over.
fn is_due((begin, end): Life, now: OffsetDateTime) -> bool {
    now >= begin + (end - begin) * 2 / 3
}

/// A root and an issuer that it signed, as they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// The root's certificate, in PEM.
    pub root: String,
    /// The root's key, in PEM; none where somebody else keeps it.
    root_key: Option<String>,
    /// The issuer.
    pub issuer: Pair,
}

impl Material {
    /// A new root that lives for so long, and its issuer.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn make(
        trust_domain: &str,
        life: time::Duration,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let params = authority("root", trust_domain, 1, (now - SKEW, now + life))?;
        let root = Pair {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        };
        let issuer = issuer(&root, trust_domain, now)?;
        Ok(Self {
            root: root.certificate,
            root_key: Some(root.key),
            issuer,
        })
    }

    /// The same with a new issuer; nothing where somebody else has to make it.
    ///
    /// # Errors
    /// When what is kept cannot be read.
    pub fn reissued(
        &self,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Option<Self>, AuthorityError> {
        let Some(key) = self.root_key.clone() else {
            return Ok(None);
        };
        let root = Pair {
            certificate: self.root.clone(),
            key,
        };
        Ok(Some(Self {
            issuer: issuer(&root, trust_domain, now)?,
            ..self.clone()
        }))
    }

    /// When the root's life begins and ends.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn life(&self) -> Result<Life, AuthorityError> {
        life(&self.root)
    }
}

/// Signs for workloads.
pub struct Authority {
    roots: String,
    signer: Signer,
    own: Signer,
}

/// An issuer and its certificate.
struct Signer {
    intermediate: String,
    /// When its life ends, and that of whatever it signs.
    end: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    fn of(slot: &Slot) -> Result<Self, AuthorityError> {
        Ok(Self {
            intermediate: slot.material.issuer.certificate.clone(),
            end: life(&slot.material.issuer.certificate)?.1,
            issuer: slot.material.issuer.issuer()?,
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.roots)
    }
}

impl Authority {
    /// The authority of what is kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(slots: &Slots) -> Result<Self, AuthorityError> {
        Ok(Self {
            roots: slots.bundle(),
            signer: Signer::of(slots.active())?,
            own: Signer::of(slots.best_known())?,
        })
    }

    /// Whom to trust, in PEM: first the root that signs.
    #[must_use]
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// Signs a request of somebody who proved to be `id`: the chain in PEM, the leaf first.
    ///
    /// # Errors
    /// When it is none, or asks for anything else than that name.
    pub fn sign(
        &self,
        request: &[u8],
        id: &SpiffeId,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<String, SignError> {
        if request.len() > MOST_REQUEST {
            return Err(SignError::Request);
        }
        check_names(request, id)?;
        let der = CertificateSigningRequestDer::from(request);
        let parsed = CertificateSigningRequestParams::from_der(&der);
        let key = parsed.map_err(|_| SignError::Request)?.public_key;
        leaf(&self.signer, &key, id, &[], life, now).map_err(|_| SignError::Failed)
    }

    /// A certificate of the control plane's own, with the names that it is reached by. The root that is known for the longest
    /// time vouches for it: proxies learn of a new one from files that kubelet brings up to date when it comes to it.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn own(
        &self,
        id: &SpiffeId,
        names: &[String],
        now: OffsetDateTime,
    ) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        Ok(Pair {
            certificate: leaf(&self.own, &key, id, names, LEAF_LIFE, now)?,
            key: key.serialize_pem(),
        })
    }
}

fn leaf(
    signer: &Signer,
    key: &impl PublicKeyData,
    id: &SpiffeId,
    names: &[String],
    life: Duration,
    now: OffsetDateTime,
) -> Result<String, AuthorityError> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    let uri = SanType::URI(id.as_str().try_into()?);
    params.subject_alt_names.insert(0, uri);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = now - SKEW;
    params.not_after = (now + life).min(signer.end);
    let certificate = params.signed_by(key, &signer.issuer)?;
    Ok(format!("{}{}", certificate.pem(), signer.intermediate))
}

fn issuer(root: &Pair, trust_domain: &str, now: OffsetDateTime) -> Result<Pair, AuthorityError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let params = authority("issuer", trust_domain, 0, (now - SKEW, now + ISSUER_LIFE))?;
    Ok(Pair {
        certificate: params.signed_by(&key, &root.issuer()?)?.pem(),
        key: key.serialize_pem(),
    })
}

/// A certificate that signs others, `depth` of them below each other before a leaf.
fn authority(
    what: &str,
    trust_domain: &str,
    depth: u8,
    (begin, end): (OffsetDateTime, OffsetDateTime),
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "fairlead");
    // No two of them have the same name.
    let serial = begin.unix_timestamp_nanos();
    name.push(
        DnType::CommonName,
        format!("{what} of {trust_domain} {serial}"),
    );
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (begin, end);
    Ok(params)
}

/// Whether a request is for this id and nothing else.
fn check_names(request: &[u8], id: &SpiffeId) -> Result<(), SignError> {
    let (rest, parsed) =
        X509CertificationRequest::from_der(request).map_err(|_| SignError::Request)?;
    if !rest.is_empty() {
        return Err(SignError::Request);
    }
    let mut found: Vec<String> = Vec::new();
    let subject = parsed.certification_request_info.subject.to_string();
    if !subject.is_empty() {
        found.push(subject);
    }
    for extension in parsed.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                let names = names.general_names.iter();
                found.extend(names.map(|name| match name {
                    GeneralName::URI(uri) => (*uri).to_owned(),
                    other => format!("{other}"),
                }));
            }
            _ => found.push("another extension".to_owned()),
        }
    }
    if found == [id.as_str()] {
        return Ok(());
    }
    let mut found = found.join(", ");
    found.truncate(found.floor_char_boundary(256));
    Err(SignError::Name {
        found: if found.is_empty() {
            "no name".to_owned()
        } else {
            found
        },
        allowed: id.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::CustomExtension;
    use rustls::pki_types::UnixTime;
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn first() -> Slots {
        let life = time::Duration::days(3650);
        let material = Material::make("cluster.local", life, now()).expect("an authority");
        Slots::first(material, now())
    }

    fn own() -> Authority {
        Authority::of(&first()).expect("an authority")
    }

    fn request(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(ID.try_into().expect("a URI"))];
        change(&mut params);
        let request = params.serialize_request(&key).expect("a request");
        request.der().to_vec()
    }

    fn sign(request: &[u8]) -> Result<String, SignError> {
        own().sign(request, &ID.parse().expect("an id"), LEAF_LIFE, now())
    }

    #[test]
    fn a_request_for_its_own_name_is_signed() {
        let chain = sign(&request(|_| {})).expect("it is signed");
        assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
        let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).expect("PEM");
        let leaf = pem.parse_x509().expect("a certificate");
        assert!(!leaf.is_ca());
        let life = leaf.validity().time_to_expiration().expect("it is valid");
        assert!(life > time::Duration::hours(23) && life <= time::Duration::hours(24));
    }

    #[test]
    fn clocks_may_be_a_minute_apart() {
        let (own, id) = (own(), ID.parse().expect("an id"));
        let chain = own.sign(&request(|_| {}), &id, LEAF_LIFE, now());
        let chain = certificates(&chain.expect("it is signed")).expect("certificates");
        let roots = believed(own.roots()).expect("roots");
        let verifier = WebPkiClientVerifier::builder(roots.into()).build();
        let verifier = verifier.expect("a verifier");
        let (leaf, chain) = chain.split_first().expect("a leaf");
        for skew in [-60, 0, 60] {
            let seconds = u64::try_from(now().unix_timestamp() + skew).expect("it is past 1970");
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let verified = verifier.verify_client_cert(leaf, chain, time);
            assert!(verified.is_ok(), "{skew}: {verified:?}");
        }
    }

    #[test]
    fn a_request_for_anything_else_is_refused() {
        let uri = |text: &str| SanType::URI(text.try_into().expect("a URI"));
        let other = "spiffe://cluster.local/ns/shop/sa/till";
        type Change<'a> = Box<dyn FnOnce(&mut CertificateParams) + 'a>;
        let changes: Vec<(&str, Change<'_>)> = vec![
            (
                "another name",
                Box::new(|own| own.subject_alt_names = vec![uri(other)]),
            ),
            (
                "more names",
                Box::new(|own| own.subject_alt_names.push(uri(other))),
            ),
            ("no name", Box::new(|own| own.subject_alt_names.clear())),
            (
                "a DNS name",
                Box::new(|own| {
                    let name = SanType::DnsName("shop.example".try_into().expect("a name"));
                    own.subject_alt_names.push(name);
                }),
            ),
            (
                "a subject",
                Box::new(|own| {
                    own.distinguished_name.push(DnType::CommonName, "admin");
                }),
            ),
            (
                "an authority",
                Box::new(|own| {
                    let constraints = [0x30, 0x03, 0x01, 0x01, 0xff];
                    let extension =
                        CustomExtension::from_oid_content(&[2, 5, 29, 19], constraints.to_vec());
                    own.custom_extensions.push(extension);
                }),
            ),
        ];
        for (what, change) in changes {
            let refused = sign(&request(change));
            assert!(
                matches!(refused, Err(SignError::Name { .. })),
                "{what}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_request_that_another_key_signed_is_refused() {
        let mut tampered = request(|_| {});
        let last = tampered.len() - 1;
        tampered[last] ^= 1;
        assert_eq!(sign(&tampered), Err(SignError::Request));
        assert_eq!(sign(b"nonsense"), Err(SignError::Request));
        assert_eq!(sign(&[]), Err(SignError::Request));
        assert_eq!(sign(&vec![0; MOST_REQUEST + 1]), Err(SignError::Request));
    }

    #[test]
    fn another_issuer_has_the_same_root() {
        let first = first();
        let material = &first.active().material;
        let next = material.reissued("cluster.local", now());
        let next = next.expect("it is made").expect("its key is here");
        assert_eq!(next.root, material.root);
        assert_ne!(next.issuer, material.issuer);
    }
}
