//! Puts the operator together: watches, leadership, workers, certificates, and an orderly end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use fairlead_plan::kind::Operator;
use fairlead_plan::{Cache, Class, Event, KindName};
use futures::FutureExt;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::feed::Feed;
use crate::harness::{AnyKind, Next, kinds};
use crate::lease::{Candidate, Lead};
use crate::metrics::Metrics;
use crate::queue::{Key, Queue};
use crate::world::World;
use crate::{admin, certificates, client, unreadable};

/// The name of the operator's Lease.
const LEASE: &str = "fairlead-operator";
/// How long events of one object are gathered before it is looked at.
const GATHER: Duration = Duration::from_millis(150);
/// How long passes may take to end when the process does.
const GRACE: Duration = Duration::from_secs(10);

/// How long giving the lease back may take.
const RELEASE: Duration = Duration::from_secs(5);

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no cluster to connect to.
    #[error("failed to connect to the cluster: {source}")]
    Connect {
        /// The cause.
        source: Box<kube::Error>,
    },
    /// The admin port cannot be listened on.
    #[error("failed to serve {address}: {source}")]
    Admin {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// A part of the operator ended, which is a bug; a new process is better than half of one.
    #[error("a part of the operator ended unexpectedly")]
    TaskEnded,
    /// Another replica leads now.
    #[error("the lease was lost")]
    LeaseLost,
}

/// Runs the operator until `stop`.
///
/// # Errors
/// When it cannot start, or loses the lease: the process must end then.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::default());
    let client = client::connect(&metrics)
        .await
        .map_err(|source| RunError::Connect {
            source: Box::new(source),
        })?;
    run_with(client, metrics, config, stop).await
}

/// Runs the operator with a client of the caller's until `stop`.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    client: Client,
    metrics: Arc<Metrics>,
    config: Config,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let mut replica = Replica::stand_by(client, metrics, config, stop);
    match replica.wait().await {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) => return Err(error),
    }
    let (tasks, result) = replica.lead().await;
    replica.end(tasks, result.is_ok()).await;
    result
}

type Admin = JoinHandle<std::io::Result<()>>;

/// One process of the operator: caches are filled from its start on, and it writes while it leads.
struct Replica {
    work: Arc<Work>,
    received: Option<mpsc::UnboundedReceiver<Event>>,
    candidate: Candidate,
    admin: Admin,
    config: Config,
    stop: CancellationToken,
}

impl Replica {
    /// Starts watches and the admin port.
    fn stand_by(
        client: Client,
        metrics: Arc<Metrics>,
        config: Config,
        stop: CancellationToken,
    ) -> Self {
        let cache = Arc::new(Cache::default());
        let (events, received) = mpsc::unbounded_channel();
        let feed = Feed::new(
            client.clone(),
            Arc::clone(&cache),
            Arc::clone(&metrics),
            events,
            stop.clone(),
        );
        feed.start_own();
        feed.start_others();
        let admin = {
            let feed = Arc::clone(&feed);
            let ready: admin::Ready = Arc::new(move || feed.is_synced());
            let metrics = Arc::clone(&metrics);
            let text: admin::Metrics = Arc::new(move || metrics.encode());
            tokio::spawn(admin::serve(config.admin, text, ready, stop.clone()))
        };
        let lead = Lead::default();
        let candidate = Candidate::new(
            client.clone(),
            &config.namespace,
            LEASE,
            &config.identity,
            lead.clone(),
        );
        let operator = Operator {
            namespace: config.namespace.clone(),
            image: config.image.clone(),
            image_pull_policy: config.image_pull_policy.clone(),
            image_pull_secrets: config.image_pull_secrets.clone(),
            proxy_image: config.proxy_image.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ca_bundle: None,
        };
        let world = World::new(
            client,
            cache,
            feed,
            metrics,
            config.identity.clone(),
            lead,
            operator,
        );
        let work = Work {
            world: Arc::new(world),
            kinds: kinds(),
            queue: Queue::default(),
            resync: Duration::from_secs(config.resync_seconds),
        };
        Self {
            work: Arc::new(work),
            received: Some(received),
            candidate,
            admin,
            config,
            stop,
        }
    }

    /// Waits until this replica leads; false when it is stopped before.
    async fn wait(&mut self) -> Result<bool, RunError> {
        let waiting = async {
            self.work.world.feed.synced().await;
            tracing::info!("caches are filled; waiting for the lease");
            self.candidate.acquire().await;
        };
        // Whoever begins to lead looks at everything, so events until then are worth nothing.
        let received = &mut self.received;
        let dropping = async {
            if let Some(received) = received {
                while received.recv().await.is_some() {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = waiting => Ok(true),
            () = self.stop.cancelled() => Ok(false),
            () = dropping => Ok(false),
            ended = &mut self.admin => Err(admin_error(&self.config, ended)),
        }
    }

    /// Works until it is stopped or something fails; returns what still runs.
    async fn lead(&mut self) -> (JoinSet<()>, Result<(), RunError>) {
        tracing::info!("leading");
        self.work.world.metrics.lead(true);
        let mut tasks = start(&self.work, self.received.take(), &self.config, &self.stop);
        let result = tokio::select! {
            // Everything ends on a stop; that must not look like a failure.
            biased;
            () = self.stop.cancelled() => Ok(()),
            () = self.candidate.hold() => Err(RunError::LeaseLost),
            ended = &mut self.admin => Err(admin_error(&self.config, ended)),
            _ = tasks.join_next() => Err(RunError::TaskEnded),
        };
        (tasks, result)
    }

    /// Lets the passes that run end, and gives the lease back where it is still held.
    async fn end(&mut self, mut tasks: JoinSet<()>, holds: bool) {
        self.stop.cancel();
        self.work.queue.close();
        let finish = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            tracing::warn!("passes did not end in time");
            tasks.abort_all();
        }
        if holds
            && tokio::time::timeout(RELEASE, self.candidate.release())
                .await
                .is_err()
        {
            tracing::warn!("giving the lease back took too long");
        }
    }
}

fn admin_error(config: &Config, ended: Result<std::io::Result<()>, JoinError>) -> RunError {
    let source = match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => std::io::Error::other("it ended"),
        Err(error) => std::io::Error::other(error),
    };
    RunError::Admin {
        address: config.admin,
        source,
    }
}

