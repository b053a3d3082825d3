//! Resources: shared, required, ambiguous, pinned, and what becomes of them when definitions change.

use fairlead_crds::platform::Criterion;
use fairlead_testkit::builders::{
    self, definition, environment, redis_definition, release, workload,
};
use fairlead_testkit::sim::Sim;
use serde_json::json;

use crate::{many, world};

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
            world::count(sim, "ResourceInstance", "shop-production") == 0,
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
            world::count(sim, "ResourceInstance", "shop-production") == 3,
            "one cache for two workloads",
        )?;
        sim.create(&release("shop", "production", 2, &both[..1]).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.require(
            world::count(sim, "ResourceInstance", "shop-production") == 2,
            "the cache stays for the other",
        )?;
        sim.create(&release("shop", "production", 3, &[workload("shop", "cart").done()]).done())?;
        sim.run(200)?;
        sim.settle()?;
        sim.require(
            world::count(sim, "ResourceInstance", "shop-production") == 1,
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
            world::count(sim, "ResourceInstance", "shop-production") == 1,
            "both resources are gone",
        )
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
