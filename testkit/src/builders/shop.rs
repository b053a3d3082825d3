//! A platform that provides databases, caches and names, and a shop that uses them.

use fairlead_crds::install::{Fairlead, FairleadSpec};
use fairlead_crds::platform::{ResourceClass, ResourceDefinition, ScoreWorkload};
use serde_json::{Value, json};

use super::{Build, class, definition, workload};

fn stateful_set(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "${context.name}"},
        "spec": {
            "replicas": 1,
            "serviceName": "${context.name}",
            "selector": {"matchLabels": {"app": "${context.name}"}},
            "template": {
                "metadata": {"labels": {"app": "${context.name}"}},
                "spec": {"containers": [{"name": "server", "image": image}]},
            },
        },
    })
}

fn service(port: i32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "${context.name}"},
        "spec": {"selector": {"app": "${context.name}"}, "ports": [{"name": "main", "port": port}]},
    })
}

/// The definition of redis with this image.
#[must_use]
pub fn redis_definition(image: &str) -> Build<ResourceDefinition> {
    definition("redis", "redis")
        .manifest("server", stateful_set(image))
        .manifest("service", service(6379))
        .output(
            "host",
            "${objects.service.metadata.name}.${context.namespace}",
        )
        .output("port", "6379")
}

/// The classes and definitions of postgres, redis and dns.
#[must_use]
pub fn platform() -> (Vec<ResourceClass>, Vec<ResourceDefinition>) {
    let credentials = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "${context.name}"},
        "stringData": {"password": "${generated.password}"},
    });
    let postgres = definition("postgres", "postgres")
        .generated("password", 20)
        .manifest("credentials", credentials)
        .manifest("server", stateful_set("postgres:17"))
        .manifest("service", service(5432))
        .output(
            "host",
            "${objects.service.metadata.name}.${context.namespace}",
        )
        .output("name", "app")
        .output("password", "${generated.password}");
    let dns = definition("dns", "dns").output(
        "host",
        "${context.application}-${context.environment}.example.com",
    );
    let classes = vec![
        class("postgres")
            .stateful()
            .output("host")
            .output("name")
            .secret("password")
            .done(),
        class("redis").output("host").output("port").done(),
        class("dns").output("host").done(),
    ];
    (
        classes,
        vec![
            postgres.done(),
            redis_definition("redis:7").done(),
            dns.done(),
        ],
    )
}

/// The workloads of a shop: a catalog with a database, a cart with a cache, and a page under a name.
#[must_use]
pub fn shop(application: &str) -> Vec<ScoreWorkload> {
    let catalog = workload(application, "catalog")
        .port("http", 8080)
        .resource("db", "postgres")
        .variable("PGHOST", "${resources.db.host}")
        .variable("PGPASSWORD", "${resources.db.password}")
        .variable(
            "DATABASE_URL",
            "postgres://app:${resources.db.password}@${resources.db.host}/${resources.db.name}",
        )
        .file(
            "/etc/catalog.conf",
            "database = ${resources.db.name}\npassword = ${resources.db.password}\n",
        );
    let cart = workload(application, "cart")
        .port("http", 8080)
        .resource("cache", "redis")
        .variable("REDIS", "${resources.cache.host}:${resources.cache.port}");
    // It needs the name, and tells it to nobody.
    let frontend = workload(application, "frontend")
        .port("http", 8080)
        .resource("name", "dns")
        .file("/etc/motd", "welcome to ${metadata.name}\n");
    vec![catalog.done(), cart.done(), frontend.done()]
}

/// The installation.
#[must_use]
pub fn fairlead() -> Fairlead {
    let spec: FairleadSpec = serde_json::from_value(json!({})).unwrap_or_default();
    Fairlead::new("fairlead", spec)
}
