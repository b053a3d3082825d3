//! Clusters as one worker uses them: balancing, limits, and connections that are kept.

mod connect;
mod dial;
mod h1;
mod h2;
mod pool;
mod stream;
mod waiting;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::balance::{Balancer, EndpointKey, Finish, NoEndpoint, Wanted};
use fairlead_model::budget::{BudgetState, RetryBudget};
use fairlead_model::cluster::{Address, Cluster, Discovery, Endpoint, Endpoints};
use fairlead_model::egress;
use fairlead_model::fault::Fault;
use fairlead_model::limits::Limits;
use fairlead_model::{Moment, breaker::Judged};
use tokio::sync::Notify;

use crate::core::Shared;
use crate::metrics::ClusterFigures;
use crate::tls::ClusterTls;

pub(crate) use connect::{ConnectError, Connected, Connector};
pub(crate) use h2::{Received, Tunnel};
pub(crate) use pool::{Failure, Lease, Pool, Sent};
pub(crate) use stream::Stream;

/// How long a request waits for the first endpoint of a cluster.
const WAIT_FOR_ENDPOINT: Duration = Duration::from_secs(3);

/// How long a request may go on after its answer has ended.
const REST_OF_REQUEST: Duration = Duration::from_secs(60);

/// A cluster as one worker uses it.
#[derive(Debug)]
pub(crate) struct Upstream {
    settings: RefCell<Arc<Cluster>>,
    limits: Cell<Limits>,
    connector: RefCell<Rc<Connector>>,
    balancer: RefCell<Balancer>,
    pools: RefCell<Vec<Kept>>,
    pub(crate) counts: Rc<Counts>,
    pub(crate) figures: Arc<ClusterFigures>,
    came: Notify,
}

/// The connections of the endpoint that has the place now.
type Kept = Option<(EndpointKey, Rc<Pool>)>;

/// What says which endpoint a caller wants to reach.
#[derive(Debug, Default)]
pub(crate) struct Asked<'a> {
    /// The request's headers.
    pub(crate) headers: Option<&'a http::HeaderMap>,
    /// Where the caller's connection was made to.
    pub(crate) original: Option<std::net::SocketAddr>,
    /// The host that the request, or its TLS, names.
    pub(crate) host: Option<&'a str>,
    /// The port, where the host names none.
    pub(crate) port: Option<u16>,
}

/// What runs at once.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: Cell<u32>,
    pub(crate) retries: Cell<u32>,
    pub(crate) connections: Cell<u32>,
    pub(crate) pending: Cell<u32>,
}

impl Upstream {
    pub(crate) fn new(settings: Arc<Cluster>, tls: ClusterTls, shared: &Arc<Shared>) -> Self {
        Self {
            limits: Cell::new(settings.limits.share(shared.cores)),
            connector: RefCell::new(Rc::new(Connector::new(&settings, tls, shared))),
            balancer: RefCell::new(Balancer::new(
                settings.balancing.clone(),
                settings.breaker.clone(),
            )),
            pools: RefCell::default(),
            counts: Rc::default(),
            figures: shared.figures.cluster(&settings.name),
            came: Notify::new(),
            settings: RefCell::new(settings),
        }
    }

    /// Takes new settings; connections that were made by others are not used for new requests.
    pub(crate) fn configure(
        &self,
        settings: Arc<Cluster>,
        tls: ClusterTls,
        shared: &Arc<Shared>,
        now: Moment,
    ) {
        self.limits.set(settings.limits.share(shared.cores));
        let connector = Connector::new(&settings, tls, shared);
        if !connector.is_like(&self.connector.borrow()) {
            *self.connector.borrow_mut() = Rc::new(connector);
            self.pools.borrow_mut().clear();
        }
        let old = self.settings.replace(Arc::clone(&settings));
        if old.balancing != settings.balancing || old.breaker != settings.breaker {
            self.balancer.borrow_mut().configure(
                settings.balancing.clone(),
                settings.breaker.clone(),
                now,
            );
        }
    }

    /// Takes the endpoints there are now.
    pub(crate) fn update(&self, endpoints: &Endpoints, now: Moment) {
        let mut balancer = self.balancer.borrow_mut();
        let left = balancer.update(endpoints, now);
        self.forget(left);
        self.reconnect(&balancer);
        self.figures.update_success.increment();
        self.figures
            .membership_total
            .set(i64::try_from(balancer.len()).unwrap_or(i64::MAX));
        self.figures
            .membership_healthy
            .set(i64::try_from(balancer.well()).unwrap_or(i64::MAX));
        if !balancer.is_empty() {
            self.came.notify_waiters();
        }
    }

