//! What must hold once everything has settled.

use fairlead_plan::ObjectKey;
use serde_json::Value;

use super::Sim;
use super::safety::{active_release, condition, instance_key, is_ready, platform};
use crate::store::text;

impl Sim {
    /// What must hold once everything has settled.
    pub(super) fn at_rest(&self) -> Option<String> {
        for (key, environment) in self.store.of_kind("Environment") {
            let application = key.namespace.clone().unwrap_or_default();
            let mine = |release: &Value, of: &ObjectKey| {
                of.namespace.as_deref() == Some(&application)
                    && text(release, "/spec/environment") == key.name
            };
            let active: Vec<&ObjectKey> = self
                .store
                .of_kind("Release")
                .filter(|(of, release)| mine(release, of))
                .filter(|(_, release)| {
                    condition(release, "Active").map(|found| text(found, "/status")) == Some("True")
                })
                .map(|(of, _)| of)
                .collect();
            if active.len() > 1 {
                return Some(format!("{key} runs {} releases at once", active.len()));
            }
            let running = active_release(&self.store, &application, &key.name);
            let ready = running
                .and_then(|name| {
                    self.store.get(&ObjectKey::new(
                        platform(),
                        "Release",
                        Some(&application),
                        name,
                    ))
                })
                .is_some_and(is_ready);
            if is_ready(environment) != ready
                && condition(environment, "NamespaceReady")
                    .is_some_and(|found| text(found, "/status") == "True")
            {
                return Some(format!(
                    "{key} says it is {}ready and its release does not",
                    if ready { "not " } else { "" }
                ));
            }
        }
        for (key, release) in self
            .store
            .of_kind("Release")
            .filter(|(_, release)| is_ready(release))
        {
            let namespace = self
                .target_namespace(key, text(release, "/spec/environment"))
                .unwrap_or_default();
            for node in release
                .pointer("/status/resources")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let name = text(node, "/instance");
                if !self
                    .store
                    .get(&instance_key(&namespace, name))
                    .is_some_and(is_ready)
                {
                    return Some(format!("{key} is ready and {name} is not"));
                }
            }
        }
        let unheard = self.store.all().find(|(key, object)| {
            let paused = object
                .pointer("/metadata/annotations/fairlead.dev~1paused")
                .is_some();
            key.group().ends_with("fairlead.dev") && !paused && condition(object, "Ready").is_none()
        });
        unheard.map(|(key, _)| format!("{key} was never reported"))
    }
}
