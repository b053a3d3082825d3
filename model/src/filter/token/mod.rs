//! Who asks, by a token that an issuer signed ([Envoy's JWT
//! authentication](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/jwt_authn_filter)).

mod jwt;
mod keys;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};

pub use jwt::{Algorithm, Jwt, TokenFault};
pub use keys::{Curve, Key, KeySet, KeySetError, MOST_KEYS, Material};

use crate::TextMatch;
use crate::route::{RequestHead, RouteMatch};

/// Which tokens are asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tokens {
    /// Who is trusted, by name.
    pub providers: BTreeMap<String, Provider>,
    /// What is required of which requests; the first that matches counts, and where none does nothing is.
    pub rules: Vec<TokenRule>,
    /// Requirements that rules and routes name.
    pub named: BTreeMap<String, Requirement>,
    /// Whether a browser's question before its request needs no token.
    pub skips_preflight: bool,
    /// Whether callers are not told what is wrong.
    pub is_silent: bool,
}

/// An issuer that is trusted.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// The issuer; empty: any.
    pub issuer: String,
    /// Who tokens have to be for, one of these; empty: anyone.
    pub audiences: Vec<String>,
    /// Whose tokens these have to be; nothing: anyone's.
    pub subjects: Option<TextMatch>,
    /// Whether a token has to end.
    pub needs_end: bool,
    /// For how long a token may count.
    pub longest: Option<Duration>,
    /// Its keys.
    pub keys: Keys,
    /// Where its tokens stand.
    pub places: Places,
    /// Whether endpoints get the token too.
    pub forwards: bool,
    /// The header in which endpoints get what the token says, and whether that is padded.
    pub payload_header: Option<(HeaderName, bool)>,
    /// Claims that endpoints get as headers, by the names on the way to each.
    pub claims: Vec<(HeaderName, Vec<String>)>,
    /// By how much clocks may differ.
    pub skew: Duration,
    /// The name by which filters after this one find what the token says.
    pub metadata: Option<Arc<str>>,
    /// How many tokens that were good are kept; zero: as many as is usual.
    pub kept: u32,
}

/// Where a provider's tokens stand.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Places {
    /// Headers, and what stands before the token.
    pub headers: Vec<(HeaderName, String)>,
    /// Parameters of the query.
    pub parameters: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
}

impl Places {
    /// Where they stand when nothing is said: `authorization: Bearer`, and the parameter `access_token`.
    #[must_use]
    pub fn usual() -> Self {
        Self {
            headers: vec![(http::header::AUTHORIZATION, "Bearer ".to_owned())],
            parameters: vec!["access_token".to_owned()],
            cookies: Vec::new(),
        }
    }
}

/// The keys of an issuer.
#[derive(Debug, Clone, PartialEq)]
pub enum Keys {
    /// They are given.
    Local(Arc<KeySet>),
    /// They are fetched.
    Remote(Arc<RemoteKeys>),
}

/// Where keys are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteKeys {
    /// Their URI.
    pub uri: Uri,
    /// The cluster that has them.
    pub cluster: Arc<str>,
    /// How long a fetch may take.
    pub timeout: Duration,
    /// How long they count until they are fetched again.
    pub life: Duration,
    /// How long after a fetch that failed the next one is made.
    pub pause: Duration,
    /// How often a fetch is tried again at once.
    pub retries: u32,
    /// How long before each of those: the first time, and at most.
    pub backoff: (Duration, Duration),
}

/// What is required of some requests.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRule {
    /// Which.
    pub matches: RouteMatch,
    /// What; nothing: no token.
    pub requires: Option<Required>,
}

/// A requirement, or its name.
#[derive(Debug, Clone, PartialEq)]
pub enum Required {
    /// This.
    Own(Requirement),
    /// The one of this name.
    Named(String),
}

/// What has to be so of a request's tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Requirement {
    /// A provider's token is good.
    Provider {
        /// Its name.
        name: String,
        /// Who the token has to be for, in the place of what the provider says; empty: what that says.
        audiences: Vec<String>,
    },
    /// One of these holds.
    Any(Vec<Requirement>),
    /// All of these hold.
    All(Vec<Requirement>),
    /// There is no token, or it is good.
    AllowMissing,
    /// Nothing: a token that is good is still used.
    AllowFailed,
}

/// A token that has to be looked at: whose, and who it has to be for.
pub type Wanted<'a> = (&'a str, &'a [String]);

/// What is found of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged<'a> {
    /// It holds.
    Holds,
    /// It does not.
    Fails(TokenFault),
    /// Another token has to be looked at first.
    Wants(Wanted<'a>),
}

