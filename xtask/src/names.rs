//! The names that follow from the name of a kind.

/// `ResourceClass` as `resource_class`.
pub(crate) fn snake(kind: &str) -> String {
    let mut name = String::new();
    for letter in kind.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// `Policy` as `policies`, `ResourceClass` as `resourceclasses`.
pub(crate) fn plural(kind: &str) -> String {
    let word = kind.to_lowercase();
    match word.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if word.ends_with(['s', 'x']) || word.ends_with("ch") => format!("{word}es"),
        _ => format!("{word}s"),
    }
}

/// `ResourceClass` as `frc`: an f and the first letters of its words.
pub(crate) fn short(kind: &str) -> String {
    let initials = kind.chars().filter(char::is_ascii_uppercase);
    std::iter::once('f')
        .chain(initials.map(|letter| letter.to_ascii_lowercase()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_kind() {
        assert_eq!(snake("ResourceClass"), "resource_class");
        assert_eq!(plural("ResourceClass"), "resourceclasses");
        assert_eq!(plural("MeshPolicy"), "meshpolicies");
        assert_eq!(plural("Pipeline"), "pipelines");
        assert_eq!(short("PipelineRun"), "fpr");
    }
}
