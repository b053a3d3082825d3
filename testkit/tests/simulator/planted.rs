//! Mistakes that are planted, and must be found.

use fairlead_plan::change::{Body, Verb};
use fairlead_plan::{Change, Event, KindName};
use fairlead_testkit::sim::{Bug, Faults, Sim, Violation};
use serde_json::{Value, json};

use crate::world;

/// The first violation over some seeds.
fn hunt(bug: Bug) -> Violation {
    let found = (0..20).find_map(|seed| {
        let mut sim = Sim::new(seed);
        sim.faults = Faults::SOME;
        sim.bug = bug;
        world::deployed(&mut sim).err()
    });
    match found {
        Some(violation) => violation,
        None => panic!("the mistake was not found"),
    }
}

fn assert_found(bug: Bug, part: &str) {
    let found = hunt(bug);
    assert!(found.message.contains(part), "{found}");
    assert!(
        found
            .to_string()
            .starts_with(&format!("seed {}: ", found.seed))
    );
    assert!(!found.tail.is_empty());
}

#[test]
fn an_instance_that_does_not_wait_is_found() {
    let seen = |object: &mut Value| {
        if object["kind"] == "ResourceInstance" && object["spec"]["id"] == "frontend" {
            object["spec"]["dependencies"] = json!([]);
        }
    };
    assert_found(
        Bug {
            seen: Some(seen),
            ..Bug::default()
        },
        "which it needs, was ready",
    );
}

#[test]
fn a_secret_that_is_generated_anew_is_found() {
    let changes = |_: &Value, changes: &mut Vec<Change>, context: &fairlead_plan::Context| {
        let again = changes
            .iter()
            .find(|change| change.key.name.ends_with("-outputs"))
            .map(|change| change.key.clone());
        let Some(mut key) = again else { return };
        key.name = key.name.replace("-outputs", "-generated");
        let value = base64_of(&context.entropy);
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": key.name, "namespace": key.namespace}, "data": {"password": value}});
        changes.push(Change::apply(body, "Generate", "generates values"));
    };
    assert_found(
        Bug {
            changes,
            ..Bug::default()
        },
        "changed the generated value password",
    );
}

fn base64_of(entropy: &[u8; 32]) -> String {
    // Letters alone are base64 of something.
    entropy
        .iter()
        .take(24)
        .map(|byte| char::from(b'A' + byte % 26))
        .collect()
}

#[test]
fn a_secret_in_a_deployment_is_found() {
    let changes = |_: &Value, changes: &mut Vec<Change>, _: &fairlead_plan::Context| {
        let secret = changes.iter().find_map(|change| match &change.verb {
            Verb::Apply(Body(body)) if body["kind"] == "Secret" => {
                body["data"].as_object()?.values().next().cloned()
            }
            _ => None,
        });
        for change in changes.iter_mut() {
            if let (Verb::Apply(Body(body)), Some(secret)) = (&mut change.verb, &secret)
                && body["kind"] == "StatefulSet"
            {
                body["spec"]["template"]["spec"]["containers"][0]["args"] = json!([secret]);
            }
        }
    };
    assert_found(
        Bug {
            changes,
            ..Bug::default()
        },
        "holds a value of Secret",
    );
}

#[test]
fn a_missed_trigger_is_found() {
    let drops_trigger = |kind: KindName, event: &Event| {
        kind == KindName::Release && matches!(event, Event::Own(KindName::ResourceInstance, _))
    };
    assert_found(
        Bug {
            drops_trigger,
            ..Bug::default()
        },
        "after a trigger that was missed",
    );
}

#[test]
fn a_pass_that_writes_for_ever_is_found() {
    let changes = |object: &Value, changes: &mut Vec<Change>, context: &fairlead_plan::Context| {
        if object["kind"] == "ResourceInstance"
            && object.pointer("/spec/type") == Some(&json!("redis"))
        {
            for change in changes {
                if let Verb::Apply(Body(body)) = &mut change.verb {
                    body["metadata"]["annotations"] = json!({"at": context.now.to_string()});
                }
            }
        }
    };
    let found = hunt(Bug {
        changes,
        ..Bug::default()
    });
    assert!(
        found.message.contains("settled") || found.message.contains("at rest"),
        "{found}"
    );
}
