//! The public keys of an issuer, a JSON Web Key Set ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::Value;

use super::jwt::{Algorithm, Jwt};

/// How many keys a set may have.
pub const MOST_KEYS: usize = 1_000;

/// Public keys.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySet {
    /// Its text.
    pub source: String,
    /// Those of its keys that are of use here.
    pub keys: Vec<Key>,
}

/// A public key.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its name.
    pub id: Option<String>,
    /// The only algorithm that it is for; nothing: any that suits its kind.
    pub algorithm: Option<Algorithm>,
    /// Its numbers.
    pub material: Material,
}

/// The numbers of a public key.
#[derive(Debug, Clone, PartialEq)]
pub enum Material {
    /// RSA.
    Rsa {
        /// The modulus, the most significant byte first.
        modulus: Vec<u8>,
        /// The public exponent, the most significant byte first.
        exponent: Vec<u8>,
    },
    /// A point of a curve, uncompressed.
    Curve(Curve, Vec<u8>),
    /// A key of Ed25519.
    Ed25519(Vec<u8>),
}

/// A curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 7518")]
pub enum Curve {
    P256,
    P384,
    P521,
}

/// Why a set is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is none.
    #[error("is no JSON Web Key Set: {0}")]
    Json(String),
    /// It has too many keys.
    #[error("has {0} keys; {MOST_KEYS} are allowed")]
    Many(usize),
    /// One of its keys is a secret: whoever could read it here could make tokens.
    #[error(
        "keys[{0}] is a secret that both sides have (kty \"oct\"); public keys are allowed: RSA, EC, OKP"
    )]
    Secret(usize),
    /// None of its keys is of use.
    #[error("has no key of RSA, EC (P-256, P-384, P-521) or OKP (Ed25519) for signatures")]
    None,
}

impl KeySet {
    /// Reads a set. Keys that are for encryption or of a kind that is not known are left out, as RFC 7517 asks for.
    ///
    /// # Errors
    /// When it is none, has no key that is of use, too many, or a secret one where these are not to be left out too.
    pub fn parse(source: &str, leaves_out_secrets: bool) -> Result<Self, KeySetError> {
        let set: Value =
            serde_json::from_str(source).map_err(|error| KeySetError::Json(error.to_string()))?;
        let all = set.get("keys").and_then(Value::as_array);
        let all = all.ok_or_else(|| KeySetError::Json("there are no \"keys\"".to_owned()))?;
        if all.len() > MOST_KEYS {
            return Err(KeySetError::Many(all.len()));
        }
        if !leaves_out_secrets {
            let is_secret = |own: &Value| text(own, "kty") == Some("oct");
            if let Some(place) = all.iter().position(is_secret) {
                return Err(KeySetError::Secret(place));
            }
        }
        let keys: Vec<_> = all.iter().filter_map(Key::of).collect();
        match keys.is_empty() {
            true => Err(KeySetError::None),
            false => Ok(Self {
                source: source.to_owned(),
                keys,
            }),
        }
    }

    /// The keys that may have signed a token.
    pub fn of<'a>(&'a self, jwt: &'a Jwt) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| {
            let is_named = match (&key.id, &jwt.key_id) {
                (Some(own), Some(wanted)) => own == wanted,
                _ => true,
            };
            is_named
                && key.algorithm.is_none_or(|own| own == jwt.algorithm)
                && key.material.suits(jwt.algorithm)
        })
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

impl Key {
    /// A key that is of use here.
    fn of(value: &Value) -> Option<Self> {
        if text(value, "use").is_some_and(|own| own != "sig") {
            return None;
        }
        let bytes = |name| BASE64.decode(text(value, name)?).ok();
        let material = match (text(value, "kty")?, text(value, "crv")) {
            ("RSA", _) => Material::Rsa {
                modulus: bytes("n")?,
                exponent: bytes("e")?,
            },
            ("EC", Some(curve)) => {
                let (curve, size): (_, usize) = match curve {
                    "P-256" => (Curve::P256, 32),
                    "P-384" => (Curve::P384, 48),
                    "P-521" => (Curve::P521, 66),
                    _ => return None,
                };
                let mut point = vec![4];
                for part in [bytes("x")?, bytes("y")?] {
                    // What leads with zeros may have come without them.
                    point.resize(point.len() + size.checked_sub(part.len())?, 0);
                    point.extend(part);
                }
                Material::Curve(curve, point)
            }
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x")?),
            _ => return None,
        };
        let algorithm = match text(value, "alg") {
            None => None,
            Some(name) => Some(Algorithm::named(name)?),
        };
        Some(Self {
            id: text(value, "kid").map(str::to_owned),
            algorithm,
            material,
        })
    }
}

impl Material {
    fn suits(&self, algorithm: Algorithm) -> bool {
        use Algorithm as A;
        match self {
            Self::Rsa { .. } => matches!(
                algorithm,
                A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512
            ),
            Self::Curve(Curve::P256, _) => algorithm == A::Es256,
            Self::Curve(Curve::P384, _) => algorithm == A::Es384,
            Self::Curve(Curve::P521, _) => algorithm == A::Es512,
            Self::Ed25519(_) => algorithm == A::EdDsa,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_use_are_read() {
        let set = json!({"keys": [
            {"kty": "RSA", "kid": "a", "alg": "RS256", "n": "AQAB", "e": "AQAB", "use": "sig"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "use": "enc"},
            {"kty": "EC", "crv": "P-256", "x": BASE64.encode([7; 31]), "y": BASE64.encode([8; 32])},
            {"kty": "EC", "crv": "P-256", "x": BASE64.encode([7; 33]), "y": BASE64.encode([8; 32])},
            {"kty": "OKP", "crv": "Ed25519", "x": "AQAB", "alg": "EdDSA"},
            {"kty": "OKP", "crv": "X25519", "x": "AQAB"},
            {"kty": "oct", "k": "c2VjcmV0"},
        ]})
        .to_string();
        assert_eq!(KeySet::parse(&set, false), Err(KeySetError::Secret(6)));
        let set = KeySet::parse(&set, true).expect("a set");
        assert_eq!(set.keys.len(), 3);
        let Material::Curve(Curve::P256, point) = &set.keys[1].material else {
            panic!("{:?}", set.keys);
        };
        assert_eq!((point.len(), point[..3].to_vec()), (65, vec![4, 0, 7]));
        let jwt = |header: serde_json::Value| {
            let text = format!("{}.e30.AA", BASE64.encode(header.to_string()));
            Jwt::parse(&text).expect("a token")
        };
        let count = |header| set.of(&jwt(header)).count();
        assert_eq!(count(json!({"alg": "RS256", "kid": "a"})), 1);
        assert_eq!(count(json!({"alg": "RS256", "kid": "b"})), 0);
        assert_eq!(
            count(json!({"alg": "PS256", "kid": "a"})),
            0,
            "it is for another"
        );
        assert_eq!(
            count(json!({"alg": "ES256", "kid": "b"})),
            1,
            "it has no name"
        );
        assert_eq!(count(json!({"alg": "EdDSA"})), 1);
    }

    #[test]
    fn a_set_is_bounded() {
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAB"});
        let of = |count| json!({"keys": vec![key.clone(); count]}).to_string();
        assert_eq!(
            KeySet::parse(&of(1_001), true),
            Err(KeySetError::Many(1_001))
        );
        assert!(KeySet::parse(&of(1_000), true).is_ok());
        assert_eq!(KeySet::parse(&of(0), true), Err(KeySetError::None));
        assert!(matches!(
            KeySet::parse("[]", true),
            Err(KeySetError::Json(_))
        ));
    }
}
