//! Issuers of tokens.

use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

/// The private half of the key in RFC 8037's example.
pub const EXAMPLE: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

/// Who signs tokens.
pub struct Issuer {
    pub algorithm: &'static str,
    pub id: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Curve(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl Issuer {
    /// With a new key of this name.
    pub fn new(algorithm: &'static str, id: &str) -> Self {
        let curve = |how| Pair::Curve(Box::new(EcdsaKeyPair::generate(how).expect("a key")));
        let pair = match algorithm {
            "ES256" => curve(&ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => curve(&ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => curve(&ECDSA_P521_SHA512_FIXED_SIGNING),
            "EdDSA" => Pair::Ed25519(Box::new(Ed25519KeyPair::generate().expect("a key"))),
            _ => Pair::Rsa(Box::new(
                RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            )),
        };
        let id = id.to_owned();
        Self {
            algorithm,
            id,
            pair,
        }
    }

    /// With the key of the example.
    pub fn example() -> Self {
        let seed = BASE64.decode(EXAMPLE).expect("base64");
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a key");
        Self {
            algorithm: "EdDSA",
            id: "one".to_owned(),
            pair: Pair::Ed25519(Box::new(pair)),
        }
    }

    /// The public half of its key.
    pub fn key(&self) -> Value {
        let text = |bytes: &[u8]| BASE64.encode(bytes);
        let mut key = match &self.pair {
            Pair::Rsa(pair) => {
                let public: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({"kty": "RSA", "n": text(&public.n), "e": text(&public.e)})
            }
            Pair::Curve(pair) => {
                let public: aws_lc_rs::encoding::EcPublicKeyUncompressedBin<'_> =
                    pair.public_key().as_be_bytes().expect("a point");
                let point = &public.as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match self.algorithm {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
        };
        key["kid"] = json!(self.id);
        key["alg"] = json!(self.algorithm);
        key
    }

    /// A token that says this.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm, "kid": self.id, "typ": "JWT"});
        let part = |own: &Value| BASE64.encode(own.to_string());
        let text = format!("{}.{}", part(&header), part(claims));
        format!("{text}.{}", BASE64.encode(self.sign(text.as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = match self.algorithm {
                    "PS256" => pair.sign(&RSA_PSS_SHA256, &random, message, &mut signature),
                    _ => pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature),
                };
                signed.expect("a signature");
                signature
            }
            Pair::Curve(pair) => {
                let signature = pair.sign(&random, message).expect("a signature");
                signature.as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// A set of keys.
pub fn keys(issuers: &[&Issuer]) -> String {
    let keys: Vec<Value> = issuers.iter().map(|own| own.key()).collect();
    json!({"keys": keys}).to_string()
}

/// A time so many seconds from now.
pub fn seconds(from_now: i64) -> i64 {
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the sun ends") + from_now
}
