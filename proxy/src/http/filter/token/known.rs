//! Tokens that were good: one that comes again costs no signature.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use fairlead_model::filter::Jwt;

/// How many are kept where nothing is said, on each core.
const USUAL: usize = 1_000;
/// The longest token that is kept, in bytes.
const LONGEST: usize = 4_096;

/// A token's hash: the token itself is not kept.
pub(super) type Hash = [u8; 32];

/// Tokens that were good, those that came last; at most as many as may be.
#[derive(Debug)]
pub(super) struct Known {
    most: usize,
    young: HashMap<Hash, Good>,
    old: HashMap<Hash, Good>,
}

/// A token that was good.
#[derive(Debug, Clone)]
pub(super) struct Good {
    pub(super) jwt: Arc<Jwt>,
    /// The keys that it was good by.
    pub(super) generation: u64,
}

impl Known {
    pub(super) fn new(most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self {
            most: if most == 0 { USUAL } else { most },
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// What a token is kept by; nothing where it is too long for that.
    pub(super) fn hash(token: &str) -> Option<Hash> {
        (token.len() <= LONGEST)
            .then(|| digest(&SHA256, token.as_bytes()))
            .and_then(|own| own.as_ref().try_into().ok())
    }

    /// A token that was good by these keys.
    pub(super) fn get(&mut self, hash: &Hash, generation: u64) -> Option<Arc<Jwt>> {
        if let Some(good) = self.young.get(hash) {
            return Some(Arc::clone(&good.jwt)).filter(|_| good.generation == generation);
        }
        let good = self.old.remove(hash)?;
        let jwt = Some(Arc::clone(&good.jwt)).filter(|_| good.generation == generation)?;
        self.keep(*hash, good);
        Some(jwt)
    }

    /// Keeps a token. When half of the room is full, what did not come since the other half was is forgotten.
    pub(super) fn keep(&mut self, hash: Hash, good: Good) {
        if self.young.len() >= self.most.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, good);
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

    use super::*;

    #[test]
    fn those_that_come_again_are_kept_and_their_number_is_bounded() {
        let header = BASE64.encode(r#"{"alg":"EdDSA"}"#);
        let jwt = Jwt::parse(&format!("{header}.e30.AA")).expect("a token");
        let good = Good {
            jwt: Arc::new(jwt),
            generation: 1,
        };
        let hash = |number: usize| Known::hash(&number.to_string()).expect("it is short");
        let mut known = Known::new(100);
        known.keep(hash(0), good.clone());
        for number in 1..10_000 {
            assert!(known.get(&hash(0), 1).is_some(), "{number}");
            known.keep(hash(number), good.clone());
            assert!(known.young.len() + known.old.len() <= 100);
        }
        assert!(known.get(&hash(1), 1).is_none());
        assert!(known.get(&hash(0), 2).is_none(), "the keys are others");
        assert_eq!(Known::hash(&"a".repeat(4_097)), None);
    }
}
