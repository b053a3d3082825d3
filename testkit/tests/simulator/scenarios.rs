//! What people do, and what must come of it.

use fairlead_crds::platform::Criterion;
use fairlead_testkit::builders::{
    self, definition, environment, redis_definition, release, workload,
};
use fairlead_testkit::sim::{Checked, Sim};
use serde_json::json;

use crate::{many, world};

fn namespaces(sim: &Sim) -> Vec<String> {
    sim.store
        .of_kind("Namespace")
        .map(|(key, _)| key.name.clone())
        .collect()
}

fn count(sim: &Sim, kind: &str, namespace: &str) -> usize {
    sim.store
        .of_kind(kind)
        .filter(|(key, _)| key.namespace.as_deref() == Some(namespace))
        .count()
}

#[test]
fn a_first_deployment_becomes_ready() {
    many(|sim| {
        world::deployed(sim)?;
        for workload in ["catalog", "cart", "frontend"] {
            sim.expect_ready("ScoreWorkload", "shop", workload)?;
            let deployment = sim.get("Deployment", "shop-production", workload);
            sim.require(deployment.is_some(), "a Deployment for each workload")?;
        }
        sim.expect_ready("Release", "shop", "production-1")?;
        sim.expect_ready("ResourceDefinition", "", "postgres")?;
        sim.expect_ready("ResourceClass", "", "postgres.default")
    });
}

#[test]
fn an_installation_becomes_ready() {
    many(|sim| {
        sim.create(&builders::namespace("fairlead-system"))?;
        // The certificates are made by the operator, outside of its passes.
        let tls = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "fairlead-webhook-tls", "namespace": "fairlead-system"}, "data": {}});
        sim.create(&tls)?;
        sim.create(&builders::fairlead())?;
        sim.run(100)?;
        sim.settle()?;
        sim.expect_ready("Fairlead", "", "fairlead")?;
        sim.edit("Fairlead", "", "fairlead", |object| {
            object["spec"]["highAvailability"] = "Enabled".into()
        })?;
        sim.run(50)?;
        sim.settle()?;
        sim.expect_ready("Fairlead", "", "fairlead")?;
        sim.delete("Namespace", "", "fairlead-system")?;
        sim.settle()?;
        sim.require(
            sim.store.all().count() == 0,
            "nothing left of an installation whose namespace is deleted",
        )
    });
}

/// The catalog without its database.
fn without_database(sim: &mut Sim, consents: bool) -> Checked {
    let mut all = world::deployed(sim)?;
    all.retain(|workload| workload.metadata.name.as_deref() != Some("catalog"));
    let second = release("shop", "production", 2, &all);
    sim.create(&if consents { second.consents() } else { second }.done())?;
    sim.run(300)?;
    sim.settle()?;
    sim.expect_ready("Environment", "shop", "production")?;
    sim.expect(
        "Release",
        "shop",
        "production-1",
        "Active",
        "False",
        "Superseded",
    )?;
    sim.require(
        sim.get("Deployment", "shop-production", "catalog")
            .is_none(),
        "no catalog any more",
    )
}

#[test]
fn data_that_a_release_drops_is_kept() {
    many(|sim| {
        without_database(sim, false)?;
        sim.require(
            world::instance(sim, "shop-production", "postgres").is_some(),
            "the database is kept",
        )
    });
}

#[test]
fn data_that_a_release_drops_goes_with_consent() {
    many(|sim| {
        without_database(sim, true)?;
        sim.require(
            world::instance(sim, "shop-production", "postgres").is_none(),
            "the database is gone",
        )
    });
}

