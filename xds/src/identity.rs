//! How a proxy gets the certificate that says who it is: what its bootstrap says of that (`fairlead.mesh.v1.Identity`), and the
//! messages of the authority.

use std::path::PathBuf;

use fairlead_model::cluster::Discovery;
use fairlead_model::identity::SpiffeId;
use prost::Message;

use crate::bootstrap::Bootstrap;
use crate::field::{Field, Result};

/// What stands in `bootstrap_extensions`.
pub(crate) const IDENTITY: &str = "fairlead.mesh.v1.Identity";
/// The name of the secret where none is given.
const SECRET: &str = "identity";

/// Where the path of the call is that signs.
pub const SIGN: &str = "/fairlead.mesh.v1.Authority/Sign";

/// How a proxy gets its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster of the authority.
    pub cluster: String,
    /// Who the proxy is.
    pub id: SpiffeId,
    /// The file with the token that proves it.
    pub token: PathBuf,
    /// The name of the secret under which the certificate is found.
    pub secret: String,
    /// The name of the secret with whom to trust, by which the proxy is told that another root signs; where there is none, it
    /// knows by those that it believes the authority by.
    pub trust: Option<String>,
}

/// `fairlead.mesh.v1.SignRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct SignRequest {
    /// A PKCS #10 request in DER.
    #[prost(bytes = "vec", tag = "1")]
    pub request: Vec<u8>,
}

/// `fairlead.mesh.v1.SignResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct SignResponse {
    /// The certificates in PEM, the leaf first.
    #[prost(string, tag = "1")]
    pub chain: String,
}

/// Reads an `Identity`; `bootstrap` has what else the file says.
pub(crate) fn read(field: &Field<'_>, bootstrap: &Bootstrap) -> Result<Identity> {
    let fields = field.fields()?;
    let name = fields.need("cluster")?;
    let cluster = name.text()?.to_owned();
    let id = fields.need("spiffe_id")?;
    let token = fields.need("token_file")?.text()?;
    let secret = fields.text("secret_name")?;
    let trust = fields.text("trust_secret_name")?;
    let identity = Identity {
        id: id
            .text()?
            .parse()
            .map_err(|error| id.error(format!("{error}")))?,
        token: token.into(),
        secret: if secret.is_empty() { SECRET } else { secret }.to_owned(),
        trust: (!trust.is_empty()).then(|| trust.to_owned()),
        cluster,
    };
    fields.finish()?;
    match bootstrap.snapshot.clusters.get(identity.cluster.as_str()) {
        None => Err(name.error(format!(
            "{:?} is not among static_resources.clusters",
            identity.cluster
        ))),
        Some(own) if matches!(own.discovery, Discovery::Eds(_)) => {
            Err(name.error("the endpoints of an authority cannot come over EDS"))
        }
        // Whoever answers signs for the proxy, and is shown its token.
        Some(own) if own.tls.is_none() => Err(name.error("an authority is asked over TLS alone")),
        Some(_) => Ok(identity),
    }
}
