//! The endpoint that a session is bound to, as its cookie has it: Envoy's form, so that either proxy reads the other's.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fairlead_model::cluster::Address;
use fairlead_model::filter::Session;
use http::{HeaderMap, HeaderValue};
use prost::Message;

use crate::clock::since_1970;
use crate::http::affinity::{cookie, set_cookie};

/// What the cookie holds (`envoy.extensions.http.stateful_session.cookie`): base64 of this.
#[derive(Clone, PartialEq, Message)]
struct Held {
    #[prost(string, tag = "1")]
    address: String,
    /// Seconds since 1970; zero: never.
    #[prost(int64, tag = "2")]
    expires: i64,
}

/// A request's session.
#[derive(Debug, Clone)]
pub(in crate::http) struct Bound {
    settings: Arc<Session>,
    /// The endpoint that its cookie names.
    pub(in crate::http) to: Option<SocketAddr>,
    /// The endpoint that a try went to.
    reached: Option<SocketAddr>,
}

impl Bound {
    /// By the cookie that a request has.
    pub(super) fn of(settings: &Arc<Session>, headers: &HeaderMap) -> Self {
        Self {
            settings: Arc::clone(settings),
            to: cookie(headers, &settings.cookie).and_then(named),
            reached: None,
        }
    }

    /// A try goes to this endpoint.
    pub(in crate::http) fn reaches(&mut self, address: Option<&Address>) {
        self.reached = match address {
            Some(Address::Socket(address)) => Some(*address),
            _ => None,
        };
    }

    /// The cookie that the caller is given, where it names another endpoint than the one that answered.
    pub(in crate::http) fn cookie(&self) -> Option<HeaderValue> {
        let address = self.reached.filter(|reached| self.to != Some(*reached))?;
        let made = &self.settings.made;
        let expires = match made.life.as_secs() {
            0 => 0,
            life => seconds() + i64::try_from(life).unwrap_or(i64::MAX / 2),
        };
        let held = Held {
            address: address.to_string(),
            expires,
        };
        let value = BASE64.encode(held.encode_to_vec());
        set_cookie(&self.settings.cookie, &value, made)
    }
}

/// The endpoint that a cookie names; nothing where it is over, or no such cookie.
fn named(value: &str) -> Option<SocketAddr> {
    let bytes = BASE64.decode(value).ok()?;
    // The older form is the address itself.
    if let Some(address) = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|own| own.parse().ok())
    {
        return Some(address);
    }
    let held = Held::decode(bytes.as_slice()).ok()?;
    let is_over = held.expires != 0 && held.expires < seconds();
    (!is_over).then(|| held.address.parse().ok())?
}

/// Seconds since 1970, as a cookie has them.
fn seconds() -> i64 {
    i64::try_from(since_1970().as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_names_its_endpoint_until_it_is_over() {
        let of = |address: &str, expires| {
            let address = address.to_owned();
            BASE64.encode(Held { address, expires }.encode_to_vec())
        };
        let address: SocketAddr = "10.0.0.1:80".parse().expect("an address");
        assert_eq!(named(&of("10.0.0.1:80", 0)), Some(address));
        assert_eq!(named(&of("10.0.0.1:80", i64::MAX)), Some(address));
        assert_eq!(named(&of("10.0.0.1:80", 1)), None);
        assert_eq!(named(&BASE64.encode("10.0.0.1:80")), Some(address));
        for other in ["", "x", "Cg==", &of("nobody", 0)] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
