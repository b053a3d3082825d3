//! Errands: requests of the proxy's own to a cluster, over the same connections, limits and figures that callers' requests have.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fairlead_model::fault::Fault;
use fairlead_model::filter::{GrpcService, Overrides};
use fairlead_model::listener::HttpTimeouts;
use fairlead_model::route::{Action, Forward, HeaderChanges, Route, RouteMatch, VirtualHost};
use http::header::{CONTENT_TYPE, TE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode, response};
use http_body::Body;
use prost::Message;
use tokio::time::timeout;

use super::forward::{Call, dark};
use super::respond::grpc_status;
use super::way::is_grpc;
use crate::body::{BodyError, Outgoing};
use crate::core::Core;

/// Why an errand brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ErrandError {
    /// There was no answer.
    #[error("{}", .0.token())]
    Unserved(Fault),
    /// It took too long.
    #[error("there was no answer within {0:?}")]
    Late(Duration),
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    Broken(BodyError),
    /// The answer is too long.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// It cannot be asked for.
    #[error("there is no such request: {0}")]
    Request(http::Error),
    /// The answer is no gRPC.
    #[error("the answer is no gRPC: {0}")]
    Status(StatusCode),
    /// The service says that it failed.
    #[error("the service answered with the gRPC status {0}")]
    Failed(u8),
    /// The answer is no message.
    #[error("the answer is no message")]
    Message,
}

impl ErrandError {
    /// Whether time was over.
    pub(super) fn is_late(&self) -> bool {
        match self {
            // A service that ends by the deadline it was told says so with either status (tonic: CANCELLED).
            Self::Late(_) | Self::Failed(1 | 4) => true,
            Self::Unserved(fault) => {
                matches!(fault, Fault::ResponseTimeout | Fault::DeadlineExceeded)
            }
            _ => false,
        }
    }
}

/// The ways to services, by the addresses of their settings, which they keep.
#[derive(Debug, Default)]
pub(crate) struct Errands(RefCell<HashMap<usize, Own>>);

/// The way to a service of these settings.
type Own = (Arc<GrpcService>, Rc<Errand>);

impl Errands {
    /// The way to a service; the name is that of a route in figures.
    pub(super) fn of(&self, service: &Arc<GrpcService>, name: &str) -> Rc<Errand> {
        let key = Arc::as_ptr(service) as usize;
        if let Some((_, known)) = self.0.borrow().get(&key) {
            return Rc::clone(known);
        }
        let authority = service.authority.as_deref().unwrap_or(&service.cluster);
        // A name that no host can have is asked for as none.
        let authority = HeaderValue::from_str(authority);
        let authority = authority.unwrap_or(HeaderValue::from_static(""));
        let errand = Errand::new(name, &service.cluster, authority, service.timeout);
        let errand = Rc::new(errand);
        let own = (Arc::clone(service), Rc::clone(&errand));
        self.0.borrow_mut().insert(key, own);
        errand
    }

    /// Forgets the ways of old settings.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// The way to a cluster.
#[derive(Debug)]
pub(super) struct Errand {
    route: Arc<Route>,
    host: Arc<VirtualHost>,
    authority: HeaderValue,
    patience: Duration,
}

/// A whole answer.
pub(super) struct Brought {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Errand {
    /// To a cluster, where this host is asked for; an answer has to be whole within `patience`. The name is that of a route in figures.
    pub(super) fn new(
        name: &str,
        cluster: &str,
        authority: HeaderValue,
        patience: Duration,
    ) -> Self {
        let mut forward = Forward::to(cluster);
        forward.timeouts.request = Some(patience);
        Self {
            route: Arc::new(Route {
                name: name.to_owned(),
                matches: RouteMatch::default(),
                action: Action::Forward(Box::new(forward)),
                request_headers: HeaderChanges::default(),
                response_headers: HeaderChanges::default(),
                filters: Overrides::new(),
            }),
            host: Arc::default(),
            authority,
            patience,
        }
    }

    /// Sends a request, and reads its answer, of at most `most` bytes.
    pub(super) async fn run(
        &self,
        core: &Rc<Core>,
        head: Parts,
        body: Bytes,
        most: usize,
    ) -> Result<Brought, ErrandError> {
        let brought = timeout(self.patience, self.bring(core, head, body, most)).await;
        brought.unwrap_or(Err(ErrandError::Late(self.patience)))
    }

    /// Asks a service of gRPC one thing; its answer is at most `most` bytes.
    pub(super) async fn unary<A: Message, B: Message + Default>(
        &self,
        core: &Rc<Core>,
        path: &'static str,
        message: &A,
        most: usize,
    ) -> Result<B, ErrandError> {
        let request = Request::post(path)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(());
        let (head, ()) = request.map_err(ErrandError::Request)?.into_parts();
        let length = message.encoded_len();
        let mut body = BytesMut::with_capacity(5 + length);
        body.put_u8(0);
        body.put_u32(u32::try_from(length).map_err(|_| ErrandError::Message)?);
        message
            .encode(&mut body)
            .map_err(|_| ErrandError::Message)?;
        let brought = self.run(core, head, body.freeze(), most).await?;
        if brought.head.status != StatusCode::OK {
            return Err(ErrandError::Status(brought.head.status));
        }
        let trailers = brought.trailers.as_ref();
        let status = trailers.and_then(grpc_status);
        match status.or_else(|| grpc_status(&brought.head.headers)) {
            Some(0) => {}
            Some(status) => return Err(ErrandError::Failed(status)),
            None => return Err(ErrandError::Message),
        }
        let mut body = brought.body;
        if body.len() < 5 || body.get_u8() != 0 {
            return Err(ErrandError::Message);
        }
        let length = body.get_u32() as usize;
        if body.len() != length {
            return Err(ErrandError::Message);
        }
        B::decode(body).map_err(|_| ErrandError::Message)
    }

    async fn bring(
        &self,
        core: &Rc<Core>,
        head: Parts,
        body: Bytes,
        most: usize,
    ) -> Result<Brought, ErrandError> {
        let is_grpc = is_grpc(&head.headers);
        let call = Box::new(Call {
            core: Rc::clone(core),
            route: Arc::clone(&self.route),
            virtual_host: Arc::clone(&self.host),
            method: head.method.clone(),
            head: Some(head),
            host: self.authority.clone(),
            is_grpc,
            is_h2: is_grpc,
            source: None,
            original: None,
            begun: core.clock.now(),
            target: None,
            active: None,
            record: None,
            compared: None,
            demands: None,
            picked: None,
        });
        let body = match body.is_empty() {
            true => Outgoing::Empty,
            false => Outgoing::Copied(VecDeque::from([body])),
        };
        let response = dark(call, body, &self.route, &HttpTimeouts::default()).await;
        let (head, mut body) = response.map_err(ErrandError::Unserved)?.into_parts();
        let (mut all, mut trailers) = (BytesMut::new(), None);
        while let Some(frame) =
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            match frame.map_err(ErrandError::Broken)?.into_data() {
                Ok(data) if all.len() + data.remaining() > most => {
                    return Err(ErrandError::TooLong(most));
                }
                Ok(data) => all.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Brought {
            head,
            body: all.freeze(),
            trailers,
        })
    }
}
