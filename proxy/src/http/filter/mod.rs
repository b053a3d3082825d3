//! Filters: what is done with a request between its route and its endpoint. A listener without any has no part in this.

mod check;
mod injection;
mod passage;
mod places;
mod rate_limit;
mod session;
mod shared_rate;
mod token;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use fairlead_model::fault::Fault;
use fairlead_model::filter::{
    Authorization, Cors, Filter, LEVELS, Mutation, Mutations, Origin, RULES, Session,
};
use fairlead_model::route::{Action, RequestHead, Route, VirtualHost};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LENGTH};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;

use super::answer::Answer;
use super::record::Record;
use super::respond;
use super::service::{Connection, HttpService};
use super::way::Way;
use crate::access;

pub(crate) use injection::Damaged;
pub(super) use passage::{Demands, Passage};
pub(super) use places::{hide, hide_addresses};
pub(crate) use rate_limit::{Found, Limiters};
pub(super) use session::Bound;
pub(crate) use token::{KeySets, Verifiers, prepare};

/// A request that goes no further.
pub(super) enum Stopped {
    /// It is answered.
    Answered(Box<Response<Answer>>),
    /// It is a browser's question, whose answer no route changes.
    Preflight(Box<Response<Answer>>),
    /// Its connection, or its stream, ends without an answer.
    Reset,
}

/// A request that filters look at.
pub(super) struct Asking<'a> {
    pub(super) service: &'a HttpService,
    pub(super) connection: &'a Rc<Connection>,
    pub(super) request: &'a mut Request<Incoming>,
    pub(super) authority: &'a str,
    /// The caller.
    pub(super) caller: Option<IpAddr>,
    pub(super) is_grpc: bool,
    pub(super) record: Option<&'a Rc<Record>>,
    /// Where it would go; nothing where there is no route.
    pub(super) way: Option<&'a Way>,
}

impl Asking<'_> {
    /// Has all filters look at the request, in their order.
    pub(super) async fn pass(&mut self, passage: &mut Passage) -> Result<(), Stopped> {
        let service = self.service;
        let levels = self.way.map(Way::levels).unwrap_or_default();
        for filter in &service.settings.filters {
            match filter.of(levels) {
                None | Some(Filter::Names(_)) => {}
                Some(Filter::SharedRateLimit(own)) => {
                    let settings = filter.rates(levels);
                    self.limit_by_service(own, settings, passage).await?;
                }
                Some(Filter::Check(own)) => {
                    self.check(own, filter.checks(levels), passage).await?;
                }
                Some(Filter::Tokens(own)) => {
                    self.identify(own, filter.required(levels), passage).await?;
                }
                Some(Filter::Authorization(own)) => self.authorize(own, passage)?,
                Some(Filter::RateLimit(own)) => self.limit(own, passage)?,
                Some(Filter::Cors(_)) => self.origin(&filter.origins(levels), passage)?,
                Some(Filter::Injection(own)) => self.inject(own, passage).await?,
                Some(Filter::Session(own)) => self.bind(own, passage),
                Some(Filter::Mutation(own)) => {
                    self.change(own, filter.mutations(levels), passage);
                }
                Some(Filter::BodyLimit(most)) => self.measure(*most, passage)?,
            }
        }
        Ok(())
    }

    fn head(&self) -> RequestHead<'_> {
        let uri = self.request.uri();
        RequestHead {
            method: self.request.method(),
            authority: self.authority,
            path: uri.path(),
            query: uri.query(),
            headers: self.request.headers(),
        }
    }

    /// The cluster it would go to.
    fn cluster(&self) -> Option<&str> {
        let way = self.way?;
        match &way.route.action {
            Action::Forward(forward) => Some(&forward.clusters.get(way.cluster?)?.name),
            _ => None,
        }
    }

    /// Its host and its route.
    fn route(&self) -> Option<(&VirtualHost, &Route)> {
        self.way.map(|way| (&*way.host, &*way.route))
    }

    fn refused(&self, fault: Fault) -> Stopped {
        if let Some(record) = self.record {
            record.failed(fault);
        }
        Stopped::Answered(Box::new(respond::fault(fault, self.is_grpc)))
    }

    fn authorize(&self, own: &Authorization, passage: &mut Passage) -> Result<(), Stopped> {
        let decision = {
            let mut asked = self.connection.asked(Some(self.head()), self.caller);
            asked.metadata = Some(&passage.metadata);
            let counts = (&*self.service.figures).into();
            access::decide(&self.service.core, own, &asked, &counts)
        };
        if let Some(shadow) = &decision.shadow {
            let learned = Arc::new(own.learned(shadow));
            passage.metadata.learn(RULES, None, learned);
        }
        let Some(verdict) = decision.enforced else {
            return Ok(());
        };
        tracing::debug!(
            allowed = verdict.is_allowed,
            policy = verdict.policy,
            "decided who may come in"
        );
        if verdict.is_allowed {
            return Ok(());
        }
        Err(self.refused(Fault::Denied))
    }

    fn change(
        &mut self,
        own: &Mutation,
        others: [Option<&Arc<Mutations>>; LEVELS],
        passage: &mut Passage,
    ) {
        for own in own.all(others) {
            for changes in &own.request {
                changes.apply(self.request.headers_mut(), |_, _| String::new());
            }
            if !own.query.is_empty() {
                places::change_query(self.request, |parts| {
                    own.query.iter().for_each(|change| change.apply(parts));
                });
            }
            if !own.response.is_empty() {
                passage.mutations.push(Arc::clone(own));
            }
        }
    }

    fn bind(&self, own: &Arc<Session>, passage: &mut Passage) {
        if own.takes(self.request.uri().path()) {
            let bound = Bound::of(own, self.request.headers());
            passage.demands.get_or_insert_default().bound = Some(bound);
        }
    }

    /// Refuses a body that says itself that it is too long; others are measured as they come.
    fn measure(&self, most: u32, passage: &mut Passage) -> Result<(), Stopped> {
        let least = self.request.body().size_hint().lower();
        if least > u64::from(most) {
            return Err(self.refused(Fault::BodyTooLong));
        }
        passage.demands.get_or_insert_default().body_most = Some(most);
        Ok(())
    }

    fn origin(&self, policies: &[&Cors], passage: &mut Passage) -> Result<(), Stopped> {
        let share = policies.first().map_or(0, |own| own.enabled);
        let is_forwarded =
            matches!(self.way, Some(way) if matches!(way.route.action, Action::Forward(_)));
        if !is_forwarded || self.service.core.draw() >= share {
            return Ok(());
        }
        let headers = self.request.headers();
        let figures = &self.service.figures;
        match Origin::of(policies, self.request.method(), headers) {
            Origin::Ignored => {
                if headers.contains_key(http::header::ORIGIN) {
                    figures.cors_origin_invalid.increment();
                }
                Ok(())
            }
            Origin::Allowed(headers) => {
                figures.cors_origin_valid.increment();
                passage.headers.extend(headers);
                Ok(())
            }
            Origin::Answered(mut headers) => {
                match headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
                    true => figures.cors_origin_valid.increment(),
                    false => figures.cors_origin_invalid.increment(),
                }
                headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
                let mut response = Response::new(Answer::Empty);
                *response.headers_mut() = headers;
                Err(Stopped::Preflight(Box::new(response)))
            }
        }
    }
}
