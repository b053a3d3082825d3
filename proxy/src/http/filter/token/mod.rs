//! Who asks, by tokens.

mod keys;
mod known;
mod signature;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fairlead_model::fault::Fault;
use fairlead_model::filter::{
    Filter, HttpFilter, Judged, Jwt, KeySet, Keys, Provider, TokenFault, Tokens, Wanted,
};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::Value;

use super::places::{self, Place};
use super::{Asking, Passage, Stopped};
use crate::clock::since_1970;
use crate::core::Core;
use crate::http::{respond, way};
use crate::metrics::HttpFigures;
use keys::{Current, Remote};
use known::{Good, Known};

pub(crate) use keys::KeySets;

/// How much of a path callers are told again, in bytes.
const LONGEST_PATH: usize = 256;

/// What a worker has for a filter of these settings.
type Own = (Weak<Tokens>, Rc<Verifier>);

/// What a worker has for each filter, by the address of its settings; these stay where they are while this has them.
#[derive(Debug, Default)]
pub(crate) struct Verifiers(RefCell<HashMap<usize, Own>>);

impl Verifiers {
    fn of(
        &self,
        core: &Rc<Core>,
        figures: &Arc<HttpFigures>,
        settings: &Arc<Tokens>,
    ) -> Rc<Verifier> {
        let key = Arc::as_ptr(settings) as usize;
        if let Some((_, known)) = self.0.borrow().get(&key) {
            return Rc::clone(known);
        }
        let verifier = Rc::new(Verifier::new(core, figures, settings));
        let own = (Arc::downgrade(settings), Rc::clone(&verifier));
        self.0.borrow_mut().insert(key, own);
        verifier
    }

    /// Forgets what nobody has settings for any more.
    pub(crate) fn clear(&self) {
        let mut all = self.0.borrow_mut();
        all.retain(|_, (settings, _)| settings.strong_count() > 0);
    }
}

/// Begins to fetch the keys that filters need, before the first request does.
pub(crate) fn prepare(core: &Rc<Core>, figures: &Arc<HttpFigures>, filters: &[HttpFilter]) {
    for filter in filters {
        if let Filter::Tokens(own) = &filter.filter {
            core.verifiers.of(core, figures, own);
        }
    }
}

/// The keys of each provider, and tokens of theirs that were good.
#[derive(Debug)]
struct Verifier(BTreeMap<String, Source>);

#[derive(Debug)]
struct Source {
    keys: SourceKeys,
    known: RefCell<Known>,
}

#[derive(Debug)]
enum SourceKeys {
    Local(Arc<KeySet>),
    Remote(Arc<Remote>),
}

impl Verifier {
    fn new(core: &Rc<Core>, figures: &Arc<HttpFigures>, settings: &Tokens) -> Self {
        let source = |own: &Provider| Source {
            keys: match &own.keys {
                Keys::Local(set) => SourceKeys::Local(Arc::clone(set)),
                Keys::Remote(settings) => {
                    let remote = core.shared.key_sets.of(settings);
                    remote.begin(core, figures);
                    SourceKeys::Remote(remote)
                }
            },
            known: RefCell::new(Known::new(own.kept)),
        };
        let all = settings.providers.iter();
        Self(all.map(|(name, own)| (name.clone(), source(own))).collect())
    }
}

impl Source {
    fn generation(&self) -> u64 {
        match &self.keys {
            SourceKeys::Local(_) => 0,
            SourceKeys::Remote(remote) => remote.generation(),
        }
    }

    /// Whether a token is good.
    async fn verify(
        &self,
        provider: &Provider,
        token: &str,
        audiences: &[String],
        figures: &HttpFigures,
    ) -> Result<Arc<Jwt>, TokenFault> {
        let now = since_1970().as_secs();
        let hash = Known::hash(token);
        let known = hash.and_then(|hash| {
            let mut known = self.known.borrow_mut();
            known.get(&hash, self.generation())
        });
        if let Some(jwt) = known {
            figures.jwt_authn_jwt_cache_hit.increment();
            provider.takes(&jwt, audiences, now)?;
            return Ok(jwt);
        }
        figures.jwt_authn_jwt_cache_miss.increment();
        let jwt = Jwt::parse(token)?;
        // What is another's, or counts no longer, costs no signature and waits for no keys.
        provider.takes(&jwt, audiences, now)?;
        let generation = self.check(&jwt, token).await?;
        let jwt = Arc::new(jwt);
        if let Some(hash) = hash {
            let jwt = Arc::clone(&jwt);
            self.known.borrow_mut().keep(hash, Good { jwt, generation });
        }
        Ok(jwt)
    }

