//! Stands in for `jcs` in the launcher's tests: does what the variable `FAKE_RANK` (or, for one start,
//! `FAKE_RANK_RESTART`) says, word by word, over the real side channel.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what some of its words ask for")]

use protocol::message::{Message, Progress};
use protocol::side_channel::SideChannel;
use protocol::{Exit, Step, env};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::io::Write;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn main() {
    let place = env::Place::from_env().expect("the launcher sets whole numbers");
    let restart: u32 = env::number(env::JCS_RESTART, 0).expect("the launcher sets a whole number");
    let script = std::env::var(format!("FAKE_{}_{restart}", place.rank))
        .or_else(|_| std::env::var(format!("FAKE_{}", place.rank)))
        .unwrap_or_else(|_| "hello finished:done".into());
    let signal = Arc::new(AtomicBool::new(false));
    if script.contains("await-signal") {
        signal_hook::flag::register(SIGUSR1, Arc::clone(&signal)).expect("SIGUSR1 can be caught");
    }
    let mut channel = SideChannel::default();
    for word in script.split(' ') {
        let (word, value) = word.split_once(':').unwrap_or((word, ""));
        match word {
            "hello" => channel = SideChannel::from_env(place.rank).expect("the launcher listens"),
            "await-signal" => {
                while !signal.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            "env" => show_environment(),
            _ => act(word, value, &channel),
        }
    }
}

fn act(word: &str, value: &str, channel: &SideChannel) {
    let number = || value.parse::<u64>().expect("a number");
    match word {
        "progress" => channel.send(&Message::Progress(Progress {
            phase: "train".into(),
            done: number(),
            total: 100,
            ..Progress::default()
        })),
        "checkpoint" => channel.send(&Message::Checkpoint { stage: 0, step: Step(number()) }),
        "next-stage" => channel.send(&Message::Checkpoint { stage: 1, step: Step(number()) }),
        "failed" => channel.send(&Message::Failed {
            step: Step(7),
            exit: exit_named(value),
            cause: "as the script says".into(),
        }),
        "finished" => channel.send(&Message::Finished { exit: exit_named(value) }),
        "exit" => exit(number() as i32),
        "kill" => {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::SIGKILL);
        }
        "sleep" => std::thread::sleep(Duration::from_millis(number())),
        "deaf" => {
            for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1] {
                signal_hook::flag::register(signal, Arc::default()).expect("the signal can be caught");
            }
        }
        "lines" => {
            for i in 0..number() {
                println!("line {i}");
                eprintln!("error line {i}");
            }
        }
        "long" => println!("{}", "x".repeat(number() as usize)),
        "say" => println!("{value}"),
        "say-no-end" => {
            print!("{value}");
            let _ = std::io::stdout().flush();
        }
        other => panic!("unknown word {other}"),
    }
}

fn exit_named(name: &str) -> Exit {
    serde_json::from_value(name.into()).expect("an exit")
}

fn show_environment() {
    let names = [
        env::RANK,
        env::LOCAL_RANK,
        env::WORLD_SIZE,
        env::LOCAL_WORLD_SIZE,
        env::NODE_RANK,
        env::OMP_NUM_THREADS,
        env::JCS_RESTART,
        "CUDA_VISIBLE_DEVICES",
    ];
    let value = |name: &str| std::env::var(name).unwrap_or_else(|_| "-".into());
    println!("env {}", names.map(|n| format!("{n}={}", value(n))).join(" "));
    println!("arguments {:?}", std::env::args().skip(1).collect::<Vec<_>>());
}
