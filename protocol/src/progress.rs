//! The progress bar: drawn by the launcher, or by a worker that runs alone.

use crate::message::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a line is printed where standard error is no terminal.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);

/// Shows [`Progress`] on standard error: a bar on a terminal, else now and then a line.
pub struct Display {
    bar: ProgressBar,
    terminal: bool,
    phase: String,
    phase_started: Instant,
    first_done: u64,
    last_line: Option<Instant>,
}

impl Default for Display {
    fn default() -> Self {
        Self::new()
    }
}

impl Display {
    /// A display that shows nothing until its first update.
    pub fn new() -> Display {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style());
        Display {
            bar,
            terminal: std::io::stderr().is_terminal(),
            phase: String::new(),
            phase_started: Instant::now(),
            first_done: 0,
            last_line: None,
        }
    }

    /// Shows the newest state.
    pub fn update(&mut self, p: &Progress) {
        if p.phase != self.phase {
            self.phase = p.phase.clone();
            self.phase_started = Instant::now();
            self.first_done = p.done;
            self.last_line = None;
            if self.terminal {
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        }
        if self.terminal {
            self.bar.set_length(p.total);
            self.bar.set_position(p.done);
            self.bar.set_prefix(p.phase.clone());
            self.bar.set_message(format!("{}  {}", self.rate_and_time_left(p), p.note));
        } else if self.last_line.is_none_or(|t| t.elapsed() >= QUIET_INTERVAL) || p.done == p.total {
            self.last_line = Some(Instant::now());
            let line = format!("{} {}/{}  {}  {}\n", p.phase, p.done, p.total, self.rate_and_time_left(p), p.note);
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    /// Runs `f` while the bar is out of the way.
    pub fn suspend<T>(&self, f: impl FnOnce() -> T) -> T {
        self.bar.suspend(f)
    }

    /// Removes the bar.
    pub fn clear(&mut self) {
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
        self.phase.clear();
    }

    fn rate_and_time_left(&self, p: &Progress) -> String {
        let done_here = p.done.saturating_sub(self.first_done);
        let rate = if p.samples_per_second > 0.0 {
            format!("{:.2} samples/s", p.samples_per_second)
        } else {
            "… samples/s".into()
        };
        if done_here == 0 {
            return rate;
        }
        let left =
            self.phase_started.elapsed().as_secs_f64() / done_here as f64 * (p.total - p.done.min(p.total)) as f64;
        format!("{rate}, {} left", duration(left))
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `75.0` → `1:15`, `3675.0` → `1:01:15`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_read_like_a_clock() {
        assert_eq!(super::duration(75.0), "1:15");
        assert_eq!(super::duration(3675.2), "1:01:15");
        assert_eq!(super::duration(-1.0), "0:00");
    }
}
