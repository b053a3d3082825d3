//! Releases: one after the other, back, and what becomes of what they no longer need.

use fairlead_testkit::builders::{environment, redis_definition, release, workload};
use fairlead_testkit::sim::{Checked, Sim};
use serde_json::json;

use crate::{many, world};

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
            world::image(sim, "shop-production", "cart") == Some(json!("cart:1")),
            "the image of the first release",
        )
    });
}
