//! What one worker holds. Nothing here is shared with another worker but numbers that are read, and the snapshot.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairlead_model::budget::RetryBudget;
use fairlead_model::hedge::Hedge;
use fairlead_model::latency::BOUNDS;
use fairlead_model::route::{Route, RouteTable};
use fairlead_model::{Snapshot, share};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::hand_over::Sockets;
use crate::http::{DarkRoutes, Errands, Found, Hedging, KeySets, Limiters, Verifiers};
use crate::limit::Timers;
use crate::logs::Logs;
use crate::metrics::{Figures, ProcessFigures, RouteFigures, RuleFigures};
use crate::overload::Pressure;
use crate::tap::Taps;
use crate::trace::Spans;
use crate::upkeep::Hosts;
use crate::upstream::{Budget, Upstream};
use crate::worker::Ask;

/// How often is looked whether all workers listen.
const LOOK: Duration = Duration::from_millis(10);

/// What all workers and the admin interface share.
#[derive(Debug)]
pub struct Shared {
    /// The numbers.
    pub figures: Figures,
    /// Whether the process is to take no more, and end what it has.
    pub draining: watch::Sender<bool>,
    /// Whether it says of itself that it is not well (`/healthcheck/fail`).
    pub is_failing: AtomicBool,
    /// What is given up for want of memory.
    pub pressure: Pressure,
    /// How many workers there are.
    pub cores: u32,
    /// The access logs.
    pub logs: Logs,
    /// The spans of traced requests.
    pub spans: Spans,
    /// Who watches live requests.
    pub taps: Arc<Taps>,
    /// Where names are asked for that requests bring along.
    pub(crate) hosts: Hosts,
    /// The sockets that listen.
    pub(crate) sockets: Sockets,
    /// The buckets of rate limits.
    pub(crate) limiters: Limiters,
    /// The keys of tokens.
    pub(crate) key_sets: KeySets,
    /// How many faults run that were made on purpose.
    pub(crate) active_faults: AtomicU32,
    /// Whether nothing is to go wrong on purpose (`/runtime_modify?faults.disabled=true`).
    pub faults_off: AtomicBool,
    workers: Mutex<Vec<mpsc::UnboundedSender<Ask>>>,
    /// How many workers listen, by the name of the listener.
    listening: Mutex<BTreeMap<String, u32>>,
    /// Whether all that there was to listen on was listened on once.
    was_listening: AtomicBool,
}

impl Shared {
    /// For a number of workers.
    #[must_use]
    pub fn new(cores: u32) -> Arc<Self> {
        Self::with_bounds(cores, &BOUNDS)
    }

    /// For a number of workers, with these bounds of latency histograms in milliseconds, in rising order.
    #[must_use]
    pub fn with_bounds(cores: u32, bounds: &[f64]) -> Arc<Self> {
        Arc::new(Self {
            figures: Figures::with_bounds(bounds),
            draining: watch::Sender::new(false),
            is_failing: AtomicBool::new(false),
            pressure: Pressure::default(),
            cores: cores.max(1),
            logs: Logs::default(),
            spans: Spans::default(),
            taps: Arc::default(),
            hosts: Hosts::default(),
            sockets: Sockets::default(),
            limiters: Limiters::default(),
            key_sets: KeySets::default(),
            active_faults: AtomicU32::new(0),
            faults_off: AtomicBool::new(false),
            workers: Mutex::default(),
            listening: Mutex::default(),
            was_listening: AtomicBool::new(false),
        })
    }

    /// A worker listens, or does no longer.
    pub(crate) fn listens(&self, listener: &str, is_so: bool) {
        let mut all = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(listener.to_owned()).or_default();
        *count = match is_so {
            true => *count + 1,
            false => count.saturating_sub(1),
        };
        if *count == 0 {
            all.remove(listener);
        }
    }

