//! Whether a service of one's own lets a request in.

mod question;
mod wire;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use fairlead_model::fault::Fault;
use fairlead_model::filter::{Check, CheckBody, CheckSettings, LEVELS};
use fairlead_model::route::{HeaderChange, HeaderChanges, HeaderText, OnPresent};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame};
use tokio::time::timeout;

use super::places::change_query;
use super::{Asking, Passage, Stopped};
use crate::http::errand::ErrandError;
use crate::http::respond;
use wire::{CheckResponse, Denied, HeaderOption, Passed};

const PASSED_ON_ERROR: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
/// How long a body may be silent while it is read for the service, where the listener says nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer may be, in bytes.
const LONGEST: usize = 1 << 20;

/// What of a body was read.
#[derive(Debug, Default)]
struct Beginning {
    bytes: Vec<u8>,
    /// Whether that is not all of it.
    is_partial: bool,
}

impl Asking<'_> {
    /// Asks whether the request may come in.
    pub(super) async fn check(
        &mut self,
        own: &Check,
        settings: [Option<&CheckSettings>; LEVELS],
        passage: &mut Passage,
    ) -> Result<(), Stopped> {
        let service = self.service;
        let (core, figures) = (&service.core, &service.figures);
        if !own.is_for(&passage.metadata, core.draw()) {
            figures.ext_authz_disabled.increment();
            return match own.denies_others {
                true => Err(self.turned_away(own.status_on_error, "")),
                false => Ok(()),
            };
        }
        let beginning = match own.body_for(settings).filter(|_| self.has_body()) {
            None => None,
            Some(wanted) => Some((wanted, self.read_body(wanted, passage).await?)),
        };
        let question = self.question(own, settings, beginning);
        let errand = core.errands.of(&own.service, "ext_authz");
        let answer: Result<CheckResponse, ErrandError> =
            errand.unary(core, wire::CHECK, &question, LONGEST).await;
        core.clock.now();
        match answer {
            Ok(CheckResponse {
                error: None,
                status: Some(status),
                ok,
                ..
            }) if status.code == 0 => {
                figures.ext_authz_ok.increment();
                self.passed(ok.unwrap_or_default(), passage);
                Ok(())
            }
            Ok(CheckResponse {
                error: None,
                denied,
                status: Some(_),
                ..
            }) => {
                figures.ext_authz_denied.increment();
                Err(self.denied(denied.unwrap_or_default()))
            }
            Ok(_) => self.unanswered(own, "the answer is none"),
            Err(error) => {
                if error.is_late() {
                    figures.ext_authz_timeout.increment();
                }
                self.unanswered(own, &error.to_string())
            }
        }
    }

    /// Whether there is a body that can be read before the endpoint gets it.
    fn has_body(&self) -> bool {
        self.request.method() != Method::CONNECT
            && !self.request.headers().contains_key(UPGRADE)
            && !self.request.body().is_end_stream()
    }

    /// Reads the beginning of the body, which is kept for the endpoint.
    async fn read_body(
        &mut self,
        wanted: CheckBody,
        passage: &mut Passage,
    ) -> Result<Beginning, Stopped> {
        let most = wanted.most as usize;
        let limits = &self.service.settings.timeouts;
        let whole = limits.request.unwrap_or(Duration::MAX);
        let silence = limits.stream_idle.unwrap_or(PATIENCE);
        let held = &mut passage.demands.get_or_insert_default().held;
        let mut beginning = Beginning::default();
        let body = self.request.body_mut();
        let reading = async {
            while beginning.bytes.len() <= most && !body.is_end_stream() {
                let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
                match timeout(silence, frame).await {
                    Err(_) => return Err(Fault::RequestTimeout),
                    Ok(None) => break,
                    Ok(Some(Err(_))) => return Err(Fault::RequestCancelled),
                    Ok(Some(Ok(frame))) => keep(frame, &mut beginning.bytes, held),
                }
            }
            Ok(())
        };
        let outcome = timeout(whole, reading).await;
        match outcome.unwrap_or(Err(Fault::RequestTimeout)) {
            Err(fault) => return Err(self.refused(fault)),
            Ok(()) if beginning.bytes.len() > most && !wanted.is_partial => {
                return Err(self.refused(Fault::BodyTooLong));
            }
            Ok(()) => {}
        }
        beginning.is_partial = beginning.bytes.len() > most;
        beginning.bytes.truncate(most);
        Ok(beginning)
    }

    /// Does what the service says of a request that it lets in.
    fn passed(&mut self, own: Passed, passage: &mut Passage) {
        let removed = own.headers_to_remove.iter();
        let removed = removed.filter_map(|name| changeable(name));
        let changes = HeaderChanges {
            remove: removed.collect(),
            ..changes(own.headers)
        };
        changes.apply(self.request.headers_mut(), |_, _| String::new());
        passage
            .changes
            .set
            .extend(changes_of_answer(own.response_headers_to_add));
        if own.query_parameters_to_set.is_empty() && own.query_parameters_to_remove.is_empty() {
            return;
        }
        change_query(self.request, |parts| {
            let set = own.query_parameters_to_set.iter();
            let named = |part: &String, name: &str| part.split('=').next() == Some(name);
            parts.retain(|part| {
                let mut gone = own.query_parameters_to_remove.iter();
                !gone.any(|name| named(part, name)) && !set.clone().any(|own| named(part, &own.key))
            });
            parts.extend(set.map(|own| format!("{}={}", own.key, own.value)));
        });
    }

    /// The answer to a request that the service does not let in.
    fn denied(&self, own: Denied) -> Stopped {
        let code = own.status.map_or(0, |status| status.code);
        let status = u16::try_from(code).ok().filter(|code| *code >= 200);
        let status = status.and_then(|own| StatusCode::from_u16(own).ok());
        let mut stopped = self.turned_away(status.unwrap_or(StatusCode::FORBIDDEN), &own.body);
        if let Stopped::Answered(response) = &mut stopped {
            let changes = HeaderChanges {
                set: changes_of_answer(own.headers).collect(),
                ..HeaderChanges::default()
            };
            changes.apply(response.headers_mut(), |_, _| String::new());
        }
        stopped
    }

    fn turned_away(&self, status: StatusCode, text: &str) -> Stopped {
        if let Some(record) = self.record {
            record.failed(Fault::Denied);
        }
        Stopped::Answered(Box::new(respond::refused(status, text, self.is_grpc)))
    }

    /// What becomes of a request of which the service says nothing.
    fn unanswered(&mut self, own: &Check, why: &str) -> Result<(), Stopped> {
        let figures = &self.service.figures;
        figures.ext_authz_error.increment();
        let cluster = &*own.service.cluster;
        let passes = own.passes_on_error;
        tracing::debug!(
            cluster,
            why,
            passes,
            "nobody said whether a request may come in"
        );
        if !passes {
            return Err(self.turned_away(own.status_on_error, ""));
        }
        figures.ext_authz_failure_mode_allowed.increment();
        if own.tells_on_error {
            let headers = self.request.headers_mut();
            headers.insert(PASSED_ON_ERROR, HeaderValue::from_static("true"));
        }
        Ok(())
    }
}

