//! The call that signs certificates.

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
use crate::authority::SignError;

/// A call.
pub(super) struct Call(pub(super) Plane);

impl UnaryService<Bytes> for Call {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let plane = self.0.clone();
        Box::pin(async move {
            let id = who(&plane, &request).await;
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
                    tracing::info!(%id, "signed a certificate");
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

/// Whose token came with the request.
async fn who(plane: &Plane, request: &Request<Bytes>) -> Result<SpiffeId, Status> {
    let (namespace, name) = plane.account(request, AUDIENCE).await?;
    spiffe(&plane.trust_domain, &namespace, &name)
        .parse()
        .map_err(|_| Status::internal("the service account has no SPIFFE id"))
}
