//! Who may come in: decides it, and counts it, of requests and of connections alike.

use fairlead_model::filter::{Asked, Authorization, Verdict};

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

/// Decides; nothing where there are only rules that are counted, or none.
pub(crate) fn decide<'a>(
    own: &'a Authorization,
    asked: &Asked<'_>,
    counts: &Counts<'_>,
) -> Option<Verdict<'a>> {
    if let Some(shadow) = &own.shadow {
        match shadow.decide(asked).is_allowed {
            true => counts.shadow_allowed.increment(),
            false => counts.shadow_denied.increment(),
        }
    }
    let verdict = own.rules.as_ref()?.decide(asked);
    match verdict.is_allowed {
        true => counts.allowed.increment(),
        false => counts.denied.increment(),
    }
    Some(verdict)
}
