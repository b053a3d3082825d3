//! What keeps a caller's session with one endpoint for as long as that is well, whichever endpoints come and go: a cookie that names it
//! ([Envoy's stateful session](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/stateful_session_filter)).

use crate::route::CookieMade;

/// A cookie that names the endpoint of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub cookie: String,
    /// How it is made.
    pub made: CookieMade,
}

impl Session {
    /// Whether a path has the session: it is below that of the cookie (RFC 6265, 5.1.4). A tunnel has no path at all.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        let own = self.made.path.as_str();
        match path.strip_prefix(own) {
            _ if matches!(own, "" | "/") => true,
            Some(rest) => own.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_below_a_cookies_path_has_its_session() {
        let takes = |own: &str, path: &str| {
            let made = CookieMade {
                life: Duration::ZERO,
                path: own.to_owned(),
                attributes: Vec::new(),
            };
            let cookie = "a".to_owned();
            Session { cookie, made }.takes(path)
        };
        for (own, path) in [
            ("", "/a"),
            ("/", "/a"),
            ("/", ""),
            ("/a", "/a"),
            ("/a", "/a/b"),
            ("/a/", "/a/b"),
        ] {
            assert!(takes(own, path), "{path} of {own}");
        }
        for (own, path) in [("/a", "/ab"), ("/a/", "/a"), ("/a", ""), ("/a", "/")] {
            assert!(!takes(own, path), "{path} of {own}");
        }
    }
}
