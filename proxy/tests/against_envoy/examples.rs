//! Examples that ask for nothing of our own are Envoy's, too.

use std::path::Path;

use crate::program::{envoy_takes_file, is_left_out};

#[test]
fn envoy_takes_examples_with_nothing_of_our_own() {
    if is_left_out() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/proxy/features");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the examples are there") {
        let file = file.expect("an example").path();
        let text = std::fs::read_to_string(&file).expect("a text");
        // Certificates are made before an example with TLS is run.
        if text.contains("fairlead.mesh.v1") || text.contains(".pem") {
            continue;
        }
        match envoy_takes_file(&file) {
            Ok(()) => count += 1,
            // Not every build of Envoy has all of its extensions.
            Err(said) if said.contains("Didn't find a registered implementation") => {}
            Err(said) => panic!("{}: {said}", file.display()),
        }
    }
    assert!(count >= 8, "{count} examples");
}
