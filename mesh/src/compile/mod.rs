//! Facts in, resources for proxies out. Pure: the same facts make the same bytes, whichever replica compiles them.
//!
//! Every proxy has the same view of services, which is made once. A service's port is three clusters at the most, one for each
//! way of speaking to it, that share their endpoints:
//! `/http1` and `/http2`, which between two proxies are both carried over HTTP/2, and `/tcp`. The name asked for in TLS tells the
//! other proxy which of them it is ([`names`]), so that it speaks the same to its application.

mod inbound;
pub mod names;
mod outbound;

use std::sync::Arc;

use fairlead_model::tls::{ClientTls, Secret, SecretSource, TlsCommon, Trust, Version};
use fairlead_xds::serve::{Resource, Resources, View};
use fairlead_xds::{Kind, ShapeError, Shapes, write};

use crate::facts::Facts;

/// What cannot be compiled is a mistake of this program.
#[derive(Debug, thiserror::Error)]
#[error("failed to encode {kind:?} {name:?}: {source}")]
pub struct CompileError {
    /// The kind of resource.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The cause.
    pub source: ShapeError,
}

/// Resources as they are gathered.
struct Gathered<'a> {
    shapes: &'a Shapes,
    resources: Resources,
}

impl Gathered<'_> {
    fn put(
        &mut self,
        kind: Kind,
        name: &str,
        value: &serde_json::Value,
    ) -> Result<(), CompileError> {
        let resource = Resource::of(self.shapes, kind, value).map_err(|source| CompileError {
            kind,
            name: name.to_owned(),
            source,
        })?;
        self.resources.put(kind, name, resource);
        Ok(())
    }
}

/// What all proxies are told.
///
/// # Errors
/// When something cannot be encoded, which is a mistake of this program.
pub fn compile(facts: &Facts, roots: &str, shapes: &Shapes) -> Result<View, CompileError> {
    let mut gathered = Gathered {
        shapes,
        resources: Resources::default(),
    };
    let trust = Secret::Trust(Arc::new(Trust {
        roots: roots.as_bytes().to_vec(),
        ..Trust::default()
    }));
    gathered.put(
        Kind::Secret,
        names::TRUST,
        &write::secret(names::TRUST, &trust),
    )?;
    inbound::compile(&mut gathered)?;
    outbound::compile(facts, &mut gathered)?;
    Ok(View::of(vec![Arc::new(gathered.resources)]))
}

/// What both sides of mutual TLS settle.
fn mutual() -> TlsCommon {
    TlsCommon {
        certificates: vec![SecretSource::Named(names::IDENTITY.to_owned())],
        trust: Some(SecretSource::Named(names::TRUST.to_owned())),
        lowest: Version::V1_3,
        ..TlsCommon::default()
    }
}

/// TLS to endpoints with a proxy of the mesh, asked for by this name.
fn to_mesh(server_name: &str) -> ClientTls {
    ClientTls {
        common: mutual(),
        server_name: Some(server_name.to_owned()),
        follows_host: false,
    }
}

#[cfg(test)]
mod tests;
