//! Tests of the state machine; time is a number here.

use super::*;
use protocol::message::{Beat, Phase, Progress};

const GRACE: u64 = 30_000;
const HANG: u64 = 300_000;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Two workers that have reported, and then these events.
fn attempt(events: &[(u64, Event)]) -> Attempt {
    let mut attempt = Attempt::new(2, ms(GRACE), ms(HANG));
    for rank in 0..2 {
        attempt.on(ms(1), Event::Hello { rank: Rank(rank), host: format!("h{rank}"), pid: 1 });
    }
    feed(attempt, events)
}

fn feed(mut attempt: Attempt, events: &[(u64, Event)]) -> Attempt {
    for (at, event) in events {
        attempt.on(ms(*at), event.clone());
    }
    attempt
}

fn finished(rank: usize, exit: Exit) -> Event {
    Event::Said(Rank(rank), Message::Finished { exit })
}

fn failed(rank: usize, exit: Exit) -> Event {
    Event::Said(Rank(rank), Message::Failed { step: Step(7), exit, cause: "NaN".into() })
}

fn closed(rank: usize) -> Event {
    Event::Closed(Rank(rank))
}

fn ended(code: i32) -> [(u64, Event); 2] {
    [(500, Event::OutputEnded), (500, Event::MpirunEnded(Death::Code(code)))]
}

fn over(attempt: &Attempt, now: u64) -> Outcome {
    match attempt.next(ms(now)) {
        Next::Over(outcome) => outcome,
        other => panic!("not over: {other:?}"),
    }
}

fn cause(attempt: &Attempt, now: u64) -> Cause {
    match over(attempt, now) {
        Outcome::Failed(cause) => cause,
        other => panic!("no failure: {other:?}"),
    }
}

#[test]
fn all_done_and_mpirun_content_is_done() {
    let done = [(100, finished(0, Exit::Done)), (100, finished(1, Exit::Done)), (110, closed(0)), (110, closed(1))];
    let a = attempt(&done);
    assert_eq!(a.next(ms(200)), Next::Wait(Some(ms(60_100))));
    assert_eq!(over(&feed(a, &ended(0)), 500), Outcome::Done);
    let crashed = cause(&feed(attempt(&done), &ended(139)), 500);
    assert_eq!((crashed.exit, crashed.text.as_str()), (Exit::WorkerFailed, "mpirun ended with exit code 139"));
}

#[test]
fn workers_that_do_not_report_are_named() {
    let mut a = Attempt::new(3, ms(GRACE), ms(HANG));
    a.on(ms(1), Event::Hello { rank: Rank(1), host: "h".into(), pid: 1 });
    assert_eq!(a.next(ms(2)), Next::Wait(Some(HELLO_DEADLINE)));
    let cause = cause(&a, 60_000);
    assert_eq!((cause.rank, cause.exit), (Some(Rank(0)), Exit::WorkerFailed));
    assert!(cause.text.contains("1 of 3 workers reported") && cause.text.ends_with("missing: rank 0, 2"));
}

#[test]
fn a_failure_waits_for_the_others_and_a_better_cause() {
    let a = attempt(&[(100, failed(0, Exit::WorkerFailed))]);
    assert_eq!(a.next(ms(200)), Next::Wait(Some(ms(3100))));
    let a = feed(a, &[(1500, failed(1, Exit::BadData))]);
    let cause = cause(&a, 3100);
    assert_eq!((cause.rank, cause.exit), (Some(Rank(1)), Exit::BadData));
}

#[test]
fn a_death_gets_the_last_known_step() {
    let progress = Message::Progress(Progress { phase: "train".into(), done: 37, ..Progress::default() });
    let evaluating = Message::Progress(Progress { phase: "eval".into(), done: 2, ..Progress::default() });
    let events = [(50, Event::Said(Rank(0), progress)), (60, Event::Said(Rank(0), evaluating)), (100, closed(1))];
    assert_eq!(cause(&attempt(&events), 3100).step, Some(Step(37)));
}

