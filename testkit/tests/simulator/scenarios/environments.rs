//! Environments: from nothing to running, beside others, and gone again.

use fairlead_testkit::builders::{self, environment, release};
use fairlead_testkit::sim::Sim;
use serde_json::json;

use crate::{many, world};

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
            !world::namespaces(sim).contains(&"shop-production".to_owned()),
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
            world::namespaces(sim).contains(&"shop-production".to_owned()),
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
fn a_namespace_that_somebody_deletes_is_made_again() {
    many(|sim| {
        world::deployed(sim)?;
        sim.delete("Namespace", "", "shop-production")?;
        sim.run(300)?;
        sim.settle()?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.require(
            world::image(sim, "shop-production", "catalog").is_some(),
            "the catalog runs again",
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
            !world::namespaces(sim).contains(&"shop-staging".to_owned()),
            "its namespace is gone",
        )?;
        sim.expect_ready("Environment", "shop", "production")?;
        sim.expect_ready("ScoreWorkload", "shop", "catalog")
    });
}
