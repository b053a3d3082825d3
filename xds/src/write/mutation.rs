//! Changes to heads and queries.

use fairlead_model::filter::{Mutation, Mutations, QueryChange};
use fairlead_model::route::HeaderChanges;
use serde_json::{Value, json};

use super::{Message, headers};

/// A `HeaderMutation`.
pub(super) fn mutation(own: &Mutation) -> Value {
    let mut value = of_route(&own.own);
    if own.most_specific_wins {
        value["most_specific_header_mutations_wins"] = json!(true);
    }
    value
}

/// A `HeaderMutationPerRoute`.
pub(super) fn of_route(own: &Mutations) -> Value {
    let query: Vec<Value> = own.query.iter().map(change).collect();
    let mutations = Message::default()
        .with("request_mutations", groups(&own.request))
        .with("query_parameter_mutations", json!(query))
        .with("response_mutations", groups(&own.response));
    json!({"mutations": mutations.done()})
}

fn groups(groups: &[HeaderChanges]) -> Value {
    let all = groups.iter().flat_map(|own| {
        let removed = own.remove.iter().map(|own| json!({"remove": own.as_str()}));
        let set = own
            .set
            .iter()
            .map(|own| json!({"append": headers::option(own)}));
        removed.chain(set).collect::<Vec<_>>()
    });
    all.collect()
}

fn change(own: &QueryChange) -> Value {
    match own {
        QueryChange::Remove(name) => json!({"remove": name}),
        QueryChange::Set {
            name,
            value,
            present,
            only_if_present,
        } => json!({"append": {
            "record": {"key": name, "value": value},
            "action": headers::action(*present, *only_if_present),
        }}),
    }
}