    /// Waits until every worker listens on all listeners.
    pub(crate) async fn listening(&self, snapshots: &watch::Receiver<Arc<Snapshot>>) {
        while !self.has_listened(&snapshots.borrow()) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether every worker has listened on all listeners; what is added after that takes it back no more.
    pub(crate) fn has_listened(&self, snapshot: &Snapshot) -> bool {
        if self.was_listening.load(Relaxed) {
            return true;
        }
        let all = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let listeners = &snapshot.listeners;
        let is_so = !listeners.is_empty()
            && !snapshot.awaits_listeners
            && listeners
                .values()
                .filter(|own| own.binds)
                .all(|own| all.get(&own.name).is_some_and(|count| *count >= self.cores));
        self.was_listening.store(is_so, Relaxed);
        is_so
    }

    /// Where workers are asked.
    pub(crate) fn workers(&self) -> Vec<mpsc::UnboundedSender<Ask>> {
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A worker takes questions from here on.
    pub(crate) fn take_questions(&self) -> mpsc::UnboundedReceiver<Ask> {
        let (sender, questions) = mpsc::unbounded_channel();
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
        questions
    }
}

/// The routes a listener uses now; another table may take its place at any time.
pub(crate) type TableCell = Rc<RefCell<Option<Arc<RouteTable>>>>;

/// Numbers by the addresses of a route, which is kept, and of a cluster's name in it.
type KnownRoutes = HashMap<(usize, usize), (Arc<Route>, Arc<RouteFigures>)>;

/// What one worker holds.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Clock,
    pub(crate) timers: Rc<Timers>,
    pub(crate) random: RefCell<fastrand::Rng>,
    pub(crate) upstreams: RefCell<HashMap<Arc<str>, Rc<Upstream>>>,
    pub(crate) tables: RefCell<HashMap<String, TableCell>>,
    pub(crate) snapshot: RefCell<Arc<Snapshot>>,
    pub(crate) connections: Cell<u32>,
    pub(crate) figures: Arc<ProcessFigures>,
    /// The buckets of rate limits.
    pub(crate) limiters: Found,
    /// What tells good tokens.
    pub(crate) verifiers: Verifiers,
    /// The ways to services that are asked of requests.
    pub(crate) errands: Errands,
    /// The routes of dark traffic.
    pub(crate) dark: DarkRoutes,
    routes: RefCell<KnownRoutes>,
    rules: RefCell<HashMap<Arc<str>, Arc<RuleFigures>>>,
    budgets: RefCell<HashMap<String, Rc<RefCell<Budget>>>>,
    hedgings: RefCell<HashMap<String, Rc<RefCell<Hedging>>>>,
}

impl Core {
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            figures: shared.figures.process(),
            shared,
            clock: Clock::new(),
            timers: Rc::default(),
            random: RefCell::new(fastrand::Rng::new()),
            upstreams: RefCell::default(),
            tables: RefCell::default(),
            snapshot: RefCell::default(),
            connections: Cell::new(0),
            limiters: Found::default(),
            verifiers: Verifiers::default(),
            errands: Errands::default(),
            dark: DarkRoutes::default(),
            routes: RefCell::default(),
            rules: RefCell::default(),
            budgets: RefCell::default(),
            hedgings: RefCell::default(),
        })
    }

    /// A cluster by its name.
    pub(crate) fn upstream(&self, name: &str) -> Option<Rc<Upstream>> {
        self.upstreams.borrow().get(name).cloned()
    }

    /// The numbers of what a route sends to one of its clusters; the addresses of both find them again.
    pub(crate) fn route_figures(&self, route: &Arc<Route>, cluster: &str) -> Arc<RouteFigures> {
        let key = (Arc::as_ptr(route) as usize, cluster.as_ptr() as usize);
        if let Some((_, figures)) = self.routes.borrow().get(&key) {
            return Arc::clone(figures);
        }
        let figures = self.shared.figures.route(&route.name, cluster);
        let known = (Arc::clone(route), Arc::clone(&figures));
        self.routes.borrow_mut().insert(key, known);
        figures
    }

    /// The numbers of rules that are only counted, by the name that they have.
    pub(crate) fn rule_figures(&self, name: &Arc<str>) -> Arc<RuleFigures> {
        if let Some(figures) = self.rules.borrow().get(name) {
            return Arc::clone(figures);
        }
        let figures = self.shared.figures.rules(name);
        let known = (Arc::clone(name), Arc::clone(&figures));
        self.rules.borrow_mut().insert(known.0, known.1);
        figures
    }

    /// The retry budget of a route.
    pub(crate) fn budget(&self, route: &str, settings: &RetryBudget) -> Rc<RefCell<Budget>> {
        let mut budgets = self.budgets.borrow_mut();
        match budgets.get(route) {
            Some(budget) if budget.borrow().is_of(settings) => Rc::clone(budget),
            _ => {
                // Each worker counts for itself: the least rate is shared out.
                let budget = Rc::new(RefCell::new(Budget::new(*settings, self.shared.cores)));
                budgets.insert(route.to_owned(), Rc::clone(&budget));
                budget
            }
        }
    }

    /// What is known of the hedging of a route.
    pub(crate) fn hedging(&self, route: &str, settings: &Hedge) -> Rc<RefCell<Hedging>> {
        let mut all = self.hedgings.borrow_mut();
        match all.get(route) {
            Some(known) if known.borrow().is_of(settings) => Rc::clone(known),
            _ => {
                let own = Rc::new(RefCell::new(Hedging::new(settings)));
                all.insert(route.to_owned(), Rc::clone(&own));
                own
            }
        }
    }

    /// Forgets what was found by the addresses of an old snapshot.
    pub(crate) fn forget_routes(&self) {
        self.routes.borrow_mut().clear();
        self.rules.borrow_mut().clear();
        self.limiters.clear();
        self.verifiers.clear();
        self.errands.clear();
        self.dark.clear();
    }

    /// The place of one of these, by their weights; nothing when none has any.
    pub(crate) fn choose<T>(&self, all: &[T], weight: impl Fn(&T) -> u32) -> Option<usize> {
        if let [only] = all {
            return (weight(only) > 0).then_some(0);
        }
        let sum = share::sum(all, &weight);
        let draw = (sum > 0).then(|| self.random.borrow_mut().u64(..sum))?;
        share::place(all, weight, draw)
    }

    /// A number below a million.
    pub(crate) fn draw(&self) -> u32 {
        self.random.borrow_mut().u32(..1_000_000)
    }
}
