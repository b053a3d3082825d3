//! A signed token in its compact form ([RFC 7515](https://www.rfc-editor.org/rfc/rfc7515), [RFC
//! 7519](https://www.rfc-editor.org/rfc/rfc7519)), and what may be wrong with one.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::NO_PAD;
use serde_json::{Map, Value};

/// The encoding of a token's parts. Bits beyond the last byte count for nothing, as for Envoy.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    NO_PAD.with_decode_allow_trailing_bits(true),
);

/// How a token is signed. Neither `none` nor a secret that both sides have is among these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// By its name; nothing where it is another one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// Why a token is not taken. The texts are Envoy's, and so is their order of weight in [`TokenFault::weight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// There is none.
    #[error("Jwt is missing")]
    Missing,
    /// It is none.
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    /// Its head is no base64.
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderBase64,
    /// Its head is no JSON.
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    /// It says no algorithm.
    #[error("Jwt header [alg] field is required and must be a string")]
    Algorithm,
    /// Its algorithm is not taken: `none` and HMAC are not.
    #[error("Jwt header [alg] is not supported")]
    OtherAlgorithm,
    /// The name of its key is no text.
    #[error("Jwt header [kid] field is not a string")]
    KeyId,
    /// Its claims are no base64.
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadBase64,
    /// Its claims are no JSON.
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    /// A claim is not what it has to be.
    #[error("Jwt payload [iss] field is not a string")]
    IssuerType,
    /// A claim is not what it has to be.
    #[error("Jwt payload [sub] field is not a string")]
    SubjectType,
    /// A claim is not what it has to be.
    #[error("Jwt payload [aud] field is not a string or string list")]
    AudienceType,
    /// A claim is not what it has to be.
    #[error("Jwt payload [iat] field is not an integer")]
    IssuedType,
    /// A claim is not what it has to be.
    #[error("Jwt payload [nbf] field is not an integer")]
    NotBeforeType,
    /// A claim is not what it has to be.
    #[error("Jwt payload [exp] field is not an integer")]
    ExpiresType,
    /// Its signature is no base64.
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureBase64,
    /// Nobody here trusts its issuer.
    #[error("Jwt issuer is not configured")]
    Issuer,
    /// Its subject is none of those that are taken.
    #[error("Jwt subject is not allowed")]
    Subject,
    /// It counts for longer than it may, or for ever.
    #[error("Jwt lifetime is not allowed")]
    Lifetime,
    /// It does not count yet.
    #[error("Jwt not yet valid")]
    NotYet,
    /// It counts no longer.
    #[error("Jwt is expired")]
    Expired,
    /// It is for others.
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    /// The issuer's keys could not be had.
    #[error("Jwks remote fetch is failed")]
    Fetch,
    /// The issuer has no such key.
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    /// Its signature is not the issuer's.
    #[error("Jwt verification fails")]
    Signature,
}

impl TokenFault {
    /// How much it says, where one of several requirements had to hold: that there was none says the least, then that its issuer is
    /// another one's.
    #[must_use]
    pub fn weight(self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::Issuer => 1,
            _ => 2,
        }
    }
}

/// A token that was read; whether its signature is good is another question.
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// How it is signed.
    pub algorithm: Algorithm,
    /// The name of its key.
    pub key_id: Option<String>,
    /// All it says, an object.
    pub claims: Arc<Value>,
    /// The same, as it came: base64url without padding.
    pub payload: String,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `exp`, in seconds since 1970.
    pub expires: Option<u64>,
    /// `nbf`, in seconds since 1970.
    pub not_before: Option<u64>,
    /// `iat`, in seconds since 1970.
    pub issued: Option<u64>,
    /// The signature.
    pub signature: Vec<u8>,
    /// How many bytes of its text are signed.
    pub signed: usize,
}

impl Jwt {
    /// Reads a token.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TokenFault> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenFault::Form);
        };
        let signed = header.len() + 1 + payload.len();
        let header = object(header, TokenFault::HeaderBase64, TokenFault::HeaderJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm.ok_or(TokenFault::Algorithm)?;
        let algorithm = Algorithm::named(algorithm).ok_or(TokenFault::OtherAlgorithm)?;
        let key_id = header.get("kid").map(|own| match own {
            Value::String(id) => Ok(id.clone()),
            _ => Err(TokenFault::KeyId),
        });
        let claims = object(payload, TokenFault::PayloadBase64, TokenFault::PayloadJson)?;
        Ok(Self {
            algorithm,
            key_id: key_id.transpose()?,
            issuer: claim_text(&claims, "iss", TokenFault::IssuerType)?,
            subject: claim_text(&claims, "sub", TokenFault::SubjectType)?,
            audiences: audiences(&claims)?,
            expires: time(&claims, "exp", TokenFault::ExpiresType)?,
            not_before: time(&claims, "nbf", TokenFault::NotBeforeType)?,
            issued: time(&claims, "iat", TokenFault::IssuedType)?,
            signature: BASE64
                .decode(signature)
                .map_err(|_| TokenFault::SignatureBase64)?,
            claims: Arc::new(Value::Object(claims)),
            payload: payload.to_owned(),
            signed,
        })
    }

    /// A claim by the names on the way to it.
    pub fn claim<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Value> {
        let mut names = path.into_iter();
        names.try_fold(&*self.claims, |value, name| value.get(name))
    }

    /// Whether it counts at this time, in seconds since 1970, where clocks may differ by `skew`.
    ///
    /// # Errors
    /// When it does not.
    pub fn counts_at(&self, now: u64, skew: Duration) -> Result<(), TokenFault> {
        let skew = skew.as_secs();
        if self.not_before.is_some_and(|from| from > now + skew) {
            return Err(TokenFault::NotYet);
        }
        let is_over = |until: u64| until.saturating_add(skew) < now;
        match self.expires.is_some_and(is_over) {
            true => Err(TokenFault::Expired),
            false => Ok(()),
        }
    }
}