#[test]
fn the_consent_of_one_release_is_not_that_of_the_next() {
    many(|sim| {
        world::platform(sim)?;
        let mut all = world::workloads(sim)?;
        sim.create(&environment("shop", "production").done())?;
        sim.create(&release("shop", "production", 1, &all).consents().done())?;
        sim.settle()?;
        all.retain(|workload| workload.metadata.name.as_deref() != Some("catalog"));
        sim.create(&release("shop", "production", 2, &all).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.require(
            world::instance(sim, "shop-production", "postgres").is_some(),
            "the database is kept",
        )
    });
}

#[test]
fn a_rollback_brings_back_what_was() {
    many(|sim| {
        let mut all = world::deployed(sim)?;
        sim.edit("ResourceDefinition", "", "redis", |object| {
            object["spec"] = json!(redis_definition("redis:8").done().spec)
        })?;
        sim.settle()?;
        all[0] = workload("shop", "catalog")
            .image("catalog:2")
            .resource("db", "postgres")
            .done();
        sim.create(&release("shop", "production", 2, &all).done())?;
        sim.run(300)?;
        sim.settle()?;
        sim.expect_ready("Release", "shop", "production-2")?;
        let Some(first) = world::release(sim, "production-1") else {
            return sim.require(false, "the first release");
        };
        sim.create(
            &release("shop", "production", 3, &[])
                .rolls_back_to(&first)
                .done(),
        )?;
        sim.run(300)?;
        sim.settle()?;
        sim.expect_ready("Release", "shop", "production-3")?;
        let resources = |name: &str| {
            world::release(sim, name)
                .and_then(|release| release.status)
                .map(|status| status.resources)
        };
        sim.require(
            resources("production-3") == resources("production-1"),
            "the same revisions",
        )?;
        let image = sim
            .get("Deployment", "shop-production", "catalog")
            .and_then(|found| {
                found
                    .pointer("/spec/template/spec/containers/0/image")
                    .cloned()
            });
        sim.require(
            image == Some(json!("catalog:1")),
            "the image of the first release",
        )
    });
}

#[test]
fn an_environment_can_name_an_older_release() {
    many(|sim| {
        let mut all = world::deployed(sim)?;
        all[1] = workload("shop", "cart").image("cart:2").done();
        sim.create(&release("shop", "production", 2, &all).done())?;
        sim.settle()?;
        sim.edit("Environment", "shop", "production", |object| {
            object["spec"]["release"] = "production-1".into()
        })?;
        sim.run(200)?;
        sim.settle()?;
        sim.expect(
            "Release",
            "shop",
            "production-2",
            "Active",
            "False",
            "NotSelected",
        )?;
        sim.expect_ready("Release", "shop", "production-1")?;
        sim.edit("Environment", "shop", "production", |object| {
            object["spec"]["release"] = "missing".into()
        })?;
        sim.settle()?;
        sim.expect(
            "Environment",
            "shop",
            "production",
            "Ready",
            "False",
            "NoRelease",
        )
    });
}

#[test]
fn changes_of_workloads_are_released() {
    many(|sim| {
        world::platform(sim)?;
        world::workloads(sim)?;
        sim.create(&environment("shop", "staging").on_change().done())?;
        for version in 2..5 {
            sim.run(250)?;
            let image = format!("cart:{version}");
            sim.edit("ScoreWorkload", "shop", "cart", |object| {
                object["spec"]["containers"]["main"]["image"] = image.into()
            })?;
        }
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "staging")?;
        let image = sim
            .get("Deployment", "shop-staging", "cart")
            .and_then(|found| {
                found
                    .pointer("/spec/template/spec/containers/0/image")
                    .cloned()
            });
        sim.require(image == Some(json!("cart:4")), "the newest image")?;
        let mut releases: Vec<(String, String)> = Vec::new();
        for (key, release) in sim.store.of_kind("Release") {
            let content = release.pointer("/metadata/labels/platform.fairlead.dev~1content");
            releases.push((
                key.name.clone(),
                content.map(ToString::to_string).unwrap_or_default(),
            ));
        }
        let twice = releases.windows(2).any(|pair| pair[0].1 == pair[1].1);
        sim.require(!twice, "no release that nobody asked for")?;
        sim.delete("ScoreWorkload", "shop", "frontend")?;
        sim.settle()?;
        sim.require(
            sim.get("Deployment", "shop-staging", "frontend").is_none(),
            "a deleted workload goes",
        )
    });
}