impl Tokens {
    /// What is required of a request; `Err` has a name that is none. The draw is a number below a million.
    ///
    /// # Errors
    /// When a route, or a rule, names a requirement that there is not.
    pub fn required<'a>(
        &'a self,
        head: &RequestHead<'_>,
        by_route: Option<&'a str>,
        draw: u32,
    ) -> Result<Option<&'a Requirement>, &'a str> {
        let named = |name: &'a str| self.named.get(name).map(Some).ok_or(name);
        if let Some(name) = by_route {
            return named(name);
        }
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.matches.matches(head, draw));
        match rule.and_then(|rule| rule.requires.as_ref()) {
            None => Ok(None),
            Some(Required::Own(own)) => Ok(Some(own)),
            Some(Required::Named(name)) => named(name),
        }
    }

    /// Whether a requirement holds, as far as is known what became of tokens: those of which nothing is known are asked for one by
    /// one, so that none is looked at in vain.
    pub fn judge<'a>(
        &'a self,
        requirement: &'a Requirement,
        known: &dyn Fn(Wanted<'_>) -> Option<Result<(), TokenFault>>,
    ) -> Judged<'a> {
        match requirement {
            Requirement::Provider { name, audiences } => match known((name, audiences)) {
                None => Judged::Wants((name, audiences)),
                Some(Ok(())) => Judged::Holds,
                Some(Err(fault)) => Judged::Fails(fault),
            },
            Requirement::All(all) => all
                .iter()
                .map(|own| self.judge(own, known))
                .find(|own| *own != Judged::Holds)
                .unwrap_or(Judged::Holds),
            Requirement::Any(all) => self.judge_any(all, known),
            Requirement::AllowMissing | Requirement::AllowFailed => {
                self.judge_optional(known, *requirement == Requirement::AllowFailed)
            }
        }
    }

    fn judge_any<'a>(
        &'a self,
        all: &'a [Requirement],
        known: &dyn Fn(Wanted<'_>) -> Option<Result<(), TokenFault>>,
    ) -> Judged<'a> {
        let mut worst = TokenFault::Missing;
        let is_optional =
            |own: &Requirement| matches!(own, Requirement::AllowMissing | Requirement::AllowFailed);
        for own in all.iter().filter(|own| !is_optional(own)) {
            match self.judge(own, known) {
                Judged::Fails(fault) if fault.weight() >= worst.weight() => worst = fault,
                Judged::Fails(_) => {}
                other => return other,
            }
        }
        // What allows a token to be missing says so of the others beside it.
        match all.contains(&Requirement::AllowFailed)
            || (all.contains(&Requirement::AllowMissing) && worst == TokenFault::Missing)
        {
            true => Judged::Holds,
            false => Judged::Fails(worst),
        }
    }

    /// Of every provider: no token, or a good one.
    fn judge_optional<'a>(
        &'a self,
        known: &dyn Fn(Wanted<'_>) -> Option<Result<(), TokenFault>>,
        is_any_fine: bool,
    ) -> Judged<'a> {
        let (mut is_good, mut is_foreign) = (false, false);
        for name in self.providers.keys() {
            match known((name, &[])) {
                None => return Judged::Wants((name, &[])),
                Some(Ok(())) => is_good = true,
                Some(Err(TokenFault::Missing)) => {}
                // It may be another provider's.
                Some(Err(TokenFault::Issuer)) => is_foreign = true,
                Some(Err(fault)) if !is_any_fine => return Judged::Fails(fault),
                Some(Err(_)) => {}
            }
        }
        match is_foreign && !is_good && !is_any_fine {
            true => Judged::Fails(TokenFault::Issuer),
            false => Judged::Holds,
        }
    }

    /// The clusters that have keys.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.providers.values().filter_map(|own| match &own.keys {
            Keys::Remote(remote) => Some(&remote.cluster),
            Keys::Local(_) => None,
        })
    }
}

impl Provider {
    /// Whether a token is one of this provider's that counts now, for one of these audiences where any are given, whoever signed it.
    ///
    /// # Errors
    /// When it is not.
    pub fn takes(&self, jwt: &Jwt, audiences: &[String], now: u64) -> Result<(), TokenFault> {
        if !self.issuer.is_empty() && jwt.issuer != self.issuer {
            return Err(TokenFault::Issuer);
        }
        if let Some(subjects) = &self.subjects
            && !subjects.matches(&jwt.subject)
        {
            return Err(TokenFault::Subject);
        }
        let is_too_long = |longest: &Duration| {
            let begins = jwt.issued.or(jwt.not_before).unwrap_or(now);
            let ends = jwt.expires.unwrap_or(u64::MAX);
            ends.saturating_sub(begins) > longest.as_secs()
        };
        if (self.needs_end && jwt.expires.is_none())
            || self.longest.as_ref().is_some_and(is_too_long)
        {
            return Err(TokenFault::Lifetime);
        }
        jwt.counts_at(now, self.skew)?;
        let wanted = match audiences.is_empty() {
            true => &self.audiences,
            false => audiences,
        };
        // Scheme and a slash at the end make no difference, as for Envoy.
        let mut given = jwt.audiences.iter().map(|own| audience(own));
        match wanted.is_empty()
            || given.any(|own| wanted.iter().any(|wanted| audience(wanted) == own))
        {
            true => Ok(()),
            false => Err(TokenFault::Audience),
        }
    }
}

