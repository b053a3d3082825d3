//! Who may come in: decides it, and counts it, of requests and of connections alike.

use fairlead_model::filter::{Asked, Authorization, Effect, Rules, Verdict};

use crate::core::Core;
use crate::metrics::{Counter, HttpFigures, ListenerFigures};

/// Where decisions are counted.
pub(crate) struct Counts<'a> {
    allowed: &'a Counter,
    denied: &'a Counter,
    shadow_allowed: &'a Counter,
    shadow_denied: &'a Counter,
}

impl<'a> From<&'a HttpFigures> for Counts<'a> {
    fn from(figures: &'a HttpFigures) -> Self {
        Self {
            allowed: &figures.rbac_allowed,
            denied: &figures.rbac_denied,
            shadow_allowed: &figures.rbac_shadow_allowed,
            shadow_denied: &figures.rbac_shadow_denied,
        }
    }
}

impl<'a> From<&'a ListenerFigures> for Counts<'a> {
    fn from(figures: &'a ListenerFigures) -> Self {
        Self {
            allowed: &figures.rbac_allowed,
            denied: &figures.rbac_denied,
            shadow_allowed: &figures.rbac_shadow_allowed,
            shadow_denied: &figures.rbac_shadow_denied,
        }
    }
}

/// What is decided of a request or a connection.
#[derive(Debug, Default)]
pub(crate) struct Decision<'a> {
    /// By the rules that are enforced; nothing where there are none.
    pub(crate) enforced: Option<Verdict<'a>>,
    /// By those that are only counted.
    pub(crate) shadow: Option<Verdict<'a>>,
}

/// Decides.
pub(crate) fn decide<'a>(
    core: &Core,
    own: &'a Authorization,
    asked: &Asked<'_>,
    counts: &Counts<'_>,
) -> Decision<'a> {
    let mut decision = Decision::default();
    if let Some(shadow) = &own.shadow {
        let verdict = shadow.decide(asked);
        note(shadow, &verdict, asked);
        count(&verdict, counts.shadow_allowed, counts.shadow_denied);
        if let Some(name) = &own.shadow_name {
            let figures = core.rule_figures(name);
            count(&verdict, &figures.shadow_allowed, &figures.shadow_denied);
            if shadow.effect == Effect::Audit && verdict.policy.is_some() {
                figures.audited.increment();
            }
        }
        decision.shadow = Some(verdict);
    }
    if let Some(rules) = &own.rules {
        let verdict = rules.decide(asked);
        note(rules, &verdict, asked);
        count(&verdict, counts.allowed, counts.denied);
        decision.enforced = Some(verdict);
    }
    decision
}

fn count(verdict: &Verdict<'_>, allowed: &Counter, denied: &Counter) {
    match verdict.is_allowed {
        true => allowed.increment(),
        false => denied.increment(),
    }
}

/// Logs what rules fit that are there to be logged. A path is told without its query, in which secrets may stand.
fn note(rules: &Rules, verdict: &Verdict<'_>, asked: &Asked<'_>) {
    if rules.effect != Effect::Audit {
        return;
    }
    if let Some(policy) = verdict.policy {
        let head = asked.head.as_ref();
        tracing::info!(
            target: "fairlead_proxy::audit",
            policy,
            caller = asked.peer.names().next().unwrap_or_default(),
            source = asked.source.map(tracing::field::display),
            destination = asked.destination.map(tracing::field::display),
            method = head.map(|own| own.method.as_str()),
            path = head.map(|own| own.path),
            "a rule fits"
        );
    }
}
