//! The calls that ask for live figures: a user's, who is told of the namespaces whose services it may get, and those of replicas.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fairlead_plan::mesh::FIGURES_AUDIENCE;
use fairlead_xds::figures::{By, Pair as Told, Row, TopRequest, TopResponse};
use futures::future::{BoxFuture, join_all};
use prost::Message;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

use super::review::Account;
use super::{Plane, now};
use crate::figures::{LONGEST, Pair, Sum};

/// The call of a replica by another.
pub(super) const PART: &str = "/fairlead.mesh.v1.Replicas/Figures";
/// How far back is looked where nobody says, in seconds.
const USUAL: u32 = 30;
/// Of how many namespaces is asked whether somebody may see them who may not see all.
const MOST_ASKED: usize = 64;

/// A call of a user.
pub(super) struct Top(pub(super) Plane);

impl UnaryService<Bytes> for Top {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let plane = self.0.clone();
        Box::pin(async move {
            let account = plane.holder(&request, FIGURES_AUDIENCE).await?.account;
            let asked = Asked::read(request.into_inner())?;
            let is_whole = asked.admit(&plane, &account).await?;
            let all = gather(&plane, asked.seconds).await;
            let replicas = all.parts.len();
            let mut rows = asked.rows(all.parts.into_values().flatten());
            if !is_whole {
                asked.hide(&plane, &account, &mut rows).await?;
            }
            let rows = rows.into_iter().map(|(pair, sum)| row(pair, &sum));
            let response = TopResponse {
                seconds: u32::try_from(all.seconds).unwrap_or(u32::MAX),
                rows: rows.collect(),
                replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
                missing: u32::try_from(all.missing).unwrap_or(u32::MAX),
            };
            Ok(Response::new(response.encode_to_vec().into()))
        })
    }
}

/// What a replica is asked by others.
#[derive(Clone, PartialEq, Message)]
struct PartRequest {
    /// How far back, in seconds.
    #[prost(uint32, tag = "1")]
    seconds: u32,
}

/// What a replica has.
#[derive(Clone, PartialEq, Message)]
struct PartResponse {
    /// Whose it is: a number that it chose when it started.
    #[prost(fixed64, tag = "1")]
    replica: u64,
    /// The requests.
    #[prost(message, repeated, tag = "2")]
    counted: Vec<Counted>,
}

/// The requests of a pair.
#[derive(Clone, PartialEq, Message)]
struct Counted {
    #[prost(message, required, tag = "1")]
    pair: Told,
    #[prost(uint64, tag = "2")]
    successes: u64,
    #[prost(uint64, tag = "3")]
    failures: u64,
    /// How many took so long, by [`fairlead_model::latency::BOUNDS`].
    #[prost(uint64, repeated, tag = "4")]
    latency: Vec<u64>,
}

/// A call of another replica.
pub(super) struct Part(pub(super) Plane);

impl UnaryService<Bytes> for Part {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let part = decode(request.into_inner()).map(|request: PartRequest| {
            let (_, part) = own(&self.0, request.seconds);
            Response::new(part.encode_to_vec().into())
        });
        std::future::ready(part)
    }
}

/// What is asked for.
struct Asked {
    seconds: u32,
    by: By,
    namespace: String,
}

impl Asked {
    fn read(request: Bytes) -> Result<Self, Status> {
        let request: TopRequest = decode(request)?;
        let seconds = match request.seconds {
            0 => USUAL,
            seconds => seconds,
        };
        if u64::from(seconds) > LONGEST {
            return Err(Status::invalid_argument(format!(
                "seconds: found {seconds}; at most {LONGEST} is allowed"
            )));
        }
        let by = By::try_from(request.by).map_err(|_| {
            Status::invalid_argument(format!(
                "by: found {}; SERVICE, PAIR, WORKLOAD, DESTINATION or ROUTE is allowed",
                request.by
            ))
        })?;
        Ok(Self {
            seconds,
            by,
            namespace: request.namespace,
        })
    }

    /// Says whether an account may see all that is asked for; one that may see nothing of it at all is refused.
    async fn admit(&self, plane: &Plane, account: &Account) -> Result<bool, Status> {
        let namespace = Some(self.namespace.as_str()).filter(|own| !own.is_empty());
        let is_admitted = plane.may_see(account, namespace).await?;
        match namespace {
            Some(namespace) if !is_admitted => Err(refused(account, namespace)),
            _ => Ok(is_admitted),
        }
    }

