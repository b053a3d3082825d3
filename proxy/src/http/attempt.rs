//! One try: how it failed, and that its endpoint's counts are put right whatever becomes of it.

use std::rc::Rc;
use std::time::Duration;

use fairlead_model::Moment;
use fairlead_model::balance::{EndpointKey, Finish};
use fairlead_model::fault::{Fault, Source};
use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::body::Outgoing;
use crate::core::Core;
use crate::upstream::{Failure, Sent, Upstream, judged};

/// How a try ended without an answer to pass on.
pub(super) struct Try {
    pub(super) fault: Fault,
    pub(super) is_refused: bool,
    /// The body of a request that was not sent at all, since its connection had ended.
    pub(super) unsent: Option<Outgoing>,
}

impl Try {
    pub(super) fn of(fault: Fault) -> Self {
        Self {
            fault,
            is_refused: false,
            unsent: None,
        }
    }
}

/// One try: whatever becomes of it, its endpoint's counts are put right.
pub(super) struct Attempt {
    pub(super) core: Rc<Core>,
    pub(super) upstream: Rc<Upstream>,
    pub(super) key: EndpointKey,
    pub(super) begun: Moment,
    pub(super) is_finished: bool,
}

impl Attempt {
    pub(super) fn fail(&mut self, failure: &Try) {
        self.is_finished = true;
        let now = self.core.clock.now();
        let figures = &self.upstream.figures;
        figures.upstream_rq_active.add(-1);
        if matches!(
            failure.fault,
            Fault::ConnectionTerminated | Fault::ProtocolError
        ) {
            figures.upstream_rq_rx_reset.increment();
        }
        // A connection that ended while nobody used it says nothing of its endpoint.
        let is_endpoint = failure.fault.source() == Source::Upstream && failure.unsent.is_none();
        let finish = Finish {
            judged: is_endpoint.then(|| judged(true, false)),
            unanswered: Some(now.since(self.begun)),
            retry_after: None,
        };
        self.upstream
            .finish(self.key, finish, now, &self.core.random);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_finished {
            self.fail(&Try::of(Fault::RequestCancelled));
        }
    }
}

/// What a failure to send means.
pub(super) fn failure(sent: &Sent) -> Try {
    let h2 = match &sent.error {
        Failure::Http1(_) | Failure::Head => None,
        Failure::Http2(error) => Some(error),
    };
    let is_refused = h2.is_some_and(|error| {
        // What this side ended may have been done all the same.
        error.is_remote()
            && (error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away())
    });
    let is_protocol = match &sent.error {
        Failure::Http1(error) => error.is_parse(),
        Failure::Http2(error) => error.reason() == Some(h2::Reason::PROTOCOL_ERROR),
        Failure::Head => true,
    };
    Try {
        is_refused: is_refused || sent.request.is_some(),
        ..Try::of(if is_protocol {
            Fault::ProtocolError
        } else {
            Fault::ConnectionTerminated
        })
    }
}

/// How long an endpoint asks to be left alone, in whole seconds.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}