/// What the workers share.
struct Work {
    world: Arc<World>,
    kinds: Vec<Box<dyn AnyKind>>,
    queue: Queue,
    resync: Duration,
}

fn start(
    work: &Arc<Work>,
    received: Option<mpsc::UnboundedReceiver<Event>>,
    config: &Config,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for kind in &work.kinds {
        for id in kind.ids(&work.world.cache) {
            work.queue.add(
                Key {
                    kind: kind.name(),
                    id,
                },
                Duration::ZERO,
            );
        }
    }
    if let Some(received) = received {
        tasks.spawn(listen(Arc::clone(work), received, stop.clone()));
    }
    tokio::spawn(measure(Arc::clone(work), stop.clone()));
    tokio::spawn(unreadable::tell(Arc::clone(&work.world), stop.clone()));
    let certificates = certificates::keep(Arc::clone(&work.world), config.namespace.clone(), {
        let work = Arc::clone(work);
        move || {
            for id in work.world.cache.fairleads.ids() {
                work.queue.add(
                    Key {
                        kind: KindName::Fairlead,
                        id,
                    },
                    Duration::ZERO,
                );
            }
        }
    });
    let stopped = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = certificates => {}
            () = stopped.cancelled() => {}
        }
    });
    for _ in 0..config.concurrency.max(1) {
        tasks.spawn(worker(Arc::clone(work)));
    }
    tasks
}

/// Turns events into work.
async fn listen(
    work: Arc<Work>,
    mut received: mpsc::UnboundedReceiver<Event>,
    stop: CancellationToken,
) {
    loop {
        let event = tokio::select! {
            event = received.recv() => event,
            () = stop.cancelled() => return,
        };
        let Some(event) = event else { return };
        if let Event::Own(kind, id) = &event {
            work.queue.add(
                Key {
                    kind: *kind,
                    id: id.clone(),
                },
                Duration::ZERO,
            );
        }
        if let Event::Other(meta) = &event
            && let Some(key) = &meta.key
            && work.world.cache.other(key).is_none()
        {
            work.world.forget(key);
        }
        for kind in &work.kinds {
            for id in kind.triggers(&event, &work.world.cache) {
                work.queue.add(
                    Key {
                        kind: kind.name(),
                        id,
                    },
                    GATHER,
                );
            }
        }
    }
}

async fn measure(work: Arc<Work>, stop: CancellationToken) {
    loop {
        work.world.metrics.queue_depth(work.queue.depth());
        for kind in &work.kinds {
            work.world
                .metrics
                .cached(kind.name().as_str(), kind.count(&work.world.cache));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn worker(work: Arc<Work>) {
    while let Some(key) = work.queue.next().await {
        let Some(kind) = work.kinds.iter().find(|kind| kind.name() == key.kind) else {
            continue;
        };
        let started = std::time::Instant::now();
        let pass = AssertUnwindSafe(kind.pass(&work.world, &key.id));
        let next = pass.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(kind = key.kind.as_str(), object = %key.id, "a pass panicked; this is a bug");
            Next::Problem(Class::Bug)
        });
        let result = match next {
            Next::Problem(class) => class.as_str(),
            _ => "ok",
        };
        work.world
            .metrics
            .pass(key.kind.as_str(), result, started.elapsed().as_secs_f64());
        let pause = pause(&work, &key, next);
        work.queue.done(&key);
        if let Some(pause) = pause {
            work.queue.add(key, pause);
        }
    }
}

/// How long until the next look.
fn pause(work: &Work, key: &Key, next: Next) -> Option<Duration> {
    if !matches!(next, Next::Problem(Class::Transient | Class::Denied)) {
        work.queue.succeeded(key);
    }
    let jitter = |duration: Duration, share: f64| {
        duration.mul_f64(1.0 - share + 2.0 * share * rand::random::<f64>())
    };
    Some(match next {
        Next::Never => return None,
        Next::After(pause) => pause,
        Next::Resync | Next::Problem(Class::Waiting | Class::Invalid) => jitter(work.resync, 0.1),
        Next::Problem(Class::Conflict) => Duration::from_secs(1),
        Next::Problem(Class::Bug) => jitter(Duration::from_secs(300).min(work.resync), 0.1),
        // Nobody tells when a right is granted.
        Next::Problem(Class::Transient | Class::Denied) => {
            let doublings = work.queue.failed(key).saturating_sub(1).min(9);
            jitter(
                Duration::from_secs(1 << doublings).min(Duration::from_secs(300)),
                0.3,
            )
        }
    })
}
