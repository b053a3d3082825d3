//! What an authorization may say.

use fairlead_crds::mesh::{
    AuthorizationRule, Callers, External, Issuer, Jwks, MeshAuthorizationSpec,
};
use fairlead_model::filter::{Condition, KeySet};

use crate::mesh::{bundle, is_account, is_network, mesh_policy};
use crate::problem::Invalid;

/// Checks what an authorization says.
pub(super) fn check(spec: &MeshAuthorizationSpec, wrong: &mut Vec<Invalid>) {
    let issuers = spec.jwt.as_ref().map(|own| own.issuers.as_slice());
    for (place, issuer) in issuers.unwrap_or_default().iter().enumerate() {
        let field = format!("spec.jwt.issuers[{place}].jwks");
        check_keys(&field, &issuer.jwks, wrong);
    }
    if let Some(external) = &spec.external {
        check_external(spec, external, wrong);
    }
    for (place, rule) in spec.rules.iter().enumerate() {
        check_rule(&format!("spec.rules[{place}]"), rule, issuers, wrong);
    }
}

fn check_keys(field: &str, jwks: &Jwks, wrong: &mut Vec<Invalid>) {
    match (&jwks.uri, &jwks.inline) {
        (Some(uri), None) => {
            if let Err(message) = keys_host(uri) {
                wrong.push(Invalid::new(format!("{field}.uri"), message));
            }
            let ca = match &jwks.ca {
                None => Err(
                    "it is required beside uri: the roots that are trusted there, in PEM"
                        .to_owned(),
                ),
                Some(ca) => bundle::check(ca),
            };
            if let Err(message) = ca {
                wrong.push(Invalid::new(format!("{field}.ca"), message));
            }
        }
        (None, Some(text)) => {
            if let Err(error) = KeySet::parse(text, false) {
                wrong.push(Invalid::new(
                    format!("{field}.inline"),
                    format!("it {error}"),
                ));
            }
            if jwks.ca.is_some() {
                let message = "it is for keys that are fetched, and these stand in inline";
                wrong.push(Invalid::new(format!("{field}.ca"), message));
            }
        }
        (uri, _) => {
            let found = if uri.is_some() { "both" } else { "neither" };
            let message = format!("found {found} of uri and inline; one of them is allowed");
            wrong.push(Invalid::new(field, message));
        }
    }
}

/// The host and the port from which keys are fetched.
///
/// # Errors
/// When the text is no URI of HTTPS that keys may be fetched from, with what was found and what is allowed.
pub fn keys_host(uri: &str) -> Result<(&str, u16), String> {
    const ALLOWED: &str = "https://HOST[:PORT]/PATH with a host by its name is allowed";
    let wrong = || format!("found {uri}; {ALLOWED}");
    let rest = uri.strip_prefix("https://").ok_or_else(wrong)?;
    let is_plain = |own: char| own.is_ascii_graphic() && !"#\"<>\\^`{|}".contains(own);
    if !rest.chars().all(is_plain) {
        return Err(wrong());
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        None => (authority, 443),
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
    };
    let is_of_name = |own: char| own.is_ascii_alphanumeric() || "-.".contains(own);
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.chars().all(is_of_name)
        // An address has no name that a certificate could be for.
        && host.parse::<std::net::IpAddr>().is_err();
    match is_name && port > 0 {
        true => Ok((host, port)),
        false => Err(wrong()),
    }
}

fn check_external(spec: &MeshAuthorizationSpec, own: &External, wrong: &mut Vec<Invalid>) {
    if spec.is_counted() || spec.action != fairlead_crds::mesh::AuthorizationAction::Allow {
        let message =
            "a service is asked of what rules let in: only beside action Allow that is Enforced";
        wrong.push(Invalid::new("spec.external", message));
    }
    if let Some(timeout) = &own.timeout
        && mesh_policy::duration(timeout).is_none()
    {
        let message =
            format!("found {timeout}, and more than 0 and at most 24h is allowed, such as 500ms");
        wrong.push(Invalid::new("spec.external.timeout", message));
    }
}

fn check_rule(
    field: &str,
    rule: &AuthorizationRule,
    issuers: Option<&[Issuer]>,
    wrong: &mut Vec<Invalid>,
) {
    const NO_ISSUER: &str = "spec.jwt has to say whose tokens count";
    if let Some(from) = &rule.from {
        check_callers(&format!("{field}.from"), from, wrong);
        for (place, principal) in from.principals.iter().enumerate() {
            let message = match issuers {
                None => NO_ISSUER.to_owned(),
                Some(issuers) if !issuers.iter().any(|own| is_of(principal, &own.issuer)) => {
                    format!("found {principal}; iss/sub of one of spec.jwt.issuers is allowed")
                }
                Some(_) => continue,
            };
            wrong.push(Invalid::new(
                format!("{field}.from.principals[{place}]"),
                message,
            ));
        }
    }
    if !rule.claims.is_empty() && issuers.is_none() {
        wrong.push(Invalid::new(format!("{field}.claims"), NO_ISSUER));
    }
    let to = rule.to.iter();
    for (place, path) in to.flat_map(|to| to.paths.iter().enumerate()) {
        let inner = path.strip_suffix('*').unwrap_or(path);
        if inner.contains(['*', '?', '#']) {
            let message = format!(
                "found {path}; a whole path is allowed, or the beginning of one with * at its end"
            );
            wrong.push(Invalid::new(format!("{field}.to.paths[{place}]"), message));
        }
    }
    if let Some(condition) = &rule.condition
        && let Err(error) = Condition::expression(condition)
    {
        wrong.push(Invalid::new(
            format!("{field}.condition"),
            error.to_string(),
        ));
    }
}

/// Whether a principal may be one of an issuer's.
fn is_of(principal: &str, issuer: &str) -> bool {
    let whole = format!("{issuer}/");
    let beginning = principal.strip_suffix('*');
    principal.starts_with(&whole) || beginning.is_some_and(|own| whole.starts_with(own))
}

/// Checks callers at a field.
fn check_callers(field: &str, callers: &Callers, wrong: &mut Vec<Invalid>) {
    if *callers == Callers::default() {
        let message =
            "it names nobody; there are serviceAccounts, namespaces, networks and principals";
        wrong.push(Invalid::new(field, message));
    }
    for (place, account) in callers.service_accounts.iter().enumerate() {
        if !is_account(account) {
            let message = format!("found {account}; namespace/name is allowed");
            wrong.push(Invalid::new(
                format!("{field}.serviceAccounts[{place}]"),
                message,
            ));
        }
    }
    for (place, network) in callers.networks.iter().enumerate() {
        if !is_network(network) {
            let message = format!("found {network}; such as 10.0.0.0/8 or fd00::/8 is allowed");
            wrong.push(Invalid::new(format!("{field}.networks[{place}]"), message));
        }
    }
}
