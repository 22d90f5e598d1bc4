//! Progress: to the launcher where there is one, else to this terminal.

use protocol::message::{Message, Progress};
use protocol::progress::Display;
use protocol::side_channel::SideChannel;
use std::sync::Arc;

/// Where this rank's progress goes.
pub struct ProgressReport {
    side_channel: Arc<SideChannel>,
    own: Option<Display>,
}

impl ProgressReport {
    /// To the launcher; without one, to the terminal if `chief`.
    pub fn new(side_channel: Arc<SideChannel>, chief: bool) -> ProgressReport {
        let own = (chief && !side_channel.is_connected()).then(Display::new);
        ProgressReport { side_channel, own }
    }

    /// Shows where the work is.
    pub fn show(&mut self, progress: Progress) {
        match &mut self.own {
            Some(display) => display.update(&progress),
            None => self.side_channel.send(&Message::Progress(progress)),
        }
    }

    /// Removes the bar.
    pub fn clear(&mut self) {
        if let Some(display) = &mut self.own {
            display.clear();
        }
    }
}
