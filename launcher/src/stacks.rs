//! What a process that hangs is doing, as far as its system tells: state, where its threads are in the kernel, and with gdb
//! where they are in the program. Changes nothing about the process.

use crate::nodes::Reach;
use crate::remote::{self, RemoteError};
use std::time::Duration;

/// How long a look may take; the job waits for it before it is started again.
const WITHIN: Duration = Duration::from_secs(8);

/// For /bin/sh. The kernel shows stacks to root alone, and gdb may be missing or forbidden. It reads hundreds of megabytes of symbols,
/// and asked to end goes on with that; nor does it end with the shell, since timeout has put it into a group of its own.
const SCRIPT: &str = r#"
grep -E '^(State|VmRSS|Threads)' /proc/$pid/status || exit 1
for task in /proc/$pid/task/*; do
  echo "thread ${task##*/} $(cat $task/comm): $(cat $task/wchan 2>/dev/null)"
  sed 's/^/  /' $task/stack 2>/dev/null
done
command -v gdb >/dev/null && timeout -s KILL 5 gdb -p $pid -batch -ex 'thread apply all backtrace 16' 2>/dev/null </dev/null
exit 0
"#;

/// What there is to know of a process on a host of the job; where that takes too long, what was found until then.
pub fn look(reach: Reach, host: &str, pid: u32) -> Result<String, RemoteError> {
    found(remote::run(reach, host, &format!("pid={pid}\n{SCRIPT}"), WITHIN))
}

fn found(answer: Result<String, RemoteError>) -> Result<String, RemoteError> {
    match answer {
        Err(RemoteError::Late { said, .. }) if said.contains("State:") => Ok(said),
        answer => answer,
    }
}

/// What belongs into the one line about a hang.
pub fn summary(text: &str) -> String {
    let state = text.lines().find_map(|line| line.strip_prefix("State:")).map(str::trim).unwrap_or_default();
    let why = match state.chars().next() {
        Some('T') => "the process was stopped by a signal (SIGSTOP)",
        Some('t') => "a debugger holds the process",
        Some('D') => "the process waits for a device or a file system",
        Some('Z') => "the process is dead",
        _ => return "; launcher.log has its stack".into(),
    };
    format!("; {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_this_process_shows_its_threads() {
        let text = look(Reach::Here, "localhost", std::process::id()).unwrap();
        assert!(text.contains("State:") && text.contains("thread "), "{text}");
        assert!(look(Reach::Here, "localhost", u32::MAX - 1).is_err());
    }

    #[test]
    fn a_gdb_that_does_not_end_when_it_is_asked_to_is_gone_with_the_look() {
        let folder = tempfile::tempdir().unwrap();
        let (gdb, pid) = (folder.path().join("gdb"), folder.path().join("pid"));
        let stubborn = format!("#!/bin/sh\ntrap '' TERM\necho $$ >{}\nexec sleep 60\n", pid.display());
        std::fs::write(&gdb, stubborn).unwrap();
        std::fs::set_permissions(&gdb, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let script = format!("PATH={}:$PATH\npid={}\n{SCRIPT}", folder.path().display(), std::process::id());
        let _ = remote::run(Reach::Here, "localhost", &script, WITHIN);
        let pid = std::fs::read_to_string(&pid).unwrap();
        // What has ended and was not waited for yet has none.
        let line = || std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        let over = std::time::Instant::now();
        while !line().is_empty() {
            assert!(over.elapsed() < Duration::from_secs(5), "the look is over, and process {pid} is left");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_look_that_takes_too_long_is_worth_what_it_has_found() {
        let late = |said: &str| RemoteError::Late { way: "over ssh", within: WITHIN, said: said.into() };
        assert_eq!(found(Err(late("State:\tT (stopped)\n"))).unwrap(), "State:\tT (stopped)\n");
        assert!(found(Err(late(""))).is_err());
    }

    #[test]
    fn states_have_words() {
        assert_eq!(summary("State:\tT (stopped)\nx"), "; the process was stopped by a signal (SIGSTOP)");
        assert_eq!(summary("State:\tS (sleeping)"), "; launcher.log has its stack");
    }
}