/// Keeps a part of a body for the endpoint, and the bytes of it for the service.
fn keep(frame: Frame<Bytes>, bytes: &mut Vec<u8>, held: &mut VecDeque<Frame<Bytes>>) {
    if let Some(data) = frame.data_ref() {
        bytes.extend_from_slice(data.chunk());
    }
    held.push_back(frame);
}

/// A header that a service may change: not those that say where a message ends, or whom it is for.
fn changeable(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let fixed = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];
    (!fixed.contains(&name)).then_some(name)
}

fn changes(all: Vec<HeaderOption>) -> HeaderChanges {
    HeaderChanges {
        set: all.into_iter().filter_map(change).collect(),
        ..HeaderChanges::default()
    }
}

fn changes_of_answer(all: Vec<HeaderOption>) -> impl Iterator<Item = HeaderChange> {
    all.into_iter().filter_map(change)
}

/// A change of a header: where nothing is said, it takes the place of one that is there, as Envoy has it in these messages.
fn change(own: HeaderOption) -> Option<HeaderChange> {
    let header = own.header?;
    let value = match header.raw_value.is_empty() {
        true => HeaderValue::from_str(&header.value),
        false => HeaderValue::from_bytes(&header.raw_value),
    };
    let (present, only_if_present) = match (own.append, own.append_action) {
        (Some(append), _) if append.value => (OnPresent::Append, false),
        (None, 1) => (OnPresent::Keep, false),
        (None, 3) => (OnPresent::Replace, true),
        _ => (OnPresent::Replace, false),
    };
    Some(HeaderChange {
        name: changeable(&header.key)?,
        value: HeaderText::Literal(value.ok()?),
        present,
        only_if_present,
    })
}

/// Headers as a map has them: those that came several times are joined by commas.
fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let mut text = String::new();
    for value in headers.get_all(name) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    text
}
