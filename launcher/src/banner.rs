//! mpirun's own messages: boxed in lines of dashes, long, and mostly about what the launcher says
//! better. Pure: collects a box and says whether it is worth showing and whom it accuses.

use crate::cause::{Death, Named};
use protocol::Rank;

/// What becomes of lines that mpirun wrote itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The lines, complete.
    pub lines: Vec<String>,
    /// Whether a person should see them; they are kept in launcher.log in any case.
    pub show: bool,
    /// The worker that mpirun says ended first.
    pub named: Option<Named>,
}

/// A box longer than this is none.
const LONGEST: usize = 60;

/// What the boxes say that a failed worker calls forth, whatever the failure.
const ABORTS: [&str; 6] = [
    "detected that one or more processes exited with non-zero status",
    "noticed that process rank",
    "MPI_ABORT was invoked",
    "Primary job  terminated normally, but",
    "a process in the job has exited without calling",
    "job was terminated by a signal",
];

/// A race that mpirun loses now and then with the ssh that it starts, to no effect.
const HARMLESS: &str = "plm:ssh: Warning: setpgid(";

/// The box being read, if any.
#[derive(Debug, Default)]
pub struct Banners {
    open: Vec<String>,
}

impl Banners {
    /// Takes the next untagged line; returns what can be decided now.
    pub fn push(&mut self, line: &str) -> Option<Verdict> {
        let ruler = line.len() >= 40 && line.bytes().all(|b| b == b'-');
        if self.open.is_empty() && !ruler {
            let lines = vec![line.to_owned()];
            let show = !line.trim().is_empty() && !line.contains(HARMLESS);
            return Some(Verdict { show, lines, named: None });
        }
        let closes = ruler && !self.open.is_empty();
        self.open.push(line.to_owned());
        if closes || self.open.len() >= LONGEST { self.finish() } else { None }
    }

    /// The end of the output: what is left.
    pub fn finish(&mut self) -> Option<Verdict> {
        if self.open.is_empty() {
            return None;
        }
        let lines = std::mem::take(&mut self.open);
        let text = lines.join(" ");
        Some(Verdict { show: !ABORTS.iter().any(|a| text.contains(a)), named: named(&text), lines })
    }
}

/// `Process name: [prterun-vm-6439@1,0] Exit code: 17`, or
/// `prterun noticed that process rank 0 with PID 6451 on node vm exited on signal 9 (Killed).`
fn named(text: &str) -> Option<Named> {
    if let Some(signal) = number_after(text, "exited on signal ") {
        let rank = number_after(text, "process rank ")?;
        return Some(Named { rank: Rank(rank), death: Death::Signal(signal as i32) });
    }
    let name = text.split_once("Process name:")?.1;
    let code = number_after(name, "Exit code:")?;
    Some(Named { rank: Rank(number_after(name, "@1,")?), death: Death::Code(code as i32) })
}

fn number_after(text: &str, what: &str) -> Option<usize> {
    let rest = text.split_once(what)?.1.trim_start();
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULER: &str = "--------------------------------------------------------------------------";

    fn read(lines: &[&str]) -> Verdict {
        let mut banners = Banners::default();
        let mut verdicts: Vec<Verdict> = lines.iter().filter_map(|l| banners.push(l)).collect();
        verdicts.extend(banners.finish());
        assert_eq!(verdicts.len(), 1);
        verdicts.remove(0)
    }

    // As Open MPI 5.0.11 writes them.
    #[test]
    fn a_killed_worker_is_named_and_its_box_not_shown() {
        let verdict = read(&[
            RULER,
            "prterun noticed that process rank 1 with PID 6451 on node vm exited on",
            "signal 9 (Killed).",
            RULER,
        ]);
        assert_eq!(verdict.named, Some(Named { rank: Rank(1), death: Death::Signal(9) }));
        assert!(!verdict.show && verdict.lines.len() == 4);
    }

    #[test]
    fn a_failed_worker_is_named_and_its_box_not_shown() {
        let verdict = read(&[
            RULER,
            "prterun detected that one or more processes exited with non-zero status,",
            "thus causing the job to be terminated. The first process to do so was:",
            "",
            "   Process name: [prterun-vm-6439@1,10]",
            "   Exit code:    17",
            RULER,
        ]);
        assert_eq!(verdict.named, Some(Named { rank: Rank(10), death: Death::Code(17) }));
        assert!(!verdict.show);
    }

    #[test]
    fn other_boxes_are_shown_even_when_cut_short() {
        let verdict = read(&[RULER, "There are not enough slots available in the system"]);
        assert!(verdict.show && verdict.named.is_none() && verdict.lines.len() == 2);
        assert!(read(&["some line"]).show);
        assert!(!read(&[""]).show);
        let race = "[gpu01:00077] plm:ssh: Warning: setpgid(80,80) failed in parent with errno=Permission denied(13)";
        assert!(!read(&[race]).show);
    }
}
