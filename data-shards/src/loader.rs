//! Samples in the order asked for, decoded ahead on threads of their own.
//!
//! Duty: order, bounded memory, and a prompt end. Must not: choose samples or know batches. Each request has a slot that
//! one thread fills; the slots are taken in request order, so that the number of threads cannot change what is delivered.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, bounded, unbounded};

use crate::Error;
use crate::augment::Augment;
use crate::dataset::{Dataset, Sample};

/// A sample to load: which, and for which epoch's augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its place in the list, from 0.
    pub index: u32,
    /// The epoch, from 0.
    pub epoch: u64,
}

/// How to load.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderSettings {
    /// The run's seed, for the augmentation.
    pub seed: u64,
    /// What may happen to a sample.
    pub augment: Augment,
    /// Threads; 0 loads on the calling thread, when asked.
    pub workers: usize,
    /// Samples decoded or in decoding ahead of what was delivered; 0 counts as 1.
    pub queue: usize,
}

/// How often a wait asks whether it should end.
const TICK: Duration = Duration::from_millis(100);

type Answer = Result<Sample, Error>;
type Load = dyn Fn(Request, Option<Sample>) -> Answer + Send + Sync;

/// Samples whose memory is used again.
#[derive(Default)]
struct Spares(Mutex<Vec<Sample>>);

impl Spares {
    fn take(&self) -> Option<Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps the sample where fewer than `most` are kept.
    fn keep(&self, sample: Sample, most: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < most {
            kept.push(sample);
        }
    }
}

struct Job {
    request: Request,
    slot: Sender<Answer>,
}

/// Delivers samples in the order asked for; ends with the requests. Dropping it waits for the samples in decoding (at
/// most one a thread) and leaves no thread behind.
pub struct Loader {
    load: Arc<Load>,
    requests: Box<dyn Iterator<Item = Request> + Send>,
    queue: usize,
    pending: VecDeque<Receiver<Answer>>,
    spares: Arc<Spares>,
    jobs: Option<Sender<Job>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    failed: Option<Error>,
}

impl Loader {
    /// Starts the threads and the first `queue` requests. `requests` is drawn from on the calling thread and may be endless.
    /// Where no thread can be started, the first item is [`Error::Worker`].
    pub fn new(
        dataset: Arc<Dataset>,
        requests: impl Iterator<Item = Request> + Send + 'static,
        settings: LoaderSettings,
    ) -> Loader {
        let LoaderSettings { seed, augment, workers, queue } = settings;
        let load = move |request: Request, spare: Option<Sample>| {
            let index = request.index as usize;
            guarded(|| dataset.path_of(index), || dataset.load_into(spare, index, request.epoch, seed, &augment))
        };
        Loader::start(Arc::new(load), Box::new(requests.fuse()), workers, queue)
    }

    fn start(
        load: Arc<Load>,
        requests: Box<dyn Iterator<Item = Request> + Send>,
        workers: usize,
        queue: usize,
    ) -> Loader {
        let mut loader = Loader {
            load,
            requests,
            queue: queue.max(1),
            pending: VecDeque::new(),
            spares: Arc::default(),
            jobs: None,
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
            failed: None,
        };
        if workers > 0 {
            loader.start_threads(workers);
            loader.top_up();
        }
        loader
    }

    /// Hands back a sample that is no longer needed, so that a coming one is written into its memory, which is much quicker
    /// than to ask the system for more. At most [`LoaderSettings::queue`] are kept; others are dropped.
    pub fn give_back(&self, sample: Sample) {
        self.spares.keep(sample, self.queue);
    }

    /// Waits until the next sample is there, so that [`Iterator::next`] need not; false where `stop`, which is asked now and
    /// then, says so first. Without threads it returns at once: a sample is then loaded when it is asked for.
    pub fn wait(&self, stop: &dyn Fn() -> bool) -> bool {
        let Some(slot) = self.pending.front() else { return true };
        let mut select = Select::new();
        select.recv(slot);
        while select.ready_timeout(TICK).is_err() {
            if stop() {
                return false;
            }
        }
        true
    }

    /// Lets go of the threads, so that dropping the loader does not wait for what they wait for. Only for a process that is
    /// about to end; nothing more may be asked for.
    pub fn abandon(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.clear();
    }