/// An audience without what makes no difference.
fn audience(text: &str) -> &str {
    let text = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    text.strip_suffix('/').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(name: &str) -> Requirement {
        Requirement::Provider {
            name: name.to_owned(),
            audiences: Vec::new(),
        }
    }

    fn tokens() -> Tokens {
        let empty = Provider {
            issuer: String::new(),
            audiences: Vec::new(),
            subjects: None,
            needs_end: false,
            longest: None,
            keys: Keys::Local(Arc::new(KeySet {
                source: String::new(),
                keys: Vec::new(),
            })),
            places: Places::usual(),
            forwards: false,
            payload_header: None,
            claims: Vec::new(),
            skew: Duration::from_secs(60),
            metadata: None,
            kept: 0,
        };
        Tokens {
            providers: ["a", "b"].map(|own| (own.to_owned(), empty.clone())).into(),
            ..Tokens::default()
        }
    }

    #[test]
    fn requirements_hold_as_in_envoy() {
        use Requirement::{All, AllowFailed, AllowMissing, Any};
        use TokenFault::{Expired, Issuer, Missing};
        let tokens = tokens();
        let either = || vec![provider("a"), provider("b")];
        let with = |own: Requirement| [either(), vec![own]].concat();
        for (requirement, a, b, expected) in [
            (provider("a"), Ok(()), Err(Missing), Judged::Holds),
            (provider("a"), Err(Missing), Ok(()), Judged::Fails(Missing)),
            (Any(either()), Err(Issuer), Ok(()), Judged::Holds),
            (
                Any(either()),
                Err(Expired),
                Err(Issuer),
                Judged::Fails(Expired),
            ),
            (
                Any(either()),
                Err(Issuer),
                Err(Missing),
                Judged::Fails(Issuer),
            ),
            (All(either()), Ok(()), Ok(()), Judged::Holds),
            (All(either()), Ok(()), Err(Expired), Judged::Fails(Expired)),
            (
                Any(with(AllowMissing)),
                Err(Missing),
                Err(Missing),
                Judged::Holds,
            ),
            (
                Any(with(AllowMissing)),
                Err(Expired),
                Err(Missing),
                Judged::Fails(Expired),
            ),
            (
                Any(with(AllowFailed)),
                Err(Expired),
                Err(Missing),
                Judged::Holds,
            ),
            (AllowMissing, Err(Missing), Err(Missing), Judged::Holds),
            (AllowMissing, Err(Issuer), Ok(()), Judged::Holds),
            (
                AllowMissing,
                Err(Issuer),
                Err(Issuer),
                Judged::Fails(Issuer),
            ),
            (AllowMissing, Ok(()), Err(Expired), Judged::Fails(Expired)),
            (AllowFailed, Err(Expired), Err(Issuer), Judged::Holds),
            (
                All(vec![provider("a"), AllowMissing]),
                Ok(()),
                Err(Missing),
                Judged::Holds,
            ),
        ] {
            let known = |(name, _): Wanted<'_>| Some(if name == "a" { a } else { b });
            let found = tokens.judge(&requirement, &known);
            assert_eq!(found, expected, "{requirement:?} with {a:?}, {b:?}");
        }
    }

    #[test]
    fn no_token_is_looked_at_in_vain() {
        let tokens = tokens();
        let any = Requirement::Any(vec![provider("a"), provider("b")]);
        let nothing: Wanted<'_> = ("a", &[]);
        assert_eq!(tokens.judge(&any, &|_| None), Judged::Wants(nothing));
        let known = |(name, _): Wanted<'_>| (name == "a").then_some(Ok(()));
        assert_eq!(tokens.judge(&any, &known), Judged::Holds);
    }

    #[test]
    fn audiences_differ_by_what_makes_a_difference() {
        assert_eq!(audience("https://shop.example/"), "shop.example");
        assert_eq!(audience("shop.example"), "shop.example");
        assert_ne!(audience("https://shop.example/a"), "shop.example");
    }
}
