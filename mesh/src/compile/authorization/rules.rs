//! Rules of MeshAuthorizations in the words of the traffic model.
//!
//! What is no valid rule, which admission refuses, lets less through: for what allows it holds for nobody, for what denies the part
//! that is broken always holds.

use fairlead_crds::mesh::{
    Asked, AskedHeader, AuthorizationRule, Callers, Claim, MeshAuthorization,
};
use fairlead_model::filter::{
    Condition, Effect, MetadataMatch, Policy, Pseudo, TOKENS, ValueMatch,
};
use fairlead_model::route::{HeaderMatch, HeaderTest};
use fairlead_model::{Pattern, TextMatch};
use http::HeaderName;

use super::tokens::Issuers;

/// What a rule is read with.
pub(super) struct Reading<'a> {
    pub(super) trust_domain: &'a str,
    pub(super) issuers: &'a Issuers<'a>,
    pub(super) effect: Effect,
}

/// Whether a rule holds for connections that carry no HTTP, too.
pub(super) fn is_plain(own: &MeshAuthorization, rule: &AuthorizationRule) -> bool {
    let to_plain = |to: &Asked| {
        let Asked {
            ports: _,
            methods,
            paths,
            hosts,
            headers,
        } = to;
        methods.is_empty() && paths.is_empty() && hosts.is_empty() && headers.is_empty()
    };
    let condition = rule.condition.as_deref();
    let reads_request = |text: &str| match Condition::expression(text) {
        Ok(Condition::Expression(own)) => {
            let mut read = own.references().iter();
            read.any(|path| path.starts_with(&["request"]))
        }
        _ => true,
    };
    own.spec.jwt.is_none()
        && own.spec.external.is_none()
        && rule.to.as_ref().is_none_or(to_plain)
        && !condition.is_some_and(reads_request)
}

impl Reading<'_> {
    /// A rule of an authorization; nothing where it holds for nobody.
    pub(super) fn policy(
        &self,
        own: &MeshAuthorization,
        rule: &AuthorizationRule,
    ) -> Option<Policy> {
        let asked = rule.to.as_ref().map_or(Condition::Any, asked);
        let permission = match &rule.condition {
            None => asked,
            Some(text) => {
                let expression = Condition::expression(text).ok();
                Condition::All(vec![asked, expression.or_else(|| self.broken())?])
            }
        };
        let from = rule.from.as_ref();
        let principals = match &own.spec.jwt {
            None => from.map_or(vec![Condition::Any], |from| self.callers(from)),
            Some(jwt) => {
                let names = jwt.issuers.iter().filter_map(|own| {
                    let name = self.issuers.name_of(own)?;
                    Some(self.token(name, &own.issuer, from, &rule.claims))
                });
                let own: Vec<Condition> = names.flatten().collect();
                match (own.is_empty(), self.effect) {
                    (true, Effect::Deny) => vec![Condition::Any],
                    _ => own,
                }
            }
        };
        // One that names nobody is about nobody; a stock Envoy refuses it.
        (!principals.is_empty()).then(|| Policy {
            permissions: vec![permission],
            principals,
        })
    }

    /// What stands in the place of what cannot be read.
    fn broken(&self) -> Option<Condition> {
        (self.effect == Effect::Deny).then_some(Condition::Any)
    }

    /// Who has a token of an issuer that says all of this; nothing where nobody can.
    fn token(
        &self,
        name: &str,
        issuer: &str,
        from: Option<&Callers>,
        claims: &[Claim],
    ) -> Option<Condition> {
        let mut all = vec![said(name, &["iss".to_owned()], &[issuer.to_owned()])];
        all.extend(claims.iter().map(|own| said(name, &own.path, &own.values)));
        if let Some(from) = from {
            let principals = from.principals.iter();
            let principals = principals.filter_map(|own| principal(name, issuer, own));
            let callers: Vec<Condition> =
                self.callers(from).into_iter().chain(principals).collect();
            if callers.is_empty() {
                return None;
            }
            all.push(Condition::OneOf(callers));
        }
        Some(Condition::All(all))
    }

    /// Callers by what their connection says.
    fn callers(&self, from: &Callers) -> Vec<Condition> {
        let accounts = from.service_accounts.iter().filter_map(|own| {
            let (namespace, name) = own.split_once('/')?;
            let id = fairlead_plan::mesh::spiffe(self.trust_domain, namespace, name);
            Some(Condition::Peer(Some(TextMatch::exact(&id))))
        });
        let namespaces = from.namespaces.iter().map(|namespace| {
            let beginning = fairlead_plan::mesh::spiffe(self.trust_domain, namespace, "");
            Condition::Peer(Some(TextMatch::prefix(&beginning)))
        });
        let networks = from.networks.iter().filter_map(|own| own.parse().ok());
        let networks = networks.map(Condition::Source);
        accounts.chain(namespaces).chain(networks).collect()
    }
}