#[test]
fn workers_are_asked_once_and_only_when_all_are_there() {
    let mut a = Attempt::new(2, ms(GRACE), ms(HANG));
    a.on(ms(10), Event::AskedToStop);
    assert_eq!(a.next(ms(11)), Next::Wait(Some(ms(10 + GRACE))));
    for rank in 0..2 {
        a.on(ms(20), Event::Hello { rank: Rank(rank), host: "h".into(), pid: 1 });
    }
    assert_eq!(a.next(ms(21)), Next::AskWorkers);
    a.asked();
    assert_eq!(a.next(ms(22)), Next::Wait(Some(ms(10 + GRACE))));
    assert!(a.is_stopping());
    assert_eq!(over(&a, 10 + GRACE), Outcome::Preempted { confirmed: false });
}

#[test]
fn rank_0_confirms_the_checkpoint() {
    let last = [(130, closed(0)), (130, closed(1))];
    let both = [(100, finished(0, Exit::Preempted)), (100, finished(1, Exit::Preempted))];
    let a = feed(feed(attempt(&both), &last), &ended(143));
    assert_eq!(over(&a, 500), Outcome::Preempted { confirmed: true });
    // mpirun killed rank 0 because rank 1 ended first.
    let a = feed(feed(attempt(&both[1..]), &last), &ended(143));
    assert_eq!(over(&a, 500), Outcome::Preempted { confirmed: false });
    // Rank 0 says why there is none.
    let no_space = [both[1].clone(), (110, failed(0, Exit::WorkerFailed))];
    let a = feed(feed(attempt(&no_space), &last), &ended(4));
    assert_eq!(cause(&a, 500).rank, Some(Rank(0)));
}

#[test]
fn one_preempted_worker_bounds_the_others_time() {
    let a = attempt(&[(100, finished(0, Exit::Preempted))]);
    assert_eq!(a.next(ms(200)), Next::Wait(Some(ms(100 + GRACE))));
    assert_eq!(over(&a, 100 + GRACE), Outcome::Preempted { confirmed: true });
}

#[test]
fn a_failure_after_the_request_is_a_failure() {
    let a = attempt(&[(10, Event::AskedToStop), (20, failed(1, Exit::WorkerFailed))]);
    assert_eq!(cause(&a, 3100).rank, Some(Rank(1)));
}

#[test]
fn a_checkpoint_that_the_others_wrote_after_a_failure_is_no_preemption() {
    let last = [(130, closed(0)), (130, closed(1))];
    let events = [(100, failed(1, Exit::WorkerFailed)), (110, finished(0, Exit::Preempted))];
    let a = feed(feed(attempt(&events), &last), &ended(4));
    assert_eq!(cause(&a, 500).rank, Some(Rank(1)));
    // Where somebody wants the job to end, or the failure came after it had been preempted, it is one.
    let asked = [&[(90, Event::AskedToStop)], &events[..], &last, &ended(4)].concat();
    assert_eq!(over(&attempt(&asked), 500), Outcome::Preempted { confirmed: true });
    let later = [(100, finished(0, Exit::Preempted)), (110, failed(1, Exit::WorkerFailed))];
    let a = feed(feed(attempt(&later), &last), &ended(4));
    assert_eq!(over(&a, 500), Outcome::Preempted { confirmed: true });
}

#[test]
fn some_signals_end_at_once() {
    assert_eq!(over(&attempt(&[(10, Event::MustEnd(2))]), 10), Outcome::Signalled(2));
    let twice = [(10, Event::AskedToStop), (20, Event::AskedToStop)];
    assert_eq!(over(&attempt(&twice), 20), Outcome::Preempted { confirmed: false });
}

