//! Changes to the headers of a request or an answer.

use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What becomes of a header that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPresent {
    /// It is kept beside the new one.
    Append,
    /// The new one takes its place.
    Replace,
    /// Nothing changes.
    Keep,
}

/// One header to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderChange {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
    /// What becomes of one that is there.
    pub present: OnPresent,
    /// Whether it is left out where none is there.
    pub only_if_present: bool,
}

/// Changes in their order: removals first, then what is set, as Envoy does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChanges {
    /// Headers to remove.
    pub remove: Vec<HeaderName>,
    /// Headers to set.
    pub set: Vec<HeaderChange>,
}

impl HeaderChanges {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for change in &self.set {
            match headers.entry(&change.name) {
                Entry::Vacant(vacant) => {
                    if !change.only_if_present {
                        vacant.insert(change.value.clone());
                    }
                }
                Entry::Occupied(mut occupied) => match change.present {
                    OnPresent::Append => occupied.append(change.value.clone()),
                    OnPresent::Replace => {
                        occupied.insert(change.value.clone());
                    }
                    OnPresent::Keep => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_removed_then_set() {
        let mut headers = HeaderMap::new();
        headers.insert("x-old", HeaderValue::from_static("1"));
        headers.insert("x-keep", HeaderValue::from_static("1"));
        headers.insert("x-many", HeaderValue::from_static("1"));
        let change = |name, present, only_if_present| HeaderChange {
            name: HeaderName::from_static(name),
            value: HeaderValue::from_static("2"),
            present,
            only_if_present,
        };
        HeaderChanges {
            remove: vec![HeaderName::from_static("x-old")],
            set: vec![
                change("x-old", OnPresent::Append, true),
                change("x-keep", OnPresent::Keep, false),
                change("x-many", OnPresent::Append, false),
                change("x-new", OnPresent::Keep, false),
            ],
        }
        .apply(&mut headers);
        let all = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap_or(""))
                .collect::<Vec<_>>()
        };
        assert!(all("x-old").is_empty());
        assert_eq!(all("x-keep"), ["1"]);
        assert_eq!(all("x-many"), ["1", "2"]);
        assert_eq!(all("x-new"), ["2"]);
    }
}