/// What is asked for.
fn asked(to: &Asked) -> Condition {
    let ports = to.ports.iter();
    let ports = ports.map(|port| Condition::DestinationPort(*port..=*port));
    let methods = to.methods.iter();
    let methods = methods.map(|own| Condition::Pseudo(Pseudo::Method, TextMatch::exact(own)));
    let paths = to.paths.iter().map(|path| Condition::Path(text(path)));
    let hosts = to.hosts.iter().flat_map(|own| host(own));
    let parts: [Vec<Condition>; 4] = [
        ports.collect(),
        methods.collect(),
        paths.collect(),
        hosts.collect(),
    ];
    let given = parts.into_iter().filter(|part| !part.is_empty());
    let headers = to.headers.iter().filter_map(header);
    Condition::All(
        given
            .map(Condition::OneOf)
            .chain(headers)
            .chain([Condition::Any])
            .collect(),
    )
}

/// A text, or the beginning of one with * at its end.
fn text(own: &str) -> TextMatch {
    match own.strip_suffix('*') {
        // A stock Envoy takes no beginning that is empty.
        Some("") => Pattern::parse(".*").map_or_else(|_| TextMatch::prefix(""), TextMatch::Regex),
        Some(beginning) => TextMatch::prefix(beginning),
        None => TextMatch::exact(own),
    }
}

/// A host in any letters, with a port or without, and with the dot of a whole name or without.
fn host(own: &str) -> Vec<Condition> {
    let authority = |text| Condition::Pseudo(Pseudo::Authority, text);
    if let Some(end) = own.strip_prefix('*') {
        let end = end.replace('.', "\\.");
        let pattern = Pattern::parse(&format!("(?i).*{end}\\.?(:[0-9]*)?"));
        return pattern
            .map(|own| authority(TextMatch::Regex(own)))
            .into_iter()
            .collect();
    }
    let ignore_case = true;
    let forms = [own.to_owned(), format!("{own}.")].into_iter();
    let forms = forms.flat_map(|text| {
        let with_port = TextMatch::Prefix {
            text: format!("{text}:"),
            ignore_case,
        };
        [TextMatch::Exact { text, ignore_case }, with_port]
    });
    forms.map(authority).collect()
}

fn header(own: &AskedHeader) -> Option<Condition> {
    let name: HeaderName = own.name.parse().ok()?;
    let is = |test| {
        Condition::Header(HeaderMatch {
            name: name.clone(),
            test,
            invert: false,
            missing_is_empty: false,
        })
    };
    if own.values.is_empty() {
        return Some(is(HeaderTest::Present(true)));
    }
    let values = own.values.iter();
    let values = values.map(|value| is(HeaderTest::Text(text(value))));
    Some(Condition::OneOf(values.collect()))
}

/// That a token, known by a name, says one of these: as a text, a number or a flag, or in a list.
fn said(name: &str, path: &[String], values: &[String]) -> Condition {
    let forms = values.iter().flat_map(|value| {
        let own = ValueMatch::Text(text(value));
        let flag = value.parse().ok().map(ValueMatch::Flag);
        let number = value.parse().ok().map(ValueMatch::Number);
        let in_list = ValueMatch::Has(Box::new(own.clone()));
        [Some(own), Some(in_list), flag, number]
    });
    Condition::Metadata(MetadataMatch {
        filter: TOKENS.to_owned(),
        path: [&[name.to_owned()], path].concat(),
        value: ValueMatch::OneOf(forms.flatten().collect()),
        invert: false,
    })
}

/// That a token of an issuer is a principal's, iss/sub; nothing where another issuer is meant.
fn principal(name: &str, issuer: &str, own: &str) -> Option<Condition> {
    let whole = format!("{issuer}/");
    let subject = match own.strip_prefix(&whole) {
        Some(subject) => subject,
        // All of this issuer's.
        None => own
            .strip_suffix('*')
            .filter(|own| whole.starts_with(own))
            .map(|_| "*")?,
    };
    Some(said(name, &["sub".to_owned()], &[subject.to_owned()]))
}
