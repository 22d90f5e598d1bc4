//! The launcher's connections to the agents of its hosts: while they last, the agents are its own.

use super::key::Key;
use super::message::{FromAgent, ToAgent};
use super::secure::{Broken, Sender};
use super::{ALIVE, LOST, reach};
use crate::attempt::Event;
use crate::signals::Arrived;
use crossbeam_channel as channel;
use signal_hook::consts::signal::SIGTERM;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two attempts to reach an agent.
const AGAIN: Duration = Duration::from_millis(500);
/// After so many attempts at which an agent seemed to have another key it has one.
const HOPELESS: u32 = 4;
/// How long agents may take to hear the farewell.
const FAREWELL: Duration = Duration::from_secs(10);

/// How it stands with the agent of a host.
#[derive(Default)]
struct State {
    sender: Option<Sender>,
    /// It has heard the farewell.
    heard: bool,
    /// Why it is not there.
    problem: String,
    /// It seems to have another key, so many times in a row. One that ends in the middle of a handshake seems so, too.
    foreign: u32,
    /// It is another launcher's, for good.
    refused: bool,
}

/// A host whose agent is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The host.
    pub host: String,
    /// Why.
    pub problem: String,
    /// No waiting will mend it.
    pub is_hopeless: bool,
}

struct Hold {
    host: String,
    state: Mutex<State>,
    changed: Condvar,
}

/// The agents of a job.
pub struct Holds {
    all: Vec<Arc<Hold>>,
    over: Arc<AtomicBool>,
}

impl Hold {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until it is so, or the deadline.
    fn until(&self, deadline: Instant, is_so: impl Fn(&State) -> bool) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.state(), left, |state| !is_so(state));
        is_so(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Holds the agent for as long as it lives, and then the one that comes in its place.
    fn keep(&self, port: u16, key: &Key, signals: &channel::Sender<Arrived>, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            if let Err(problem) = self.once(port, key, signals) {
                let (foreign, refused) = (matches!(problem, Broken::Foreign), matches!(problem, Broken::Refused(_)));
                self.change(|state| {
                    (state.sender, state.problem, state.refused) = (None, problem.to_string(), refused);
                    state.foreign = if foreign { state.foreign + 1 } else { 0 };
                });
                if refused {
                    return;
                }
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn once(&self, port: u16, key: &Key, signals: &channel::Sender<Arrived>) -> Result<(), Broken> {
        let (mut sender, mut receiver) = reach::connect(&self.host, port, key)?;
        sender.send(&ToAgent::Hold(self.host.clone()).encode())?;
        let mut sender = Some(sender);
        loop {
            let frame = receiver.receive(Some(LOST))?;
            match FromAgent::decode(&frame) {
                Some(FromAgent::Heard) => self.change(|state| match sender.take() {
                    Some(sender) => (state.sender, state.heard) = (Some(sender), false),
                    None => state.heard = true,
                }),
                Some(FromAgent::Stop) => {
                    let _ = signals.send(Arrived { signal: SIGTERM, event: Event::Leaving(self.host.clone()) });
                }
                // One that has not yet ended, or that an old address led to, says so once more at the next attempt.
                Some(FromAgent::Refused(why)) if sender.is_some() => return Err(std::io::Error::other(why).into()),
                Some(FromAgent::Refused(why)) => return Err(Broken::Refused(why)),
                _ => {}
            }
        }
    }
}

impl Holds {
    /// Begins to hold the agents of `hosts`, and goes on in the background. `signals` hears of it where one of
    /// them is about to go.
    pub fn take(hosts: &[String], port: u16, key: &Key, signals: &channel::Sender<Arrived>) -> std::io::Result<Holds> {
        let over = Arc::new(AtomicBool::new(false));
        let mut all = Vec::new();
        for host in hosts {
            let hold = Arc::new(Hold { host: host.clone(), state: Mutex::default(), changed: Condvar::new() });
            let (mine, key, signals, over) = (hold.clone(), key.clone(), signals.clone(), over.clone());
            std::thread::Builder::new().name("hold".into()).spawn(move || mine.keep(port, &key, &signals, &over))?;
            all.push(hold);
        }
        let holds = Holds { all, over };
        let (live, over) = (holds.all.clone(), holds.over.clone());
        std::thread::Builder::new().name("alive".into()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(ALIVE);
                live.iter()
                    .for_each(|hold| drop(hold.state().sender.as_mut().map(|s| s.send(&ToAgent::Alive.encode()))));
            }
        })?;
        Ok(holds)
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The agents that are not there.
    pub fn missing(&self) -> Vec<Missing> {
        let missing = self.all.iter().filter_map(|hold| {
            let state = hold.state();
            let is_hopeless = state.foreign >= HOPELESS || state.refused;
            let problem = if state.problem.is_empty() { "it does not answer" } else { &state.problem };
            state.sender.is_none().then(|| Missing {
                host: hold.host.clone(),
                problem: problem.to_owned(),
                is_hopeless,
            })
        });
        missing.collect()
    }

    /// Tells the agents that the job is over, so that they end as it did; the hosts that have not heard it.
    pub fn farewell(&self, code: u8) -> Vec<String> {
        self.say_farewell(code, |_| true)
    }

    /// Lets go of the agents of these hosts, which end; the job and whoever comes in their place go on.
    pub fn part_with(&self, hosts: &[String], code: u8) -> Vec<String> {
        self.say_farewell(code, |host| hosts.contains(host))
    }

    fn say_farewell(&self, code: u8, to: impl Fn(&String) -> bool) -> Vec<String> {
        let farewell = ToAgent::Farewell(code).encode();
        let those: Vec<_> = self.all.iter().filter(|hold| to(&hold.host)).collect();
        for hold in &those {
            let _ = hold.state().sender.as_mut().map(|sender| sender.send(&farewell));
        }
        let deadline = Instant::now() + FAREWELL;
        let deaf = those.iter().filter(|hold| !hold.until(deadline, |state| state.heard || state.sender.is_none()));
        deaf.map(|hold| hold.host.clone()).collect()
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