    /// Ends what is kept for endpoints that left, as far as no request uses it.
    fn forget(&self, left: Vec<EndpointKey>) {
        let mut pools = self.pools.borrow_mut();
        for key in left {
            if let Some(pool) = pools.get_mut(key.slot()) {
                *pool = None;
            }
        }
    }

    /// Forgets connections to endpoints that are to be secured otherwise now.
    fn reconnect(&self, balancer: &Balancer) {
        if self.settings.borrow().sockets.is_empty() {
            return;
        }
        for kept in self.pools.borrow_mut().iter_mut() {
            let is_other = kept.as_ref().is_some_and(|(key, pool)| {
                let labels = |endpoint: &Arc<Endpoint>| endpoint.socket_labels.clone();
                balancer.endpoint(*key).map(labels) != pool.endpoint().map(labels)
            });
            if is_other {
                *kept = None;
            }
        }
    }

    /// Whether it never had endpoints.
    pub(crate) fn is_fresh(&self) -> bool {
        self.balancer.borrow().is_empty()
    }

    pub(crate) fn settings(&self) -> Arc<Cluster> {
        Arc::clone(&self.settings.borrow())
    }

    /// The endpoint that a caller wants to reach, where that is how endpoints are found.
    pub(crate) fn wanted(&self, asked: &Asked<'_>) -> Option<Address> {
        let settings = self.settings.borrow();
        match &settings.discovery {
            Discovery::OriginalDestination(own) => own
                .address(asked.headers, asked.host, asked.original)
                .map(Address::Socket),
            Discovery::Named(_) => {
                let usual = if settings.tls.is_some() { 443 } else { 80 };
                egress::destination(asked.host?, asked.port.unwrap_or(usual))
            }
            _ => None,
        }
    }

    /// Whether it goes wherever its callers want to, by address.
    pub(crate) fn goes_anywhere(&self) -> bool {
        let settings = self.settings.borrow();
        matches!(settings.discovery, Discovery::OriginalDestination(_))
    }

