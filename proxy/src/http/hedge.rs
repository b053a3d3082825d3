//! A try beside a try: where an answer is late, the request goes to another endpoint too. The first good answer counts, and what
//! else runs is ended on the wire.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use fairlead_model::balance::EndpointKey;
use fairlead_model::budget::RetryBudget;
use fairlead_model::hedge::{Hedge, HedgeAfter, Latencies};
use fairlead_model::retry::{RetryPolicy, is_idempotent};
use fairlead_model::route::Forward;

use super::filter::Demands;
use super::forward::{Call, Tried, failed_answer};
use super::target::Target;
use crate::body::Outgoing;
use crate::limit::{Limit, Terms};
use crate::upstream::Budget;

/// What a worker knows of the hedging of a route.
#[derive(Debug)]
pub(crate) struct Hedging {
    settings: Hedge,
    latencies: Latencies,
    extra: Option<Budget>,
}

impl Hedging {
    pub(crate) fn new(settings: &Hedge) -> Self {
        // The share alone counts: a route without requests hedges none.
        let extra = settings.extra.map(|percent| {
            let share = RetryBudget {
                percent,
                least_per_second: 0.0,
                ..RetryBudget::default()
            };
            Budget::new(share, 1)
        });
        Self {
            settings: settings.clone(),
            latencies: Latencies::default(),
            extra,
        }
    }

    pub(crate) fn is_of(&self, settings: &Hedge) -> bool {
        self.settings == *settings
    }
}

/// Two tries, of which one counts.
struct Raced {
    winner: Tried,
    is_second: bool,
    /// What the other brought, where it ended first and was not good.
    loser: Option<Tried>,
}

/// One try, and another beside it where the answer is late; with the call whose try it was.
pub(super) async fn once(
    mut call: Box<Call>,
    forward: &Forward,
    policy: &RetryPolicy,
    hedge: &Hedge,
    body: Outgoing,
) -> (Box<Call>, Tried) {
    let core = Rc::clone(&call.core);
    let hedging = core.hedging(&call.route.name, hedge);
    let Some(delay) = call.delay(policy, hedge, &hedging) else {
        let tried = call.once(forward, Some(policy), body).await;
        observe(&call, &hedging, &tried);
        return (call, tried);
    };
    let again = match &body {
        Outgoing::Empty => Some(None),
        Outgoing::Kept(replay) => replay.again().map(Some),
        _ => None,
    };
    let picked = Rc::<Cell<Option<EndpointKey>>>::default();
    call.picked = Some(Rc::clone(&picked));
    let begun = core.clock.read();
    let mut twin = call.twin();
    let is_grpc = call.is_grpc;
    let raced = {
        let mut first = pin!(call.once(forward, Some(policy), body));
        let early = tokio::time::timeout(delay, first.as_mut()).await;
        core.clock.now();
        let second = match (&early, again) {
            (Err(_), Some(None)) => Some(Outgoing::Empty),
            // What has not come in whole is read by one only.
            (Err(_), Some(Some(body))) if body.is_whole() => Some(Outgoing::Kept(body)),
            _ => None,
        };
        let second = second.filter(|_| twin.may_run(policy, &hedging, picked.get()));
        match (early, second) {
            (Ok(winner), _) => Raced::alone(winner),
            (Err(_), None) => Raced::alone(first.await),
            (Err(_), Some(body)) => {
                let second = pin!(twin.once(forward, Some(policy), body));
                race(first, second, |tried| {
                    is_good(tried, is_grpc, forward, policy)
                })
                .await
            }
        }
    };
    call.picked = None;
    let (winner, other) = match raced.is_second {
        false => (call, twin),
        true => {
            call.upstream().figures.upstream_rq_hedge_won.increment();
            // How long it would have taken nobody knows; so long at least.
            let waited = core.clock.now().since(begun);
            hedging.borrow_mut().latencies.observe(waited);
            twin.active = call.active.take();
            twin.compared = call.compared.take();
            (twin, call)
        }
    };
    if let Some(Ok((answered, begun))) = raced.loser {
        other.discard(forward, answered, begun);
    }
    observe(&winner, &hedging, &raced.winner);
    (winner, raced.winner)
}

impl Raced {
    fn alone(winner: Tried) -> Self {
        Self {
            winner,
            is_second: false,
            loser: None,
        }
    }
}

