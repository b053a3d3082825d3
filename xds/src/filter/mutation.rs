//! Changes to heads and queries (`extensions.filters.http.header_mutation.v3`).

use std::sync::Arc;

use fairlead_model::filter::{Mutation, Mutations, Override, QueryChange};
use fairlead_model::route::{HeaderChanges, HeaderText};

use crate::field::{Field, Fields, Result};
use crate::headers;

/// A `HeaderMutation`.
pub(super) fn read(config: &Field<'_>) -> Result<Mutation> {
    let fields = config.fields()?;
    let mutation = Mutation {
        own: Arc::new(mutations(&fields)?),
        most_specific_wins: fields.flag("most_specific_header_mutations_wins")?,
    };
    fields.finish()?;
    Ok(mutation)
}

/// A `HeaderMutationPerRoute`.
pub(super) fn of_route(config: &Field<'_>) -> Result<Override> {
    let fields = config.fields()?;
    let own = mutations(&fields)?;
    fields.finish()?;
    Ok(Override::Mutations(Arc::new(own)))
}

fn mutations(fields: &Fields<'_>) -> Result<Mutations> {
    let Some(own) = fields.get("mutations") else {
        return Ok(Mutations::default());
    };
    let own = own.fields()?;
    let query = own.list("query_parameter_mutations")?;
    let mutations = Mutations {
        request: groups(&own, "request_mutations")?,
        query: query.iter().map(change).collect::<Result<_>>()?,
        response: groups(&own, "response_mutations")?,
    };
    own.finish()?;
    Ok(mutations)
}

/// Changes of headers in their order: a removal after something was set begins another group.
fn groups(fields: &Fields<'_>, name: &'static str) -> Result<Vec<HeaderChanges>> {
    let mut groups: Vec<HeaderChanges> = Vec::new();
    for own in fields.list(name)? {
        let fields = own.fields()?;
        let removed = fields.get("remove");
        let set = fields.get("append");
        fields.finish()?;
        match (removed, set) {
            (Some(removed), None) => {
                let name = headers::name(&removed)?;
                match groups.last_mut().filter(|last| last.set.is_empty()) {
                    Some(last) => last.remove.push(name),
                    None => groups.push(HeaderChanges {
                        remove: vec![name],
                        set: Vec::new(),
                    }),
                }
            }
            (None, Some(set)) => {
                let change = headers::option(&set)?;
                if matches!(change.value, HeaderText::Format(_)) {
                    return Err(set.error(
                        "header.value: a value that is made for each request is not supported here; request_headers_to_add of routes has them",
                    ));
                }
                match groups.last_mut() {
                    Some(last) => last.set.push(change),
                    None => groups.push(HeaderChanges {
                        remove: Vec::new(),
                        set: vec![change],
                    }),
                }
            }
            _ => return Err(own.error("either remove or append is expected")),
        }
    }
    Ok(groups)
}

/// A `KeyValueMutation`.
fn change(field: &Field<'_>) -> Result<QueryChange> {
    let fields = field.fields()?;
    let (removed, set) = (fields.get("remove"), fields.get("append"));
    fields.finish()?;
    match (removed, set) {
        (Some(removed), None) => Ok(QueryChange::Remove(part(&removed)?)),
        (None, Some(set)) => {
            let set = set.fields()?;
            let record = set.need("record")?.fields()?;
            let action = set.get("action");
            let (present, only_if_present) = headers::present(action.as_ref())?;
            let name = part(&record.need("key")?)?;
            let value = record
                .get("value")
                .map_or(Ok(String::new()), |own| part(&own))?;
            record.finish()?;
            set.finish()?;
            Ok(QueryChange::Set {
                name,
                value,
                present,
                only_if_present,
            })
        }
        _ => Err(field.error("either remove or append is expected")),
    }
}

/// A name or a value as it stands in a query (RFC 3986), where `%` begins a byte in two hexadecimal digits.
fn part(field: &Field<'_>) -> Result<String> {
    let text = field.text()?;
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let is_right = match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()];
                digits
                    .into_iter()
                    .all(|own| own.is_some_and(|own| own.is_ascii_hexdigit()))
            }
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b'+' | b','
            | b';' | b':' | b'@' | b'/' | b'?' => true,
            other => other.is_ascii_alphanumeric(),
        };
        if !is_right {
            return Err(field.error(format!(
                "{text:?} is no part of a query; other characters are written as their bytes, such as %26 for &, and commands are not supported"
            )));
        }
    }
    Ok(text.to_owned())
}
