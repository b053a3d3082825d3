//! The kinds of `platform.fairlead.dev`.

use std::collections::BTreeMap;

use fairlead_crds::platform::{
    ClassOutput, Container, Criterion, DEFAULT_CLASS, DeletionPolicy, DeployMode, Driver,
    Environment, EnvironmentSpec, File, GeneratedValue, ManifestTemplate, Output, Release,
    ReleaseSpec, ReleaseWorkload, RequiredResource, ResourceClass, ResourceClassSpec,
    ResourceDefinition, ResourceDefinitionSpec, ResourcePin, ResourceRequest, ScoreSpec,
    ScoreWorkload, ScoreWorkloadSpec, Service, ServicePort,
};
use kube::ResourceExt;
use serde_json::{Value, json};

/// An object that is being made.
#[derive(Clone, Debug)]
pub struct Build<T>(T);

impl<T> Build<T> {
    /// The object.
    #[must_use]
    pub fn done(self) -> T {
        self.0
    }

    /// Changes anything else.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut T)) -> Self {
        change(&mut self.0);
        self
    }
}

/// A namespace, as JSON.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A class `default` of a type.
#[must_use]
pub fn class(type_: &str) -> Build<ResourceClass> {
    let spec = ResourceClassSpec {
        type_: type_.to_owned(),
        class: DEFAULT_CLASS.to_owned(),
        description: format!("A {type_}."),
        ..ResourceClassSpec::default()
    };
    Build(ResourceClass::new(
        &format!("{type_}.{DEFAULT_CLASS}"),
        spec,
    ))
}

impl Build<ResourceClass> {
    /// Another class of the type.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.with(|class| {
            class.spec.class = name.to_owned();
            class.metadata.name = Some(format!("{}.{name}", class.spec.type_));
        })
    }

    /// It holds data.
    #[must_use]
    pub fn stateful(self) -> Self {
        self.with(|class| class.spec.stateful = true)
    }

    /// An output.
    #[must_use]
    pub fn output(self, name: &str) -> Self {
        self.with(|class| {
            class.spec.outputs.push(ClassOutput {
                name: name.to_owned(),
                ..ClassOutput::default()
            })
        })
    }

    /// A secret output.
    #[must_use]
    pub fn secret(self, name: &str) -> Self {
        self.with(|class| {
            class.spec.outputs.push(ClassOutput {
                name: name.to_owned(),
                secret: true,
                ..ClassOutput::default()
            })
        })
    }

    /// The schema of its parameters.
    #[must_use]
    pub fn parameters(self, schema: Value) -> Self {
        self.with(|class| class.spec.parameters = schema.as_object().cloned())
    }
}

/// A definition for all requests of a type's default class, with the driver `Static` until it has manifests.
#[must_use]
pub fn definition(name: &str, type_: &str) -> Build<ResourceDefinition> {
    let spec = ResourceDefinitionSpec {
        type_: type_.to_owned(),
        driver: Driver::Static,
        criteria: vec![Criterion::default()],
        requires: Vec::new(),
        generated: Vec::new(),
        manifests: Vec::new(),
        ready_when: Vec::new(),
        outputs: Vec::new(),
    };
    Build(ResourceDefinition::new(name, spec))
}

impl Build<ResourceDefinition> {
    /// For these requests only.
    #[must_use]
    pub fn criterion(self, criterion: Criterion) -> Self {
        self.with(|definition| definition.spec.criteria = vec![criterion])
    }

    /// An object that it makes.
    #[must_use]
    pub fn manifest(self, name: &str, object: Value) -> Self {
        self.with(|definition| {
            definition.spec.driver = Driver::Manifests;
            let object = object.as_object().cloned().unwrap_or_default();
            definition.spec.manifests.push(ManifestTemplate {
                name: name.to_owned(),
                object,
            });
        })
    }

    /// A generated value.
    #[must_use]
    pub fn generated(self, name: &str, length: i32) -> Self {
        self.with(|definition| {
            definition.spec.generated.push(GeneratedValue {
                name: name.to_owned(),
                length,
            })
        })
    }

    /// An output.
    #[must_use]
    pub fn output(self, name: &str, value: &str) -> Self {
        self.with(|definition| {
            definition.spec.outputs.push(Output {
                name: name.to_owned(),
                value: Some(value.to_owned()),
                secret_key_ref: None,
            });
        })
    }

    /// A further resource that it needs.
    #[must_use]
    pub fn requires(self, name: &str, type_: &str) -> Self {
        self.with(|definition| {
            definition.spec.requires.push(RequiredResource {
                name: name.to_owned(),
                type_: type_.to_owned(),
                ..RequiredResource::default()
            });
        })
    }
}

