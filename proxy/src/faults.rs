//! Faults on purpose that a configuration has: where each stands, and when it ends. One whose end is past does nothing, which is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use fairlead_model::Snapshot;
use fairlead_model::filter::{Filter, Override, Overrides};
use fairlead_model::listener::Routes;
use fairlead_model::route::{Action, RouteTable};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock::since_1970;

/// A fault that a configuration has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    /// Where it stands.
    pub place: String,
    /// When it ends, in seconds since 1970.
    pub until: Option<u64>,
}

impl Planned {
    /// Whether it does nothing any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let now = since_1970().as_secs();
        self.until.is_some_and(|until| now >= until)
    }

    /// When it ends (RFC 3339).
    fn end(&self) -> Option<String> {
        let until = i64::try_from(self.until?).ok()?;
        let until = jiff::Timestamp::from_second(until).ok()?;
        Some(until.to_string())
    }

    /// What the admin interface shows of it.
    pub(crate) fn shown(&self) -> Value {
        json!({"place": self.place, "until": self.end(), "is_over": self.is_over()})
    }
}

/// The faults of a configuration, those of listeners first.
#[must_use]
pub fn planned(snapshot: &Snapshot) -> Vec<Planned> {
    let mut all = Vec::new();
    let mut inline = Vec::new();
    for http in snapshot.http() {
        for own in &http.filters {
            let place = || {
                format!(
                    "filter {:?} of the HTTP connection manager {:?}",
                    own.name, http.name
                )
            };
            note(&mut all, &own.filter, place);
        }
        if let Routes::Inline(table) = &http.routes {
            inline.push(table);
        }
    }
    for table in inline.into_iter().chain(snapshot.routes.values()) {
        of_table(&mut all, table);
    }
    all
}

fn of_table(all: &mut Vec<Planned>, table: &RouteTable) {
    let place = format!("the routes {:?}", table.name());
    of_overrides(all, &table.changes().filters, &place);
    for host in table.hosts() {
        of_overrides(
            all,
            &host.filters,
            &format!("the host {:?} of {place}", host.name),
        );
        for route in &host.routes {
            let place = format!("the route {:?} of {place}", route.name);
            of_overrides(all, &route.filters, &place);
            let Action::Forward(forward) = &route.action else {
                continue;
            };
            for cluster in &forward.clusters {
                let place = format!("the cluster {:?} of {place}", cluster.name);
                of_overrides(all, &cluster.filters, &place);
            }
        }
    }
}

fn of_overrides(all: &mut Vec<Planned>, overrides: &Overrides, place: &str) {
    for (name, own) in overrides {
        if let Override::Other(filter) = own {
            note(all, filter, || format!("filter {name:?} of {place}"));
        }
    }
}

fn note(all: &mut Vec<Planned>, filter: &Filter, place: impl FnOnce() -> String) {
    if let Filter::Injection(own) = filter {
        all.push(Planned {
            place: place(),
            until: own.until,
        });
    }
}

/// Tells of faults that are over when they come, for as long as there are configurations.
pub async fn watch(mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let mut told: BTreeSet<Planned> = BTreeSet::new();
    loop {
        let over = planned(&snapshots.borrow_and_update());
        let over: BTreeSet<Planned> = over.into_iter().filter(Planned::is_over).collect();
        for own in over.difference(&told) {
            tracing::warn!(
                place = own.place,
                until = own.end(),
                "a fault is over: it does nothing"
            );
        }
        told = over;
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}
