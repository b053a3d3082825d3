//! What goes wrong by itself, or because somebody interferes.

use fairlead_testkit::builders::{environment, release, workload};
use serde_json::json;

use crate::{many, world};

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
            world::image(sim, "shop-production", "catalog") == Some(json!("catalog:1")),
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
