//! Whether to try again, and when.

use std::time::Duration;

use http::Method;

use crate::budget::RetryBudget;
use crate::class::Class;
use crate::fault::Fault;
use crate::hedge::{Hedge, HedgeAfter};

/// Which failures are tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "Envoy's retry_on is a set of independent conditions"
)]
pub struct RetryOn {
    /// No connection could be made.
    pub connect_failure: bool,
    /// The endpoint said that it did not begin (REFUSED_STREAM, or GOAWAY before the stream).
    pub refused_stream: bool,
    /// The connection ended before an answer, or the try took too long.
    pub reset: bool,
    /// 502, 503 and 504.
    pub gateway_error: bool,
    /// Any 5xx, and no answer at all.
    pub server_error: bool,
    /// 409.
    pub conflict: bool,
    /// What the route's classes call retryable.
    pub class: bool,
    /// These HTTP statuses.
    pub statuses: Vec<u16>,
    /// These gRPC statuses, when they are in the headers.
    pub grpc: Vec<u8>,
}

/// How a route tries again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// After which failures.
    pub on: RetryOn,
    /// How often, the first try not counted.
    pub retries: u32,
    /// How long one try may take.
    pub per_try: Option<Duration>,
    /// The pause that the first retry's is drawn from.
    pub backoff_base: Duration,
    /// The longest pause.
    pub backoff_most: Duration,
    /// Whether only requests that may be repeated (idempotent methods, RFC 9110 9.2.2) are tried again, once they were sent.
    pub safe_only: bool,
    /// How many retries the route may make.
    pub budget: Option<RetryBudget>,
    /// Whether a request goes to another endpoint too, where its answer is late.
    pub hedge: Option<Hedge>,
    /// How much of a body is kept for another try, in bytes; a longer one is sent once.
    pub body_most: usize,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            on: RetryOn::default(),
            retries: 1,
            per_try: None,
            backoff_base: Duration::from_millis(25),
            backoff_most: Duration::from_millis(250),
            safe_only: true,
            budget: Some(RetryBudget::default()),
            hedge: None,
            body_most: 64 * 1024,
        }
    }
}

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// No answer came.
    Fault {
        /// Why.
        fault: Fault,
        /// Whether the endpoint said that it did not begin.
        is_refused: bool,
    },
    /// An answer came.
    Answer {
        /// Its HTTP status.
        status: u16,
        /// Its gRPC status, when it is in the headers.
        grpc: Option<u8>,
        /// Its class.
        class: Class,
    },
}

impl RetryPolicy {
    /// How long a try may take until it ends; where another one goes beside it then, it does not end.
    #[must_use]
    pub fn ends_after(&self) -> Option<Duration> {
        let is_hedged = |own: &Hedge| own.after == HedgeAfter::Try;
        self.per_try
            .filter(|_| !self.hedge.as_ref().is_some_and(is_hedged))
    }

    /// Whether a request with `method` may be tried again after `failed`, leaving number, budget and body to the caller.
    #[must_use]
    pub fn applies(&self, failed: Failed, method: &Method) -> bool {
        let was_not_begun = matches!(failed, Failed::Fault { fault, is_refused } if fault.is_before_request() || is_refused);
        self.is_wanted_again(failed) && (was_not_begun || !self.safe_only || is_idempotent(method))
    }

    /// Whether the policy wants another try after `failed`, whatever the request is.
    #[must_use]
    pub fn is_wanted_again(&self, failed: Failed) -> bool {
        let on = &self.on;
        match failed {
            Failed::Fault { fault, is_refused } => {
                (fault.is_before_request() && (on.connect_failure || on.server_error))
                    || (is_refused && (on.refused_stream || on.server_error))
                    || (on.reset || on.server_error)
                        && matches!(
                            fault,
                            Fault::ConnectionTerminated
                                | Fault::ResponseTimeout
                                | Fault::ProtocolError
                        )
                    || (fault == Fault::ResponseTimeout && on.gateway_error)
            }
            Failed::Answer {
                status,
                grpc,
                class,
            } => {
                (on.gateway_error && matches!(status, 502..=504))
                    || (on.server_error && status >= 500)
                    || (on.conflict && status == 409)
                    || (on.class && class == Class::Retryable)
                    || on.statuses.contains(&status)
                    || grpc.is_some_and(|code| on.grpc.contains(&code))
            }
        }
    }

    /// The pause before retry `number` (from 1): full jitter, between nothing and `base * (2^number - 1)`, at most `most`.
    #[must_use]
    pub fn pause(&self, number: u32, random: &mut fastrand::Rng) -> Duration {
        let doublings = (1u32 << number.min(20)) - 1;
        let most = self
            .backoff_base
            .saturating_mul(doublings)
            .min(self.backoff_most);
        most.mul_f64(random.f64())
    }
}

/// Whether repeating a request changes nothing (RFC 9110 9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: RetryOn) -> RetryPolicy {
        RetryPolicy {
            on,
            ..RetryPolicy::default()
        }
    }

    #[test]
    fn what_was_sent_is_repeated_only_where_safe() {
        let mut policy = policy(RetryOn {
            connect_failure: true,
            gateway_error: true,
            reset: true,
            ..RetryOn::default()
        });
        let answer = Failed::Answer {
            status: 503,
            grpc: None,
            class: Class::Failure,
        };
        let refused = Failed::Fault {
            fault: Fault::ConnectionRefused,
            is_refused: false,
        };
        let ended = Failed::Fault {
            fault: Fault::ConnectionTerminated,
            is_refused: false,
        };
        for (failed, get, post) in [
            (answer, true, false),
            (refused, true, true),
            (ended, true, false),
        ] {
            assert_eq!(policy.applies(failed, &Method::GET), get, "{failed:?}");
            assert_eq!(policy.applies(failed, &Method::POST), post, "{failed:?}");
        }
        policy.safe_only = false;
        assert!(policy.applies(answer, &Method::POST));
    }

    #[test]
    fn only_what_is_asked_is_repeated() {
        let policy = policy(RetryOn {
            refused_stream: true,
            statuses: vec![429],
            grpc: vec![14],
            class: true,
            ..RetryOn::default()
        });
        let answer = |status, grpc, class| Failed::Answer {
            status,
            grpc,
            class,
        };
        assert!(policy.applies(answer(429, None, Class::Success), &Method::GET));
        assert!(policy.applies(answer(200, Some(14), Class::Failure), &Method::GET));
        assert!(policy.applies(answer(500, None, Class::Retryable), &Method::GET));
        assert!(!policy.applies(answer(500, None, Class::Failure), &Method::GET));
        assert!(!policy.applies(
            Failed::Fault {
                fault: Fault::ConnectionRefused,
                is_refused: false
            },
            &Method::GET
        ));
        assert!(policy.applies(
            Failed::Fault {
                fault: Fault::ConnectionTerminated,
                is_refused: true
            },
            &Method::POST
        ));
    }

    #[test]
    fn pauses_grow_to_their_bound() {
        let policy = RetryPolicy::default();
        let mut random = fastrand::Rng::with_seed(1);
        for (number, most) in [(1, 25), (2, 75), (3, 175), (4, 250), (40, 250)] {
            let longest = (0..1000)
                .map(|_| policy.pause(number, &mut random))
                .max()
                .unwrap_or_default();
            assert!(
                longest <= Duration::from_millis(most),
                "{number}: {longest:?}"
            );
            assert!(
                longest >= Duration::from_millis(most) * 9 / 10,
                "{number}: {longest:?}"
            );
        }
    }
}
