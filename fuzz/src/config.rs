//! Configuration: files, and messages of a control plane.

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::google::protobuf::Any;
use fairlead_model::{Moment, Snapshot};
use fairlead_xds::{Dynamic, Kind, Outside, Session, Shapes, write};
use prost::Message;

/// A bootstrap is read or refused, and what was read is read again from how it is dumped.
pub(crate) fn bootstrap(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let Ok(own) = fairlead_xds::bootstrap(text, &none) else {
        return;
    };
    // Private keys and the headers of a call are not dumped.
    if own.snapshot.secrets.is_empty() && own.dynamic.is_none() {
        let dumped = write::bootstrap(&own).to_string();
        let again = fairlead_xds::bootstrap(&dumped, &none);
        assert!(
            again.is_ok() || dumped.contains("[redacted]"),
            "{again:?}: {dumped}"
        );
    }
}

fn session() -> Session {
    let dynamic = Dynamic {
        cluster: "control".to_owned(),
        listeners: true,
        clusters: true,
        ..Dynamic::default()
    };
    let mut session = Session::new(dynamic, Snapshot::default());
    let _ = session.begin(Moment::default());
    session
}

fn take(message: &[u8]) {
    let outside = Outside {
        read: &|_| Err(std::io::ErrorKind::NotFound.into()),
        check: &|_| Ok(()),
    };
    let mut session = session();
    let _ = session.take(message, outside, Moment::default());
    let _ = session.settle(Moment::default());
}

/// Whatever a control plane sends is taken or refused.
pub(crate) fn response(data: &[u8]) {
    take(data);
}

/// A resource within a response; the first byte says of which kind. Its JSON form is one of protocol buffers again.
pub(crate) fn resource(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let kinds = [Kind::Listener, Kind::Cluster, Kind::Routes, Kind::Endpoints];
    let kind = kinds[usize::from(*kind) % kinds.len()];
    thread_local! {
        static SHAPES: Shapes = Shapes::default();
    }
    SHAPES.with(|shapes| {
        if let Ok(json) = shapes.json(kind.message(), bytes) {
            let _ = shapes.bytes(kind.message(), &json);
        }
    });
    let response = DiscoveryResponse {
        version_info: "1".to_owned(),
        nonce: "1".to_owned(),
        type_url: kind.type_url(),
        resources: vec![Any {
            type_url: kind.type_url(),
            value: bytes.to_vec(),
        }],
        ..DiscoveryResponse::default()
    };
    take(&response.encode_to_vec());
}
