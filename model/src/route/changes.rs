//! Changes to the headers of a request or an answer.

use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::format::Format;

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

/// The value of a header that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// Always this.
    Literal(HeaderValue),
    /// Made for each request; left out where it is empty, or no value of a header.
    Format(Box<Format>),
}

impl From<HeaderValue> for HeaderText {
    fn from(value: HeaderValue) -> Self {
        Self::Literal(value)
    }
}

/// One header to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderChange {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderText,
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

    /// Whether a value is made for each request.
    #[must_use]
    pub fn has_formats(&self) -> bool {
        self.set
            .iter()
            .any(|change| matches!(change.value, HeaderText::Format(_)))
    }

    /// Makes the changes; `text` makes a value that depends on the request, given the headers as they are by then.
    pub fn apply(&self, headers: &mut HeaderMap, text: impl Fn(&Format, &HeaderMap) -> String) {
        for name in &self.remove {
            headers.remove(name);
        }
        for change in &self.set {
            let value = match &change.value {
                HeaderText::Literal(value) => value.clone(),
                HeaderText::Format(format) => match HeaderValue::try_from(text(format, headers)) {
                    Ok(value) if !value.is_empty() => value,
                    _ => continue,
                },
            };
            match headers.entry(&change.name) {
                Entry::Vacant(vacant) => {
                    if !change.only_if_present {
                        vacant.insert(value);
                    }
                }
                Entry::Occupied(mut occupied) => match change.present {
                    OnPresent::Append => occupied.append(value),
                    OnPresent::Replace => {
                        occupied.insert(value);
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
            value: HeaderValue::from_static("2").into(),
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
        .apply(&mut headers, |_, _| String::new());
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

    #[test]
    fn a_value_that_is_none_of_a_header_is_left_out() {
        let made = |text: &'static str| {
            let mut headers = HeaderMap::new();
            let format = Format::parse("%REQ(x)%").expect("a format");
            HeaderChanges {
                remove: Vec::new(),
                set: vec![HeaderChange {
                    name: HeaderName::from_static("x-made"),
                    value: HeaderText::Format(Box::new(format)),
                    present: OnPresent::Replace,
                    only_if_present: false,
                }],
            }
            .apply(&mut headers, |_, _| text.to_owned());
            headers
                .get("x-made")
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        assert_eq!(made("a").as_deref(), Some("a"));
        assert_eq!(made(""), None);
        assert_eq!(made("a\r\nx-forged: 1"), None);
    }
}
