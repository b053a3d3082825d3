//! Filters, made up from a seed. What they do must not depend on chance, so shares are nothing or all.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use crate::generate::{EXTENSIONS, METHODS, header, often, one, path, text};
use crate::tokens;

/// Names of filters, by which routes say otherwise.
const TOKENS: &str = "tokens";
const ACCESS: &str = "access";
const FAULT: &str = "fault";
const CORS: &str = "cors";

/// The filters before the router.
pub fn filters(random: &mut Rng) -> Vec<Value> {
    let mut filters = Vec::new();
    if often(random, 50) {
        filters.push(filter(CORS, "cors.v3.Cors", json!({})));
    }
    if often(random, 40) {
        let own = tokens::tokens(random);
        filters.push(filter(TOKENS, "jwt_authn.v3.JwtAuthentication", own));
    }
    if often(random, 60) {
        filters.push(filter(ACCESS, "rbac.v3.RBAC", access(random)));
    }
    if often(random, 50) {
        filters.push(filter(FAULT, "fault.v3.HTTPFault", fault(random)));
    }
    filters
}

/// What a host or a route says of filters.
pub fn overrides(random: &mut Rng, own: &mut Value, percent: u32) {
    let mut all = Map::new();
    if often(random, percent) {
        let own = tokens::of_route(random);
        all.insert(TOKENS.to_owned(), typed("jwt_authn.v3.PerRouteConfig", own));
    }
    if often(random, percent) {
        let access = match often(random, 30) {
            true => json!({}),
            false => json!({"rbac": access(random)}),
        };
        all.insert(ACCESS.to_owned(), typed("rbac.v3.RBACPerRoute", access));
    }
    if often(random, percent) {
        all.insert(FAULT.to_owned(), typed("fault.v3.HTTPFault", fault(random)));
    }
    if often(random, percent * 2) {
        all.insert(CORS.to_owned(), typed("cors.v3.CorsPolicy", cors(random)));
    }
    if often(random, percent / 2) {
        let disabled = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true});
        all.insert(one(random, &[ACCESS, FAULT, CORS]).to_owned(), disabled);
    }
    if !all.is_empty() {
        own["typed_per_filter_config"] = Value::Object(all);
    }
}

fn typed(kind: &str, mut own: Value) -> Value {
    own["@type"] = json!(format!("{EXTENSIONS}.filters.http.{kind}"));
    own
}

fn filter(name: &str, kind: &str, own: Value) -> Value {
    json!({"name": name, "typed_config": typed(kind, own)})
}

fn access(random: &mut Rng) -> Value {
    let mut access = json!({});
    if often(random, 90) {
        access["rules"] = rules(random);
    }
    if often(random, 20) {
        access["shadow_rules"] = rules(random);
    }
    access
}

fn rules(random: &mut Rng) -> Value {
    let count = random.usize(1..4);
    let policies = (0..count).map(|number| {
        let policy = json!({
            "permissions": some(random, true),
            "principals": some(random, false),
        });
        (format!("policy-{number}"), policy)
    });
    let policies: Map<String, Value> = policies.collect();
    // Rules that let most through leave something to compare.
    let action = one(random, &["ALLOW", "DENY", "DENY", "LOG"]);
    json!({"action": action, "policies": policies})
}

fn some(random: &mut Rng, is_permission: bool) -> Vec<Value> {
    (0..random.usize(1..3))
        .map(|_| condition(random, is_permission, 2))
        .collect()
}

fn condition(random: &mut Rng, is_permission: bool, depth: u32) -> Value {
    let [and, or, not, set] = match is_permission {
        true => ["and_rules", "or_rules", "not_rule", "rules"],
        false => ["and_ids", "or_ids", "not_id", "ids"],
    };
    if depth > 0 && often(random, 40) {
        let mut within = || condition(random, is_permission, depth - 1);
        let (one_of, other) = (within(), within());
        return match random.u32(..3) {
            0 => json!({and: {set: [one_of, other]}}),
            1 => json!({or: {set: [one_of, other]}}),
            _ => json!({not: one_of}),
        };
    }
    match random.u32(..8) {
        0 => json!({"any": true}),
        1 => json!({"header": header(random)}),
        2 => {
            json!({"header": {"name": ":method", "string_match": {"exact": one(random, &METHODS)}}})
        }
        3 => json!({"header": {"name": ":path", "string_match": {"prefix": path(random)}}}),
        4 => {
            json!({"header": {"name": one(random, &[":authority", "host"]), "string_match": text(random)}})
        }
        // Of what was learned before.
        5 => json!({"sourced_metadata": {"metadata_matcher": tokens::claim(random)}}),
        6 => json!({"url_path": {"path": {"prefix": path(random)}}}),
        _ if is_permission => match random.u32(..3) {
            0 => json!({"destination_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}}),
            1 => json!({"destination_port_range": {"start": 1, "end": one(random, &[100, 65536])}}),
            _ => json!({"requested_server_name": {"exact": one(random, &["", "a.test"])}}),
        },
        _ => match random.u32(..3) {
            0 => json!({"authenticated": {}}),
            1 => json!({"direct_remote_ip": {"address_prefix": "127.0.0.1", "prefix_len": 32}}),
            _ => json!({"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}),
        },
    }
}

fn fault(random: &mut Rng) -> Value {
    let mut fault = json!({});
    let share = json!({"numerator": one(random, &[0, 100, 100])});
    if often(random, 80) {
        fault["abort"] = match often(random, 70) {
            true => json!({"http_status": one(random, &[418, 429, 503]), "percentage": share}),
            false => json!({"grpc_status": one(random, &[0, 7, 14]), "percentage": share}),
        };
    }
    if often(random, 30) {
        fault["delay"] = json!({"fixed_delay": "0.002s", "percentage": share});
    }
    fault["headers"] = json!([header(random)]);
    fault
}

fn cors(random: &mut Rng) -> Value {
    let mut cors = json!({
        "allow_origin_string_match": [{"suffix": one(random, &[".test", ".example"])}],
        "allow_methods": "GET, PUT",
        "forward_not_matching_preflights": random.bool(),
    });
    if often(random, 50) {
        cors["allow_credentials"] = json!(random.bool());
        cors["allow_headers"] = json!("x-a");
    }
    if often(random, 50) {
        cors["expose_headers"] = json!("x-b");
        cors["max_age"] = json!("60");
    }
    cors
}