/// An object in base64.
fn object(
    text: &str,
    no_base64: TokenFault,
    no_json: TokenFault,
) -> Result<Map<String, Value>, TokenFault> {
    let bytes = BASE64.decode(text).map_err(|_| no_base64)?;
    serde_json::from_slice(&bytes).map_err(|_| no_json)
}

fn claim_text(
    claims: &Map<String, Value>,
    name: &str,
    wrong: TokenFault,
) -> Result<String, TokenFault> {
    match claims.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(wrong),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, TokenFault> {
    let one = |own: &Value| own.as_str().map(str::to_owned);
    let all = match claims.get("aud") {
        None => Some(Vec::new()),
        Some(Value::Array(all)) => all.iter().map(one).collect(),
        Some(own) => one(own).map(|own| vec![own]),
    };
    all.ok_or(TokenFault::AudienceType)
}

/// Seconds; a fraction counts for nothing, and what is below zero is refused.
fn time(
    claims: &Map<String, Value>,
    name: &str,
    wrong: TokenFault,
) -> Result<Option<u64>, TokenFault> {
    let Some(own) = claims.get(name) else {
        return Ok(None);
    };
    let whole = |own: f64| (own.is_finite() && own >= 0.0).then_some(own as u64);
    let seconds = own.as_u64().or_else(|| whole(own.as_f64()?));
    seconds.map(Some).ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn token(header: Value, claims: Value) -> String {
        let part = |own: Value| BASE64.encode(own.to_string());
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    #[test]
    fn a_token_is_read() {
        let header = json!({"alg": "ES256", "kid": "a"});
        let claims =
            json!({"iss": "https://idp", "aud": "shop", "exp": 20, "nbf": 10.5, "a": {"b": [1]}});
        let text = token(header, claims);
        let jwt = Jwt::parse(&text).expect("a token");
        assert_eq!(
            (jwt.algorithm, jwt.key_id.as_deref(), jwt.issuer.as_str()),
            (Algorithm::Es256, Some("a"), "https://idp")
        );
        assert_eq!(
            (jwt.audiences.as_slice(), jwt.expires, jwt.not_before),
            (&["shop".to_owned()][..], Some(20), Some(10))
        );
        assert_eq!(
            (&jwt.signature[..], &text[jwt.signed..]),
            (&b"sig"[..], ".c2ln")
        );
        assert_eq!(jwt.claim(["a", "b"]), Some(&json!([1])));
        assert_eq!(jwt.claim(["a", "c"]), None);
        let skew = Duration::from_secs(2);
        assert_eq!(jwt.counts_at(7, skew), Err(TokenFault::NotYet));
        assert_eq!(jwt.counts_at(8, skew), Ok(()));
        assert_eq!(jwt.counts_at(22, skew), Ok(()));
        assert_eq!(jwt.counts_at(23, skew), Err(TokenFault::Expired));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let rs = || json!({"alg": "RS256"});
        for (text, fault) in [
            ("a.b".to_owned(), TokenFault::Form),
            ("a.b.c.d".to_owned(), TokenFault::Form),
            ("!.b.c".to_owned(), TokenFault::HeaderBase64),
            ("YQ.b.c".to_owned(), TokenFault::HeaderJson),
            (token(json!({}), json!({})), TokenFault::Algorithm),
            (
                token(json!({"alg": "none"}), json!({})),
                TokenFault::OtherAlgorithm,
            ),
            (
                token(json!({"alg": "HS256"}), json!({})),
                TokenFault::OtherAlgorithm,
            ),
            (
                token(json!({"alg": "RS256", "kid": 1}), json!({})),
                TokenFault::KeyId,
            ),
            (token(rs(), json!([])), TokenFault::PayloadJson),
            (token(rs(), json!({"iss": 1})), TokenFault::IssuerType),
            (token(rs(), json!({"aud": [1]})), TokenFault::AudienceType),
            (token(rs(), json!({"exp": "soon"})), TokenFault::ExpiresType),
            (token(rs(), json!({"nbf": -1})), TokenFault::NotBeforeType),
            (token(rs(), json!({})) + "!", TokenFault::SignatureBase64),
        ] {
            assert_eq!(Jwt::parse(&text), Err(fault), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "[A-Za-z0-9._=!-]{0,80}", now in any::<u64>()) {
            if let Ok(jwt) = Jwt::parse(&text) {
                prop_assert!(jwt.signed <= text.len());
                let _ = jwt.counts_at(now / 2, Duration::from_secs(60));
            }
        }
    }
}
