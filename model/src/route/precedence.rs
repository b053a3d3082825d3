//! The Gateway API's order among the rules of one host
//! ([HTTPRouteRule.matches](https://gateway-api.sigs.k8s.io/reference/spec/#httprouterule)).

use std::cmp::{Ordering, Reverse};

use super::matching::{PathMatch, RouteMatch};

/// A rule's match with what breaks ties.
#[derive(Debug, Clone)]
pub struct GatewayRule<'a> {
    /// The match.
    pub matches: &'a RouteMatch,
    /// Seconds since the epoch at which its route object was made.
    pub created: i64,
    /// `namespace/name` of its route object.
    pub object: &'a str,
    /// Its place in its route object.
    pub index: usize,
}

/// Which of two rules comes first: an exact path, then the longest prefix, then a method, then more headers, then more query
/// parameters, then the older object, then the name, then the place in the object. Regular expressions come after prefixes,
/// the longer expression first.
#[must_use]
pub fn precedence(left: &GatewayRule<'_>, right: &GatewayRule<'_>) -> Ordering {
    let key = |rule: &GatewayRule<'_>| {
        let (rank, length) = match &rule.matches.path {
            PathMatch::Exact(path) => (0, path.len()),
            PathMatch::Prefix(path) => (1, path.len()),
            PathMatch::Segments(path) => (1, path.trim_end_matches('/').len()),
            PathMatch::Regex(pattern) => (2, pattern.source().len()),
        };
        (
            rank,
            Reverse(length),
            Reverse(rule.matches.method.is_some()),
            Reverse(rule.matches.headers.len()),
            Reverse(rule.matches.query.len()),
            rule.created,
        )
    };
    key(left)
        .cmp(&key(right))
        .then_with(|| left.object.cmp(right.object))
        .then_with(|| left.index.cmp(&right.index))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn the_most_specific_comes_first() {
        let path = |path: PathMatch| RouteMatch {
            path,
            ..RouteMatch::default()
        };
        let with_method = RouteMatch {
            method: Some(Method::GET),
            ..path(PathMatch::Segments("/a/b".to_owned()))
        };
        let matches = [
            path(PathMatch::Segments("/".to_owned())),
            path(PathMatch::Segments("/a/b".to_owned())),
            with_method,
            path(PathMatch::Exact("/a".to_owned())),
        ];
        let mut rules: Vec<_> = matches
            .iter()
            .enumerate()
            .map(|(index, matches)| GatewayRule {
                matches,
                created: 0,
                object: "shop/a",
                index,
            })
            .collect();
        rules.sort_by(precedence);
        assert_eq!(
            rules.iter().map(|rule| rule.index).collect::<Vec<_>>(),
            [3, 2, 1, 0]
        );
        let older = GatewayRule {
            created: -5,
            object: "z",
            ..rules[3].clone()
        };
        assert_eq!(precedence(&older, &rules[3]), Ordering::Less);
    }
}
