//! Keys that are fetched: once for the whole process, in the background, whoever needs them.
//!
//! The worker that needs a set first keeps it up to date for all. A fetch that fails changes nothing: the last good keys count.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::filter::{KeySet, KeySetError, RemoteKeys};
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::core::Core;
use crate::http::errand::{Errand, ErrandError};
use crate::metrics::HttpFigures;

/// How long a set may be, in bytes.
const LONGEST_SET: usize = 1 << 20;
/// How long a fetch, and waiting for one, may take.
const LONGEST_FETCH: Duration = Duration::from_secs(10);
/// How often keys are fetched for tokens whose key is not among them.
const UNKNOWN_KEYS: Duration = Duration::from_secs(10);
/// The shortest time between two fetches, whatever the settings say.
const SHORTEST: Duration = Duration::from_millis(100);

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the URI cannot be asked for: {0}")]
    Request(http::Error),
    #[error("{0}")]
    Errand(ErrandError),
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error("the answer is no text")]
    Text,
    #[error("the answer {0}")]
    Keys(KeySetError),
}

/// All sets that are fetched, by where.
#[derive(Debug, Default)]
pub(crate) struct KeySets(Mutex<HashMap<Arc<RemoteKeys>, Weak<Remote>>>);

impl KeySets {
    /// The set that is fetched so.
    pub(super) fn of(&self, settings: &Arc<RemoteKeys>) -> Arc<Remote> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(settings).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, own| own.strong_count() > 0);
        let remote = Arc::new(Remote {
            settings: Arc::clone(settings),
            state: watch::Sender::default(),
            generation: AtomicU64::default(),
            asked: Mutex::default(),
            wanted: Arc::default(),
            is_kept: AtomicBool::default(),
        });
        all.insert(Arc::clone(settings), Arc::downgrade(&remote));
        remote
    }
}

/// A set that is fetched.
#[derive(Debug)]
pub(super) struct Remote {
    settings: Arc<RemoteKeys>,
    state: watch::Sender<State>,
    /// That of the state, for those who want to know no more.
    generation: AtomicU64,
    /// When a token's key was not known last, and how many fetches there are once that was looked into.
    asked: Mutex<Option<(Instant, u64)>>,
    /// Told when keys are wanted sooner, or by nobody any more.
    wanted: Arc<Notify>,
    /// Whether somebody keeps it up to date.
    is_kept: AtomicBool,
}

/// What is known of a set.
#[derive(Debug, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// How often the keys changed.
    generation: u64,
    /// How many fetches ended.
    fetches: u64,
}

/// Keys, and how often they changed before.
pub(super) type Current = (Arc<KeySet>, u64);

impl State {
    fn current(&self) -> Option<Current> {
        Some((Arc::clone(self.keys.as_ref()?), self.generation))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

impl Remote {
    /// Begins to keep it up to date, unless another worker does.
    pub(super) fn begin(self: &Arc<Self>, core: &Rc<Core>, figures: &Arc<HttpFigures>) {
        if !self.is_kept.swap(true, Ordering::Relaxed) {
            let (core, figures) = (Rc::clone(core), Arc::clone(figures));
            tokio::task::spawn_local(keep(core, Arc::downgrade(self), figures));
        }
    }

    /// How often the keys changed.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The keys; waits for the first fetch to end. Nothing where none went well.
    pub(super) async fn current(&self) -> Option<Current> {
        let known = self.state.borrow().current();
        match known {
            Some(known) => Some(known),
            None => self.after(1).await,
        }
    }

    /// The keys once they were fetched for a token whose key was not among them; nothing where they were only just before.
    pub(super) async fn renewed(&self) -> Option<Current> {
        let fetches = self.state.borrow().fetches;
        let wanted = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            match *asked {
                Some((_, wanted)) if fetches < wanted => wanted,
                Some((at, _)) if at.elapsed() < UNKNOWN_KEYS => return None,
                _ => {
                    *asked = Some((Instant::now(), fetches + 1));
                    self.wanted.notify_one();
                    fetches + 1
                }
            }
        };
        self.after(wanted).await
    }

    /// The keys once so many fetches have ended.
    async fn after(&self, fetches: u64) -> Option<Current> {
        let mut state = self.state.subscribe();
        let reached = state.wait_for(|own| own.fetches >= fetches);
        timeout(LONGEST_FETCH, reached).await.ok()?.ok()?.current()
    }

    /// Fetches the keys. Says whether that went well.
    async fn fetch(&self, core: &Rc<Core>, errand: &Errand, figures: &HttpFigures) -> bool {
        let (mut pause, most) = self.settings.backoff;
        let mut outcome = self.fetch_once(core, errand).await;
        for _ in 0..self.settings.retries {
            if outcome.is_ok() {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(most);
            outcome = self.fetch_once(core, errand).await;
        }
        let is_good = outcome.is_ok();
        match &outcome {
            Ok(_) => figures.jwt_authn_jwks_fetch_success.increment(),
            Err(error) => {
                figures.jwt_authn_jwks_fetch_failed.increment();
                let cluster = &*self.settings.cluster;
                tracing::warn!(cluster, %error, "keys of tokens could not be fetched; the last good ones count");
            }
        }
        self.state.send_modify(|state| {
            state.fetches += 1;
            if let Ok(keys) = outcome
                && state.keys.as_ref().is_none_or(|own| **own != keys)
            {
                state.keys = Some(Arc::new(keys));
                state.generation += 1;
                self.generation.store(state.generation, Ordering::Release);
            }
        });
        is_good
    }

    async fn fetch_once(&self, core: &Rc<Core>, errand: &Errand) -> Result<KeySet, FetchError> {
        let target = self.settings.uri.path_and_query();
        let target = target.map_or("/", |own| own.as_str());
        let request = Request::get(target)
            .header(ACCEPT, "application/json")
            .body(())
            .map_err(FetchError::Request)?;
        let (head, ()) = request.into_parts();
        let brought = errand
            .run(core, head, Bytes::new(), LONGEST_SET)
            .await
            .map_err(FetchError::Errand)?;
        if brought.head.status != StatusCode::OK {
            return Err(FetchError::Status(brought.head.status));
        }
        let text = std::str::from_utf8(&brought.body).map_err(|_| FetchError::Text)?;
        KeySet::parse(text, true).map_err(FetchError::Keys)
    }
}

/// The way to a set: one for all fetches, as what is counted of it is kept by it.
fn errand(settings: &RemoteKeys) -> Errand {
    let authority = settings.uri.authority().map_or("", |own| own.as_str());
    // What stands before the path of a URI is always a value of a header.
    let authority = HeaderValue::from_str(authority).unwrap_or(HeaderValue::from_static(""));
    let patience = settings.timeout.min(LONGEST_FETCH);
    Errand::new("jwks", &settings.cluster, authority, patience)
}

/// Keeps a set up to date for as long as somebody needs it.
async fn keep(core: Rc<Core>, remote: Weak<Remote>, figures: Arc<HttpFigures>) {
    let Some(errand) = remote.upgrade().map(|own| errand(&own.settings)) else {
        return;
    };
    while let Some(own) = remote.upgrade() {
        let wanted = Arc::clone(&own.wanted);
        let pause = match own.fetch(&core, &errand, &figures).await {
            true => own.settings.life,
            false => own.settings.pause,
        };
        drop(own);
        tokio::select! {
            () = tokio::time::sleep(pause.max(SHORTEST)) => {}
            () = wanted.notified() => {}
        }
    }
}