#[test]
fn a_release_keeps_its_revisions_when_a_definition_changes() {
    many(|sim| {
        let all = world::deployed(sim)?;
        let recorded = |sim: &Sim, name: &str| {
            world::release(sim, name)
                .and_then(|release| release.status)
                .map(|status| status.resources)
        };
        let before = recorded(sim, "production-1");
        let server = |sim: &Sim| {
            let found = sim
                .store
                .of_kind("StatefulSet")
                .find(|(key, _)| key.name.starts_with("redis"));
            found.and_then(|(_, found)| {
                found
                    .pointer("/spec/template/spec/containers/0/image")
                    .cloned()
            })
        };
        sim.edit("ResourceDefinition", "", "redis", |object| {
            object["spec"] = json!(redis_definition("redis:8").done().spec)
        })?;
        sim.run(200)?;
        sim.settle()?;
        sim.require(
            recorded(sim, "production-1") == before,
            "the same revisions",
        )?;
        sim.require(server(sim) == Some(json!("redis:7")), "the old server")?;
        sim.create(&release("shop", "production", 2, &all).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.expect_ready("Release", "shop", "production-2")?;
        sim.require(server(sim) == Some(json!("redis:8")), "the new server")
    });
}

#[test]
fn a_definition_that_is_deleted_stays_where_it_is_used() {
    many(|sim| {
        let all = world::deployed(sim)?;
        sim.delete("ResourceDefinition", "", "redis")?;
        sim.run(200)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.create(&release("shop", "production", 2, &all).done())?;
        sim.run(100)?;
        sim.settle()?;
        sim.expect(
            "Environment",
            "shop",
            "production",
            "Ready",
            "False",
            "NoMatch",
        )?;
        sim.require(
            sim.get("Deployment", "shop-production", "cart").is_some(),
            "what runs goes on",
        )?;
        sim.create(&redis_definition("redis:8").done())?;
        sim.run(100)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")
    });
}

#[test]
fn an_environment_that_is_deleted_keeps_its_data() {
    many(|sim| {
        world::deployed(sim)?;
        sim.delete("Environment", "shop", "production")?;
        sim.run(300)?;
        sim.settle()?;
        sim.require(
            sim.get("Environment", "shop", "production").is_none(),
            "the environment is gone",
        )?;
        sim.require(
            sim.get("Deployment", "shop-production", "catalog")
                .is_none(),
            "no workload is left",
        )?;
        sim.require(
            world::instance(sim, "shop-production", "postgres").is_some(),
            "the database is kept",
        )?;
        sim.require(
            world::instance(sim, "shop-production", "redis").is_none(),
            "the cache is gone",
        )
    });
}

#[test]
fn an_environment_that_is_deleted_with_consent_leaves_nothing() {
    many(|sim| {
        world::platform(sim)?;
        let all = world::workloads(sim)?;
        sim.create(&environment("shop", "production").consents().done())?;
        sim.create(&release("shop", "production", 1, &all).done())?;
        sim.run(600)?;
        sim.delete("Environment", "shop", "production")?;
        sim.run(300)?;
        sim.settle()?;
        sim.require(
            sim.get("Environment", "shop", "production").is_none(),
            "the environment is gone",
        )?;
        sim.require(
            !namespaces(sim).contains(&"shop-production".to_owned()),
            "its namespace is gone",
        )
    });
}

#[test]
fn an_environment_takes_up_the_data_that_an_earlier_one_left() {
    many(|sim| {
        let all = world::deployed(sim)?;
        let password = |sim: &Sim| {
            let found = sim
                .store
                .of_kind("Secret")
                .find(|(key, _)| key.name.ends_with("-generated"));
            found.and_then(|(_, found)| found.pointer("/data/password").cloned())
        };
        let before = password(sim);
        sim.delete("Environment", "shop", "production")?;
        sim.settle()?;
        sim.create(&environment("shop", "production").done())?;
        sim.run(50)?;
        if sim.get("Release", "shop", "production-1").is_none() {
            sim.create(&release("shop", "production", 1, &all).done())?;
        }
        sim.run(300)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.require(
            before.is_some() && password(sim) == before,
            "the same password",
        )
    });
}

#[test]
fn a_namespace_of_somebody_else_is_left_alone() {
    many(|sim| {
        world::platform(sim)?;
        let all = world::workloads(sim)?;
        sim.create(&environment("shop", "production").done())?;
        sim.create(&release("shop", "production", 1, &all).done())?;
        if sim.get("Namespace", "", "shop-production").is_none() {
            sim.create(&builders::namespace("shop-production"))?;
        }
        sim.run(300)?;
        sim.settle()?;
        sim.expect(
            "Environment",
            "shop",
            "production",
            "Ready",
            "False",
            "NamespaceTaken",
        )?;
        sim.expect(
            "Environment",
            "shop",
            "production",
            "NamespaceReady",
            "False",
            "NamespaceTaken",
        )?;
        sim.edit("Namespace", "", "shop-production", |object| {
            object["metadata"]["labels"]["platform.fairlead.dev/application"] = "shop".into();
            object["metadata"]["labels"]["platform.fairlead.dev/environment"] = "production".into();
        })?;
        sim.run(100)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.delete("Environment", "shop", "production")?;
        sim.settle()?;
        sim.require(
            namespaces(sim).contains(&"shop-production".to_owned()),
            "a namespace that somebody gave is not deleted",
        )
    });
}

#[test]
fn two_environments_cannot_have_one_namespace() {
    many(|sim| {
        let all = world::deployed(sim)?;
        let second = environment("shop", "blue")
            .with(|blue| blue.spec.namespace = Some("shop-production".to_owned()));
        sim.create(&second.done())?;
        sim.create(&release("shop", "blue", 1, &all).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.expect(
            "Environment",
            "shop",
            "blue",
            "Ready",
            "False",
            "NamespaceTaken",
        )?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.delete("Environment", "shop", "blue")?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")
    });
}

#[test]
fn ambiguous_definitions_provision_nothing_until_resolved() {
    many(|sim| {
        world::platform(sim)?;
        let all = world::workloads(sim)?;
        let rival = redis_definition("redis:rival")
            .with(|rival| rival.metadata.name = Some("rival".to_owned()));
        sim.create(&rival.clone().done())?;
        sim.create(&environment("shop", "production").done())?;
        sim.settle()?;
        sim.create(&release("shop", "production", 1, &all).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.expect(
            "Release",
            "shop",
            "production-1",
            "ResolvedRefs",
            "False",
            "Ambiguous",
        )?;
        sim.expect(
            "ResourceDefinition",
            "",
            "rival",
            "Ready",
            "False",
            "Ambiguous",
        )?;
        sim.require(
            count(sim, "ResourceInstance", "shop-production") == 0,
            "nothing is provisioned",
        )?;
        let narrow = rival
            .criterion(Criterion {
                environment_type: Some("production".to_owned()),
                ..Criterion::default()
            })
            .done();
        sim.edit("ResourceDefinition", "", "rival", |object| {
            object["spec"] = json!(narrow.spec)
        })?;
        sim.run(100)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")
    });
}

#[test]
fn a_workload_that_crashes_says_so_and_recovers() {
    many(|sim| {
        sim.store.crashing.insert("catalog".to_owned());
        world::platform(sim)?;
        let all = world::workloads(sim)?;
        sim.create(&environment("shop", "production").done())?;
        sim.create(&release("shop", "production", 1, &all).done())?;
        sim.run(500)?;
        sim.settle()?;
        sim.expect(
            "Environment",
            "shop",
            "production",
            "Ready",
            "False",
            "container main: CrashLoopBackOff, exit code 1: cannot log in with postgres://app:***@",
        )?;
        sim.expect(
            "ScoreWorkload",
            "shop",
            "catalog",
            "Ready",
            "False",
            "environment production: container main: CrashLoopBackOff",
        )?;
        sim.store.crashing.clear();
        sim.run(50)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.store.crashing.insert("cart".to_owned());
        sim.run(50)?;
        sim.settle()?;
        sim.expect(
            "Environment",
            "shop",
            "production",
            "Ready",
            "False",
            "workload cart: container main: CrashLoopBackOff",
        )
    });
}

#[test]
fn a_dependency_that_comes_and_goes_is_followed() {
    many(|sim| {
        world::deployed(sim)?;
        let server = sim
            .store
            .of_kind("StatefulSet")
            .map(|(key, _)| key.name.clone())
            .find(|name| name.starts_with("postgres"));
        let Some(server) = server else {
            return sim.require(false, "a server");
        };
        for _ in 0..3 {
            sim.store.down.insert(server.clone());
            sim.run(60)?;
            sim.store.down.clear();
            sim.run(60)?;
        }
        sim.store.down.insert(server.clone());
        sim.settle()?;
        sim.expect(
            "ResourceInstance",
            "shop-production",
            &server,
            "Ready",
            "False",
            "Progressing",
        )?;
        sim.expect(
            "Environment",
            "shop",
            "production",
            "Ready",
            "False",
            "0 of 1 replicas are ready",
        )?;
        sim.store.down.clear();
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")
    });
}

#[test]
fn a_paused_object_is_left_alone() {
    many(|sim| {
        let mut all = world::deployed(sim)?;
        sim.edit("Release", "shop", "production-1", |object| {
            object["metadata"]["annotations"]["fairlead.dev/paused"] = "true".into()
        })?;
        sim.settle()?;
        sim.expect(
            "Release",
            "shop",
            "production-1",
            "Ready",
            "Unknown",
            "Paused",
        )?;
        all[1] = workload("shop", "cart").image("cart:2").done();
        sim.create(&release("shop", "production", 2, &all).done())?;
        sim.run(100)?;
        sim.edit("Release", "shop", "production-1", |object| {
            object["metadata"]["annotations"] = json!({})
        })?;
        sim.run(100)?;
        sim.settle()?;
        sim.expect_ready("Release", "shop", "production-2")
    });
}

#[test]
fn shared_resources_are_made_once_and_end_with_their_last_user() {
    many(|sim| {
        world::platform(sim)?;
        let shared = |name: &str| {
            workload("shop", name)
                .resource("cache", "redis")
                .variable("REDIS", "${resources.cache.host}")
                .with(|workload| {
                    if let Some(request) = workload.spec.score.resources.get_mut("cache") {
                        request.id = Some("sessions".to_owned());
                    }
                })
        };
        let both = [shared("cart").done(), shared("checkout").done()];
        sim.create(&environment("shop", "production").done())?;
        sim.create(&release("shop", "production", 1, &both).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.require(
            count(sim, "ResourceInstance", "shop-production") == 3,
            "one cache for two workloads",
        )?;
        sim.create(&release("shop", "production", 2, &both[..1]).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.require(
            count(sim, "ResourceInstance", "shop-production") == 2,
            "the cache stays for the other",
        )?;
        sim.create(&release("shop", "production", 3, &[workload("shop", "cart").done()]).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.require(
            count(sim, "ResourceInstance", "shop-production") == 1,
            "the cache is gone",
        )
    });
}

#[test]
fn a_definition_that_needs_another_resource_waits_for_it() {
    many(|sim| {
        world::platform(sim)?;
        sim.create(&builders::class("session-store").output("url").done())?;
        let store = definition("session-store", "session-store")
            .requires("cache", "redis")
            .output(
                "url",
                "redis://${resources.cache.host}:${resources.cache.port}",
            );
        sim.create(&store.done())?;
        let cart = workload("shop", "cart")
            .resource("sessions", "session-store")
            .variable("URL", "${resources.sessions.url}")
            .done();
        sim.create(&environment("shop", "production").done())?;
        sim.create(&release("shop", "production", 1, &[cart]).done())?;
        sim.run(300)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.create(&release("shop", "production", 2, &[workload("shop", "other").done()]).done())?;
        sim.run(300)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.require(
            count(sim, "ResourceInstance", "shop-production") == 1,
            "both resources are gone",
        )
    });
}

#[test]
fn releases_in_quick_succession_end_in_the_last() {
    many(|sim| {
        let mut all = world::deployed(sim)?;
        for number in 2..6 {
            all[1] = workload("shop", "cart")
                .image(&format!("cart:{number}"))
                .done();
            if number == 4 {
                all.truncate(2);
            }
            sim.create(&release("shop", "production", number, &all).done())?;
            sim.run(80)?;
        }
        sim.settle()?;
        sim.expect_ready("Release", "shop", "production-5")?;
        let image = sim
            .get("Deployment", "shop-production", "cart")
            .and_then(|found| {
                found
                    .pointer("/spec/template/spec/containers/0/image")
                    .cloned()
            });
        sim.require(image == Some(json!("cart:5")), "the last image")
    });
}

#[test]
fn what_somebody_deletes_or_changes_is_put_right() {
    many(|sim| {
        world::deployed(sim)?;
        sim.delete("Deployment", "shop-production", "cart")?;
        sim.delete("Service", "shop-production", "catalog")?;
        sim.run(40)?;
        sim.edit("Deployment", "shop-production", "catalog", |object| {
            object["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1".into();
        })?;
        sim.run(200)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.require(
            image(sim, "shop-production", "catalog") == Some(json!("catalog:1")),
            "the image of the release",
        )?;
        sim.require(
            sim.get("Service", "shop-production", "catalog").is_some(),
            "the Service",
        )?;
        let Some(cache) = world::instance(sim, "shop-production", "redis") else {
            return sim.require(false, "the cache");
        };
        let name = cache
            .pointer("/metadata/name")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        sim.delete("ResourceInstance", "shop-production", name)?;
        sim.run(200)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.require(
            world::instance(sim, "shop-production", "redis").is_some(),
            "the cache is made again",
        )
    });
}

/// The image that a Deployment runs.
fn image(sim: &Sim, namespace: &str, name: &str) -> Option<serde_json::Value> {
    let found = sim.get("Deployment", namespace, name)?;
    found
        .pointer("/spec/template/spec/containers/0/image")
        .cloned()
}

#[test]
fn a_namespace_that_somebody_deletes_is_made_again() {
    many(|sim| {
        world::deployed(sim)?;
        sim.delete("Namespace", "", "shop-production")?;
        sim.run(300)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.require(
            image(sim, "shop-production", "catalog").is_some(),
            "the catalog runs again",
        )
    });
}

#[test]
fn without_the_newest_release_the_one_before_runs() {
    many(|sim| {
        let mut all = world::deployed(sim)?;
        all[1] = workload("shop", "cart").image("cart:2").done();
        sim.create(&release("shop", "production", 2, &all).done())?;
        sim.run(300)?;
        sim.delete("Release", "shop", "production-2")?;
        sim.run(100)?;
        sim.settle()?;
        sim.expect_ready("Release", "shop", "production-1")?;
        sim.require(
            image(sim, "shop-production", "cart") == Some(json!("cart:1")),
            "the image of the first release",
        )
    });
}

#[test]
fn environments_of_one_application_do_not_touch_each_other() {
    many(|sim| {
        let all = world::deployed(sim)?;
        sim.create(&environment("shop", "staging").consents().done())?;
        sim.create(&release("shop", "staging", 1, &all[..2]).done())?;
        sim.run(300)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "staging")?;
        sim.delete("Environment", "shop", "staging")?;
        sim.run(200)?;
        sim.settle()?;
        sim.require(
            !namespaces(sim).contains(&"shop-staging".to_owned()),
            "its namespace is gone",
        )?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.expect_ready("ScoreWorkload", "shop", "catalog")
    });
}

#[test]
fn a_pinned_definition_stays_at_its_revision() {
    many(|sim| {
        let all = world::deployed(sim)?;
        let revision = |sim: &Sim| {
            let found = world::instance(sim, "shop-production", "redis")?;
            found.pointer("/spec/revision").cloned()
        };
        let pinned = revision(sim);
        let pin = json!([{"definition": "redis", "revision": pinned}]);
        sim.edit("Environment", "shop", "production", |object| {
            object["spec"]["pins"] = pin
        })?;
        sim.settle()?;
        sim.edit("ResourceDefinition", "", "redis", |object| {
            object["spec"] = json!(redis_definition("redis:8").done().spec);
        })?;
        sim.run(100)?;
        sim.create(&release("shop", "production", 2, &all).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.expect_ready("Release", "shop", "production-2")?;
        sim.require(revision(sim) == pinned, "the pinned revision")
    });
}
