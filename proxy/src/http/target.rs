//! Where a call goes, and how long it may take.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::balance::EndpointKey;
use fairlead_model::cluster::Address;
use fairlead_model::fault::Fault;
use fairlead_model::listener::HttpTimeouts;
use fairlead_model::retry::RetryPolicy;
use fairlead_model::route::{Action, Forward};
use http::HeaderValue;
use http_body::Frame;
use tokio::time::Instant;

use super::affinity::{Bound, bind};
use super::aim::{Changes, end, silence};
use super::attempt::Try;
use super::forward::Call;
use crate::body::Mind;
use crate::limit::{Flow, Limit, Reached, Terms};
use crate::upstream::{Asked, Held, Upstream};

/// Where a call goes.
#[derive(Debug)]
pub(super) struct Target {
    /// Which of the route's clusters.
    pub(super) cluster: usize,
    pub(super) upstream: Rc<Upstream>,
    /// When the call has to end.
    pub(super) end: Option<Instant>,
    /// How long after the end of its request, where that is still on its way.
    pub(super) answer: Option<Duration>,
    /// The request's body.
    pub(super) flow: Option<Rc<Flow>>,
    /// These limits; out while a try is under them.
    pub(super) limit: Option<Limit>,
    pub(super) hash: Option<u64>,
    /// What the answer gives the caller, so that it comes back to the endpoint.
    pub(super) cookies: Vec<HeaderValue>,
    pub(super) tried: Vec<EndpointKey>,
    /// The endpoint, where that is what the caller wanted to reach.
    pub(super) at: Option<Address>,
    pub(super) running: Option<Held>,
    pub(super) retrying: Option<Held>,
}

impl Target {
    /// How much of the request's body came.
    pub(super) fn request_bytes(&self) -> u64 {
        self.flow.as_ref().map_or(0, |flow| flow.bytes.get())
    }

    /// When the call has to end, as far as that is known.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ended = self.flow.as_ref().and_then(|flow| flow.ended.get());
        let answer = self.answer.and_then(|most| Some(ended? + most));
        self.end.into_iter().chain(answer).min()
    }
}

impl Call {
    /// What is noted of the request's body, and how long it may take; nothing where nobody asks.
    pub(super) fn mind(&self, limits: &HttpTimeouts, held: VecDeque<Frame<Bytes>>) -> Option<Mind> {
        let Action::Forward(forward) = &self.route.action else {
            return None;
        };
        let now = self.core.clock.instant(self.begun);
        let terms = Terms {
            end: limits.request.map(|most| now + most),
            ..Terms::default()
        };
        let limit = Limit::new(&self.core.timers, now, terms);
        let is_timed = forward.timeouts.request.is_some()
            || forward
                .retry
                .as_ref()
                .is_some_and(|own| own.per_try.is_some())
            || silence(forward, limits).is_some();
        let most = self.demands.as_ref().and_then(|own| own.body_most);
        if most.is_none()
            && held.is_empty()
            && limit.is_none()
            && self.record.is_none()
            && !is_timed
            && forward.mirrors.is_empty()
        {
            return None;
        }
        Some(Mind {
            record: self.record.clone(),
            flow: Rc::default(),
            limit,
            copies: None,
            most,
            held,
        })
    }

    /// Makes the request ready for the cluster of this number; `flow` tells whether its body moves.
    pub(super) fn aim(
        &mut self,
        forward: &Forward,
        cluster: usize,
        limits: &HttpTimeouts,
        flow: Option<Rc<Flow>>,
    ) -> Result<(), Fault> {
        let weighted = forward.clusters.get(cluster).ok_or(Fault::Internal)?;
        let upstream = self
            .core
            .upstream(&weighted.name)
            .ok_or(Fault::UnknownCluster)?;
        let Some(running) = upstream.room() else {
            upstream.figures.upstream_rq_pending_overflow.increment();
            return Err(Fault::LimitReached);
        };
        let now = self.core.clock.instant(self.begun);
        let mut end = end(self, forward, limits);
        let mut answer = forward.timeouts.request;
        if flow.is_none() {
            // It has ended with its head.
            let own = answer.take().map(|most| now + most);
            end = end.into_iter().chain(own).min();
        }
        let silence = silence(forward, limits);
        let terms = Terms {
            end,
            answer,
            // Who has less time is never silent for so long.
            silence: silence.filter(|most| end.is_none_or(|end| now + *most < end)),
            flow: flow.clone(),
        };
        let limit = Limit::new(&self.core.timers, now, terms);
        let head = self.head.as_mut().ok_or(Fault::Internal)?;
        let bound = match forward.affinity.as_slice() {
            [] => Bound::default(),
            affinity => bind(affinity, head, self.source, &self.core.random),
        };
        let changes = Changes {
            route: &self.route,
            cluster: weighted,
            host: &self.virtual_host,
            record: self.record.as_ref(),
        };
        changes.make(head, &mut self.host)?;
        let at = upstream.wanted(&Asked {
            headers: Some(&head.headers),
            original: self.original,
            host: self.host.to_str().ok(),
            port: None,
        });
        self.target = Some(Target {
            cluster,
            upstream,
            end,
            answer,
            flow,
            limit,
            hash: bound.hash,
            cookies: bound.cookies,
            tried: Vec::new(),
            at,
            running: Some(running),
            retrying: None,
        });
        Ok(())
    }

    pub(super) fn target(&self) -> &Target {
        self.target
            .as_ref()
            .expect("a call is aimed before it is sent")
    }

    pub(super) fn upstream(&self) -> &Rc<Upstream> {
        &self.target().upstream
    }

    /// What a try has to have an answer within, and whether that is the limit of the whole call.
    pub(super) fn limit(&mut self, policy: Option<&RetryPolicy>) -> Option<(Limit, bool)> {
        let now = self.core.clock.instant(self.core.clock.read());
        let target = self.target.as_mut()?;
        let end = target.deadline();
        let per_try = policy.and_then(RetryPolicy::ends_after);
        match per_try.filter(|most| end.is_none_or(|end| now + *most < end)) {
            Some(most) => {
                let flow = target.flow.as_ref();
                let terms = Terms {
                    end,
                    answer: Some(most),
                    flow: flow.filter(|flow| flow.ended.get().is_none()).cloned(),
                    ..Terms::default()
                };
                Limit::new(&self.core.timers, now, terms).map(|limit| (limit, false))
            }
            None => target.limit.take().map(|limit| (limit, true)),
        }
    }

    /// Nothing moved for too long.
    pub(super) fn was_silent(&self) {
        if let Some(active) = &self.active {
            active.figures().downstream_rq_idle_timeout.increment();
        }
    }

    pub(super) fn late(&self, is_of_call: bool, reached: Option<Reached>) -> Try {
        let figures = &self.upstream().figures;
        if !is_of_call && reached == Some(Reached::Answer) {
            figures.upstream_rq_per_try_timeout.increment();
            return Try::of(Fault::ResponseTimeout);
        }
        if reached == Some(Reached::Silence) {
            self.was_silent();
            return Try::of(Fault::StreamIdle);
        }
        figures.upstream_rq_timeout.increment();
        Try::of(if self.is_grpc {
            Fault::DeadlineExceeded
        } else {
            Fault::ResponseTimeout
        })
    }
}
