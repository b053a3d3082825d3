//! One stream of the metrics service: what a proxy counts.
//!
//! A proxy says what others answered it. Who it is says its certificate, so that it tells only of its own calls, and only of
//! services that there are.

use std::collections::BTreeMap;

use bytes::Bytes;
use fairlead_model::identity::SpiffeId;
use fairlead_xds::metrics_service::{MetricFamily, StreamMessage};
use futures::future::BoxFuture;
use prost::Message as _;
use tonic::server::ClientStreamingService;
use tonic::{Request, Response, Status, Streaming};

use super::{Plane, now, pod};
use crate::compile::Compiled;
use crate::compile::names::{OUTSIDE, PASSTHROUGH};
use crate::facts::{Key, Pod};
use crate::figures::{Called, Caller, Pair, Sum, Teller, Way, judged, read};

/// The longest name of a host.
const LONGEST_HOST: usize = 253;

/// A call.
pub(super) struct Call {
    pub(super) plane: Plane,
    pub(super) caller: Option<SpiffeId>,
}

impl ClientStreamingService<Bytes> for Call {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (plane, caller) = (self.plane.clone(), self.caller.clone());
        Box::pin(async move {
            let id = plane.member(caller)?;
            let stop = plane.stop.clone();
            let told = Told {
                plane,
                id,
                pod: None,
                teller: Teller::default(),
            };
            tokio::select! {
                ended = told.run(request.into_inner()) => ended.map(|()| Response::new(Bytes::new())),
                () = stop.cancelled() => Err(Status::unavailable("this replica ends")),
            }
        })
    }
}

/// What is told on a stream.
struct Told {
    plane: Plane,
    id: SpiffeId,
    /// The pod that it is the proxy of, as it says.
    pod: Option<Key>,
    teller: Teller,
}

impl Told {
    async fn run(mut self, mut messages: Streaming<Bytes>) -> Result<(), Status> {
        let wrong = |error: prost::DecodeError| Status::invalid_argument(error.to_string());
        while let Some(message) = messages.message().await? {
            let message = StreamMessage::decode(message).map_err(wrong)?;
            if let Some(identifier) = &message.identifier {
                let whose = identifier.whose().map_err(wrong)?;
                self.pod = pod(&whose.id);
                self.teller = Teller::of(&whose.program);
            }
            self.count(&message.metrics);
        }
        Ok(())
    }

    fn count(&self, families: &[MetricFamily]) {
        let Some(compiled) = self.plane.compiled.borrow().clone() else {
            return;
        };
        let key = self.pod.as_ref();
        let pod = key.and_then(|key| Some((key, &**compiled.pod(key, &self.id)?)));
        let own = self.own(pod);
        let mut sums: BTreeMap<Pair, Sum> = BTreeMap::new();
        for (way, sum) in read(families, self.teller) {
            if let Some(pair) = pair(&compiled, pod.map(|(key, _)| key), &own, way) {
                sums.entry(pair).or_default().merge(&sum);
            }
        }
        let now = now().as_secs();
        self.plane.figures.add(&sums, now);
        let namespace = self.id.workload().map_or("", |(namespace, _)| namespace);
        for (name, count) in judged(families).filter(|(_, count)| *count > 0) {
            let key = (namespace.into(), name.into());
            // Of those that there are alone.
            if compiled.counts(&key) {
                self.plane.figures.judge(&key, count, now);
            }
        }
    }

    /// Who calls: the workload of its pod, or the service account where nobody knows the pod.
    fn own(&self, pod: Option<(&Key, &Pod)>) -> Caller {
        let (namespace, workload) = match pod {
            Some((key, pod)) => (&*key.0, pod.workload(&key.1)),
            None => self.id.workload().unwrap_or_default(),
        };
        Caller {
            namespace: namespace.into(),
            workload: workload.into(),
        }
    }
}

/// Between whom requests went: from the proxy's own pod to a service or to somewhere else, or from outside of the mesh to the pod.
fn pair(compiled: &Compiled, pod: Option<&Key>, own: &Caller, way: Way<'_>) -> Option<Pair> {
    if way.cluster == PASSTHROUGH {
        return Some((own.clone(), elsewhere(way.destination)?));
    }
    if OUTSIDE.contains(&way.route) {
        return Some((Caller::default(), compiled.served(pod?, way.route)?));
    }
    let called = compiled.called(pod, way.route, way.cluster)?;
    Some((own.clone(), called))
}

/// What is no service of the mesh, by `host:port`.
fn elsewhere(destination: &str) -> Option<Called> {
    let (host, port) = destination.rsplit_once(':')?;
    (!host.is_empty() && host.len() <= LONGEST_HOST).then_some(())?;
    Some(Called {
        namespace: "".into(),
        service: host.into(),
        port: port.parse().ok()?,
        route: "".into(),
    })
}
