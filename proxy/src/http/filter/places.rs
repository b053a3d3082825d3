//! Where tokens stand in requests.

use fairlead_model::filter::{Filter, HttpFilter, Places};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Request, Uri};

use crate::http::affinity::cookie;

/// What stands in the place of a token that is not shown.
const REDACTED: &str = "[redacted]";

/// Where a token was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In a header.
    Header(HeaderName),
    /// In a parameter of the query.
    Parameter(String),
    /// In a cookie.
    Cookie,
}

/// The tokens that stand in these places.
pub(super) fn tokens<'a, B>(
    places: &'a Places,
    request: &'a Request<B>,
) -> impl Iterator<Item = (Place, &'a str)> {
    let headers = request.headers();
    let in_headers = places.headers.iter().flat_map(move |(name, prefix)| {
        let values = headers.get_all(name).iter();
        values.filter_map(move |value| {
            let text = value.to_str().ok()?;
            Some((Place::Header(name.clone()), token(text, prefix)?))
        })
    });
    let query = request.uri().query();
    let in_query = places.parameters.iter().filter_map(move |name| {
        let mut parts = query?.split('&');
        let value = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
        Some((Place::Parameter(name.clone()), value))
    });
    let in_cookies = places
        .cookies
        .iter()
        .filter_map(move |name| Some((Place::Cookie, cookie(headers, name)?)));
    in_headers.chain(in_query).chain(in_cookies)
}

/// What follows the prefix, as far as it may be a token; all of it where there is no prefix.
fn token<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return Some(text);
    }
    let (_, rest) = text.split_once(prefix)?;
    let is_other = |own: char| !own.is_ascii_alphanumeric() && !matches!(own, '-' | '_' | '.');
    let end = rest.find(is_other).unwrap_or(rest.len());
    Some(&rest[..end])
}

impl Place {
    /// Takes the token out of a request; cookies stay, as in Envoy.
    pub(super) fn clear<B>(&self, request: &mut Request<B>) {
        match self {
            Self::Header(name) => {
                request.headers_mut().remove(name);
            }
            Self::Parameter(name) => {
                change_query(request, |parts| parts.retain(|part| !is_named(part, name)));
            }
            Self::Cookie => {}
        }
    }
}

/// Whether this is the parameter of a query.
fn is_named(part: &str, name: &str) -> bool {
    part.split_once('=').map_or(part, |(own, _)| own) == name
}

/// Changes the parameters of a query; what makes no query changes nothing.
pub(super) fn change_query<B>(request: &mut Request<B>, change: impl FnOnce(&mut Vec<String>)) {
    let target = with_query(request.uri(), change);
    if let Some(uri) = at(request.uri(), &target) {
        *request.uri_mut() = uri;
    }
}

/// The path with its query changed.
fn with_query(uri: &Uri, change: impl FnOnce(&mut Vec<String>)) -> String {
    let query = uri.query().into_iter().flat_map(|query| query.split('&'));
    let mut parts: Vec<String> = query.map(str::to_owned).collect();
    change(&mut parts);
    let path = uri.path();
    match parts.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", parts.join("&")),
    }
}

/// The same with another path and query.
fn at(uri: &Uri, target: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

/// Marks what these filters read tokens from as nothing to be shown; the path as it may be shown, where that is another one.
pub(in crate::http) fn hide<B>(filters: &[HttpFilter], request: &mut Request<B>) -> Option<String> {
    for (name, _) in places(filters).flat_map(|own| &own.headers) {
        if let http::header::Entry::Occupied(mut own) = request.headers_mut().entry(name) {
            own.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
    hide_addresses(filters, request.headers_mut());
    let mut parameters = parameters(filters).peekable();
    if parameters.peek().is_none() || request.uri().query().is_none() {
        return None;
    }
    let parameters: Vec<&str> = parameters.collect();
    let shown = with_query(request.uri(), |parts| {
        for part in parts {
            if let Some(name) = parameters.iter().find(|name| is_named(part, name)) {
                *part = format!("{name}={REDACTED}");
            }
        }
    });
    Some(shown)
}

/// Marks the headers in which an address has a token as a parameter, such as `referer` and `location`.
pub(in crate::http) fn hide_addresses(filters: &[HttpFilter], headers: &mut HeaderMap) {
    for name in parameters(filters) {
        for value in headers.values_mut() {
            if has_parameter(value.as_bytes(), name) {
                value.set_sensitive(true);
            }
        }
    }
}

/// Where tokens stand that these filters look for.
fn places(filters: &[HttpFilter]) -> impl Iterator<Item = &Places> {
    let tokens = filters.iter().filter_map(|own| match &own.filter {
        Filter::Tokens(own) => Some(own),
        _ => None,
    });
    tokens.flat_map(|own| own.providers.values().map(|provider| &provider.places))
}

fn parameters(filters: &[HttpFilter]) -> impl Iterator<Item = &str> {
    let all = places(filters).flat_map(|own| &own.parameters);
    all.map(String::as_str)
}

/// Whether a text has an address with this parameter in its query.
fn has_parameter(text: &[u8], name: &str) -> bool {
    let mut parts = text.split(|byte| matches!(byte, b'?' | b'&')).skip(1);
    parts.any(|part| matches!(part.strip_prefix(name.as_bytes()), Some([b'=', ..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn tokens_are_found_where_they_may_stand() {
        let places = Places {
            headers: vec![
                (http::header::AUTHORIZATION, "Bearer ".to_owned()),
                (HeaderName::from_static("x-token"), String::new()),
            ],
            parameters: vec!["token".to_owned()],
            cookies: vec!["jwt".to_owned()],
        };
        let mut request = request(
            "http://a/b?x=1&tokens=0&token=c.d.e&y",
            &[
                ("authorization", "Basic eA=="),
                ("authorization", "Bearer a.b.c, else"),
                ("x-token", "b.c.d"),
                ("cookie", "a=b; jwt=d.e.f"),
            ],
        );
        let found: Vec<_> = tokens(&places, &request).collect();
        let of = |place: &Place, token: &'static str| (place.clone(), token);
        let header = |name| Place::Header(HeaderName::from_static(name));
        let parameter = Place::Parameter("token".to_owned());
        assert_eq!(
            found,
            [
                of(&header("authorization"), "a.b.c"),
                of(&header("x-token"), "b.c.d"),
                of(&parameter, "c.d.e"),
                of(&Place::Cookie, "d.e.f"),
            ]
        );
        parameter.clear(&mut request);
        assert_eq!(request.uri(), "http://a/b?x=1&tokens=0&y");
        header("authorization").clear(&mut request);
        assert!(!request.headers().contains_key("authorization"));
    }

    #[test]
    fn a_query_of_nothing_else_goes_with_its_token() {
        let mut request = request("/b?token=c.d.e", &[]);
        Place::Parameter("token".to_owned()).clear(&mut request);
        assert_eq!(request.uri(), "/b");
    }

    #[test]
    fn an_address_tells_its_parameters() {
        let has = |text: &str| has_parameter(text.as_bytes(), "jwt");
        assert!(has("https://a/b?jwt=c"));
        assert!(has("0; url=/b?x=1&jwt=c#d"));
        assert!(!has("jwt=c"));
        assert!(!has("/b?jwts=c&x=jwt=c"));
    }
}
