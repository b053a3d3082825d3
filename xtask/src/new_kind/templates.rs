//! The files of a new kind.

use super::Names;

/// What a text names, between two dollars each, replaced.
fn fill(template: &str, names: &Names) -> String {
    let scope = if names.namespaced {
        "    namespaced,\n"
    } else {
        ""
    };
    template
        .replace("$area$", &names.area)
        .replace("$group$", &names.group)
        .replace("$kind$", &names.kind)
        .replace("$snake$", &names.snake)
        .replace("$plural$", &names.plural)
        .replace("$short$", &names.short)
        .replace("$scope$", scope)
        .replace("$lower$", &names.kind.to_lowercase())
        .replace(
            "$namespace$",
            if names.namespaced {
                "\n  namespace: shop"
            } else {
                ""
            },
        )
}

/// The files of the kind itself, by path.
pub(super) fn files(names: &Names) -> Vec<(String, String)> {
    [
        ("crds/src/$area$/$snake$.rs", TYPES),
        ("plan/src/$area$/$snake$/mod.rs", PLAN),
        ("plan/src/$area$/$snake$/cases/minimal.yaml", OBJECT),
        ("examples/$area$/$lower$.yaml", OBJECT),
        ("docs/kinds/$lower$.md", PAGE),
    ]
    .into_iter()
    .map(|(path, content)| (fill(path, names), fill(content, names)))
    .collect()
}

/// The modules of an area, for one that is new.
pub(super) fn area(names: &Names) -> Vec<(String, String)> {
    [
        ("crds/src/$area$/mod.rs", AREA_TYPES),
        ("plan/src/$area$/mod.rs", AREA_PLAN),
    ]
    .into_iter()
    .map(|(path, content)| (fill(path, names), fill(content, names)))
    .collect()
}

/// The lines that make the kind known in its area's modules: path, module, what is public.
pub(super) fn members(names: &Names) -> Vec<(String, String, String)> {
    [
        (
            "crds/src/$area$/mod.rs",
            "pub use $snake$::{$kind$, $kind$Spec, $kind$Status};",
        ),
        ("plan/src/$area$/mod.rs", "pub use $snake$::$kind$Kind;"),
    ]
    .into_iter()
    .map(|(path, public)| {
        (
            fill(path, names),
            fill("mod $snake$;", names),
            fill(public, names),
        )
    })
    .collect()
}

const AREA_TYPES: &str = "//! `$group$`.

/// The API group of this area.
pub const GROUP: &str = \"$group$\";
";

const AREA_PLAN: &str = "//! `$group$`.
";

const TYPES: &str = r##"//! $kind$: say in a sentence what it is.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, reported};

/// Says in a sentence what it is.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "$group$",
    version = "v1alpha1",
    kind = "$kind$",
    plural = "$plural$",
    shortname = "$short$",
    category = "fairlead",
$scope$    status = "$kind$Status",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct $kind$Spec {}

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct $kind$Status {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// How it is: Accepted, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

reported!($kind$, $kind$Status);
"##;

const PLAN: &str = r"//! $kind$: say what it does, and why.

use fairlead_crds::$area$::{$kind$, $kind$Status};

use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::Plan;
use crate::conditions::Conditions;
use crate::kind::{Context, Kind, Planned};
use crate::live::Live;
use crate::problem::Invalid;

/// See the module.
pub struct $kind$Kind;

impl Kind for $kind$Kind {
    type Object = $kind$;
    type Valid = ();
    type Seen = ();

    const NAME: KindName = KindName::$kind$;

    fn table(cache: &Cache) -> &Table<$kind$> {
        &cache.$plural$
    }

    fn validate(_: &$kind$) -> Result<(), Vec<Invalid>> {
        Ok(())
    }

    fn observe(_: &$kind$, (): &(), _: &Cache) {}

    fn plan(_: &$kind$, (): &(), (): &(), _: &Live, _: &Context) -> Plan {
        Plan::default()
    }

    fn report(
        _: &$kind$,
        status: $kind$Status,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> $kind$Status {
        if planned.is_some() {
            conditions.ready(String::new());
        }
        status
    }

    fn triggers(_: &Event, _: &Cache) -> Vec<ObjectId> {
        Vec::new()
    }
}
";

const OBJECT: &str = "# What this shows, in a sentence.
apiVersion: $group$/v1alpha1
kind: $kind$
metadata:
  name: sample$namespace$
spec: {}
";

const PAGE: &str = "# $kind$

What it is for, and for whom.

```yaml
apiVersion: $group$/v1alpha1
kind: $kind$
metadata:
  name: sample$namespace$
spec: {}
```

What happens when it is applied, and what its conditions say. All fields are in the [reference](../reference/kinds.md#$lower$).
";
