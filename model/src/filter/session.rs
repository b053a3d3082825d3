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
    /// Whether a path has the session.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        path.starts_with(&self.made.path)
    }
}
