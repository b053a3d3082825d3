//! What rules that are only counted come to.

use fairlead_model::filter::{Effect, Rules};

use super::*;

/// The names and rules that a pod's proxy only counts.
fn counted(authorizations: &[serde_json::Value]) -> BTreeMap<String, Rules> {
    let door = Door::of(authorizations);
    let Handler::Http(http) = &door.chain(names::SNI_HTTP1).handler else {
        panic!("it carries requests");
    };
    let shadows = http.filters.iter().filter_map(|own| match &own.filter {
        Filter::Authorization(own) => {
            Some((own.shadow_name.as_ref()?.to_string(), own.shadow.clone()?))
        }
        _ => None,
    });
    shadows.collect()
}

fn spec(action: &str, enforcement: &str, account: &str) -> serde_json::Value {
    json!({
        "targetRefs": [{"kind": "Service", "name": "cart"}],
        "action": action,
        "enforcement": enforcement,
        "rules": [{"from": {"serviceAccounts": [account]}}],
    })
}

#[test]
fn each_is_counted_under_its_name() {
    let all = counted(&[
        spec("Audit", "Enforced", "ops/jane"),
        spec("Deny", "DryRun", "ops/joe"),
        spec("Deny", "Enforced", "ops/robot"),
    ]);
    let told: Vec<_> = all
        .iter()
        .map(|(name, rules)| (name.as_str(), rules.effect, rules.policies.len()))
        .collect();
    assert_eq!(told, [("a0", Effect::Audit, 1), ("a1", Effect::Deny, 1)]);
    // Neither keeps anybody out, or lets only some in.
    let door = Door::of(&[spec("Audit", "Enforced", "ops/jane")]);
    let get = &Method::GET;
    assert!(door.request("ops/jane", get, "/") && door.request("", get, "/") && door.bytes());
}

#[test]
fn a_dry_run_of_what_allows_refuses_what_nothing_else_would_allow() {
    let all = counted(&[
        spec("Allow", "DryRun", "ops/jane"),
        spec("Allow", "DryRun", "ops/joe"),
        spec("Allow", "Enforced", "shop/web"),
    ]);
    let names: Vec<&String> = all["a0"].policies.keys().collect();
    assert_eq!(names, ["a0[0]", "a1[0]", "a2[0]", "probes"]);
    assert_eq!(all["a0"], all["a1"]);
    assert!(!all.contains_key("a2"));
}