    /// Whether one of the keys signed a token; says which keys these were.
    async fn check(&self, jwt: &Jwt, token: &str) -> Result<u64, TokenFault> {
        let remote = match &self.keys {
            SourceKeys::Local(keys) => return signed(&(Arc::clone(keys), 0), jwt, token),
            SourceKeys::Remote(remote) => remote,
        };
        let current = remote.current().await.ok_or(TokenFault::Fetch)?;
        match signed(&current, jwt, token) {
            Err(TokenFault::NoKey) => {
                let renewed = remote.renewed().await.ok_or(TokenFault::NoKey)?;
                signed(&renewed, jwt, token)
            }
            outcome => outcome,
        }
    }
}

/// Whether one of these keys signed a token.
fn signed((keys, generation): &Current, jwt: &Jwt, token: &str) -> Result<u64, TokenFault> {
    let mut fault = TokenFault::NoKey;
    for key in keys.of(jwt) {
        if signature::is_good(key, jwt, token) {
            return Ok(*generation);
        }
        fault = TokenFault::Signature;
    }
    Err(fault)
}

/// A provider's token, and what became of it.
struct Seen<'a> {
    wanted: Wanted<'a>,
    outcome: Result<(Place, Arc<Jwt>), TokenFault>,
}

impl Asking<'_> {
    /// Finds out who asks.
    pub(super) async fn identify(
        &mut self,
        own: &Arc<Tokens>,
        by_route: Option<&str>,
        passage: &mut Passage,
    ) -> Result<(), Stopped> {
        let service = self.service;
        let figures = &service.figures;
        if own.skips_preflight && is_preflight(self.request) {
            figures.jwt_authn_cors_preflight_bypassed.increment();
            return Ok(());
        }
        self.clear_claims(own);
        let core = &service.core;
        let requirement = match own.required(&self.head(), by_route, core.draw()) {
            Ok(None) => {
                figures.jwt_authn_allowed.increment();
                return Ok(());
            }
            Ok(Some(requirement)) => requirement,
            Err(name) => {
                let names: Vec<_> = own.named.keys().map(String::as_str).collect();
                let names = names.join(",");
                let text = format!(
                    "Failed JWT authentication: Wrong requirement_name: {name}. It should be one of [{names}]"
                );
                return Err(self.unidentified(own, StatusCode::FORBIDDEN, &text, None));
            }
        };
        let verifier = core.verifiers.of(core, figures, own);
        let mut all: Vec<Seen<'_>> = Vec::new();
        let fault = loop {
            let known = |wanted: Wanted<'_>| {
                let own = all.iter().find(|own| own.wanted == wanted)?;
                Some(own.outcome.as_ref().map(|_| ()).map_err(|fault| *fault))
            };
            match own.judge(requirement, &known) {
                Judged::Holds => break None,
                Judged::Fails(fault) => break Some(fault),
                Judged::Wants(wanted) => {
                    let outcome = self.token(own, &verifier, wanted).await;
                    all.push(Seen { wanted, outcome });
                }
            }
        };
        core.clock.now();
        if let Some(fault) = fault {
            let status = match fault {
                TokenFault::Audience => StatusCode::FORBIDDEN,
                _ => StatusCode::UNAUTHORIZED,
            };
            return Err(self.unidentified(own, status, &fault.to_string(), Some(fault)));
        }
        figures.jwt_authn_allowed.increment();
        for seen in all {
            if let (Ok((place, jwt)), Some(provider)) =
                (seen.outcome, own.providers.get(seen.wanted.0))
            {
                self.tell(provider, &place, &jwt, passage);
            }
        }
        Ok(())
    }

    /// A provider's token that is good, and where it stands. The first of several that is; else what is wrong with the last one.
    async fn token(
        &self,
        own: &Tokens,
        verifier: &Verifier,
        (name, audiences): Wanted<'_>,
    ) -> Result<(Place, Arc<Jwt>), TokenFault> {
        let (provider, source) = match (own.providers.get(name), verifier.0.get(name)) {
            (Some(provider), Some(source)) => (provider, source),
            _ => return Err(TokenFault::Issuer),
        };
        let mut fault = TokenFault::Missing;
        for (place, token) in places::tokens(&provider.places, self.request) {
            let figures = &self.service.figures;
            match source.verify(provider, token, audiences, figures).await {
                Ok(jwt) => return Ok((place, jwt)),
                Err(other) => fault = other,
            }
        }
        Err(fault)
    }

    /// Takes away what only this proxy may say.
    fn clear_claims(&mut self, own: &Tokens) {
        let headers = self.request.headers_mut();
        for provider in own.providers.values() {
            let payload = provider.payload_header.iter().map(|(name, _)| name);
            for name in payload.chain(provider.claims.iter().map(|(name, _)| name)) {
                headers.remove(name);
            }
        }
    }

    /// Tells the endpoint, and filters after this one, what a token says.
    fn tell(&mut self, provider: &Provider, place: &Place, jwt: &Jwt, passage: &mut Passage) {
        if !provider.forwards {
            place.clear(self.request);
        }
        let headers = self.request.headers_mut();
        if let Some((name, is_padded)) = &provider.payload_header {
            let missing = (4 - jwt.payload.len() % 4) % 4;
            let padding = if *is_padded { &"==="[..missing] } else { "" };
            if let Ok(value) = HeaderValue::try_from(format!("{}{padding}", jwt.payload)) {
                headers.insert(name, value);
            }
        }
        for (name, path) in &provider.claims {
            let value = jwt.claim(path.iter().map(String::as_str)).and_then(text);
            if let Some(value) = value.and_then(|own| HeaderValue::try_from(own).ok()) {
                headers.insert(name, value);
            }
        }
        let claims = Arc::clone(&jwt.claims);
        passage.metadata.identify(provider.metadata.clone(), claims);
    }

    /// The answer to a caller whom no token names.
    fn unidentified(
        &self,
        own: &Tokens,
        status: StatusCode,
        text: &str,
        fault: Option<TokenFault>,
    ) -> Stopped {
        self.service.figures.jwt_authn_denied.increment();
        if let Some(record) = self.record {
            record.failed(Fault::Denied);
        }
        if own.is_silent {
            let response = respond::refused(status, "", self.is_grpc);
            return Stopped::Answered(Box::new(response));
        }
        let mut response = respond::refused(status, text, self.is_grpc);
        if let Some(fault) = fault
            && let Ok(value) = HeaderValue::try_from(self.challenge(fault))
        {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        Stopped::Answered(Box::new(response))
    }

    /// What a caller is asked for ([RFC 6750](https://www.rfc-editor.org/rfc/rfc6750)). The query, which may have a token, is left out.
    fn challenge(&self, fault: TokenFault) -> String {
        let scheme = way::scheme(self.connection, self.request);
        let path = self.request.uri().path();
        let most = path.floor_char_boundary(LONGEST_PATH);
        let authority = self.authority;
        let error = match fault {
            TokenFault::Missing => "",
            _ => ", error=\"invalid_token\"",
        };
        let path = &path[..most];
        format!("Bearer realm=\"{scheme}://{authority}{path}\"{error}")
    }
}

/// A claim as the value of a header: what is no plain value is JSON in base64.
fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(claim.to_string()),
        Value::Array(_) | Value::Object(_) => Some(BASE64.encode(claim.to_string())),
    }
}

/// Whether a browser asks before its request.
fn is_preflight<B>(request: &Request<B>) -> bool {
    let has = |name| {
        request
            .headers()
            .get(name)
            .is_some_and(|own: &HeaderValue| !own.is_empty())
    };
    request.method() == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
}
