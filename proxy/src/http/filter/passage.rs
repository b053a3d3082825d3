//! What filters leave to be done with the answer.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use fairlead_model::filter::{Metadata, Mutations};
use fairlead_model::route::HeaderChanges;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};

use super::injection::{Damaged, Running};
use super::session::Bound;
use crate::http::activity::Lingering;
use crate::http::answer::Answer;

/// What filters ask of a request's way to its endpoint.
#[derive(Debug, Default)]
pub(in crate::http) struct Demands {
    /// The session that keeps it with one endpoint.
    pub(in crate::http) bound: Option<Bound>,
    /// How long its body may be, in bytes.
    pub(in crate::http) body_most: Option<u32>,
    /// What was read of its body.
    pub(in crate::http) held: VecDeque<Frame<Bytes>>,
}

/// What filters leave to be done with the answer, and on the way to it.
#[derive(Debug, Default)]
pub(in crate::http) struct Passage {
    /// What is asked of the way, until the call has it.
    pub(in crate::http) demands: Option<Box<Demands>>,
    /// Headers that take the place of the answer's own.
    pub(super) headers: HeaderMap,
    /// Changes of the answer's headers.
    pub(super) changes: HeaderChanges,
    /// More of them, each with its order.
    pub(super) mutations: Vec<Arc<Mutations>>,
    /// What filters learned of the request.
    pub(super) metadata: Metadata,
    /// At most so many bytes a second.
    pub(super) pace: Option<u64>,
    /// Whether it breaks off in the middle.
    pub(super) is_cut: bool,
    /// A fault that is counted until the answer has ended.
    pub(super) running: Option<Running>,
    /// The connection is busy until the answer has ended.
    pub(super) lingering: Option<Lingering>,
}

impl Passage {
    /// Changes an answer.
    pub(in crate::http) fn back(mut self, mut response: Response<Answer>) -> Response<Answer> {
        for (name, value) in &self.headers {
            response.headers_mut().insert(name, value.clone());
        }
        self.changes
            .apply(response.headers_mut(), |_, _| String::new());
        for changes in self.mutations.iter().flat_map(|own| &own.response) {
            changes.apply(response.headers_mut(), |_, _| String::new());
        }
        let is_damaged = self.pace.is_some() || self.is_cut;
        if !is_damaged || response.body().is_end_stream() {
            return response;
        }
        response.map(|inner| Answer::Damaged(Box::new(Damaged::new(inner, &mut self))))
    }
}