    fn start_threads(&mut self, workers: usize) {
        let (jobs, todo) = unbounded::<Job>();
        for at in 0..workers {
            let (todo, load, stop) = (todo.clone(), Arc::clone(&self.load), Arc::clone(&self.stop));
            let spares = Arc::clone(&self.spares);
            let thread = std::thread::Builder::new().name(format!("loader-{at}"));
            match thread.spawn(move || work(&todo, &*load, &spares, &stop)) {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    self.failed =
                        Some(Error::Worker { problem: format!("cannot start thread {at} of {workers}: {error}") });
                    break;
                }
            }
        }
        self.jobs = Some(jobs);
    }

    /// Invariant: at most `queue` requests are out at any time, and their slots stand in `pending` in request order.
    fn top_up(&mut self) {
        let Some(jobs) = &self.jobs else { return };
        while self.pending.len() < self.queue {
            let Some(request) = self.requests.next() else { return };
            let (slot, answer) = bounded(1);
            if jobs.send(Job { request, slot }).is_err() {
                return;
            }
            self.pending.push_back(answer);
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Sample, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if self.jobs.is_none() {
            return self.requests.next().map(|request| (self.load)(request, self.spares.take()));
        }
        let answer = self.pending.front()?.recv();
        self.pending.pop_front();
        self.top_up();
        Some(answer.unwrap_or_else(|_| Err(Error::Worker { problem: "it ended without an answer".to_owned() })))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Without a sender the threads' queues end.
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread catches its panics; there is nothing to learn here.
            let _ = thread.join();
        }
    }
}

fn work(todo: &Receiver<Job>, load: &Load, spares: &Spares, stop: &AtomicBool) {
    for Job { request, slot } in todo {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // The receiver may be gone: the loader was dropped meanwhile.
        let _ = slot.send(load(request, spares.take()));
        crate::activity::happened();
    }
}

/// A panic becomes an error that names the file. The closure only reads shared data, so nothing is left half done.
fn guarded(path: impl FnOnce() -> PathBuf, load: impl FnOnce() -> Answer) -> Answer {
    catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message =
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned());
        Err(Error::Panic { path: path(), message })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pixels;

    fn requests(count: u32) -> Box<dyn Iterator<Item = Request> + Send> {
        Box::new((0..count).map(|index| Request { index, epoch: 0 }))
    }

    fn load(request: Request, _: Option<Sample>) -> Answer {
        guarded(
            || PathBuf::from("bad.png"),
            || {
                assert!(request.index != 3, "sample three is bad");
                Ok(Sample {
                    index: request.index as usize,
                    image: Pixels::None,
                    features: None,
                    mask: vec![],
                    has_mask: false,
                    label: None,
                    source_size: (1, 1),
                })
            },
        )
    }

    #[test]
    fn a_panic_arrives_as_an_error_in_its_place() {
        for workers in [0, 1, 3] {
            let answers: Vec<_> = Loader::start(Arc::new(load), requests(6), workers, 2).collect();
            let good: Vec<_> = answers.iter().map(|answer| answer.as_ref().map(|sample| sample.index).ok()).collect();
            assert_eq!(good, [Some(0), Some(1), Some(2), None, Some(4), Some(5)]);
            let text = answers[3].as_ref().unwrap_err().to_string();
            assert!(text.contains("bad.png") && text.contains("sample three is bad"), "{text}");
        }
    }

    #[test]
    fn a_wait_ends_where_it_is_told_to() {
        let (open, gate) = bounded::<()>(1);
        let slow = move |request: Request, spare: Option<Sample>| {
            let _ = gate.recv();
            load(request, spare)
        };
        let mut loader = Loader::start(Arc::new(slow), requests(2), 1, 2);
        assert!(!loader.wait(&|| true));
        open.send(()).unwrap();
        assert!(loader.wait(&|| false) && loader.next().unwrap().is_ok());
        assert!(!loader.wait(&|| true));
        // Dropping it would otherwise wait for ever.
        loader.abandon();
        drop(loader);
        drop(open);
    }

    #[test]
    fn never_more_than_the_queue_is_ahead() {
        use std::sync::atomic::AtomicUsize;
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let slow = move |request: Request, spare: Option<Sample>| {
            count.fetch_add(1, Ordering::SeqCst);
            load(Request { index: request.index + 10, ..request }, spare)
        };
        let mut loader = Loader::start(Arc::new(slow), requests(u32::MAX), 3, 4);
        for delivered in 1..20 {
            loader.next().unwrap().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(2));
            assert!(started.load(Ordering::SeqCst) <= delivered + 4);
        }
        let threads = Arc::downgrade(&loader.stop);
        drop(loader);
        assert_eq!(threads.strong_count(), 0, "a thread outlived its loader");
    }
}