    /// Adds requests up by what is asked for.
    fn rows(&self, parts: impl Iterator<Item = Counted>) -> BTreeMap<Told, Sum> {
        let mut rows: BTreeMap<Told, Sum> = BTreeMap::new();
        for counted in parts {
            let sum = sum(&counted);
            let pair = counted.pair;
            // Connections are not added to requests.
            if pair.namespace.is_empty() != (self.by == By::Destination) {
                continue;
            }
            if !self.namespace.is_empty() && !self.is_of(&pair, &self.namespace) {
                continue;
            }
            let pair = match self.by {
                By::Destination => pair,
                By::Pair => Told {
                    route: String::new(),
                    ..pair
                },
                By::Route => Told {
                    caller_namespace: String::new(),
                    caller: String::new(),
                    ..pair
                },
                By::Service => Told {
                    namespace: pair.namespace,
                    service: pair.service,
                    port: pair.port,
                    ..Told::default()
                },
                By::Workload => Told {
                    caller_namespace: pair.caller_namespace,
                    caller: pair.caller,
                    ..Told::default()
                },
            };
            rows.entry(pair).or_default().merge(&sum);
        }
        rows
    }

    /// Whether a row is a namespace's.
    fn is_of(&self, pair: &Told, namespace: &str) -> bool {
        match self.by {
            By::Service | By::Route => pair.namespace == namespace,
            By::Workload | By::Destination => pair.caller_namespace == namespace,
            By::Pair => pair.namespace == namespace || pair.caller_namespace == namespace,
        }
    }

    /// Leaves the rows of namespaces that an account may see.
    async fn hide(
        &self,
        plane: &Plane,
        account: &Account,
        rows: &mut BTreeMap<Told, Sum>,
    ) -> Result<(), Status> {
        let all = rows
            .keys()
            .flat_map(|pair| [&pair.namespace, &pair.caller_namespace]);
        let all: BTreeSet<String> = all.filter(|own| !own.is_empty()).cloned().collect();
        let asked = all.iter().take(MOST_ASKED).map(|namespace| async move {
            let may = plane.may_see(account, Some(namespace)).await?;
            Ok::<_, Status>(may.then_some(namespace))
        });
        let seen: Result<Vec<Option<&String>>, Status> =
            join_all(asked).await.into_iter().collect();
        let seen: Vec<&String> = seen?.into_iter().flatten().collect();
        if seen.is_empty() {
            return Err(refused(account, "any namespace"));
        }
        rows.retain(|pair, _| seen.iter().any(|namespace| self.is_of(pair, namespace)));
        Ok(())
    }
}

fn refused((namespace, name): &Account, what: &str) -> Status {
    Status::permission_denied(format!(
        "the service account {namespace}/{name} may not get services in {what}"
    ))
}

/// What all replicas have.
struct Gathered {
    /// How far back it is really, in seconds.
    seconds: u64,
    /// By replica.
    parts: BTreeMap<u64, Vec<Counted>>,
    /// How many replicas told nothing.
    missing: usize,
}

async fn gather(plane: &Plane, seconds: u32) -> Gathered {
    let facts = plane.facts.borrow().clone();
    let request = Bytes::from(PartRequest { seconds }.encode_to_vec());
    let asked = match &facts {
        Some(facts) => plane.replicas.ask(facts, PART, request).await,
        None => Vec::new(),
    };
    let (seconds, own) = own(plane, seconds);
    let mut gathered = Gathered {
        seconds,
        // This replica is among those that are asked, where it is known to be there.
        parts: BTreeMap::from([(own.replica, own.counted)]),
        missing: 0,
    };
    for (address, answer) in asked {
        let answer = answer.and_then(|own| {
            let part = PartResponse::decode(own);
            part.map_err(|error| error.to_string())
        });
        match answer {
            Ok(part) => drop(gathered.parts.insert(part.replica, part.counted)),
            Err(cause) => {
                tracing::warn!(%address, cause, "a replica did not tell its figures");
                gathered.missing += 1;
            }
        }
    }
    gathered
}

/// What this replica has, and how many seconds back that is.
fn own(plane: &Plane, seconds: u32) -> (u64, PartResponse) {
    let (covered, sums) = plane.figures.within(seconds.into(), now().as_secs());
    let part = PartResponse {
        replica: plane.figures.replica(),
        counted: sums.into_iter().map(counted).collect(),
    };
    (covered, part)
}

fn counted(((caller, called), sum): (Pair, Sum)) -> Counted {
    Counted {
        pair: Told {
            caller_namespace: caller.namespace.to_string(),
            caller: caller.workload.to_string(),
            namespace: called.namespace.to_string(),
            service: called.service.to_string(),
            port: called.port.into(),
            route: called.route.to_string(),
        },
        successes: sum.successes,
        failures: sum.failures,
        latency: sum.latency.to_vec(),
    }
}

fn sum(counted: &Counted) -> Sum {
    let mut sum = Sum {
        successes: counted.successes,
        failures: counted.failures,
        ..Sum::default()
    };
    for (own, told) in sum.latency.iter_mut().zip(&counted.latency) {
        *own = *told;
    }
    sum
}

fn row(pair: Told, sum: &Sum) -> Row {
    Row {
        pair,
        successes: sum.successes,
        failures: sum.failures,
        p50: sum.quantile(0.5),
        p95: sum.quantile(0.95),
        p99: sum.quantile(0.99),
    }
}

fn decode<T: Message + Default>(request: Bytes) -> Result<T, Status> {
    T::decode(request).map_err(|error| Status::invalid_argument(error.to_string()))
}
