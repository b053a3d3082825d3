//! Names that requests bring along: looked up once for all cores, and remembered within bounds.
//!
//! In: questions of connections that are to be made ([`Hosts::find`]). Out: addresses. A name is asked for when somebody needs it
//! and its answer counts no more; many who need it at once share one question. While no name server answers, the last good answer
//! counts. That there is none is remembered, too. The name nobody asked for the longest makes room for another one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fairlead_model::cluster::{AddressFamily, NameLookup};
use fairlead_model::egress::NameCache;
use hickory_resolver::TokioResolver;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::names::Resolvers;
use crate::core::Shared;
use crate::metrics::{Figures, NameFigures};

/// How many questions may wait to be looked at.
const QUESTIONS: usize = 4_096;
/// How many may wait for the answer about one name.
const WAITING: usize = 4_096;
/// How often names are looked for that nobody asks for.
const SWEEP: Duration = Duration::from_secs(1);

/// The addresses of a name, in the order in which they are tried.
pub(crate) type Addresses = Arc<[IpAddr]>;

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    /// The name server knows of none.
    #[error("there is no such name, or it has no address")]
    None,
    /// No name server answered.
    #[error("the name could not be looked up")]
    Failed,
    /// There is too much to look up.
    #[error("too many names are looked up")]
    Full,
}

type Answer = Result<Addresses, Unknown>;

/// Where names are asked for.
#[derive(Debug)]
pub(crate) struct Hosts {
    sender: mpsc::Sender<Question>,
    receiver: Mutex<Option<mpsc::Receiver<Question>>>,
}

#[derive(Debug)]
struct Question {
    cache: Arc<NameCache>,
    host: String,
    answer: oneshot::Sender<Answer>,
}

impl Default for Hosts {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUESTIONS);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl Hosts {
    /// The addresses of a host.
    pub(crate) async fn find(&self, cache: &Arc<NameCache>, host: &str) -> Answer {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            cache: Arc::clone(cache),
            host: host.to_owned(),
            answer,
        };
        self.sender.try_send(question).map_err(|_| Unknown::Full)?;
        answered.await.unwrap_or(Err(Unknown::Failed))
    }
}

/// Looks names up for as long as the process runs.
pub async fn look_up(shared: Arc<Shared>) {
    let receiver = shared.hosts.receiver.lock();
    let taken = receiver.unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut questions) = taken else {
        return;
    };
    let mut caches = Caches {
        figures: &shared.figures,
        all: HashMap::new(),
        resolvers: Resolvers::default(),
        running: JoinSet::new(),
    };
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            question = questions.recv() => match question {
                Some(question) => caches.ask(question),
                None => return,
            },
            Some(Ok(found)) = caches.running.join_next() => caches.found(found),
            _ = sweep.tick(), if !caches.all.is_empty() => caches.sweep(),
        }
    }
}

struct Caches<'a> {
    figures: &'a Figures,
    all: HashMap<String, Cache>,
    resolvers: Resolvers,
    running: JoinSet<Found>,
}

/// What is remembered under the settings of one name.
struct Cache {
    settings: Arc<NameCache>,
    figures: Arc<NameFigures>,
    hosts: HashMap<String, Host>,
}

/// What is remembered of a host.
#[derive(Debug)]
struct Host {
    /// The last good answer.
    good: Option<Addresses>,
    /// Why there is none now; nothing while the good one counts.
    fault: Option<Unknown>,
    /// Until when that counts.
    until: Instant,
    /// When it was asked for.
    used: Instant,
    failures: u32,
    /// Who waits; nothing while nobody asks.
    waiting: Option<Vec<oneshot::Sender<Answer>>>,
}

impl Host {
    fn answer(&self) -> Answer {
        match (&self.good, self.fault) {
            // The last good answer, unless the name server knows better.
            (Some(good), None | Some(Unknown::Failed | Unknown::Full)) => Ok(Arc::clone(good)),
            (_, fault) => Err(fault.unwrap_or(Unknown::Failed)),
        }
    }
}

/// What was found out of a host.
struct Found {
    cache: Arc<NameCache>,
    host: String,
    /// With how long it counts.
    outcome: Result<(Addresses, Duration), Unknown>,
}

