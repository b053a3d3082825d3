//! What a scenario does: the acts of people, time, and what it asks for at the end.

use fairlead_plan::ObjectKey;
use serde::Serialize;
use serde_json::Value;

use super::safety::condition;
use super::{Checked, Faults, Sim};
use crate::store::{Propagation, text};

/// The key of an object of a kind that scenarios touch.
#[must_use]
pub fn key(kind: &str, namespace: &str, name: &str) -> ObjectKey {
    let api_version = match kind {
        "Fairlead" => "fairlead.dev/v1alpha1",
        "Deployment" | "StatefulSet" => "apps/v1",
        "Namespace" | "Secret" | "ConfigMap" | "Service" | "ServiceAccount" | "Pod" => "v1",
        _ => "platform.fairlead.dev/v1alpha1",
    };
    ObjectKey::new(
        api_version,
        kind,
        Some(namespace).filter(|namespace| !namespace.is_empty()),
        name,
    )
}

impl Sim {
    /// Somebody creates an object.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub fn create(&mut self, object: &impl Serialize) -> Checked {
        let body = serde_json::to_value(object).unwrap_or_default();
        let key = ObjectKey::of(&body);
        self.say(format!("somebody creates {key}"));
        let done = self.store.create(&body);
        done.map(|_| ())
            .map_err(|refused| self.violate(format!("{key} was refused: {}", refused.message)))
    }

    /// Somebody changes an object.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub fn edit(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Checked {
        let key = key(kind, namespace, name);
        self.say(format!("somebody changes {key}"));
        let done = self.store.edit(&key, change);
        done.map(|_| ()).map_err(|refused| {
            self.violate(format!(
                "a change of {key} was refused: {}",
                refused.message
            ))
        })
    }

    /// Somebody deletes an object.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub fn delete(&mut self, kind: &str, namespace: &str, name: &str) -> Checked {
        let key = key(kind, namespace, name);
        self.say(format!("somebody deletes {key}"));
        let done = self.store.delete(&key, None, Propagation::Background);
        done.map_err(|refused| {
            self.violate(format!(
                "the deletion of {key} was refused: {}",
                refused.message
            ))
        })
    }

    /// The object.
    #[must_use]
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store.get(&key(kind, namespace, name)).cloned()
    }

    /// Some time passes: up to so many steps.
    ///
    /// # Errors
    /// What must never happen, if it did.
    pub fn run(&mut self, most: usize) -> Checked {
        let steps = self.rng.below(most + 1);
        for _ in 0..steps {
            if !self.step() {
                let next = self.process.next_due().unwrap_or_default();
                self.store
                    .advance((next - self.store.milliseconds()).clamp(1, 60_000));
            }
            self.check()?;
        }
        Ok(())
    }

    /// Everything goes right until everything has settled; then nothing must be written any more, neither when everything is
    /// looked at again nor after a new start.
    ///
    /// # Errors
    /// What must never happen, if it did.
    pub fn settle(&mut self) -> Checked {
        let faults = std::mem::replace(&mut self.faults, Faults::NONE);
        self.run_until_quiet()?;
        if let Some(message) = self.at_rest() {
            return Err(self.violate(message));
        }
        let before = self.requests;
        self.say("everything is looked at again");
        let now = self.store.milliseconds();
        let kinds = self.kinds.clone();
        self.process.add_all(&kinds, now);
        self.run_until_quiet()?;
        if self.requests != before {
            return Err(self.violate(format!(
                "{} writes at rest, or after a trigger that was missed",
                self.requests - before
            )));
        }
        let before = self.store.journal().len();
        self.restart();
        self.run_until_quiet()?;
        if self.store.journal().len() != before {
            return Err(self.violate("a new start changed something at rest"));
        }
        self.faults = faults;
        Ok(())
    }

    /// Asks for a condition: its status, and a word or a part of the message that it must hold.
    ///
    /// # Errors
    /// Where it is otherwise.
    pub fn expect(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        type_: &str,
        status: &str,
        part: &str,
    ) -> Checked {
        let found = self.get(kind, namespace, name);
        let told = found.as_ref().and_then(|found| condition(found, type_));
        let (is, reason, message) = told.map_or(("missing", "", ""), |told| {
            (
                text(told, "/status"),
                text(told, "/reason"),
                text(told, "/message"),
            )
        });
        if is == status && (reason == part || message.contains(part)) {
            return Ok(());
        }
        Err(self.violate(format!(
            "{kind} {namespace}/{name}: {type_} is {is} {reason} ({message}), not {status} {part}"
        )))
    }

    /// Asks that an object is ready.
    ///
    /// # Errors
    /// Where it is not.
    pub fn expect_ready(&mut self, kind: &str, namespace: &str, name: &str) -> Checked {
        self.expect(kind, namespace, name, "Ready", "True", "")
    }

    /// Asks that something holds.
    ///
    /// # Errors
    /// Where it does not.
    pub fn require(&self, holds: bool, what: &str) -> Checked {
        if holds {
            Ok(())
        } else {
            Err(self.violate(format!("expected: {what}")))
        }
    }

    /// How many writes there were, whether they changed something or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }
}
