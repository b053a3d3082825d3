//! The call that signs certificates.

use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use fairlead_model::identity::SpiffeId;
use fairlead_plan::mesh::{AUDIENCE, spiffe};
use fairlead_xds::identity::{SignRequest, SignResponse};
use futures::future::BoxFuture;
use prost::Message as _;
use time::OffsetDateTime;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

use super::Plane;
use super::review::Given;
use crate::authority::SignError;
use crate::facts::Key;

/// A token that came from where another pod is than the one that it was given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misuse {
    /// The namespace of the pod that it was given to.
    pub namespace: String,
    /// That pod.
    pub pod: Given,
    /// Where it came from.
    pub from: IpAddr,
    /// The pod that is there.
    pub there: Key,
}

impl fmt::Display for Misuse {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = &self.there;
        write!(
            to,
            "the token of the pod {}/{} came from {}, where the pod {namespace}/{name} is",
            self.namespace, self.pod.name, self.from
        )
    }
}

/// A call.
pub(super) struct Call {
    pub(super) plane: Plane,
    /// Where it comes from.
    pub(super) from: IpAddr,
}

impl UnaryService<Bytes> for Call {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (plane, from) = (self.plane.clone(), self.from);
        Box::pin(async move {
            let id = who(&plane, from, &request).await;
            let id = id.inspect_err(|_| plane.metrics.signed("refused"))?;
            let message = SignRequest::decode(request.into_inner());
            let message = message.map_err(|error| Status::invalid_argument(error.to_string()))?;
            let Some(authority) = plane.authority.borrow().clone() else {
                return Err(Status::unavailable("the authority is being made"));
            };
            let now = OffsetDateTime::now_utc();
            let signed = authority.sign(&message.request, &id, plane.leaf_life, now);
            plane.metrics.signed(match &signed {
                Ok(_) => "signed",
                Err(SignError::Failed) => "failed",
                Err(_) => "refused",
            });
            match signed {
                Ok(chain) => {
                    tracing::info!(%id, %from, "signed a certificate");
                    Ok(Response::new(SignResponse { chain }.encode_to_vec().into()))
                }
                Err(error @ SignError::Failed) => Err(Status::internal(error.to_string())),
                Err(error @ SignError::Name { .. }) => {
                    tracing::warn!(%id, %error, "refused to sign a certificate");
                    Err(Status::permission_denied(error.to_string()))
                }
                Err(error) => Err(Status::invalid_argument(error.to_string())),
            }
        })
    }
}

/// Whose token came with the request, from its own pod as far as anybody can tell: where addresses are translated on the way, it
/// comes from one that is nobody's.
async fn who(plane: &Plane, from: IpAddr, request: &Request<Bytes>) -> Result<SpiffeId, Status> {
    let holder = plane.holder(request, AUDIENCE).await?;
    let (namespace, name) = holder.account;
    let Some(pod) = holder.pod else {
        return Err(Status::permission_denied(
            "the token was given to no pod; kubelet gives pods theirs by a projected volume",
        ));
    };
    if let Some(there) = stranger(plane, (&namespace, &pod.name), from) {
        let misuse = Misuse {
            namespace,
            pod,
            from,
            there,
        };
        tracing::warn!(%misuse, "refused to sign a certificate");
        let said = Status::permission_denied(misuse.to_string());
        // Where many wait to be told of, this is known from the log.
        let _ = plane.misuses.try_send(misuse);
        return Err(said);
    }
    spiffe(&plane.trust_domain, &namespace, &name)
        .parse()
        .map_err(|_| Status::internal("the service account has no SPIFFE id"))
}

/// The pod at an address, where it is another one.
fn stranger(plane: &Plane, (namespace, name): (&str, &str), from: IpAddr) -> Option<Key> {
    let facts = plane.facts.borrow();
    let there = facts.as_ref()?.places.get(&from)?;
    let is_own = (&*there.0, &*there.1) == (namespace, name);
    (!is_own).then(|| there.clone())
}
