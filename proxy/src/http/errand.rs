//! Errands: requests of the proxy's own to a cluster, over the same connections, limits and figures that callers' requests have.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fairlead_model::fault::Fault;
use fairlead_model::filter::Overrides;
use fairlead_model::listener::HttpTimeouts;
use fairlead_model::route::{Action, Forward, HeaderChanges, Route, RouteMatch, VirtualHost};
use http::request::Parts;
use http::{HeaderValue, response};
use http_body::Body;
use tokio::time::timeout;

use super::forward::{Call, dark};
use super::service::is_grpc;
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
        let mut all = BytesMut::new();
        while let Some(frame) =
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            match frame.map_err(ErrandError::Broken)?.into_data() {
                Ok(data) if all.len() + data.remaining() > most => {
                    return Err(ErrandError::TooLong(most));
                }
                Ok(data) => all.extend_from_slice(&data),
                Err(_) => {}
            }
        }
        Ok(Brought {
            head,
            body: all.freeze(),
        })
    }
}
