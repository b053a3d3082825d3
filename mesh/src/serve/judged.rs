//! The call by which a replica says what rules that are only counted come to with its proxies.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

use super::{Plane, Replicas, now};
use crate::facts::{Facts, Key};

/// The call.
pub(super) const JUDGED: &str = "/fairlead.mesh.v1.Replicas/Judged";

/// What a replica counted.
#[derive(Clone, PartialEq, Message)]
struct Told {
    /// Whose it is: a number that it chose when it started.
    #[prost(fixed64, tag = "1")]
    replica: u64,
    /// By MeshAuthorization.
    #[prost(message, repeated, tag = "2")]
    rows: Vec<Row>,
}

/// What a MeshAuthorization comes to.
#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    name: String,
    /// Requests within the last hour.
    #[prost(uint64, tag = "3")]
    count: u64,
}

/// Answers another replica.
pub(super) struct Call(pub(super) Plane);

impl UnaryService<Bytes> for Call {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        let figures = &self.0.figures;
        let rows = figures.judged(now().as_secs()).into_iter();
        let told = Told {
            replica: figures.replica(),
            rows: rows
                .map(|((namespace, name), count)| Row {
                    namespace: namespace.to_string(),
                    name: name.to_string(),
                    count,
                })
                .collect(),
        };
        std::future::ready(Ok(Response::new(told.encode_to_vec().into())))
    }
}

impl Replicas {
    /// What MeshAuthorizations whose rules are only counted came to within the last hour; nothing where a replica does not say.
    pub(crate) async fn judged(&self, facts: &Facts) -> Option<BTreeMap<Key, u64>> {
        let mut parts: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
        for (address, answer) in self.ask(facts, JUDGED, Bytes::new()).await {
            let told = answer
                .and_then(|answer| Told::decode(answer).map_err(|error| error.to_string()))
                .map_err(|cause| tracing::warn!(%address, cause, "a replica did not say what it counted"))
                .ok()?;
            parts.insert(told.replica, told.rows);
        }
        let mut sums: BTreeMap<Key, u64> = BTreeMap::new();
        for row in parts.into_values().flatten() {
            let sum = sums
                .entry((row.namespace.into(), row.name.into()))
                .or_default();
            *sum = sum.saturating_add(row.count);
        }
        Some(sums)
    }
}
