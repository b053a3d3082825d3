//! What is done with a request between its route and its endpoint, in an order that is given: who may come in, how many may, what
//! goes wrong on purpose, and what browsers are told.
//!
//! A listener's HTTP has a list of [`HttpFilter`]s; a virtual host and a route may each give one of them other settings by its name
//! ([`Overrides`]), the route before the host. Where the list is empty, a request pays for none of this.

mod asked;
mod authorization;
mod check;
mod cors;
mod injection;
mod metadata;
mod rate;
mod session;
mod shared_rate;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::egress::NameCache;

pub use asked::Asked;
pub use authorization::{
    Authorization, Condition, Effect, Policy, PolicyError, Pseudo, Rules, Verdict,
};
pub use check::{Check, CheckBody, CheckSettings, GrpcService};
pub use cors::{Cors, Origin};
pub use injection::{Abort, AbortBy, Break, Delay, DelayBy, Drawn, Injection, Pace, PaceBy};
pub use metadata::{Metadata, MetadataMatch, TOKENS, ValueMatch};
pub use rate::{
    Bucket, Counted, Descriptor, HostRates, Left, LocalRateLimit, RateAction, RateRule, RouteRates,
    Taken, TokenBucket, entries, rate_rules,
};
pub use session::Session;
pub use shared_rate::{RateSettings, SharedRateLimit};
pub use token::{
    Algorithm, Curve, Judged, Jwt, Key, KeySet, KeySetError, Keys, MOST_KEYS, Material, Places,
    Provider, RemoteKeys, Required, Requirement, TokenFault, TokenRule, Tokens, Wanted,
};

/// One filter of a listener's HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilter {
    /// Its name, by which hosts and routes give it other settings.
    pub name: String,
    /// Whether it does nothing but where a host or a route says otherwise.
    pub is_disabled: bool,
    /// What it does.
    pub filter: Filter,
}

/// What a filter does.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// It says who may come in.
    Authorization(Arc<Authorization>),
    /// It makes things go wrong on purpose.
    Injection(Arc<Injection>),
    /// It says how many may come in.
    RateLimit(Arc<LocalRateLimit>),
    /// It asks a service how many may come in.
    SharedRateLimit(Arc<SharedRateLimit>),
    /// It tells browsers which other origins may ask.
    Cors(Arc<Cors>),
    /// It keeps sessions with one endpoint.
    Session(Arc<Session>),
    /// It says how long a request's body may be, in bytes.
    BodyLimit(u32),
    /// It asks a service whether a request may come in.
    Check(Arc<Check>),
    /// It finds out who asks.
    Tokens(Arc<Tokens>),
    /// It says how the hosts of requests are looked up that go out to them; their cluster does so.
    Names(Arc<NameCache>),
}

/// What a host or a route says of a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Override {
    /// It does nothing here.
    Disabled,
    /// It does this here.
    Other(Filter),
    /// It counts what it counts elsewhere, but for this.
    Rates(Arc<RateSettings>),
    /// It does what it does elsewhere, and says this besides.
    Checks(Arc<CheckSettings>),
    /// It does what it does elsewhere, with this requirement in the place of those of its rules.
    Requires(String),
}

/// What a host or a route says of filters, by their names.
pub type Overrides = BTreeMap<String, Override>;

impl HttpFilter {
    /// What hosts and routes allow to other origins, the most exact first; nothing where another filter stands in the place.
    #[must_use]
    pub fn origins<'a>(&'a self, overrides: [Option<&'a Overrides>; 2]) -> Vec<&'a Cors> {
        let own = overrides.into_iter().flatten();
        let own = own.filter_map(|own| match own.get(&self.name)? {
            Override::Other(Filter::Cors(own)) => Some(&**own),
            _ => None,
        });
        own.collect()
    }

    /// The requirement that a host or a route names.
    #[must_use]
    pub fn required<'a>(&self, overrides: [Option<&'a Overrides>; 2]) -> Option<&'a str> {
        let mut own = overrides.into_iter().flatten();
        match own.find_map(|own| own.get(&self.name))? {
            Override::Requires(name) => Some(name),
            _ => None,
        }
    }

    /// What the route, or else its host, says of what is counted.
    #[must_use]
    pub fn rates<'a>(&self, overrides: [Option<&'a Overrides>; 2]) -> Option<&'a RateSettings> {
        let mut own = overrides.into_iter().flatten();
        match own.find_map(|own| own.get(&self.name))? {
            Override::Rates(own) => Some(own),
            _ => None,
        }
    }

    /// What a route and its host say of questions to a service.
    #[must_use]
    pub fn checks<'a>(
        &self,
        overrides: [Option<&'a Overrides>; 2],
    ) -> [Option<&'a CheckSettings>; 2] {
        overrides.map(|own| match own?.get(&self.name)? {
            Override::Checks(own) => Some(&**own),
            _ => None,
        })
    }

    /// The clusters that it asks itself.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        let (tokens, service) = match &self.filter {
            Filter::Tokens(own) => (Some(own.clusters()), None),
            Filter::Check(own) => (None, Some(&own.service.cluster)),
            Filter::SharedRateLimit(own) => (None, Some(&own.service.cluster)),
            _ => (None, None),
        };
        tokens.into_iter().flatten().chain(service)
    }

    /// What it does for a request; nothing where it is disabled. The most exact of `overrides` comes first.
    #[must_use]
    pub fn of<'a>(&'a self, overrides: [Option<&'a Overrides>; 2]) -> Option<&'a Filter> {
        let own = overrides
            .into_iter()
            .flatten()
            .find_map(|own| own.get(&self.name));
        match own {
            Some(Override::Disabled) => None,
            Some(Override::Other(filter)) => Some(filter),
            Some(Override::Requires(_) | Override::Checks(_) | Override::Rates(_)) => {
                Some(&self.filter)
            }
            None => (!self.is_disabled).then_some(&self.filter),
        }
    }
}
