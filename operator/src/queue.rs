//! The work queue: which objects are to be looked at, and when.
//!
//! An object stands in it once, however often it is added; it is never passed over by two workers at a time; and what is added
//! while a pass runs is looked at again afterwards. Failures back off per object.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_plan::{KindName, ObjectId};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Its kind.
    pub(crate) kind: KindName,
    /// Its namespace and name.
    pub(crate) id: ObjectId,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    due: HashMap<Key, Instant>,
    by_time: BTreeSet<(Instant, Key)>,
    running: HashSet<Key>,
    failures: HashMap<Key, u32>,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an object to be looked at after a pause, or earlier if it is due earlier already.
    pub(crate) fn add(&self, key: Key, after: Duration) {
        let at = Instant::now() + after;
        let mut state = self.lock();
        if state.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        if let Some(old) = state.due.insert(key.clone(), at) {
            state.by_time.remove(&(old, key.clone()));
        }
        state.by_time.insert((at, key));
        drop(state);
        self.changed.notify_one();
    }

    /// The next object that is due; `None` once the queue is closed.
    pub(crate) async fn next(&self) -> Option<Key> {
        loop {
            // Listens before it looks, so that nothing that happens in between is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let wait = {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                match state.take(Instant::now()) {
                    Ok(key) => {
                        let more = state
                            .by_time
                            .first()
                            .is_some_and(|(at, _)| *at <= Instant::now());
                        drop(state);
                        if more {
                            self.changed.notify_one();
                        }
                        return Some(key);
                    }
                    Err(wait) => wait,
                }
            };
            match wait {
                Some(wait) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(wait) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Ends the pass over an object.
    pub(crate) fn done(&self, key: &Key) {
        let mut state = self.lock();
        state.running.remove(key);
        drop(state);
        self.changed.notify_one();
    }

    /// Counts a failure and returns how many there were in a row.
    pub(crate) fn failed(&self, key: &Key) -> u32 {
        let mut state = self.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        *failures
    }

    /// Forgets failures.
    pub(crate) fn succeeded(&self, key: &Key) {
        self.lock().failures.remove(key);
    }

    /// How many objects are due now.
    pub(crate) fn depth(&self) -> usize {
        let state = self.lock();
        let now = Instant::now();
        state
            .by_time
            .iter()
            .take_while(|(at, _)| *at <= now)
            .count()
    }

    /// Ends the queue: nobody gets another object.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }
}

impl State {
    /// The first due object that is not being passed over; else the time to wait for.
    fn take(&mut self, now: Instant) -> Result<Key, Option<Instant>> {
        let mut found = None;
        let mut wait = None;
        for (at, key) in &self.by_time {
            if *at > now {
                wait = Some(*at);
                break;
            }
            if !self.running.contains(key) {
                found = Some((*at, key.clone()));
                break;
            }
        }
        let Some((at, key)) = found else {
            return Err(wait);
        };
        self.by_time.remove(&(at, key.clone()));
        self.due.remove(&key);
        self.running.insert(key.clone());
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key {
            kind: KindName::Release,
            id: ObjectId::new("a", name),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_added_twice_comes_once() {
        let queue = Queue::default();
        queue.add(key("x"), Duration::ZERO);
        queue.add(key("x"), Duration::ZERO);
        assert_eq!(queue.next().await, Some(key("x")));
        assert_eq!(queue.depth(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_not_passed_over_twice_at_a_time_and_comes_again_afterwards() {
        let queue = Queue::default();
        queue.add(key("x"), Duration::ZERO);
        assert_eq!(queue.next().await, Some(key("x")));
        queue.add(key("x"), Duration::ZERO);
        let second = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(
            second.is_err(),
            "a second worker got the object during the pass"
        );
        queue.done(&key("x"));
        assert_eq!(queue.next().await, Some(key("x")));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_time_wins() {
        let queue = Queue::default();
        queue.add(key("x"), Duration::from_secs(3600));
        queue.add(key("x"), Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(queue.next().await, Some(key("x")));
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_gives_nothing() {
        let queue = Queue::default();
        queue.add(key("x"), Duration::ZERO);
        queue.close();
        assert_eq!(queue.next().await, None);
    }
}
