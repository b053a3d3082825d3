//! What is known of a request where rules are asked about it, and what of that expressions read.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};

use fairlead_expr::Scope;
use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::route::RequestHead;
use crate::tls::Peer;

/// Names that expressions read.
pub(super) const NAMES: [&str; 4] = ["request", "source", "destination", "connection"];

/// What is known of a request, or of a connection alone.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The request; nothing of a connection without HTTP.
    pub head: Option<RequestHead<'a>>,
    /// The address that was wanted.
    pub destination: Option<SocketAddr>,
    /// The other end of the connection.
    pub source: Option<SocketAddr>,
    /// The caller, as the headers that are believed say.
    pub caller: Option<IpAddr>,
    /// The name asked for in TLS.
    pub server_name: Option<&'a str>,
    /// Who it is.
    pub peer: &'a Peer,
    /// What filters learned of the request.
    pub metadata: Option<&'a Metadata>,
    /// What expressions read, made when the first does.
    pub scope: OnceCell<Scope>,
}

impl Asked<'_> {
    /// What expressions read, by the names of Envoy's attributes.
    pub(super) fn scope(&self) -> &Scope {
        self.scope.get_or_init(|| {
            let address = |own: Option<SocketAddr>| {
                own.map_or_else(
                    || json!({"address": "", "port": 0}),
                    |own| json!({"address": own.ip().to_canonical().to_string(), "port": own.port()}),
                )
            };
            let mut source = address(self.source);
            if let Peer::Known(id) = self.peer {
                source["identity"] = json!(id.as_str());
                source["trust_domain"] = json!(id.trust_domain());
                if let Some((namespace, account)) = id.workload() {
                    source["namespace"] = json!(namespace);
                    source["service_account"] = json!(account);
                }
            }
            for name in ["identity", "trust_domain", "namespace", "service_account"] {
                if source.get(name).is_none() {
                    source[name] = json!("");
                }
            }
            let connection = json!({
                "mtls": self.peer.is_certified(),
                "requested_server_name": self.server_name.unwrap_or(""),
            });
            Scope::new()
                .with("source", source)
                .with("destination", address(self.destination))
                .with("connection", connection)
                .with("request", self.request())
        })
    }

    fn request(&self) -> Value {
        let Some(head) = &self.head else {
            return Value::Null;
        };
        let mut value = request(head);
        value["auth"] = identity(self.metadata.and_then(Metadata::claims));
        value
    }
}

/// What a token says as expressions read it; without one there are no claims.
fn identity(claims: Option<&Map<String, Value>>) -> Value {
    let text = |name: &str| claims.and_then(|own| own.get(name)?.as_str()).unwrap_or("");
    let audiences = match claims.and_then(|own| own.get("aud")) {
        None => json!([]),
        Some(Value::Array(all)) => json!(all),
        Some(one) => json!([one]),
    };
    let principal = match claims {
        None => String::new(),
        Some(_) => format!("{}/{}", text("iss"), text("sub")),
    };
    json!({
        "principal": principal,
        "audiences": audiences,
        "claims": claims.cloned().unwrap_or_default(),
    })
}

/// A request as expressions read it; a header that came several times is joined by commas.
fn request(head: &RequestHead<'_>) -> Value {
    let mut headers = Map::new();
    for (name, value) in head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match headers.get_mut(name.as_str()) {
            Some(Value::String(known)) => {
                known.push(',');
                known.push_str(&value);
            }
            _ => {
                headers.insert(name.as_str().to_owned(), json!(value));
            }
        }
    }
    json!({
        "method": head.method.as_str(),
        "host": head.authority,
        "url_path": head.path,
        "path": head.query.map_or_else(|| head.path.to_owned(), |query| format!("{}?{query}", head.path)),
        "query": head.query.unwrap_or(""),
        "headers": headers,
    })
}
