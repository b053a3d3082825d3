//! The rules of the chart's roles, which its templates include.

use std::collections::BTreeMap;

use fairlead_plan::rights::{self, Audience};

use crate::{NOTICE, yaml};

/// Adds the files of all roles.
pub(crate) fn write(files: &mut BTreeMap<String, String>) -> Result<(), serde_json::Error> {
    let roles = [
        ("operator", rights::operator()),
        ("operator-namespaced", rights::operator_namespaced()),
        ("cni", rights::cni()),
        ("mesh-cni", rights::mesh_cni()),
        ("provision", rights::provision()),
        ("catalogue", rights::people(Audience::Everybody)),
        ("view", rights::people(Audience::View)),
        ("edit", rights::people(Audience::Edit)),
    ];
    for (name, rules) in roles {
        let text = format!(
            "# {NOTICE}\n{}",
            yaml::document(&serde_json::to_value(rules)?)
        );
        files.insert(format!("manifests/chart/files/rules/{name}.yaml"), text);
    }
    Ok(())
}
