//! Events by which the control plane tells of pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};

/// What is told of a pod, once.
pub(crate) struct Told {
    /// Normal or Warning.
    pub(crate) type_: &'static str,
    /// Why, in one word.
    pub(crate) reason: &'static str,
    /// What was done, or to be done.
    pub(crate) action: &'static str,
    /// What is said.
    pub(crate) note: String,
}

impl Told {
    /// Tells it of a pod; once, as the event's name is made of the pod's own.
    ///
    /// # Errors
    /// When the API server does not take it, though it was not told before and the namespace stays.
    pub(crate) async fn of(
        self,
        client: &Client,
        pod: &Pod,
        identity: &str,
    ) -> Result<(), kube::Error> {
        let namespace = pod.namespace().unwrap_or_default();
        let uid = pod.uid().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{uid}", dashed(self.reason))),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(self.type_.to_owned()),
            reason: Some(self.reason.to_owned()),
            note: Some(self.note),
            action: Some(self.action.to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                namespace: Some(namespace.clone()),
                uid: Some(uid),
                ..ObjectReference::default()
            }),
            reporting_controller: Some("fairlead".to_owned()),
            reporting_instance: Some(identity.to_owned()),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => Ok(()),
            // It was told before, or the namespace goes.
            Err(kube::Error::Api(status)) if [403, 404, 409].contains(&status.code) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A reason as part of a name: `NotInjected` is `not-injected`.
fn dashed(reason: &str) -> String {
    let mut dashed = String::new();
    for letter in reason.chars() {
        if letter.is_ascii_uppercase() && !dashed.is_empty() {
            dashed.push('-');
        }
        dashed.push(letter.to_ascii_lowercase());
    }
    dashed
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_reason_is_part_of_a_name() {
        assert_eq!(super::dashed("NotInjected"), "not-injected");
    }
}
