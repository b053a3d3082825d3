//! `fairlead-proxy certificate` where there is nothing to keep: it says why, and ends.

use std::process::Command;

/// What it says of a bootstrap, which it does not take.
fn refused(bootstrap: &str, folder: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_fairlead-proxy"))
        .args([
            "certificate",
            "--config-yaml",
            bootstrap,
            "--folder",
            folder,
        ])
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_bootstrap_that_says_of_no_authority_or_of_none_that_is_there_is_refused() {
    let folder = std::env::temp_dir().join(format!("fairlead-none-{}", std::process::id()));
    let place = folder.display().to_string();
    let said = refused("{}", &place);
    assert!(said.contains("bootstrap_extensions"), "{said}");
    let identity = r#"{"bootstrap_extensions": [{"name": "identity", "typed_config": {
        "@type": "type.googleapis.com/fairlead.mesh.v1.Identity",
        "cluster": "nowhere",
        "spiffe_id": "spiffe://cluster.local/ns/shop/sa/web",
        "token_file": "/token",
    }}]}"#;
    let said = refused(identity, &place);
    assert!(said.contains("nowhere"), "{said}");
    assert!(!folder.exists());
}
