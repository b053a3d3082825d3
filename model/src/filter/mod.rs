//! What is done with a request between its route and its endpoint, in an order that is given: who may come in, how many may, what
//! goes wrong on purpose, and what browsers are told.
//!
//! A listener's HTTP has a list of [`HttpFilter`]s; a table of routes, a virtual host, a route and one of its clusters may each give one of
//! them other settings by its name ([`Overrides`]), the most exact first ([`Levels`]). Where the list is empty, a request pays for none of this.

mod asked;
mod authorization;
mod check;
mod cors;
mod injection;
mod metadata;
mod mutation;
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
pub use metadata::{Metadata, MetadataMatch, RULES, TOKENS, ValueMatch};
pub use mutation::{Mutation, Mutations, QueryChange};
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
    /// Its name, by which tables, hosts, routes and their clusters give it other settings.
    pub name: String,
    /// Whether it does nothing but where one of them says otherwise.
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
    /// It changes heads and queries.
    Mutation(Arc<Mutation>),
}

/// What a table, a host, a route or a cluster of it says of a filter.
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
    /// It changes what it changes elsewhere, and this besides.
    Mutations(Arc<Mutations>),
}

/// What is said of filters, by their names.
pub type Overrides = BTreeMap<String, Override>;

/// How many may say something of filters.
pub const LEVELS: usize = 4;

/// What is said of filters for one request: by the cluster that it goes to, its route, its host and its table, the most exact first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Levels<'a>(pub [Option<&'a Overrides>; LEVELS]);

impl<'a> Levels<'a> {
    /// What is said of a filter, the most exact first.
    fn all(self, name: &str) -> impl Iterator<Item = &'a Override> {
        self.0.into_iter().flatten().filter_map(|own| own.get(name))
    }

    /// The most exact of it.
    fn first(self, name: &str) -> Option<&'a Override> {
        self.all(name).next()
    }
}

impl HttpFilter {
    /// What is allowed to other origins, the most exact first; nothing where another filter stands in the place.
    #[must_use]
    pub fn origins<'a>(&self, levels: Levels<'a>) -> Vec<&'a Cors> {
        let own = levels.all(&self.name).filter_map(|own| match own {
            Override::Other(Filter::Cors(own)) => Some(&**own),
            _ => None,
        });
        own.collect()
    }

    /// The requirement that is named.
    #[must_use]
    pub fn required<'a>(&self, levels: Levels<'a>) -> Option<&'a str> {
        match levels.first(&self.name)? {
            Override::Requires(name) => Some(name),
            _ => None,
        }
    }

    /// What is said of what is counted.
    #[must_use]
    pub fn rates<'a>(&self, levels: Levels<'a>) -> Option<&'a RateSettings> {
        match levels.first(&self.name)? {
            Override::Rates(own) => Some(own),
            _ => None,
        }
    }

    /// What is said of questions to a service, the most exact first.
    #[must_use]
    pub fn checks<'a>(&self, levels: Levels<'a>) -> [Option<&'a CheckSettings>; LEVELS] {
        levels.0.map(|own| match own?.get(&self.name)? {
            Override::Checks(own) => Some(&**own),
            _ => None,
        })
    }

    /// What is changed besides, the most exact first.
    #[must_use]
    pub fn mutations<'a>(&self, levels: Levels<'a>) -> [Option<&'a Arc<Mutations>>; LEVELS] {
        levels.0.map(|own| match own?.get(&self.name)? {
            Override::Mutations(own) => Some(own),
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

    /// What it does for a request; nothing where it is disabled.
    #[must_use]
    pub fn of<'a>(&'a self, levels: Levels<'a>) -> Option<&'a Filter> {
        match levels.first(&self.name) {
            Some(Override::Disabled) => None,
            Some(Override::Other(filter)) => Some(filter),
            Some(
                Override::Requires(_)
                | Override::Checks(_)
                | Override::Rates(_)
                | Override::Mutations(_),
            ) => Some(&self.filter),
            None => (!self.is_disabled).then_some(&self.filter),
        }
    }
}
