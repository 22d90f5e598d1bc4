//! Takes mpirun's output apart and hands every line to its log file and to the terminal. Decides
//! nothing; that mpirun names a worker is reported as an event.

use crate::attempt::Event;
use crate::banner::{Banners, Verdict};
use crate::events::{Happened, Sender};
use crate::logs::Logs;
use crate::tags::{Piece, Stream, split};
use crate::terminal::Terminal;
use protocol::Rank;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

/// A longer line is handled in parts, between which lines of the worker's other stream may get into its log.
const LONGEST: u64 = 1 << 26;

/// Where the lines go.
#[derive(Clone)]
pub struct Sink {
    /// Log files.
    pub logs: Arc<Logs>,
    /// Terminal.
    pub terminal: Arc<Terminal>,
    /// Events.
    pub events: Sender,
    /// Workers in all.
    pub world_size: usize,
}

/// Reads one of mpirun's streams to its end.
pub fn pump(stream: impl Read, sink: &Sink) {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut state = State { sink, banners: Banners::default(), unfinished: None };
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => state.chunk(&line),
            Err(_) => break,
            Ok(_) => state.chunk(&line),
        }
    }
    let rest = state.banners.finish();
    state.mpirun(rest);
}

struct State<'a> {
    sink: &'a Sink,
    banners: Banners,
    /// Whose line has not ended yet.
    unfinished: Option<(Rank, Stream)>,
}

impl State<'_> {
    fn chunk(&mut self, chunk: &[u8]) {
        let (text, ends) = match chunk.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (chunk, (chunk.len() as u64) < LONGEST),
        };
        let pieces = match self.unfinished {
            Some(source) => vec![Piece { source: Some(source), text }],
            None => split(text, self.sink.world_size),
        };
        let last = pieces.len().saturating_sub(1);
        for (i, piece) in pieces.iter().enumerate() {
            self.piece(piece, ends || i < last);
        }
        self.unfinished = if ends { None } else { pieces.last().and_then(|p| p.source) };
    }

    fn piece(&mut self, piece: &Piece, ends: bool) {
        let Some((rank, stream)) = piece.source else {
            let verdict = self.banners.push(&String::from_utf8_lossy(piece.text));
            return self.mpirun(verdict);
        };
        let mut line = piece.text.to_owned();
        if ends {
            line.push(b'\n');
        }
        self.sink.logs.worker(rank, &line);
        self.sink.terminal.worker(rank, stream, piece.text);
        if let Some(complaint) = self.sink.logs.complaint() {
            self.sink.terminal.say(&complaint);
        }
    }

    fn mpirun(&self, verdict: Option<Verdict>) {
        let Some(verdict) = verdict else { return };
        for line in &verdict.lines {
            self.sink.logs.note(&format!("mpirun: {line}"));
            if verdict.show {
                self.sink.terminal.mpirun(line);
            }
        }
        if let Some(named) = verdict.named {
            self.sink.events.send(Happened::Event(Event::Named(named)));
        }
    }
}
