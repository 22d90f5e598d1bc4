//! What the user sees while the job runs: lines of workers, mpirun and launcher, and the progress bar,
//! all written by one thread. A terminal that does not take them (a stopped pager, say) never blocks
//! the workers: after a moment lines are left out, counted, and found in the log files only.

use crate::ranks::RanksFilter;
use crate::tags::Stream;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use protocol::Rank;
use protocol::message::Progress;
use protocol::progress::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Lines that wait for the terminal.
const QUEUE: usize = 1000;
/// How long a full queue is waited for before lines are left out.
const PATIENCE: Duration = Duration::from_secs(1);

enum Show {
    Worker(Rank, Stream, Vec<u8>),
    Line(String),
    Progress(Progress),
    End(Sender<()>),
}

/// The terminal's entrance.
pub struct Terminal {
    shown: RanksFilter,
    sender: Sender<Show>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    stuck: AtomicBool,
    left_out: AtomicU64,
    written: AtomicU64,
}

impl Terminal {
    /// Starts the writing thread.
    pub fn start(shown: RanksFilter) -> io::Result<Terminal> {
        let (sender, receiver) = bounded(QUEUE);
        let state = Arc::new(State::default());
        let own = Arc::clone(&state);
        std::thread::Builder::new().name("terminal".into()).spawn(move || write(&receiver, &own))?;
        Ok(Terminal { shown, sender, state })
    }

    /// Shows a worker's line, if its rank is to be shown.
    pub fn worker(&self, rank: Rank, stream: Stream, text: &[u8]) {
        if self.shown.shows(rank) {
            self.send(Show::Worker(rank, stream, text.to_owned()));
        }
    }

    /// Shows a line that mpirun wrote.
    pub fn mpirun(&self, text: &str) {
        self.send(Show::Line(format!("[mpirun] {text}")));
    }

    /// Shows a line of the launcher's own.
    pub fn say(&self, text: &str) {
        self.send(Show::Line(format!("jcs-launch: {text}")));
    }

    /// Moves the progress bar; the next one replaces one that finds no room.
    pub fn progress(&self, progress: Progress) {
        let _ = self.sender.try_send(Show::Progress(progress));
    }

    /// Waits until everything is written and the bar is gone, or the terminal takes nothing any more.
    pub fn finish(&self) {
        let (done, ended) = bounded(1);
        if self.sender.send_timeout(Show::End(done), 2 * PATIENCE).is_err() {
            return;
        }
        loop {
            let before = self.state.written.load(Ordering::Relaxed);
            let timed_out = ended.recv_timeout(2 * PATIENCE).is_err_and(|e| e.is_timeout());
            if !timed_out || self.state.written.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    fn send(&self, show: Show) {
        let show = match self.sender.try_send(show) {
            Err(TrySendError::Full(show)) => show,
            _ => return,
        };
        if self.state.stuck.load(Ordering::Relaxed) || self.sender.send_timeout(show, PATIENCE).is_err() {
            self.state.stuck.store(true, Ordering::Relaxed);
            self.state.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(receiver: &Receiver<Show>, state: &State) {
    let mut display = Display::new();
    for show in receiver {
        match show {
            Show::Worker(rank, stream, text) => display.suspend(|| write_worker(rank, stream, &text)),
            Show::Line(text) => display.line(&text),
            Show::Progress(progress) => display.update(&progress),
            Show::End(done) => {
                display.clear();
                let _ = done.send(());
            }
        }
        state.written.fetch_add(1, Ordering::Relaxed);
        state.stuck.store(false, Ordering::Relaxed);
        match state.left_out.swap(0, Ordering::Relaxed) {
            0 => {}
            n => display.line(&format!("jcs-launch: {n} lines left out here, see the log files")),
        }
    }
}

/// One write a line, so that lines of other programs on the same terminal do not get in between.
fn write_worker(rank: Rank, stream: Stream, text: &[u8]) {
    let mut line = format!("[rank {rank}] ").into_bytes();
    line.extend_from_slice(text);
    line.push(b'\n');
    let _ = match stream {
        Stream::Out => io::stdout().write_all(&line).and_then(|()| io::stdout().flush()),
        Stream::Err => io::stderr().write_all(&line),
    };
}