/// An environment of type `development` that deploys on request.
#[must_use]
pub fn environment(application: &str, name: &str) -> Build<Environment> {
    let spec = EnvironmentSpec {
        type_: "development".to_owned(),
        ..EnvironmentSpec::default()
    };
    let mut object = Environment::new(name, spec);
    object.metadata.namespace = Some(application.to_owned());
    Build(object)
}

impl Build<Environment> {
    /// It makes releases by itself.
    #[must_use]
    pub fn on_change(self) -> Self {
        self.with(|environment| environment.spec.deploy = DeployMode::OnChange)
    }

    /// It consents to the deletion of data.
    #[must_use]
    pub fn consents(self) -> Self {
        self.with(|environment| environment.spec.deletion_policy = DeletionPolicy::Delete)
    }
}

/// A workload with a container `main`.
#[must_use]
pub fn workload(application: &str, name: &str) -> Build<ScoreWorkload> {
    let main = Container {
        image: format!("{name}:1"),
        ..Container::default()
    };
    let score = ScoreSpec {
        containers: BTreeMap::from([("main".to_owned(), Box::new(main))]),
        ..ScoreSpec::default()
    };
    let mut object = ScoreWorkload::new(name, ScoreWorkloadSpec { score });
    object.metadata.namespace = Some(application.to_owned());
    Build(object)
}

impl Build<ScoreWorkload> {
    fn main(self, change: impl FnOnce(&mut Container)) -> Self {
        self.with(|workload| {
            change(
                workload
                    .spec
                    .score
                    .containers
                    .entry("main".to_owned())
                    .or_default(),
            )
        })
    }

    /// The image of its container.
    #[must_use]
    pub fn image(self, image: &str) -> Self {
        self.main(|container| container.image = image.to_owned())
    }

    /// A variable of its container.
    #[must_use]
    pub fn variable(self, name: &str, value: &str) -> Self {
        self.main(|container| {
            container
                .variables
                .insert(name.to_owned(), value.to_owned());
        })
    }

    /// A file of its container.
    #[must_use]
    pub fn file(self, target: &str, content: &str) -> Self {
        self.main(|container| {
            container.files.push(File {
                target: target.to_owned(),
                content: Some(content.to_owned()),
                ..File::default()
            });
        })
    }

    /// A port of its service.
    #[must_use]
    pub fn port(self, name: &str, port: i32) -> Self {
        self.with(|workload| {
            let service = workload
                .spec
                .score
                .service
                .get_or_insert_with(Service::default);
            service.ports.insert(
                name.to_owned(),
                ServicePort {
                    port,
                    ..ServicePort::default()
                },
            );
        })
    }

    /// A resource that it needs.
    #[must_use]
    pub fn resource(self, name: &str, type_: &str) -> Self {
        self.with(|workload| {
            let request = ResourceRequest {
                type_: type_.to_owned(),
                ..ResourceRequest::default()
            };
            workload
                .spec
                .score
                .resources
                .insert(name.to_owned(), Box::new(request));
        })
    }
}

/// The release `<environment>-<number>` of workloads.
#[must_use]
pub fn release(
    application: &str,
    environment: &str,
    number: u32,
    workloads: &[ScoreWorkload],
) -> Build<Release> {
    let held = |workload: &ScoreWorkload| ReleaseWorkload {
        name: workload.name_any(),
        spec: workload.spec.score.clone(),
    };
    let spec = ReleaseSpec {
        environment: environment.to_owned(),
        workloads: workloads.iter().map(held).collect(),
        ..ReleaseSpec::default()
    };
    let mut object = Release::new(&format!("{environment}-{number}"), spec);
    object.metadata.namespace = Some(application.to_owned());
    Build(object)
}

impl Build<Release> {
    /// It consents to the deletion of data that it no longer needs.
    #[must_use]
    pub fn consents(self) -> Self {
        self.with(|release| release.spec.deletion_policy = DeletionPolicy::Delete)
    }

    /// It repeats another release with the same revisions.
    #[must_use]
    pub fn rolls_back_to(self, old: &Release) -> Self {
        let resolved = old
            .status
            .iter()
            .flat_map(|status| &status.resources)
            .filter(|resource| !resource.revision.is_empty());
        let pins: Vec<ResourcePin> = resolved
            .map(|resource| ResourcePin {
                type_: resource.type_.clone(),
                class: resource.class.clone(),
                id: resource.id.clone(),
                revision: resource.revision.clone(),
            })
            .collect();
        self.with(|release| {
            release.spec.workloads = old.spec.workloads.clone();
            release.spec.pins = pins;
            release.spec.rollback_of = Some(old.name_any());
        })
    }
}
