//! Whether a token was signed by a key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use fairlead_model::filter::{Algorithm, Curve, Jwt, Key, Material};

/// Whether the key signed the text that the token was read from.
pub(super) fn is_good(key: &Key, jwt: &Jwt, text: &str) -> bool {
    let message = &text.as_bytes()[..jwt.signed];
    let signature = jwt.signature.as_slice();
    let outcome = match &key.material {
        Material::Rsa { modulus, exponent } => {
            let Some(how) = rsa(jwt.algorithm) else {
                return false;
            };
            let key = RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            };
            key.verify(how, message, signature)
        }
        Material::Curve(curve, point) => {
            let how = match curve {
                Curve::P256 => &ECDSA_P256_SHA256_FIXED,
                Curve::P384 => &ECDSA_P384_SHA384_FIXED,
                Curve::P521 => &ECDSA_P521_SHA512_FIXED,
            };
            UnparsedPublicKey::new(how, point).verify(message, signature)
        }
        Material::Ed25519(point) => {
            UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
        }
    };
    outcome.is_ok()
}

/// How RSA signs; keys of fewer than 2,048 bits sign nothing.
fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
