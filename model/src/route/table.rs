//! A route table: the virtual host of a request, then its first route that matches.
//!
//! Both are found by an index: a table of ten thousand routes costs a request about as much as one of ten.

use std::collections::HashMap;
use std::sync::Arc;

use super::matching::{PathMatch, RequestHead};
use super::{Action, Route, TableChanges, VirtualHost, split_port};

/// Why a table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two hosts claim the same domain.
    #[error("virtual_hosts[{host}].domains[{domain}]: {text:?} is claimed by two virtual hosts")]
    Claimed {
        /// Which virtual host, from 0.
        host: usize,
        /// Which domain of it, from 0.
        domain: usize,
        /// The domain.
        text: String,
    },
    /// A domain has a `*` elsewhere than at one end.
    #[error(
        "virtual_hosts[{host}].domains[{domain}]: {text:?} is no domain; \"*\" may stand at one end"
    )]
    Domain {
        /// Which virtual host, from 0.
        host: usize,
        /// Which domain of it, from 0.
        domain: usize,
        /// The domain.
        text: String,
    },
}

/// Routes by host.
#[derive(Debug, Clone)]
pub struct RouteTable {
    name: Arc<str>,
    hosts: Vec<Arc<VirtualHost>>,
    ignore_port: bool,
    changes: Arc<TableChanges>,
    exact: HashMap<String, usize>,
    /// `*.example`, by `.example`, the longest first.
    suffixes: Vec<(String, usize)>,
    /// `shop.*`, by `shop.`, the longest first.
    prefixes: Vec<(String, usize)>,
    any: Option<usize>,
    indexes: Vec<PathIndex>,
}

/// The routes of one host by path.
#[derive(Debug, Clone, Default)]
struct PathIndex {
    exact: HashMap<String, Vec<u32>>,
    segments: HashMap<String, Vec<u32>>,
    others: Vec<u32>,
}

/// The route of a request.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'a> {
    /// The host it belongs to.
    pub host: &'a Arc<VirtualHost>,
    /// The route.
    pub route: &'a Arc<Route>,
}

impl RouteTable {
    /// Makes the table; with `ignore_port`, a port in the request's host is not looked at.
    ///
    /// # Errors
    /// When a domain is none, or claimed twice.
    pub fn new(name: &str, hosts: Vec<VirtualHost>, ignore_port: bool) -> Result<Self, TableError> {
        let mut table = Self {
            name: name.into(),
            indexes: hosts.iter().map(PathIndex::new).collect(),
            ignore_port,
            changes: Arc::default(),
            exact: HashMap::new(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
            any: None,
            hosts: Vec::new(),
        };
        for (host, virtual_host) in hosts.iter().enumerate() {
            for (domain, text) in virtual_host.domains.iter().enumerate() {
                let text = text.to_ascii_lowercase();
                let is_new = match (
                    text.as_str(),
                    text.strip_prefix('*'),
                    text.strip_suffix('*'),
                ) {
                    ("*", ..) => table.any.replace(host).is_none(),
                    (_, Some(end), _) if !end.contains('*') => {
                        claim(&mut table.suffixes, end, host)
                    }
                    (_, _, Some(start)) if !start.contains('*') => {
                        claim(&mut table.prefixes, start, host)
                    }
                    (whole, None, None) if !whole.is_empty() && !whole.contains('*') => {
                        table.exact.insert(text.clone(), host).is_none()
                    }
                    _ => return Err(TableError::Domain { host, domain, text }),
                };
                if !is_new {
                    return Err(TableError::Claimed { host, domain, text });
                }
            }
        }
        table
            .suffixes
            .sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
        table
            .prefixes
            .sort_by_key(|(start, _)| std::cmp::Reverse(start.len()));
        table.hosts = hosts.into_iter().map(Arc::new).collect();
        Ok(table)
    }

    /// The same table with changes to all its requests and answers.
    #[must_use]
    pub fn changing(mut self, changes: TableChanges) -> Self {
        self.changes = Arc::new(changes);
        for host in &mut self.hosts {
            Arc::make_mut(host).table = Arc::clone(&self.changes);
        }
        self
    }

    /// What it changes of all requests and answers.
    #[must_use]
    pub fn changes(&self) -> &TableChanges {
        &self.changes
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Arc<VirtualHost>] {
        &self.hosts
    }

    /// The names of the clusters that it sends to; one may come more than once.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        let routes = self.hosts.iter().flat_map(|host| &host.routes);
        let sends = routes.filter_map(|route| match &route.action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        });
        sends.flat_map(|forward| {
            let mirrors = forward.mirrors.iter().map(|mirror| &mirror.cluster);
            let live = forward.clusters.iter().map(|cluster| &cluster.name);
            live.chain(mirrors)
        })
    }

    /// Whether a port in the request's host is not looked at.
    #[must_use]
    pub fn ignore_port(&self) -> bool {
        self.ignore_port
    }

    /// The route of a request; `draw` is a number below a million, drawn once for the request.
    #[must_use]
    pub fn route(&self, head: &RequestHead<'_>, draw: u32) -> Option<Matched<'_>> {
        let index = self.host(head.authority)?;
        let host = self.hosts.get(index)?;
        let route = self.indexes.get(index)?.first(host, head, draw)?;
        Some(Matched { host, route })
    }

    /// Exact, then the longest `*.example`, then the longest `shop.*`, then `*` (Envoy's order).
    fn host(&self, authority: &str) -> Option<usize> {
        let authority = if self.ignore_port {
            split_port(authority).0
        } else {
            authority
        };
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any;
        }
        let lower;
        let authority = if authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = authority.to_ascii_lowercase();
            &lower
        } else {
            authority
        };
        if let Some(host) = self.exact.get(authority) {
            return Some(*host);
        }
        // A wildcard stands for at least one character.
        let wild = |(part, host): &(String, usize), is_at_end: bool| {
            let found = if is_at_end {
                authority.ends_with(part)
            } else {
                authority.starts_with(part)
            };
            (found && authority.len() > part.len()).then_some(*host)
        };
        self.suffixes
            .iter()
            .find_map(|suffix| wild(suffix, true))
            .or_else(|| self.prefixes.iter().find_map(|prefix| wild(prefix, false)))
            .or(self.any)
    }
}

impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.hosts == other.hosts
            && self.ignore_port == other.ignore_port
            && self.changes == other.changes
    }
}

fn claim(list: &mut Vec<(String, usize)>, part: &str, host: usize) -> bool {
    let is_new = list.iter().all(|(known, _)| known != part);
    list.push((part.to_owned(), host));
    is_new
}

impl PathIndex {
    fn new(host: &VirtualHost) -> Self {
        let mut index = Self::default();
        for (place, route) in host.routes.iter().enumerate() {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            match &route.matches.path {
                PathMatch::Exact(path) if !route.matches.ignore_case => {
                    index.exact.entry(path.clone()).or_default().push(place);
                }
                PathMatch::Segments(path) if !route.matches.ignore_case => {
                    let path = path.trim_end_matches('/').to_owned();
                    index.segments.entry(path).or_default().push(place);
                }
                _ => index.others.push(place),
            }
        }
        index
    }

    /// The first route of the host that takes the request.
    fn first<'a>(
        &self,
        host: &'a VirtualHost,
        head: &RequestHead<'_>,
        draw: u32,
    ) -> Option<&'a Arc<Route>> {
        let takes = |place: u32| {
            host.routes
                .get(place as usize)
                .is_some_and(|route| route.matches.matches(head, draw))
        };
        let mut best: Option<u32> = None;
        let mut look = |places: &[u32]| {
            let found = places
                .iter()
                .copied()
                .take_while(|place| best.is_none_or(|best| *place < best))
                .find(|place| takes(*place));
            best = found.or(best);
        };
        look(&self.others);
        let path = if head.path.is_empty() { "/" } else { head.path };
        if !self.exact.is_empty()
            && let Some(places) = self.exact.get(path)
        {
            look(places);
        }
        if !self.segments.is_empty() {
            let mut end = path.len();
            loop {
                if let Some(places) = self.segments.get(&path[..end]) {
                    look(places);
                }
                let Some(slash) = path[..end].rfind('/') else {
                    break;
                };
                end = slash;
            }
        }
        host.routes.get(best? as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::{HeaderMap, Method, StatusCode};
    use proptest::prelude::*;

    use super::super::{Action, HeaderChanges, RouteMatch};
    use super::*;

    fn host(name: &str, domains: &[&str], paths: Vec<PathMatch>) -> VirtualHost {
        VirtualHost {
            rates: Vec::new(),
            table: Arc::default(),
            name: name.to_owned(),
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            routes: paths
                .into_iter()
                .enumerate()
                .map(|(index, path)| {
                    Arc::new(Route {
                        name: format!("{name}-{index}"),
                        matches: RouteMatch {
                            path,
                            ..RouteMatch::default()
                        },
                        action: Action::Respond {
                            status: StatusCode::OK,
                            body: String::new(),
                        },
                        request_headers: HeaderChanges::default(),
                        response_headers: HeaderChanges::default(),
                        filters: BTreeMap::new(),
                    })
                })
                .collect(),
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            filters: BTreeMap::new(),
        }
    }

    fn taken(table: &RouteTable, authority: &str, path: &str) -> Option<String> {
        let headers = HeaderMap::new();
        let head = RequestHead {
            method: &Method::GET,
            authority,
            path,
            query: None,
            headers: &headers,
        };
        table
            .route(&head, 0)
            .map(|matched| matched.route.name.clone())
    }

    #[test]
    fn the_most_exact_host_wins() {
        let any = || vec![PathMatch::Prefix("/".to_owned())];
        let hosts = vec![
            host("any", &["*"], any()),
            host("com", &["*.com"], any()),
            host("shop", &["*.shop.com"], any()),
            host("start", &["www.*"], any()),
            host("exact", &["www.shop.com", "shop.com:8080"], any()),
        ];
        let table = RouteTable::new("t", hosts, false).expect("a table");
        for (authority, expected) in [
            ("www.shop.com", "exact-0"),
            ("WWW.Shop.com", "exact-0"),
            ("a.shop.com", "shop-0"),
            ("a.b.shop.com", "shop-0"),
            ("shop.com", "com-0"),
            (".com", "any-0"),
            ("www.org", "start-0"),
            ("shop.com:8080", "exact-0"),
            ("other:80", "any-0"),
        ] {
            assert_eq!(
                taken(&table, authority, "/").as_deref(),
                Some(expected),
                "{authority}"
            );
        }
    }

    #[test]
    fn a_domain_has_one_host() {
        let error = |domains: &[&[&str]]| {
            let hosts = domains
                .iter()
                .map(|domains| host("h", domains, vec![]))
                .collect();
            RouteTable::new("t", hosts, false)
                .expect_err("refused")
                .to_string()
        };
        assert_eq!(
            error(&[&["a"], &["b", "A"]]),
            "virtual_hosts[1].domains[1]: \"a\" is claimed by two virtual hosts"
        );
        assert!(error(&[&["*"], &["*"]]).contains("claimed"));
        assert!(error(&[&["a*b"]]).contains("is no domain"));
        assert!(error(&[&["*a*"]]).contains("is no domain"));
        assert!(error(&[&[""]]).contains("is no domain"));
    }

    fn path_match() -> impl Strategy<Value = PathMatch> {
        let path = "(/[ab]?){1,3}";
        prop_oneof![
            path.prop_map(PathMatch::Exact),
            path.prop_map(PathMatch::Prefix),
            path.prop_map(PathMatch::Segments),
            "/[ab]\\.\\*".prop_map(|text| {
                PathMatch::Regex(crate::Pattern::parse(&text).expect("a pattern"))
            }),
        ]
    }

    /// A domain that `authority` could have, by Envoy's order: how exact it is, and how long.
    fn exactness(domain: &str, authority: &str) -> Option<(u8, usize)> {
        let longer = authority.len() >= domain.len();
        match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
            (Some(""), _) => Some((0, 0)),
            (Some(end), _) => (longer && authority.ends_with(end)).then_some((2, end.len())),
            (_, Some(start)) => {
                (longer && authority.starts_with(start)).then_some((1, start.len()))
            }
            _ => (domain == authority).then_some((3, 0)),
        }
    }

    proptest! {
        /// The host that is found is the most exact of all that are there.
        #[test]
        fn the_most_exact_host_is_found(
            domains in prop::collection::hash_set("\\*|[ab]{1,3}|\\*\\.?[ab]{1,2}|[ab]{1,2}\\.?\\*", 0..10),
            authority in "[ab.]{1,5}",
        ) {
            let hosts = domains.iter().map(|domain| {
                VirtualHost {
                    rates: Vec::new(),
                    name: domain.clone(),
                    ..host(domain, &[domain], vec![PathMatch::Prefix("/".to_owned())])
                }
            });
            let table = RouteTable::new("t", hosts.collect(), false).expect("a table");
            let found = table.host(&authority).map(|place| table.hosts()[place].name.clone());
            let exact = |domain: &&String| exactness(domain, &authority);
            let wanted = domains.iter().filter(|own| exact(own).is_some()).max_by_key(exact);
            prop_assert_eq!(found.as_ref(), wanted);
        }

        /// The index finds what reading the routes one after the other finds.
        #[test]
        fn the_first_match_is_taken(paths in prop::collection::vec(path_match(), 0..8), path in "(/[ab]{0,2}){1,4}") {
            let table = RouteTable::new("t", vec![host("h", &["*"], paths)], false).expect("a table");
            let headers = HeaderMap::new();
            let head = RequestHead { method: &Method::GET, authority: "x", path: &path, query: None, headers: &headers };
            let naive = table.hosts()[0].routes.iter().find(|route| route.matches.matches(&head, 0));
            prop_assert_eq!(taken(&table, "x", &path), naive.map(|route| route.name.clone()));
        }
    }
}
