//! Names that follow from content: deterministic, within Kubernetes' limits, and free of collisions.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The longest name of an instance, which leaves room for suffixes of objects named after it.
pub const INSTANCE_NAME_MAX: usize = 48;

/// The first `length` hexadecimal digits of the SHA-256 of a value's JSON.
///
/// Maps are sorted by `serde_json`'s default map, so equal content gives equal digits.
#[must_use]
pub fn content_hash<T: Serialize>(value: &T, length: usize) -> String {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    digest(&[&bytes], length)
}

/// The first `length` hexadecimal digits of the SHA-256 of parts, each preceded by its length.
#[must_use]
pub fn digest(parts: &[&[u8]], length: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        text.push_str(&format!("{byte:02x}"));
    }
    text.truncate(length);
    text
}

/// A DNS label made of any text: lower case letters, digits and single dashes, starting with a letter.
#[must_use]
pub fn label(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
    }
    if !out.starts_with(|c: char| c.is_ascii_lowercase()) {
        out.insert(0, 'x');
    }
    out.truncate(max);
    out.trim_end_matches('-').to_owned()
}

/// The name of the instance of a type, class and id: readable, and unique by a hash of the three.
#[must_use]
pub fn instance(type_: &str, class: &str, id: &str) -> String {
    let hash = digest(&[type_.as_bytes(), class.as_bytes(), id.as_bytes()], 6);
    let readable = label(&format!("{type_}-{id}"), INSTANCE_NAME_MAX - 7);
    format!("{readable}-{hash}")
}

/// A value that fits a label, shortened with a hash where it is longer than 63 characters.
#[must_use]
pub fn label_value(text: &str) -> String {
    if text.len() <= 63 {
        return text.to_owned();
    }
    let hash = digest(&[text.as_bytes()], 8);
    let head: String = text.chars().take(54).collect();
    format!("{}-{hash}", head.trim_end_matches(['-', '.', '_']))
}

/// Compares names so that numbers within them count as numbers: `web-2` before `web-10`.
#[must_use]
pub fn natural_cmp(a: &str, b: &str) -> std::cmp::Ordering {
    let (head_a, number_a) = split_number(a);
    let (head_b, number_b) = split_number(b);
    head_a
        .cmp(head_b)
        .then(number_a.cmp(&number_b))
        .then_with(|| a.cmp(b))
}

/// A name's text before its trailing number, and that number.
#[must_use]
pub fn split_number(name: &str) -> (&str, Option<u64>) {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (head, tail) = name.split_at(name.len() - digits);
    (head, tail.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_are_labels_and_differ_by_class() {
        let a = instance("postgres", "default", "catalog.db");
        assert!(a.starts_with("postgres-catalog-db-"), "{a}");
        assert_ne!(a, instance("postgres", "sensitive", "catalog.db"));
        let long = instance(&"t".repeat(63), "default", &"i".repeat(253));
        assert!(long.len() <= INSTANCE_NAME_MAX, "{long}");
    }

    #[test]
    fn names_order_by_their_number() {
        let mut names = vec!["web-10", "web-9", "web-2"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(names, ["web-2", "web-9", "web-10"]);
    }

    #[test]
    fn a_label_starts_with_a_letter() {
        assert_eq!(label("9.A__b", 63), "x9-a-b");
    }

    #[test]
    fn long_label_values_stay_distinct() {
        let a = label_value(&format!("{}a", "x".repeat(80)));
        let b = label_value(&format!("{}b", "x".repeat(80)));
        assert!(a.len() <= 63 && a != b);
    }
}