#[test]
fn a_host_that_leaves_ends_the_start_and_not_the_job() {
    let a = attempt(&[(10, Event::Leaving("h1".into())), (12, Event::Leaving("h2".into()))]);
    assert_eq!(a.next(ms(13)), Next::AskWorkers);
    assert_eq!((a.is_stopping(), a.leaving()), (false, &["h1".to_owned(), "h2".to_owned()][..]));
    // A signal asks for the end of the job; the workers are given their time all the same.
    let mut both = feed(a, &[(20, Event::AskedToStop)]);
    both.asked();
    assert_eq!((both.is_stopping(), both.leaving().len()), (true, 0));
    assert_eq!(both.next(ms(21)), Next::Wait(Some(ms(10 + GRACE))));
    assert_eq!(over(&feed(both, &[(30, Event::AskedToStop)]), 31), Outcome::Preempted { confirmed: false });
}

#[test]
fn workers_that_outlive_mpirun_are_not_waited_for() {
    let a = attempt(&[(100, Event::MpirunEnded(Death::Signal(9))), (100, Event::OutputEnded)]);
    assert_eq!(a.next(ms(101)), Next::Wait(Some(ms(1100))));
    assert_eq!(cause(&a, 1100).text, "mpirun was killed by signal 9 (SIGKILL)");
}

#[test]
fn finished_workers_that_do_not_end_are_a_hang() {
    let a = attempt(&[(100, finished(0, Exit::Done)), (100, finished(1, Exit::Done))]);
    assert_eq!(cause(&a, 60_100).exit, Exit::Hang);
}

fn beat(rank: usize, count: u64, waits: bool) -> Event {
    let waits_for = waits.then(|| "gradient all-reduce".to_owned());
    let beat =
        Beat { count, waits: count, step: Step(7), phase: Phase::Backward, waits_for, bucket: waits.then_some(1) };
    Event::Said(Rank(rank), Message::Beat(beat))
}

#[test]
fn a_halt_is_a_hang_of_the_rank_that_does_not_wait() {
    let a = attempt(&[(1000, beat(0, 5, false)), (1000, beat(1, 5, false)), (2000, beat(0, 6, true))]);
    assert_eq!(a.next(ms(2000)), Next::Wait(Some(ms(2000 + HANG))));
    let cause = cause(&feed(a, &[(HANG, beat(0, 6, true))]), 2000 + HANG);
    assert_eq!((cause.rank, cause.step, cause.exit), (Some(Rank(1)), Some(Step(7)), Exit::Hang));
    assert!(cause.text.starts_with("no progress for 300 s") && cause.text.contains("bucket 1"), "{}", cause.text);
}

#[test]
fn after_a_failure_a_halt_is_no_news() {
    let beats = [(800, beat(0, 5, false)), (800, beat(1, 5, false))];
    for (event, until) in [(failed(0, Exit::WorkerFailed), 3900), (Event::MpirunEnded(Death::Code(1)), 1900)] {
        let mut a = Attempt::new(2, ms(GRACE), ms(1000));
        for rank in 0..2 {
            a.on(ms(1), Event::Hello { rank: Rank(rank), host: "h".into(), pid: 1 });
        }
        let a = feed(a, &beats);
        assert_eq!(a.next(ms(801)), Next::Wait(Some(ms(1800))));
        assert_eq!(feed(a, &[(900, event)]).next(ms(901)), Next::Wait(Some(ms(until))));
    }
}

#[test]
fn who_loses_patience_first_is_not_to_blame() {
    let a = attempt(&[(1000, beat(1, 5, false)), (1000, beat(0, 5, true)), (9000, beat(0, 5, true))]);
    let a = feed(a, &[(9500, failed(0, Exit::Hang)), (9600, closed(1))]);
    let cause = cause(&a, 20_000);
    assert_eq!((cause.rank, cause.exit), (Some(Rank(1)), Exit::Hang));
    assert!(
        cause.text.contains("no sign of life for 8 s") && cause.text.ends_with("rank 0 gave up: NaN"),
        "{}",
        cause.text
    );
}

#[test]
fn a_launcher_that_slept_waits_again() {
    let mut a = attempt(&[(1000, beat(0, 5, false)), (1000, beat(1, 5, false))]);
    a.slept(ms(900_000));
    assert_eq!(a.next(ms(900_001)), Next::Wait(Some(ms(900_000 + HANG))));
}