impl Caches<'_> {
    fn ask(&mut self, question: Question) {
        let Question {
            cache: settings,
            host: name,
            answer,
        } = question;
        let cache = self
            .all
            .entry(settings.name.clone())
            .or_insert_with(|| Cache {
                settings: Arc::clone(&settings),
                figures: self.figures.names(&settings.name),
                hosts: HashMap::new(),
            });
        cache.settings = settings;
        let now = Instant::now();
        if !cache.hosts.contains_key(&name) && !cache.make_room() {
            cache.figures.host_overflow.increment();
            let _ = answer.send(Err(Unknown::Full));
            return;
        }
        let figures = &cache.figures;
        let host = cache.hosts.entry(name.clone()).or_insert_with(|| {
            figures.host_added.increment();
            figures.num_hosts.add(1);
            Host {
                good: None,
                fault: None,
                until: now,
                used: now,
                failures: 0,
                waiting: None,
            }
        });
        host.used = now;
        match &mut host.waiting {
            Some(waiting) if waiting.len() < WAITING => waiting.push(answer),
            Some(_) => drop(answer.send(Err(Unknown::Full))),
            None if host.until > now => drop(answer.send(host.answer())),
            None => {
                host.waiting = Some(vec![answer]);
                figures.dns_query_attempt.increment();
                let settings = NameLookup {
                    // Both families are asked for, so that one that does not work costs little.
                    family: match cache.settings.lookup.family {
                        AddressFamily::V6First | AddressFamily::V4First => AddressFamily::All,
                        own => own,
                    },
                    ..cache.settings.lookup.clone()
                };
                let resolver = self.resolvers.get(&settings);
                let question = query(resolver, Arc::clone(&cache.settings), name);
                self.running.spawn(question);
            }
        }
    }

    fn found(&mut self, found: Found) {
        let Found {
            cache: settings,
            host: name,
            outcome,
        } = found;
        let Some(cache) = self.all.get_mut(&settings.name) else {
            return;
        };
        let Some(host) = cache.hosts.get_mut(&name) else {
            return;
        };
        let figures = &cache.figures;
        let counts = match outcome {
            Ok((addresses, ttl)) => {
                figures.dns_query_success.increment();
                if host.good.as_ref() != Some(&addresses) {
                    figures.host_address_changed.increment();
                }
                (host.good, host.fault, host.failures) = (Some(addresses), None, 0);
                settings.counts(ttl)
            }
            Err(fault) => {
                figures.dns_query_failure.increment();
                if fault == Unknown::None {
                    host.good = None;
                }
                tracing::debug!(name, error = %fault, "a name of a request has no address");
                host.fault = Some(fault);
                host.failures += 1;
                let mut random = fastrand::Rng::new();
                let pause = settings.lookup.pause(host.failures, &mut random);
                pause.max(settings.least.min(Duration::from_secs(1)))
            }
        };
        host.until = Instant::now() + counts;
        for waiting in host.waiting.take().into_iter().flatten() {
            let _ = waiting.send(host.answer());
        }
    }

    /// Forgets names that nobody asked for.
    fn sweep(&mut self) {
        for cache in self.all.values_mut() {
            let most = cache.settings.host_ttl;
            let before = cache.hosts.len();
            cache
                .hosts
                .retain(|_, host| host.waiting.is_some() || host.used.elapsed() < most);
            cache.forgot(before - cache.hosts.len());
        }
        self.all.retain(|_, cache| !cache.hosts.is_empty());
    }
}

impl Cache {
    /// Makes room for one more name; says whether there is.
    fn make_room(&mut self) -> bool {
        if self.hosts.len() < usize::try_from(self.settings.most).unwrap_or(usize::MAX) {
            return true;
        }
        let free = self.hosts.iter().filter(|(_, host)| host.waiting.is_none());
        let oldest = free.min_by_key(|(_, host)| host.used);
        let Some(name) = oldest.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.hosts.remove(&name);
        self.forgot(1);
        true
    }

    fn forgot(&self, count: usize) {
        let removed = u64::try_from(count).unwrap_or(u64::MAX);
        self.figures.host_removed.add(removed);
        let now = i64::try_from(self.hosts.len()).unwrap_or(i64::MAX);
        self.figures.num_hosts.set(now);
    }
}

/// Asks for a name, as it is: nothing is put behind it.
async fn query(
    resolver: Option<Arc<TokioResolver>>,
    settings: Arc<NameCache>,
    host: String,
) -> Found {
    let asked = async {
        let resolver = resolver.ok_or(Unknown::Failed)?;
        match resolver.lookup_ip(format!("{host}.")).await {
            Ok(answer) => {
                let left = answer
                    .valid_until()
                    .saturating_duration_since(Instant::now());
                match settings.ordered(answer.iter()) {
                    none if none.is_empty() => Err(Unknown::None),
                    all => Ok((Addresses::from(all), left)),
                }
            }
            Err(error) if error.is_no_records_found() => Err(Unknown::None),
            Err(_) => Err(Unknown::Failed),
        }
    };
    let outcome = tokio::time::timeout(settings.timeout, asked).await;
    Found {
        cache: Arc::clone(&settings),
        host,
        outcome: outcome.unwrap_or(Err(Unknown::Failed)),
    }
}