/// The first of two tries that is good, or the last where neither is.
async fn race(
    mut first: Pin<&mut impl Future<Output = Tried>>,
    mut second: Pin<&mut impl Future<Output = Tried>>,
    is_good: impl Fn(&Tried) -> bool,
) -> Raced {
    let (mut one, mut two) = (None, None);
    poll_fn(|context| {
        if one.is_none()
            && let Poll::Ready(tried) = first.as_mut().poll(context)
        {
            if two.is_some() || is_good(&tried) {
                return Poll::Ready(Raced {
                    winner: tried,
                    is_second: false,
                    loser: two.take(),
                });
            }
            one = Some(tried);
        }
        if two.is_none()
            && let Poll::Ready(tried) = second.as_mut().poll(context)
        {
            if one.is_some() || is_good(&tried) {
                return Poll::Ready(Raced {
                    winner: tried,
                    is_second: true,
                    loser: one.take(),
                });
            }
            two = Some(tried);
        }
        Poll::Pending
    })
    .await
}

/// Whether nothing better is to be waited for.
fn is_good(tried: &Tried, is_grpc: bool, forward: &Forward, policy: &RetryPolicy) -> bool {
    match tried {
        Ok(((response, ..), _)) => {
            !policy.is_wanted_again(failed_answer(is_grpc, forward, response))
        }
        Err(_) => false,
    }
}

fn observe(call: &Call, hedging: &RefCell<Hedging>, tried: &Tried) {
    if let Ok((_, begun)) = tried {
        let took = call.core.clock.now().since(*begun);
        hedging.borrow_mut().latencies.observe(took);
    }
}

impl Call {
    /// After which time another try goes beside the first; nothing where none may.
    fn delay(
        &self,
        policy: &RetryPolicy,
        hedge: &Hedge,
        hedging: &RefCell<Hedging>,
    ) -> Option<Duration> {
        let now = self.core.clock.read();
        let mut hedging = hedging.borrow_mut();
        if let Some(extra) = &mut hedging.extra {
            extra.requested(now);
        }
        if !hedge.any_method && !is_idempotent(&self.method) {
            return None;
        }
        let delay = match hedge.after {
            HedgeAfter::Try => policy.per_try,
            HedgeAfter::Percentile(share) => hedging.latencies.delay(share, now),
        };
        delay.map(|delay| delay.max(hedge.least))
    }

    /// The same call, to be tried at the same time. It is not counted until it is.
    fn twin(&self) -> Box<Self> {
        let target = self.target();
        Box::new(Self {
            target: Some(Target {
                cluster: target.cluster,
                upstream: Rc::clone(&target.upstream),
                end: target.end,
                answer: target.answer,
                flow: target.flow.clone(),
                limit: None,
                hash: target.hash,
                cookies: target.cookies.clone(),
                tried: target.tried.clone(),
                at: target.at.clone(),
                running: None,
                retrying: None,
            }),
            record: self.record.clone(),
            demands: self.demands.as_ref().map(|own| {
                Box::new(Demands {
                    bound: own.bound.clone(),
                    ..Demands::default()
                })
            }),
            ..self.again()
        })
    }

    /// Whether a twin may run beside a try on this endpoint: what it needs is taken from every budget.
    fn may_run(
        &mut self,
        policy: &RetryPolicy,
        hedging: &RefCell<Hedging>,
        first: Option<EndpointKey>,
    ) -> bool {
        let now = self.core.clock.read();
        let upstream = Rc::clone(self.upstream());
        let running = upstream.room();
        let has_extra = match &mut hedging.borrow_mut().extra {
            None => true,
            Some(extra) => extra.withdraw(now),
        };
        let may_retry = || match &policy.budget {
            None => true,
            Some(settings) => {
                let budget = self.core.budget(&self.route.name, settings);
                budget.borrow_mut().withdraw(now)
            }
        };
        if running.is_none() || !has_extra || !may_retry() {
            upstream.figures.upstream_rq_hedge_overflow.increment();
            return false;
        }
        upstream.figures.upstream_rq_hedge.increment();
        let now = self.core.clock.instant(now);
        if let Some(target) = &mut self.target {
            target.running = running;
            target.tried.extend(first);
            let terms = Terms {
                end: target.end,
                answer: target.answer,
                silence: None,
                flow: target.flow.clone(),
            };
            target.limit = Limit::new(&self.core.timers, now, terms);
        }
        true
    }
}