    /// After which time an endpoint is forgotten that nobody wants, where endpoints are what callers want to reach.
    fn forgets(&self) -> Option<Duration> {
        match &self.settings.borrow().discovery {
            Discovery::OriginalDestination(own) => Some(own.cleanup),
            Discovery::Named(own) => Some(own.cache.host_ttl),
            _ => None,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// Runs `look` over the endpoints, for the admin interface and health checks.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Balancer) -> T) -> T {
        look(&mut self.balancer.borrow_mut())
    }

    /// Room for one more request that runs; nothing where as many run as may.
    pub(crate) fn room(&self) -> Option<Held> {
        Held::take(
            &self.counts,
            |counts| &counts.requests,
            self.limits().requests,
        )
    }

    /// Room for one more session of datagrams; nothing where as many connections and sessions are open as may be.
    pub(crate) fn session(&self) -> Option<Held> {
        let most = self.limits().connections;
        let held = Held::take(&self.counts, |counts| &counts.connections, most);
        if held.is_none() {
            self.figures.upstream_cx_overflow.increment();
        }
        held
    }

    /// Chooses an endpoint where there is one now.
    pub(crate) fn choose(
        &self,
        wanted: &Wanted<'_>,
        now: Moment,
        random: &RefCell<fastrand::Rng>,
    ) -> Option<(EndpointKey, Address)> {
        let mut balancer = self.balancer.borrow_mut();
        let key = balancer.pick(wanted, now, &mut random.borrow_mut()).ok();
        let chosen = key.and_then(|key| Some((key, balancer.endpoint(key)?.address.clone())));
        if chosen.is_none() {
            self.figures.upstream_cx_none_healthy.increment();
        }
        chosen
    }

    /// Chooses an endpoint, waiting a little for a cluster that has none. The clock has to have been read since the caller
    /// last waited.
    pub(crate) async fn pick(
        &self,
        wanted: &Wanted<'_>,
        clock: &crate::clock::Clock,
        random: &RefCell<fastrand::Rng>,
    ) -> Result<(EndpointKey, Rc<Pool>), Fault> {
        if let Some(at) = wanted.at {
            let key = self.balancer.borrow_mut().pick_at(at, clock.read());
            let key = key.map_err(|_| Fault::NoEndpoint)?;
            return Ok((key, self.pool(key)));
        }
        let mut waited = false;
        let mut now = clock.read();
        loop {
            let came = self.came.notified();
            let picked = self
                .balancer
                .borrow_mut()
                .pick(wanted, now, &mut random.borrow_mut());
            match picked {
                Ok(key) => return Ok((key, self.pool(key))),
                Err(NoEndpoint::Empty) if !waited && self.forgets().is_none() => {
                    waited = true;
                    if tokio::time::timeout(WAIT_FOR_ENDPOINT, came).await.is_ok() {
                        now = clock.now();
                        continue;
                    }
                }
                Err(_) => {}
            }
            self.figures.upstream_cx_none_healthy.increment();
            return Err(Fault::NoEndpoint);
        }
    }

    /// An answer began.
    pub(crate) fn answered(&self, key: EndpointKey, latency: Duration, now: Moment) {
        self.balancer.borrow_mut().answered(key, latency, now);
    }

    /// A try ended.
    pub(crate) fn finish(
        &self,
        key: EndpointKey,
        finish: Finish,
        now: Moment,
        random: &RefCell<fastrand::Rng>,
    ) {
        let mut balancer = self.balancer.borrow_mut();
        let rested = balancer.resting();
        balancer.finish(key, finish, now, &mut random.borrow_mut());
        let rests = balancer.resting();
        if rested != rests {
            if rests > rested {
                self.figures.outlier_detection_ejections_total.increment();
            }
            self.figures
                .outlier_detection_ejections_active
                .set(i64::try_from(rests).unwrap_or(i64::MAX));
            self.figures
                .membership_healthy
                .set(i64::try_from(balancer.well()).unwrap_or(i64::MAX));
        }
    }

    /// Closes connections that nobody used for their time, and forgets those that ended.
    pub(crate) fn sweep(&self, now: Moment) {
        if let Some(unwanted) = self.forgets() {
            let gone = self.balancer.borrow_mut().expire(unwanted, now);
            self.forget(gone);
        }
        let idle = self.settings.borrow().idle_timeout;
        for (_, pool) in self.pools.borrow().iter().flatten() {
            pool.sweep(now, idle);
        }
    }

    fn pool(&self, key: EndpointKey) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        if pools.len() <= key.slot() {
            pools.resize_with(key.slot() + 1, || None);
        }
        let place = &mut pools[key.slot()];
        match place {
            Some((own, pool)) if *own == key => Rc::clone(pool),
            _ => {
                let balancer = self.balancer.borrow();
                let endpoint = balancer.endpoint(key).cloned();
                let pool = Rc::new(Pool::new(
                    endpoint,
                    Rc::clone(&self.connector.borrow()),
                    Rc::clone(&self.counts),
                    Arc::clone(&self.figures),
                ));
                *place = Some((key, Rc::clone(&pool)));
                pool
            }
        }
    }
}

/// A number that is one higher while this lives.
#[derive(Debug)]
pub(crate) struct Held {
    counts: Rc<Counts>,
    which: fn(&Counts) -> &Cell<u32>,
}

impl Held {
    /// Raises the number, unless it is at its limit.
    pub(crate) fn take(
        counts: &Rc<Counts>,
        which: fn(&Counts) -> &Cell<u32>,
        limit: u32,
    ) -> Option<Self> {
        let number = which(counts);
        if number.get() >= limit {
            return None;
        }
        number.set(number.get() + 1);
        Some(Self {
            counts: Rc::clone(counts),
            which,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let number = (self.which)(&self.counts);
        number.set(number.get().saturating_sub(1));
    }
}

/// The retry budget of a route, kept by name so that it outlives a change of its table.
#[derive(Debug)]
pub(crate) struct Budget {
    settings: RetryBudget,
    state: BudgetState,
}

impl Budget {
    pub(crate) fn new(settings: RetryBudget, cores: u32) -> Self {
        let share = RetryBudget {
            least_per_second: settings.least_per_second / f64::from(cores),
            ..settings
        };
        Self {
            settings,
            state: BudgetState::new(share),
        }
    }

    pub(crate) fn is_of(&self, settings: &RetryBudget) -> bool {
        self.settings == *settings
    }

    pub(crate) fn requested(&mut self, now: Moment) {
        self.state.requested(now);
    }

    pub(crate) fn withdraw(&mut self, now: Moment) -> bool {
        self.state.withdraw(now)
    }
}

/// What an answer or a failure means to a breaker.
pub(crate) fn judged(is_failure: bool, is_rejection: bool) -> Judged {
    match (is_rejection, is_failure) {
        (true, _) => Judged::Rejection,
        (false, true) => Judged::Failure,
        (false, false) => Judged::Success,
    }
}
