//! Another try: whether the policy, its budget and the time allow one.

use std::rc::Rc;

use fairlead_model::fault::Fault;
use fairlead_model::retry::{Failed, RetryPolicy};
use fairlead_model::route::Forward;
use http::Response;

use super::answer::Answer;
use super::forward::{Call, STALE_CONNECTIONS, failed_answer};
use super::hedge;
use crate::body::{Outgoing, Replay};
use crate::upstream::Held;

/// As many tries as the policy, its budget and the time allow.
pub(super) async fn run(
    mut call: Box<Call>,
    forward: &Forward,
    policy: &RetryPolicy,
    mut body: Outgoing,
) -> Result<Response<Answer>, Fault> {
    if let Some(settings) = &policy.budget {
        call.core
            .budget(&call.route.name, settings)
            .borrow_mut()
            .requested(call.begun);
    }
    let (mut retries, mut stale) = (0, 0);
    loop {
        let again = match &body {
            Outgoing::Empty => None,
            Outgoing::Kept(replay) => replay.again(),
            Outgoing::Copied(_)
            | Outgoing::Stream(_)
            | Outgoing::Timed(..)
            | Outgoing::Minded(_) => {
                return Err(Fault::Internal);
            }
        };
        let tried = match &policy.hedge {
            None => call.once(forward, Some(policy), body).await,
            Some(hedge) => {
                let (own, tried) = hedge::once(call, forward, policy, hedge, body).await;
                call = own;
                tried
            }
        };
        let is_kept = again.as_ref().is_none_or(Replay::is_kept);
        let failed = match tried {
            Ok((response, begun)) => {
                let failed = failed_answer(call.is_grpc, forward, &response.0);
                if !is_kept || !call.may_retry(policy, failed, retries) {
                    if retries > 0
                        && !matches!(failed, Failed::Answer { class, .. } if class.is_failure())
                    {
                        call.upstream()
                            .figures
                            .upstream_rq_retry_success
                            .increment();
                    }
                    return Ok(call.answered(forward, response, begun));
                }
                // Its body is not read: an HTTP/1.1 connection ends with it, unless there is none.
                call.discard(forward, response, begun);
                failed
            }
            Err(failure) => {
                if is_kept && stale < STALE_CONNECTIONS && failure.unsent.is_some() {
                    stale += 1;
                    body = again.map_or(Outgoing::Empty, Outgoing::Kept);
                    continue;
                }
                let failed = Failed::Fault {
                    fault: failure.fault,
                    is_refused: failure.is_refused,
                };
                if !is_kept || !call.may_retry(policy, failed, retries) {
                    return Err(failure.fault);
                }
                failed
            }
        };
        retries += 1;
        call.pause(policy, failed, retries).await?;
        body = again.map_or(Outgoing::Empty, Outgoing::Kept);
    }
}

impl Call {
    /// Whether another try is allowed by the policy, its number, the budget and the cluster's limit.
    fn may_retry(&mut self, policy: &RetryPolicy, failed: Failed, retries: u32) -> bool {
        if retries >= policy.retries || !policy.applies(failed, &self.method) {
            return false;
        }
        let now = self.core.clock.now();
        let upstream = Rc::clone(self.upstream());
        let is_allowed = match &policy.budget {
            Some(settings) => self
                .core
                .budget(&self.route.name, settings)
                .borrow_mut()
                .withdraw(now),
            None => {
                let held = || {
                    Held::take(
                        &upstream.counts,
                        |counts| &counts.retries,
                        upstream.limits().retries,
                    )
                };
                let retrying = self.target.as_mut().map(|target| &mut target.retrying);
                retrying.is_some_and(|retrying| {
                    *retrying = retrying.take().or_else(held);
                    retrying.is_some()
                })
            }
        };
        if !is_allowed {
            upstream.figures.upstream_rq_retry_overflow.increment();
        }
        is_allowed
    }

    /// Waits before another try, unless the call's time is over by then.
    async fn pause(&self, policy: &RetryPolicy, failed: Failed, retries: u32) -> Result<(), Fault> {
        self.upstream().figures.upstream_rq_retry.increment();
        let pause = policy.pause(retries, &mut self.core.random.borrow_mut());
        let deadline = self.target().deadline();
        if deadline.is_some_and(|deadline| tokio::time::Instant::now() + pause >= deadline) {
            return Err(match failed {
                Failed::Fault { fault, .. } => fault,
                Failed::Answer { .. } => Fault::DeadlineExceeded,
            });
        }
        tokio::time::sleep(pause).await;
        self.core.clock.now();
        Ok(())
    }
}
