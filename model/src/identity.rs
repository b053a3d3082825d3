//! Names of workloads: SPIFFE ids (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>).

use std::fmt;
use std::str::FromStr;

/// The longest SPIFFE id, in bytes (SPIFFE-ID 2.3).
const MAX_ID: usize = 2048;
/// The longest trust domain, in bytes (SPIFFE-ID 2.1).
const MAX_TRUST_DOMAIN: usize = 255;

/// Why a text is no SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It does not begin as one.
    #[error("a SPIFFE id begins with spiffe://")]
    Scheme,
    /// It is too long.
    #[error(
        "a SPIFFE id has at most {MAX_ID} bytes and its trust domain at most {MAX_TRUST_DOMAIN}"
    )]
    TooLong,
    /// The trust domain is empty or has other characters than a-z, 0-9, dot, dash and underscore.
    #[error("the trust domain of a SPIFFE id has only a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// A segment of the path is empty, a dot or two, or has other characters than letters, digits, dot, dash and underscore.
    #[error(
        "each segment of a SPIFFE id's path has only letters, digits, '.', '-' and '_', and is no '.' or '..'"
    )]
    Path,
}

/// A valid SPIFFE id, such as `spiffe://cluster.local/ns/shop/sa/checkout`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: String,
    path_at: usize,
}

impl SpiffeId {
    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path_at]
    }

    /// The path with its leading slash, or nothing.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[self.path_at..]
    }

    /// The namespace and service account of a Kubernetes workload (`/ns/<namespace>/sa/<service account>`).
    #[must_use]
    pub fn workload(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().strip_prefix('/')?.split('/');
        let (ns, namespace, sa, account) = (
            segments.next()?,
            segments.next()?,
            segments.next()?,
            segments.next()?,
        );
        (ns == "ns" && sa == "sa" && segments.next().is_none()).then_some((namespace, account))
    }
}

const SCHEME: &str = "spiffe://";

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_ID {
            return Err(IdentityError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdentityError::Scheme)?;
        let (domain, path) = rest
            .split_once('/')
            .map_or((rest, None), |(domain, path)| (domain, Some(path)));
        if domain.len() > MAX_TRUST_DOMAIN {
            return Err(IdentityError::TooLong);
        }
        let allowed = |byte: u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'_');
        if domain.is_empty()
            || !domain
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || allowed(byte))
        {
            return Err(IdentityError::TrustDomain);
        }
        let segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment
                    .bytes()
                    .all(|byte| byte.is_ascii_alphabetic() || allowed(byte))
        };
        if !path.is_none_or(|path| path.split('/').all(segment)) {
            return Err(IdentityError::Path);
        }
        Ok(Self {
            path_at: SCHEME.len() + domain.len(),
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_workload_has_a_namespace_and_an_account() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/checkout"
            .parse()
            .expect("an id");
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.workload(), Some(("shop", "checkout")));
        let id: SpiffeId = "spiffe://cluster.local".parse().expect("an id");
        assert_eq!((id.path(), id.workload()), ("", None));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "http://a/b",
            "SPIFFE://a",
            "spiffe://",
            "spiffe:///ns/a",
            "spiffe://A/ns",
            "spiffe://a:80/ns",
            "spiffe://user@a/ns",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/b/",
            "spiffe://a/..",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%41",
            "spiffe://a/\u{e9}",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
        assert!(
            format!("spiffe://a/{}", "b".repeat(2048))
                .parse::<SpiffeId>()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "(spiffe://)?[a-z./_A-Z0-9%?-]{0,40}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text.clone());
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }
    }
}
