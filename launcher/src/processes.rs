//! The processes of a job, found by the token in their environment, and their end. Looks at `/proc`;
//! decides nothing, and touches no process without the token.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::env;
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// A token that nobody guesses.
pub fn new_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// The processes that carry the token, but for this one: mpirun, workers, and whatever they started.
pub fn carriers(token: &str) -> Vec<Pid> {
    let wanted = format!("{}={token}", env::JCS_TOKEN);
    let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    pids.filter(|&pid| pid != Pid::this() && carries(pid, wanted.as_bytes())).collect()
}

/// Zombies have no environment, and thus carry nothing.
fn carries(pid: Pid, wanted: &[u8]) -> bool {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|&b| b == 0).any(|variable| variable == wanted)
}

/// Kills every process that carries the token, again and again until none is left or time is up. Returns
/// those that are left.
pub fn kill_carriers(token: &str, within: Duration) -> Vec<Pid> {
    let started = Instant::now();
    loop {
        let left = carriers(token);
        for &pid in &left {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if left.is_empty() || started.elapsed() >= within {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn tokens_differ() {
        let (a, b) = (new_token().unwrap(), new_token().unwrap());
        assert!(a != b && a.len() == 32);
    }

    #[test]
    fn only_carriers_of_the_token_are_killed() {
        let token = new_token().unwrap();
        let sleep = |value: &str| Command::new("sleep").arg("60").env(env::JCS_TOKEN, value).spawn().unwrap();
        let (mut ours, mut other) = (sleep(&token), sleep("another"));
        while carriers(&token).is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(carriers(&token), [Pid::from_raw(ours.id() as i32)]);
        // The zombie is not yet reaped, and no carrier any more.
        assert_eq!(kill_carriers(&token, Duration::from_secs(5)), []);
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
