//! The first process of a container. The kernel gives it every orphan, lets it ignore signals that would end others, and ends all
//! when it ends. So the launcher runs below one that does nothing else: it hands signals on, and lets go of whoever has ended.

use crate::cause::Death;
use crate::report::complain;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, tcsetpgrp};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGWINCH};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, id};

/// Whether this process is the first one.
pub fn is_needed() -> bool {
    id() == 1
}

/// Runs this program again as a child, and ends as it does.
pub fn run() -> ExitCode {
    match watch() {
        Ok(death) => ExitCode::from(death.exit_code()),
        Err(error) => {
            complain(&format!("cannot start below the container's first process: {error}"));
            protocol::Exit::Usage.into()
        }
    }
}

fn watch() -> io::Result<Death> {
    // Before there is a child, so that no signal is lost.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGWINCH])?;
    let child = Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).process_group(0).spawn()?;
    let child = Pid::from_raw(child.id().cast_signed());
    if io::stdin().is_terminal() {
        // What is typed goes to the child alone, not to both.
        let _ = tcsetpgrp(io::stdin(), child);
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let _ = Signal::try_from(signal).map(|signal| kill(child, signal));
        }
    })?;
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return Ok(Death::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return Ok(Death::Signal(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
