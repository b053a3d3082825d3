//! Live requests as a stream of gRPC (`fairlead.mesh.v1.Tap`): what `/tap` shows, as messages.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::{Request, State};
use bytes::Bytes;
use fairlead_xds::Shapes;
use fairlead_xds::raw::Raw;
use futures::Stream;
use serde_json::Value;
use tonic::Status;
use tonic::server::{Grpc, ServerStreamingService};

use super::{Admin, Refused};
use crate::tap::View;

/// The path of the method.
pub(super) const PATH: &str = "/fairlead.mesh.v1.Tap/Watch";
/// The messages.
const REQUEST: &str = "fairlead.mesh.v1.WatchRequest";
const TRACE: &str = "fairlead.mesh.v1.Trace";
/// The longest request, in bytes.
const LONGEST: usize = 1 << 20;

/// Shows live requests for as long as the call lasts.
pub(super) async fn watch(
    State(admin): State<Admin>,
    request: Request,
) -> http::Response<tonic::body::Body> {
    let mut grpc = Grpc::new(Raw).max_decoding_message_size(LONGEST);
    grpc.server_streaming(Watch(admin), request).await
}

/// One call.
struct Watch(Admin);

impl ServerStreamingService<Bytes> for Watch {
    type Response = Bytes;
    type ResponseStream = Traces;
    type Future = Ready<Result<tonic::Response<Traces>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        ready(self.begin(&request.into_inner()).map(tonic::Response::new))
    }
}

impl Watch {
    fn begin(&self, request: &[u8]) -> Result<Traces, Status> {
        let shapes = Shapes::default();
        let wrong = |error: &dyn std::error::Error| Status::invalid_argument(error.to_string());
        let wanted = shapes.json(REQUEST, request);
        let wanted = wanted.map_err(|error| wrong(&error))?;
        let tap = fairlead_xds::watched(&wanted).map_err(|error| wrong(&error))?;
        let view = self.0.watch(tap).map_err(|refused| match refused {
            Refused::Wrong(text) => Status::invalid_argument(text),
            Refused::Full(text) => Status::resource_exhausted(text),
        })?;
        Ok(Traces { view, shapes })
    }
}

/// What a viewer reads.
struct Traces {
    view: View,
    shapes: Shapes,
}

impl Traces {
    fn message(&self, line: &[u8]) -> Result<Bytes, Status> {
        let failed = |cause: String| Status::internal(cause);
        let value: Value =
            serde_json::from_slice(line).map_err(|error| failed(error.to_string()))?;
        let bytes = self.shapes.bytes(TRACE, &value);
        bytes
            .map(Bytes::from)
            .map_err(|error| failed(error.to_string()))
    }
}

impl Stream for Traces {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line = std::task::ready!(self.view.poll_next(context));
        Poll::Ready(line.map(|line| self.message(&line)))
    }
}
