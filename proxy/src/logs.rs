//! Access logs: a thread of its own writes what workers hand over, so that no request waits for a disk.
//!
//! Lines wait in a queue of [`WAITING`]; those for which it has no room are dropped and counted. A file that was moved away or
//! removed is made anew within a second, or at once after [`Logs::reopen`]; so both ways of rotation lose no line.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, mpsc as plain};
use std::time::{Duration, Instant};

use fairlead_model::log::LogTarget;
use tokio::sync::mpsc;

use crate::metrics::{Figures, ProcessFigures};

/// How many lines may wait to be written.
const WAITING: usize = 16_384;
/// How many bytes are written at once.
const AT_ONCE: usize = 64 << 10;
/// How often a file is looked for where it should be, and tried again when it could not be opened.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread is told.
enum Entry {
    Line(Arc<LogTarget>, String),
    Flush(plain::Sender<()>),
}

/// Where lines are handed over.
#[derive(Clone)]
pub(crate) struct Sink {
    target: Arc<LogTarget>,
    sender: mpsc::Sender<Entry>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sink({:?})", self.target)
    }
}

impl Sink {
    /// Hands a line over; `figures` belong to the caller's worker.
    pub(crate) fn write(&self, line: String, figures: &ProcessFigures) {
        match self
            .sender
            .try_send(Entry::Line(Arc::clone(&self.target), line))
        {
            Ok(()) => figures.access_log_lines.increment(),
            Err(_) => figures.access_log_dropped.increment(),
        }
    }
}

/// The access logs of the process.
#[derive(Default)]
pub struct Logs {
    sender: OnceLock<mpsc::Sender<Entry>>,
    reopened: Arc<AtomicU32>,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Logs(running: {})", self.sender.get().is_some())
    }
}

impl Logs {
    /// A sink; the thread begins with the first.
    pub(crate) fn sink(&self, target: &LogTarget, figures: &Figures) -> Sink {
        let sender = self.sender.get_or_init(|| {
            let (sender, entries) = mpsc::channel(WAITING);
            let writer = Writer {
                files: HashMap::new(),
                figures: figures.process(),
                reopened: Arc::clone(&self.reopened),
                seen: 0,
            };
            let started = std::thread::Builder::new()
                .name("access-log".to_owned())
                .spawn(move || writer.run(entries));
            if let Err(error) = started {
                tracing::error!(%error, "no access log is written");
            }
            sender
        });
        Sink {
            target: Arc::new(target.clone()),
            sender: sender.clone(),
        }
    }

    /// Has every file opened again before its next line.
    pub fn reopen(&self) {
        self.reopened.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until what was handed over is written, at most for `most`.
    pub fn flush(&self, most: Duration) {
        let Some(sender) = self.sender.get() else {
            return;
        };
        let (done, wait) = plain::channel();
        let begun = Instant::now();
        let mut entry = Entry::Flush(done);
        while let Err(mpsc::error::TrySendError::Full(back)) = sender.try_send(entry) {
            if begun.elapsed() >= most {
                return;
            }
            entry = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = wait.recv_timeout(most.saturating_sub(begun.elapsed()));
    }
}

/// A file, and what waits to be written to it.
struct Open {
    file: Option<File>,
    waiting: Vec<u8>,
    lines: u64,
    looked: Instant,
}

struct Writer {
    files: HashMap<Arc<LogTarget>, Open>,
    figures: Arc<ProcessFigures>,
    reopened: Arc<AtomicU32>,
    seen: u32,
}

impl Writer {
    fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        while let Some(first) = entries.blocking_recv() {
            let mut next = Some(first);
            let mut flushes = Vec::new();
            while let Some(entry) = next {
                match entry {
                    Entry::Line(target, line) => self.take(target, &line),
                    Entry::Flush(done) => flushes.push(done),
                }
                next = entries.try_recv().ok();
            }
            self.write_all();
            for done in flushes {
                let _ = done.send(());
            }
        }
    }

    fn take(&mut self, target: Arc<LogTarget>, line: &str) {
        let now = Instant::now();
        let open = self
            .files
            .entry(Arc::clone(&target))
            .or_insert_with(|| Open {
                file: None,
                waiting: Vec::new(),
                lines: 0,
                looked: now.checked_sub(LOOK).unwrap_or(now),
            });
        open.waiting.extend_from_slice(line.as_bytes());
        open.lines += 1;
        if open.waiting.len() >= AT_ONCE {
            open.write(&target, &self.figures);
        }
    }

    fn write_all(&mut self) {
        let reopened = self.reopened.load(Ordering::Relaxed);
        if reopened != self.seen {
            self.seen = reopened;
            for open in self.files.values_mut() {
                open.file = None;
                open.looked = Instant::now().checked_sub(LOOK).unwrap_or(open.looked);
            }
        }
        for (target, open) in &mut self.files {
            open.write(target, &self.figures);
        }
    }
}

impl Open {
    fn write(&mut self, target: &LogTarget, figures: &ProcessFigures) {
        if self.waiting.is_empty() {
            return;
        }
        let outcome = match target {
            LogTarget::Stdout => io::stdout().lock().write_all(&self.waiting),
            LogTarget::Stderr => io::stderr().lock().write_all(&self.waiting),
            LogTarget::File(path) => self.write_file(path),
        };
        if let Err(error) = outcome {
            figures.access_log_failed.add(self.lines);
            self.file = None;
            tracing::debug!(%error, ?target, lines = self.lines, "failed to write an access log");
        }
        self.waiting.clear();
        self.lines = 0;
    }

    fn write_file(&mut self, path: &Path) -> io::Result<()> {
        let now = Instant::now();
        if now.duration_since(self.looked) >= LOOK {
            self.looked = now;
            if !self.file.as_ref().is_some_and(|file| is_at(file, path)) {
                self.file = None;
                let opened = OpenOptions::new().append(true).create(true).open(path);
                self.file = Some(opened.inspect_err(
                    |error| tracing::warn!(%error, path = %path.display(), "failed to open an access log"),
                )?);
            }
        }
        match &mut self.file {
            Some(file) => file.write_all(&self.waiting),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Whether a file is still the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(own), Ok(there)) => own.ino() == there.ino() && own.dev() == there.dev(),
        _ => false,
    }
}
