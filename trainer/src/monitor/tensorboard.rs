//! TensorBoard event files.
//!
//! Uses the record format and message types of `tensorboard-rs`, not its writer thread, which
//! panics when the disk is full.

use crate::Error;
use protobuf::Message;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_rs::record_writer::RecordWriter;

/// An event file of one process.
pub struct TensorBoard {
    writer: RecordWriter<BufWriter<File>>,
    path: PathBuf,
}

impl TensorBoard {
    /// A new event file in `dir`. TensorBoard is told to forget what earlier files say of steps after `step`.
    pub fn open(dir: &Path, step: u64) -> Result<TensorBoard, Error> {
        let now = unix_time();
        let host = protocol::side_channel::host_name();
        let path = dir.join(format!("events.out.tfevents.{:010}.{host}.{}.0", now as u64, std::process::id()));
        let file = std::fs::create_dir_all(dir)
            .and_then(|()| File::create(&path))
            .map_err(|source| Error::Write { file: path.clone(), source })?;
        let mut board = TensorBoard { writer: RecordWriter::new(BufWriter::new(file)), path };
        let mut version = Event::new();
        version.set_file_version("brain.Event:2".into());
        board.event(version)?;
        let mut start = Event::new();
        let mut log = SessionLog::new();
        log.set_status(SessionLog_SessionStatus::START);
        start.set_session_log(log);
        start.set_step(step as i64 + 1);
        board.event(start)?;
        board.flush()?;
        Ok(board)
    }

    /// Adds a point to a curve.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<(), Error> {
        let mut event = Event::new();
        event.set_step(step as i64);
        event.set_summary(tensorboard_rs::summary::scalar(tag, value as f32));
        self.event(event)
    }

    /// Hands what was written to the operating system.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.writer.flush().map_err(|source| Error::Write { file: self.path.clone(), source })
    }

    fn event(&mut self, mut event: Event) -> Result<(), Error> {
        event.set_wall_time(unix_time());
        let written = event.write_to_bytes().map_err(io::Error::other).and_then(|bytes| self.writer.write(&bytes));
        written.map_err(|source| Error::Write { file: self.path.clone(), source })
    }
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
