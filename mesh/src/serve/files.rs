//! The certificate of a proxy that is not ours: a stock Envoy gets none from the authority by itself, so it says in its metadata where
//! its own one lies, and is told to read it there. Its key never comes here, and files that are replaced are read again.

use std::sync::Arc;

use fairlead_xds::Kind;
use fairlead_xds::serve::{Node, Resource, Resources};
use serde_json::json;

use crate::compile::SHAPES;
use crate::compile::names::IDENTITY;

/// What the metadata calls the file with its chain, and the one with its key.
const FILES: [&str; 2] = ["certificate_file", "key_file"];

/// What it is told of its own certificate, where it says both files.
pub(super) fn told(node: &Node) -> Option<Arc<Resources>> {
    let [chain, key] = FILES.map(|name| node.said.get(name));
    let secret = json!({
        "name": IDENTITY,
        "tls_certificate": {
            "certificate_chain": {"filename": chain?},
            "private_key": {"filename": key?},
        },
    });
    let secret = Resource::of(&SHAPES, Kind::Secret, &secret).ok()?;
    let mut resources = Resources::default();
    resources.put(Kind::Secret, IDENTITY, secret);
    Some(Arc::new(resources))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_needed() {
        let mut node = Node::default();
        assert!(told(&node).is_none());
        for name in FILES {
            assert!(told(&node).is_none());
            node.said.insert(name.to_owned(), format!("/run/{name}"));
        }
        let told = told(&node).expect("both are there");
        assert!(told.get(Kind::Secret, IDENTITY).is_some());
    }
}
