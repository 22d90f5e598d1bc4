//! Checkpoints that go to an object store behind the next steps, on a thread of its own (rank 0).
//!
//! One is on its way at a time; of those that wait, only the newest does. What becomes of them is told when the main thread
//! asks. Must not: delay the next checkpoint, nor change anything in the run directory.

use super::lock::Claim;
use crate::Error;
use crate::checkpoint::{self, Request};
use data_shards::remote::Store;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What became of an upload.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The checkpoint is in the store.
    Uploaded { step: u64, bytes: u64, took: Duration },
    /// It is not; the next one may be.
    Failed { step: u64, problem: checkpoint::Error },
    /// Nothing more may be uploaded.
    Over(Error),
}

/// Uploads, and what waits to be.
#[derive(Debug, Default)]
struct Queue {
    next: Option<Request>,
    running: Option<u64>,
    outcomes: Vec<Outcome>,
    closed: bool,
}

impl Queue {
    /// Takes one instead of what waits.
    fn offer(&mut self, request: Request) {
        self.next = Some(request);
    }

    /// The next to upload, where none is on its way.
    fn begin(&mut self) -> Option<Request> {
        let request = self.next.take_if(|_| self.running.is_none() && !self.closed)?;
        self.running = Some(request.step);
        Some(request)
    }

    fn end(&mut self, outcome: Outcome) {
        self.running = None;
        self.outcomes.push(outcome);
    }

    fn is_idle(&self) -> bool {
        self.next.is_none() && self.running.is_none()
    }
}

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The uploader of a run. Its thread ends with it; what is on its way is then given up.
pub(super) struct Uploader {
    shared: Arc<Shared>,
    store: Arc<Store>,
    keep_last: usize,
    thread: JoinHandle<()>,
}

impl Uploader {
    /// Begins to wait for checkpoints of the folder `checkpoints`.
    pub(super) fn start(
        store: Arc<Store>,
        checkpoints: PathBuf,
        keep_last: usize,
        claim: Arc<Claim>,
    ) -> Result<Uploader, Error> {
        let shared = Arc::<Shared>::default();
        let failed =
            |source| Error::Checkpoint(checkpoint::Error::Write { path: "the thread that uploads".into(), source });
        let (theirs, their_store, folder) = (shared.clone(), store.clone(), checkpoints.clone());
        let work = move || {
            while let Some(request) = next(&theirs) {
                let outcome = upload(&their_store, &folder, &request, &claim);
                theirs.queue().end(outcome);
                theirs.changed.notify_all();
            }
        };
        let thread = std::thread::Builder::new().name("upload".into()).spawn(work).map_err(failed)?;
        Ok(Uploader { shared, store, keep_last, thread })
    }

    /// Takes a complete checkpoint, and the best one's step. One that waits is skipped for it.
    pub(super) fn offer(&self, step: u64, best: Option<u64>) {
        self.shared.queue().offer(Request { step, best, keep_last: self.keep_last });
        self.shared.changed.notify_all();
    }

    /// The one that is on its way, which must stay where it is.
    pub(super) fn on_its_way(&self) -> Option<u64> {
        self.shared.queue().running
    }

    /// What has become of uploads since the last time.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        std::mem::take(&mut self.shared.queue().outcomes)
    }

    /// Waits until nothing is on its way, or for so long; whether nothing is, or ever will be.
    pub(super) fn wait(&self, most: Duration) -> bool {
        let (end, mut queue) = (Instant::now() + most, self.shared.queue());
        while !queue.is_idle() && !self.thread.is_finished() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !queue.is_idle() {
            queue.end(Outcome::Over(Error::Panic("the uploading thread panicked".into())));
            queue.next = None;
        }
        true
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.store.stop();
        self.shared.changed.notify_all();
    }
}

/// The next to upload; none when there will be none.
fn next(shared: &Shared) -> Option<Request> {
    let mut queue = shared.queue();
    loop {
        if let Some(request) = queue.begin() {
            return Some(request);
        }
        if queue.closed {
            return None;
        }
        queue = shared.wait(queue);
    }
}

fn upload(store: &Store, checkpoints: &Path, request: &Request, claim: &Claim) -> Outcome {
    let (step, began) = (request.step, Instant::now());
    match checkpoint::upload(store, checkpoints, request, || claim.check()) {
        Ok(bytes) => Outcome::Uploaded { step, bytes, took: began.elapsed() },
        Err(Error::Checkpoint(problem)) => Outcome::Failed { step, problem },
        Err(e) => Outcome::Over(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(step: u64) -> Request {
        Request { step, best: None, keep_last: 1 }
    }

    #[test]
    fn one_is_on_its_way_and_only_the_newest_waits() {
        let mut queue = Queue::default();
        assert!(queue.is_idle() && queue.begin().is_none());
        queue.offer(request(2));
        assert_eq!(queue.begin(), Some(request(2)));
        queue.offer(request(4));
        queue.offer(request(6));
        assert_eq!((queue.begin(), queue.running, queue.is_idle()), (None, Some(2), false));
        queue.end(Outcome::Uploaded { step: 2, bytes: 1, took: Duration::ZERO });
        assert_eq!((queue.begin(), queue.begin()), (Some(request(6)), None));
        queue.end(Outcome::Uploaded { step: 6, bytes: 1, took: Duration::ZERO });
        assert!(queue.is_idle() && queue.outcomes.len() == 2);
        queue.closed = true;
        queue.offer(request(8));
        assert_eq!(queue.begin(), None);
    }
}
