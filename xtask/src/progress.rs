//! What a person sees while the automation works: one line when a step is done, with its time, and a sign
//! of life every 20 s while a long one runs. Everything goes to standard error, so that standard output
//! holds only what a command was asked for.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

const HEARTBEAT: Duration = Duration::from_secs(20);

/// Runs `work` as one step and prints how it ended and how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let (done, over) = mpsc::channel::<()>();
    let label = what.to_owned();
    let beat = thread::spawn(move || {
        while over.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("   ...  {label} ({} s so far)", started.elapsed().as_secs());
        }
    });
    let outcome = work();
    drop(done);
    // The thread only prints; should it have panicked, the step's own outcome still stands.
    let _ = beat.join();
    let verdict = if outcome.is_ok() { "ok    " } else { "FAILED" };
    eprintln!(
        "{verdict}  {what}  {:.1} s",
        started.elapsed().as_secs_f64()
    );
    outcome
}

/// Prints a line that is not a step of its own.
pub(crate) fn note(what: &str) {
    eprintln!("note    {what}");
}
